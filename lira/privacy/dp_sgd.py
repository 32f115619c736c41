"""DP-SGD by Opacus, which only this room and lira/accounting.py know: networks fit for it, and private training.

Imported only where training is private. The promise is (epsilon, delta) differential privacy of each model for its own
training set, where neighbours differ by one image more or less (Abadi et al., arXiv 1607.00133)."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import opacus
import torch
from opacus.accountants import create_accountant
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchSplittingSampler
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import nn

from lira.data.store import ImageStore
from lira.privacy.accounting import epsilon, min_noise_multiplier
from lira.privacy.compatibility import PerSampleGradients, check_network, replace_batch_norm

MAX_FOR_PRV = 20.0  # epsilon above which its grid grows to gigabytes, and a promise means little


class _Optimizer(DPOptimizer):
    """Opacus's DPOptimizer, except that norms are taken in the weights' precision (in bf16 they are rounded by up to
    0.4 %, and so is the sensitivity), an empty Poisson batch is a step of noise alone, and gradients have the memory
    layout of their weights, without which torch's fused optimizers are silently wrong."""

    def _get_flat_grad_sample(self, p: torch.Tensor) -> torch.Tensor:
        if p.grad_sample is None:
            p.grad_sample = p.new_zeros(0, *p.shape)
        elif p.grad_sample.dtype != p.dtype:
            p.grad_sample = p.grad_sample.to(p.dtype)
        return super()._get_flat_grad_sample(p)

    def add_noise(self) -> None:
        super().add_noise()
        for p in self.params:
            p.grad = torch.empty_like(p).copy_(p.grad)


# --- the promise of a run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DPSGD:
    """DP-SGD for every model of a run. n_images: of a training set as planned, so that neither the sampling nor the
    scale of a step tells how many target samples a coin put into it. Either sigma or target_epsilon is None."""

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
        """The probability with which a step takes each image: an epoch sees n_images in expectation."""
        return 1 / self.steps_per_epoch

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @functools.cached_property
    def accountant(self) -> str:
        """prv, the tighter one, wherever its cost is bounded; else rdp. Both are upper bounds. One for a whole run."""
        whole = self.target_epsilon or epsilon("rdp", ((self.sigma, self.sample_rate, self.steps),), self.delta)
        return "prv" if whole <= MAX_FOR_PRV else "rdp"

    @functools.cached_property
    def noise_multiplier(self) -> float:
        """sigma, or the smallest that ends at or just below the target epsilon. Raises InputError where none does."""
        if self.target_epsilon is None:
            return self.sigma
        return min_noise_multiplier(self.target_epsilon, self.accountant, self.sample_rate, self.steps, self.delta)

    @property
    def epsilon(self) -> float:
        """What a complete model will have spent: the accountant's upper bound at delta."""
        return self.spent([(self.noise_multiplier, self.sample_rate, self.steps)])

    def spent(self, history: list[tuple[float, float, int]]) -> float:
        """Epsilon of an accountant's history: (noise multiplier, sample rate, steps) of the steps taken."""
        return epsilon(self.accountant, tuple(map(tuple, history)), self.delta)

    fit = staticmethod(replace_batch_norm)
    check = staticmethod(check_network)

    def record(self) -> dict:
        """The promise of a complete model, as plain values."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "sigma": self.noise_multiplier,
            "max_grad_norm": self.max_grad_norm,
            "sample_rate": self.sample_rate,
            "steps": self.steps,
        }

    def provenance(self) -> dict:
        """What config.json says of it."""
        how = {"accountant": self.accountant, "neighbours": "one image more or less", "opacus": opacus.__version__}
        return self.record() | how

    def describe(self) -> str:
        known = self.record()
        return (
            f"DP-SGD: sigma {known['sigma']:.4g}, C {self.max_grad_norm:g}, {self.steps} steps at sample rate "
            f"{self.sample_rate:.4g}\nepsilon {known['epsilon']:.4g} at delta {self.delta:g}, of each model for its "
            f"own training set: one image more or less ({self.accountant} accountant)"
        )

    def begin(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *, sampling: int, noise: int
    ) -> "PrivateTraining":
        """Make a model and its optimizer private. sampling, noise: seeds, undisclosed as long as the promise holds."""
        return PrivateTraining(self, model, optimizer, sampling=sampling, noise=noise)


# --- the training of one model -------------------------------------------------------------------------------------


class PrivateTraining:
    """One model's private training. optimizer: clips and adds noise; parts: what a resume file has to carry."""

    def __init__(self, privacy: DPSGD, model: nn.Module, optimizer, *, sampling: int, noise: int):
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
        """What the steps taken so far have spent."""
        return self._privacy.spent(self._accountant.history)

    def batches(
        self, store: ImageStore, training_set: torch.Tensor, generator: torch.Generator, *, augment: bool
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """One epoch of Poisson samples, (index, top, left, flip) each, in physical batches that fit into memory; the
        optimizer is told which of them end a sample. A sample may be empty. generator: of the augmentation.

        What is drawn does not depend on the size of the physical batches."""
        sampler = UniformWithReplacementSampler(
            num_samples=len(training_set), sample_rate=self._privacy.sample_rate,
            generator=self._sampling, steps=self._privacy.steps_per_epoch,
        )  # fmt: skip
        for sample in sampler:
            columns = (training_set[sample], *store.draw(len(sample), generator, augment=augment))
            columns = [column.to(store.device, non_blocking=True) for column in columns]
            for part in BatchSplittingSampler(
                sampler=[range(len(sample))], max_batch_size=self._privacy.max_physical_batch, optimizer=self.optimizer
            ):
                yield tuple(column[part] for column in columns)

    def state_dict(self) -> dict:
        return {"sampling": self._sampling.get_state(), "noise": self._noise.get_state()}

    def load_state_dict(self, state: dict) -> None:
        self._sampling.set_state(state["sampling"])
        self._noise.set_state(state["noise"])
