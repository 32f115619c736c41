"""README and docs/: their code runs as written, their commands parse, and all that they name exists."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lira.attacks import run
from lira.attacks.metrics import auc
from lira.attacks.registry import ATTACKS
from lira.attacks.statistics import scaled_logit
from lira.data.readers import read_npz
from lira.privacy.audit import CanaryScores, Mechanism
from lira.privacy.mechanism import CHECKS, Estimate
from lira.report.plots import PLOTS
from lira.storage.canaries import CanaryResults
from lira.storage.config import FORMAT
from network import build
from tests.helpers.attack_inputs import inputs
from tests.helpers.datasets import arrays
from tests.helpers.documents import DOCS, READMES, anchor, blocks, commands, prose, python, read, sections, tables
from tests.helpers.report import attacked_run
from tests.helpers.scripts import ROOT
from util import build_parser, make_config, parse_args

DOCUMENTS = ("README.md", *DOCS)
MAX_WORDS = 1800

# --- both languages --------------------------------------------------------------------------------------------------


def test_both_languages_have_the_same_code_and_the_same_figures_in_their_tables():
    """Comments of shell commands are translated."""
    english, japanese = (
        [re.sub(r" +# .*", "", block) if "import " not in block else block for block in blocks(name)]
        for name in READMES
    )
    assert english == japanese
    rows = [tables(read(name)) for name in READMES]
    assert [len(row) for row in rows[0]] == [len(row) for row in rows[1]]
    for cells, translated in zip(*rows, strict=True):
        for cell, other in zip(cells, translated, strict=True):
            figures, others = (re.findall(r"\d[\d,.]*\d|\d", text) for text in (cell, other))
            assert set(figures) <= set(others), (cell, other)  # "two cores" may have a figure there


def test_the_readme_is_read_in_five_minutes():
    assert len(read("README.md").split()) <= MAX_WORDS


# Words that a reader who knows PyTorch and the LiRA paper does not meet, or that mean more than one thing.
PRIVATE_WORDS = (
    "aside answer answers ask asked asks bench chance coin coins cut cuts doubt evidence fewest fleet freedom level "
    "levels life meet meets mend opposite picture pictures play player players pool promise question questions reach "
    "reaches refuse refused right room said say says settled sound strength tally trust twins"
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_private_word(name):
    words = f"{'|'.join(PRIVATE_WORDS.split())}|by heart|gives? away"
    assert re.findall(rf"(?i)\b(?:{words})\b", prose(name)) == []


# --- what is named exists --------------------------------------------------------------------------------------------

# Flags of torchrun and of SLURM.
FOREIGN = (
    "nproc-per-node|max-restarts|nnodes|rdzv-[a-z]+|master-port|"
    "array|gres|cpus-per-task|time|requeue|nodes|ntasks-per-node"
)
COLUMNS_LIKE_TESTS = {"test_accuracy", "test_loss", "test_guesses", "test_correct"}


@pytest.mark.parametrize("name", [*READMES, *DOCS])
def test_every_flag_exists(name):
    known = build_parser("")._option_string_actions.keys() | {"--help-all"}
    flags = set(re.findall(rf"(?<![\w-])--(?!(?:{FOREIGN})\b)[a-z][\w-]*", read(name)))
    assert flags - known == set()


@pytest.mark.parametrize("name", [*READMES, *DOCS])
def test_every_link_test_target_and_module_exists(name):
    text = read(name)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.is_file(), link
        assert not heading or heading in map(anchor, sections(str(target.relative_to(ROOT)))), link
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    missing = {test for test in re.findall(r"`(test_\w+)`", text) if f"def {test}(" not in sources}
    assert missing <= COLUMNS_LIKE_TESTS
    targets = re.findall(r"(?m)^([\w-]+):", read("Makefile"))
    assert set(re.findall(r"(?m)(?:`|^ {4})make ([\w-]+)", text)) <= set(targets)
    for path in re.findall(r"(?<![\w/])(?:benchmarks|tests|docs)/[\w/]+\.\w+", text):
        assert (ROOT / path).is_file(), path
    for dotted in re.findall(r"`(lira(?:\.\w+)+)`", text):
        module, _, attribute = dotted.rpartition(".")
        try:
            importlib.import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), dotted


@pytest.mark.parametrize(("script", "flags"), [pair for name in DOCUMENTS for pair in commands(name)], ids=str)
def test_every_command_parses(tmp_path, monkeypatch, script, flags):
    monkeypatch.chdir(tmp_path)
    if "--run" in flags:
        folder = tmp_path / "model" / flags[flags.index("--run") + 1]
        folder.mkdir(parents=True)
        content = {"format": FORMAT, "identity": {}, "flags": make_config({}).flags(precision="bf16")}
        (folder / "config.json").write_text(json.dumps(content))
    parse_args(flags, description="", script=script)


# --- files and columns -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(finished, tmp_path_factory) -> dict[str, list[str]]:
    """File -> its columns or arrays: of the finished run, of an attack with more shadows, and of gradient canaries."""
    attacked = attacked_run(tmp_path_factory.mktemp("attacked"), images=True).results
    canary = CanaryScores(np.zeros(2), np.array([True, False]))
    canaries = CanaryResults((canary,), (tuple(Estimate(check, "all", 1.0, 9) for check in CHECKS),))
    found = {
        path.relative_to(folder).as_posix(): path
        for folder in (attacked, finished.results)
        for path in folder.rglob("*")
    }
    columns = {
        "mechanism.csv": list(canaries.mechanism_table([Mechanism(1.0, 0.25, 9)])),
        "canaries.npz": list(canaries.arrays),
    }
    for name, path in found.items():
        if path.suffix == ".csv":
            columns[name] = list(pd.read_csv(path, nrows=1))
        elif path.suffix == ".npz":
            columns[name] = np.load(path).files
        elif path.is_file():
            columns[name] = []
    for name in ("samples.csv", "exposed.csv"):
        columns[name] = list(pd.read_csv(attacked / name, nrows=1))
    return columns


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_column_and_array_is_explained(results):
    parts = sections("docs/files.md")
    with_columns = [heading for heading in parts if heading.endswith((".csv", ".npz"))]
    same_as_attack = {"leave_one_out.csv", "curve.csv"}
    written = {name for name, columns in results.items() if columns and not re.match(r"train/(?!shadow_00)", name)}
    assert set(with_columns) == written - same_as_attack
    for name in same_as_attack & written:
        assert results[name] == results["attack.csv"]
    for name in with_columns:
        explained = [column for row in tables(parts[name])[1:] for column in named(row[0])]
        run_attacks = [attack for attack in ATTACKS if attack in results[name]]
        for pattern in ("<attack>", "<attack>_decision"):
            if pattern in explained:
                explained.remove(pattern)
                explained += [pattern.replace("<attack>", attack) for attack in run_attacks]
        assert sorted(explained) == sorted(results[name]), name


def test_every_file_is_explained(results):
    rows = [row for heading, text in sections("docs/files.md").items() if heading.endswith("/") for row in tables(text)]
    explained = {name for row in rows for name in named(row[0])}
    figures = {plot.name for plot in PLOTS}
    written = {re.sub(r"_\d\d\.", "_00.", name) for name in results} - {"train/target_00.csv"}
    written = {name.removesuffix(".png").removesuffix(".pdf") for name in written}
    assert written <= explained
    in_model = {
        "target_00.pt",
        "shadow_00.pt",
        "shadow_00.resume.pt",
        "shadow_00.failed.json",
        "shadow_00.pt.corrupted",
    }
    others = {"leave_one_out.csv", "train/target_00.canaries.<digest>.npz", ".attack.lock"}
    assert explained <= written | figures | in_model | others
    assert figures <= explained


# --- code that runs --------------------------------------------------------------------------------------------------


def test_the_ten_lines_attack_scores(tmp_path):
    scores = inputs(n_targets=1)
    np.savez(tmp_path / "theirs.npz", phi=scores.phi, member=scores.member, label=scores.label)
    code = python("docs/api.md", "attack_targets")
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


@pytest.mark.parametrize("document", ["README.md", "docs/api.md"])
def test_the_networks_are_built(document, tmp_path, monkeypatch):
    (tmp_path / f"mynets_{Path(document).stem}.py").write_text(python(document, "def wide"))
    monkeypatch.chdir(tmp_path)
    how = dict(num_classes=4, in_channels=3, size=(8, 10), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    assert build(f"mynets_{Path(document).stem}:wide", **how) is not None


def test_the_data_of_the_readme_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, member = arrays(), np.array([True, False, True, False])
    names = {"others": "x_train", "other_labels": "y_train", "faces": "x_test", "labels": "y_test"}
    exec(python("README.md", "faces.npz"), {name: data[array] for name, array in names.items()} | {"member": member})
    images = read_npz(Path("faces.npz"))
    assert (images.member == member).all()
    assert images.x_test.shape == (4, 3, 8, 10)


def test_the_two_lines_of_phi():
    (lines,) = (block for block in blocks("docs/experiment.md") if "logaddexp" in block)
    logits, y = np.random.default_rng(0).normal(size=(50, 7)) * 30, np.arange(50) % 7
    names = {"np": np, "logits": logits, "y": y, "K": 7}
    exec(lines, names)
    np.testing.assert_allclose(names["phi"], scaled_logit(logits, y), rtol=1e-12)
