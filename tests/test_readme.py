"""The code in the READMEs runs as written, their commands parse, and the tests that they name exist."""

import json
import re
import shlex
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from lira.attacks import run
from lira.attacks.metrics import auc
from lira.storage.config import FORMAT
from tests.helpers.attack_inputs import inputs
from tests.helpers.scripts import ROOT
from util import make_config, parse_args

READMES = ("README.md", "README.ja.md")


def code_blocks(name: str) -> list[str]:
    """The indented blocks of a README that import from lira: of scores, and of a DP-SGD step (run by
    tests/privacy/test_canaries.py)."""
    blocks = re.findall(r"(?:(?: {4}.*)?\n)+", (ROOT / name).read_text(encoding="utf-8"))
    return [textwrap.dedent(text).strip() + "\n" for text in blocks if "from lira." in text]


def commands(name: str) -> list[tuple[str, list[str]]]:
    """(script, flags) of every command in an indented block of a README."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^ {4}.*?\b(train_model\.py|attack_lira\.py) (.*)$", text, flags=re.MULTILINE)
    return [(script, shlex.split(flags.replace("$SLURM_ARRAY_TASK_ID", "1"), comments=True)) for script, flags in found]


def test_both_languages_have_the_same_code():
    assert code_blocks("README.md") == code_blocks("README.ja.md")
    assert commands("README.md") == commands("README.ja.md")


@pytest.mark.parametrize(("script", "flags"), commands("README.md"), ids=str)
def test_every_command_parses(tmp_path, monkeypatch, script, flags):
    monkeypatch.chdir(tmp_path)
    if "--run" in flags:
        folder = tmp_path / "model" / flags[flags.index("--run") + 1]
        folder.mkdir(parents=True)
        content = {"format": FORMAT, "identity": {}, "flags": make_config({}).flags(precision="bf16")}
        (folder / "config.json").write_text(json.dumps(content))
    parse_args(flags, description="", script=script)


def test_the_ten_lines_attack_scores(tmp_path):
    scores = inputs(n_targets=1)
    np.savez(tmp_path / "theirs.npz", phi=scores.phi, member=scores.member, label=scores.label)
    code, _ = code_blocks("README.md")
    assert len([line for line in code.splitlines() if line]) <= 10
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stderr) == (0, "")
    results = run.attack_targets(scores.phi, scores.member, n_targets=1, attacks=["lira", "lira-bayes"])
    for line, result in zip(completed.stdout.splitlines(), results, strict=True):
        accuracy = ((result.score >= result.threshold) == scores.member[0]).mean()
        area = auc(result.score, scores.member[0])
        assert line.startswith(f"{result.attack}: accuracy {accuracy:.1%}, AUC {area:.3f}, TPR ")
        assert line.endswith(f"held-out AUC {result.held_out_auc:.3f}")


@pytest.mark.parametrize("name", READMES)
def test_every_test_that_the_table_names_exists(name):
    named = set(re.findall(r"`(test_\w+)`", (ROOT / name).read_text(encoding="utf-8")))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert {test for test in named if f"def {test}(" not in sources} == set()
