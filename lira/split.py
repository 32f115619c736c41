"""Who trains on what: the two halves, the target samples, complementary pairs of shadows. Letter N: target samples."""

from dataclasses import dataclass

import numpy as np

from lira.errors import InputError

ROLES = ("target", "shadow")  # a role's place is its code in scores.npz and in every seed


def model_name(role: str, index: int) -> str:
    """What a model is called on the screen, in tables and in file names: shadow_03."""
    return f"{role}_{index:02d}"


def _rng(exp_idx: int, role: int, index: int, purpose: int) -> np.random.Generator:
    """Every draw has a generator of its own, so that no model depends on what was trained before it."""
    return np.random.default_rng(np.random.SeedSequence([exp_idx, role, index, purpose]))


_MEMBERS, _TRAINING_SET, _WEIGHTS, _HALVES, _SAMPLING, _NOISE = range(6)


@dataclass(frozen=True)
class Split:
    """Who trains on what. The training pictures are cut once into two halves, whatever exp_idx is.

    target_half, attack_half: int64 (n_training_pictures // 2,), indices of training pictures;
    n_samples: N, the number of target samples, which are the test pictures; n_train: pictures from a half."""

    target_half: np.ndarray
    attack_half: np.ndarray
    n_samples: int
    n_train: int
    exp_idx: int
    inclusion: str = "half"

    def member(self, role: str, index: int) -> np.ndarray:
        """Which target samples a model trains on, bool (N,).

        Shadow 2k takes a random half and shadow 2k + 1 the rest; targets draw independently."""
        if role == "shadow":
            half = self._random_half(role, index // 2)
            return half if index % 2 == 0 else ~half
        if self.inclusion == "coin":
            return _rng(self.exp_idx, ROLES.index(role), index, _MEMBERS).random(self.n_samples) < 0.5
        return self._random_half(role, index)

    def _random_half(self, role: str, index: int) -> np.ndarray:
        order = _rng(self.exp_idx, ROLES.index(role), index, _MEMBERS).permutation(self.n_samples)
        member = np.zeros(self.n_samples, dtype=bool)
        member[order[: self.n_samples // 2]] = True
        return member

    def training_set(self, role: str, index: int, first_sample: int) -> np.ndarray:
        """Indices of one model's pictures, int64, where target sample i has the index first_sample + i."""
        half = self.target_half if role == "shadow" else self.attack_half
        rng = _rng(self.exp_idx, ROLES.index(role), index, _TRAINING_SET)
        drawn = rng.choice(half, self.n_train, replace=False)
        return np.concatenate([drawn, first_sample + np.flatnonzero(self.member(role, index))])

    def test_set(self, role: str) -> np.ndarray:
        """The half that models of this role never draw from."""
        return self.attack_half if role == "shadow" else self.target_half

    def seed(self, role: str, index: int) -> int:
        """What a model's weights, order of pictures and augmentation start from."""
        return self._seed(role, index, _WEIGHTS)

    def privacy_seeds(self, role: str, index: int) -> dict[str, int]:
        """What the Poisson samples and the noise of DP-SGD start from: independent of each other and of seed()."""
        return {"sampling": self._seed(role, index, _SAMPLING), "noise": self._seed(role, index, _NOISE)}

    def _seed(self, role: str, index: int, purpose: int) -> int:
        return int(_rng(self.exp_idx, ROLES.index(role), index, purpose).integers(2**63))


def default_n_train(n_pictures: int) -> int:
    """The smaller of 20,000 and 80 % of a half."""
    return min(20_000, int(0.8 * (n_pictures // 2)))


def make_split(n_pictures: int, n_samples: int, *, n_train: int | None, exp_idx: int, inclusion: str) -> Split:
    """Cut n_pictures training pictures into two halves; an odd one out is left out. Raises InputError."""
    half = n_pictures // 2
    n_train = default_n_train(n_pictures) if n_train is None else n_train
    if not 1 <= n_train <= half:
        raise InputError(
            f"--n-train must be from 1 to {half}, a half of the {n_pictures} training pictures: got {n_train}"
        )
    order = _rng(0, 0, 0, _HALVES).permutation(n_pictures)
    return Split(order[:half], order[half : 2 * half], n_samples, n_train, exp_idx, inclusion)
