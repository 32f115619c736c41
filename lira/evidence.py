"""What the attacks work on: who said what of every sample, and who trained on it.

Letters: M models, the first T of them targets and the rest shadows, N target samples, A queries."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lira.attacks import validate_scores
from lira.errors import InputError
from lira.split import ROLES, model_name

MOST_CLASSES = 100_000  # a larger number is no class


@dataclass(frozen=True)
class Evidence:
    """phi: float (M, N, A); member: bool (M, N); label: int64 (N,); class_names: (K,); names: (M,), of the models;
    pictures: uint8 (N, C, H, W), or None where only scores are known; inclusion: how the targets' members were drawn,
    half or coin; promised: (epsilon, delta) of each target (T, 2), or None where nothing is promised."""

    phi: np.ndarray
    member: np.ndarray
    n_targets: int
    label: np.ndarray
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    pictures: np.ndarray | None = None
    inclusion: str = "half"
    promised: np.ndarray | None = None

    @property
    def n_shadows(self) -> int:
        return len(self.phi) - self.n_targets

    def describe(self) -> str:
        """How many models of each role, for the screen."""
        return f"{self.n_targets} target{'s' * (self.n_targets > 1)}, {self.n_shadows} shadows"


def read_scores(path: Path, *, n_targets: int, inclusion: str = "half") -> Evidence:
    """phi (M, N) or (M, N, A), member (M, N) and perhaps label (N,) from an .npz file; rows 0..T-1 are targets.

    Raises InputError naming the array, row or column that is wrong. No pickles."""
    if not path.is_file():
        raise InputError(f"--scores {path}: no such file; give an .npz file that holds phi and member")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("phi", "member", "label") if name in file.files}
    except Exception as error:  # NumPy raises whatever the damaged bytes lead it to
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"--scores {path} cannot be read ({reason}); save plain arrays with numpy.savez") from error
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
    if not 0 <= label.min() <= label.max() < MOST_CLASSES:
        wrong = int(np.flatnonzero((label < 0) | (label >= MOST_CLASSES))[0])
        raise InputError(
            f"--scores {path}: label must be class numbers from 0 to {MOST_CLASSES - 1}, but column {wrong} is "
            f"{label[wrong]}: number the classes from 0"
        )
    counts = {"target": n_targets, "shadow": len(phi) - n_targets}
    names = [model_name(role, index) for role in ROLES for index in range(counts[role])]
    classes = tuple(map(str, range(label.max() + 1)))
    return Evidence(phi, member, n_targets, label, classes, tuple(names), inclusion=inclusion)
