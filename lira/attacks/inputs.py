"""What the attacks work on: who said what of every sample, and who trained on it.

Letters: M models, the first T of them targets and the rest shadows, N target samples, A queries."""

from dataclasses import dataclass

import numpy as np

from lira.errors import InputError

CONVENTIONS = ("lira", "official")
MIN_SHADOWS = 4


@dataclass(frozen=True)
class AttackInputs:
    """phi: float (M, N, A); member: bool (M, N); label: int64 (N,); class_names: (K,); names: (M,), of the models;
    images: uint8 (N, C, H, W), or None where only scores are known; inclusion: how the targets' members were drawn,
    half or coin; guarantees: (epsilon, delta) of each target (T, 2), or None without DP."""

    phi: np.ndarray
    member: np.ndarray
    n_targets: int
    label: np.ndarray
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    images: np.ndarray | None = None
    inclusion: str = "half"
    guarantees: np.ndarray | None = None

    @property
    def n_shadows(self) -> int:
        return len(self.phi) - self.n_targets

    def describe(self) -> str:
        """How many models of each role, for the screen."""
        return f"{self.n_targets} target{'s' * (self.n_targets > 1)}, {self.n_shadows} shadows"


@dataclass(frozen=True)
class AttackOptions:
    """What the attacks can be told. gamma and offline_a are rmia's (Zarifzadeh et al. 2024; 2 and 0.3 are
    theirs for CIFAR-10). seed: of the random shadows left out and of `learned`."""

    convention: str = "lira"
    gamma: float = 2.0
    offline_a: float = 0.3
    seed: int = 0

    def __post_init__(self):
        if self.convention not in CONVENTIONS:
            raise InputError(f"unknown convention {self.convention!r}: choose from {', '.join(CONVENTIONS)}")
        if not self.gamma > 0 or not 0 <= self.offline_a <= 1:
            raise InputError(
                f"gamma must be above 0 and offline_a from 0 to 1, not {self.gamma} and {self.offline_a}: change them"
            )


def validate_scores(phi, member, n_targets):
    """Check what came from a file or from the models; raise InputError with row and column.

    phi: real (M, N) or (M, N, A), finite; member: bool (or 0/1) (M, N). Returns phi (M, N, A), member bool
    (M, N)."""
    phi, member = np.asarray(phi), np.asarray(member)
    if phi.ndim not in (2, 3) or phi.dtype.kind not in "fiu" or 0 in phi.shape:
        raise InputError(
            f"phi must be real numbers of shape (models, samples) or (models, samples, queries), "
            f"not {phi.dtype} {phi.shape}: save the scaled logits so"
        )
    if member.shape != phi.shape[:2]:
        raise InputError(
            f"member must have the shape {phi.shape[:2]} of phi, one row a model, not {member.shape}: "
            f"save one boolean for each model and sample"
        )
    if member.dtype.kind not in "biuf":
        raise InputError(f"member must be boolean, not {member.dtype}: save True where the model saw the sample")
    _check_values(phi, member)
    member = member.astype(bool)
    shadows = len(phi) - n_targets
    if n_targets < 1 or shadows < MIN_SHADOWS:
        raise InputError(
            f"1 target and {MIN_SHADOWS} shadows are needed at least, but of {len(phi)} rows {n_targets} "
            f"are targets and {max(shadows, 0)} shadows: add shadows or take fewer targets"
        )
    inside = member[n_targets:].sum(axis=0)
    if not np.any((inside > 0) & (inside < shadows)):
        raise InputError(
            f"no sample has both members and non-members among the {shadows} shadows "
            f"(sample 0 has {inside[0]} members): check member, or which rows are targets"
        )
    return (phi[..., None] if phi.ndim == 2 else phi), member


def _check_values(phi, member):
    """Every phi finite and every member 0 or 1, row by row so that memory stays bounded."""
    for row, (scores, inside) in enumerate(zip(phi, member, strict=True)):
        bad = np.argwhere(~np.isfinite(scores))
        if len(bad):
            value = scores[tuple(bad[0])]
            raise InputError(
                f"phi must be finite, but row {row}, column {bad[0][0]} is {value}: "
                f"leave that model or sample out, or compute it again"
            )
        if member.dtype.kind != "b" and np.any(odd := (inside != 0) & (inside != 1)):
            column = int(np.flatnonzero(odd)[0])
            raise InputError(
                f"member must be 0 or 1, but row {row}, column {column} is {inside[column]}: save booleans"
            )
