"""Does bf16 change the answer? Two fleets of the same seeds, one in fp32 and one in bf16, attacked alike.

    python benchmarks/precision.py                                  # digits
    python benchmarks/precision.py --folder kept --dataset data/cifar10-jpeg ...  # and flags of train_model.py

--folder: keep models and results there, and go on with what is there. Printed: means over the targets of an attack's
accuracy (threshold of the shadows), AUC and TPR at FPR; 95 % intervals by 500 resamplings of the target samples, the same
for both fleets, so that the last column is a paired difference."""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from lira.metrics import auc, tpr_at_fpr

ROOT = Path(__file__).parents[1]
FLAGS = shlex.split(
    "--dataset digits --network ConvNet --epochs 20 --lr 0.02 --train-batch-size 64 --n-train 200 --no-augment "
    "--n-runs 2 --n-shadows 8"
)
ATTACKS = ("lira", "lira-bayes", "loss")
FIGURES = {
    "accuracy": lambda score, decision, member: (decision == member).mean(),
    "auc": lambda score, decision, member: auc(score, member),
    "tpr_at_fpr_0.01": lambda score, decision, member: tpr_at_fpr(score, member, 0.01)["tpr"],
    "tpr_at_fpr_0.001": lambda score, decision, member: tpr_at_fpr(score, member, 0.001)["tpr"],
}


def fleet(precision: str, flags: list[str], folder: Path) -> dict:
    """Train and attack. Returns the attacks' (score, decision, member), each (T, N), and the test accuracy."""
    folders = ["--model-dir", folder / "model", "--result-dir", folder / precision, "--precision", precision]
    for script in ("train_model.py", "attack_lira.py"):
        command = [sys.executable, ROOT / script, *flags, "--disable-dp", "--quiet", *folders]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (samples,) = (pd.read_csv(path) for path in folder.glob(f"{precision}/*/samples.csv"))
    (models,) = (pd.read_csv(path) for path in folder.glob(f"{precision}/*/models.csv"))
    targets = [rows for _, rows in samples.groupby("target")]
    columns = {name: (name, f"{name}_decision", "member") for name in ATTACKS}
    attacks = {
        name: tuple(np.stack([rows[column].to_numpy() for rows in targets]) for column in three)
        for name, three in columns.items()
    }
    return {"attacks": attacks, "test accuracy": models.test_accuracy.mean()}


def over_targets(figure, attack, chosen) -> float:
    return float(np.mean([figure(*(part[chosen] for part in one)) for one in zip(*attack, strict=True)]))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path)
    given, flags = arguments.parse_known_args()
    flags = flags or FLAGS
    print(shlex.join(["train_model.py", *flags]))
    with tempfile.TemporaryDirectory() as forgotten:
        folder = given.folder or Path(forgotten)
        fleets = {precision: fleet(precision, flags, folder) for precision in ("fp32", "bf16")}
    print(", ".join(f"test accuracy in {name}: {one['test accuracy']:.1%}" for name, one in fleets.items()))
    n = fleets["fp32"]["attacks"][ATTACKS[0]][0].shape[1]
    draws = np.random.default_rng(0).integers(0, n, (500, n))
    rows = []
    for attack in ATTACKS:
        pair = [fleets[precision]["attacks"][attack] for precision in ("fp32", "bf16")]
        for name, figure in FIGURES.items():
            whole = np.array([over_targets(figure, one, np.arange(n)) for one in pair])
            again = np.array([[over_targets(figure, one, chosen) for one in pair] for chosen in draws])
            columns = [*zip(whole, again.T, strict=True), (whole[1] - whole[0], again[:, 1] - again[:, 0])]
            rows.append([attack, name, *(with_interval(*column) for column in columns)])
    print(pd.DataFrame(rows, columns=["attack", "figure", "fp32", "bf16", "bf16 - fp32"]).to_string(index=False))


def with_interval(value: float, drawn: np.ndarray) -> str:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
