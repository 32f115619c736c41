"""Images/s and peak memory of a DP-SGD step in each per-sample-gradient mode of Opacus, beside plain training.

    python benchmarks/dp_modes.py [--networks ConvNet ResNet18] [--batch 64] [--seconds 4]

Each row is measured in a separate process, so that peak memory is its own: the best of three rounds of the given
seconds on one batch of random 32x32 images, the loss and the optimizer's step included. "ours" is what
lira/privacy/dp_sgd.py trains with: mode hooks with norms in fp32 and torch's fused optimizers. All but "opacus"
(Opacus's hooks) have the corrections of TensorHooks.

max norm: the largest of eight clipped gradients' norms, in units of the clipping norm C: above 1 the noise is too small
for the guarantee. error: relative error of the gradient of the eight, without noise, against a loop in fp32."""

import argparse
import math
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch
import torch.nn.functional as F
from opacus.grad_sample.utils import get_gsm_class
from opacus.optimizers import get_optimizer_class
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lira.privacy.compatibility import TensorHooks, replace_batch_norm
from lira.privacy.dp_sgd import DPSGD
from lira.training.kernels import keep_freed_memory
from network import build

C = 0.1

Backward = Callable[[torch.Tensor, torch.Tensor], None]  # logits and labels


def prepare(
    network: str, mode: str, *, sigma: float, batch: int
) -> tuple[torch.nn.Module, torch.optim.Optimizer, Backward]:
    """(model, optimizer, loss and backward pass) in one of the modes."""
    torch.manual_seed(0)
    model = build(network, num_classes=10, in_channels=3, size=(32, 32))
    if mode == "plain":
        model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
        return model, optimizer, _plain_backward
    model = replace_batch_norm(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if mode == "ours":
        model = model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
        privacy = DPSGD(
            n_images=batch,
            batch_size=batch,
            epochs=1,
            sigma=sigma,
            target_epsilon=None,
            max_grad_norm=C,
            delta=1e-5,
            max_physical_batch=batch,
        )
        return model, privacy.make_private(model, optimizer, key=()).optimizer, _plain_backward
    arguments: dict[str, Any] = {"functorch": {"force_functorch": True}, "ghost": {"max_grad_norm": C}}.get(mode, {})
    mode = "hooks" if mode == "opacus" else mode
    wrapper = get_gsm_class(mode)
    if mode in ("functorch", "ghost"):
        wrapper = type(mode, (TensorHooks, wrapper), {})
    model = wrapper(model, **arguments)
    dp_optimizer = get_optimizer_class(clipping="flat", distributed=False, grad_sample_mode=mode)
    optimizer = dp_optimizer(optimizer, noise_multiplier=sigma, max_grad_norm=C, expected_batch_size=batch)
    if mode == "ghost":
        criterion = DPLossFastGradientClipping(model, optimizer, torch.nn.CrossEntropyLoss())
        return model, optimizer, lambda logits, y: criterion(logits, y).backward()
    return model, optimizer, _plain_backward


def _plain_backward(logits: torch.Tensor, y: torch.Tensor) -> None:
    F.cross_entropy(logits, y).backward()


def step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    backward: Backward,
    x: torch.Tensor,
    y: torch.Tensor,
    precision: str,
) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(x)
    backward(logits.float(), y)
    optimizer.step()


def measure(network: str, mode: str, precision: str, *, batch: int, seconds: float) -> str:
    """One row of the table."""
    warnings.filterwarnings("ignore")
    keep_freed_memory()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, 3, 32, 32, generator=generator)
    if mode in ("plain", "ours"):
        x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), generator=generator)
    model, optimizer, backward = prepare(network, mode, sigma=1.0, batch=batch)
    rates = []
    for turn in range(4):  # the first one warms up
        start, n = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < (seconds if turn else seconds / 4) or not n:
            step(model, optimizer, backward, x, y, precision)
            optimizer.zero_grad(set_to_none=True)
            n += batch
        rates.append(n / elapsed)
    memory = getrusage(RUSAGE_SELF).ru_maxrss / 2**20
    return f"{max(rates[1:]):8,.0f} images/s  {memory:5.2f} GB  {_exactness(network, mode, precision, x, y)}"


def _exactness(network: str, mode: str, precision: str, x: torch.Tensor, y: torch.Tensor) -> str:
    """max norm and error, of eight images without noise."""
    if mode == "plain":
        return ""
    x, y = x[:8], y[:8]
    reference = clipped_gradients(network, x, y)
    singles = [_step_gradient(network, mode, precision, *image) for image in zip(x.split(1), y.split(1), strict=True)]
    max_norm = max(map(_norm, singles)) / C
    gradient = _step_gradient(network, mode, precision, x, y)
    expected = [torch.stack(tensors).mean(0) for tensors in zip(*reference, strict=True)]
    error = _norm(a - b for a, b in zip(gradient, expected, strict=True)) / _norm(expected)
    return f"max norm {max_norm:.4f} C  error {error:.2g}"


def _step_gradient(network: str, mode: str, precision: str, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    model, optimizer, backward = prepare(network, mode, sigma=1e-12, batch=len(x))
    step(model, optimizer, backward, x, y, precision)
    return [weight.grad.double() for weight in model.parameters() if weight.grad is not None]


def clipped_gradients(network: str, x: torch.Tensor, y: torch.Tensor) -> list[list[torch.Tensor]]:
    """The clipped fp32 gradient of each image: one list of tensors per image."""
    torch.manual_seed(0)
    model = replace_batch_norm(build(network, num_classes=10, in_channels=3, size=(32, 32)))
    result = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1].contiguous()), y[i : i + 1])
        gradient = [g.double() for g in torch.autograd.grad(loss, list(model.parameters()))]
        result.append([g * min(1.0, C / (_norm(gradient) + 1e-6)) for g in gradient])
    return result


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(float((t**2).sum()) for t in tensors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["ConvNet", "ResNet18"])
    parser.add_argument("--modes", nargs="+", default=["plain", "ours", "opacus", "functorch", "ew", "ghost"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(measure(*args.row, batch=args.batch, seconds=args.seconds))
        return
    for network in args.networks:
        for precision in args.precisions:
            for mode in args.modes:
                flags = ["--row", network, mode, precision, "--batch", str(args.batch), "--seconds", str(args.seconds)]
                process = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True)
                row = process.stdout.strip() or "fails: " + process.stderr.strip().splitlines()[-1][:90]
                print(f"{network:9}{precision:5}{mode:10}{row}", flush=True)


if __name__ == "__main__":
    main()
