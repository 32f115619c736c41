"""Metrics of an attack: ROC, accuracy, AUC, TPR at low FPR, each with an interval.

score: float (N,), higher = more likely a member, NaN = not scored (left out of every metric and counted). member: bool
(N,), the truth. All intervals have 95 % confidence and take the shadows, which the targets share, as given: they cover
the sampling of target samples (accuracy, TPR, FPR: at a given threshold; AUC: over all thresholds), nothing else."""

import numpy as np
from scipy.special import betaincinv, ndtri
from scipy.stats import rankdata

from lira.errors import InputError

FALSE_POSITIVE_RATES = (0.01, 0.001, 0.0001)
CONFIDENCE = 0.95
TAIL = (1.0 - CONFIDENCE) / 2


def evaluate(score: np.ndarray, member: np.ndarray, *, threshold: float) -> dict[str, float | int | bool]:
    """Every metric of one attack on one target, by the columns of attack.csv; NaN where the samples do not define it.

    threshold: guess member where score >= threshold (from the shadows; NaN: no accuracy).

    accuracy: Clopper-Pearson. auc: DeLong on the logit scale. balanced_accuracy: at the best threshold in hindsight.
    tpr_at_fpr_X: the raw step of the ROC, Clopper-Pearson at its threshold; fpr_at_X: the FPR realized there and the
    Beta interval of that threshold's true FPR; resolvable_at_X: whether X is at least one non-member."""
    n_unscored = int(np.isnan(score).sum())
    score, member = _scored_only(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    n_guesses = 0 if np.isnan(threshold) else len(score)
    accuracy = pooled_accuracy(int(np.sum((score >= threshold) == member)), n_guesses)
    row = dict(zip(("accuracy", "accuracy_low", "accuracy_high"), accuracy, strict=True))
    row["threshold"] = float(threshold)
    row |= dict(zip(("auc", "auc_low", "auc_high"), auc_interval(score, member), strict=True))
    row["balanced_accuracy"] = np.nan
    if n_members and n_nonmembers:
        fpr, tpr, _ = roc(score, member)
        row["balanced_accuracy"] = float(np.max(0.5 * (tpr + 1.0 - fpr)))
    for rate in FALSE_POSITIVE_RATES:
        point = tpr_at_fpr(score, member, rate)
        for key, column in (("tpr", f"tpr_at_fpr_{rate:g}"), ("fpr", f"fpr_at_{rate:g}")):
            row |= {f"{column}{end}": point[f"{key}{end}"] for end in ("", "_low", "_high")}
        row[f"resolvable_at_{rate:g}"] = point["resolvable"]
    return row | {"n_members": n_members, "n_nonmembers": n_nonmembers, "n_unscored": n_unscored}


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


def auc(score: np.ndarray, member: np.ndarray) -> float:
    """Area under the ROC curve, ties counting one half; NaN without members or without non-members."""
    score, member = _scored_only(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    if not n_members or not n_nonmembers:
        return np.nan
    _, n_true_positives, n_false_positives = _roc_counts(score, member)
    # Twice the number of non-members below each distinct score, those equal to it counting one half.
    below = 2 * n_nonmembers - n_false_positives - np.concatenate([[0], n_false_positives[:-1]])
    return float(np.sum(np.diff(n_true_positives, prepend=0) * below) / (2 * n_members * n_nonmembers))


def auc_interval(score: np.ndarray, member: np.ndarray) -> tuple[float, float, float]:
    """(AUC, low, high): DeLong's variance (DeLong et al. 1988, by ranks as in Sun and Xu 2014), on the logit scale.

    The logit keeps the interval inside (0, 1) and its coverage near an AUC of 1. An AUC of exactly 0 or 1 has no
    variance: its open end is then that of k = 0 in min(members, non-members) trials."""
    score, member = _scored_only(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    if min(n_members, n_nonmembers) < 2:
        return auc(score, member), np.nan, np.nan
    ranks = rankdata(score)
    below = (ranks[member] - rankdata(score[member])) / n_nonmembers  # share of non-members below each member
    above = 1.0 - (ranks[~member] - rankdata(score[~member])) / n_members
    area = float(below.mean())
    error = np.sqrt(below.var(ddof=1) / n_members + above.var(ddof=1) / n_nonmembers)
    if area in (0.0, 1.0):
        low, high = clopper_pearson(0, min(n_members, n_nonmembers))
        return (0.0, low, high) if area == 0.0 else (1.0, 1.0 - high, 1.0 - low)
    logit, half_width = np.log(area / (1 - area)), ndtri(0.5 + CONFIDENCE / 2) * error / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(logit - half_width))), 1 / (1 + np.exp(-(logit + half_width)))
    return area, float(low), float(high)


def clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
    """(low, high): exact interval of a binomial probability (Clopper and Pearson 1934); NaN without trials."""
    if not trials:
        return np.nan, np.nan
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, TAIL))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - TAIL))
    return low, high


def tpr_at_fpr(score: np.ndarray, member: np.ndarray, rate: float) -> dict[str, float | bool]:
    """The raw step of the ROC at a false positive rate: the highest TPR with FPR <= rate, never interpolated.

    The threshold is the (k + 1)-th largest non-member with k = floor(rate * n). Only samples above it, never equal to
    it, are guessed members. Given the non-members, the number of members above it is binomial: Clopper-Pearson for the
    TPR. The threshold's true FPR is Beta(k + 1, n - k) distributed, k as realized; where several non-members tie at
    the threshold it tends to be lower, and the low end is that of Clopper-Pearson.

    Returns dict: tpr, tpr_low, tpr_high, fpr (realized), fpr_low, fpr_high, threshold (guess member where score >
    threshold), resolvable (rate >= 1 / n)."""
    score, member = _scored_only(score, member)
    members, nonmembers = score[member], np.sort(score[~member])[::-1]
    n = len(nonmembers)
    if not n or not len(members):
        names = ("tpr", "tpr_low", "tpr_high", "fpr", "fpr_low", "fpr_high", "threshold")
        return dict.fromkeys(names, np.nan) | {"resolvable": False}
    n_allowed = int(rate * n * (1 + 1e-12))  # 0.01 * 300 is 3, not 2.9999
    threshold = nonmembers[min(n_allowed, n - 1)]
    n_true_positives, n_false_positives = int((members > threshold).sum()), int((nonmembers > threshold).sum())
    low, high = clopper_pearson(n_true_positives, len(members))
    beta_low, beta_high = (float(betaincinv(n_false_positives + 1, n - n_false_positives, p)) for p in (TAIL, 1 - TAIL))
    tied = np.count_nonzero(nonmembers == threshold) > 1
    return {
        "tpr": n_true_positives / len(members),
        "tpr_low": low,
        "tpr_high": high,
        "fpr": n_false_positives / n,
        "fpr_low": clopper_pearson(n_false_positives, n)[0] if tied else beta_low,
        "fpr_high": beta_high,
        "threshold": float(threshold),
        "resolvable": n_allowed >= 1,
    }


def pooled_accuracy(n_correct: np.ndarray | int, n_guesses: np.ndarray | int) -> tuple[float, float, float]:
    """(accuracy, low, high) over several targets together: all guesses as one Clopper-Pearson sample.

    n_correct, n_guesses: int (T,), of each target. The interval takes the samples and shadows, which the targets share,
    as given. Where the models reveal nothing, every guess is correct with probability 1/2, whatever the targets share:
    a low end above 0.5 shows leakage at the stated confidence."""
    n_correct, n_guesses = int(np.sum(n_correct)), int(np.sum(n_guesses))
    return (n_correct / n_guesses if n_guesses else np.nan, *clopper_pearson(n_correct, n_guesses))


def _scored_only(score: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(score, member) without the samples that are not scored. Raises InputError when the shapes differ."""
    score, member = np.asarray(score, dtype=np.float64), np.asarray(member, dtype=bool)
    if score.shape != member.shape or score.ndim != 1:
        raise InputError(f"score and member must have the same shape (N,), not {score.shape} and {member.shape}")
    scored = ~np.isnan(score)
    return score[scored], member[scored]
