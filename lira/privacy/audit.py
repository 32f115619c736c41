"""How private a model can be at most, from one attack on it: a lower bound on epsilon with a confidence.

Steinke, Nasr, Jagielski, "DPSGD Auditing with One (1) Training Run" (arXiv 2305.08846), Theorem 5.2. Each of the m
n_audited samples was put into the training set by a fair coin of its own. The attack n_guesses the coins of some of them,
r of m, abstains from the rest, and is n_correct v times. Were the training (epsilon, delta)-private for one sample more or
less, then P[at least v of r n_correct] could not exceed p(epsilon): the bound is where p reaches 1 - confidence.

Two cut-offs on an attack's score make the n_guesses: member where score >= threshold_high, non-member where score < threshold_low."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, gammaln, logit
from scipy.stats import binom

CONFIDENCE = 0.95
THRESHOLDS_PER_TAIL = 60


def p_value(epsilon, n_correct, n_guesses, *, n_audited, delta):
    """p(epsilon): the highest probability with which an (epsilon, delta)-private training lets `n_correct` or more of
    `n_guesses` be n_correct, of m = `n_audited` samples. Rises with epsilon as long as 2 m delta <= 1.

    p = P[B >= v] + 2 m delta max over i of P[v > B >= v - i] / i, B binomial (r, e^epsilon / (1 + e^epsilon))."""
    at_least = binom.sf(np.arange(n_correct, -1, -1) - 1, n_guesses, expit(epsilon))  # P[B >= v - i], i = 0, 1, … v
    if not n_correct or not delta:
        return float(at_least[0])
    alpha = np.max((at_least[1:] - at_least[0]) / np.arange(1, n_correct + 1))
    return float(at_least[0] + 2 * n_audited * delta * alpha)


def significance(n_audited, inclusion, confidence=CONFIDENCE):
    """The p below which an epsilon is refuted. inclusion: "coin", or "half" where exactly half of the samples (of an
    odd number the smaller half) were put in: conditioning independent coins on that, an event of probability
    C(m, m // 2) / 2^m, makes nothing likelier than by the inverse of that probability."""
    whole = 1.0 - confidence
    if inclusion == "coin":
        return whole
    half = n_audited // 2
    log_ways = gammaln(n_audited + 1) - gammaln(half + 1) - gammaln(n_audited - half + 1)
    return whole * float(np.exp(log_ways - n_audited * np.log(2.0)))


def epsilon_lower_bound(n_correct, n_guesses, *, n_audited, delta=0.0, inclusion="coin", confidence=CONFIDENCE):
    """The largest epsilon that the n_guesses refute at this confidence, or 0. inf is never returned.

    n_correct <= n_guesses <= n_audited: counts; delta: of the promise, 0 for pure epsilon. Without a promise nothing says
    which delta to allow, and 0 makes the plainest statement: no pure epsilon below the bound describes this training.
    Where 2 * n_audited * delta exceeds 1 the theorem's p need not rise with epsilon, and no more than 0 is claimed."""
    refuted = significance(n_audited, inclusion, confidence)
    highest = float(_pure_bound(n_correct, n_guesses, refuted))
    if highest <= 0 or 2 * n_audited * delta > 1:
        return 0.0
    if not delta:
        return highest

    def excess(epsilon):
        return p_value(epsilon, n_correct, n_guesses, n_audited=n_audited, delta=delta) - refuted

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, highest, xtol=1e-9)) if excess(highest) > 0 else highest


def _pure_bound(n_correct, n_guesses, refuted):
    """The epsilon with P[B >= n_correct] = refuted, of any sign: Clopper-Pearson's low end. Counts may be broken."""
    n_correct, n_guesses = np.asarray(n_correct, dtype=np.float64), np.asarray(n_guesses, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return logit(
            np.where(n_correct > 0, betaincinv(np.maximum(n_correct, 1e-9), n_guesses - n_correct + 1, refuted), 0.0)
        )


# --- which attack, which cut-offs: from the shadows alone ------------------------------------------------------------


@dataclass(frozen=True)
class HeldOutCounts:
    """Held-out scores of shadows that played the target, counted at candidate cut-offs.

    cuts: float64 (G,), rising, from -inf to inf; above: int64 (G, 2), non-members and members with score >= cut;
    players: how many shadows they come from."""

    cuts: np.ndarray
    above: np.ndarray
    players: int


def count_held_out(scores, truths):
    """A HeldOutCounts. scores, truths: of each player its scores (higher = member, NaN = not scored) and who is a member."""
    score, member = np.concatenate(scores), np.concatenate(truths)
    member, score = member[~np.isnan(score)], score[~np.isnan(score)]
    if not len(score):
        return HeldOutCounts(np.array([-np.inf, np.inf]), np.zeros((2, 2), dtype=np.int64), len(scores))
    tail = np.geomspace(1.0 / len(score), 0.5, THRESHOLDS_PER_TAIL)
    ranked = np.sort(score)
    at = np.unique(np.round(np.concatenate([tail, 1 - tail]) * (len(score) - 1)).astype(np.int64))
    cuts = np.unique(np.concatenate([[-np.inf], ranked[at], [np.inf]]))
    sides = [np.sort(score[~member]), np.sort(score[member])]
    above = np.stack([len(side) - np.searchsorted(side, cuts, side="left") for side in sides], axis=1)
    return HeldOutCounts(cuts, above, len(scores))


def choose_thresholds(tallies: Mapping[str, HeldOutCounts], *, n_audited, inclusion, confidence=CONFIDENCE):
    """(attack, threshold_low, threshold_high) with the largest pure bound on the shadows' held-out n_guesses, scaled to one target.

    The target's scores and truth are not looked at, so that choosing costs no validity."""
    refuted, best = significance(n_audited, inclusion, confidence), (-np.inf, None)
    for attack, one in tallies.items():
        low, high = np.triu_indices(len(one.cuts))
        below = one.above[0] - one.above  # (G, 2)
        n_correct = (one.above[high, 1] + below[low, 0]) / one.players
        wrong = (one.above[high, 0] + below[low, 1]) / one.players
        bounds = _pure_bound(n_correct, n_correct + wrong, refuted)
        pair = int(np.argmax(bounds))
        if best[1] is None or bounds[pair] > best[0]:
            best = bounds[pair], (attack, float(one.cuts[low[pair]]), float(one.cuts[high[pair]]))
    return best[1]


def count_guesses(score, member, *, threshold_low, threshold_high):
    """(n_correct, n_guesses) of one target. score: float64 (N,), NaN = abstain; member: bool (N,), the truth."""
    inside, outside = score >= threshold_high, score < threshold_low
    return int((inside & member).sum() + (outside & ~member).sum()), int(inside.sum() + outside.sum())
