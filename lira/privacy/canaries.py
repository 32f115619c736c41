"""Gradient canaries: records of known gradient, which show what private training does with a record.

The clipped gradient of a canary is C, the clipping norm, with a random sign in one coordinate of its own. Each of M
canaries is in the run by a fair coin; those that are in it are drawn into a step's sample by the sampler that draws the
images, in the same call, and are added once per logical step to the clipped sum before the noise, to empty batches
too. expected_batch_size does not count them. So they test noise, sampling and accounting. They test neither per-sample
gradients nor clipping, which they do not pass through, but see audit_step().

What they leave as it is: the images' guarantee. Coins, signs, coordinates and samples of the canaries are independent
of the images. Given all of them, the sum of a step is the images' clipped sum plus a constant, which whoever sees the
noisy sum can subtract; so the noisy sums, and the weights that follow from them, are for neighbouring sets of images
exactly as hard to tell apart as without canaries, and a mixture of such mechanisms with weights that do not depend on
the images is no easier. What is claimed for an image is claimed for a canary as well: alone it adds at most C to the
norm of the clipped sum, with the sampling rate of an image, whether or not its coordinate is another's too. A lower
bound on the epsilon of canaries is one on the epsilon of the mechanism.

What is stored beside the weights is the auditor's, and not for publication: scores, coins, and what
lira.privacy.mechanism estimates. A score is computed from signs and noisy sums alone, which the guarantee takes to be
public: it says no more of the images than they do. For the estimates the images' clipped sum is subtracted. What is
left is the noise; its sum over the steps would, by canary, undo the noise in the weights. It is in memory and in the
resume file, which holds the state of the noise's generator anyway and is deleted; only sums over several canaries are
stored."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lira.errors import InputError
from lira.privacy.audit import CanaryScores, Mechanism
from lira.privacy.f_dp import audit_canaries
from lira.privacy.mechanism import CanarySums, Estimate, Outcome, check_mechanisms, estimates, steps_per_epoch

MAX_DEFAULT = 5000
PER_TENSOR = 16  # at least so many, or all coordinates, in every tensor
_SUMS = ("score", "total", "quiet_squares", "n_in", "total_in", "n_once", "n_in_epoch")

Weights = Mapping[str, torch.Tensor]  # name -> trained weight, in the order of the optimizer's


def number(n: int | None, n_weights: int) -> int:
    """n, by default the smaller of MAX_DEFAULT and a tenth of the weights. Raises InputError."""
    if n is None:
        return min(MAX_DEFAULT, n_weights // 10)
    if n > n_weights:
        raise InputError(f"--canaries must be at most {n_weights}, one for each trained weight of the network; got {n}")
    return n


def allocate(sizes: Sequence[int], n: int, rng: np.random.Generator) -> np.ndarray:
    """How many of n canaries each tensor of these sizes has, int64: min(PER_TENSOR, size) or, with few canaries, a
    lower number for all; the rest at random, each coordinate as likely as any other."""
    left = np.array(sizes)
    floors = (np.minimum(least, left) for least in range(PER_TENSOR, -1, -1))
    floor = next(floor for floor in floors if floor.sum() <= n)
    return floor + rng.multivariate_hypergeometric(left - floor, n - floor.sum(), method="marginals")


class Canaries:
    """n gradient canaries among these weights, and what was added up about them in the steps so far.

    In every step: take_part(), add() if there are images, then observe(). mechanism: what is claimed; the scores take
    its sigma and sampling rate. rng: for coordinates, signs and coins."""

    def __init__(
        self, weights: Weights, n: int, mechanism: Mechanism, *, max_grad_norm: float, rng: np.random.Generator
    ):
        self._names, self._shapes = list(weights), [tuple(weight.shape) for weight in weights.values()]
        device = next(iter(weights.values())).device
        self._dtype, self._device = torch.float32 if device.type == "mps" else torch.float64, device
        self._mechanism, self._max_grad_norm = mechanism, max_grad_norm
        sizes = [weight.numel() for weight in weights.values()]
        n_each = allocate(sizes, n, rng)
        places = [rng.choice(size, k, replace=False) for size, k in zip(sizes, n_each, strict=True)]
        self._place(np.repeat(np.arange(len(sizes)), n_each), np.concatenate(places))
        self._sign = self._real(torch.from_numpy(rng.integers(0, 2, n) * 2.0 - 1))
        self._member = torch.from_numpy(rng.random(n) < 0.5).to(device)
        self._sums = {name: self._real(torch.zeros(n)) for name in _SUMS}
        self._n_steps, self._images = 0, self._real(torch.zeros(n))

    def _place(self, tensor: np.ndarray, coordinate: np.ndarray) -> None:
        """tensor: int64 (M,), rising; coordinate: int64 (M,), into the flattened tensor."""
        self._tensor, self._coordinate = tensor, coordinate
        self._tensor_index = torch.from_numpy(tensor).to(self._device)
        self._n_each = np.bincount(tensor, minlength=len(self._shapes)).tolist()
        self._index = [
            tuple(torch.from_numpy(axis).to(self._device) for axis in np.unravel_index(places, shape or (1,)))
            for places, shape in zip(np.split(coordinate, np.cumsum(self._n_each)[:-1]), self._shapes, strict=True)
        ]

    def _real(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(device=self._device, dtype=self._dtype)

    def __len__(self) -> int:
        return len(self._tensor)

    def take_part(self, sampled: np.ndarray) -> None:
        """sampled: bool (M,), which canaries are in the sample of the next step if they are in the run."""
        self._in_sample = torch.from_numpy(sampled).to(self._member.device) & self._member

    def add(self, sums: Sequence[torch.Tensor]) -> None:
        """Add the canaries of this step to the clipped sums of the images, one per tensor, in place."""
        self._images = self._gather(sums)
        values = (self._max_grad_norm * self._sign * self._in_sample).split(self._n_each)
        for total, index, value in zip(sums, self._index, values, strict=True):
            torch.atleast_1d(total)[index] += value.to(total.dtype)

    def observe(self, sums: Sequence[torch.Tensor], *, scale: float = 1.0) -> None:
        """The noisy sums of this step, one per tensor, times the scale.

        The log-likelihood ratio of a step, from y = sign noisy sum / C, is that of the mixture of N(1, v), with the
        sampling rate, and N(0, v) against N(0, v). v is the mean of y^2 over the canaries of the tensor, and at least
        sigma^2: where the images' sum is as large as in biases, a canary says little, and must not rank above the
        others. y, all that the score takes, is what an attacker sees."""
        q, in_sample, sums_of = self._mechanism.sample_rate, self._in_sample, self._sums
        y = self._gather(sums) * self._sign * (scale / self._max_grad_norm)
        x = y - self._images * self._sign / self._max_grad_norm
        squares = torch.stack([part.square().mean() for part in y.split(self._n_each)])
        variance = squares.clamp(min=self._mechanism.sigma**2)[self._tensor_index]
        taken, not_taken = math.log(q), math.log1p(-q) if q < 1 else -math.inf
        ratio = taken + (2 * y - 1) / (2 * variance)
        sums_of["score"] += torch.logaddexp(ratio, torch.full_like(ratio, not_taken))
        sums_of["total"] += x
        sums_of["quiet_squares"] += torch.where(in_sample, 0.0, x**2)
        sums_of["total_in"] += torch.where(in_sample, x, 0.0)
        for name in ("n_in", "n_in_epoch"):
            sums_of[name] += in_sample
        self._n_steps += 1
        if self._n_steps % steps_per_epoch(q) == 0:
            sums_of["n_once"] += sums_of["n_in_epoch"] == 1
            sums_of["n_in_epoch"].zero_()

    def _gather(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The values at the canaries' coordinates, (M,)."""
        values = [torch.atleast_1d(tensor)[index] for tensor, index in zip(tensors, self._index, strict=True)]
        return self._real(torch.cat(values))

    def gradients(self, norm: float) -> list[torch.Tensor]:
        """The per-sample gradients, each of this norm, of the canaries in this step: float32 (B, *shape) per tensor."""
        rows = np.flatnonzero(self._in_sample.cpu().numpy())
        values, gradients = norm * self._sign.float(), []
        for i, shape in enumerate(self._shapes):
            gradient = torch.zeros(len(rows), *shape, device=values.device)
            inside = np.flatnonzero(self._tensor[rows] == i)
            gradient.view(len(rows), math.prod(shape))[inside, self._coordinate[rows[inside]]] = values[rows[inside]]
            gradients.append(gradient)
        return gradients

    def scores(self) -> CanaryScores:
        return CanaryScores(self._sums["score"].cpu().numpy().astype(np.float64), self._member.cpu().numpy())

    def estimates(self) -> list[Estimate]:
        """What the mechanism check of the steps so far has to go by."""
        names = ("total", "quiet_squares", "n_in", "total_in", "n_once")
        n_epochs = self._n_steps // steps_per_epoch(self._mechanism.sample_rate)
        sums = {name: self._sums[name].cpu().numpy().astype(np.float64) for name in names}
        member = self._member.cpu().numpy()
        return estimates(CanarySums(self._n_steps, n_epochs, member, self._tensor, **sums), self._names)

    def results(self) -> dict[str, np.ndarray]:
        """scores() and estimates() as arrays, all that is stored of a complete target."""
        columns = zip(Estimate._fields, zip(*self.estimates(), strict=True), strict=True)
        return vars(self.scores()) | {name: np.array(column) for name, column in columns}

    def state_dict(self) -> dict[str, Any]:
        place = {"tensor": torch.from_numpy(self._tensor), "coordinate": torch.from_numpy(self._coordinate)}
        return place | {"sign": self._sign, "member": self._member, "sums": self._sums, "n_steps": self._n_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """State of any number of canaries: a target that has begun goes on with its own."""
        self._place(state["tensor"].numpy(), state["coordinate"].numpy())
        self._sign, self._member = self._real(state["sign"]), state["member"].to(self._device)
        self._sums = {name: self._real(values).clone() for name, values in state["sums"].items()}
        self._n_steps = state["n_steps"]


@dataclass(frozen=True)
class StepAudit:
    """What audit_step() found of a claimed mechanism. scores: of its canaries; outcomes: of every check, at 99.9 %
    confidence of all together."""

    mechanism: Mechanism
    scores: CanaryScores
    outcomes: list[Outcome]

    @property
    def deviations(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.deviates]

    def f_dp(self, delta: float) -> tuple[float, float]:
        """(epsilon at delta of the largest Gaussian curve that is refuted, p-value of the claimed curve)."""
        return audit_canaries(self.scores, self.mechanism, delta=delta)


def audit_step(
    step: Callable[[list[torch.Tensor]], Sequence[torch.Tensor]],
    weights: Weights,
    mechanism: Mechanism,
    *,
    max_grad_norm: float,
    n_canaries: int | None = None,
    sample: Callable[[int], np.ndarray] | None = None,
    seed: int | None = None,
) -> StepAudit:
    """Audit any DP-SGD step with gradient canaries as its only records:

        from lira.privacy.audit import Mechanism
        from lira.privacy.canaries import audit_step
        from my_training import dp_step, model  # per-sample gradients, (B, *shape) per weight -> their noisy sums

        claimed = Mechanism(sigma=1.0, sample_rate=0.1, steps=200)  # what the accountant is told
        audit = audit_step(dp_step, dict(model.named_parameters()), claimed, max_grad_norm=0.1)
        for row in audit.deviations:
            print(f"{row.check} ({row.scope}): {row.estimate:.4g}, claimed {row.claimed:.4g}")
        epsilon, p_value = audit.f_dp(delta=1e-5)
        print(f"no Gaussian mechanism up to epsilon {epsilon:.2f}; p-value of the claimed one {p_value:.2g}")
        assert not audit.deviations and p_value > 0.001

    step: takes per-sample gradients, float32 (B, *shape) per tensor, B from 0 on, each of norm 10 max_grad_norm, so
    that its clipping is tested too; returns the noisy sum of the clipped ones, one per tensor, as its optimizer would
    get it times the expected batch size. weights: by name. mechanism: what its accountant is told. sample: the sampler,
    n -> bool (n,), which of n records are in the next step, by default Poisson sampling at the rate of the mechanism.
    seed: of canaries and samples, by default from the operating system. Raises InputError."""
    n = number(n_canaries, sum(weight.numel() for weight in weights.values()))
    coins, sampling = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(2))
    canaries = Canaries(weights, n, mechanism, max_grad_norm=max_grad_norm, rng=coins)
    sample = sample or (lambda n: sampling.random(n) < mechanism.sample_rate)
    for _ in range(mechanism.steps):
        canaries.take_part(sample(n))
        canaries.observe([total.detach() for total in step(canaries.gradients(10 * max_grad_norm))])
    (outcomes,) = check_mechanisms([canaries.estimates()], [mechanism])
    return StepAudit(mechanism, canaries.scores(), outcomes)
