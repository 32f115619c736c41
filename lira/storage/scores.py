"""scores.npz as a cache of the models' answers: only what it does not hold yet is asked, and nothing that is still
valid is thrown away.

Letters: M models, N target samples, A queries, L answers that the attack at hand does not use."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lira.attacks.inputs import AttackInputs, validate_scores
from lira.data.store import Query
from lira.errors import CorruptedFile, InputError, one_line
from lira.storage.names import ROLES, model_name
from lira.storage.runs import Run

MAX_CLASSES = 100_000  # a larger number is no class
SAVE_EVERY = 60  # seconds between two writes while models are asked: about what a kill costs

Answers = dict[tuple[str, Query], np.ndarray]  # (digest of the weights, query) -> phi (N,)


def gather(
    run: Run,
    jobs: Sequence[tuple[str, int]],
    member: np.ndarray,
    label: np.ndarray,
    queries: tuple[Query, ...],
    ask: Callable[[tuple[str, int], tuple[Query, ...]], np.ndarray],
    *,
    quiet: bool,
) -> np.ndarray:
    """phi of every model, float32 (M, N, A), as scores.npz then holds it beside member, label and role.

    jobs: (role, index) of the M models; member: bool (M, N); ask(job, queries) -> float32 (N, A). An answer is up to
    date while the weights that gave it and the labels are the same. Those of other models of the run and to other
    queries stay in the file as cached_phi (L, N), cached_weights and cached_queries."""
    weights, held = [run.record(*job)["sha256"] for job in jobs], run.load_scores() or {}
    known, on_disk = _known(held, label), {*weights, *_digests(run)}
    missing = [[query for query in queries if (digest, query) not in known] for digest in weights]
    as_asked = "weights" in held and held["weights"].tolist() == weights and _queries(held["queries"]) == [*queries]

    def phi_of(rows: Sequence[int]) -> np.ndarray:
        return np.stack([np.stack([known[weights[row], query] for query in queries], axis=1) for row in rows])

    def save() -> None:
        rows = [row for row, digest in enumerate(weights) if all((digest, query) in known for query in queries)]
        now = {(weights[row], query) for row in rows for query in queries}
        more = [key for key in known if key not in now and key[0] in on_disk]
        run.save_scores(
            phi=phi_of(rows),
            member=member[rows],
            label=label,
            role=np.array([ROLES.index(jobs[row][0]) for row in rows], dtype=np.int8),
            index=np.array([jobs[row][1] for row in rows], dtype=np.int32),
            weights=np.array([weights[row] for row in rows]),
            queries=np.array(queries, dtype=np.int32),
            cached_phi=np.array([known[key] for key in more], dtype=np.float32).reshape(len(more), len(label)),
            cached_weights=np.array([digest for digest, _ in more], dtype=str),
            cached_queries=np.array([query for _, query in more], dtype=np.int32).reshape(len(more), 3),
        )

    saved = time.monotonic()
    for row in tqdm([row for row, some in enumerate(missing) if some], desc="asking", unit="model", disable=quiet):
        phi = ask(jobs[row], tuple(missing[row]))
        known |= {(weights[row], query): phi[:, place] for place, query in enumerate(missing[row])}
        if time.monotonic() - saved > SAVE_EVERY:
            save()
            saved = time.monotonic()
    if any(missing) or not as_asked:
        save()
    return phi_of(range(len(jobs)))


def _known(held: dict[str, np.ndarray], label: np.ndarray) -> Answers:
    """The answers in scores.npz that fit these labels."""
    if not {"phi", "weights", "label", "queries"} <= held.keys():  # as another version wrote it
        return {}
    if not np.array_equal(held["label"], label):
        return {}
    known = {
        (digest, query): phi[:, place]
        for digest, phi in zip(held["weights"].tolist(), held["phi"], strict=True)
        for place, query in enumerate(_queries(held["queries"]))
    }
    if "cached_phi" in held:
        keys = zip(held["cached_weights"].tolist(), _queries(held["cached_queries"]), strict=True)
        known |= dict(zip(keys, held["cached_phi"], strict=True))
    return known


def _queries(rows: np.ndarray) -> list[Query]:
    return [(int(down), int(right), bool(mirrored)) for down, right, mirrored in rows]


def _digests(run: Run) -> set[str]:
    """Of the weights of all models on disk; a corrupted one has none."""
    found = set()
    for job in run.models_on_disk():
        with contextlib.suppress(CorruptedFile):
            found.add(run.record(*job)["sha256"])
    return found


# --- scores from elsewhere ---


def read_scores(path: Path, *, n_targets: int, inclusion: str = "half") -> AttackInputs:
    """phi (M, N) or (M, N, A), member (M, N) and perhaps label (N,) from an .npz file; rows 0..T-1 are targets.

    Raises InputError naming the array, row or column that is wrong. No pickles."""
    if not path.is_file():
        raise InputError(f"--scores {path}: no such file; give an .npz file that holds phi and member")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("phi", "member", "label") if name in file.files}
    except Exception as error:  # NumPy raises whatever the corrupted bytes lead it to
        raise InputError(
            f"--scores {path} cannot be read ({one_line(error)}); save plain arrays with numpy.savez"
        ) from error
    for name in ("phi", "member"):
        if name not in arrays:
            raise InputError(f"--scores {path} holds no array {name!r}; it needs phi and member, a row a model")
    phi, member = validate_scores(arrays["phi"], arrays["member"], n_targets)
    label = arrays.get("label", np.zeros(phi.shape[1], dtype=np.int64))
    if label.shape != phi.shape[1:2] or label.dtype.kind not in "iu":
        raise InputError(
            f"--scores {path}: label must be {phi.shape[1]} class numbers from 0, one a sample of phi; "
            f"got {label.dtype} {label.shape}"
        )
    if not 0 <= label.min() <= label.max() < MAX_CLASSES:
        wrong = int(np.flatnonzero((label < 0) | (label >= MAX_CLASSES))[0])
        raise InputError(
            f"--scores {path}: label must be class numbers from 0 to {MAX_CLASSES - 1}, but column {wrong} is "
            f"{label[wrong]}: number the classes from 0"
        )
    counts = {"target": n_targets, "shadow": len(phi) - n_targets}
    names = [model_name(role, index) for role in ROLES for index in range(counts[role])]
    classes = tuple(map(str, range(label.max() + 1)))
    return AttackInputs(phi, member, n_targets, label, classes, tuple(names), inclusion=inclusion)
