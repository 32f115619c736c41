"""Does bf16 change the attack's result? The models of a run with the same seeds in fp32 and in bf16, attacked alike.

    python benchmarks/precision.py                                  # digits
    python benchmarks/precision.py --folder FOLDER --dataset data/cifar10-jpeg ...  # and flags of train_model.py

--folder: keep models and results there, and resume from them. Every model, shadows included, is attacked as the target
in turn. Printed: the mean over models of an attack's accuracy (at the threshold from the shadows), AUC and TPR at FPR,
and of the difference between the two models of one seed, each with a 95 % t interval over the models. It covers the
randomness of training, which one precision alone has too, but not the shadows that all share."""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from scipy import stats

ROOT = Path(__file__).parents[1]
FLAGS = shlex.split(
    "--dataset digits --network ConvNet --epochs 20 --lr 0.02 --train-batch-size 64 --n-train 200 --no-augment "
    "--n-runs 2 --n-shadows 6"
)
ATTACKS = ("lira", "lira-bayes", "loss")
FIGURES = ("accuracy", "auc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")


def train_and_attack(precision: str, flags: list[str], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns models.csv and one row per attack and model attacked."""
    folders = ["--model-dir", str(folder / "model"), "--result-dir", str(folder / precision)]
    flags = [*flags, "--disable-dp", "--quiet", "--precision", precision, *folders]
    for script in (["train_model.py"], ["attack_lira.py", "--leave-one-out", "--attacks", ",".join(ATTACKS)]):
        subprocess.run([sys.executable, ROOT / script[0], *script[1:], *flags], check=True, stdout=subprocess.DEVNULL)
    (results,) = (folder / precision).iterdir()
    attacked = [pd.read_csv(results / name) for name in ("attack.csv", "leave_one_out.csv")]
    return pd.read_csv(results / "models.csv"), pd.concat(attacked).set_index(["attack", "target"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    args, flags = parser.parse_known_args()
    flags = flags or FLAGS
    print(shlex.join(["train_model.py", *flags]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        runs = {precision: train_and_attack(precision, flags, folder) for precision in ("fp32", "bf16")}
    for precision, (models, _) in runs.items():
        accuracies = [f"{name} {models[f'{name}_accuracy'].mean():.1%}" for name in ("test", "train")]
        print(f"{precision}: {len(models)} models, accuracy in {', '.join(accuracies)}")
    tables = {precision: attacked for precision, (_, attacked) in runs.items()}
    tables["bf16 - fp32"] = tables["bf16"][list(FIGURES)] - tables["fp32"][list(FIGURES)]
    rows = [
        [attack, figure, *(with_interval(table.loc[attack][figure]) for table in tables.values())]
        for attack in ATTACKS
        for figure in FIGURES
    ]
    print(pd.DataFrame(rows, columns=["attack", "figure", *tables]).to_string(index=False))


def with_interval(value: pd.Series) -> str:
    low, high = stats.t.interval(0.95, len(value) - 1, value.mean(), value.sem())
    return f"{value.mean():.4f} [{low:.4f}, {high:.4f}]"


if __name__ == "__main__":
    main()
