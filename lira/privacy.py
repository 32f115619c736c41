"""DP-SGD by Opacus, which only this room and lira/accounting.py know: networks fit for it, and private training.

Imported only where training is private. The promise is (epsilon, delta) differential privacy of each model for its own
training set, where neighbours differ by one picture more or less (Abadi et al., arXiv 1607.00133)."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import opacus
import torch
import torch.nn.functional as F
from opacus.accountants import create_accountant
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchSplittingSampler
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from opacus.validators import ModuleValidator
from torch import nn

from lira.accounting import epsilon, least_noise
from lira.errors import InputError
from lira.pool import PicturePool

MOST_FOR_PRV = 20.0  # epsilon above which its grid grows to gigabytes, and a promise means little


# --- networks ------------------------------------------------------------------------------------------------------


def without_batch_norm(model: nn.Module) -> nn.Module:
    """The network with GroupNorm in place of BatchNorm, by Opacus's own fixer, so that its strict validator passes.

    Draws no random number. Raises InputError that names the layer which cannot be trained privately."""
    model = model.train()
    if not ModuleValidator.is_valid(model):
        try:
            model = ModuleValidator.fix(model)
        except Exception as error:  # whatever a user's layers raise when they are copied
            _refuse(f"its layers cannot be replaced: {type(error).__name__}: {error}".splitlines()[0])
    for name, layer in model.named_modules():
        errors = ModuleValidator.VALIDATORS.get(type(layer), lambda layer: [])(layer)
        if errors or isinstance(layer, nn.modules.batchnorm._BatchNorm):  # one of the user's own, or without weights
            reason = str(errors[0]).split(". ")[0] if errors else "it mixes the pictures of a batch"
            _refuse(f"layer {name} ({type(layer).__name__}): {reason}")
        if list(layer.buffers()) and any(weight.requires_grad for weight in layer.parameters(recurse=False)):
            _refuse(f"layer {name} ({type(layer).__name__}): it keeps buffers beside weights that are trained")
    ModuleValidator.validate(model, strict=True)
    return model


def check_network(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raises InputError unless an answer depends on its own picture alone, no buffer moves in training, and per-sample
    gradients add up to torch's own. model: from without_batch_norm(), of no use afterwards; shape: (C, H, W)."""
    x = torch.rand((3, *shape), generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)  # as in training
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.no_grad():
            other = model(x[[0, 2]])
        torch.manual_seed(0)
        try:
            _PerSample(model)
            logits = model(x[[0, 1]])
            F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)).backward()
        except Exception as error:  # whatever a user's layers raise under per-sample gradients
            _refuse(f"per-sample gradients fail: {type(error).__name__}: {error}".splitlines()[0])
    if not torch.allclose(logits[0], other[0], rtol=1e-3, atol=1e-5):
        _refuse("in training mode its answer to a picture depends on the other pictures of the batch")
    for name, value in model.named_buffers():
        if not torch.equal(value, buffers[name]):
            _refuse(f"buffer {name} changes in training, and would be published without noise")
    for name, weight in model.named_parameters():
        if weight.requires_grad and not _adds_up(weight):
            _refuse(f"the per-sample gradients of {name} are missing or wrong: let one layer alone use it")


def _adds_up(weight: nn.Parameter) -> bool:
    if weight.grad_sample is None or weight.grad is None:
        return False
    return torch.allclose(weight.grad_sample.mean(0), weight.grad, rtol=1e-2, atol=1e-5)


def _refuse(reason: str) -> None:
    raise InputError(f"no differential privacy with this network, {reason}; change it, or add --disable-dp")


class TensorHooks:
    """What Opacus's modes with hooks lack. Backward hooks sit on the layers' answers instead of on the layers: a
    network may then change an answer in place, as torchvision's residual blocks do. And what a layer was given is
    copied out of channels_last memory, for which the gradients of convolutions are silently wrong."""

    def add_hooks(self, **how) -> None:
        super().add_hooks(**how)
        for handle in self._module.autograd_grad_sample_hooks[1::2]:  # forward and backward in turn
            handle.remove()

    def capture_activations_hook(self, module, forward_input, forward_output) -> None:
        super().capture_activations_hook(module, forward_input, forward_output)
        if getattr(module, "activations", None):
            module.activations[-1] = [given.contiguous() for given in module.activations[-1]]
        answer = forward_output[0] if isinstance(forward_output, tuple) else forward_output
        if module.training and answer.requires_grad:
            how = dict(loss_reduction=self.loss_reduction, batch_first=self.batch_first)
            answer.register_hook(lambda grad: self.capture_backprops_hook(module, None, (grad,), **how))


class _PerSample(TensorHooks, GradSampleModule):
    """Opacus's mode "hooks", measured against the others in benchmarks/dp_modes.py. The model is called as before."""


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
class Privacy:
    """DP-SGD for every model of a run. n_pictures: of a training set as planned, so that neither the sampling nor the
    scale of a step tells how many target samples a coin put into it. Either sigma or target_epsilon is None."""

    n_pictures: int
    batch_size: int
    epochs: int
    sigma: float | None
    target_epsilon: float | None
    max_grad_norm: float
    delta: float
    max_physical_batch: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.n_pictures / self.batch_size)

    @property
    def sample_rate(self) -> float:
        """The probability with which a step takes each picture: an epoch sees n_pictures in expectation."""
        return 1 / self.steps_per_epoch

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @functools.cached_property
    def accountant(self) -> str:
        """prv, the tighter one, wherever its cost is bounded; else rdp. Both are upper bounds. One for a whole run."""
        whole = self.target_epsilon or epsilon("rdp", ((self.sigma, self.sample_rate, self.steps),), self.delta)
        return "prv" if whole <= MOST_FOR_PRV else "rdp"

    @functools.cached_property
    def noise_multiplier(self) -> float:
        """sigma, or the smallest that ends at or just below the target epsilon. Raises InputError where none does."""
        if self.target_epsilon is None:
            return self.sigma
        return least_noise(self.target_epsilon, self.accountant, self.sample_rate, self.steps, self.delta)

    @property
    def epsilon(self) -> float:
        """What a complete model will have spent: the accountant's upper bound at delta."""
        return self.spent([(self.noise_multiplier, self.sample_rate, self.steps)])

    def spent(self, history: list[tuple[float, float, int]]) -> float:
        """Epsilon of an accountant's history: (noise multiplier, sample rate, steps) of the steps taken."""
        return epsilon(self.accountant, tuple(map(tuple, history)), self.delta)

    fit = staticmethod(without_batch_norm)
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
        how = {"accountant": self.accountant, "neighbours": "one picture more or less", "opacus": opacus.__version__}
        return self.record() | how

    def describe(self) -> str:
        known = self.record()
        return (
            f"DP-SGD: sigma {known['sigma']:.4g}, C {self.max_grad_norm:g}, {self.steps} steps at sample rate "
            f"{self.sample_rate:.4g}\nepsilon {known['epsilon']:.4g} at delta {self.delta:g}, of each model for its "
            f"own training set: one picture more or less ({self.accountant} accountant)"
        )

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, sampling: int, noise: int) -> "Training":
        """Make a model and its optimizer private. sampling, noise: seeds, undisclosed as long as the promise holds."""
        return Training(self, model, optimizer, sampling=sampling, noise=noise)


# --- the training of one model -------------------------------------------------------------------------------------


class Training:
    """One model's private training. optimizer: clips and adds noise; parts: what a resume file has to carry."""

    def __init__(self, privacy: Privacy, model: nn.Module, optimizer, *, sampling: int, noise: int):
        device = next(model.parameters()).device
        self._privacy, self._accountant = privacy, create_accountant(privacy.accountant)
        self._sampling = torch.Generator().manual_seed(sampling)
        self._noise = torch.Generator(device).manual_seed(noise)
        _PerSample(model).forbid_grad_accumulation()
        self.optimizer = _Optimizer(
            optimizer,
            noise_multiplier=privacy.noise_multiplier,
            max_grad_norm=privacy.max_grad_norm,
            expected_batch_size=privacy.n_pictures * privacy.sample_rate,
            generator=self._noise,
        )
        self.optimizer.attach_step_hook(self._accountant.get_optimizer_hook_fn(privacy.sample_rate))
        self.parts = {"accountant": self._accountant, "privacy": self}

    def epsilon(self) -> float:
        """What the steps taken so far have spent."""
        return self._privacy.spent(self._accountant.history)

    def batches(
        self, pool: PicturePool, training_set: torch.Tensor, generator: torch.Generator, *, augment: bool
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """One epoch of Poisson samples, (index, top, left, flip) each, in physical batches that fit into memory; the
        optimizer is told which of them end a sample. A sample may be empty. generator: of the augmentation.

        What is drawn does not depend on the size of the physical batches."""
        sampler = UniformWithReplacementSampler(
            num_samples=len(training_set), sample_rate=self._privacy.sample_rate,
            generator=self._sampling, steps=self._privacy.steps_per_epoch,
        )  # fmt: skip
        for sample in sampler:
            columns = (training_set[sample], *pool.draw(len(sample), generator, augment=augment))
            columns = [column.to(pool.device, non_blocking=True) for column in columns]
            for part in BatchSplittingSampler(
                sampler=[range(len(sample))], max_batch_size=self._privacy.max_physical_batch, optimizer=self.optimizer
            ):
                yield tuple(column[part] for column in columns)

    def state_dict(self) -> dict:
        return {"sampling": self._sampling.get_state(), "noise": self._noise.get_state()}

    def load_state_dict(self, state: dict) -> None:
        self._sampling.set_state(state["sampling"])
        self._noise.set_state(state["noise"])
