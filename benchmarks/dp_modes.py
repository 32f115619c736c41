"""Images/s and peak memory of DP-SGD: ours beside Opacus's modes and plain training, in the same run.

    python benchmarks/dp_modes.py [--networks ConvNet ResNet18] [--modes ours opacus] [--precisions fp32 bf16]

Each mode runs in a process of its own, and their rounds alternate: steps of 256 random 32x32 images in physical batches
of 64 (plain: in one batch), loss and optimizer included. Images/s are medians of the rounds. ratio: ours over
"opacus", Opacus's hooks and optimizer in contiguous memory as they come, the median of the rounds' ratios.

max norm: the largest of eight clipped gradients' norms, in units of the clipping norm C: above 1 the noise is too small
for the guarantee. error: relative error of the gradient of the eight, without noise, against a loop in fp32."""

import argparse
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from alternating import alternate, now, peak_memory
from opacus.grad_sample.utils import get_gsm_class
from opacus.optimizers import get_optimizer_class
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import resolve_precision
from lira.privacy.compatibility import replace_batch_norm
from lira.privacy.dp_sgd import DPSGD
from lira.training.kernels import keep_freed_memory
from network import build

C, BATCH, PHYSICAL_BATCH = 0.1, 256, 64
STEPS = {"ConvNet": 4}  # in a round; of other networks one
CPU = torch.device("cpu")

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
    if mode == "ours":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
        privacy = DPSGD(batch, batch, 1, sigma, None, max_grad_norm=C, delta=1e-5, max_physical_batch=batch)
        private = privacy.make_private(model, optimizer, key=())
        return model, private.optimizer, lambda logits, y: private.backward(F.cross_entropy(logits, y), len(y))
    arguments: dict[str, Any] = {"functorch": {"force_functorch": True}, "ghost": {"max_grad_norm": C}}.get(mode, {})
    mode = "hooks" if mode == "opacus" else mode
    model = get_gsm_class(mode)(model, **arguments)
    dp_optimizer = get_optimizer_class(clipping="flat", distributed=False, grad_sample_mode=mode)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    optimizer = dp_optimizer(optimizer, noise_multiplier=sigma, max_grad_norm=C, expected_batch_size=batch)
    if mode == "ghost":
        criterion = DPLossFastGradientClipping(model, optimizer, torch.nn.CrossEntropyLoss())
        return model, optimizer, lambda logits, y: criterion(logits, y).backward()
    return model, optimizer, _plain_backward


def _plain_backward(logits: torch.Tensor, y: torch.Tensor) -> None:
    F.cross_entropy(logits, y).backward()


def step(
    model: torch.nn.Module,
    optimizer: Any,
    backward: Backward,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    precision: str,
    physical_batch: int,
) -> None:
    """One step, its gradients left where they are. optimizer: private, if there is more than one physical batch."""
    batches = list(zip(x.split(physical_batch), y.split(physical_batch), strict=True))
    for i, (some_x, some_y) in enumerate(batches):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(some_x)
        backward(logits.float(), some_y)
        if len(batches) > 1:
            optimizer.signal_skip_step(i + 1 < len(batches))
        optimizer.step()
        if i + 1 < len(batches):
            optimizer.zero_grad(set_to_none=True)


class Measured(NamedTuple):
    rate: float  # images/s
    memory: int  # bytes
    exactness: str


def prepare_mode(network: str, mode: str, precision: str) -> Callable[[], Measured]:
    """A round of steps. The exactness is measured in the first, which is not counted."""
    warnings.filterwarnings("ignore")
    keep_freed_memory()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(BATCH, 3, 32, 32, generator=generator)
    y = torch.randint(0, 10, (BATCH,), generator=generator)
    if mode in ("plain", "ours"):
        x = x.to(memory_format=torch.channels_last)
    parts = prepare(network, mode, sigma=1.0, batch=BATCH)
    exactness: list[str] = []

    def measure() -> Measured:
        start, n_steps = now(CPU), STEPS.get(network, 1)
        for _ in range(n_steps):
            step(*parts, x, y, precision=precision, physical_batch=BATCH if mode == "plain" else PHYSICAL_BATCH)
            parts[1].zero_grad(set_to_none=True)
        rate, memory = n_steps * BATCH / (now(CPU) - start), peak_memory(CPU)
        if not exactness:
            exactness.append("" if mode == "plain" else _exactness(network, mode, precision, x[:8], y[:8]))
        return Measured(rate, memory, exactness[0])

    return measure


def _exactness(network: str, mode: str, precision: str, x: torch.Tensor, y: torch.Tensor) -> str:
    """max norm and error, without noise."""
    reference = clipped_gradients(network, x, y)
    singles = [_step_gradient(network, mode, precision, *image) for image in zip(x.split(1), y.split(1), strict=True)]
    max_norm = max(map(_norm, singles)) / C
    gradient = _step_gradient(network, mode, precision, x, y)
    expected = [torch.stack(tensors).mean(0) for tensors in zip(*reference, strict=True)]
    error = _norm(a - b for a, b in zip(gradient, expected, strict=True)) / _norm(expected)
    return f"max norm {max_norm:.6f} C  error {error:.2g}"


def _step_gradient(network: str, mode: str, precision: str, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    parts = prepare(network, mode, sigma=1e-12, batch=len(x))
    step(*parts, x, y, precision=precision, physical_batch=len(x))
    return [weight.grad.double() for weight in parts[0].parameters() if weight.grad is not None]


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


def print_table(network: str, modes: list[str], precision: str, rounds: int) -> None:
    competitors = {mode: (network, mode, precision) for mode in modes}
    measured, _ = alternate(prepare_mode, competitors, rounds)
    for mode in modes:
        rate = statistics.median(by_mode[mode].rate for by_mode in measured)
        row = f"{network:9}{precision:5}{mode:10}{rate:8,.0f} images/s  {measured[-1][mode].memory / 1e9:5.2f} GB"
        if mode == "ours" and "opacus" in modes:
            ratios = [by_mode["ours"].rate / by_mode["opacus"].rate for by_mode in measured]
            row += f"  {statistics.median(ratios):4.2f} times opacus"
        print(f"{row:70}{measured[-1][mode].exactness}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["ConvNet", "ResNet18"])
    parser.add_argument("--modes", nargs="+", default=["plain", "ours", "opacus"], help="also functorch, ew and ghost")
    parser.add_argument("--precisions", nargs="+", default=[resolve_precision("auto", CPU)])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    for network in args.networks:
        for precision in args.precisions:
            print_table(network, args.modes, precision, args.rounds)


if __name__ == "__main__":
    main()
