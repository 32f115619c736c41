"""Four small models in one step through torch.func (one batched kernel where four models would call four) against the
same four one after another: milliseconds for a step of all of them.

    python benchmarks/ensemble.py [device]"""

import copy
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, stack_module_state, vmap

sys.path.insert(0, str(Path(__file__).parents[1]))

import common
import network
from lira.training.kernels import keep_freed_memory

MODELS, BATCH = 4, 64


def main() -> None:
    keep_freed_memory()
    device = common.resolve_device(*sys.argv[1:] or ["auto"])
    bf16 = common.resolve_precision("auto", device) == "bf16"
    models = [network.build("ConvNet", num_classes=10, in_channels=1, size=(28, 28)).to(device) for _ in range(MODELS)]
    x, y = torch.randn(MODELS, BATCH, 1, 28, 28, device=device), torch.zeros(MODELS, BATCH, dtype=torch.long).to(device)
    weights, buffers = stack_module_state(models)
    empty = copy.deepcopy(models[0]).to("meta")

    def loss(weights, buffers, x, y):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = functional_call(empty, (weights, buffers), (x,))
        return F.cross_entropy(logits.float(), y)

    def together():
        vmap(grad(loss))(weights, buffers, x, y)

    def one_by_one():
        for model, its_x, its_y in zip(models, x, y, strict=True):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(its_x.contiguous(memory_format=torch.channels_last))
            torch.autograd.grad(F.cross_entropy(logits.float(), its_y), list(model.parameters()))

    seconds = {together: [], one_by_one: []}
    for _ in range(12):
        for step, seen in seconds.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seen.append(time.perf_counter() - start)
    for step, seen in seconds.items():
        print(f"{step.__name__}: {statistics.median(seen[2:]) * 1000:.1f} ms")


if __name__ == "__main__":
    main()
