"""Metrics of an attack: ROC, accuracy, AUC, TPR at low FPR, each with an interval.

score: float (N,), higher = more likely a member, NaN = not scored (left out of every metric and counted). member: bool
(N,), the truth.

The interval of a metric has 95 % confidence and covers its mean over repetitions of the whole experiment: other target
samples of the same kind, other targets and shadows trained the same way, thresholds fitted anew. It adds two parts:
the sampling of target samples (`Estimate`), and the variation between models, measured on the held-out shadows
(`BetweenModels`). It is not the range of single models: the metric of one more model lies outside more often."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtri
from scipy.stats import binom, rankdata, t

from lira.errors import InputError

FALSE_POSITIVE_RATES = (0.01, 0.001, 0.0001)
METRICS = ("accuracy", "auc", *(f"tpr_at_fpr_{rate:g}" for rate in FALSE_POSITIVE_RATES))  # those with intervals
CONFIDENCE = 0.95
TAIL = (1.0 - CONFIDENCE) / 2
MIN_PAIRS = 3  # of held-out shadows, for a variance between models


@dataclass(frozen=True)
class Estimate:
    """A metric on one target, and its 95 % interval over the sampling of target samples alone.

    centre: the value without bias, which low and high surround; the value itself but for the TPR. influence: float64
    (N,), the first-order effect of each sample on the value, 0 where it is not scored. Targets share their samples: the
    influences give the correlation of their errors."""

    value: float
    centre: float
    low: float
    high: float
    influence: np.ndarray


@dataclass(frozen=True)
class BetweenModels:
    """The variation of an attack's metrics between models, from its held-out shadows.

    variance: metric of METRICS -> variance of its expected value between models; NaN where it is not defined. n_pairs:
    pairs (or shadows without a partner) that it is estimated from; below MIN_PAIRS there is no interval. n_shadows: S,
    in the statistics that score the targets."""

    variance: dict[str, float]
    n_pairs: int
    n_shadows: int


def between_models(
    scores: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    *,
    threshold: float,
    pair_sizes: Sequence[int],
    n_shadows: int,
) -> BetweenModels:
    """scores, truths: of each held-out shadow, pair after pair; pair_sizes: shadows in each pair.

    A metric of one shadow has two errors, that of the model and that of the samples. Metrics on every second sample and
    on the others share the first alone: its variance is their covariance over the shadows. Around the mean over all
    shadows it is too small by the variance of that mean, which is added, from the sums of the pairs: the shadows of a
    pair have complementary members and are not independent."""
    halves = [[_metrics(*half, threshold) for half in _halves(*pair)] for pair in zip(scores, truths, strict=True)]
    values = np.array(halves).reshape(-1, 2, len(METRICS))
    n_pairs = len(pair_sizes) if len(values) else 0
    if n_pairs < MIN_PAIRS:
        return BetweenModels(dict.fromkeys(METRICS, np.nan), n_pairs, n_shadows)
    values = values - values.mean(axis=0)
    of_pairs = np.add.reduceat(values, np.cumsum([0, *pair_sizes[:-1]]), axis=0)
    of_mean = of_pairs.prod(axis=1).sum(axis=0) * n_pairs / (n_pairs - 1) / len(values) ** 2
    variance = np.maximum(values.prod(axis=1).mean(axis=0) + of_mean, 0.0)
    return BetweenModels(dict(zip(METRICS, variance.tolist(), strict=True)), n_pairs, n_shadows)


def _halves(score: np.ndarray, member: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    score, member = _scored_only(score, member)
    return [(score[start::2], member[start::2]) for start in (0, 1)]


def _metrics(score: np.ndarray, member: np.ndarray, threshold: float) -> list[float]:
    """The values of METRICS, NaN where they are not defined; all samples scored."""
    if not member.any() or member.all():
        return [np.nan] * len(METRICS)
    _, n_true_positives, n_false_positives = _roc_counts(score, member)
    n_nonmembers = n_false_positives[-1]
    n_allowed = [_n_allowed(rate, n_nonmembers) for rate in FALSE_POSITIVE_RATES]
    steps = np.searchsorted(n_false_positives, n_allowed, side="right")
    tpr = np.append(0, n_true_positives)[steps] / n_true_positives[-1]
    accuracy = np.nan if np.isnan(threshold) else np.mean((score >= threshold) == member)
    return [float(accuracy), _area(n_true_positives, n_false_positives), *tpr.tolist()]


def mean_interval(
    metric: str, estimates: Sequence[Estimate], between: Sequence[BetweenModels | None]
) -> tuple[float, float, float]:
    """(mean, low, high) of a metric over T targets, of those where it is defined; NaN ends where `between` is None,
    has fewer than MIN_PAIRS pairs or does not know the metric.

    The half-width on either side is the root of two squared half-widths (Zou and Donner 2008). Samples: those of the
    targets together, as correlated as their influences. Models: Student's t with n_pairs - 1 degrees of freedom times
    the standard deviation between models times sqrt(1 / T + 1 / S): all targets share the S shadows, whose mean varies
    as much as 1 / S of a model, if the score of a target is its distance from that mean. An attack such as
    `loss`, which takes nothing but its threshold from them, needs less."""
    defined = [pair for pair in zip(estimates, between, strict=True) if not np.isnan(pair[0].value)]
    models = [each for _, each in defined if each is not None]
    if not defined or len(models) < len(defined) or (n_pairs := min(each.n_pairs for each in models)) < MIN_PAIRS:
        return float(np.mean([estimate.value for estimate, _ in defined])) if defined else np.nan, np.nan, np.nan
    variance = np.mean([each.variance[metric] * (1 / len(defined) + 1 / each.n_shadows) for each in models])
    half_width = t.ppf(1 - TAIL, n_pairs - 1) * np.sqrt(variance)
    return sampling_interval([estimate for estimate, _ in defined], half_width)


def sampling_interval(estimates: Sequence[Estimate], half_width: float = 0.0) -> tuple[float, float, float]:
    """(mean, low, high) of a metric over the targets, of those where it is defined: the sampling of target samples
    alone, unless the half-width of another error is given, whose square is added."""
    estimates = [estimate for estimate in estimates if not np.isnan(estimate.value)]
    if not estimates:
        return np.nan, np.nan, np.nan
    influence = np.stack([estimate.influence for estimate in estimates])
    independent, together = np.sum(influence**2), np.sum(influence.sum(axis=0) ** 2)
    # From 1 to T, which stands for errors that are the same in all targets.
    correlated = max(1.0, together / independent) if independent else len(estimates)
    mean = float(np.mean([estimate.value for estimate in estimates]))
    centre, low, high = np.transpose([(estimate.centre, estimate.low, estimate.high) for estimate in estimates])
    below, above = (
        np.hypot(np.sqrt(correlated * np.sum((centre - ends) ** 2)) / len(estimates), half_width)
        for ends in (low, high)
    )
    low, high = np.clip([centre.mean() - below, centre.mean() + above], 0.0, 1.0)
    return mean, float(np.minimum(low, mean)), float(np.maximum(high, mean))


def evaluate(
    score: np.ndarray, member: np.ndarray, *, threshold: float, between: BetweenModels | None = None
) -> dict[str, float | int | bool]:
    """evaluate_targets() of one target; without `between` no metric has an interval."""
    return evaluate_targets([score], [member], thresholds=[threshold], between=[between])[0]


def evaluate_targets(
    scores: Sequence[np.ndarray],
    members: Sequence[np.ndarray],
    *,
    thresholds: Sequence[float],
    between: Sequence[BetweenModels | None],
    strict: bool = False,
) -> list[dict[str, float | int | bool]]:
    """Every metric of one attack on each of T targets, by the columns of attack.csv; NaN where it is not defined.

    thresholds: guess member where score >= threshold (from the shadows; NaN: no accuracy).

    <metric>_low, _high: its interval from this target alone; mean_<metric>_low, _high: that of the mean over the T
    targets, the same in every row. balanced_accuracy: at the best threshold in hindsight. tpr_at_fpr_X: the raw step of
    the ROC, strict: with an FPR below X, not equal to it; fpr_at_X: the FPR realized there; resolvable_at_X: whether X
    is at least one non-member."""
    targets = list(zip(scores, members, thresholds, strict=True))
    estimates = [_estimates(*target, strict) for target in targets]
    means: dict[str, float] = {}
    for metric in METRICS:
        _, *ends = mean_interval(metric, [of_target[metric] for of_target in estimates], between)
        means |= dict(zip((f"mean_{metric}_low", f"mean_{metric}_high"), ends, strict=True))
    rows = []
    for (score, member, threshold), of_target, models in zip(targets, estimates, between, strict=True):
        row: dict[str, float | int | bool] = {}
        for metric, estimate in of_target.items():
            interval = mean_interval(metric, [estimate], [models])
            row |= dict(zip((metric, f"{metric}_low", f"{metric}_high"), interval, strict=True))
        n_unscored = int(np.isnan(score).sum())
        score, member = _scored_only(score, member)
        row |= {"threshold": float(threshold), "balanced_accuracy": _best_balanced_accuracy(score, member)}
        for rate in FALSE_POSITIVE_RATES:
            point = tpr_at_fpr(score, member, rate, strict=strict)
            row |= {f"fpr_at_{rate:g}": point["fpr"], f"resolvable_at_{rate:g}": point["resolvable"]}
        n_members = int(member.sum())
        row |= {"n_members": n_members, "n_nonmembers": len(member) - n_members, "n_unscored": n_unscored}
        rows.append(row | means)
    return rows


def roc(score: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(fpr, tpr, thresholds), float64 (P,) each, one point per distinct score: guess member where score >= threshold.

    Ties are one step. The first threshold is inf. Raises InputError unless there are members and non-members."""
    score, member = _scored_only(score, member)
    if not member.any() or member.all():
        raise InputError(
            f"a ROC curve needs members and non-members, but {int(member.sum())} of {len(member)} scored "
            f"samples are members: take more samples"
        )
    threshold, n_true_positives, n_false_positives = _roc_counts(score, member)
    fpr, tpr = n_false_positives / (~member).sum(), n_true_positives / member.sum()
    return np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, threshold)


def _roc_counts(score: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(threshold, n_true_positives, n_false_positives) for every distinct score, descending: members and non-members
    with score >= threshold. float64, int64, int64 (P,). Ties are one step, so their order does not matter."""
    order = np.argsort(score)[::-1]
    score, n_true_positives = score[order], np.cumsum(member[order])
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)
    return score[last], n_true_positives[last], last + 1 - n_true_positives[last]


def best_threshold(score: np.ndarray, member: np.ndarray) -> float:
    """The most accurate threshold: guess member where score >= threshold.

    The highest of equally accurate ones; inf where guessing no member is best; NaN where nothing is scored."""
    score, member = _scored_only(score, member)
    if not len(score):
        return np.nan
    threshold, n_true_positives, n_false_positives = _roc_counts(score, member)
    n_correct = np.append(0, n_true_positives - n_false_positives)  # more than when no member is guessed
    return float(np.append(np.inf, threshold)[np.argmax(n_correct)])


def _best_balanced_accuracy(score: np.ndarray, member: np.ndarray) -> float:
    if not member.any() or member.all():
        return np.nan
    fpr, tpr, _ = roc(score, member)
    return float(np.max(0.5 * (tpr + 1.0 - fpr)))


def auc(score: np.ndarray, member: np.ndarray) -> float:
    """Area under the ROC curve, ties counting one half; NaN without members or without non-members."""
    score, member = _scored_only(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    if not n_members or not n_nonmembers:
        return np.nan
    _, n_true_positives, n_false_positives = _roc_counts(score, member)
    return _area(n_true_positives, n_false_positives)


def _area(n_true_positives: np.ndarray, n_false_positives: np.ndarray) -> float:
    """AUC from the counts of _roc_counts(), members and non-members both present."""
    n_members, n_nonmembers = n_true_positives[-1], n_false_positives[-1]
    # Twice the number of non-members below each distinct score, those equal to it counting one half.
    below = 2 * n_nonmembers - n_false_positives - np.concatenate([[0], n_false_positives[:-1]])
    return float(np.sum(np.diff(n_true_positives, prepend=0) * below) / (2 * n_members * n_nonmembers))


def _estimates(score: np.ndarray, member: np.ndarray, threshold: float, strict: bool) -> dict[str, Estimate]:
    """The METRICS of one target, in their order."""
    rates = {f"tpr_at_fpr_{rate:g}": estimate_tpr(score, member, rate, strict=strict) for rate in FALSE_POSITIVE_RATES}
    return {"accuracy": estimate_accuracy(score, member, threshold), "auc": estimate_auc(score, member)} | rates


def estimate_accuracy(score: np.ndarray, member: np.ndarray, threshold: float) -> Estimate:
    """Accuracy of guessing member where score >= threshold: Clopper-Pearson."""
    scored = ~np.isnan(score) & ~np.isnan(threshold)
    correct, n_guesses = ((score >= threshold) == member) & scored, int(scored.sum())
    value, low, high = pooled_accuracy(int(correct.sum()), n_guesses)
    return Estimate(value, value, low, high, np.where(scored, correct - value, 0.0) / max(n_guesses, 1))


def estimate_auc(score: np.ndarray, member: np.ndarray) -> Estimate:
    """AUC: DeLong's variance (DeLong et al. 1988, by ranks as in Sun and Xu 2014), on the logit scale.

    The logit keeps the interval inside (0, 1) and its coverage near an AUC of 1. An AUC of exactly 0 or 1 has no
    variance: its open end is then that of k = 0 in min(members, non-members) trials. NaN below two of each."""
    influence, scored = np.zeros(len(score)), ~np.isnan(score)
    score, member = _scored_only(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    if min(n_members, n_nonmembers) < 2:
        area = auc(score, member)
        return Estimate(area, area, np.nan, np.nan, influence)
    ranks = rankdata(score)
    below = (ranks[member] - rankdata(score[member])) / n_nonmembers  # share of non-members below each member
    above = 1.0 - (ranks[~member] - rankdata(score[~member])) / n_members
    area, of_samples = float(below.mean()), np.empty(len(score))
    of_samples[member] = (below - area) / np.sqrt(n_members * (n_members - 1))
    of_samples[~member] = (above - area) / np.sqrt(n_nonmembers * (n_nonmembers - 1))
    influence[scored] = of_samples
    if area in (0.0, 1.0):
        low, high = clopper_pearson(0, min(n_members, n_nonmembers))
        return Estimate(area, area, *((low, high) if area == 0.0 else (1.0 - high, 1.0 - low)), influence)
    error = np.sqrt(np.sum(influence**2))
    logit, half_width = np.log(area / (1 - area)), ndtri(0.5 + CONFIDENCE / 2) * error / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(logit - half_width))), 1 / (1 + np.exp(-(logit + half_width)))
    return Estimate(area, area, float(low), float(high), influence)


def clopper_pearson(successes: float, trials: int) -> tuple[float, float]:
    """(low, high): exact interval of a binomial probability (Clopper and Pearson 1934); NaN without trials.

    successes: whole, or interpolated."""
    if not trials:
        return np.nan, np.nan
    low = 0.0 if successes <= 0 else float(betaincinv(successes, trials - successes + 1, TAIL))
    high = 1.0 if successes >= trials else float(betaincinv(successes + 1, trials - successes, 1 - TAIL))
    return low, high


def tpr_at_fpr(score: np.ndarray, member: np.ndarray, rate: float, *, strict: bool = False) -> dict[str, float | bool]:
    """The raw step of the ROC at a false positive rate: the highest TPR with FPR <= rate, or strict with FPR < rate,
    never interpolated.

    The threshold is the (k + 1)-th largest non-member with k = floor(rate * n). Only samples above it, never equal to
    it, are guessed members.

    Returns dict: tpr, fpr (realized), threshold (guess member where score > threshold), resolvable (rate >= 1 / n)."""
    score, member = _scored_only(score, member)
    members, nonmembers = score[member], np.sort(score[~member])[::-1]
    n = len(nonmembers)
    if not n or not len(members):
        return dict.fromkeys(("tpr", "fpr", "threshold"), np.nan) | {"resolvable": False}
    n_allowed = _n_allowed(rate, n, strict=strict)
    threshold = nonmembers[min(n_allowed, n - 1)]
    return {
        "tpr": float(np.mean(members > threshold)),
        "fpr": float(np.mean(nonmembers > threshold)),
        "threshold": float(threshold),
        "resolvable": n_allowed >= 1,
    }


def _n_allowed(rate: float, n_nonmembers: int, *, strict: bool = False) -> int:
    """How many false positives a rate allows; strict: the FPR must be below it."""
    n_allowed = rate * n_nonmembers * (1 + 1e-12)  # 0.01 * 300 is 3, not 2.9999
    return max(math.ceil(n_allowed * (1 - 2e-12)) - 1, 0) if strict else int(n_allowed)


def estimate_tpr(score: np.ndarray, member: np.ndarray, rate: float, *, strict: bool = False) -> Estimate:
    """tpr_at_fpr() with an interval for the TPR where the true FPR is `rate`.

    The true FPR of the k-th largest of n non-members is k / (n + 1) on average, so that the raw step is biased: its k
    is the first above rate * n. The centre lies between the two steps around k = rate * (n + 1). From there two
    half-widths, squared and added (Zou and Donner 2008). Members: Clopper-Pearson. The threshold: the TPR at the k-th
    largest non-members with P(Binomial(n, rate) < k) and with P(Binomial(n, rate) >= k) at most 2.5 %, between which
    the threshold of that FPR lies in 95 % of attacks."""
    influence, scored = np.zeros(len(score)), ~np.isnan(score)
    point = tpr_at_fpr(score, member, rate, strict=strict)
    score, member = _scored_only(score, member)
    n_members, n, tpr = int(member.sum()), int((~member).sum()), float(point["tpr"])
    if np.isnan(tpr):
        return Estimate(tpr, tpr, np.nan, np.nan, influence)
    largest = np.concatenate([[np.inf], np.sort(score[~member])[::-1], [-np.inf]])  # the k-th largest at k
    first, last = (int(k) for k in binom.ppf([TAIL, 1 - TAIL], n, rate))
    lowest, highest = np.mean(score[member] > largest[first]), np.mean(score[member] >= largest[last + 1])
    k = int(rate * (n + 1))
    steps = [np.mean(score[member] > threshold) for threshold in largest[k : k + 2]]
    centre = float(np.interp(rate * (n + 1), [k, k + 1], steps))
    low, high = clopper_pearson(centre * n_members, n_members)
    below, beyond = np.hypot(centre - low, centre - lowest), np.hypot(high - centre, highest - centre)
    above, slope = score > point["threshold"], (highest - lowest) * n / (last + 1 - first)  # TPR per FPR
    influence[scored] = np.where(member, (above - tpr) / n_members, slope * (point["fpr"] - above) / n)
    return Estimate(tpr, centre, max(0.0, centre - float(below)), min(1.0, centre + float(beyond)), influence)


def most_shown(n_members: np.ndarray, n_nonmembers: np.ndarray, rate: float | None = None) -> float:
    """The low end of the interval of the accuracy, or of the TPR at an FPR of `rate`, over T targets if an attack made
    no error: the most that so many samples can show.

    n_members, n_nonmembers: int (T,). Models that do not vary and targets whose errors are independent: where they are
    not, less can be shown."""
    ends = []
    for n_in, n_out in zip(n_members, n_nonmembers, strict=True):
        member = np.arange(n_in + n_out) < n_in
        score = member.astype(np.float64)
        estimate = estimate_accuracy(score, member, 0.5) if rate is None else estimate_tpr(score, member, rate)
        ends.append(1.0 - estimate.low)
    return 1.0 - float(np.hypot.reduce(ends)) / len(ends)


def pooled_accuracy(n_correct: np.ndarray | int, n_guesses: np.ndarray | int) -> tuple[float, float, float]:
    """(accuracy, low, high) over several targets together: all guesses as one Clopper-Pearson sample.

    n_correct, n_guesses: int (T,), of each target. The test for leakage, not an interval of the accuracy, whose guesses
    share samples and models. Where the models reveal nothing, every guess is correct with probability 1/2, whatever the
    targets share: a low end above 0.5 shows leakage at the stated confidence."""
    n_correct, n_guesses = int(np.sum(n_correct)), int(np.sum(n_guesses))
    return (n_correct / n_guesses if n_guesses else np.nan, *clopper_pearson(n_correct, n_guesses))


def _scored_only(score: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(score, member) without the samples that are not scored. Raises InputError when the shapes differ."""
    score, member = np.asarray(score, dtype=np.float64), np.asarray(member, dtype=bool)
    if score.shape != member.shape or score.ndim != 1:
        raise InputError(f"score and member must have the same shape (N,), not {score.shape} and {member.shape}")
    scored = ~np.isnan(score)
    return score[scored], member[scored]
