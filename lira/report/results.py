"""The files of result/<run>/ after an attack, read back: the only input of the report.

Letters: T targets, N target samples."""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lira.attacks.exposed import MIN_SHADOWS
from lira.attacks.metrics import roc
from lira.attacks.tables import lowest_resolved_rate, strongest_attack, summary_table
from lira.errors import CONTROL, CorruptedFile, InputError, one_line
from lira.storage.attack_set import load_file, load_record
from lira.storage.checksums import digest
from lira.storage.config import read_config
from lira.storage.names import model_name
from lira.storage.runs import Run

N_EXPOSED = 12  # most and least exposed members each: few enough for a short page
_COLUMNS = {  # table -> the columns that the report reads
    "attack.csv": "attack target accuracy auc mean_auc_low n_members n_nonmembers held_out_auc",
    "samples.csv": "target sample label member",
    "classes.csv": "attack class accuracy auc n_guesses",
    "leave_one_out.csv": "attack target accuracy auc",
    "curve.csv": "attack target accuracy mean_auc_low shadows",
    "reliability.csv": "p_member n_samples share share_low share_high",
    "audit.csv": "target kind attack epsilon_lower epsilon_upper epsilon_max delta confidence n_audited n_guesses "
    "n_correct",
    "mechanism.csv": "target check scope claimed estimate low high deviates",
    "models.csv": "role index test_accuracy train_accuracy seconds",
}
STATE_INCLUSION = "with --target-inclusion coin, each with probability 1/2, or half, there is an audit"
_WRITTEN_BY = {  # others: attack_lira.py
    "leave_one_out.csv": "attack_lira.py with --leave-one-out",
    "curve.csv": "attack_lira.py with --curve",
    "reliability.csv": f"attack_lira.py with {MIN_SHADOWS} shadows or more",
    "models.csv": "train_model.py",
    "mechanism.csv": "attack_lira.py, where the targets carry canaries,",
}


@dataclass(frozen=True)
class Results:
    """tables: file name -> table; missing: file name -> a sentence that says why it cannot be used; logs: model ->
    its training log; settings: config.json; attack_info: attack.json; images: sample -> uint8 (C, H, W), of some."""

    folder: Path
    tables: dict[str, pd.DataFrame]
    missing: dict[str, str] = field(default_factory=dict)
    logs: dict[str, pd.DataFrame] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    attack_info: dict = field(default_factory=dict)
    images: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return CONTROL.sub("\ufffd", self.folder.name)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """summary_table() of attack.csv, by attack."""
        return summary_table(self.tables["attack.csv"]).set_index("attack", drop=False)

    @cached_property
    def strongest(self) -> str:
        return strongest_attack(self.tables["attack.csv"])

    @cached_property
    def lowest_rate(self) -> str | None:
        """lowest_resolved_rate() of attack.csv."""
        return lowest_resolved_rate(self.summary)

    @property
    def highlighted(self) -> list[str]:
        """The attacks of the headline: the strongest, and lira, which papers report."""
        return [name for name in dict.fromkeys([self.strongest, "lira"]) if name in self.summary.index]

    @property
    def labelled(self) -> list[str]:
        """The attacks that the figures draw in colour: the highlighted ones, and loss, the simplest."""
        return [name for name in dict.fromkeys([*self.highlighted, "loss"]) if name in self.summary.index]

    @property
    def noun(self) -> str:
        """What the target samples are: of scores from elsewhere it is not known."""
        return "image" if self.settings or self.images else "sample"

    @property
    def targets(self) -> list[str]:
        return self.tables["attack.csv"].target.unique().tolist()

    @property
    def target_files(self) -> list[str]:
        """The files of the models trained elsewhere that were attacked; empty where the targets are the run's own."""
        return [target["file"] for target in self.attack_info.get("targets", [])]

    @property
    def n_members(self) -> tuple[int, int]:
        """(members, samples) of all targets together."""
        counts = self.tables["attack.csv"].drop_duplicates("target")[["n_members", "n_nonmembers"]].sum()
        return int(counts.n_members), int(counts.sum())

    @property
    def guessing(self) -> float:
        """Accuracy of guessing with nothing but the share of members: the larger of the two shares."""
        n_members, n_samples = self.n_members
        return max(n_members, n_samples - n_members) / n_samples

    @property
    def target_models(self) -> pd.DataFrame:
        """The rows of models.csv that were attacked."""
        models = self.tables.get("models.csv", pd.DataFrame(columns=["role"]))
        return models[models.role == "target"].iloc[: len(self.targets)]

    @property
    def exposure(self) -> pd.DataFrame | None:
        """samples.csv, where it has q-values."""
        table = self.tables.get("samples.csv")
        known = table is not None and "fdr" in self.attack_info and table.get("q_value", pd.Series(dtype=float)).any()
        return table if known else None

    @property
    def accounted_epsilon(self) -> float:
        """The highest epsilon that the accountant guarantees for a target; NaN where there is none."""
        return self.target_models.get("epsilon", pd.Series(dtype=float)).astype(float).max()

    @property
    def elsewhere(self) -> bool:
        """Whether the targets were trained elsewhere, so that what their training guarantees is not known."""
        return bool(self.target_files or not self.settings)

    @property
    def nominal(self) -> bool:
        """Whether anyone can know the noise of this run's private training, so that its guarantee is nominal."""
        return "noise_seed" in self.settings.get("identity", {})

    @property
    def class_names(self) -> list[str]:
        """(K,), in the order of classes.csv; empty without it."""
        table = self.tables.get("classes.csv")
        return [] if table is None else table[table.attack == table.attack.iloc[0]]["class"].tolist()

    def class_name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def scores(self, attack: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """(score, member) of each target, without the samples that have no score; empty without samples.csv."""
        table = self.tables.get("samples.csv")
        if table is None or attack not in table:
            return []
        by_target = table[table[attack].notna()].groupby("target", sort=False)
        return [(samples[attack].to_numpy(), samples.member.to_numpy()) for _, samples in by_target]

    def roc(self, attack: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(fpr, tpr), each float64 (P,): the mean TPR over the targets at each FPR, of their raw ROC steps, unsmoothed.

        None where no target has both members and non-members."""
        curves = [roc(score, member)[:2] for score, member in self.scores(attack) if member.any() and not member.all()]
        if not curves:
            return None
        grid = np.unique(np.concatenate([fpr for fpr, _ in curves]))
        steps = [tpr[np.searchsorted(fpr, grid, side="right") - 1] for fpr, tpr in curves]
        return np.append(0.0, grid), np.append(0.0, np.mean(steps, axis=0))


def exposed_members(tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(most, least) exposed members of the first target by the strongest attack: sample, label, score.

    tables: attack.csv and samples.csv. Both are empty where the samples have no scores of that attack."""
    attack, samples = strongest_attack(tables["attack.csv"]), tables.get("samples.csv")
    if samples is None or attack not in samples:
        return pd.DataFrame(), pd.DataFrame()
    first = tables["attack.csv"].target.iloc[0]
    members = samples[(samples.target == first) & samples.member & samples[attack].notna()]
    members = members[["sample", "label", attack]].rename(columns={attack: "score"})
    ordered = members.sort_values("score", ascending=False, kind="stable")
    count = min(N_EXPOSED, len(ordered) // 2)
    return ordered[:count], ordered[::-1][:count]


def exposed_images(tables: Mapping[str, pd.DataFrame], images: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of images.npz, `sample` and `image`, of exposed_members(). images: uint8 (N, C, H, W), all samples."""
    samples = pd.concat(exposed_members(tables))["sample"].to_numpy()
    return {"sample": samples, "image": images[samples]}


def read(run: Run) -> Results:
    """Read result/<run>/; needs no model and no dataset.

    Raises InputError where the last attack is not complete, or a file is not what it wrote or cannot be read."""
    folder, tables, images = run.results, {}, {}
    attack_info = load_record(folder)
    for name, content in _contents(folder, attack_info):
        if name in _COLUMNS:
            tables[name] = _parse(folder / name, partial(_read_table, columns=_COLUMNS[name].split()), content)
        elif name == "images.npz":
            images = _parse(folder / name, _read_images, content)
    if "attack.csv" not in tables:
        raise InputError(f"{folder / 'attack.json'} names no attack.csv: run attack_lira.py with the flags of this run")
    missing = {
        name: f"There is no {name} in this run: {_WRITTEN_BY.get(name, 'attack_lira.py')} writes it."
        for name in _COLUMNS
        if name not in tables
    }
    if "targets" in attack_info and "audit.csv" in missing:
        missing["audit.csv"] = f"How the members of these targets were chosen is not stated: {STATE_INCLUSION}."
    settings = read_config(folder) if (folder / "config.json").is_file() else {}
    _check_claims(folder, tables, settings, attack_info)
    if not (logs := run.load_logs()):
        missing["train/*.csv"] = "There is no train/*.csv in this run: train_model.py writes the training logs."
    if not images:
        missing["images.npz"] = "There is no images.npz in this run: only the numbers of the samples are known."
    return Results(folder, tables, missing, logs, settings, attack_info, images)


def _check_claims(folder: Path, tables: Mapping[str, pd.DataFrame], settings: dict, attack_info: dict) -> None:
    """Raises CorruptedFile where config.json or models.csv, which are no part of the attack's set, claim other settings
    or another epsilon than the models had that were attacked."""
    remedy = "restore it, or run attack_lira.py again"
    source = attack_info.get("source")
    if settings and (not isinstance(source, dict) or digest(settings["identity"]) != source.get("run")):
        raise CorruptedFile(folder / "config.json", "its settings are not those of the run that was attacked", remedy)
    models, audit = tables.get("models.csv"), tables.get("audit.csv")
    if models is None or audit is None or "epsilon" not in models:
        return
    attacked = audit.groupby("target").epsilon_upper.first()
    targets = models[models.role == "target"]
    for index, claimed in zip(targets["index"], pd.to_numeric(targets.epsilon, errors="coerce"), strict=True):
        name = model_name("target", index)
        if name in attacked and not np.isclose(claimed, attacked[name], rtol=1e-9, equal_nan=True):
            reason = f"it gives {name} epsilon {claimed:g}, and the attack found {attacked[name]:g} in its weights file"
            raise CorruptedFile(folder / "models.csv", reason, remedy)


def _contents(folder: Path, attack_info: dict) -> Iterator[tuple[str, bytes]]:
    """(file name, content), checked, of all files of the attack, then of models.csv. Raises InputError."""
    for name in attack_info["files"]:
        yield name, load_file(folder, attack_info, name)
    if (folder / "models.csv").is_file():
        yield "models.csv", (folder / "models.csv").read_bytes()


def _parse(path: Path, parse: Callable[[io.BytesIO], Any], content: bytes) -> Any:
    """Raises InputError."""
    try:
        return parse(io.BytesIO(content))
    except Exception as error:  # NumPy raises errors of many types on corrupted bytes
        raise InputError(f"{path} cannot be read ({one_line(error)}): run attack_lira.py again") from error


def _read_table(content: io.BytesIO, *, columns: list[str]) -> pd.DataFrame:
    """Names of classes are read as text: neither 1 nor NA is converted. Control characters, which no figure and no page
    may hold, are replaced in all names."""
    table = pd.read_csv(content, dtype={"class": str, "target": str}, keep_default_na=False, na_values=[""])
    if absent := sorted(set(columns) - set(table)):
        raise ValueError(f"it has no column {', '.join(absent)}")
    if "class" in table:
        table["class"] = table["class"].fillna("")
    for name in ("class", "target", "attack"):
        if name in table:
            table[name] = table[name].astype(str).str.replace(CONTROL, "\ufffd", regex=True)
    return table


def _read_images(content: io.BytesIO) -> dict[int, np.ndarray]:
    with np.load(content, allow_pickle=False) as file:
        return dict(zip(file["sample"].tolist(), file["image"], strict=True))
