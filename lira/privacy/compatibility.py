"""Networks fit for DP-SGD: GroupNorm for BatchNorm, per-sample gradients, and the check that both are right."""

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from lira.errors import InputError, one_line


def replace_batch_norm(model: nn.Module) -> nn.Module:
    """The network with GroupNorm in place of BatchNorm, by Opacus's own fixer, so that its strict validator passes.

    Draws no random number. Raises InputError that names the layer which cannot be trained privately."""
    model = model.train()
    if not ModuleValidator.is_valid(model):
        try:
            model = ModuleValidator.fix(model)
        except Exception as error:  # whatever a user's layers raise when they are copied
            _reject(f"its layers cannot be replaced: {one_line(error)}")
    for name, layer in model.named_modules():
        errors = ModuleValidator.VALIDATORS.get(type(layer), lambda layer: [])(layer)
        if errors or isinstance(layer, nn.modules.batchnorm._BatchNorm):  # one of the user's own, or without weights
            reason = str(errors[0]).split(". ")[0] if errors else "it mixes the images of a batch"
            _reject(f"layer {name} ({type(layer).__name__}): {reason}")
        if list(layer.buffers()) and any(weight.requires_grad for weight in layer.parameters(recurse=False)):
            _reject(f"layer {name} ({type(layer).__name__}): it keeps buffers beside weights that are trained")
    ModuleValidator.validate(model, strict=True)
    return model


def check_network(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raises InputError unless an answer depends on its own image alone, no buffer moves in training, and per-sample
    gradients add up to torch's own. model: from replace_batch_norm(), of no use afterwards; shape: (C, H, W)."""
    x = torch.rand((3, *shape), generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)  # as in training
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.no_grad():
            other = model(x[[0, 2]])
        torch.manual_seed(0)
        try:
            PerSampleGradients(model)
            logits = model(x[[0, 1]])
            F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)).backward()
        except Exception as error:  # whatever a user's layers raise under per-sample gradients
            _reject(f"per-sample gradients fail: {one_line(error)}")
    if not torch.allclose(logits[0], other[0], rtol=1e-3, atol=1e-5):
        _reject("in training mode its answer to a image depends on the other images of the batch")
    for name, value in model.named_buffers():
        if not torch.equal(value, buffers[name]):
            _reject(f"buffer {name} changes in training, and would be published without noise")
    for name, weight in model.named_parameters():
        if weight.requires_grad and not _adds_up(weight):
            _reject(f"the per-sample gradients of {name} are missing or wrong: let one layer alone use it")


def _adds_up(weight: nn.Parameter) -> bool:
    if weight.grad_sample is None or weight.grad is None:
        return False
    return torch.allclose(weight.grad_sample.mean(0), weight.grad, rtol=1e-2, atol=1e-5)


def _reject(reason: str) -> None:
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


class PerSampleGradients(TensorHooks, GradSampleModule):
    """Opacus's mode "hooks", measured against the others in benchmarks/dp_modes.py. The model is called as before."""
