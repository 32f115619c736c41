"""Images/s of our training loop and of a plain one as in tutorials, beside the limit set by the hardware's arithmetic.

    python benchmarks/train_throughput.py
    python benchmarks/train_throughput.py --dataset data/cifar10-jpeg --networks ResNet18 --rounds 5 --csv rates.csv

plain: torchvision transforms per image, a DataLoader with 0 or 2 workers, fp32, contiguous; same network, batch, images
and optimizer. Each loop runs in a process of its own, as a user would start it, and their epochs alternate; medians of
the rounds. ratio: ours over the faster plain one. limit: the best rate of a large matrix product in our precision, over
the arithmetic of the network's forward and backward pass. outside: the share of our epoch that is not forward, loss,
backward or optimizer step. Without --dataset the images are noise of CIFAR's shape: speed does not depend on them."""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from alternating import alternate, now, peak_memory
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from lira.data.images import Images, make_images
from lira.training.kernels import keep_freed_memory
from util import make_config

BATCHES = {"ConvNet": 20, "ResNet18": 2}  # per epoch on CPU; 50 times as many on a GPU
LOOPS = {"ours": None, "plain": 0, "with 2 workers": 2}  # workers of the DataLoader
FORMATS = dict.fromkeys(LOOPS, "{:,.0f}".format) | {
    "ratio": "{:.2f}".format,
    "share of the limit": "{:.1%}".format,
    "outside": "{:.1%}".format,
    "peak memory": lambda n: f"{n / 1e9:.2f} GB",
    "Mflop per image": "{:,.0f}".format,
    "matrix Gflop/s": "{:,.0f}".format,
}


@dataclass(frozen=True)
class Task:
    """What every loop does: epochs of `batches` batches, on `threads` threads of the CPU or on the device."""

    network: str
    dataset: str | None
    batches: int
    batch_size: int
    threads: int
    device: torch.device
    compiled: bool  # ours, not the plain ones

    def setup(self) -> common.Setup:
        """The images, mirrored at random in every loop, the network and our settings."""
        values = {"train.lr": 0.01, "train.train_batch_size": self.batch_size, "run.compile": self.compiled}
        config = make_config(values | {"model.network": self.network, "disable_dp": True})
        if self.dataset:
            images, _ = common.load_dataset(common.dataset_name(self.dataset), config.data.data_root, progress=False)
        else:
            rng = np.random.default_rng(0)
            x, y = rng.integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8), np.arange(10_000) % 10
            images = make_images("noise", x, y, x[:10], y[:10])
        n_train, n_test = len(images.x_train), len(images.x_test)
        split = common.make_split(n_train, n_test, n_train=None, exp_idx=0, inclusion="half")
        precision = common.resolve_precision("auto", self.device)
        return common.Setup(config, images, flip=True, split=split, device=self.device, precision=precision)

    def training_set(self, images: Images) -> torch.Tensor:
        """Indices of the images of one epoch."""
        return torch.arange(self.batches * self.batch_size) % len(images.x_train)


# --- our loop ------------------------------------------------------------------------------------------------------


def our_epoch(task: Task) -> Callable[[], float]:
    """An epoch; returns the seconds that it spent in forward, loss, backward and step."""
    keep_freed_memory()
    setup = task.setup()
    trainer = common.Trainer(setup, "shadow", 0)
    trainer.training_set = task.training_set(setup.images)
    starts: list[float] = []
    inside: list[float] = []  # seconds per batch
    trainer.model.register_forward_pre_hook(lambda *_: starts.append(now(task.device)))
    trainer.optimizer.register_step_post_hook(lambda *_: inside.append(now(task.device) - starts[-1]))

    def epoch() -> float:
        inside.clear()
        trainer.train(trainer.batches(), progress=lambda n: None)
        return sum(inside)

    return epoch


# --- the plain loop ------------------------------------------------------------------------------------------------


class OneImage(Dataset):
    """As torchvision.datasets.CIFAR10: a PIL image, transformed, and its label, of the images `index` of all, training
    images first. augmentations: transforms of a PIL image."""

    def __init__(self, images: Images, index: torch.Tensor, augmentations: list):
        x, y = torch.cat([images.x_train, images.x_test]), torch.cat([images.y_train, images.y_test])
        self.x, self.y = x[index].permute(0, 2, 3, 1).numpy(), y[index].tolist()
        to_tensor = [transforms.ToTensor(), transforms.Normalize(images.mean, images.std)]
        self.transform = transforms.Compose([*augmentations, *to_tensor])

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.x[i].squeeze())), self.y[i]


def augmentations(images: Images, *, flip: bool) -> list:
    """The usual ones, which are ours: shifts by up to 4 of 32 pixels into black, and mirror images."""
    shift = transforms.RandomCrop(images.size, padding=min(images.size) // 8)
    return [shift, transforms.RandomHorizontalFlip()] if flip else [shift]


def plain_epoch(task: Task, workers: int) -> Callable[[], float]:
    """An epoch; returns NaN: the time in forward, loss, backward and step is not measured."""
    setup, cuda = task.setup(), task.device.type == "cuda"
    model = setup.build().to(task.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        OneImage(setup.images, task.training_set(setup.images), augmentations(setup.images, flip=setup.flip)),
        batch_size=task.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=cuda,
    )

    def epoch() -> float:
        model.train()
        running_loss = 0.0
        for x, y in loader:
            x, y = x.to(task.device), y.to(task.device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        return float("nan")

    return epoch


# --- rounds --------------------------------------------------------------------------------------------------------


def prepare_loop(loop: str, task: Task) -> Callable[[], tuple[float, float, int]]:
    """An epoch; returns (images/s, share outside, peak memory in bytes)."""
    torch.set_num_threads(task.threads)
    workers = LOOPS[loop]
    epoch = our_epoch(task) if workers is None else plain_epoch(task, workers)

    def measure() -> tuple[float, float, int]:
        start = now(task.device)
        inside = epoch()
        seconds = now(task.device) - start
        return task.batches * task.batch_size / seconds, 1 - inside / seconds, peak_memory(task.device)

    return measure


def compete(task: Task, rounds: int) -> dict:
    """One row of the table."""
    loops = {loop: (loop, task) for loop in LOOPS}
    measured, limits = alternate(prepare_loop, loops, rounds, after_each=lambda: matrix_rate(task.device))
    rate = {loop: statistics.median(by_loop[loop][0] for by_loop in measured) for loop in LOOPS}
    arithmetic, limit = flops(task), max(limits)
    return {
        "network": f"{task.network} compiled" if task.compiled else task.network,
        **rate,
        "ratio": rate["ours"] / max(rate["plain"], rate["with 2 workers"]),
        "share of the limit": rate["ours"] * arithmetic / limit,
        "outside": statistics.median(by_loop["ours"][1] for by_loop in measured),
        "peak memory": measured[-1]["ours"][2],
        "Mflop per image": arithmetic / 1e6,
        "matrix Gflop/s": limit / 1e9,
    }


def flops(task: Task) -> float:
    """Operations of one image's forward and backward pass; a multiplication and an addition count as two."""
    setup = task.setup()
    model, x = setup.build(), torch.zeros(2, *setup.images.x_train.shape[1:])
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    return counter.get_total_flops() / len(x)


def matrix_rate(device: torch.device) -> float:
    """Flop/s of a large square matrix product in the precision of training: the best of five."""
    n, times = (8192, 10) if device.type == "cuda" else (3072, 1)
    dtype = torch.bfloat16 if common.resolve_precision("auto", device) == "bf16" else torch.float32
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    seconds = []
    for _ in range(6):
        start = now(device)
        for _ in range(times):
            a @ b
        seconds.append((now(device) - start) / times)
    return 2 * n**3 / min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="as for train_model.py (default: noise of CIFAR's shape)")
    parser.add_argument("--networks", nargs="+", default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, help="per epoch (default: by network and device)")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")
    parser.add_argument("--csv", type=Path, help="write the table there as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, rows = common.resolve_device(args.device), []
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{args.threads} threads"
    print(f"torch {torch.__version__} on {device.type}, {card}, {common.resolve_precision('auto', device)}")
    for name in args.networks:
        batches = args.batches or BATCHES.get(name, 5) * (50 if device.type == "cuda" else 1)
        task = Task(name, args.dataset, batches, args.batch_size, args.threads, device, args.compile)
        rows.append(compete(task, args.rounds))
    table = pd.DataFrame(rows)
    if args.csv:
        table.to_csv(args.csv, index=False)
    print(table.to_string(index=False, formatters=FORMATS))


if __name__ == "__main__":
    main()
