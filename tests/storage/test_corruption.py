"""Corrupted files are noticed and named; nothing that they hold is taken for a result.

`python tests/test_corruption.py 1000` damages a thousand files, or as many as you like."""

import json
import random
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import train_model
from lira.errors import CorruptedFile, InputError
from lira.storage.names import run_name, safe_name
from lira.storage.runs import open_run

IDENTITY = {
    "dataset": "digits", "network": "tiny", "optimizer": "MSGD", "lr": 0.05, "batch_size": 256, "epochs": 2,
    "precision": "fp32", "augment": True, "n_train": 100, "exp_idx": 0, "lr_step": 80, "target_inclusion": "half",
    "data_fingerprint": "0123456789abcdef", "n_train_is_default": True,
}  # fmt: skip
ROW = {"model": "shadow_00", "lr": 0.05, "train_loss": 1.25, "train_accuracy": 0.5, "test_loss": None, "epsilon": None}
HISTORY = [ROW | {"epoch": epoch, "test_accuracy": 0.25 * epoch, "seconds": 0.1 * epoch} for epoch in (1, 2)]
JOB = ("shadow", 0)
CASES = 1000


def make_run(folder):
    """A run with a file of each kind. Returns it with what the files hold."""
    run = open_run(folder / "model", folder / "result", IDENTITY, provenance={"device": "cpu"})
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = {"weights": model.state_dict(), "optimizer": sgd.state_dict(), "torch": torch.get_rng_state()}
    run.save_weights(*JOB, model.state_dict(), {"test_accuracy": 0.5, "device": "cpu", "history": HISTORY})
    run.save_log("shadow_00", HISTORY)
    run.save_resume(*JOB, state | {"history": HISTORY})
    rng = np.random.default_rng(0)
    phi, member = rng.normal(size=(5, 20, 1)).astype(np.float32), rng.random((5, 20)) < 0.5
    run.save_scores(phi=phi, member=member, weights=np.array(["a", "b", "c", "d", "e"]))
    return run


def corruption(content: bytes, rng) -> bytes:
    """One flipped bit, some foreign bytes, a cut, a hole, or bytes too many."""
    content, place = bytearray(content), rng.randrange(len(content))
    kind = rng.choice(["flip", "flip", "overwrite", "cut", "hole", "insert"])
    if kind == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "overwrite":
        content[place : place + 4] = rng.randbytes(len(content[place : place + 4]))
    elif kind == "insert":
        content[place:place] = rng.randbytes(1 + rng.randrange(8))
    else:
        del content[place : None if kind == "cut" else place + 1 + rng.randrange(64)]
    return bytes(content)


READERS = {
    "weights": (lambda run: run.weights_path(*JOB), lambda run: (run.load_weights(*JOB), run.record(*JOB))),
    "resume": (lambda run: run.resume_path(*JOB), lambda run: run.load_resume(*JOB)),
    "scores": (lambda run: run.results / "scores.npz", lambda run: run.load_scores()),
    "config": (lambda run: run.models / "config.json", lambda run: _reopened(run)),
    "log": (lambda run: run.results / "train" / "shadow_00.csv", lambda run: _log(run)),
}


def _reopened(run):
    return open_run(run.models.parent, run.results.parent, IDENTITY).identity


def _log(run):
    return run.load_logs()["shadow_00"].to_csv()


def _same(a, b) -> bool:
    if isinstance(a, dict | list | tuple):
        keys = a if isinstance(a, dict) else range(len(a))
        return len(a) == len(b) and all(_same(a[key], b[key]) for key in keys)
    if isinstance(a, torch.Tensor | np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return a == b


def fuzz(folder, kind, *, cases, seed=0):
    """Damage a file `cases` times. Returns how often it was refused, and how often it could still be read whole."""
    run = make_run(folder)
    find, read = READERS[kind]
    path, rng = find(run), random.Random(f"{kind} {seed}")
    sound, before = path.read_bytes(), read(run)
    refused, harmless = 0, 0
    for case in range(cases):
        path.write_bytes(corruption(sound, rng))
        try:
            after = read(run)
        except InputError as error:
            after, said = None, str(error)
            if "\n" in said:
                pytest.fail(f"{kind} {case}: more than a line: {said}")
        if after is None:
            refused += 1
        else:
            assert _same(after, before), f"{kind} {case}: another result was taken from a corrupted file"
            harmless += 1
    path.write_bytes(sound)
    assert _same(read(run), before)
    return refused, harmless


@pytest.mark.parametrize("kind", READERS)
def test_fuzz(kind, tmp_path, capsys):
    refused, harmless = fuzz(tmp_path, kind, cases=CASES // len(READERS))
    if kind == "log":
        assert refused == 0, "the copy beside the weights replaces a corrupted log"
    elif kind == "config":
        assert refused > 0
    else:
        assert refused > harmless, "only padding and what zip says twice may be flipped without notice"


def test_corrupted_weights_are_named_moved_aside_and_trained_again(tmp_path, capsys):
    run = make_run(tmp_path)
    path = run.weights_path(*JOB)
    path.write_bytes(path.read_bytes()[:-100])
    assert not run.is_complete(*JOB)
    assert "shadow_00.pt is corrupted" in capsys.readouterr().err
    assert not path.exists()
    assert path.with_suffix(".pt.corrupted").exists()


def test_weights_of_another_model_or_other_settings(tmp_path, capsys):
    run = make_run(tmp_path)
    run.weights_path(*JOB).rename(run.weights_path("shadow", 1))
    with pytest.raises(CorruptedFile, match="another model"):
        run.load_weights("shadow", 1)
    other = open_run(tmp_path / "other", tmp_path / "elsewhere", IDENTITY | {"lr_step": 5}, provenance={})
    other.weights_path(*JOB).write_bytes(run.weights_path("shadow", 1).read_bytes())
    with pytest.raises(CorruptedFile, match="other settings"):
        other.record(*JOB)


def test_corrupted_resume_file_starts_the_model_anew(tmp_path, capsys):
    run = make_run(tmp_path)
    run.resume_path(*JOB).write_bytes(b"half a fi")
    assert run.load_resume(*JOB) is None
    said = capsys.readouterr().err
    assert "shadow_00.resume.pt is corrupted" in said
    assert "from its beginning" in said


def test_corrupted_scores_are_named_and_asked_again(tmp_path, capsys):
    run = make_run(tmp_path)
    (run.results / "scores.npz").write_bytes(b"")
    assert run.load_scores() is None
    assert "scores.npz is corrupted" in capsys.readouterr().err


def test_corrupted_log_is_named_and_mended(tmp_path, capsys):
    run = make_run(tmp_path)
    path = run.results / "train" / "shadow_00.csv"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b"1.25", b"1.26"))
    assert run.is_complete(*JOB)
    assert "shadow_00.csv was corrupted, changed or lost" in capsys.readouterr().err
    assert path.read_bytes() == sound


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"identity": 5}', "{" * 99999, "\x00"])
def test_corrupted_config_is_named(content, tmp_path):
    run = make_run(tmp_path)
    (run.models / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json is corrupted"):
        open_run(tmp_path / "model", tmp_path / "result", IDENTITY)


def test_other_settings_are_named(tmp_path):
    make_run(tmp_path)
    with pytest.raises(InputError, match="lr_step = 80, these flags and data ask for 81"):
        open_run(tmp_path / "model", tmp_path / "result", IDENTITY | {"lr_step": 81}, provenance={})


class _Bomb:
    def __reduce__(self):
        return print, ("the file has run its own code",)


def test_pickled_code_is_not_run(tmp_path, capsys):
    run = make_run(tmp_path)
    bomb = {"weights": _Bomb(), "record": {}, "sha256": ""}
    torch.save(bomb, run.weights_path(*JOB))
    with pytest.raises(CorruptedFile):
        run.load_weights(*JOB)
    np.savez(run.results / "scores.npz", phi=np.array([_Bomb()], dtype=object))
    assert run.load_scores() is None
    assert "has run its own code" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", "a/../../b", "..\\..\\x", "x\x00y", "", "~", "-rf"])
def test_names_from_data_stay_inside(name, tmp_path):
    folder = run_name(IDENTITY | {"dataset": name, "network": name})
    assert Path(folder).name == folder
    assert not folder.startswith((".", "~", "-"))
    assert not set(safe_name(name)) & set("/\\\x00")
    run = open_run(tmp_path / "model", tmp_path / "result", IDENTITY | {"dataset": name}, provenance={})
    assert run.models.resolve().parent == tmp_path / "model"


def test_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "model").write_text("a file where a folder should be")
    flags = shlex.split(
        "--dataset digits --network tests.helpers.networks:tiny --disable-dp --epochs 1 --n-shadows 4 --quiet --device cpu"
    )
    assert train_model.main([*flags, "--model-dir", f"{tmp_path}/model", "--result-dir", f"{tmp_path}/result"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot write ")
    assert len(said.splitlines()) == 1


if __name__ == "__main__":
    import tempfile

    total = int(sys.argv[1])
    for kind in READERS:
        refused, harmless = fuzz(Path(tempfile.mkdtemp()), kind, cases=total // len(READERS), seed=1)
        print(json.dumps({"kind": kind, "refused or retrained": refused, "read whole": harmless}))
