"""The tables of a run, made from attack results: each a DataFrame, as it is written to result/<run>/*.csv.

Letters: M models, T targets, N target samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lira.attacks.inputs import AttackInputs
from lira.attacks.metrics import auc, evaluate, pooled_accuracy
from lira.attacks.statistics import Statistics
from lira.errors import warn
from lira.privacy import audit

if TYPE_CHECKING:  # it imports scikit-learn, which the report does not need
    from lira.attacks.held_out import AttackResult


def attack_table(
    results: Sequence["AttackResult"], member: np.ndarray, model_names: Sequence[str], **columns: str | int
) -> pd.DataFrame:
    """attack.csv and leave_one_out.csv: one row per attack and target.

    member: bool (M, N), the truth; model_names: (M,); columns: values that all rows share. held_out_auc: mean AUC of
    the held-out shadows' scores, independent of the target's membership."""
    return pd.DataFrame(
        {
            "attack": result.attack,
            "target": model_names[result.target],
            **columns,
            "shadows": result.n_shadows,
            "held_out_auc": result.held_out_auc,
            **evaluate(result.score, member[result.target], threshold=result.threshold),
        }
        for result in results
    )


def curve_table(
    points: Sequence[tuple[int, "AttackResult"]], member: np.ndarray, model_names: Sequence[str], **columns: str | int
) -> pd.DataFrame:
    """curve.csv: attack_table() of several numbers of shadows. points: (number of shadows, result)."""
    table = attack_table([result for _, result in points], member, model_names, **columns)
    return table.assign(shadows=[size for size, _ in points])


def samples_table(results: Sequence["AttackResult"], inputs: AttackInputs) -> pd.DataFrame:
    """samples.csv: one row per target and sample, with the shadows' statistics and each attack's score and decision.

    phi and the shadows' means and standard deviations are those of phi averaged over queries. A decision is True where
    the guess is "member", and empty where there is no score or no threshold."""
    phi = inputs.phi.mean(axis=2, dtype=np.float64)  # (M, N)
    statistics = Statistics.from_shadows(phi[inputs.n_targets :], inputs.member[inputs.n_targets :])
    tables = []
    for target in range(inputs.n_targets):
        columns = {
            "target": inputs.model_names[target],
            "sample": np.arange(phi.shape[1]),
            "label": inputs.label,
            "member": inputs.member[target],
            "phi": phi[target],
            "mean_in": statistics.mean_in[:, 0],
            "std_in": np.sqrt(statistics.var_in[:, 0]),
            "mean_out": statistics.mean_out[:, 0],
            "std_out": np.sqrt(statistics.var_out[:, 0]),
        }
        for result in results:
            if result.target == target:
                scored = ~np.isnan(result.score) & ~np.isnan(result.threshold)
                decision = pd.Series(result.score >= result.threshold, dtype="boolean").where(scored)
                columns |= {result.attack: result.score, f"{result.attack}_decision": decision}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def classes_table(results: Sequence["AttackResult"], inputs: AttackInputs) -> pd.DataFrame:
    """classes.csv: one row per attack and class, over all targets.

    The AUC compares members with non-members of the same class, a mean over targets; NaN if a target has only one."""
    rows = []
    for attack in dict.fromkeys(result.attack for result in results):
        of_attack = [result for result in results if result.attack == attack]
        for label, class_name in enumerate(inputs.class_names):
            samples = np.flatnonzero(inputs.label == label)
            score = np.stack([result.score[samples] for result in of_attack])  # (T, samples of the class)
            truth = np.stack([inputs.member[result.target, samples] for result in of_attack])
            threshold = np.array([[result.threshold] for result in of_attack])
            scored = ~np.isnan(score) & ~np.isnan(threshold)
            n_correct, n_guesses = (((score >= threshold) == truth) & scored).sum(), scored.sum()
            mean_auc = np.mean([auc(*pair) for pair in zip(score, truth, strict=True)])
            rows.append((attack, class_name, *pooled_accuracy(n_correct, n_guesses), mean_auc, n_guesses))
    columns = ["attack", "class", "accuracy", "accuracy_low", "accuracy_high", "auc", "n_guesses"]
    return pd.DataFrame(rows, columns=columns)


def audit_table(results: Sequence["AttackResult"], inputs: AttackInputs) -> pd.DataFrame | None:
    """audit.csv: one row per target, a lower bound on the epsilon of its training beside the guaranteed epsilon.

    epsilon_lower is empty where the members were not drawn as inputs.inclusion says. None without held-out scores."""
    counts = {result.attack: result.held_out_counts for result in results if result.held_out_counts}
    if not counts:
        return None
    n_audited, inclusion = inputs.phi.shape[1], inputs.inclusion
    design: dict[str, Any] = dict(n_audited=n_audited, inclusion=inclusion)
    attack, threshold_low, threshold_high = audit.choose_thresholds(counts, **design)
    thresholds = dict(threshold_low=threshold_low, threshold_high=threshold_high)
    rows = []
    for result in (result for result in results if result.attack == attack):
        member, target = inputs.member[result.target], inputs.model_names[result.target]
        epsilon, delta = (np.nan, 0.0) if inputs.guarantees is None else inputs.guarantees[result.target]
        n_correct, n_guesses = audit.count_guesses(result.score, member, **thresholds)
        n_members = int(member.sum())
        if inclusion == "half" and n_members not in (n_audited // 2, n_audited - n_audited // 2):
            warn(
                f"no audit of {target}: {n_members} of {n_audited} samples are members, not half of them; if each was "
                "a member with probability 1/2, independently, give --target-inclusion coin"
            )
            epsilon_lower = np.nan
        else:
            epsilon_lower = audit.epsilon_lower_bound(n_correct, n_guesses, delta=delta, **design)
        row: dict[str, Any] = {"target": target, "attack": attack, "inclusion": inclusion}
        row |= {"epsilon_lower": epsilon_lower, "epsilon_upper": epsilon, "delta": delta}
        row |= {"confidence": audit.CONFIDENCE, "n_audited": n_audited, "n_guesses": n_guesses, "n_correct": n_correct}
        rows.append(row | thresholds)
    return pd.DataFrame(rows)


def strongest_attack(table: pd.DataFrame) -> str:
    """The attack with the highest mean held-out AUC in attack.csv, the targets' membership unused; ties: the first."""
    means = table.groupby("attack", sort=False).held_out_auc.mean()
    return means.index[0] if means.isna().all() else means.idxmax()


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per attack of attack.csv: the accuracy of all targets' guesses together, and means over the targets.

    The interval of the accuracy takes the samples and shadows, which the targets share, as given. The ends of the other
    intervals are means too: as wide as for one target alone, however dependent the targets are."""
    rows = []
    for attack, group in table.groupby("attack", sort=False):
        n_guesses = (group.n_members + group.n_nonmembers).where(group.accuracy.notna(), 0)  # none without a threshold
        accuracy, low, high = pooled_accuracy((group.accuracy * n_guesses).round(), n_guesses)
        row = {"attack": attack, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
        for column in group.columns:
            if column.startswith(("auc", "tpr_at_fpr_", "fpr_at_")):
                row[column] = group[column].mean()
            elif column.startswith("resolvable_at_"):
                row[column] = group[column].all()
        rows.append(row | {"n_targets": len(group), "n_guesses": int(n_guesses.sum())})
    return pd.DataFrame(rows)
