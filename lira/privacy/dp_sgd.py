"""DP-SGD by Opacus (Abadi et al., arXiv 1607.00133). Imported only for training with DP.

The guarantee is (epsilon, delta) differential privacy of each model for its own training set, where neighbouring
training sets differ by one image more or less."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import opacus
import torch
from opacus.accountants import create_accountant
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchSplittingSampler
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import nn
from torch.optim import Optimizer

from lira.data.store import ImageStore
from lira.privacy.accounting import epsilon, min_noise_multiplier
from lira.privacy.compatibility import PerSampleGradients, check_network, replace_batch_norm

MAX_PRV_EPSILON = 20.0  # above it the grid of the PRV accountant takes gigabytes, and the guarantee means little


class _Optimizer(DPOptimizer):
    """Opacus's DPOptimizer with three corrections: norms are computed in the weights' precision (bf16 would round them,
    and so the sensitivity, by up to 0.4 %), an empty Poisson batch is a step of noise alone, and gradients have the
    memory layout of their weights, without which torch's fused optimizers are silently wrong."""

    def _get_flat_grad_sample(self, p: Any) -> torch.Tensor:
        if p.grad_sample is None:
            p.grad_sample = p.new_zeros(0, *p.shape)
        elif p.grad_sample.dtype != p.dtype:
            p.grad_sample = p.grad_sample.to(p.dtype)
        return super()._get_flat_grad_sample(p)

    def add_noise(self) -> None:
        super().add_noise()
        for p in self.params:
            p.grad = torch.empty_like(p).copy_(p.grad)


@dataclass(frozen=True)
class DPSGD:
    """DP-SGD for every model of a run; either sigma or target_epsilon is None. n_images: the planned size of a training
    set, so that neither the sampling nor the scale of a step reveals how many members Bernoulli inclusion chose."""

    n_images: int
    batch_size: int
    epochs: int
    sigma: float | None
    target_epsilon: float | None
    max_grad_norm: float
    delta: float
    max_physical_batch: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.n_images / self.batch_size)

    @property
    def sample_rate(self) -> float:
        """The probability with which a step includes each image: n_images per epoch in expectation."""
        return 1 / self.steps_per_epoch

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @functools.cached_property
    def accountant(self) -> str:
        """prv, the tighter one, where its cost is bounded, else rdp; both give upper bounds. One for all of a run."""
        final_epsilon = self.target_epsilon or epsilon("rdp", ((self.sigma, self.sample_rate, self.steps),), self.delta)
        return "prv" if final_epsilon <= MAX_PRV_EPSILON else "rdp"

    @functools.cached_property
    def noise_multiplier(self) -> float:
        """sigma, or the smallest one with at most the target epsilon. Raises InputError if no noise is enough."""
        if self.target_epsilon is not None:
            return min_noise_multiplier(self.target_epsilon, self.accountant, self.sample_rate, self.steps, self.delta)
        assert self.sigma is not None
        return self.sigma

    @property
    def epsilon(self) -> float:
        """Of a complete model: the accountant's upper bound at delta."""
        return self.epsilon_of([(self.noise_multiplier, self.sample_rate, self.steps)])

    def epsilon_of(self, history: list[tuple[float, float, int]]) -> float:
        """Accounted epsilon of the steps taken, as an accountant's history: (noise multiplier, sample rate, steps)."""
        return epsilon(self.accountant, tuple(map(tuple, history)), self.delta)

    adapt = staticmethod(replace_batch_norm)
    check = staticmethod(check_network)

    def guarantee(self) -> dict[str, float]:
        """The guarantee of a complete model and the parameters of its training."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "sigma": self.noise_multiplier,
            "max_grad_norm": self.max_grad_norm,
            "sample_rate": self.sample_rate,
            "steps": self.steps,
        }

    def provenance(self) -> dict[str, float | str]:
        """guarantee() and how it was accounted, for config.json."""
        accounting = {"accountant": self.accountant, "neighbours": "one image more or less"}
        return self.guarantee() | accounting | {"opacus": opacus.__version__}

    def describe(self) -> str:
        return (
            f"DP-SGD: sigma {self.noise_multiplier:.4g}, C {self.max_grad_norm:g}, {self.steps} steps at sample rate "
            f"{self.sample_rate:.4g}\nepsilon {self.epsilon:.4g} at delta {self.delta:g}, of each model for its "
            f"own training set; neighbouring training sets differ by one image ({self.accountant} accountant)"
        )

    def make_private(self, model: nn.Module, optimizer: Optimizer, *, sampling: int, noise: int) -> "PrivateTraining":
        """Private training of a model. sampling, noise: seeds; the guarantee holds only while they are secret."""
        return PrivateTraining(self, model, optimizer, sampling=sampling, noise=noise)


class PrivateTraining:
    """Private training of one model. optimizer: clips and adds noise; parts: state to be saved in the resume file."""

    def __init__(self, privacy: DPSGD, model: nn.Module, optimizer: Optimizer, *, sampling: int, noise: int):
        device = next(model.parameters()).device
        self._privacy, self._accountant = privacy, create_accountant(privacy.accountant)
        self._sampling = torch.Generator().manual_seed(sampling)
        self._noise = torch.Generator(device).manual_seed(noise)
        PerSampleGradients(model).forbid_grad_accumulation()
        self.optimizer = _Optimizer(
            optimizer,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.max_grad_norm,
            expected_batch_size=privacy.n_images * privacy.sample_rate,
            generator=self._noise,
        )
        self.optimizer.attach_step_hook(self._accountant.get_optimizer_hook_fn(privacy.sample_rate))
        self.parts = {"accountant": self._accountant, "privacy": self}

    def epsilon(self) -> float:
        """Accounted epsilon of the steps taken so far."""
        return self._privacy.epsilon_of(self._accountant.history)

    def batches(
        self, store: ImageStore, training_set: torch.Tensor, generator: torch.Generator, *, augment: bool
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """One epoch of Poisson samples, possibly empty, in physical batches (index, top, left, flip) fitting in memory;
        Opacus signals to the optimizer which physical batch completes a sample. generator: for the augmentation.
        The draws do not depend on the size of the physical batches."""
        sampler = UniformWithReplacementSampler(
            num_samples=len(training_set),
            sample_rate=self._privacy.sample_rate,
            generator=self._sampling,
            steps=self._privacy.steps_per_epoch,
        )
        for sample in sampler:
            columns = (training_set[sample], *store.draw(len(sample), generator, augment=augment))
            on_device = [column.to(store.device, non_blocking=True) for column in columns]
            for batch in BatchSplittingSampler(
                sampler=[range(len(sample))], max_batch_size=self._privacy.max_physical_batch, optimizer=self.optimizer
            ):
                yield tuple(column[batch] for column in on_device)

    def state_dict(self) -> dict:
        return {"sampling": self._sampling.get_state(), "noise": self._noise.get_state()}

    def load_state_dict(self, state: dict) -> None:
        self._sampling.set_state(state["sampling"])
        self._noise.set_state(state["noise"])
