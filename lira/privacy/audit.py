"""A lower bound on the epsilon of a model's training, from one attack on it.

Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846), Theorem 5.2. Each of m
audited samples is in the training set with probability 1/2, independently: Bernoulli inclusion. The attack guesses the
inclusion of r of them, abstains from the others, and v guesses are correct. If training were (epsilon, delta)-private
for the addition or removal of one sample, P[at least v of r correct] could not exceed p(epsilon): the bound is the
epsilon at which this p-value reaches 1 - confidence.

Two thresholds on the score make the guesses: member if score >= threshold_high, non-member if score < threshold_low."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, gammaln, logit
from scipy.stats import binom

CONFIDENCE = 0.95
THRESHOLDS_PER_TAIL = 60


def p_value(epsilon: float, n_correct: int, n_guesses: int, *, n_audited: int, delta: float) -> float:
    """The highest probability that at least n_correct of n_guesses are correct under (epsilon, delta)-private training.

    With m = n_audited, v = n_correct, r = n_guesses and B binomial (r, e^epsilon / (1 + e^epsilon)):
    p = P[B >= v] + 2 m delta max over i of P[v > B >= v - i] / i. Rises with epsilon if 2 m delta <= 1."""
    at_least = binom.sf(np.arange(n_correct, -1, -1) - 1, n_guesses, expit(epsilon))  # P[B >= v - i], i = 0, 1, … v
    if not n_correct or not delta:
        return float(at_least[0])
    alpha = np.max((at_least[1:] - at_least[0]) / np.arange(1, n_correct + 1))
    return float(at_least[0] + 2 * n_audited * delta * alpha)


def significance(n_audited: int, inclusion: str, confidence: float = CONFIDENCE) -> float:
    """The p-value below which an epsilon is rejected. inclusion: "coin", or "half" where exactly half of the samples
    (n_audited // 2) are members: to condition independent inclusion on that event, whose probability is
    C(m, m // 2) / 2^m, raises the probability of any outcome at most by the factor 2^m / C(m, m // 2)."""
    if inclusion == "coin":
        return 1.0 - confidence
    half = n_audited // 2
    log_ways = gammaln(n_audited + 1) - gammaln(half + 1) - gammaln(n_audited - half + 1)
    return (1.0 - confidence) * float(np.exp(log_ways - n_audited * np.log(2.0)))


def epsilon_lower_bound(
    n_correct: int, n_guesses: int, *, n_audited: int, delta: float, inclusion: str, confidence: float = CONFIDENCE
) -> float:
    """The largest epsilon that the guesses reject at this confidence, or 0; always finite.

    n_correct <= n_guesses <= n_audited; delta: of the guarantee, 0 without one: then no pure epsilon below the bound
    describes this training. 0 also where 2 n_audited delta > 1, since the p-value need not rise with epsilon there."""
    p_limit = significance(n_audited, inclusion, confidence)
    pure = float(_pure_bound(n_correct, n_guesses, p_limit))
    if pure <= 0 or 2 * n_audited * delta > 1:
        return 0.0
    if not delta:
        return pure

    def excess(epsilon: float) -> float:
        return p_value(epsilon, n_correct, n_guesses, n_audited=n_audited, delta=delta) - p_limit

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0.0, pure, xtol=1e-9)) if excess(pure) > 0 else pure


def _pure_bound(n_correct: np.ndarray | int, n_guesses: np.ndarray | int, p_limit: float) -> np.ndarray:
    """The epsilon (delta = 0), possibly negative, with P[B >= n_correct] = p_limit: from the lower limit of Clopper and
    Pearson. The counts may be fractions."""
    n_correct, n_guesses = np.asarray(n_correct, dtype=np.float64), np.asarray(n_guesses, dtype=np.float64)
    with np.errstate(divide="ignore"):
        low = betaincinv(np.maximum(n_correct, 1e-9), n_guesses - n_correct + 1, p_limit)
        return logit(np.where(n_correct > 0, low, 0.0))


@dataclass(frozen=True)
class HeldOutCounts:
    """Scores of held-out shadows, counted at candidate thresholds.

    thresholds: float64 (G,), rising, from -inf to inf; above: int64 (G, 2), non-members and members with score >=
    threshold; n_shadows: how many the scores come from."""

    thresholds: np.ndarray
    above: np.ndarray
    n_shadows: int


def count_held_out(scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> HeldOutCounts:
    """scores: per held-out shadow, float64 (n,), higher = member, NaN = not scored. truths: bool (n,), its members."""
    score, member = np.concatenate(scores), np.concatenate(truths)
    member, score = member[~np.isnan(score)], score[~np.isnan(score)]
    if not len(score):
        return HeldOutCounts(np.array([-np.inf, np.inf]), np.zeros((2, 2), dtype=np.int64), len(scores))
    tail = np.geomspace(1.0 / len(score), 0.5, THRESHOLDS_PER_TAIL)
    ranks = np.unique(np.round(np.concatenate([tail, 1 - tail]) * (len(score) - 1)).astype(np.int64))
    thresholds = np.unique(np.concatenate([[-np.inf], np.sort(score)[ranks], [np.inf]]))
    sides = [np.sort(score[~member]), np.sort(score[member])]
    above = np.stack([len(side) - np.searchsorted(side, thresholds, side="left") for side in sides], axis=1)
    return HeldOutCounts(thresholds, above, len(scores))


def choose_thresholds(
    counts: Mapping[str, HeldOutCounts], *, n_audited: int, inclusion: str
) -> tuple[str, float, float]:
    """(attack, threshold_low, threshold_high) with the largest pure bound on the held-out guesses per shadow.

    counts: by attack, at least one. The target's scores and membership are not used, so the bound stays valid."""
    p_limit = significance(n_audited, inclusion)
    choices = []
    for attack, held_out in counts.items():
        thresholds, above = held_out.thresholds, held_out.above
        low, high = np.triu_indices(len(thresholds))
        below = above[0] - above  # (G, 2)
        n_correct = (above[high, 1] + below[low, 0]) / held_out.n_shadows
        n_wrong = (above[high, 0] + below[low, 1]) / held_out.n_shadows
        bounds = _pure_bound(n_correct, n_correct + n_wrong, p_limit)
        best = int(np.argmax(bounds))
        choices.append((float(bounds[best]), attack, float(thresholds[low[best]]), float(thresholds[high[best]])))
    _, attack, threshold_low, threshold_high = max(choices, key=lambda choice: choice[0])
    return attack, threshold_low, threshold_high


def count_guesses(
    score: np.ndarray, member: np.ndarray, *, threshold_low: float, threshold_high: float
) -> tuple[int, int]:
    """(n_correct, n_guesses) of one target. score: float64 (N,), NaN = abstain; member: bool (N,), the truth."""
    guessed_in, guessed_out = score >= threshold_high, score < threshold_low
    n_correct = int((guessed_in & member).sum() + (guessed_out & ~member).sum())
    return n_correct, int(guessed_in.sum() + guessed_out.sum())
