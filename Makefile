PYTHON ?= python3
RUN = .venv/bin/python
CHROMIUM = chromium chromium-browser google-chrome google-chrome-stable

.PHONY: demo test test-long bench browser-test lint clean

demo: .venv/ready ## train and attack on digits, 5 targets; no download
	$(RUN) train_model.py $(DEMO)
	$(RUN) attack_lira.py $(DEMO)

test: .venv/ready-dev ## the test suite, in two processes
	$(RUN) -m pytest -n 2 --dist loadfile

test-long: .venv/ready-dev ## slow tests: kills at random times, a full disk, 256 shadows, large inputs, leakage, 10,000 corrupted files, 1,000 command lines
	$(RUN) benchmarks/kills.py
	$(RUN) benchmarks/many_shadows.py --quiet
	$(RUN) benchmarks/large_inputs.py
	$(RUN) benchmarks/attacks_leakage.py
	PYTHONPATH=. $(RUN) tests/storage/test_corruption.py 10000 2>/dev/null
	PYTHONPATH=. $(RUN) tests/test_command_lines.py 1000

bench: .venv/ready ## the quick tables: speed against a plain loop and the hardware's limit, bf16 against fp32
	$(RUN) benchmarks/train_throughput.py --rounds 2
	$(RUN) benchmarks/precision.py

browser-test: .venv/ready-browser ## the reports in headless Chromium, narrow and wide, light and dark; screenshots in result/browser-test/
	@which $(CHROMIUM) 2>/dev/null | grep -q . || { test -x "$$(command -v apt-get)" && apt-get install -y chromium; } \
		|| $(RUN) -m playwright install chromium
	$(RUN) tests/browser.py

lint: .venv/ready-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache

# Few images, small batches, no augmentation: digits leak little otherwise (benchmarks/RESULTS.md).
DEMO = --dataset digits --network ConvNet --disable-dp --epochs 30 --lr 0.02 --train-batch-size 64 \
	--n-train 200 --no-augment --n-runs 5

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v}: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/ready: .venv/bin/python requirements.txt constraints.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	@touch $@

.venv/ready-browser: .venv/ready requirements-browser.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-browser.txt
	@touch $@
