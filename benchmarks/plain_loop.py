"""Does our loop lose accuracy? One model of ours and one of a plain PyTorch loop for each target, the same settings.

    python benchmarks/plain_loop.py --dataset data/cifar100-jpeg --network ConvNet --disable-dp --epochs 40 --lr-step 32
    python benchmarks/plain_loop.py … --n-runs 3 --precision fp32

Flags as for train_model.py, without DP; --n-runs: how many targets. Both loops have the same images, network, batch
size, optimizer, learning rates, weight decay and test images. The plain one is written as in tutorials: torchvision
transforms, a DataLoader, fp32, contiguous tensors. Initial weights, order and augmentation differ: each loop draws its
own. Prints test and training accuracy of each model at the end, and their difference; writes nothing."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from paired import difference
from torch.utils.data import DataLoader
from train_throughput import OneImage, augmentations

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import Setup, Trainer, prepare
from lira.errors import InputError
from lira.training.kernels import keep_freed_memory
from util import Config, run_script

OPTIMIZERS = {
    "SGD": torch.optim.SGD,
    "MSGD": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "RMSprop": torch.optim.RMSprop,
}


def train_ours(setup: Setup, index: int) -> tuple[float, float]:
    """(test, training accuracy) of a target, as train_model.py trains it; the training accuracy is the last epoch's."""
    *_, last = Trainer(setup, "target", index).epochs()
    return last["test_accuracy"], last["train_accuracy"]


def train_plainly(setup: Setup, index: int) -> tuple[float, float]:
    """The same of a plain loop over the same images."""
    settings, split, images = setup.config.train, setup.split, setup.images
    drawn = augmentations(images, flip=setup.flip) if setup.config.data.augment else []
    training_set = torch.from_numpy(split.training_set("target", index, len(images.x_train)))
    loader = DataLoader(OneImage(images, training_set, drawn), batch_size=settings.train_batch_size, shuffle=True)
    test_set = OneImage(images, torch.from_numpy(split.test_set("target")), [])
    model = setup.build().to(setup.device)
    optimizer = OPTIMIZERS[settings.optimizer](model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [settings.lr_step or settings.epochs], gamma=0.1)
    if settings.lr_schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)

    def n_correct(x: torch.Tensor, y: torch.Tensor, *, train: bool) -> int:
        logits = model(x.to(setup.device))
        y = y.to(setup.device)
        if train:
            optimizer.zero_grad()
            F.cross_entropy(logits, y).backward()
            optimizer.step()
        return (logits.argmax(1) == y).sum().item()

    for _ in range(settings.epochs):
        model.train()
        train_accuracy = sum(n_correct(x, y, train=True) for x, y in loader) / len(training_set)
        schedule.step()
    model.eval()
    with torch.no_grad():
        test_accuracy = sum(n_correct(x, y, train=False) for x, y in DataLoader(test_set, batch_size=256))
    return test_accuracy / len(test_set), train_accuracy


def compare(config: Config) -> None:
    if config.dp:
        raise InputError("the plain loop has no DP: add --disable-dp")
    keep_freed_memory()
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    setup = prepare(config)
    print(setup.describe())
    rows = []
    for index in range(config.run.n_runs):
        rows.append([train_ours(setup, index), train_plainly(setup, index)])
        for name, (test, train) in zip(("ours", "plain"), rows[-1], strict=True):
            print(f"target_{index:02d}, {name}: test accuracy {test:.1%}, training {train:.1%}", flush=True)
    ours, plain = np.array(rows).transpose(1, 0, 2)  # (targets, 2) each
    for name, mean, low, high in zip(("test", "training"), *difference(ours, plain), strict=True):
        interval = f" [{low:+.2%}, {high:+.2%}]" if len(rows) > 1 else ""
        print(f"{name} accuracy, ours minus plain: {mean:+.2%}{interval}")


if __name__ == "__main__":
    sys.exit(run_script(compare, sys.argv[1:], script="train_model.py", description=__doc__))
