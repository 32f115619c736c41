"""Images a second and peak memory of a DP-SGD step in each per-sample-gradient mode of Opacus, beside plain training.

    python benchmarks/dp_modes.py [--networks ConvNet ResNet18] [--batch 64] [--seconds 4]

Each row is a process of its own, so that peak memory is its own: the best of three turns of the given seconds on one
batch of random 32x32 images, the loss and the optimizer's step included. "ours" is what lira/privacy.py trains with:
mode hooks with norms in fp32 and torch's fused optimizers. All but "opacus", hooks as Opacus has them, use TensorHooks.

heaviest: the most that one of eight clipped images weighs, in units of the clipping norm C: above 1 the noise is too
small for the promise. wrong: how far the gradient of the eight, without noise, is from that of a loop in fp32."""

import argparse
import math
import subprocess
import sys
import time
import warnings
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.nn.functional as F

C = 0.1


def prepare(network: str, mode: str, *, sigma: float, batch: int):
    """(model, optimizer, what takes logits and labels and goes back) in one of the modes."""
    from opacus.grad_sample.utils import get_gsm_class
    from opacus.optimizers import get_optimizer_class
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    from lira.privacy.compatibility import TensorHooks, replace_batch_norm
    from lira.privacy.dp_sgd import DPSGD
    from network import build

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
        known = dict(target_epsilon=None, max_grad_norm=C, delta=1e-5, max_physical_batch=batch)
        privacy = DPSGD(n_images=batch, batch_size=batch, epochs=1, sigma=sigma, **known)
        return model, privacy.begin(model, optimizer, sampling=1, noise=2).optimizer, _plain_backward
    how = {"functorch": {"force_functorch": True}, "ghost": {"max_grad_norm": C}}.get(mode, {})
    mode = "hooks" if mode == "opacus" else mode
    kind = get_gsm_class(mode)
    if mode in ("functorch", "ghost"):
        kind = type(mode, (TensorHooks, kind), {})
    model = kind(model, **how)
    make = get_optimizer_class(clipping="flat", distributed=False, grad_sample_mode=mode)
    optimizer = make(optimizer, noise_multiplier=sigma, max_grad_norm=C, expected_batch_size=batch)
    if mode == "ghost":
        criterion = DPLossFastGradientClipping(model, optimizer, torch.nn.CrossEntropyLoss())
        return model, optimizer, lambda logits, y: criterion(logits, y).backward()
    return model, optimizer, _plain_backward


def _plain_backward(logits, y) -> None:
    F.cross_entropy(logits, y).backward()


def step(model, optimizer, backward, x, y, precision: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(x)
    backward(logits.float(), y)
    optimizer.step()


def measure(network: str, mode: str, precision: str, *, batch: int, seconds: float) -> str:
    """One row of the table."""
    warnings.filterwarnings("ignore")
    from lira.training.kernels import keep_freed_memory

    keep_freed_memory()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, 3, 32, 32, generator=generator)
    if mode in ("plain", "ours"):
        x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (batch,), generator=generator)
    parts = prepare(network, mode, sigma=1.0, batch=batch)
    rates = []
    for turn in range(4):  # the first one warms up
        start, n = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < (seconds if turn else seconds / 4) or not n:
            step(*parts, x, y, precision)
            parts[1].zero_grad(set_to_none=True)
            n += batch
        rates.append(n / spent)
    memory = getrusage(RUSAGE_SELF).ru_maxrss / 2**20
    return f"{max(rates[1:]):8,.0f} a second  {memory:5.2f} GB  {_exactness(network, mode, precision, x, y)}"


def _exactness(network: str, mode: str, precision: str, x, y) -> str:
    """heaviest and wrong, of eight images without noise."""
    if mode == "plain":
        return ""
    reference = clipped_gradients(network, x[:8], y[:8])
    heaviest = max(_length(_step_gradient(network, mode, precision, x[i : i + 1], y[i : i + 1])) for i in range(8)) / C
    found = _step_gradient(network, mode, precision, x[:8], y[:8])
    mean = [torch.stack(parts).mean(0) for parts in zip(*reference, strict=True)]
    apart = _length([a - b for a, b in zip(found, mean, strict=True)]) / _length(mean)
    return f"heaviest {heaviest:.4f} C  wrong {apart:.2g}"


def _step_gradient(network, mode, precision, x, y) -> list[torch.Tensor]:
    model, optimizer, backward = prepare(network, mode, sigma=1e-12, batch=len(x))
    step(model, optimizer, backward, x, y, precision)
    return [weight.grad.double() for weight in model.parameters()]


def clipped_gradients(network: str, x, y) -> list[list[torch.Tensor]]:
    """Each image's gradient in fp32, clipped: a list of one list of tensors for each image."""
    from lira.privacy.compatibility import replace_batch_norm
    from network import build

    torch.manual_seed(0)
    model = replace_batch_norm(build(network, num_classes=10, in_channels=3, size=(32, 32)))
    result = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1].contiguous()), y[i : i + 1])
        gradient = [g.double() for g in torch.autograd.grad(loss, list(model.parameters()))]
        result.append([g * min(1.0, C / (_length(gradient) + 1e-6)) for g in gradient])
    return result


def _length(tensors) -> float:
    return math.sqrt(sum(float((t**2).sum()) for t in tensors))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--networks", nargs="+", default=["ConvNet", "ResNet18"])
    arguments.add_argument("--modes", nargs="+", default=["plain", "ours", "opacus", "functorch", "ew", "ghost"])
    arguments.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=4)
    arguments.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    if arguments.row:
        print(measure(*arguments.row, batch=arguments.batch, seconds=arguments.seconds))
        return
    for network in arguments.networks:
        for precision in arguments.precisions:
            for mode in arguments.modes:
                row = ["--row", network, mode, precision]
                common = ["--batch", str(arguments.batch), "--seconds", str(arguments.seconds)]
                called = subprocess.run([sys.executable, __file__, *row, *common], capture_output=True, text=True)
                said = called.stdout.strip() or "fails: " + called.stderr.strip().splitlines()[-1][:90]
                print(f"{network:9}{precision:5}{mode:10}{said}", flush=True)


if __name__ == "__main__":
    main()
