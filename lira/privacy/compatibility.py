"""Networks for DP-SGD: GroupNorm instead of BatchNorm, and the check of a network."""

import io
from copy import deepcopy
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from opacus.validators import ModuleValidator
from torch import nn

from lira.errors import InputError, one_line, plural
from lira.privacy.per_sample import PerSampleGradients, per_sample_gradients


def replace_batch_norm(model: nn.Module) -> nn.Module:
    """The network with GroupNorm instead of BatchNorm, by Opacus's ModuleValidator.fix; passes its strict validation.

    Draws no random numbers. Raises InputError that names a layer which cannot be trained with DP-SGD."""
    model = model.train()
    if not ModuleValidator.is_valid(model):
        try:
            model = ModuleValidator.fix(model)
        except Exception as error:  # a user's layers may raise anything when they are copied
            _reject(f"its layers cannot be replaced: {one_line(error)}")
    for name, layer in model.named_modules():
        errors = ModuleValidator.VALIDATORS.get(type(layer), lambda layer: [])(layer)
        if errors or isinstance(layer, nn.modules.batchnorm._BatchNorm):  # a user's subclass, or without weights
            reason = str(errors[0]).split(". ")[0] if errors else "it mixes the images of a batch"
            _reject(f"layer {name} ({type(layer).__name__}): {reason}")
        if list(layer.buffers()) and any(weight.requires_grad for weight in layer.parameters(recurse=False)):
            _reject(f"layer {name} ({type(layer).__name__}): it has buffers besides trainable weights")
    ModuleValidator.validate(model, strict=True)
    return model


def describe_replaced(model: nn.Module, private: nn.Module) -> str:
    """Which layers replace_batch_norm() replaced by what, in one line; empty where none were.

    model: the network before, private: after it."""
    layers = dict(private.named_modules())
    replaced: dict[tuple[str, str], list[str]] = {}
    for name, layer in model.named_modules():
        if name in layers and type(layers[name]) is not type(layer):
            replaced.setdefault((type(layer).__name__, type(layers[name]).__name__), []).append(name)
    lines = []
    for (old, new), names in replaced.items():
        some = [*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])]
        lines.append(f"{new} in place of {plural(len(names), f'{old} layer')} ({', '.join(some)})")
    return "; ".join(lines)


def check_network(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raises InputError unless, in training mode, the logits of an image depend on that image alone, nothing but the
    trained weights can change, and the sum of the per-sample gradients is torch's gradient. Draws no random numbers.
    model: from replace_batch_norm(), not usable afterwards; shape: (C, H, W)."""
    x = torch.rand((3, *shape), generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    before = untrained_state(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.no_grad():
            logits_in_other_batch = model(x[[0, 2]])
        torch.manual_seed(0)
        try:
            private = PerSampleGradients(model)
            logits = model(x[[0, 1]])
            loss = F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64), reduction="sum")
            private.backward(loss, retain_graph=True)
            private.disable_hooks()
            loss.backward()
        except Exception as error:  # a user's layers may raise anything under per-sample gradients
            _reject(f"per-sample gradients fail: {one_line(error)}")
    if not torch.allclose(logits[0], logits_in_other_batch[0], rtol=1e-3, atol=1e-5):
        _reject("in training mode its output for an image depends on the other images of the batch")
    if entry := changed_entry(model, before):
        _reject(f"{entry} changes in training, and would be published without noise")
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            _check_gradient(model, name, weight)


def untrained_state(model: nn.Module) -> dict[str, Any]:
    """Copies of the entries of state_dict() that are no trained weights: they must not change in private training."""
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    return {name: deepcopy(value) for name, value in model.state_dict().items() if name not in trained}


def changed_entry(model: nn.Module, before: dict[str, Any]) -> str | None:
    """The name of an entry whose bits differ from those of an earlier untrained_state(), None if there is none."""
    after = untrained_state(model)
    return next((name for name in {**before, **after} if _bits(before.get(name)) != _bits(after.get(name))), None)


def _bits(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value.cpu().clone() if isinstance(value, torch.Tensor) else value, buffer)
    return buffer.getvalue()


def _check_gradient(model: nn.Module, name: str, weight: Any) -> None:
    """weight.grad: torch's gradient of two images; weight.grad_sample: the gradients of each."""
    if weight.grad is None:
        _reject(f"weight {name} takes no part in training: take it out, or freeze it")
    gradients = per_sample_gradients(weight)
    if gradients and torch.allclose(gradients.weighted_sum(torch.ones(2)), weight.grad, rtol=1e-2, atol=2e-5):
        return
    layer = model.get_submodule(name.rpartition(".")[0])
    remedy = "let its layer alone use it"
    if (padding_mode := getattr(layer, "padding_mode", "zeros")) != "zeros":
        remedy = f"Opacus does not support padding_mode {padding_mode!r}"
    _reject(f"the per-sample gradients of {name} ({type(layer).__name__}) are missing or wrong: {remedy}")


def _reject(reason: str) -> NoReturn:
    raise InputError(f"no differential privacy with this network, {reason}; change it, or add --disable-dp")
