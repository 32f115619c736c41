"""What the attacks work on: the scores of every model at every target sample, and the samples that it was trained on.

Letters: M models, the first T of them targets and the other S shadows, N target samples, K classes, A queries."""

from dataclasses import dataclass

import numpy as np

from lira.attacks.registry import CONVENTIONS, MIN_SHADOWS
from lira.errors import InputError
from lira.privacy.audit import CanaryScores, Mechanism

MAX_PHI = 1e40  # every scaled logit of float32 lies within; far beyond it the fourth powers of float64 overflow


@dataclass(frozen=True)
class AttackInputs:
    """phi: float (M, N, A), scaled logits; member: bool (M, N); label: int64 (N,); class_names: (K,); model_names:
    (M,); images: uint8 (N, C, H, W), None where only scores are known; inclusion: how the targets' members were drawn,
    half or coin, None where nothing is known of it, so that there is no audit; guarantees: float (T, 2), the epsilon
    and delta of each target, None without DP; mechanisms: what each guarantee is claimed for, (T,), None without DP or
    where it is not known; canaries: (T,), None without; note: what the terminal says of these scores."""

    phi: np.ndarray
    member: np.ndarray
    n_targets: int
    label: np.ndarray
    class_names: tuple[str, ...]
    model_names: tuple[str, ...]
    images: np.ndarray | None = None
    inclusion: str | None = "half"
    guarantees: np.ndarray | None = None
    mechanisms: tuple[Mechanism, ...] | None = None
    canaries: tuple[CanaryScores, ...] | None = None
    note: str = ""

    @property
    def n_shadows(self) -> int:
        return len(self.phi) - self.n_targets

    def describe(self) -> str:
        """The number of models of each role and the note, for the terminal."""
        models = f"{self.n_targets} {'targets' if self.n_targets > 1 else 'target'}, {self.n_shadows} shadows"
        return "\n".join(filter(None, [models, self.note]))


@dataclass(frozen=True)
class AttackOptions:
    """gamma and offline_a are parameters of rmia; 2 and 0.3 are those of Zarifzadeh et al. 2024 for CIFAR-10. seed: of
    the random balancing shadows and of `learned`."""

    convention: str = "lira"
    gamma: float = 2.0
    offline_a: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            raise InputError(f"unknown convention {self.convention!r}: choose from {', '.join(CONVENTIONS)}")
        if not self.gamma > 0 or not 0 <= self.offline_a <= 1:
            raise InputError(
                f"gamma must be above 0 and offline_a from 0 to 1, not {self.gamma} and {self.offline_a}: change them"
            )


def validate_scores(phi: np.ndarray, member: np.ndarray, n_targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Check scores of any origin. Returns phi (M, N, A) and member bool (M, N); raises InputError with row and column.

    phi: real (M, N) or (M, N, A), finite; member: bool, or 0 and 1, (M, N)."""
    phi, member = np.asarray(phi), np.asarray(member)
    if phi.ndim not in (2, 3) or phi.dtype.kind not in "fiu" or 0 in phi.shape:
        raise InputError(
            f"phi must be real numbers of shape (models, samples) or (models, samples, queries), "
            f"not {phi.dtype} {phi.shape}: save the scaled logits in that shape"
        )
    if member.shape != phi.shape[:2]:
        raise InputError(
            f"member must have the shape {phi.shape[:2]} of phi, one row per model, not {member.shape}: "
            f"save one boolean per model and sample"
        )
    if member.dtype.kind not in "biuf":
        raise InputError(f"member must be boolean, not {member.dtype}: save True where the model trained on the sample")
    _check_values(phi, member)
    member = member.astype(bool)
    n_shadows = len(phi) - n_targets
    if n_targets < 1 or n_shadows < MIN_SHADOWS:
        raise InputError(
            f"at least 1 target and {MIN_SHADOWS} shadows are needed, but of {len(phi)} rows {n_targets} "
            f"are targets and {max(n_shadows, 0)} shadows: add shadows or take fewer targets"
        )
    n_members = member[n_targets:].sum(axis=0)
    if not np.any((n_members > 0) & (n_members < n_shadows)):
        raise InputError(
            f"no sample has both members and non-members among the {n_shadows} shadows "
            f"(sample 0 has {n_members[0]} members): check member, or which rows are targets"
        )
    return (phi[..., None] if phi.ndim == 2 else phi), member


def _check_values(phi: np.ndarray, member: np.ndarray) -> None:
    """Every phi is finite, its square too, and every member is 0 or 1; row by row, so that memory stays bounded."""
    for row, (scores, is_member) in enumerate(zip(phi, member, strict=True)):
        out_of_range = np.argwhere(~(np.abs(scores) <= np.float64(MAX_PHI)))  # NaN is not within
        if len(out_of_range):
            value = scores[tuple(out_of_range[0])]
            raise InputError(
                f"phi must lie between {-MAX_PHI:g} and {MAX_PHI:g}, but row {row}, column {out_of_range[0][0]} is "
                f"{value:g}: leave that model or sample out, or compute it again"
            )
        if member.dtype.kind != "b":
            not_binary = np.flatnonzero((is_member != 0) & (is_member != 1))
            if len(not_binary):
                column = not_binary[0]
                raise InputError(
                    f"member must be 0 or 1, but row {row}, column {column} is {is_member[column]}: save booleans"
                )
