"""Simulated training that is exactly (epsilon, delta)-private for each sample, and its audit, whose bound is wrong if
it exceeds that epsilon."""

from dataclasses import dataclass

import numpy as np

from lira.privacy.audit import choose_guesses, count_guesses, count_held_out, epsilon_lower_bound

N_SHADOWS = 8


@dataclass(frozen=True)
class Mechanism:
    """Randomized response of this epsilon for each sample; with a delta, some are disclosed instead.

    together: disclosed at once, which divides n: 1, each sample with probability delta; i, random groups of i samples,
    each group with probability delta, which is the failure that Theorem 5.2 allows for. silent: the share of samples
    whose response is a fair coin."""

    epsilon: float
    delta: float = 0.0
    together: int = 1
    silent: float = 0.0

    def draw(self, rng, n, inclusion):
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
