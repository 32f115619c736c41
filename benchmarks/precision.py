"""Does bf16 change the answer? Two fleets of the same seeds, one in fp32 and one in bf16, attacked alike.

    python benchmarks/precision.py                                  # digits
    python benchmarks/precision.py --folder kept --dataset data/cifar10-jpeg ...  # and flags of train_model.py

--folder: keep models and results there, and go on with what is there. Every model, the shadows too, plays the target
in turn. Printed: the mean over them of an attack's accuracy (threshold of the shadows), AUC and TPR at FPR, and of the
difference between the two models of one seed, each with a 95 % t interval over the models. It covers the chance of
training, which one precision alone has too; that all share the other shadows it does not."""

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


def fleet(precision: str, flags: list[str], folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and attack. Returns models.csv and a row an attack and model that played the target."""
    folders = ["--model-dir", folder / "model", "--result-dir", folder / precision]
    own = [*flags, "--disable-dp", "--quiet", "--precision", precision, *folders]
    for script in (["train_model.py"], ["attack_lira.py", "--leave-one-out", "--attacks", ",".join(ATTACKS)]):
        subprocess.run([sys.executable, ROOT / script[0], *script[1:], *own], check=True, stdout=subprocess.DEVNULL)
    (results,) = (folder / precision).iterdir()
    played = [pd.read_csv(results / name) for name in ("attack.csv", "leave_one_out.csv")]
    return pd.read_csv(results / "models.csv"), pd.concat(played).set_index(["attack", "target"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path)
    given, flags = arguments.parse_known_args()
    flags = flags or FLAGS
    print(shlex.join(["train_model.py", *flags]))
    with tempfile.TemporaryDirectory() as forgotten:
        folder = given.folder or Path(forgotten)
        fleets = {precision: fleet(precision, flags, folder) for precision in ("fp32", "bf16")}
    for precision, (models, _) in fleets.items():
        accuracies = [f"{name} {models[f'{name}_accuracy'].mean():.1%}" for name in ("test", "train")]
        print(f"{precision}: {len(models)} models, accuracy in {', '.join(accuracies)}")
    tables = {precision: played for precision, (_, played) in fleets.items()}
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
