"""Which learning rate trains both networks from every seed? The defaults in util.py come from this table.

    python benchmarks/learning_rates.py --dataset data/cifar10-jpeg
    python benchmarks/learning_rates.py --dataset digits --dp --images 778 --epochs 15 --seeds 1 --networks ConvNet

Each cell trains from scratch on a few thousand images for a few epochs, the step x0.1 before the last one, and prints
the test accuracy of the worst seed. What matters is the largest rate that is safe, not the best after so few epochs.
--dp: DP-SGD with C 0.1 that ends at epsilon 8; no step. --images, --epochs, --seeds and --rates
replace the table's."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from lira.errors import ModelError
from lira.training.kernels import keep_freed_memory
from util import make_config

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
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--dp", action="store_true")
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int)
    args = parser.parse_args()
    label, privacy = ("DP, epsilon 8", {"dp.target_epsilon": 8.0}) if args.dp else ("no DP", {"disable_dp": True})
    keep_freed_memory()
    for network in args.networks:
        setup = common.prepare(make_config({"data.dataset": args.dataset, "model.network": network, **privacy}))
        sizes = {name: getattr(args, name) or value for name, value in NETWORKS[network].items()}
        print(f"\n{network}: {sizes}, batch 256, {label}, {setup.precision}; worst seed")
        for optimizer in args.optimizers:
            rates = args.rates or (RATES_DP if args.dp else RATES)[optimizer]
            cells = [f"{rate:g}: {_worst_accuracy(setup, optimizer, rate, **sizes):6.1%}" for rate in rates]
            print(f"{optimizer:8}", "   ".join(cells), flush=True)


def _worst_accuracy(setup: common.Setup, optimizer: str, rate: float, *, images: int, epochs: int, seeds: int) -> float:
    """The lowest test accuracy over seeds; 0 where the loss is not finite."""
    lr_step = None if setup.privacy else epochs - 1
    changed = dict(epochs=epochs, lr=rate, lr_step=lr_step, optimizer=optimizer, eval_every=epochs)
    config = replace(setup.config, train=replace(setup.config.train, **changed))
    n_images = min(images, setup.split.n_train + setup.split.n_samples // 2)
    privacy = replace(setup.privacy, n_images=n_images, epochs=epochs) if setup.privacy else None
    setup = replace(setup, config=config, privacy=privacy)
    accuracies = []
    for index in range(seeds):
        trainer = common.Trainer(setup, "shadow", index)
        trainer.training_set, trainer.test_set = trainer.training_set[:n_images], trainer.test_set[:5000]
        try:
            *_, last = trainer.epochs()
            accuracies.append(last["test_accuracy"])
        except ModelError:
            accuracies.append(0.0)
    return min(accuracies)


if __name__ == "__main__":
    main()
