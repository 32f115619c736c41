"""Corrupted and hostile files are rejected by name; no result is taken from them.

`PYTHONPATH=. python tests/storage/test_corruption.py 10000 [SEED]` makes 10,000 of them."""

import json
import random
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lira.data.folder import read_folder
from lira.data.readers import read_npz
from lira.errors import CorruptedFile, InputError
from lira.report import results
from lira.storage.checkpoints import read_checkpoint
from lira.storage.config import find_run
from lira.storage.runs import open_run, results_only
from lira.storage.scores import load_scores, read_scores, save_scores
from lira.storage.targets import read_outputs
from tests.helpers.datasets import FailsWhenUnpickled, arrays, write_images
from tests.helpers.report import attacked_run
from tests.helpers.runs import IDENTITY, RECORDED

ROW = {"model": "shadow_00", "lr": 0.05, "train_loss": 1.25, "train_accuracy": 0.5, "test_loss": None, "epsilon": None}
HISTORY = [ROW | {"epoch": epoch, "test_accuracy": 0.25 * epoch, "seconds": 0.1 * epoch} for epoch in (1, 2)]
JOB = ("shadow", 0)
CASES = 1000


def make_run(folder):
    """A run with a file of each kind."""
    run = open_run(folder / "model", folder / "result", IDENTITY, record=RECORDED)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = {"weights": model.state_dict(), "optimizer": sgd.state_dict(), "torch": torch.get_rng_state()}
    run.save_weights(*JOB, model.state_dict(), {"test_accuracy": 0.5, "device": "cpu", "history": HISTORY})
    run.save_log("shadow_00", HISTORY)
    run.save_resume(*JOB, state | {"history": HISTORY})
    rng = np.random.default_rng(0)
    phi, member = rng.normal(size=(5, 20, 1)).astype(np.float32), rng.random((5, 20)) < 0.5
    save_scores(run, phi=phi, member=member, weights=np.array(["a", "b", "c", "d", "e"]))
    run.save_canaries(*JOB, model.state_dict(), {"score": rng.normal(size=9), "check": np.array(["weight"])})
    np.savez(folder / "dataset.npz", **arrays(names=["a", "b", "c"]))
    np.savez(folder / "scores.npz", phi=phi, member=np.arange(20) % 2 == np.arange(5)[:, None] % 2)
    attacked_run(folder / "attacked", curve=False)
    torch.save({"state_dict": model.state_dict(), "member": torch.ones(5)}, folder / "checkpoint.pt")
    write_images(folder / "images")
    read_folder(folder / "images", folder / "data", progress=False)
    return run


# --- damaged files: a file is valid, then some of its bytes are others -----------------------------------------------


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def corrupt(content: bytes, rng) -> bytes:
    """One flipped bit, four random bytes, a truncation, a gap, or additional bytes."""
    content, place = bytearray(content), rng.randrange(len(content))
    kind = rng.choice(["flip", "flip", "overwrite", "cut", "gap", "insert"])
    if kind == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif kind == "overwrite":
        content[place : place + 4] = rng.randbytes(len(content[place : place + 4]))
    elif kind == "insert":
        content[place:place] = rng.randbytes(1 + rng.randrange(8))
    else:
        del content[place : None if kind == "cut" else place + 1 + rng.randrange(64)]
    return bytes(content)


def reopened(run):
    return open_run(run.models.parent, run.results.parent, IDENTITY).identity


def top(run):
    return run.models.parents[1]


def own_scores(path):
    scores = read_scores(path, n_targets=1)
    return [scores.phi, scores.member, scores.label]


def checkpoint(path):
    content = read_checkpoint(path)
    return [content.weights, content.member]


def result_tables(run):
    return {name: table.to_csv() for name, table in results.read(results_only(top(run), "attacked")).tables.items()}


def fingerprint(run, cache):
    """Of the images of a folder; without a cache unless it is data."""
    if cache != "data":
        shutil.rmtree(top(run) / cache, ignore_errors=True)
    return read_folder(top(run) / "images", top(run) / cache, progress=False).fingerprint


FILES = {  # kind -> its path, and what is read from it
    "weights": (lambda run: run.weights_path(*JOB), lambda run: (run.load_weights(*JOB), run.record(*JOB))),
    "resume": (lambda run: run.resume_path(*JOB), lambda run: run.load_resume(*JOB)),
    "scores": (lambda run: run.results / "scores.npz", load_scores),
    "canaries": (lambda run: next((run.results / "train").glob("*.npz")), lambda run: run.load_canaries(*JOB)),
    "config": (lambda run: run.models / "config.json", reopened),
    "log": (lambda run: run.results / "train" / "shadow_00.csv", lambda run: run.load_logs()["shadow_00"].to_csv()),
    "table": (lambda run: top(run) / "attacked/samples.csv", result_tables),
    "attack": (lambda run: top(run) / "attacked/attack.json", result_tables),
    "dataset": (lambda run: top(run) / "dataset.npz", lambda run: read_npz(top(run) / "dataset.npz").fingerprint),
    "own scores": (lambda run: top(run) / "scores.npz", lambda run: own_scores(top(run) / "scores.npz")),
    "image": (lambda run: top(run) / "images/train/ant/3.png", lambda run: fingerprint(run, "elsewhere")),
    "checkpoint": (lambda run: top(run) / "checkpoint.pt", lambda run: checkpoint(top(run) / "checkpoint.pt")),
    "decoded": (lambda run: next((top(run) / "data/cache").iterdir()), lambda run: fingerprint(run, "data")),
}
RESTORED = ("log", "decoded")  # from a copy in the weights file, and from the images


def equal(a, b) -> bool:
    if isinstance(a, dict | list | tuple):
        keys = a if isinstance(a, dict) else range(len(a))
        return len(a) == len(b) and all(equal(a[key], b[key]) for key in keys)
    if isinstance(a, torch.Tensor | np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return a == b


def fuzz(folder, kind, *, cases, seed):
    """Corrupt a file `cases` times. Returns how often it was rejected, and how often the valid content was read."""
    run = make_run(folder)
    find, read = FILES[kind]
    path, rng = find(run), random.Random(f"{kind} {seed}")
    valid, before = path.read_bytes(), read(run)
    n_rejected, n_harmless = 0, 0
    for case in range(cases):
        path.write_bytes(corrupt(valid, rng))
        try:
            after = read(run)
        except InputError as error:
            after, message = None, str(error)
            if "\n" in message:
                pytest.fail(f"{kind} {case}: more than one line: {message}")
        if after is None:
            n_rejected += 1
        else:
            assert equal(after, before), f"{kind} {case}: another result was read from a corrupted file"
            n_harmless += 1
    path.write_bytes(valid)
    assert equal(read(run), before)
    return n_rejected, n_harmless


SEED = 20261124  # of the suite; a long run draws a new one, which it prints


@pytest.mark.parametrize("kind", FILES)
def test_fuzz(kind, tmp_path, capsys):
    n_rejected, n_harmless = fuzz(tmp_path, kind, cases=CASES // len(FILES), seed=SEED)
    if kind in RESTORED:
        assert n_rejected == 0
    elif kind in ("config", "attack"):
        assert n_rejected > 0
    else:
        assert n_rejected > n_harmless, "only padding and what zip stores twice may change undetected"


# --- hostile files: arrays of any type, shape and value, where others are expected -----------------------------------

RNG = np.random.default_rng(0)
LABEL, MEMBER = np.arange(20) % 3, np.arange(20) % 2 == np.arange(5)[:, None] % 2
LOGITS = RNG.normal(size=(5, 20, 3))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)


def own_outputs(path):
    return read_outputs(path, LABEL, 3)


HOSTILE = {  # kind -> valid arrays, and what reads them
    "dataset": (arrays(), read_npz),
    "own scores": ({"phi": LOGITS[..., 0], "member": MEMBER, "label": LABEL}, own_scores),
    "own logits": ({"logits": LOGITS, "member": MEMBER, "label": LABEL}, own_scores),
    "own probabilities": ({"probabilities": PROBABILITIES, "member": MEMBER, "label": LABEL}, own_scores),
    "target logits": ({"logits": LOGITS[0], "member": MEMBER[0], "label": LABEL}, own_outputs),
    "target probabilities": ({"probabilities": PROBABILITIES[0], "label": LABEL}, own_outputs),
}


def hostile_array(rng, valid):
    """valid with other values, another shape or type, or something else instead."""
    byteswapped = valid.byteswap().view(valid.dtype.newbyteorder())
    others = [valid, valid[..., None], valid.T, valid.ravel(), valid[:0], valid[:1], np.asfortranarray(valid)[::-1]]
    others += [byteswapped, np.array(0), np.array("text"), np.zeros((), [("a", int)]), np.empty((0,) * 30)]
    odd = [0, -1, 1, 255, 2**31, 2**63 - 1, -(2**63), 1e30, 3e38, 1e300, np.nan, np.inf, -np.inf]

    def retyped():
        return valid.astype(rng.choice("?bBhHqQefdFDmMSUO"))

    def changed():
        array = valid.astype(rng.choice([valid.dtype, np.float64, np.float32, np.int64]))
        places = np.array([rng.randrange(array.size) for _ in range(rng.choice([1, array.size]))])
        array.flat[places] = rng.choice(odd)
        return array

    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        kind = rng.choice(["other", "type", *["values"] * 3])
        return rng.choice(others) if kind == "other" else changed() if kind == "values" else retyped()


def fuzz_hostile(folder, kind, *, cases, seed):
    """Write files of hostile arrays, and read each. Returns how many were rejected and how many were accepted."""
    valid, read = HOSTILE[kind]
    rng, path, counts = random.Random(f"{kind} {seed}"), folder / "hostile.npz", [0, 0]
    for case in range(cases):
        content = dict(valid)
        for name in rng.sample(list(valid), rng.choice([1, 1, 2])):
            try:
                content[name] = hostile_array(rng, valid[name])
            except (TypeError, ValueError, OverflowError):  # no such array
                continue
        np.savez(path, **content)
        try:
            read(path)
            counts[1] += 1
        except InputError as error:
            counts[0] += 1
            if "\n" in str(error):
                pytest.fail(f"{kind} {case}: more than one line: {error}")
        except Exception as error:
            shapes = {name: (array.dtype, array.shape) for name, array in content.items()}
            raise AssertionError(f"{kind} {case}: {shapes}: {error!r}") from error
    return tuple(counts)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_arrays(kind, tmp_path):
    n_rejected, n_accepted = fuzz_hostile(tmp_path, kind, cases=CASES // 20, seed=SEED)
    assert min(n_rejected, n_accepted) > 0


# --- what is done about corrupted files ------------------------------------------------------------------------------


def test_corrupted_weights_are_named_moved_aside_and_trained_again(run, capsys):
    path = run.weights_path(*JOB)
    path.write_bytes(path.read_bytes()[:-100])
    assert not run.is_complete(*JOB)
    assert "shadow_00.pt is corrupted" in capsys.readouterr().err
    assert not path.exists()
    assert path.with_suffix(".pt.corrupted").exists()


def test_corrupted_resume_file_starts_the_model_anew(run, capsys):
    run.resume_path(*JOB).write_bytes(b"half a fi")
    assert run.load_resume(*JOB) is None
    stderr = capsys.readouterr().err
    assert "shadow_00.resume.pt is corrupted" in stderr
    assert "from its beginning" in stderr


def test_corrupted_log_is_named_and_restored(run, capsys):
    path = run.results / "train" / "shadow_00.csv"
    valid = path.read_bytes()
    path.write_bytes(valid.replace(b"1.25", b"1.26"))
    assert run.is_complete(*JOB)
    assert "shadow_00.csv was corrupted, changed or lost" in capsys.readouterr().err
    assert path.read_bytes() == valid


@pytest.mark.parametrize("record", [None, {}])
@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"[]", b"[1]", b"null", b"{}", b"{" * 99999, b"\x00", b"\xff", b'{"identity"', b'{"identity": 1}'],
        *[b'{"identity": {}, "format": "2"}', b'{"identity": {}, "format": null}', b'{"identity": {}, "format": true}'],
    ],
)
def test_corrupted_config_is_named(run, tmp_path, content, record):
    (run.models / "config.json").write_bytes(content)
    with pytest.raises(CorruptedFile, match=r"config\.json is corrupted"):
        open_run(tmp_path / "model", tmp_path / "result", IDENTITY, record=record)
    with pytest.raises(CorruptedFile, match=r"config\.json is corrupted"):
        find_run(run.name, str(tmp_path / "model"), str(tmp_path / "result"))


def test_pickled_code_is_not_run(run):
    torch.save({"weights": FailsWhenUnpickled(), "record": {}, "sha256": ""}, run.weights_path(*JOB))
    with pytest.raises(CorruptedFile):
        run.load_weights(*JOB)
    np.savez(run.results / "scores.npz", phi=np.array([FailsWhenUnpickled()], dtype=object))
    assert load_scores(run) is None
    recursive: dict = {}
    recursive["model"] = recursive
    for content in (recursive, {"weights": {"a": torch.ones(1)}, "record": 5, "sha256": ""}):
        torch.save(content, run.models / "hostile.pt")
        with pytest.raises(InputError):
            read_checkpoint(run.models / "hostile.pt")


if __name__ == "__main__":
    total, *chosen = map(int, sys.argv[1:])
    chosen_seed = chosen[0] if chosen else random.SystemRandom().randrange(10**6)
    print(f"seed {chosen_seed}")
    n_cases = total // (len(FILES) + len(HOSTILE))
    for kind in FILES:
        n_rejected, n_harmless = fuzz(Path(tempfile.mkdtemp()), kind, cases=n_cases, seed=chosen_seed)
        print(json.dumps({"kind": kind, "rejected or restored": n_rejected, "read as it was written": n_harmless}))
    for kind in HOSTILE:
        n_rejected, n_accepted = fuzz_hostile(Path(tempfile.mkdtemp()), kind, cases=n_cases, seed=chosen_seed)
        print(json.dumps({"kind": f"hostile {kind}", "rejected": n_rejected, "accepted": n_accepted}))
