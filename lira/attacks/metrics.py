"""How strong an attack was: ROC, accuracy, TPR at low FPR, precision, each with an interval that says what
it covers.

score: float (N,), higher = more likely a member, NaN = not scored (left out of every figure and counted).
member: bool (N,), the truth. All intervals take the shadows, which the targets share, as given: they cover
the sampling of target samples (accuracy, TPR, FPR: at a given threshold; AUC: over the threshold), nothing
else."""

import numpy as np
from scipy.special import betaincinv, ndtri
from scipy.stats import rankdata

from lira.errors import InputError

FALSE_POSITIVE_RATES = (0.01, 0.001, 0.0001)
PRIORS = (0.01, 0.1)


def evaluate(score, member, *, threshold, confidence=0.95):
    """Every figure of one attack on one target, as the columns of attack.csv.

    threshold: guess member where score >= threshold (from the shadows; NaN: no accuracy). Returns dict[str,
    float | int | bool]; a figure that the samples do not define is NaN.

    accuracy: Clopper-Pearson. auc: DeLong on the logit scale. balanced_accuracy: at the best threshold in
    hindsight. tpr_at_fpr_X: the raw step of the ROC, Clopper-Pearson at its threshold; fpr_at_X: the FPR
    realised there and the Beta interval of the FPR that this threshold really has; resolvable_at_X: whether
    X is at least one non-member. precision_at_prior_P: share of true members among the guesses at
    `threshold`, were P of all samples members."""
    score, member, unscored = _known(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    row = _at_threshold(score, member, threshold, confidence)
    row |= dict(zip(("auc", "auc_low", "auc_high"), auc_interval(score, member, confidence), strict=True))
    row["balanced_accuracy"] = _best_balanced_accuracy(score, member)
    for rate in FALSE_POSITIVE_RATES:
        row |= _columns(rate, tpr_at_fpr(score, member, rate, confidence))
    return row | {"n_members": n_members, "n_nonmembers": n_nonmembers, "n_unscored": unscored}


def _columns(rate, step):
    names = {
        "tpr": f"tpr_at_fpr_{rate:g}",
        "tpr_low": f"tpr_at_fpr_{rate:g}_low",
        "tpr_high": f"tpr_at_fpr_{rate:g}_high",
        "fpr": f"fpr_at_{rate:g}",
        "fpr_low": f"fpr_at_{rate:g}_low",
        "fpr_high": f"fpr_at_{rate:g}_high",
        "resolvable": f"resolvable_at_{rate:g}",
    }
    return {column: step[key] for key, column in names.items()}


def _at_threshold(score, member, threshold, confidence):
    """Accuracy with its interval, and precision, where member is guessed for score >= threshold."""
    if np.isnan(threshold) or not len(score):
        values = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"), np.nan)
        return values | {"threshold": threshold} | {f"precision_at_prior_{prior:g}": np.nan for prior in PRIORS}
    guess = score >= threshold
    right = int((guess == member).sum())
    low, high = clopper_pearson(right, len(score), confidence)
    row = {
        "accuracy": right / len(score),
        "accuracy_low": low,
        "accuracy_high": high,
        "threshold": float(threshold),
    }
    tpr, fpr = _share(guess[member]), _share(guess[~member])
    return row | {f"precision_at_prior_{prior:g}": precision_at_prior(tpr, fpr, prior) for prior in PRIORS}


def _share(flags):
    return float(flags.mean()) if len(flags) else np.nan


def precision_at_prior(tpr, fpr, prior):
    """Share of members among those guessed members, were `prior` of all samples members; NaN if none is
    guessed."""
    guessed = prior * tpr + (1.0 - prior) * fpr
    return prior * tpr / guessed if guessed > 0 else np.nan


def roc(score, member):
    """(fpr, tpr, thresholds), each float64 (P,), every distinct score a point: guess member where score >=
    threshold.

    Ties are one step. The first threshold is inf. Raises InputError unless there are members and
    non-members."""
    score, member, _ = _known(score, member)
    if not member.any() or member.all():
        raise InputError(
            f"a ROC curve needs members and non-members, but {int(member.sum())} of {len(member)} scored "
            f"samples are members: take more samples"
        )
    threshold, n_true_positives, n_false_positives = _steps(score, member)
    fpr, tpr = n_false_positives / (~member).sum(), n_true_positives / member.sum()
    return np.append(0.0, fpr), np.append(0.0, tpr), np.append(np.inf, threshold)


def best_threshold(score, member):
    """The most accurate cut: guess member where score >= threshold. Ties in score are cut as a group.

    Among equally accurate cuts the highest; inf where guessing no member is best; NaN where nothing is
    scored."""
    score, member, _ = _known(score, member)
    if not len(score):
        return np.nan
    value, right = _right_by_cut(score, member)
    return float(value[np.argmax(right)])


def _right_by_cut(score, member):
    """(cut, right guesses) for every distinct score from inf downwards, float64 (P,), int64 (P,)."""
    cut, found, wrong = _steps(score, member)
    return np.concatenate([[np.inf], cut]), np.concatenate([[0], found - wrong]) + int((~member).sum())


def _steps(score, member):
    """(cut, found, wrong) for every distinct score, the highest first: the members and non-members at or above
    it. float64 (P,), int64 (P,) each. Ties are one step, so that the order within them does not matter."""
    order = np.argsort(score)[::-1]
    score, found = score[order], np.cumsum(member[order])
    last = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)
    return score[last], found[last], last + 1 - found[last]


def _best_balanced_accuracy(score, member):
    if not member.any() or member.all():
        return np.nan
    fpr, tpr, _ = roc(score, member)
    return float(np.max(0.5 * (tpr + 1.0 - fpr)))


def auc(score, member):
    """Area under the ROC curve, ties counting one half; NaN without members or without non-members."""
    score, member, _ = _known(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    if not n_members or not n_nonmembers:
        return np.nan
    _, found, wrong = _steps(score, member)
    # Twice the non-members below each step, those on it counting one half.
    below = 2 * n_nonmembers - wrong - np.concatenate([[0], wrong[:-1]])
    return float(np.sum(np.diff(found, prepend=0) * below) / (2 * n_members * n_nonmembers))


def auc_interval(score, member, confidence=0.95):
    """(AUC, low, high): DeLong's variance (DeLong et al. 1988, by ranks as in Sun and Xu 2014), on the
    logit scale.

    The logit keeps the interval inside (0, 1) and its coverage near an AUC of 1. An AUC of exactly 0 or 1
    has no variance: its open end is then that of k = 0 in min(members, non-members) trials."""
    score, member, _ = _known(score, member)
    n_members, n_nonmembers = int(member.sum()), int((~member).sum())
    if min(n_members, n_nonmembers) < 2:
        return auc(score, member), np.nan, np.nan
    ranks = rankdata(score)
    below = (ranks[member] - rankdata(score[member])) / n_nonmembers  # share of non-members below each member
    above = 1.0 - (ranks[~member] - rankdata(score[~member])) / n_members
    area = float(below.mean())
    error = np.sqrt(below.var(ddof=1) / n_members + above.var(ddof=1) / n_nonmembers)
    if area in (0.0, 1.0):
        low, high = clopper_pearson(0, min(n_members, n_nonmembers), confidence)
        return (0.0, low, high) if area == 0.0 else (1.0, 1.0 - high, 1.0 - low)
    logit, reach = np.log(area / (1 - area)), ndtri(0.5 + confidence / 2) * error / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(logit - reach))), 1 / (1 + np.exp(-(logit + reach)))
    return area, float(low), float(high)


def clopper_pearson(successes, trials, confidence=0.95):
    """(low, high): exact interval of a binomial probability (Clopper and Pearson 1934); (NaN, NaN) without
    trials."""
    if not trials:
        return np.nan, np.nan
    tail = (1.0 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def tpr_at_fpr(score, member, rate, confidence=0.95):
    """The raw step of the ROC at a false positive rate: the most members found while FPR <= rate, never
    interpolated.

    The cut is the (k + 1)-th largest non-member with k = floor(rate * n): member is guessed above it, so
    ties with it are all left out. Given the non-members, the members above it are binomial: Clopper-Pearson
    for the TPR. The FPR that the cut really has is Beta(k + 1, n - k) distributed, k as realised; where several
    non-members tie at the cut it is less than that, and the low end is that of Clopper-Pearson.

    Returns dict: tpr, tpr_low, tpr_high, fpr (realised), fpr_low, fpr_high, cut (guess member where score >
    cut), resolvable (rate >= 1 / n)."""
    score, member, _ = _known(score, member)
    inside, outside = score[member], np.sort(score[~member])[::-1]
    trials = len(outside)
    if not trials or not len(inside):
        names = ("tpr", "tpr_low", "tpr_high", "fpr", "fpr_low", "fpr_high", "cut")
        return dict.fromkeys(names, np.nan) | {"resolvable": False}
    allowed = min(int(np.floor(rate * trials * (1 + 1e-12))), trials - 1)  # 0.01 * 300 is 3, not 2.9999
    cut = outside[allowed]
    found, wrong = int((inside > cut).sum()), int((outside > cut).sum())
    low, high = clopper_pearson(found, len(inside), confidence)
    tail = (1.0 - confidence) / 2
    tied = np.count_nonzero(outside == cut) > 1
    fpr_low = clopper_pearson(wrong, trials, confidence)[0] if tied else betaincinv(wrong + 1, trials - wrong, tail)
    return {
        "tpr": found / len(inside),
        "tpr_low": low,
        "tpr_high": high,
        "fpr": wrong / trials,
        "fpr_low": float(fpr_low),
        "fpr_high": float(betaincinv(wrong + 1, trials - wrong, 1 - tail)),
        "cut": float(cut),
        "resolvable": bool(rate * trials * (1 + 1e-12) >= 1),
    }


def pooled_accuracy(right, scored, confidence=0.95):
    """(accuracy, low, high) over several targets together: all guesses as one Clopper-Pearson sample.

    right, scored: int (T,), right guesses and scored samples of each target. The targets share their
    samples and shadows, and the interval takes both as given. Where the models give nothing away, every
    guess is a fair coin whatever the shared parts are: a low end above 0.5 is inputs of leakage at the
    stated confidence."""
    right, scored = int(np.sum(right)), int(np.sum(scored))
    return (right / scored if scored else np.nan, *clopper_pearson(right, scored, confidence))


def _known(score, member):
    """(score, member, count of NaN), NaN left out. Raises InputError when the shapes differ."""
    score, member = np.asarray(score, dtype=np.float64), np.asarray(member, dtype=bool)
    if score.shape != member.shape or score.ndim != 1:
        raise InputError(f"score and member must share one shape (N,), not {score.shape} and {member.shape}")
    missing = np.isnan(score)
    if not missing.any():
        return score, member, 0
    return score[~missing], member[~missing], int(missing.sum())
