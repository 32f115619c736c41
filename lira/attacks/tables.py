"""The tables of a run, made from attack results: each a DataFrame, as it is written to result/<run>/*.csv.

Letters: M models, T targets, N target samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lira.attacks import exposed
from lira.attacks.design import MembershipDesign
from lira.attacks.inputs import AttackInputs
from lira.attacks.metrics import (
    METRICS,
    auc,
    estimate_accuracy,
    evaluate_targets,
    pooled_accuracy,
    sampling_interval,
)
from lira.attacks.statistics import Statistics
from lira.errors import warn
from lira.privacy import audit

PRIORS = (0.5, 0.1, 0.01)  # shares of members among the samples: that of the experiment, and what changes below it
POOLED = "pooled"  # the target of the row of audit.csv that is of all targets together

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


def audit_table(results: Sequence["AttackResult"], inputs: AttackInputs) -> pd.DataFrame | None:
    """audit.csv: one row per target and, of several, one of all of them, whose target is POOLED: a lower bound on the
    epsilon of their training beside the guaranteed epsilon.

    epsilon_max: the lower bound if all samples were guessed correctly. epsilon_upper and delta of the pooled row: of
    the weakest guarantee. Where the members were not drawn as the audit assumes, a warning says so, and epsilon_lower
    and epsilon_max are empty; the pooled row leaves such targets out. None without held-out scores."""
    counts = {result.attack: result.held_out_counts for result in results if result.held_out_counts}
    if not counts:
        return None
    n_targets, n_audited = inputs.n_targets, inputs.phi.shape[1]
    guarantees = np.array([[np.nan, 0.0]] * n_targets) if inputs.guarantees is None else inputs.guarantees
    how: dict[str, Any] = dict(n_audited=n_audited, inclusion=inputs.inclusion)
    attack, n_high, n_low = audit.choose_guesses(counts, n_targets=n_targets, delta=guarantees[:, 1].max(), **how)
    guesses = {  # (n_correct, n_guesses) by target
        result.target: audit.count_guesses(result.score, inputs.member[result.target], n_high=n_high, n_low=n_low)
        for result in results
        if result.attack == attack
    }
    rows = []
    for name, targets, objection in _audited_targets(inputs):
        if objection:
            warn(f"no audit of {name}: {objection}")
        n_correct, n_guesses = zip(*(guesses[target] for target in targets), strict=True)
        (epsilon, delta), all_samples = guarantees[targets].max(axis=0), [n_audited] * len(targets)
        lower, highest = (
            np.nan if objection else audit.epsilon_lower_bound(*pair, delta=delta, **how)
            for pair in ((n_correct, n_guesses), (all_samples, all_samples))
        )
        row: dict[str, Any] = {"target": name, "kind": "one-run", "attack": attack}
        row |= {"epsilon_lower": lower, "epsilon_upper": epsilon, "delta": delta, "confidence": audit.CONFIDENCE}
        row |= {"n_audited": sum(all_samples), "n_guesses": sum(n_guesses), "n_correct": sum(n_correct)}
        rows.append(row | {"epsilon_max": highest})
    return pd.DataFrame(rows)


def _audited_targets(inputs: AttackInputs) -> list[tuple[str, list[int], str]]:
    """(name, targets, objection) of each row of audit.csv; objection: why these targets have no bound, else empty."""
    targets = list(range(inputs.n_targets))
    objections = [_objection(inputs, target) for target in targets]
    rows = [(inputs.model_names[target], [target], objections[target]) for target in targets]
    if len(targets) == 1:
        return rows
    audited = [target for target in targets if not objections[target]]
    objection = "" if audited else "no target has a bound"
    if any(not _is_fair_against(inputs.member[target], inputs.member[audited[:n]]) for n, target in enumerate(audited)):
        objection = "the members of these targets were not drawn independently of each other"
    return [*rows, (POOLED, audited or targets, objection)]


def _objection(inputs: AttackInputs, target: int) -> str:
    """Why the members of this target are not drawn as the audit assumes, from what `member` shows; else empty."""
    member, shadows, n_samples = inputs.member[target], inputs.member[inputs.n_targets :], inputs.phi.shape[1]
    n_members = int(member.sum())
    counted = f"{n_members:,} of {n_samples:,} samples are members"
    if inputs.inclusion == "half" and n_members not in (n_samples // 2, n_samples - n_samples // 2):
        remedy = "if each was a member with probability 1/2, independently, give --target-inclusion coin"
        return f"{counted}, not half of them; {remedy}"
    if inputs.inclusion == "coin" and not audit.is_fair(n_members, n_samples):
        return f"{counted}, which independent draws with probability 1/2 do not give"
    others = shadows[np.any(shadows == member, axis=1)]  # a complementary partner is held out
    design = MembershipDesign(np.concatenate([member[None], shadows]), 1, seed=0)
    if not (_is_fair_against(member, others) and design.independent):
        return "its members follow from those of the other models, so that they were not drawn independently"
    return ""


def _is_fair_against(member: np.ndarray, others: np.ndarray) -> bool:
    """Whether the members may have been drawn independently of those of each other model. (N,) and (R, N), bool."""
    return audit.is_fair((others == member).sum(axis=1), len(member), n_tests=max(len(others), 1))


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
