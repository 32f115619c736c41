"""Per-sample gradients by Opacus's hooks, each layer's in the cheapest form that clips exactly.

The gradient of a convolution or linear layer is a sum of outer products over the T places of its output: of image i,
g_i = sum over t of b_it a_it', with a_it (P,) the inputs behind place t and b_it (O,) the gradient at its output.
Either g_i is computed, in the precision of training, and what was computed is measured and added (OfEachImage); or,
where T is small, neither its norm nor the clipped sum needs it (OuterProducts: ghost clipping, Li et al., arXiv
2110.05679, and book-keeping, Bu et al., arXiv 2210.00038, which saves the second backward pass). What bf16 rounds is
rounded before an image is measured: norms and sums take values of bf16 as they are, in fp32 or better."""

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from opacus.utils.module_utils import trainable_parameters
from torch import nn
from torch.autograd.graph import get_gradient_edge

_UNIT = 2.0**-24, 2.0**-53  # unit roundoff of fp32 and fp64
IN_CACHE = 2  # images whose gradients are converted to fp32 at a time
MAX_PLACES = 100  # of OuterProducts, see _is_cheaper()

Restore = Callable[[torch.Tensor], torch.Tensor]  # (..., O, P) -> (..., *shape of the weight)


def _as_is(gradient: torch.Tensor) -> torch.Tensor:
    return gradient


@dataclass(frozen=True)
class OfEachImage:
    """gradients: (B, ...) in any floating precision; restore: of one gradient or of several."""

    gradients: torch.Tensor
    restore: Restore = _as_is

    def norms(self) -> torch.Tensor:
        """fp32 (B,). By sum(), which adds up in stages: vector_norm() of two million equal numbers is off by 0.2 %."""
        return torch.cat([part.reshape(len(part), -1).square().sum(1) for part in self._parts()]).sqrt()

    def weighted_sum(self, factors: torch.Tensor) -> torch.Tensor:
        """The sum over images, each times its factor, fp32 (B,); in the shape of the weight."""
        total = torch.zeros(self.gradients.shape[1:], device=factors.device)
        for some, part in zip(factors.split(IN_CACHE), self._parts(), strict=True):
            total += torch.einsum("i,i...", some, part)
        return self.restore(total)

    def _parts(self) -> Iterator[torch.Tensor]:
        """fp32, of a few images at a time."""
        return (part.float() for part in self.gradients.split(IN_CACHE))

    def each(self) -> torch.Tensor:
        """(B, *shape of the weight)."""
        return self.restore(self.gradients)


@dataclass(frozen=True)
class OuterProducts:
    """inputs a: (B, T, P); outputs b: (B, T, O), of one precision."""

    inputs: torch.Tensor
    outputs: torch.Tensor
    restore: Restore = _as_is

    def norms(self) -> torch.Tensor:
        """fp32 (B,), at least the norm of what weighted_sum() adds for an image of factor 1.

        |g|^2 = sum over s, t of (a_s.a_t)(b_s.b_t), in fp64. Its terms may cancel, so that rounding is in proportion to
        S = sum over t of |a_t||b_t|, not to |g|: at most (P + O + T^2) u S^2 for the squared norm (Higham, Accuracy and
        Stability of Numerical Algorithms, lemma 3.1 and the inequality of Cauchy and Schwarz), and at most (T + 2) u S
        for the products and sums over t of weighted_sum(). Both are added."""
        a, b = self.inputs, self.outputs
        size = torch.einsum("nt,nt->n", *(x.float().square().sum(2).sqrt() for x in (a, b)))  # S
        n_places, (unit, unit64) = a.shape[1], _UNIT
        norms = size
        if n_places > 1:
            a, b = a.double(), b.double()
            squares = ((a @ a.mT) * (b @ b.mT)).sum((1, 2))
            bound = (a.shape[2] + b.shape[2] + n_places**2) * unit64 * size.double() ** 2
            norms = (squares.clamp(min=0) + bound).sqrt().float()
        return norms + (n_places + 2) * unit * size

    def weighted_sum(self, factors: torch.Tensor) -> torch.Tensor:
        """As OfEachImage.weighted_sum()."""
        weighted = self.outputs.float() * factors[:, None, None]
        return self.restore(weighted.flatten(0, 1).T @ self.inputs.float().flatten(0, 1))

    def each(self) -> torch.Tensor:
        return self.restore(torch.bmm(self.outputs.mT, self.inputs))


Gradients = OfEachImage | OuterProducts


def per_sample_gradients(weight: Any) -> Gradients | None:
    """Those that a backward pass left, if any."""
    found = weight.grad_sample
    return OfEachImage(found) if isinstance(found, torch.Tensor) else found


def _weight_gradients(inputs: torch.Tensor, outputs: torch.Tensor, restore: Restore = _as_is) -> Gradients:
    """In the cheaper form. Arguments as for OuterProducts."""
    products = OuterProducts(inputs, outputs, restore)
    if _is_cheaper(products):
        return products
    return OfEachImage(torch.bmm(outputs.mT, inputs), restore)


def _is_cheaper(products: OuterProducts) -> bool:
    """Measured on CPU, as multiples of a weight per image: g_i is written once and read four times, which costs as much
    as 100 multiplications; outer products cost T more for a sum in fp32 instead of bf16 and T^2 (1/P + 1/O) in fp64."""
    n_places, n_inputs = products.inputs.shape[1:]
    cost = n_places * (1 + 4 * n_places * (1 / n_inputs + 1 / products.outputs.shape[2]))
    return n_places == 1 or (cost <= MAX_PLACES and products.inputs.device.type != "mps")  # which has no fp64


# --- layers: (layer, inputs, gradient at the output) -> the gradients of its weights ---------------------------------


def _linear(layer: nn.Linear, inputs: torch.Tensor, outputs: torch.Tensor) -> dict[nn.Parameter, Gradients]:
    a, b = (x.reshape(len(x), -1, x.shape[-1]) for x in (inputs.to(outputs.dtype), outputs))
    return _trained(layer, lambda: _weight_gradients(a, b), lambda: b.sum(1, dtype=torch.float32))


def _convolution(layer: nn.Conv2d, inputs: torch.Tensor, outputs: torch.Tensor) -> dict[nn.Parameter, Gradients]:
    n, groups, b = len(inputs), layer.groups, outputs.flatten(2)

    def weight() -> Gradients:
        patches, restore = _patches(layer, inputs.to(outputs.dtype), outputs.shape[2:])
        if groups == 1:
            return _weight_gradients(patches, b.mT, restore)
        of_groups = patches.reshape(n, b.shape[2], groups, -1), b.reshape(n, groups, -1, b.shape[2])
        gradients = torch.einsum("ntgp,ngot->ngop", *of_groups)
        return OfEachImage(gradients.reshape(n, *layer.weight.shape))

    return _trained(layer, weight, lambda: b.sum(2, dtype=torch.float32))


def _patches(layer: nn.Conv2d, images: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, Restore]:
    """(B, T, P): the inputs behind each place of a map of this size; P in the order of channels last where an image has
    many, which copies whole pixels. A view by the strides that the images have: Opacus's takes them for contiguous."""
    if any(layer._reversed_padding_repeated_twice):
        images = F.pad(images, layer._reversed_padding_repeated_twice)
    n_channels = images.shape[1]
    channels_last = n_channels >= 16 and layer.groups == 1
    order = torch.channels_last if channels_last else torch.contiguous_format
    images = images.contiguous(memory_format=order)
    image, channel, row, column = images.stride()
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    in_kernel = (row * dilation[0], column * dilation[1])
    strides = (image, row * stride[0], column * stride[1], channel, *in_kernel)
    windows = images.as_strided((len(images), *size, n_channels, *kernel), strides)
    if channels_last:
        patches = windows.permute(0, 1, 2, 4, 5, 3).reshape(len(images), size[0] * size[1], -1)
        return patches, lambda gradient: gradient.unflatten(-1, (*kernel, n_channels)).movedim(-1, -3)
    patches = windows.permute(0, 3, 4, 5, 1, 2).reshape(len(images), -1, size[0] * size[1])
    return patches.mT, lambda gradient: gradient.unflatten(-1, (n_channels, *kernel))


def _group_norm(layer: nn.GroupNorm, inputs: torch.Tensor, outputs: torch.Tensor) -> dict[nn.Parameter, Gradients]:
    """torch's kernel for the gradients of scale and shift, for B images of C channels as one image of B C channels."""
    n, channels = inputs.shape[:2]
    x, b = inputs.to(outputs.dtype).reshape(1, n * channels, -1), outputs.reshape(1, n * channels, -1)
    shape = (1, n * channels, x.shape[2], n * layer.num_groups)
    _, mean, rstd = torch.native_group_norm(x, None, None, *shape, layer.eps)
    backward = torch.ops.aten.native_group_norm_backward
    _, scale, shift = backward(b, x, mean, rstd, None, *shape, [False, True, True])
    return _trained(layer, lambda: scale.reshape(n, channels), lambda: shift.reshape(n, channels))


def _trained(layer: Any, weight: Callable[[], Any], bias: Callable[[], Any]) -> dict[nn.Parameter, Gradients]:
    made = {p: make() for p, make in ((layer.weight, weight), (layer.bias, bias)) if p is not None and p.requires_grad}
    return {p: OfEachImage(value) if isinstance(value, torch.Tensor) else value for p, value in made.items()}


LAYERS: dict[type[nn.Module], Callable[[Any, torch.Tensor, torch.Tensor], dict[nn.Parameter, Gradients]]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
}


def _grad_sampler(
    kind: type[nn.Module], layer: nn.Module, activations: list[torch.Tensor], backprops: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """As Opacus calls it, which adds up the gradients of a weight that is used more than once."""
    return {weight: of_each.each() for weight, of_each in LAYERS[kind](layer, activations[0], backprops).items()}


class PerSampleGradients(GradSampleModule):
    """Opacus's hooks on a model, which is called as before. backward() leaves Gradients in grad_sample of each weight,
    or Opacus's tensor (B, *shape) where LAYERS does not have its layer or it is used more than once.

    Hooks are on the outputs of the layers, not on the layers: a network may then change an output in place, as
    torchvision's residual blocks do. Networks with GroupNorm, which is many times slower in channels_last memory, run
    in contiguous memory, others in channels_last."""

    GRAD_SAMPLERS: ClassVar[Any] = ChainMap(
        {kind: partial(_grad_sampler, kind) for kind in LAYERS}, GradSampleModule.GRAD_SAMPLERS
    )

    def __init__(self, model: nn.Module):
        self._first: list[Any] = []  # gradient edges of the layers that no other trained layer stands before
        super().__init__(model, loss_reduction="sum")
        contiguous = any(isinstance(layer, nn.GroupNorm) for layer in model.modules())
        order = torch.contiguous_format if contiguous else torch.channels_last
        model.to(memory_format=order)
        model.register_forward_pre_hook(
            lambda module, inputs: tuple(x.contiguous(memory_format=order) if x.dim() == 4 else x for x in inputs)
        )

    def backward(self, loss: torch.Tensor, *, retain_graph: bool = False) -> None:
        """loss: the sum over the images. torch's gradients of the weights, a third of its work, are not computed."""
        edges, self._first = self._first, []
        torch.autograd.grad(loss, edges, retain_graph=retain_graph)

    def add_hooks(self, **options: Any) -> None:
        super().add_hooks(**options)
        for handle in self._module.autograd_grad_sample_hooks[1::2]:  # forward and backward hooks alternate
            handle.remove()

    def capture_activations_hook(self, module: nn.Module, forward_input: Any, forward_output: Any) -> None:
        super().capture_activations_hook(module, forward_input, forward_output)
        output = forward_output[0] if isinstance(forward_output, tuple) else forward_output
        if module.training and output.requires_grad:
            options = dict(loss_reduction=self.loss_reduction, batch_first=self.batch_first)
            output.register_hook(lambda grad: self.capture_backprops_hook(module, None, (grad,), **options))
            if self.hooks_enabled and not any(x.requires_grad for x in forward_input):
                self._first.append(get_gradient_edge(output))

    def capture_backprops_hook(self, module: Any, _: Any, forward_output: Any, **options: Any) -> None:
        weights: list[Any] = [weight for _, weight in trainable_parameters(module)]
        used_once = all(p._forward_counter == 1 and not hasattr(p, "_current_grad_sample") for p in weights)
        if not (self.hooks_enabled and used_once and type(module) in LAYERS):
            return super().capture_backprops_hook(module, _, forward_output, **options)
        (inputs, *_), outputs = self.rearrange_grad_samples(module=module, backprops=forward_output[0], **options)
        del module.max_batch_len
        gradients = LAYERS[type(module)](module, inputs, outputs.detach())
        for weight in weights:
            if weight.grad_sample is not None:
                raise ValueError("per-sample gradients of two backward passes without a step between them")
            weight.grad_sample, weight._forward_counter = gradients[weight], 0
        return None
