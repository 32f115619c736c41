"""The wheel of `pip install .`: lira and its packages with their templates and dependencies, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_string

import numpy as np
import pytest

from tests.helpers.attack_inputs import inputs
from tests.helpers.scripts import ENVIRONMENT, ROOT

# What the README's lines do, and a page, which needs the templates.
USE = """
import sys
from pathlib import Path
import lira.report.html
from lira.attacks import run
from lira.storage.attack_set import one_attack
from lira.storage.owner import source_of_file
from lira.storage.runs import Run
from lira.storage.scores import read_scores

inputs = read_scores(Path("theirs.npz"), n_targets=1)
how = dict(convention="lira", fdr=0.05, with_leave_one_out=False, with_curve=False, quiet=True)
tables = run.run_attacks(inputs, names=["loss"], **how)
lira.report.html.plots.plots = lambda results: {}
with one_attack(Path("page"), source_of_file("--scores", "theirs.npz")) as attack_set:
    attack_set.save(tables, {}, {"fdr": 0.05})
print(lira.report.html.write(Run(Path("page"), Path("page")))[1].stat().st_size)
print(lira.report.html.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools writes into the folder that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "requirements.txt", "LICENSE", *(path.name for path in ROOT.glob("*.py"))):
        shutil.copy(ROOT / name, folder / name)
    for name in ("lira", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder / "dist")]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (path,) = (folder / "dist").iterdir()
    return path


def test_the_wheel_holds_the_packages_their_templates_and_the_dependencies(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        (metadata,) = (file.read(name).decode() for name in file.namelist() if name.endswith("/METADATA"))
    sources = {path for path in (ROOT / "lira").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(ROOT).as_posix() for path in sources}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = message_from_string(metadata).get_all("Requires-Dist")
    assert sorted(required) == sorted(line for line in lines if line and not line.startswith("#"))


def test_lira_works_from_an_empty_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "installed")
    empty = tmp_path / "empty"
    empty.mkdir()
    scores = inputs(n_targets=1)
    np.savez(empty / "theirs.npz", phi=scores.phi, member=scores.member, label=scores.label)
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-c", USE]
    finished = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    size, file = finished.stdout.split()
    assert int(size) > 5_000
    assert file == str(tmp_path / "installed" / "lira" / "report" / "html.py")
