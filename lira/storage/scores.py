"""scores.npz as a cache: a model is queried only where the file holds no valid scores of it. Scores from elsewhere.

Letters: M models, N target samples, A queries, L scores that the attack at hand does not use."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lira.attacks.inputs import AttackInputs, validate_scores
from lira.attacks.outputs import OUTPUTS, to_phi
from lira.data.store import Query
from lira.errors import CorruptedFile, InputError, one_line, warn
from lira.storage.names import ROLES, Job, model_name
from lira.storage.runs import Run, read_arrays

MAX_CLASSES = 100_000  # a larger label is a mistake
SAVE_EVERY = 60  # seconds between two writes while models are queried: a kill loses about as much

_CACHE = {"phi", "label", "weights", "queries", "cached_phi", "cached_weights", "cached_queries"}


class ScoreCache:
    """phi of the models of a run, in scores.npz beside their member, label and role.

    jobs: the M models; member: bool (M, N); label: int64 (N,); queries: A of them.
    Scores are valid while the weights of their model and the labels are the same. Those of other models of the run and
    of other queries stay in the file as cached_phi (L, N), cached_weights (L,) and cached_queries (L, 3)."""

    def __init__(
        self, run: Run, jobs: Sequence[Job], member: np.ndarray, label: np.ndarray, queries: tuple[Query, ...]
    ) -> None:
        self._run, self._label, self._queries = run, label, queries
        self._member = dict(zip(jobs, member, strict=True))
        self._weights = {job: run.record(*job)["sha256"] for job in jobs}
        self._on_disk = {*self._weights.values(), *_weights_digests(run)}
        stored = load_scores(run) or {}
        self._phi = _valid_phi(stored, label)
        self._changed = (
            bool(self.missing())
            or stored["weights"].tolist() != [*self._weights.values()]
            or _queries(stored["queries"]) != [*queries]
        )
        self._last_write = time.monotonic()

    @property
    def phi(self) -> np.ndarray:
        """float32 (M, N, A), once no scores are missing."""
        return self._stacked(self._weights)

    def missing(self) -> list[tuple[Job, tuple[Query, ...]]]:
        """The models that lack valid scores, in the order of jobs, each with the queries that are left for it."""
        by_job = {
            job: tuple(query for query in self._queries if (weights_digest, query) not in self._phi)
            for job, weights_digest in self._weights.items()
        }
        return [(job, queries) for job, queries in by_job.items() if queries]

    def add(self, job: Job, queries: tuple[Query, ...], scores: np.ndarray) -> None:
        """Scores of a model, float32 (N, len(queries)). Writes scores.npz, of the complete models, every SAVE_EVERY.

        Raises InputError naming the model if one is not finite; scores of other models are written first."""
        invalid = np.argwhere(~np.isfinite(scores))
        if len(invalid):
            self.save()
            raise InputError(
                f"{self._run.weights_path(*job)}: its score of sample {invalid[0][0]} is {scores[tuple(invalid[0])]} "
                f"({len(invalid)} of {scores.size} are not finite): correct the network's code, or train the run "
                "with a lower --lr"
            )
        self._phi |= {(self._weights[job], query): scores[:, column] for column, query in enumerate(queries)}
        self._changed = True
        if time.monotonic() - self._last_write > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write scores.npz, of the models that lack no scores, unless it holds all of this already."""
        if not self._changed:
            return
        incomplete = dict(self.missing())
        if not (jobs := [job for job in self._weights if job not in incomplete]):
            return
        in_rows = {(self._weights[job], query) for job in jobs for query in self._queries}
        others = [key for key in self._phi if key not in in_rows and key[0] in self._on_disk]
        save_scores(
            self._run,
            phi=self._stacked(jobs),
            member=np.stack([self._member[job] for job in jobs]),
            label=self._label,
            role=np.array([ROLES.index(role) for role, _ in jobs], dtype=np.int8),
            index=np.array([index for _, index in jobs], dtype=np.int32),
            weights=np.array([self._weights[job] for job in jobs]),
            queries=np.array(self._queries, dtype=np.int32),
            cached_phi=np.array([self._phi[key] for key in others], dtype=np.float32).reshape(-1, len(self._label)),
            cached_weights=np.array([weights_digest for weights_digest, _ in others], dtype=str),
            cached_queries=np.array([query for _, query in others], dtype=np.int32).reshape(-1, 3),
        )
        self._changed, self._last_write = False, time.monotonic()

    def _stacked(self, jobs: Iterable[Job]) -> np.ndarray:
        return np.stack(
            [np.stack([self._phi[self._weights[job], query] for query in self._queries], axis=1) for job in jobs]
        )


def save_scores(run: Run, **arrays: np.ndarray) -> None:
    """Write scores.npz with a checksum of these arrays."""
    run.save_arrays("scores.npz", arrays, checksum=True)


def load_scores(run: Run) -> dict[str, np.ndarray] | None:
    """The arrays of scores.npz; None if there is no such file, or, with a warning, a corrupted one."""
    path = run.results / "scores.npz"
    try:
        return read_arrays(path)
    except FileNotFoundError:
        return None
    except CorruptedFile as error:
        warn(f"{path} is corrupted ({error.reason}): all models are queried again")
        return None


def _valid_phi(stored: dict[str, np.ndarray], label: np.ndarray) -> dict[tuple[str, Query], np.ndarray]:
    """(digest of the weights, query) -> phi (N,), of all finite scores in scores.npz that belong to these labels."""
    if not stored.keys() >= _CACHE or not np.array_equal(stored["label"], label):
        return {}
    phi = {
        (weights_digest, query): scores[:, column]
        for weights_digest, scores in zip(stored["weights"].tolist(), stored["phi"], strict=True)
        for column, query in enumerate(_queries(stored["queries"]))
    }
    keys = zip(stored["cached_weights"].tolist(), _queries(stored["cached_queries"]), strict=True)
    phi |= dict(zip(keys, stored["cached_phi"], strict=True))
    return {key: scores for key, scores in phi.items() if np.isfinite(scores).all()}


def _queries(rows: np.ndarray) -> list[Query]:
    return [(int(down), int(right), bool(flipped)) for down, right, flipped in rows]


def _weights_digests(run: Run) -> set[str]:
    """The digests of the weights of all valid models on disk."""
    digests = set()
    for job in run.models_on_disk():
        with contextlib.suppress(CorruptedFile):
            digests.add(run.record(*job)["sha256"])
    return digests


def read_scores(path: Path, *, n_targets: int, inclusion: str | None = "half") -> AttackInputs:
    """phi, logits or probabilities (see lira.attacks.outputs) and member (M, N) of an .npz file, and label (N,), which
    may be missing beside phi; rows 0..T-1 are targets.

    Raises InputError naming the array, row or column that is wrong. No pickles."""
    arrays = arrays_from_elsewhere("--scores", path, ("member", "label", *OUTPUTS))
    with prefixed(f"--scores {path}"):
        if "member" not in arrays:
            raise InputError("it holds no array 'member', one row per model: save which samples each was trained on")
        member = arrays["member"]
        if member.ndim != 2 or 0 in member.shape:
            raise InputError(f"member must be of shape (models, samples), not {member.shape}: save one row per model")
        n_models, n_samples = member.shape
        if np.shape(arrays.get("label", ()))[:1] == (n_models,) != (n_samples,):
            raise InputError(
                f"member is transposed: {member.shape}, with {n_models} labels; save member.T, models first"
            )
        if n_models > n_samples:
            warn(f"{path} holds {n_models} models of {n_samples} samples; if it is the other way round, transpose it")
        label = check_label(arrays["label"], n_samples) if "label" in arrays else None
        outputs = to_phi(arrays, label, n_samples=n_samples, models_first=True)
        phi, member = validate_scores(outputs.phi, member, n_targets)
    label = np.zeros(n_samples, dtype=np.int64) if label is None else label
    models = [("target", i) for i in range(n_targets)] + [("shadow", i) for i in range(n_models - n_targets)]
    model_names = tuple(model_name(*job) for job in models)
    class_names = tuple(map(str, range(label.max() + 1)))
    note = outputs.describe()
    return AttackInputs(phi, member, n_targets, label, class_names, model_names, inclusion=inclusion, note=note)


def arrays_from_elsewhere(flag: str, path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of these arrays that an .npz file holds. Raises InputError; no pickles."""
    if not path.is_file():
        raise InputError(f"{flag} {path}: no such file; give an .npz file that holds {', '.join(names)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file.files}
    except Exception as error:  # NumPy raises errors of many kinds for corrupted bytes
        raise InputError(
            f"{flag} {path} cannot be read ({one_line(error)}); save plain arrays with numpy.savez"
        ) from error


def check_label(label: np.ndarray, n_samples: int) -> np.ndarray:
    """int (N,). Raises InputError where a label is no class number."""
    if label.shape != (n_samples,) or label.dtype.kind not in "iu":
        raise InputError(
            f"label must be {n_samples} class numbers from 0, one per sample; got {label.dtype} {label.shape}"
        )
    if not 0 <= label.min() <= label.max() < MAX_CLASSES:
        column = int(np.flatnonzero((label < 0) | (label >= MAX_CLASSES))[0])
        raise InputError(
            f"label must be class numbers from 0 to {MAX_CLASSES - 1}, but column {column} is {label[column]}: number "
            "the classes from 0"
        )
    return label


@contextlib.contextmanager
def prefixed(source: str) -> Iterator[None]:
    """An InputError begins with where the wrong array came from."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
