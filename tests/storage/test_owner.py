"""Whose a folder of results is: results of one source are not written over those of another."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lira.storage.attack_set import one_attack
from lira.storage.owner import Source, check_owner, source_of_file
from lira.storage.runs import open_run
from tests.helpers.errors import input_error_line
from tests.helpers.runs import IDENTITY, RECORDED
from tests.helpers.scripts import contents

TABLES = {"attack.csv": pd.DataFrame({"a": [1]})}


def scores_file(folder, seed=0):
    folder.mkdir(exist_ok=True)
    np.savez(folder / "f.npz", phi=np.random.default_rng(seed).normal(size=5))
    return source_of_file("--scores", str(folder / "f.npz"))


def attack(results, source):
    with one_attack(results, source) as attack_set:
        attack_set.save(TABLES, {}, {})


def test_scores_are_not_written_over_those_of_another_file(tmp_path):
    first, second = scores_file(tmp_path / "a"), scores_file(tmp_path / "b", seed=1)
    attack(tmp_path / "f", first)
    before = contents(tmp_path / "f")
    line = input_error_line(attack, tmp_path / "f", second)
    for source in (first, second):
        assert source.name in line
        assert source.sha256[:12] in line
    assert f"{tmp_path / 'a' / 'f.npz'}" in first.name
    assert contents(tmp_path / "f") == before


def test_a_file_may_move_and_not_change(tmp_path):
    attack(tmp_path / "f", scores_file(tmp_path / "a"))
    shutil.move(tmp_path / "a" / "f.npz", tmp_path / "moved.npz")
    attack(tmp_path / "f", source_of_file("--scores", str(tmp_path / "moved.npz")))
    input_error_line(attack, tmp_path / "f", scores_file(tmp_path / "a", seed=2))


def test_scores_are_not_written_into_the_folder_of_a_run(run, tmp_path):
    line = input_error_line(attack, run.results, scores_file(tmp_path / "a"))
    assert f"the run {run.name} (by its config.json)" in line
    assert "f.npz" in line
    assert contents(run.results).keys() == {"config.json"}


@pytest.mark.parametrize("record", [None, RECORDED])
def test_a_run_is_not_made_in_the_folder_of_scores(run, tmp_path, record):
    """Neither trained nor attacked there."""
    source = scores_file(tmp_path / "a")
    for folder in (run.models, run.results):
        shutil.rmtree(folder)
    attack(run.results, source)
    before = contents(tmp_path)
    folders = run.models.parent, run.results.parent
    assert source.name in input_error_line(open_run, *folders, IDENTITY, record=record)
    assert contents(tmp_path) == before


def test_a_run_is_recognised_by_its_attack_where_its_config_is_lost(run, tmp_path):
    attack(run.results, run.source)
    (run.results / "config.json").unlink()
    attack(run.results, run.source)
    assert f"the run {run.name}" in input_error_line(attack, run.results, scores_file(tmp_path / "a"))


def test_a_folder_of_a_run_and_a_file_belongs_to_both(run):
    """Two files with the shadows of the same run, whose config.json the folder holds."""
    first, second = (Source(f"the run with {name}", name, run.identity) for name in ("mine.pt", "other/mine.pt"))
    attack(run.results, first)
    attack(run.results, first)
    assert "other/mine.pt" in input_error_line(attack, run.results, second)
    of_another_run = Source(first.name, first.sha256, "another run")
    assert "config.json" in input_error_line(check_owner, run.results, of_another_run)


def test_an_interrupted_attack_owns_its_folder_too(tmp_path):
    first, second = scores_file(tmp_path / "a"), scores_file(tmp_path / "b", seed=1)
    attack(tmp_path / "f", first)
    content = json.loads((tmp_path / "f" / "attack.json").read_text())
    (tmp_path / "f" / "attack.json").rename(tmp_path / "f" / ".attack.lock")
    assert first.name in input_error_line(attack, tmp_path / "f", second)
    attack(tmp_path / "f", first)
    assert json.loads((tmp_path / "f" / "attack.json").read_text()) == content


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 99999, b'{"source": {}}', b'{"files": []}'])
def test_what_names_no_owner_is_nobodys(tmp_path, content):
    (tmp_path / "f").mkdir()
    for name in ("attack.json", ".attack.lock"):
        (tmp_path / "f" / name).write_bytes(content)
    (tmp_path / "f" / "notes.txt").write_text("the user's")
    attack(tmp_path / "f", scores_file(tmp_path / "a"))
    assert contents(tmp_path / "f").keys() == {"attack.json", "attack.csv", "notes.txt"}


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert f"--scores {tmp_path} cannot be read" in input_error_line(source_of_file, "--scores", str(tmp_path))
