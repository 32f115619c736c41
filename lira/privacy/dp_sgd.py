"""DP-SGD by Opacus (Abadi et al., arXiv 1607.00133). Imported only for training with DP.

The guarantee is (epsilon, delta) differential privacy of each model for its own training set, where neighbouring
training sets differ by one image more or less."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import opacus
import torch
from opacus.accountants import create_accountant
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchSplittingSampler
from torch import nn
from torch.optim import Optimizer

from lira.data.store import ImageStore
from lira.errors import ModelError
from lira.privacy import compatibility
from lira.privacy.accounting import epsilon, min_noise_multiplier
from lira.privacy.audit import Mechanism
from lira.privacy.canaries import Canaries, number
from lira.privacy.per_sample import PerSampleGradients, per_sample_gradients

MAX_PRV_EPSILON = 20.0  # above it the grid of the PRV accountant takes gigabytes, and the guarantee means little


class _Optimizer(DPOptimizer):
    """Opacus's DPOptimizer with gradient canaries, if there are any, and these changes: it takes Gradients, whose norms
    and sums are in fp32 (bf16 would round them, and so the sensitivity, by up to 0.4 %) and without TF32 for the same
    reason, and lets go of them as soon as they are added; an empty Poisson batch is a step of noise alone; the
    generator is a Noise; and gradients have the memory layout of their weights, without which torch's fused optimizers
    are silently wrong."""

    canaries: Canaries | None = None

    def pre_step(self, closure: Any = None) -> bool | None:
        completes_step = super().pre_step(closure)
        if completes_step and self.canaries:
            self.canaries.observe([p.grad for p in self.params], scale=self.expected_batch_size)
        return completes_step

    def _get_flat_grad_sample(self, p: Any) -> Any:
        return p.grad_sample

    @property
    def accumulated_iterations(self) -> int:
        return 1

    def clip_and_accumulate(self) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            gradients = [per_sample_gradients(p) for p in self.params]
            if present := [each.norms() for each in gradients if each]:
                norms = torch.stack(present).square().sum(0).sqrt()
                factors = (self.max_grad_norm / (norms + 1e-6)).clamp(max=1.0)
            for p, of_images in zip(self.params, gradients, strict=True):
                if p.summed_grad is None:
                    p.summed_grad = torch.zeros_like(p)
                elif not self._is_last_step_skipped:
                    raise ValueError("zero_grad() must be called after each step: its sum would be used again")
                if of_images:
                    p.summed_grad += of_images.weighted_sum(factors)
                p.grad_sample = None
        finally:
            torch.set_float32_matmul_precision(before)

    def add_noise(self) -> None:
        if self.canaries:
            self.canaries.add([p.summed_grad for p in self.params])
        for p in self.params:
            noise = self.generator.normal(p.summed_grad) * (self.noise_multiplier * self.max_grad_norm)
            p.grad = torch.empty_like(p).copy_(p.summed_grad + noise)


class Noise:
    """Standard normal draws on a device: on the CPU by NumPy, whose generator takes all bits of a seed where torch's
    takes 32; elsewhere by torch, which takes 64."""

    def __init__(self, seed: np.random.SeedSequence, device: torch.device):
        self._cpu, self._device = np.random.default_rng(seed), device
        self._generator = torch.Generator(device)
        self._generator.manual_seed(int(seed.generate_state(1, np.uint64)[0]))

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        """float32, of the shape of `like`, on the device."""
        if self._device.type == "cpu":
            return torch.from_numpy(self._cpu.standard_normal(like.shape, dtype=np.float32))
        return torch.randn(like.shape, device=self._device, generator=self._generator)

    def state_dict(self) -> dict[str, Any]:
        return {"cpu": self._cpu.bit_generator.state, "device": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._cpu.bit_generator.state = state["cpu"]
        self._generator.set_state(state["device"])


@dataclass(frozen=True)
class DPSGD:
    """DP-SGD for every model of a run; either sigma or target_epsilon is None. n_images: the planned size of a training
    set, so that neither the sampling nor the scale of a step reveals how many members Bernoulli inclusion chose.
    canaries: gradient canaries of each target. noise_seed: None for noise, samples and canaries from the operating
    system's entropy; with a seed that anyone can know the run repeats, and its guarantee is nominal."""

    n_images: int
    batch_size: int
    epochs: int
    sigma: float | None
    target_epsilon: float | None
    max_grad_norm: float
    delta: float
    max_physical_batch: int
    noise_seed: int | None = None
    canaries: int = 0

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
        return self.guarantee()["epsilon"]

    def epsilon_of(self, history: list[tuple[float, float, int]]) -> float:
        """Accounted epsilon of the steps taken, as an accountant's history: (noise multiplier, sample rate, steps)."""
        return epsilon(self.accountant, tuple(map(tuple, history)), self.delta)

    adapt = staticmethod(compatibility.replace_batch_norm)
    check = staticmethod(compatibility.check_network)
    describe_replaced = staticmethod(compatibility.describe_replaced)

    @property
    def mechanism(self) -> Mechanism:
        """Of a complete model."""
        return Mechanism(self.noise_multiplier, self.sample_rate, self.steps)

    def guarantee(self, mechanism: Mechanism | None = None) -> dict[str, float]:
        """The guarantee and the parameters of a mechanism, by default that of a complete model."""
        mechanism = mechanism or self.mechanism
        epsilon = self.epsilon_of([(mechanism.sigma, mechanism.sample_rate, mechanism.steps)])
        return {"epsilon": epsilon, "delta": self.delta, "max_grad_norm": self.max_grad_norm} | asdict(mechanism)

    def provenance(self) -> dict[str, float | str]:
        """guarantee() and how it was accounted, for config.json."""
        accounting = {"accountant": self.accountant, "neighbours": "one image more or less"}
        return self.guarantee() | accounting | {"canaries": self.canaries, "opacus": opacus.__version__}

    def describe(self) -> str:
        known = self.noise_seed is not None
        nominal = f"; nominal, since --noise-seed {self.noise_seed} makes the noise known" if known else ""
        return (
            f"DP-SGD: sigma {self.noise_multiplier:.4g}, C {self.max_grad_norm:g}, {self.steps} steps at sample rate "
            f"{self.sample_rate:.4g}\nepsilon {self.epsilon:.4g} at delta {self.delta:g}, of each model for its "
            f"own training set; neighbouring training sets differ by one image ({self.accountant} accountant)"
            f"{nominal}" + (f"\ntargets train with {self.canaries:,} gradient canaries" if self.canaries else "")
        )

    def with_canaries(self, n: int | None, n_weights: int) -> "DPSGD":
        """With n gradient canaries in each target, by default as many as suit a network of so many weights. Raises
        InputError."""
        return replace(self, canaries=number(n, n_weights))

    def make_private(
        self, model: nn.Module, optimizer: Optimizer, *, key: Sequence[int], canaries: int = 0
    ) -> "PrivateTraining":
        """Private training of a model with so many gradient canaries. key: tells the models of a noise_seed apart."""
        seed = np.random.SeedSequence(None if self.noise_seed is None else [self.noise_seed, *key])
        return PrivateTraining(self, model, optimizer, seed, canaries)


class PrivateTraining:
    """Private training of one model. optimizer: clips and adds noise; parts: state to be saved in the resume file.
    seed: of Poisson sampling and noise."""

    def __init__(
        self, privacy: DPSGD, model: nn.Module, optimizer: Optimizer, seed: np.random.SeedSequence, canaries: int
    ):
        self._privacy, self._accountant = privacy, create_accountant(privacy.accountant)
        sampling, noise = seed.spawn(2)
        self._sampling = np.random.default_rng(sampling)
        self._noise = Noise(noise, next(model.parameters()).device)
        self._model, self._untrained = model, compatibility.untrained_state(model)
        self._gradients = PerSampleGradients(model)
        self._gradients.forbid_grad_accumulation()
        self.optimizer = _Optimizer(
            optimizer,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.max_grad_norm,
            expected_batch_size=privacy.n_images * privacy.sample_rate,
            generator=self._noise,
        )
        # Never from the generators under audit: from the operating system, or the next of the seed's.
        self._canary_seed = seed.spawn(1)[0] if privacy.noise_seed is not None else None
        self.optimizer.canaries = self._make_canaries(canaries) if canaries else None
        self.optimizer.attach_step_hook(self._accountant.get_optimizer_hook_fn(privacy.sample_rate))
        self.parts = {"accountant": self._accountant, "privacy": self}

    def backward(self, loss: torch.Tensor, n_images: int) -> None:
        """The gradient of each of n images, whose mean loss this is, for the optimizer's next step."""
        self._gradients.backward(loss * n_images)

    def check_weights(self) -> None:
        """Raises ModelError if anything but the trained weights has changed since the start, before they are saved."""
        if entry := compatibility.changed_entry(self._model, self._untrained):
            raise ModelError(
                f"{entry} changed in training: it is no trained weight, and would be published without noise",
                final=True,
            )

    def epsilon(self) -> float:
        """Accounted epsilon of the steps taken so far."""
        return self._privacy.epsilon_of(self._accountant.history)

    def mechanism(self) -> Mechanism:
        """What the accountant was told of the steps taken, all of one kind."""
        ((sigma, sample_rate, steps),) = self._accountant.history
        return Mechanism(sigma, sample_rate, steps)

    def _make_canaries(self, n: int) -> Canaries:
        weights = {name: weight for name, weight in self._model.named_parameters() if weight.requires_grad}
        rng, privacy = np.random.default_rng(self._canary_seed), self._privacy
        return Canaries(weights, n, privacy.mechanism, max_grad_norm=privacy.max_grad_norm, rng=rng)

    @property
    def canaries(self) -> Canaries | None:
        return self.optimizer.canaries

    def batches(
        self, store: ImageStore, training_set: torch.Tensor, generator: torch.Generator, *, augment: bool
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """One epoch of Poisson samples, possibly empty, in physical batches (index, top, left, flip) fitting in memory;
        Opacus signals to the optimizer which physical batch completes a sample. generator: for the augmentation.
        The draws do not depend on the size of the physical batches."""
        n_images = len(training_set)
        for _ in range(self._privacy.steps_per_epoch):
            included = self._sample(n_images + (len(self.canaries) if self.canaries else 0))
            if self.canaries:
                self.canaries.take_part(included[n_images:])
            sample = torch.from_numpy(np.flatnonzero(included[:n_images]))
            columns = (training_set[sample], *store.draw(len(sample), generator, augment=augment))
            on_device = [column.to(store.device, non_blocking=True) for column in columns]
            for batch in BatchSplittingSampler(
                sampler=[range(len(sample))], max_batch_size=self._privacy.max_physical_batch, optimizer=self.optimizer
            ):
                yield tuple(column[batch] for column in on_device)

    def _sample(self, n: int) -> np.ndarray:
        """bool (n,): which of n records, images and canaries, are in the next Poisson sample."""
        return self._sampling.random(n) < self._privacy.sample_rate

    def state_dict(self) -> dict:
        state = {"sampling": self._sampling.bit_generator.state, "noise": self._noise.state_dict()}
        return state | ({"canaries": self.canaries.state_dict()} if self.canaries else {})

    def load_state_dict(self, state: dict) -> None:
        """A target that has begun goes on with the canaries that it has, if any."""
        self._sampling.bit_generator.state = state["sampling"]
        self._noise.load_state_dict(state["noise"])
        self.optimizer.canaries = None
        if "canaries" in state:
            self.optimizer.canaries = self._make_canaries(0)
            self.optimizer.canaries.load_state_dict(state["canaries"])
