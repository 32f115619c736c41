"""The tables that a run ends in, made from scored attacks: each a DataFrame, as it lies in result/<run>/*.csv.

Letters: M models, T targets, N target samples."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lira.attacks.held_out import AttackResult
from lira.attacks.inputs import AttackInputs
from lira.attacks.metrics import auc, evaluate, pooled_accuracy
from lira.attacks.statistics import Statistics
from lira.errors import InputError, warn
from lira.privacy import audit


def attack_table(scored: Sequence[AttackResult], member: np.ndarray, names: Sequence[str], **columns) -> pd.DataFrame:
    """attack.csv and its kin: a row an attack and target.

    member: bool (M, N), the truth; names: (M,), what to call each row of it; columns: values that all rows share.
    held_out_auc: mean AUC of the shadows' own held-out scores, which knows nothing of the target."""
    return pd.DataFrame(
        {
            "attack": one.attack,
            "target": names[one.target],
            **columns,
            "shadows": one.shadows,
            "held_out_auc": one.held_out_auc,
        }
        | evaluate(one.score, member[one.target], threshold=one.threshold)
        for one in scored
    )


def curve_table(points: Sequence[tuple[int, AttackResult]], member, names: Sequence[str], **columns) -> pd.DataFrame:
    """curve.csv: attack_table() for several numbers of shadows. points: (number of shadows, scored)."""
    return pd.concat(
        [attack_table([one], member, names, **columns).assign(shadows=size) for size, one in points], ignore_index=True
    )


def samples_table(scored: Sequence[AttackResult], inputs: AttackInputs) -> pd.DataFrame:
    """samples.csv: a row a target and sample, with what the shadows say of it and each attack's score and decision.

    phi and the shadows' means and deviations are those of its mean over queries."""
    phi = inputs.phi.mean(axis=2, dtype=np.float64)  # (M, N)
    known = Statistics.from_shadows(phi[inputs.n_targets :], inputs.member[inputs.n_targets :])
    shadows = {
        f"{name}_{side}": function(getattr(known, f"{source}_{side}")[:, 0])
        for side in ("in", "out")
        for name, source, function in (("mean", "mean", np.asarray), ("std", "var", np.sqrt))
    }
    tables = []
    for target in range(inputs.n_targets):
        columns = {"target": inputs.names[target], "sample": np.arange(phi.shape[1]), "label": inputs.label}
        columns |= {"member": inputs.member[target], "phi": phi[target]} | shadows
        for one in scored:
            if one.target == target:
                columns |= {one.attack: one.score, f"{one.attack}_decision": _decision(one)}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _decision(one: AttackResult) -> pd.Series:
    """Whether each sample is called a member; empty where there is no score, or no threshold to hold it against."""
    known = ~np.isnan(one.score) & ~np.isnan(one.threshold)
    return pd.Series(one.score >= one.threshold, dtype="boolean").where(known)


def classes_table(scored: Sequence[AttackResult], inputs: AttackInputs) -> pd.DataFrame:
    """classes.csv: a row an attack and class, over all targets: how exposed the samples of that class are.

    The AUC compares members with non-members of the class alone, a mean over targets; NaN where it has only one."""
    rows = []
    for attack in dict.fromkeys(one.attack for one in scored):
        own = [one for one in scored if one.attack == attack]
        for number, name in enumerate(inputs.class_names):
            samples = np.flatnonzero(inputs.label == number)
            score = np.stack([one.score[samples] for one in own])  # (T, samples of the class)
            truth = np.stack([inputs.member[one.target, samples] for one in own])
            threshold = np.array([[one.threshold] for one in own])
            n_correct = (score >= threshold) == truth
            known = ~np.isnan(score) & ~np.isnan(threshold)
            accuracy, low, high = pooled_accuracy((n_correct & known).sum(), known.sum())
            rows.append(
                {"attack": attack, "class": name, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
                | {"auc": np.mean([auc(*pair) for pair in zip(score, truth, strict=True)]), "n_guesses": known.sum()}
            )
    return pd.DataFrame(rows)


def audit_table(scored: Sequence[AttackResult], inputs: AttackInputs) -> pd.DataFrame | None:
    """audit.csv: a row a target, a lower bound on the epsilon of its training beside the one that is promised.

    epsilon_lower is empty where the members are not drawn as inputs.inclusion says; None without held-out scores."""
    tallies = {one.attack: one.tally for one in scored if one.tally}
    if not tallies:
        return None
    audited, inclusion, rows = inputs.phi.shape[1], inputs.inclusion, []
    attack, *cuts = audit.choose_thresholds(tallies, n_audited=audited, inclusion=inclusion)
    for one in (one for one in scored if one.attack == attack):
        member, name = inputs.member[one.target], inputs.names[one.target]
        upper, delta = (np.nan, 0.0) if inputs.guarantees is None else inputs.guarantees[one.target]
        n_correct, n_guesses = audit.count_guesses(one.score, member, threshold_low=cuts[0], threshold_high=cuts[1])
        lower = np.nan
        if inclusion == "half" and member.sum() not in (audited // 2, audited - audited // 2):
            warn(
                f"no audit of {name}: {member.sum()} of {audited} samples are members, not half of them; if each was "
                "drawn by a coin of its own, say --target-inclusion coin"
            )
        else:
            lower = audit.epsilon_lower_bound(n_correct, n_guesses, n_audited=audited, delta=delta, inclusion=inclusion)
        row = {"target": name, "attack": attack, "inclusion": inclusion, "epsilon_lower": lower}
        row |= {"epsilon_upper": upper, "delta": delta, "confidence": audit.CONFIDENCE, "n_audited": audited}
        rows.append(
            row | {"n_guesses": n_guesses, "n_correct": n_correct, "threshold_low": cuts[0], "threshold_high": cuts[1]}
        )
    return pd.DataFrame(rows)


_MEANS = ("auc", "tpr_at_fpr_", "fpr_at_")


def strongest(table: pd.DataFrame) -> str:
    """The attack whose held-out shadow scores are strongest, from attack.csv; see attacks.strongest()."""
    if "held_out_auc" not in table:
        raise InputError("attack.csv has no column strength, it is from an older version: run attack_lira.py again")
    means = table.groupby("attack", sort=False).held_out_auc.mean()
    return means.index[0] if means.isna().all() else means.idxmax()


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row an attack: means over the targets of attack.csv, and the accuracy of all n_guesses together.

    Its interval takes the samples and shadows, which the targets share, as given. auc_std: over targets. The ends of
    the other intervals are means over the targets too: as wide as for one target alone, however dependent they are."""
    rows = []
    for attack, group in table.groupby("attack", sort=False):
        n_guesses = (group.n_members + group.n_nonmembers).where(group.accuracy.notna(), 0)  # no threshold, no guess
        accuracy, low, high = pooled_accuracy((group.accuracy * n_guesses).round(), n_guesses)
        row = {"attack": attack, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
        row |= {"accuracy_std": group.accuracy.std(), "auc_std": group.auc.std()}
        row |= {column: group[column].mean() for column in group.columns if column.startswith(_MEANS)}
        row |= {column: group[column].all() for column in group.columns if column.startswith("resolvable_at")}
        rows.append(row | {"n_targets": len(group), "n_guesses": int(n_guesses.sum())})
    return pd.DataFrame(rows)
