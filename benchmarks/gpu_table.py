"""The table that benchmarks/gpu.sh ends in, from what lies in its folder.

    python benchmarks/gpu_table.py result/gpu

Minutes are those of training, by the models' own clocks, which go on over interruptions; with several workers their sum
over the number of workers. The plain loop's are extrapolated from its rate."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--workers", type=int, default=1)
    given = arguments.parse_args()
    for name in ("rates.csv", "compiled.csv"):
        if (given.folder / name).is_file():
            for row in pd.read_csv(given.folder / name).to_dict("records"):
                print(f"{row['network']}: {row['ours']:,.0f} images/s, {row['ratio']:.1f} times a plain loop, "
                      f"{row['share of the limit']:.1%} of the limit")  # fmt: skip
    rates = pd.read_csv(given.folder / "rates.csv").iloc[0]
    for results in sorted((given.folder / "result").iterdir()):
        models, attacks = pd.read_csv(results / "models.csv"), pd.read_csv(results / "attack.csv")
        images = len(models) * images_a_model(results)
        plain = images / max(rates["plain"], rates["with 2 workers"])
        print(f"\n{results.name}, on {', '.join(models.device.unique())}")
        print(f"fleet of {len(models)}: {models.seconds.sum() / given.workers / 60:.1f} min of training, "
              f"{images * given.workers / models.seconds.sum():,.0f} images/s; "
              f"the plain loop would take {plain / 60:,.0f} min")  # fmt: skip
        print(f"test accuracy {models.test_accuracy.mean():.1%}")
        columns = {name: [with_interval(row, name) for _, row in attacks.iterrows()] for name in FIGURES}
        print(pd.DataFrame({"attack": attacks.attack, "target": attacks.target} | columns).to_string(index=False))


FIGURES = ("accuracy", "auc", "tpr_at_fpr_0.001")


def images_a_model(results: Path) -> int:
    """Images that one model is trained on, all epochs together."""
    config = json.loads((results / "config.json").read_text())["identity"]
    with np.load(results / "scores.npz") as scores:
        return config["epochs"] * (config["n_train"] + len(scores["label"]) // 2)


def with_interval(row: pd.Series, name: str) -> str:
    return f"{row[name]:.4f} [{row[f'{name}_low']:.4f}, {row[f'{name}_high']:.4f}]"


if __name__ == "__main__":
    main()
