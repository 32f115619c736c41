"""The files of one attack are one set: whole, or named as what they are, whenever a process is killed."""

import errno
import itertools
import json
import os
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest

from lira import atomic
from lira.errors import InputError
from lira.storage import attack_set
from lira.storage.attack_set import load_file, load_record, lock_results, one_attack
from lira.storage.owner import Source
from tests.helpers import killing
from tests.helpers.errors import input_error_line
from tests.helpers.scripts import contents
from tests.helpers.workers import in_threads

SOURCE = Source("scores", "s" * 64)
FIRST = {"attack.csv": 1, "samples.csv": 1, "curve.csv": 1, "images.npz": 1}  # file -> its content
SECOND = {"attack.csv": 2, "samples.csv": 2, "exposed.csv": 2, "images.npz": 2}
OTHERS = {"models.csv": b"models", "scores.npz": b"scores", "train/target_00.csv": b"log", "report.html": b"page"}


def save(results, files):
    tables = {name: pd.DataFrame({"value": [value]}) for name, value in files.items() if name.endswith(".csv")}
    arrays = {name: {"value": np.array(value)} for name, value in files.items() if name.endswith(".npz")}
    with one_attack(results, SOURCE) as new_set:
        new_set.save(tables, arrays, {"command": f"attack {max(files.values())}"})


def loaded(results):
    """{file: content} and the command of the set. Raises InputError."""
    record = load_record(results)
    files = {name: load_file(results, record, name) for name in record["files"]}
    values = {name: int(content.split()[1]) for name, content in files.items() if name.endswith(".csv")}
    for name in files.keys() - values.keys():
        values[name] = int(np.load(results / name)["value"])
    return values, record["command"]


@pytest.fixture
def results(tmp_path):
    """A folder with the first set, and files beside it."""
    save(tmp_path / "f", FIRST)
    for name, content in OTHERS.items():
        (tmp_path / "f" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "f" / name).write_bytes(content)
    return tmp_path / "f"


def test_an_attack_replaces_all_of_the_earlier_one_and_nothing_else(results):
    assert loaded(results) == (FIRST, "attack 1")
    save(results, SECOND)
    assert loaded(results) == (SECOND, "attack 2")
    assert contents(results).keys() == SECOND.keys() | (OTHERS.keys() - {"report.html"}) | {"attack.json"}
    for name in OTHERS.keys() - {"report.html"}:
        assert (results / name).read_bytes() == OTHERS[name]


def killed(results, step):
    """Whether a process that saves the second set was killed at this step of its writing, before it was done."""
    child = os.fork()
    if not child:
        try:
            killing.WriteSteps(step).install()
            save(results, SECOND)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def test_killed_in_each_step_it_leaves_one_set_or_none(tmp_path):
    """None is named as interrupted, and the next attack leaves its own files alone."""
    outcomes = []
    for step in itertools.count(1):
        results = tmp_path / f"killed at {step}"
        save(results, FIRST)
        if not killed(results, step):
            break
        try:
            outcomes.append(loaded(results))
        except InputError as error:
            outcomes.append(str(error).removeprefix(f"{results}/").partition(":")[0])
        save(results, {"attack.csv": 3})
        atomic.remove_stale(results)
        assert contents(results).keys() == {"attack.json", "attack.csv"}
    interrupted = "attack.json is missing (an attack was interrupted while it wrote)"
    assert [key for key, _ in itertools.groupby(outcomes)] == [(FIRST, "attack 1"), interrupted, (SECOND, "attack 2")]


def test_a_full_disk_keeps_the_earlier_set(results, monkeypatch):
    before = contents(results)
    monkeypatch.setattr(np, "savez", lambda *args, **arrays: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    assert "full; earlier results are intact" in input_error_line(save, results, SECOND)
    assert contents(results) == before


def test_a_file_of_another_attack_is_rejected_by_name(results, tmp_path):
    save(tmp_path / "other", SECOND)
    for name in ("samples.csv", "images.npz"):
        valid = (results / name).read_bytes()
        (results / name).write_bytes((tmp_path / "other" / name).read_bytes())
        assert f"{results / name} is corrupted (it is not what the attack" in input_error_line(loaded, results)
        (results / name).write_bytes(valid)
    (results / "curve.csv").unlink()
    assert f"{results / 'curve.csv'} cannot be read (No such file" in input_error_line(loaded, results)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"command": ""}', b'{"files": []}', b'{"files": {}}'])
def test_a_record_that_names_no_tables_is_rejected(results, content):
    (results / "attack.json").write_bytes(content)
    assert "attack.json is corrupted (it does not name the tables" in input_error_line(loaded, results)
    save(results, SECOND)
    assert loaded(results) == (SECOND, "attack 2")


@pytest.mark.parametrize("name", ["../models.csv", "/etc/passwd", "train", "config.json"])
def test_a_record_removes_and_reads_no_other_file(results, name):
    """Whatever was put into it."""
    (results.parent / "models.csv").write_text("another's")
    (results / "config.json").write_text("{}")
    record = json.loads((results / "attack.json").read_text())
    record["files"][name] = "0"
    (results / "attack.json").write_text(json.dumps(record))
    assert "attack.json is corrupted" in input_error_line(loaded, results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attack_set, "check_owner", lambda results, source: None)  # config.json is that of a run
        save(results, SECOND)
    assert (results.parent / "models.csv").read_text() == "another's"
    assert (results / "config.json").read_text() == "{}"
    assert (results / "train").is_dir()


# --- the lock ------------------------------------------------------------------------------------------------------


def test_attacks_on_one_folder_take_turns(results, capsys):
    """Each sees that of the other complete. Who waits says so; no lock is left."""
    inside, overlaps = threading.Lock(), []

    def attack():
        with one_attack(results, SOURCE):
            overlaps.append(not inside.acquire(blocking=False))
            time.sleep(0.05)
            inside.release()

    in_threads(*[attack] * 4)
    assert overlaps == [False] * 4
    assert f"another attack works on {results}: waiting until it is done" in capsys.readouterr().err
    assert not list(results.glob(".*"))


def test_a_folder_in_which_nothing_was_written_is_removed(tmp_path):
    with one_attack(tmp_path / "new" / "f", SOURCE):
        assert (tmp_path / "new" / "f").is_dir()
    assert not (tmp_path / "new" / "f").exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(results, monkeypatch, capsys, code):
    def fail(handle, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic, "flock", fail)
    save(results, SECOND)
    assert loaded(results) == (SECOND, "attack 2")
    err = capsys.readouterr().err
    assert f"warning: {results} cannot be locked ({os.strerror(code)}): run one attack on it at a time\n" in err
    with lock_results(results):
        pass
    assert not list(results.glob(".*"))
