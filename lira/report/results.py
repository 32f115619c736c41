"""What lies in result/<run>/ after an attack, read back: all that the report is made of.

Letters: T targets, N target samples."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lira.attacks.metrics import roc
from lira.attacks.tables import strongest, summary_table
from lira.errors import InputError, one_line
from lira.storage.runs import Run

EXPOSED = 12  # most and as many least exposed members: what a page shows without growing long
AUDIT = {
    "target", "attack", "epsilon_lower", "epsilon_upper", "delta", "confidence", "n_audited", "n_guesses", "n_correct",
}  # fmt: skip
_NEEDED = {  # the columns that the report reads, and the flag or script that makes the table
    "attack.csv": ({"attack", "target", "accuracy", "auc", "n_members", "n_nonmembers"}, "attack_lira.py"),
    "samples.csv": ({"target", "sample", "label", "member"}, "attack_lira.py"),
    "classes.csv": ({"attack", "class", "accuracy", "auc", "n_guesses"}, "attack_lira.py"),
    "curve.csv": ({"attack", "target", "accuracy", "shadows"}, "attack_lira.py with --curve"),
    "audit.csv": (AUDIT, "attack_lira.py"),
    "models.csv": ({"role", "index", "test_accuracy", "train_accuracy", "seconds"}, "train_model.py"),
}


@dataclass(frozen=True)
class Results:
    """tables: file name -> table; missing: file name -> why it is not there; logs: model -> its training log;
    settings: config.json; made: attack.json; images: sample -> uint8 (C, H, W), of some samples."""

    folder: Path
    tables: dict[str, pd.DataFrame]
    missing: dict[str, str] = field(default_factory=dict)
    logs: dict[str, pd.DataFrame] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    made: dict = field(default_factory=dict)
    images: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def summary(self) -> pd.DataFrame:
        """summary_table() of attack.csv, by attack."""
        return summary_table(self.tables["attack.csv"]).set_index("attack", drop=False)

    @cached_property
    def strongest(self) -> str:
        return strongest(self.tables["attack.csv"])

    @property
    def highlighted(self) -> list[str]:
        """The attacks that the figures draw boldly: the strongest, and lira, whose figures others publish."""
        return [name for name in dict.fromkeys([self.strongest, "lira"]) if name in self.summary.index]

    @property
    def targets(self) -> list[str]:
        return self.tables["attack.csv"].target.unique().tolist()

    @property
    def target_models(self) -> pd.DataFrame:
        """The rows of models.csv that were attacked."""
        models = self.tables.get("models.csv", pd.DataFrame(columns=["role"]))
        return models[models.role == "target"].iloc[: len(self.targets)]

    @property
    def class_names(self) -> list[str]:
        """(K,), as classes.csv lists them; empty without it."""
        table = self.tables.get("classes.csv")
        return [] if table is None else table[table.attack == table.attack.iloc[0]]["class"].tolist()

    def class_name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def scores(self, attack: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(score, truth) of every target, without the samples that have no score; empty without samples.csv."""
        table = self.tables.get("samples.csv")
        if table is None or attack not in table:
            return []
        known = table[table[attack].notna()]
        return [(own[attack].to_numpy(), own.member.to_numpy()) for _, own in known.groupby("target", sort=False)]

    def roc(self, attack: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(fpr, tpr): at every FPR the mean over the targets of the raw steps, as the tables have it, nothing smoothed.

        None where no target has both members and non-members."""
        curves = [roc(*pair)[:2] for pair in self.scores(attack) if pair[1].any() and not pair[1].all()]
        if not curves:
            return None
        grid = np.unique(np.concatenate([fpr for fpr, _ in curves]))
        steps = [tpr[np.searchsorted(fpr, grid, side="right") - 1] for fpr, tpr in curves]
        return np.append(0.0, grid), np.append(0.0, np.mean(steps, axis=0))

    def exposed(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(most, least) exposed members of the first target by the strongest attack: sample, label, score."""
        table, attack = self.tables.get("samples.csv"), self.strongest
        if table is None or attack not in table:
            return pd.DataFrame(), pd.DataFrame()
        own = table[(table.target == self.targets[0]) & table.member & table[attack].notna()]
        own = own[["sample", "label", attack]].rename(columns={attack: "score"})
        order = own.iloc[np.argsort(-own.score, kind="stable")]
        shown = min(EXPOSED, len(order) // 2)
        return order[:shown], order[len(order) - shown :][::-1]


def read(run: Run) -> Results:
    """Read result/<run>/; needs no model and no data set.

    Raises InputError where attack.csv is not there or a table cannot be read."""
    folder, tables, missing, made = run.results, {}, {}, _json(run.results / "attack.json")
    for name, (columns, maker) in _NEEDED.items():
        table = _table(folder / name, columns)
        if table is None:
            missing[name] = f"There is no {name} in this run" + (f": {maker} makes it." if maker else ".")
        elif name in made.get("earlier", ()):
            missing[name] = f"{name} is from an earlier attack on this run, and would not fit the other figures."
        else:
            tables[name] = table
    if "attack.csv" not in tables:
        raise InputError(f"{folder / 'attack.csv'} is missing: run attack_lira.py with the flags of this run first")
    _check_samples(folder, tables)
    settings = _json(folder / "config.json")
    return Results(folder, tables, missing, run.load_logs(), settings, made, _images(folder / "images.npz"))


def _table(path: Path, columns: set[str]) -> pd.DataFrame | None:
    """Class names stay what they are: 1 is no number there, and NA is a name."""
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype={"class": str, "target": str}, keep_default_na=False, na_values=[""])
        if not columns <= set(table):
            raise ValueError(f"it has no column {', '.join(sorted(columns - set(table)))}")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}): run attack_lira.py again") from error
    if "class" in table:
        table["class"] = table["class"].fillna("")
    return table


def _check_samples(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Figures drawn from half a table would look whole."""
    if "samples.csv" in tables:
        rows = tables["samples.csv"].groupby("target").size()
        for one in tables["attack.csv"].itertuples():
            expected = one.n_members + one.n_nonmembers + getattr(one, "n_unscored", 0)
            if rows.get(one.target, 0) != expected:
                raise InputError(
                    f"{folder / 'samples.csv'} has {rows.get(one.target, 0)} rows of {one.target} where attack.csv "
                    f"counts {expected}: it was cut, or is from another attack; run attack_lira.py again"
                )


def _json(path: Path) -> dict:
    """{} where there is no such file: runs made before it was written have none."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}): restore it, or delete it") from error


def _images(path: Path) -> dict[int, np.ndarray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(zip(file["sample"].tolist(), file["image"], strict=True))
    except Exception as error:  # NumPy raises whatever the corrupted bytes lead it to
        raise InputError(
            f"{path} cannot be read ({one_line(error)}): run attack_lira.py again, or delete it"
        ) from error


def exposed_images(tables: dict[str, pd.DataFrame], images: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of images.npz: the samples that the page will show. images: uint8 (N, C, H, W), of all samples."""
    parts = Results(Path(), tables).exposed()
    samples = pd.concat(parts)["sample"].to_numpy() if len(parts[0]) else np.empty(0, dtype=np.int64)
    return {"sample": samples, "image": images[samples]}
