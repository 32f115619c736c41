"""The tables of a run, made from attack results: each a DataFrame, as it is written to result/<run>/*.csv.

Letters: M models, T targets, N target samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lira.attacks import exposed
from lira.attacks.inputs import AttackInputs
from lira.attacks.metrics import (
    FALSE_POSITIVE_RATES,
    METRICS,
    TAIL,
    auc,
    estimate_accuracy,
    evaluate_targets,
    pooled_accuracy,
    sampling_interval,
)
from lira.attacks.statistics import Statistics

PRIORS = (0.5, 0.1, 0.01)  # shares of members among the samples: that of the experiment, and what changes below it

if TYPE_CHECKING:  # it imports scikit-learn, which the report does not need
    from lira.attacks.held_out import AttackResult


def attack_table(
    results: Sequence["AttackResult"], member: np.ndarray, model_names: Sequence[str], **columns: str | int
) -> pd.DataFrame:
    """attack.csv and leave_one_out.csv: one row per attack and target.

    member: bool (M, N), the truth; model_names: (M,); columns: values that all rows share. held_out_auc: mean AUC of
    the held-out shadows' scores, independent of the target's membership. The other columns: evaluate_targets(). In the
    official convention, as in the authors' script, the TPR is that where the FPR is strictly below the rate."""
    rows: dict[int, dict[str, Any]] = {}
    for attack in dict.fromkeys(result.attack for result in results):
        places = [place for place, result in enumerate(results) if result.attack == attack]
        of_attack = [results[place] for place in places]
        metrics = evaluate_targets(
            [result.score for result in of_attack],
            [member[result.target] for result in of_attack],
            thresholds=[result.threshold for result in of_attack],
            between=[result.between for result in of_attack],
            strict=columns.get("convention") == "official",
        )
        for place, result, values in zip(places, of_attack, metrics, strict=True):
            row = {"attack": attack, "target": model_names[result.target], **columns, "shadows": result.n_shadows}
            rows[place] = row | {"held_out_auc": result.held_out_auc} | values
    return pd.DataFrame([rows[place] for place in range(len(results))])


def curve_table(
    points: Sequence[tuple[int, "AttackResult"]], member: np.ndarray, model_names: Sequence[str], **columns: str | int
) -> pd.DataFrame:
    """curve.csv: attack_table() of each number of shadows. points: (number of shadows, result)."""
    by_size: dict[int, list[AttackResult]] = {}
    for size, result in points:
        by_size.setdefault(size, []).append(result)
    tables = {size: attack_table(results, member, model_names, **columns) for size, results in by_size.items()}
    return pd.concat([table.assign(shadows=size) for size, table in tables.items()], ignore_index=True)


def samples_table(results: Sequence["AttackResult"], inputs: AttackInputs) -> pd.DataFrame:
    """samples.csv: one row per target and sample, with the shadows' statistics and each attack's score and decision.

    phi and the shadows' means and standard deviations are those of phi averaged over queries. A decision is True where
    the guess is "member", and empty where there is no score or no threshold. p_member, p_value and q_value are those of
    the attack with the highest held-out AUC, see lira.attacks.exposed; empty where it has none."""
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
        columns |= dict.fromkeys(("p_member", "p_value", "q_value"), np.nan)
        for exposure in (result.exposure for result in results if result.target == target and result.exposure):
            columns |= {"p_member": exposure.p_member, "p_value": exposure.p_value}
            columns["q_value"] = exposed.q_values(exposure.p_value)
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def exposed_table(samples: pd.DataFrame, attack: str, fdr: float) -> pd.DataFrame:
    """exposed.csv: the rows of samples.csv that `attack` identifies as members at this false discovery rate, for each
    target the most certain first, with the posterior probability of membership at smaller priors beside p_member."""
    table = samples[samples.q_value <= fdr]
    table = table[["target", "sample", "label", "member", attack, "p_member", "p_value", "q_value"]]
    table = table.rename(columns={attack: "score"})
    table.insert(4, "attack", attack)
    for place, prior in enumerate(PRIORS[1:]):
        table.insert(7 + place, f"p_member_at_{prior:g}", exposed.at_prior(table.p_member, prior))
    return table.sort_values(["target", "score"], ascending=[True, False], kind="stable")


def classes_table(results: Sequence["AttackResult"], inputs: AttackInputs) -> pd.DataFrame:
    """classes.csv: one row per attack and class, over all targets.

    Accuracy and AUC are means over the targets. The interval covers the sampling of the class's samples, which the
    targets share, and takes the models as given. The AUC compares members with non-members of the same class; NaN if a
    target has only one."""
    rows = []
    for attack in dict.fromkeys(result.attack for result in results):
        of_attack = [result for result in results if result.attack == attack]
        for label, class_name in enumerate(inputs.class_names):
            samples = np.flatnonzero(inputs.label == label)
            score = np.stack([result.score[samples] for result in of_attack])  # (T, samples of the class)
            truth = np.stack([inputs.member[result.target, samples] for result in of_attack])
            threshold = np.array([[result.threshold] for result in of_attack])
            targets = zip(score, truth, threshold[:, 0], strict=True)
            accuracy = sampling_interval([estimate_accuracy(*target) for target in targets])
            mean_auc = np.mean([auc(*pair) for pair in zip(score, truth, strict=True)])
            n_guesses = int(np.sum(~np.isnan(score) & ~np.isnan(threshold)))
            rows.append((attack, class_name, *accuracy, mean_auc, n_guesses))
    columns = ["attack", "class", "accuracy", "accuracy_low", "accuracy_high", "auc", "n_guesses"]
    return pd.DataFrame(rows, columns=columns)


def classes_outside(table: pd.DataFrame, accuracy: float) -> tuple[int, float]:
    """How many intervals of classes miss the accuracy of all classes together, and how many would by chance if all
    were alike; as the intervals are wider than needed, rather fewer. table: rows of one attack in classes.csv."""
    outside = (table.accuracy_low > accuracy) | (table.accuracy_high < accuracy)
    return int(outside.sum()), 2 * TAIL * len(table)


def lowest_resolved_rate(summary: pd.DataFrame) -> str | None:
    """The lowest FPR that the samples of all attacks and targets resolve, as in the names of columns; None: not one.

    summary: summary_table()."""
    rates = [f"{rate:g}" for rate in sorted(FALSE_POSITIVE_RATES)]
    return next((rate for rate in rates if summary[f"resolvable_at_{rate}"].all()), None)


def exceeds_guessing(row: pd.Series, metric: str, guessing: float) -> bool | None:
    """Whether the interval of a metric lies above what guessing gives; None without an interval.

    row: of summary_table(). The interval is two-sided: attacks that reveal nothing exceed guessing in 2.5 % of runs."""
    low = row[f"{metric}_low"]
    return None if np.isnan(low) else bool(low > guessing)


def curve_summary(table: pd.DataFrame) -> pd.DataFrame:
    """summary_table() for each number of shadows in curve.csv."""
    return pd.concat(summary_table(rows).assign(shadows=size) for size, rows in table.groupby("shadows"))


def spread_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation (n - 1), <metric> and <metric>_std of METRICS, of each attack of leave_one_out.csv
    over the shadows where the metric is defined, by attack.

    It is the spread of single models, not the error of the mean: all share samples and shadows, and those of a pair
    have complementary members."""
    groups = table.groupby("attack", sort=False)[list(METRICS)]
    return groups.mean().join(groups.std().rename(columns="{}_std".format))


def strongest_attack(table: pd.DataFrame) -> str:
    """The attack with the highest mean held-out AUC in attack.csv, the targets' membership unused; ties: the first."""
    means = table.groupby("attack", sort=False).held_out_auc.mean()
    return means.index[0] if means.isna().all() else means.idxmax()


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """One row per attack of attack.csv: means over the targets with their intervals.

    leakage_low: lower end of the exact interval of all guesses together, see pooled_accuracy(): above the accuracy of
    guessing it shows leakage. It is a test, not an interval of the accuracy."""
    rows = []
    for attack, group in table.groupby("attack", sort=False):
        n_guesses = (group.n_members + group.n_nonmembers).where(group.accuracy.notna(), 0)  # none without a threshold
        row = {"attack": attack}
        for metric in METRICS:
            row |= {metric: group[metric].mean()}
            row |= {f"{metric}{end}": group[f"mean_{metric}{end}"].iloc[0] for end in ("_low", "_high")}
        for column in group.columns:
            if column.startswith("fpr_at_"):
                row[column] = group[column].mean()
            elif column.startswith("resolvable_at_"):
                row[column] = group[column].all()
        row["leakage_low"] = pooled_accuracy((group.accuracy * n_guesses).round(), n_guesses)[1]
        rows.append(row | {"n_targets": len(group), "n_guesses": int(n_guesses.sum())})
    return pd.DataFrame(rows)
