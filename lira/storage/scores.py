"""scores.npz as a cache: a model is queried only where the file holds no valid scores of it. Scores from elsewhere.

Letters: M models, N target samples, A queries, L scores that the attack at hand does not use."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lira.attacks.inputs import AttackInputs, validate_scores
from lira.data.store import Query
from lira.errors import CorruptedFile, InputError, one_line, warn
from lira.storage.checksums import digest
from lira.storage.names import ROLES, Job, model_name
from lira.storage.runs import Run

MAX_CLASSES = 100_000  # a larger label is a mistake
SAVE_EVERY = 60  # seconds between two writes while models are queried: a kill loses about as much

_CACHE = {"phi", "label", "weights", "queries", "cached_phi", "cached_weights", "cached_queries"}


def cached_scores(
    run: Run,
    jobs: Sequence[Job],
    member: np.ndarray,
    label: np.ndarray,
    queries: tuple[Query, ...],
    query_model: Callable[[Job, tuple[Query, ...]], np.ndarray],
    *,
    quiet: bool,
) -> np.ndarray:
    """phi of every model, float32 (M, N, A), written to scores.npz beside member, label and role.

    jobs: the M models; member: bool (M, N); label: int64 (N,); query_model(job, queries) -> float32 (N, A).
    Scores are valid while the weights of their model and the labels are the same. Those of other models of the run and
    of other queries stay in the file as cached_phi (L, N), cached_weights (L,) and cached_queries (L, 3)."""
    weights = [run.record(*job)["sha256"] for job in jobs]
    on_disk = {*weights, *_weights_digests(run)}
    stored = load_scores(run) or {}
    phi = _valid_phi(stored, label)
    missing = [[query for query in queries if (weights_digest, query) not in phi] for weights_digest in weights]

    def stacked(rows: Sequence[int]) -> np.ndarray:
        return np.stack([np.stack([phi[weights[row], query] for query in queries], axis=1) for row in rows])

    def save() -> None:
        rows = [row for row, key in enumerate(weights) if all((key, query) in phi for query in queries)]
        in_rows = {(weights[row], query) for row in rows for query in queries}
        others = [key for key in phi if key not in in_rows and key[0] in on_disk]
        save_scores(
            run,
            phi=stacked(rows),
            member=member[rows],
            label=label,
            role=np.array([ROLES.index(jobs[row][0]) for row in rows], dtype=np.int8),
            index=np.array([jobs[row][1] for row in rows], dtype=np.int32),
            weights=np.array([weights[row] for row in rows]),
            queries=np.array(queries, dtype=np.int32),
            cached_phi=np.array([phi[key] for key in others], dtype=np.float32).reshape(len(others), len(label)),
            cached_weights=np.array([weights_digest for weights_digest, _ in others], dtype=str),
            cached_queries=np.array([query for _, query in others], dtype=np.int32).reshape(len(others), 3),
        )

    last_save = time.monotonic()
    incomplete = [row for row, row_queries in enumerate(missing) if row_queries]
    for row in tqdm(incomplete, desc="querying", unit="model", disable=quiet):
        scores = query_model(jobs[row], tuple(missing[row]))
        phi |= {(weights[row], query): scores[:, column] for column, query in enumerate(missing[row])}
        if time.monotonic() - last_save > SAVE_EVERY:
            save()
            last_save = time.monotonic()
    if incomplete or stored["weights"].tolist() != weights or _queries(stored["queries"]) != [*queries]:
        save()
    return stacked(range(len(jobs)))


def save_scores(run: Run, **arrays: np.ndarray) -> None:
    """Write scores.npz with a checksum of these arrays."""
    run.save_arrays("scores.npz", {**arrays, "sha256": np.array(digest(arrays))})


def load_scores(run: Run) -> dict[str, np.ndarray] | None:
    """The arrays of scores.npz; None if there is no such file, or, with a warning, a corrupted one."""
    path = run.results / "scores.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if str(arrays.pop("sha256")) == digest(arrays):
            return arrays
        reason = "its checksum does not match"
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy raises errors of many kinds for corrupted bytes
        reason = one_line(error)
    warn(f"{path} is corrupted ({reason}): all models are queried again")
    return None


def _valid_phi(stored: dict[str, np.ndarray], label: np.ndarray) -> dict[tuple[str, Query], np.ndarray]:
    """(digest of the weights, query) -> phi (N,), of all scores in scores.npz that belong to these labels."""
    if not stored.keys() >= _CACHE or not np.array_equal(stored["label"], label):
        return {}
    phi = {
        (weights_digest, query): scores[:, column]
        for weights_digest, scores in zip(stored["weights"].tolist(), stored["phi"], strict=True)
        for column, query in enumerate(_queries(stored["queries"]))
    }
    keys = zip(stored["cached_weights"].tolist(), _queries(stored["cached_queries"]), strict=True)
    return phi | dict(zip(keys, stored["cached_phi"], strict=True))


def _queries(rows: np.ndarray) -> list[Query]:
    return [(int(down), int(right), bool(flipped)) for down, right, flipped in rows]


def _weights_digests(run: Run) -> set[str]:
    """The digests of the weights of all valid models on disk."""
    digests = set()
    for job in run.models_on_disk():
        with contextlib.suppress(CorruptedFile):
            digests.add(run.record(*job)["sha256"])
    return digests


def read_scores(path: Path, *, n_targets: int, inclusion: str = "half") -> AttackInputs:
    """phi (M, N) or (M, N, A), member (M, N) and, if present, label (N,) of an .npz file; rows 0..T-1 are targets.

    Raises InputError naming the array, row or column that is wrong. No pickles."""
    if not path.is_file():
        raise InputError(f"--scores {path}: no such file; give an .npz file that holds phi and member")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("phi", "member", "label") if name in file.files}
    except Exception as error:  # NumPy raises errors of many kinds for corrupted bytes
        raise InputError(
            f"--scores {path} cannot be read ({one_line(error)}); save plain arrays with numpy.savez"
        ) from error
    for name in ("phi", "member"):
        if name not in arrays:
            raise InputError(f"--scores {path} holds no array {name!r}; it needs phi and member, one row per model")
    phi, member = validate_scores(arrays["phi"], arrays["member"], n_targets)
    label = arrays.get("label", np.zeros(phi.shape[1], dtype=np.int64))
    if label.shape != phi.shape[1:2] or label.dtype.kind not in "iu":
        raise InputError(
            f"--scores {path}: label must be {phi.shape[1]} class numbers from 0, one per sample of phi; "
            f"got {label.dtype} {label.shape}"
        )
    if not 0 <= label.min() <= label.max() < MAX_CLASSES:
        column = int(np.flatnonzero((label < 0) | (label >= MAX_CLASSES))[0])
        raise InputError(
            f"--scores {path}: label must be class numbers from 0 to {MAX_CLASSES - 1}, but column {column} is "
            f"{label[column]}: number the classes from 0"
        )
    n_models = {"target": n_targets, "shadow": len(phi) - n_targets}
    model_names = tuple(model_name(role, index) for role in ROLES for index in range(n_models[role]))
    class_names = tuple(map(str, range(label.max() + 1)))
    return AttackInputs(phi, member, n_targets, label, class_names, model_names, inclusion=inclusion)
