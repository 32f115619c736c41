"""How private a model can be at most, from one attack on it: a lower bound on epsilon with a confidence.

Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846), Theorem 5.2. Each of the m
audited samples was put into the training set by a fair coin of its own. The attack guesses the coins of some of them,
r of m, abstains from the rest, and is right v times. Were the training (epsilon, delta)-private for one sample more or
less, then P[at least v of r right] could not exceed p(epsilon): the bound is where p reaches 1 - confidence.

Two cut-offs on an attack's score make the guesses: member where score >= cut_high, non-member where score < cut_low."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, gammaln, logit
from scipy.stats import binom

CONFIDENCE = 0.95
CUTS_A_TAIL = 60


def chance(epsilon, right, guesses, *, audited, delta):
    """p(epsilon): the highest probability with which an (epsilon, delta)-private training lets `right` or more of
    `guesses` be right, of m = `audited` samples. Rises with epsilon as long as 2 m delta <= 1.

    p = P[B >= v] + 2 m delta max over i of P[v > B >= v - i] / i, B binomial (r, e^epsilon / (1 + e^epsilon))."""
    at_least = binom.sf(np.arange(right, -1, -1) - 1, guesses, expit(epsilon))  # P[B >= v - i], i = 0, 1, … v
    if not right or not delta:
        return float(at_least[0])
    alpha = np.max((at_least[1:] - at_least[0]) / np.arange(1, right + 1))
    return float(at_least[0] + 2 * audited * delta * alpha)


def level(audited, inclusion, confidence=CONFIDENCE):
    """The p below which an epsilon is refuted. inclusion: "coin", or "half" where exactly half of the samples (of an
    odd number the smaller half) were put in: conditioning independent coins on that, an event of probability
    C(m, m // 2) / 2^m, makes nothing likelier than by the inverse of that probability."""
    whole = 1.0 - confidence
    if inclusion == "coin":
        return whole
    half = audited // 2
    log_ways = gammaln(audited + 1) - gammaln(half + 1) - gammaln(audited - half + 1)
    return whole * float(np.exp(log_ways - audited * np.log(2.0)))


def epsilon_lower_bound(right, guesses, *, audited, delta=0.0, inclusion="coin", confidence=CONFIDENCE):
    """The largest epsilon that the guesses refute at this confidence, or 0. inf is never returned.

    right <= guesses <= audited: counts; delta: of the promise, 0 for pure epsilon. Without a promise nothing says
    which delta to allow, and 0 makes the plainest statement: no pure epsilon below the bound describes this training.
    Where 2 * audited * delta exceeds 1 the theorem's p need not rise with epsilon, and no more than 0 is claimed."""
    refuted = level(audited, inclusion, confidence)
    highest = float(_pure_bound(right, guesses, refuted))
    if highest <= 0 or 2 * audited * delta > 1:
        return 0.0
    if not delta:
        return highest

    def excess(epsilon):
        return chance(epsilon, right, guesses, audited=audited, delta=delta) - refuted

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, highest, xtol=1e-9)) if excess(highest) > 0 else highest


def _pure_bound(right, guesses, refuted):
    """The epsilon with P[B >= right] = refuted, of any sign: Clopper-Pearson's low end. Counts may be broken."""
    right, guesses = np.asarray(right, dtype=np.float64), np.asarray(guesses, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return logit(np.where(right > 0, betaincinv(np.maximum(right, 1e-9), guesses - right + 1, refuted), 0.0))


# --- which attack, which cut-offs: from the shadows alone ------------------------------------------------------------


@dataclass(frozen=True)
class Tally:
    """Left-out scores of shadows that played the target, counted at candidate cut-offs.

    cuts: float64 (G,), rising, from -inf to inf; above: int64 (G, 2), non-members and members with score >= cut;
    players: how many shadows they come from."""

    cuts: np.ndarray
    above: np.ndarray
    players: int


def tally(scores, truths):
    """A Tally. scores, truths: of each player its scores (higher = member, NaN = not scored) and who is a member."""
    score, member = np.concatenate(scores), np.concatenate(truths)
    member, score = member[~np.isnan(score)], score[~np.isnan(score)]
    if not len(score):
        return Tally(np.array([-np.inf, np.inf]), np.zeros((2, 2), dtype=np.int64), len(scores))
    tail = np.geomspace(1.0 / len(score), 0.5, CUTS_A_TAIL)
    ranked = np.sort(score)
    at = np.unique(np.round(np.concatenate([tail, 1 - tail]) * (len(score) - 1)).astype(np.int64))
    cuts = np.unique(np.concatenate([[-np.inf], ranked[at], [np.inf]]))
    sides = [np.sort(score[~member]), np.sort(score[member])]
    above = np.stack([len(side) - np.searchsorted(side, cuts, side="left") for side in sides], axis=1)
    return Tally(cuts, above, len(scores))


def choose_cuts(tallies: Mapping[str, Tally], *, audited, inclusion, confidence=CONFIDENCE):
    """(attack, cut_low, cut_high) with the largest pure bound on the shadows' left-out guesses, scaled to one target.

    The target's scores and truth are not looked at, so that choosing costs no validity."""
    refuted, best = level(audited, inclusion, confidence), (-np.inf, None)
    for attack, one in tallies.items():
        low, high = np.triu_indices(len(one.cuts))
        below = one.above[0] - one.above  # (G, 2)
        right = (one.above[high, 1] + below[low, 0]) / one.players
        wrong = (one.above[high, 0] + below[low, 1]) / one.players
        bounds = _pure_bound(right, right + wrong, refuted)
        pair = int(np.argmax(bounds))
        if best[1] is None or bounds[pair] > best[0]:
            best = bounds[pair], (attack, float(one.cuts[low[pair]]), float(one.cuts[high[pair]]))
    return best[1]


def count_guesses(score, member, *, cut_low, cut_high):
    """(right, guesses) of one target. score: float64 (N,), NaN = abstain; member: bool (N,), the truth."""
    inside, outside = score >= cut_high, score < cut_low
    return int((inside & member).sum() + (outside & ~member).sum()), int(inside.sum() + outside.sum())
