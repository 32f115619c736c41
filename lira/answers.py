"""scores.npz as a cache of the models' answers: only what it does not hold yet is asked.

Letters: M models, N target samples, A queries."""

import time
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from lira.query import Query
from lira.runs import Run
from lira.split import ROLES

SAVE_EVERY = 60  # seconds between two writes while models are asked: about what a kill costs


def gather(
    run: Run,
    jobs: Sequence[tuple[str, int]],
    member: np.ndarray,
    label: np.ndarray,
    queries: tuple[Query, ...],
    ask: Callable[[tuple[str, int]], np.ndarray],
    *,
    quiet: bool,
) -> np.ndarray:
    """phi of every model, float32 (M, N, A), as scores.npz then holds it beside member, label and role.

    jobs: (role, index) of the M models; member: bool (M, N); ask(job) -> float32 (N, A). An answer is up to date while
    the weights that gave it, the labels and the queries are the same."""
    weights = [run.record(*job)["sha256"] for job in jobs]
    phi_of = _known(run, label, queries)
    missing = [row for row, digest in enumerate(weights) if digest not in phi_of]

    def save() -> None:
        rows = [row for row, digest in enumerate(weights) if digest in phi_of]
        run.save_scores(
            phi=np.stack([phi_of[weights[row]] for row in rows]),
            member=member[rows],
            label=label,
            role=np.array([ROLES.index(jobs[row][0]) for row in rows], dtype=np.int8),
            index=np.array([jobs[row][1] for row in rows], dtype=np.int32),
            weights=np.array([weights[row] for row in rows]),
            queries=np.array(queries, dtype=np.int32),
        )

    saved = time.monotonic()
    for row in tqdm(missing, desc="asking", unit="model", disable=quiet):
        phi_of[weights[row]] = ask(jobs[row])
        if time.monotonic() - saved > SAVE_EVERY:
            save()
            saved = time.monotonic()
    if missing or list(phi_of) != weights:
        save()
    return np.stack([phi_of[digest] for digest in weights])


def _known(run: Run, label: np.ndarray, queries: tuple[Query, ...]) -> dict[str, np.ndarray]:
    """Digest of the weights -> phi (N, A), of the answers in scores.npz that fit."""
    known = run.load_scores()
    if not known or not {"phi", "weights", "label", "queries"} <= known.keys():  # as another version wrote it
        return {}
    if np.array_equal(known["label"], label) and np.array_equal(known["queries"], queries):
        return dict(zip(known["weights"].tolist(), known["phi"], strict=True))
    return {}
