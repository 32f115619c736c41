"""How numbers are formatted, and the sentences that terminal and page share: audit, exposure, repetitions.

A value that is NaN, because it is not defined (no threshold, or members alone), is printed as a dash."""

from collections.abc import Collection, Sequence
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from lira.attacks.audits import COLUMNS, POOLED, refuted
from lira.attacks.exposed import MIN_SHADOWS, share_identified
from lira.attacks.metrics import FALSE_POSITIVE_RATES, MIN_PAIRS
from lira.attacks.tables import PRIORS, curve_summary, spread_table
from lira.errors import plural
from lira.report.results import Results

RATES = tuple(f"{rate:g}" for rate in FALSE_POSITIVE_RATES)  # as in the names of columns: tpr_at_fpr_0.01
UNRESOLVED = "†"
UNRESOLVED_NOTE = f"{UNRESOLVED} not resolvable with so few non-members: this is the TPR at FPR 0"
MAX_SHARE = 0.55  # of members, or of non-members: above it the accuracy is explained
STRONGEST = "strongest by the AUC of the held-out shadows"
INTERVALS = "95 % intervals cover repetitions: other samples, targets and shadows"
NO_INTERVALS = f"no interval with fewer than {MIN_PAIRS} pairs of held-out shadows ({2 * MIN_PAIRS} shadows)"

NO_CANARIES = "not audited; the targets carry no canaries (train_model.py --canaries)."


def number(value: float, spec: str) -> str:
    return "-" if isnan(value) else f"{value:{spec}}"


def percent(value: float, digits: int = 1) -> str:
    return number(value, f".{digits}%")


def interval(low: float, high: float, spec: str = ".1%") -> str:
    return "-" if isnan(low) or isnan(high) else f"[{low:{spec}}, {high:{spec}}]"


def accuracy(row: pd.Series) -> str:
    """The accuracy of an attack with its interval. row: of summary_table()."""
    return "-" if isnan(row.accuracy) else f"{percent(row.accuracy)} {interval(row.accuracy_low, row.accuracy_high)}"


def intervals_note(summary: pd.DataFrame) -> str:
    """What the intervals of summary_table() cover, or why there are none."""
    defined = summary[summary.accuracy.notna()]
    return NO_INTERVALS if len(defined) and defined.accuracy_low.isna().all() else INTERVALS


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def rate_name(rate: str) -> str:
    """1 % of 0.01, one of RATES."""
    return f"{100 * float(rate):g} %"


def rate(value: float, resolvable: bool = True) -> str:
    """A TPR at a low FPR; marked where the FPR is less than one non-member."""
    return "-" if isnan(value) else percent(value, 2) + ("" if resolvable else UNRESOLVED)


def epsilon(value: float) -> str:
    return number(value, ".2f")


def counts(values: Collection[int]) -> str:
    """40,000, or 39,990 to 40,000 where they differ."""
    return " to ".join(f"{count:,}" for count in sorted({min(values), max(values)}))


def verdict(audit: pd.DataFrame, kind: str = "one-run") -> pd.Series | None:
    """The row of audit.csv of this kind that stands for all targets: the pooled one, or that of the only target."""
    rows = audit[audit.kind == kind]
    pooled = rows[rows.target == POOLED]
    return (pooled if len(pooled) else rows).iloc[0] if len(rows) else None


def audit_lines(
    audit: pd.DataFrame,
    mechanism: pd.DataFrame | None = None,
    *,
    nominal: bool = False,
    elsewhere: bool = False,
    strongest: str = "",
) -> list[str]:
    """The audit in three lines: the accountant's upper bound; with DP, what canaries show of the mechanism; what the
    attacks show of the published models. Then one line for each violation and for what is suspicious.

    audit: audit.csv, in which later columns may be missing; mechanism: mechanism.csv; nominal, elsewhere, strongest:
    see Results. Where the guesses are not those of the strongest attack, the line says why."""
    audit = audit.reindex(columns=list(dict.fromkeys([*audit.columns, *COLUMNS])))
    upper = audit.epsilon_upper.max()
    if isnan(upper):
        none = "training without differential privacy guarantees no upper bound on epsilon."
        lines = [f"Guarantee: {'none of this training is known here.' if elsewhere else none}"]
    else:
        delta = audit.delta[audit.epsilon_upper == upper].max()
        known = " It is nominal: --noise-seed makes the noise known." if nominal else ""
        lines = [
            f"Guarantee: epsilon is at most {epsilon(upper)}, at delta {delta:g}, by the accountant; each model's, for "
            f"its own training set.{known}",
            f"Mechanism: {_shown(audit, 'canary-') or NO_CANARIES}",
        ]
    published = _shown(audit, "") or "not audited; no shadow was scored as the target."
    lines.append(f"Published model: {published}{_other_attacks(audit, strongest)}")
    return [*lines, *_violations(audit, mechanism), *_suspicious(audit)]


def _shown(audit: pd.DataFrame, prefix: str) -> str:
    """What the canaries or the samples show, with the most that so many could have shown; empty without an audit."""
    whatever, gaussian = (verdict(audit, f"{prefix}{kind}") for kind in ("one-run", "f-dp"))
    if whatever is None:
        return ""
    if isnan(whatever.epsilon_lower):
        return "no lower bound on epsilon; the members of these targets were not drawn as the audit assumes."
    alone = audit[(audit.kind == whatever.kind) & (audit.target != POOLED)]
    of_targets = f" of {plural(alone.epsilon_lower.notna().sum(), 'target')}" if len(alone) > 1 else ""
    text = f"at {whatever.confidence:.0%} confidence, from {whatever.n_audited:,} {'canaries' if prefix else 'samples'}"
    text += f"{of_targets}, epsilon is at least {epsilon(whatever.epsilon_lower)} at delta {whatever.delta:g}, "
    text += f"whatever the mechanism ({_guesses(whatever)})."
    if gaussian is not None and gaussian.mu_lower > 0:
        text += f" Not mu-GDP for any mu up to {gaussian.mu_lower:.2f}; the Gaussian mechanism of that mu has epsilon "
        text += f"{epsilon(gaussian.epsilon_lower)} at delta {gaussian.delta:g} ({_guesses(gaussian)})."
    elif not whatever.epsilon_lower > 0:
        text += " No leakage is detected, which does not prove that there is none."
    return text


def _other_attacks(audit: pd.DataFrame, strongest: str) -> str:
    """Why the guesses of the samples' bounds are not those of the strongest attack; empty where they are."""
    whatever, gaussian = verdict(audit, "one-run"), verdict(audit, "f-dp")
    named = [] if whatever is None or isnan(whatever.epsilon_lower) else [whatever.attack]
    named += [gaussian.attack] if named and gaussian is not None and gaussian.mu_lower > 0 else []
    others = dict.fromkeys(attack for attack in named if attack != strongest)
    if not strongest or not others:
        return ""
    return (
        f" The guesses are those of {' and '.join(others)}, not of {strongest}: the audit takes the attack that proves "
        "the largest bound on the held-out shadows, and the table marks the one with the highest AUC there."
    )


def _guesses(row: pd.Series) -> str:
    """What a bound rests on. row: of audit.csv."""
    correct = f"{row.attack}, {row.n_correct:,} of {row.n_guesses:,} guesses correct"
    return f"{correct}; so many could have shown {epsilon(row.epsilon_max)}"


def _violations(audit: pd.DataFrame, mechanism: pd.DataFrame | None) -> list[str]:
    """One line for each row of audit.csv that refutes the guarantee, and for each check of a target in mechanism.csv
    that deviates, with the scopes where it does and the figures of the first."""
    lines = []
    for row in refuted(audit).itertuples():
        claim = f"the guaranteed epsilon of {epsilon(row.epsilon_upper)}"
        if row.kind.endswith("f-dp"):
            claim = "the curve of the accounted mechanism"
        lines.append(
            f"VIOLATION: {_subject(row)} refute {claim} ({row.test_correct:,.0f} of {row.test_guesses:,.0f} guesses "
            f"correct, p-value {row.p_value:.1g}, below {row.significance:.1g}): training is less private than that."
        )
    if mechanism is None:
        return lines
    for (target, check), rows in mechanism[mechanism.deviates].groupby(["target", "check"], sort=False):
        row, scopes = rows.iloc[0], [*rows.scope[:3], *([f"{len(rows) - 3} more"] if len(rows) > 3 else [])]
        lines.append(
            f"VIOLATION: {target}, {check} ({', '.join(scopes)}): {row.estimate:.4g} "
            f"{interval(row.low, row.high, '.4g')} where {row.claimed:.4g} is claimed; the mechanism is not the "
            "accounted one."
        )
    return lines


def _suspicious(audit: pd.DataFrame) -> list[str]:
    """One line for each bound above the guarantee that does not refute it."""
    lines = []
    above = audit[(audit.epsilon_lower > audit.epsilon_upper) & ~(audit.p_value < audit.significance)]
    for row in above.itertuples():
        reason = "not at 95 % over all tests of this run"
        if row.kind.endswith("f-dp"):
            reason = "by Gaussian curves, which are no lower bound for other mechanisms"
        shown = f"{epsilon(row.epsilon_lower)}, above the guaranteed {epsilon(row.epsilon_upper)}"
        lines.append(f"suspicious: {_subject(row)} show an epsilon of {shown}, but {reason}.")
    return lines


def _subject(row: Any) -> str:
    scores = "canaries" if row.kind.startswith("canary") else "scores"
    return f"the {scores} of {'all targets' if row.target == POOLED else row.target}"


def exposed_lines(results: Results) -> list[str]:
    """How many members the strongest attack identifies at the false discovery rate given, how many of the samples that
    it takes for members are none, and what changes where fewer of the samples are members."""
    table = results.exposure
    if table is None:
        return [f"No sample is listed as exposed: attack_lira.py lists them with {MIN_SHADOWS} shadows or more."]
    fdr, n_targets = results.attack_info["fdr"], len(results.targets)
    rate, identified = f"{100 * fdr:.4g}%", table[table.q_value <= fdr]
    n_members, n_true = int(table.member.sum()), int(identified.member.sum())
    of_targets = f" of {n_targets} targets" if n_targets > 1 else ""
    line = f"At a false discovery rate of {rate}, the attack ({results.strongest}) identifies "
    line += f"{n_true:,} of {n_members:,} members{of_targets}."
    if not len(identified):
        return [line]
    n_false = len(identified) - n_true
    line += f" It takes {plural(len(identified), 'sample')} for members, of which {n_false:,} "
    line += f"({percent(n_false / len(identified))}) are not."
    smaller = [f"{percent(share)} of them where {percent(prior, 0)} are" for prior, share in shares_identified(results)]
    return [line, f"Were fewer of the samples members, the same rate would identify {' and '.join(smaller[1:])}."]


def shares_identified(results: Results) -> list[tuple[float, float]]:
    """(prior, share of the members identified at the false discovery rate given) for each of PRIORS."""
    table = results.exposure
    p_value = np.empty(0) if table is None else table[table.member].p_value.to_numpy()
    return [(prior, share_identified(p_value, results.attack_info["fdr"], prior)) for prior in PRIORS]


def audit_of(results: Results) -> list[str]:
    """audit_lines() of a run with an audit.csv."""
    return audit_lines(
        results.tables["audit.csv"],
        results.tables.get("mechanism.csv"),
        nominal=results.nominal,
        elsewhere=results.elsewhere,
        strongest=results.strongest,
    )


def repetition_lines(results: Results) -> list[str]:
    """What --leave-one-out shows of the highlighted attacks, if it was given."""
    table, rate = results.tables.get("leave_one_out.csv"), results.lowest_rate or RATES[0]
    if table is None:
        return []
    spread, tpr, figures = spread_table(table), f"tpr_at_fpr_{rate}", []
    for attack in (name for name in results.highlighted if name in spread.index):
        row = spread.loc[attack]
        figures.append(
            f"{attack} accuracy {row.accuracy:.1%} ± {row.accuracy_std:.1%}, AUC {row.auc:.3f} ± {row.auc_std:.3f}, "
            f"TPR at {rate_name(rate)} FPR {row[tpr]:.2%} ± {row[f'{tpr}_std']:.2%}"
        )
    n_shadows = plural(table.target.nunique(), "shadow")
    return [f"Over {n_shadows}, each attacked as the target (mean ± standard deviation): {'; '.join(figures)}."]


def curve_lines(results: Results) -> list[str]:
    """What --curve shows of the highlighted attacks, one line each, if it was given."""
    table = results.tables.get("curve.csv")
    if table is None:
        return []
    lines, summary, rate = [], curve_summary(table), results.lowest_rate or RATES[0]
    for attack in results.highlighted:
        rows = summary[summary.attack == attack]
        if len(rows):
            sizes, accuracies = listed([*map(str, rows.shadows)]), map(percent, rows.accuracy)
            rates = (percent(value, 2) for value in rows[f"tpr_at_fpr_{rate}"])
            lines.append(
                f"With {sizes} shadows, {attack}: accuracy {', '.join(accuracies)}; TPR at "
                f"{rate_name(rate)} FPR {', '.join(rates)}."
            )
    return lines


def member_share(results: Results) -> list[str]:
    """What unequal numbers of members and non-members do to the accuracy; empty where they are about equal."""
    (n_members, n_samples), guessing = results.n_members, results.guessing
    if guessing <= MAX_SHARE:
        return []
    return [
        f"{n_members:,} of {n_samples:,} samples are members: guessing is {percent(guessing)} accurate, and thresholds "
        "take members and non-members as equally likely. AUC and TPR do not depend on this share."
    ]
