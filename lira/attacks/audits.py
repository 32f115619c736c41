"""audit.csv: what the scores of samples and of gradient canaries show about the privacy of the targets' training.

Letters: M models, T targets, N target samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lira.attacks.design import MembershipDesign
from lira.attacks.inputs import AttackInputs
from lira.errors import warn
from lira.privacy import audit, f_dp
from lira.privacy.audit import CONFIDENCE, CanaryScores, HeldOutCounts, Mechanism

if TYPE_CHECKING:  # it imports scikit-learn, which the report does not need
    from lira.attacks.held_out import AttackResult

POOLED = "pooled"  # the target of the rows of audit.csv that are of all targets together
CANARY_ATTACK = "likelihood-ratio"  # the attack on canaries
CANARY_SHARE = 0.8  # of the significance: for the test of the mechanism's curve on canaries, by far the most powerful

COLUMNS = (
    *("target", "kind", "attack", "epsilon_lower", "epsilon_upper", "delta", "confidence"),
    *("n_audited", "n_guesses", "n_correct", "epsilon_max", "mu_lower", "test_guesses", "test_correct", "p_value"),
    "significance",
)

Scores = Mapping[int, tuple[np.ndarray, np.ndarray]]  # target -> (score, member), float64 and bool (n,)


@dataclass(frozen=True)
class _Group:
    """The targets of one row. objection: why they have no bound, else empty; epsilon and delta: of the weakest
    guarantee, NaN and 0 without one; mechanism: None where it is not known or they do not share one."""

    name: str
    targets: list[int]
    objection: str
    epsilon: float
    delta: float
    mechanism: Mechanism | None


@dataclass(frozen=True)
class _Audited:
    """What is audited, samples or canaries, n of each target. prefix: of the kind; scores and counts, the ones that
    are to be expected, by attack; inclusion: how members were drawn."""

    prefix: str
    n: int
    scores: Mapping[str, Scores]
    counts: Mapping[str, HeldOutCounts]
    inclusion: str
    groups: list[_Group]


def audit_table(results: Sequence["AttackResult"], inputs: AttackInputs) -> pd.DataFrame | None:
    """audit.csv: one row per kind and target and, of several, one of all of them, whose target is POOLED. None where
    there are neither held-out scores nor canaries.

    kind: one-run bounds the epsilon of any training; f-dp refutes Gaussian curves up to mu_lower, whose epsilon at
    delta is epsilon_lower; canary-one-run and canary-f-dp the same from canaries. Each bound by itself holds at the
    confidence. epsilon_max: the bound if all guesses had been correct, on all samples or on half of them for f-dp.
    epsilon_upper and delta of the pooled row: of the weakest guarantee; without one the delta of f-dp is f_dp.DELTA.

    p_value: of the guarantee, i.e. of (epsilon_upper, delta) or, for f-dp, of the accounted mechanism's own curve, by
    test_correct of test_guesses guesses. p_value < significance refutes it, at 95 % over all rows together.

    Where the members were not drawn as the audit assumes, a warning says so, and the bound is empty; the pooled row
    leaves such targets out. None, too, where nothing is known of how they were drawn."""
    if inputs.inclusion is None:
        return None
    rows = []
    counts = {result.attack: result.held_out_counts for result in results if result.held_out_counts}
    if counts:
        rows += _rows(_samples(results, inputs, counts))
    if inputs.canaries is not None and inputs.mechanisms is not None:
        rows += _rows(_canaries(inputs, inputs.canaries, inputs.mechanisms[0]))
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(significance=_significance(table))


def refuted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of audit.csv that refute the guarantee."""
    return table[table.p_value < table.significance]


def _significance(table: pd.DataFrame) -> pd.Series:
    """5 %, divided among the tests of the guarantee: CANARY_SHARE for canary-f-dp, the rest evenly among the other
    kinds; of each kind one half for the pooled row and one for the targets."""
    tested = table[table.p_value.notna()]
    kinds, is_pooled = tested.kind.unique(), tested.target == POOLED
    others = [kind for kind in kinds if kind != "canary-f-dp"]
    share = {kind: (1 - CANARY_SHARE if len(others) < len(kinds) else 1) / len(others) for kind in others}
    share["canary-f-dp"] = CANARY_SHARE if others else 1.0
    n_alike = tested.groupby(["kind", is_pooled]).target.transform("size")
    n_parts = is_pooled.groupby(tested.kind).transform("nunique")
    return ((1 - CONFIDENCE) * tested.kind.map(share) / n_alike / n_parts).reindex(table.index)


def _rows(audited: _Audited) -> list[dict[str, Any]]:
    """The rows of one-run, then those of f-dp."""
    for group in audited.groups:
        if group.objection:
            warn(f"no {audited.prefix.replace('-', ' ')}audit of {group.name}: {group.objection}")
    delta = max(group.delta for group in audited.groups)
    how: dict[str, Any] = dict(n_audited=audited.n, delta=delta, inclusion=audited.inclusion)
    n_targets = sum(group.name != POOLED for group in audited.groups)
    attack, n_high, n_low = audit.choose_guesses(audited.counts, n_targets=n_targets, **how)
    one_run = [_one_run(audited, group, attack, n_high, n_low) for group in audited.groups]
    return one_run + [_f_dp(audited, group) for group in audited.groups]


def _one_run(audited: _Audited, group: _Group, attack: str, n_high: int, n_low: int) -> dict[str, Any]:
    n_correct, n_guesses = _count(audited.scores[attack], group, n_high=n_high, n_low=n_low)
    everything = [audited.n] * len(group.targets)
    how: dict[str, Any] = dict(n_audited=audited.n, delta=group.delta, inclusion=audited.inclusion)
    row = _row(audited, group, "one-run", attack) | {"delta": group.delta}
    row |= {"n_guesses": sum(n_guesses), "n_correct": sum(n_correct)}
    if group.objection:
        return row
    row["epsilon_lower"] = audit.epsilon_lower_bound(n_correct, n_guesses, **how)
    row["epsilon_max"] = audit.epsilon_lower_bound(everything, everything, **how)
    if np.isnan(group.epsilon):
        return row
    counts = np.array([[n_correct], [n_guesses]])  # each (1, T)
    p = audit.pooled_p_value(np.array([group.epsilon]), *counts, **how)[0, 0]
    return row | {"p_value": p, "test_guesses": sum(n_guesses), "test_correct": sum(n_correct)}


def _f_dp(audited: _Audited, group: _Group) -> dict[str, Any]:
    log_factor = audit.log_halves_factor(audited.n) if audited.inclusion == "half" else 0.0
    how: dict[str, Any] = dict(n_audited=audited.n, log_factor=log_factor)
    delta = group.delta or f_dp.DELTA
    significance = (1 - CONFIDENCE) * np.exp(-log_factor)
    attack, k = f_dp.choose_guesses(audited.counts, n_audited=audited.n, significance=significance)
    n_correct, n_guesses = _count(audited.scores[attack], group, n_high=k)
    row = _row(audited, group, "f-dp", attack) | {"delta": delta}
    row |= {"n_guesses": sum(n_guesses), "n_correct": sum(n_correct)}
    if group.objection:
        return row
    half = [audited.n // 2] * len(group.targets)
    mu, max_mu = (f_dp.largest_mu(*counts, **how) for counts in ((n_correct, n_guesses), (half, half)))
    row |= {"mu_lower": mu, "epsilon_lower": f_dp.gaussian_epsilon(mu, delta)}
    row["epsilon_max"] = f_dp.gaussian_epsilon(max_mu, delta)
    if group.mechanism is None:
        return row
    if audited.prefix:
        n_high = f_dp.choose_test(group.mechanism, n_audited=audited.n)
        n_correct, n_guesses = _count(audited.scores[attack], group, n_high=n_high)
    p = f_dp.p_value(n_correct, n_guesses, curve=f_dp.compose(group.mechanism), **how)
    return row | {"p_value": p, "test_guesses": sum(n_guesses), "test_correct": sum(n_correct)}


def _row(audited: _Audited, group: _Group, kind: str, attack: str) -> dict[str, Any]:
    return {
        "target": group.name,
        "kind": audited.prefix + kind,
        "attack": attack,
        "epsilon_upper": group.epsilon,
        "confidence": CONFIDENCE,
        "n_audited": audited.n * len(group.targets),
    }


def _count(scores: Scores, group: _Group, *, n_high: int, n_low: int = 0) -> tuple[list[int], list[int]]:
    """(n_correct, n_guesses), each by target of the group."""
    pairs = [audit.count_guesses(*scores[target], n_high=n_high, n_low=n_low) for target in group.targets]
    return [n_correct for n_correct, _ in pairs], [n_guesses for _, n_guesses in pairs]


def _samples(results: Sequence["AttackResult"], inputs: AttackInputs, counts: Mapping[str, HeldOutCounts]) -> _Audited:
    scores: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for result in results:
        scores.setdefault(result.attack, {})[result.target] = result.score, inputs.member[result.target]
    objections = [_objection(inputs, target) for target in range(inputs.n_targets)]
    valid = [target for target, objection in enumerate(objections) if not objection]
    not_independent = any(
        not _is_fair_against(inputs.member[target], inputs.member[valid[:n]]) for n, target in enumerate(valid)
    )
    pooled = "the members of these targets were not drawn independently of each other" if not_independent else ""
    groups = _groups(inputs, objections, pooled)
    return _Audited("", inputs.phi.shape[1], scores, counts, str(inputs.inclusion), groups)


def _canaries(inputs: AttackInputs, canaries: Sequence[CanaryScores], mechanism: Mechanism) -> _Audited:
    """mechanism: of the first target, for the number of guesses alone."""
    n, scores = len(canaries[0].score), {target: (each.score, each.member) for target, each in enumerate(canaries)}
    n_members = [int(each.member.sum()) for each in canaries]
    objections = [
        "" if audit.is_fair(count, n) else f"{count:,} of {n:,} canaries are in the run, which fair coins do not give"
        for count in n_members
    ]
    counts = {CANARY_ATTACK: f_dp.expected_counts(f_dp.compose(mechanism), n)}
    return _Audited("canary-", n, {CANARY_ATTACK: scores}, counts, "coin", _groups(inputs, objections))


def _groups(inputs: AttackInputs, objections: Sequence[str], pooled_objection: str = "") -> list[_Group]:
    """Each target, and all that have no objection of their own; objections: by target."""

    def group(name: str, targets: list[int], objection: str) -> _Group:
        guarantees = [[np.nan, 0.0]] if inputs.guarantees is None else inputs.guarantees[targets]
        epsilon, delta = np.max(guarantees, axis=0)
        mechanisms = {inputs.mechanisms[target] for target in targets} if inputs.mechanisms else set()
        return _Group(name, targets, objection, epsilon, delta, mechanisms.pop() if len(mechanisms) == 1 else None)

    targets = list(range(inputs.n_targets))
    groups = [group(inputs.model_names[target], [target], objections[target]) for target in targets]
    if len(targets) == 1:
        return groups
    valid = [target for target in targets if not objections[target]]
    objection = pooled_objection if valid else "no target has a bound"
    return [*groups, group(POOLED, valid or targets, objection)]


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
