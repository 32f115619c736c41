"""Which learning rate trains both networks from every seed? The defaults in util.py come from this table.

    python benchmarks/learning_rates.py --dataset data/cifar10-jpeg
    python benchmarks/learning_rates.py --dataset digits --dp --images 778 --epochs 15 --seeds 1 --networks ConvNet

Each cell trains from scratch on a few thousand images for a few epochs, the step x0.1 before the last one, and prints
the test accuracy of the worst seed. What matters is the largest rate that is safe, not the best after so few epochs.
--dp: DP-SGD with C 0.1 that ends at epsilon 8; no step. --images and --epochs replace the table's."""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from lira.errors import ModelError
from lira.training.kernels import keep_freed_memory
from lira.training.loop import train_model
from util import parse_args

RATES = {
    "SGD": (0.02, 0.05, 0.1, 0.2, 0.4),
    "MSGD": (0.01, 0.02, 0.05, 0.1, 0.2),
    "adam": (3e-4, 1e-3, 2e-3, 5e-3),
    "RMSprop": (1e-4, 3e-4, 1e-3, 3e-3),
}
RATES_DP = {
    "SGD": (1.0, 2.0, 5.0, 10.0, 20.0),
    "MSGD": (0.1, 0.2, 0.5, 1.0, 2.0),
    "adam": (3e-4, 1e-3, 2e-3, 5e-3),
    "RMSprop": (1e-4, 3e-4, 1e-3, 3e-3),
}
NETWORKS = {"ConvNet": dict(images=10_000, epochs=5, seeds=3), "ResNet18": dict(images=2_048, epochs=3, seeds=1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--optimizers", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--dp", action="store_true")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int)
    args = parser.parse_args()
    dp = ["--target-epsilon", "8"] if args.dp else ["--disable-dp"]
    keep_freed_memory()
    for network in args.networks:
        setup = common.prepare(parse_args(["--dataset", args.dataset, "--network", network, *dp], description=""))
        sizes = {name: getattr(args, name) or value for name, value in NETWORKS[network].items()}
        print(f"\n{network}: {sizes}, batch 256, {' '.join(dp)}, {setup.training.precision}; worst seed")
        for optimizer in args.optimizers:
            rates = (RATES_DP if args.dp else RATES)[optimizer]
            cells = [f"{rate:g}: {_worst_accuracy(setup, optimizer, rate, **sizes):6.1%}" for rate in rates]
            print(f"{optimizer:8}", "   ".join(cells), flush=True)


def _worst_accuracy(setup: common.Setup, optimizer: str, rate: float, *, images: int, epochs: int, seeds: int) -> float:
    """The lowest test accuracy over seeds; 0 where the loss is not finite."""
    test_set = setup.split.test_set("shadow")[:5000]
    lr_step = None if setup.privacy else epochs - 1
    settings = replace(setup.training, epochs=epochs, lr=rate, lr_step=lr_step, optimizer=optimizer, eval_every=epochs)
    accuracies = []
    for index in range(seeds):
        training_set = setup.split.training_set("shadow", index, setup.store.first_sample)[:images]
        seed, make_private = setup.split.seed("shadow", index), None
        if setup.privacy:
            privacy = replace(setup.privacy, n_images=len(training_set), epochs=epochs)
            make_private = partial(privacy.make_private, **setup.split.privacy_seeds("shadow", index))
        try:
            _, history = train_model(
                "model",
                setup.build,
                setup.store,
                training_set,
                test_set,
                settings,
                seed=seed,
                make_private=make_private,
                on_epoch=lambda history: None,
                progress=lambda n: None,
            )
            accuracies.append(history[-1]["test_accuracy"])
        except ModelError:
            accuracies.append(0.0)
    return min(accuracies)


if __name__ == "__main__":
    main()
