"""Simulated training that is exactly as private for each sample as is known, and its audit: a bound is wrong if it
exceeds the truth, and so is a test that rejects it.

Each mechanism has draw(), its own curve, and mu: it is mu-GDP for no smaller one; infinite if for none."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtri
from scipy.stats import norm

from lira.privacy import f_dp
from lira.privacy.audit import (
    CanaryScores,
    Mechanism,
    choose_guesses,
    count_guesses,
    count_held_out,
    epsilon_lower_bound,
)

N_SHADOWS = 8


@dataclass(frozen=True)
class RandomizedResponse:
    """Randomized response of this epsilon for each sample; with a delta, some are disclosed instead.

    together: disclosed at once, which divides n: 1, each sample with probability delta; i, random groups of i samples,
    each group with probability delta, which is the failure that Theorem 5.2 allows for. silent: the share of samples
    whose response is a fair coin."""

    epsilon: float
    delta: float = 0.0
    together: int = 1
    silent: float = 0.0

    @property
    def mu(self):
        return np.inf if self.delta else 2 * ndtri(expit(self.epsilon))

    @property
    def curve(self):
        """That of all (epsilon, delta)-private mechanisms: the lower envelope of its two lines and 0."""
        tpr = np.linspace(0, 1, 10_001)
        if self.epsilon:
            crossing = np.exp(self.epsilon) - 1 + self.delta * (1 - np.exp(-self.epsilon))
            tpr = np.append(tpr, crossing / (2 * np.sinh(self.epsilon)))
        tpr = np.unique(np.append(tpr, self.delta))
        lines = (tpr - self.delta) * np.exp(-self.epsilon), 1 - self.delta - (1 - tpr) * np.exp(self.epsilon)
        return f_dp.Curve(tpr, np.maximum(np.maximum(*lines), 0.0))

    def draw(self, rng, n, inclusion="coin"):
        """(score, member) of one model: the score is -2 or 2 if disclosed, from ±0.5 to ±1 if not, below if silent."""
        member = rng.random(n) < 0.5 if inclusion == "coin" else rng.permuted(np.arange(n) < n // 2)
        truthful = rng.random(n) < 1 / (1 + np.exp(-self.epsilon))
        score = np.where(truthful == member, 1.0, -1.0) * rng.uniform(0.5, 1, n)
        silent = rng.random(n) < self.silent
        score[silent] = rng.uniform(-0.5, 0.5, silent.sum())
        groups = rng.permutation(n).reshape(-1, self.together)
        disclosed = groups[rng.random(len(groups)) < self.delta].ravel()
        score[disclosed] = np.where(member[disclosed], 2.0, -2.0)
        return score, member


@dataclass(frozen=True)
class Gaussian:
    """One release of N(0, 1), or of N(mu, 1) for members."""

    mu: float

    @property
    def curve(self):
        x = np.append(np.linspace(40, -40, 20_001), -np.inf)
        return f_dp.Curve(np.append(0.0, norm.sf(x - self.mu)), np.append(0.0, norm.sf(x)))

    def draw(self, rng, n):
        member = rng.random(n) < 0.5
        return rng.normal(size=n) + self.mu * member, member


@dataclass(frozen=True)
class SubsampledGaussian:
    """Steps of N(0, sigma^2), or of N(1, sigma^2) if a member is sampled; the score is the log-likelihood ratio by the
    claimed mechanism. It is all that can be learned about a canary."""

    actual: Mechanism
    claimed: Mechanism | None = None

    @property
    def mu(self):
        return np.sqrt(self.actual.steps) / self.actual.sigma  # as without sampling, which its curve nears at FPR 0

    @property
    def curve(self):
        return f_dp.compose(self.actual)

    def draw(self, rng, n):
        claimed, member, score = self.claimed or self.actual, rng.random(n) < 0.5, np.zeros(n)
        q, variance = claimed.sample_rate, claimed.sigma**2
        for _ in range(self.actual.steps):
            x = self.actual.sigma * rng.normal(size=n) + (member & (rng.random(n) < self.actual.sample_rate))
            score += np.log1p(q * np.expm1((2 * x - 1) / (2 * variance)))
        return score, member

    def canaries(self, rng, n):
        return CanaryScores(*self.draw(rng, n))


def f_dp_audits(mechanism, n, *, audits, seed, k=None):
    """(mu, p) of so many audits of n samples: the bounds (audits,) and the p-values of the true curve (audits,).

    k: the number of guesses, by default the best for the bound."""
    rng, counts = np.random.default_rng(seed), {"": f_dp.expected_counts(mechanism.curve, n)}
    k = k or f_dp.choose_guesses(counts, n_audited=n)[1]
    draws = (mechanism.draw(rng, n) for _ in range(audits))
    n_correct = [count_guesses(*draw, n_high=k, n_low=0)[0] for draw in draws]
    unique, place = np.unique(n_correct, return_inverse=True)
    log_p = f_dp.log_p_value(unique, k, 0.0, n_audited=n, family=mechanism.curve.lowest_fpr)
    mu = np.array([f_dp.largest_mu(value, k, n_audited=n) for value in unique.tolist()])
    return mu[place], np.exp(log_p)[place]


def audit_bounds(mechanism, n, *, n_targets, inclusion, audits, choices, seed):
    """The bounds of so many audits of n samples and n_targets targets each, float64 (audits,).

    choices: how many times the guesses are chosen, each time on new shadows and for audits / choices audits."""
    rng, how = np.random.default_rng(seed), dict(n_audited=n, delta=mechanism.delta, inclusion=inclusion)
    bounds, known = [], {}
    for _ in range(choices):
        scores, truths = zip(*(mechanism.draw(rng, n, "half") for _ in range(N_SHADOWS)), strict=True)
        counts = {"attack": count_held_out(scores, truths)}
        _, n_high, n_low = choose_guesses(counts, n_targets=n_targets, **how)
        for _ in range(audits // choices):
            targets = [mechanism.draw(rng, n, inclusion) for _ in range(n_targets)]
            guesses = tuple(sorted(count_guesses(*target, n_high=n_high, n_low=n_low) for target in targets))
            if guesses not in known:
                known[guesses] = epsilon_lower_bound(*zip(*guesses, strict=True), **how)
            bounds.append(known[guesses])
    return np.array(bounds)
