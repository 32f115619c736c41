"""The table that benchmarks/gpu.sh prints after each run, of all runs in its folder that have been attacked.

    python benchmarks/gpu_table.py result/gpu

Minutes are training times from models.csv, which continue across interruptions: the sum over models divided by the
number of workers. The plain loop's are extrapolated from its rate."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

FIGURES = ("accuracy", "auc", "tpr_at_fpr_0.001")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    for name in ("rates.csv", "compiled.csv"):
        if (args.folder / name).is_file():
            for row in pd.read_csv(args.folder / name).to_dict("records"):
                speed = f"{row['ours']:,.0f} images/s, {row['ratio']:.1f} times a plain loop"
                print(f"{row['network']}: {speed}, {row['share of the limit']:.1%} of the limit")
    rates = pd.read_csv(args.folder / "rates.csv").iloc[0]
    for attacked in sorted((args.folder / "result").glob("*/attack.csv")):
        results, attacks = attacked.parent, pd.read_csv(attacked)
        models = pd.read_csv(results / "models.csv")
        images = len(models) * images_per_model(results)
        plain_seconds = images / max(rates["plain"], rates["with 2 workers"])
        print(f"\n{results.name}, on {', '.join(models.device.unique())}")
        seconds = models.seconds.sum() / args.workers
        print(
            f"{len(models)} models: {seconds / 60:.1f} min of training, {images / seconds:,.0f} images/s; "
            f"the plain loop would take {plain_seconds / 60:,.0f} min"
        )
        print(f"test accuracy {models.test_accuracy.mean():.1%}")
        columns = {name: [with_interval(row, name) for _, row in attacks.iterrows()] for name in FIGURES}
        columns["balanced accuracy"] = [f"{value:.4f}" for value in attacks.balanced_accuracy]  # the best threshold's
        print(f"{attacks.convention[0]} convention, queries {attacks.queries[0]}, shadows {attacks.shadows[0]}")
        print(pd.DataFrame({"attack": attacks.attack, "target": attacks.target} | columns).to_string(index=False))


def images_per_model(results: Path) -> int:
    """Images that one model is trained on, over all epochs."""
    config = json.loads((results / "config.json").read_text())["identity"]
    with np.load(results / "scores.npz") as scores:
        return config["epochs"] * (config["n_train"] + len(scores["label"]) // 2)


def with_interval(row: pd.Series, name: str) -> str:
    return f"{row[name]:.4f} [{row[f'{name}_low']:.4f}, {row[f'{name}_high']:.4f}]"


if __name__ == "__main__":
    main()
