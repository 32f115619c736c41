"""Simulated attacks whose truth is known: how often an interval misses it.

Two kinds: scores of one target from two normal distributions, where samples alone are random, and whole experiments of
closed-form models that are trained anew each time."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from lira.attacks.inputs import AttackOptions
from lira.attacks.metrics import between_models, clopper_pearson, estimate_auc, estimate_tpr, evaluate_targets
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets
from lira.attacks.statistics import Statistics, log_confidence
from lira.attacks.tables import attack_table, summary_table
from tests.helpers.shadows import members, pairs

RATES = (0.01, 0.001)
METRICS = ("accuracy", "auc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")


def true_auc(distance, rounding=None):
    """AUC of N(0, 1) against N(distance, 1), rounded to multiples of `rounding`; ties count one half."""
    if not rounding:
        return norm.cdf(distance / np.sqrt(2))
    grid = rounding * np.arange(-round(10 / rounding), round(10 / rounding) + 1)
    outside, inside = (norm.cdf(grid + rounding / 2 - d) - norm.cdf(grid - rounding / 2 - d) for d in (0.0, distance))
    return float(inside @ (np.cumsum(outside) - outside / 2))


def true_tpr(distance, rate, rounding=None):
    """The highest TPR with an FPR of at most `rate`, of the same scores."""
    if not rounding:
        return norm.sf(norm.isf(rate) - distance)
    thresholds = rounding * (np.arange(-round(10 / rounding), round(10 / rounding) + 1) + 0.5)
    return norm.sf(thresholds - distance)[norm.sf(thresholds) <= rate].max()


def misses(n_samples, distance, rounding, rates, *, attacks, seed):
    """dict: metric -> number of attacks whose interval over samples misses the truth."""
    generator = np.random.default_rng((seed, n_samples, round(1000 * distance)))
    member = np.arange(n_samples) < n_samples // 2
    truth = {"auc": true_auc(distance, rounding)}
    truth |= {f"tpr {rate:g}": true_tpr(distance, rate, rounding) for rate in rates}
    missed = dict.fromkeys(truth, 0)
    for _ in range(attacks):
        score = generator.normal(size=n_samples) + distance * member
        score = np.round(score / rounding) * rounding if rounding else score
        estimates = [estimate_auc(score, member), *(estimate_tpr(score, member, rate) for rate in rates)]
        for (name, value), estimate in zip(truth.items(), estimates, strict=True):
            missed[name] += not estimate.low <= value <= estimate.high
    return missed


@dataclass(frozen=True)
class Shifted:
    """Scores of members from N(d, 1), of non-members from N(0, 1), where d differs between models: N(distance,
    deviation). The means of all metrics over models are known. Three targets and n_pairs pairs of held-out shadows."""

    n_samples: int
    n_pairs: int
    distance: float
    deviation: float
    n_targets: int = 3

    def truth(self):
        """dict: metric -> its mean over models; the threshold is half the distance."""
        half, spread = self.distance / 2, np.sqrt(1 + self.deviation**2)
        truth = {"accuracy": (norm.cdf(half) + norm.cdf(half / spread)) / 2}
        truth["auc"] = norm.cdf(self.distance / np.sqrt(2 + self.deviation**2))
        rates = {f"tpr_at_fpr_{rate:g}": norm.cdf((self.distance - norm.isf(rate)) / spread) for rate in RATES}
        return truth | rates

    def _models(self, generator, n_models):
        """(scores (n_models, N), member (n_models, N)) of complementary pairs; an odd model has no partner."""
        member = pairs(generator, n_models + n_models % 2, self.n_samples)[:n_models]
        distance = generator.normal(self.distance, self.deviation, size=(n_models, 1))
        return generator.normal(size=member.shape) + distance * member, member

    def coverage(self, *, attacks, seed, samples_alone=False):
        """dict: "metric, targets" -> share of intervals that cover the mean over models.

        samples_alone: of those that take the models as given."""
        generator, threshold, n_shadows = np.random.default_rng(seed), self.distance / 2, 2 * self.n_pairs
        covered = {f"{metric}, {n}": 0.0 for metric in METRICS for n in (1, self.n_targets)}
        for _ in range(attacks):
            held_out, (scores, members) = self._models(generator, n_shadows), self._models(generator, self.n_targets)
            between = between_models(*held_out, threshold=threshold, pair_sizes=[2] * self.n_pairs, n_shadows=n_shadows)
            if samples_alone:
                between = replace(between, variance=dict.fromkeys(between.variance, 0.0))
            models = dict(thresholds=[threshold] * self.n_targets, between=[between] * self.n_targets)
            row = evaluate_targets(scores, members, **models)[0]
            for metric, value in self.truth().items():
                for n, prefix in ((1, ""), (self.n_targets, "mean_")):
                    low, high = row[f"{prefix}{metric}_low"], row[f"{prefix}{metric}_high"]
                    covered[f"{metric}, {n}"] += (low <= value <= high) / attacks
        return covered


@dataclass(frozen=True)
class Experiment:
    """An experiment that can be repeated: n_targets + n_shadows models and n_samples samples, all drawn anew each time.

    phi of a sample in a model is normal around the sample's mean plus the model's shift, and in members higher by the
    sample's gap times the model's overfitting. variation: how much shift and overfitting differ between models; with 1
    the AUC of lira-bayes deviates by 0.005 from one model to another with 10,000 samples, as in benchmarks/RESULTS.md
    that of the overfitted ConvNets does."""

    n_samples: int
    n_shadows: int
    n_targets: int = 4
    variation: float = 1.0

    def scores(self, seed):
        """(phi (M, N), member (M, N)) of one repetition."""
        generator = np.random.default_rng((*seed, self.n_samples, self.n_shadows))
        member = members(generator, self.n_targets, self.n_shadows, self.n_samples, "pairs")
        mean, log_gap, log_deviation = generator.normal(size=(3, self.n_samples))
        overfitting, shift = 0.02 * self.variation * generator.normal(size=(2, len(member), 1))
        gap, deviation = np.exp(0.8 * log_gap + overfitting), np.exp(0.3 * log_deviation - 0.2)
        noise = deviation * generator.normal(size=member.shape)
        return (2.0 + 2.5 * mean + 2 * shift + gap * member + noise).astype(np.float32), member

    def attack(self, seed, attacks):
        """attack.csv of one repetition."""
        phi, member = self.scores(seed)
        results = attack_targets(phi, member, n_targets=self.n_targets, attacks=attacks)
        return attack_table(results, member, [f"model_{row}" for row in range(len(member))])


def tprs_of_a_large_experiment(experiment, attacks, *, repetitions, seed, n_samples=40_000):
    """dict: (attack, metric) -> mean TPR at each of RATES, of as many samples as make its own error small.

    The k-th largest of n non-members has an FPR of k / (n + 1) on average."""
    tpr = {}
    for repetition in range(repetitions):
        phi, member = replace(experiment, n_samples=n_samples).scores((*seed, repetition))
        targets, statistics = (
            phi[: experiment.n_targets, :, None].astype(float),
            Statistics.from_shadows(phi[experiment.n_targets :], member[experiment.n_targets :]),
        )
        for attack in attacks:
            score = ATTACKS[attack].load("lira")(statistics, AttackOptions())(targets, log_confidence(targets))[..., 0]
            for values, inside in zip(score, member[: experiment.n_targets], strict=True):
                nonmembers = np.sort(values[~inside])[::-1]
                for rate in RATES:
                    above = values[inside] > nonmembers[round(rate * len(nonmembers)) - 1]
                    tpr.setdefault((attack, f"tpr_at_fpr_{rate:g}"), []).append(above.mean())
    return {key: float(np.mean(values)) for key, values in tpr.items()}


def coverage(experiment, attacks, tpr, *, repetitions, seed):
    """(coverage, width), each dict: (attack, "metric, targets") -> share of intervals that cover the truth, and their
    mean width over that of the normal interval from the deviation of the repetitions, which an attacker does not know.

    tpr: as tprs_of_a_large_experiment() returns it. The true accuracy and AUC are the means of the repetitions. Beside
    them "binomial" intervals: those of the guesses of all targets together, and of one TPR given its threshold."""
    tables = [experiment.attack((*seed, repetition), attacks) for repetition in range(repetitions)]
    covered, width = {}, {}
    for attack in attacks:
        rows = [table[table.attack == attack] for table in tables]
        firsts, means = pd.concat([of.iloc[:1] for of in rows]), pd.concat([summary_table(of) for of in rows])
        for metric in METRICS:
            truth = tpr.get((attack, metric), means[metric].mean())
            for n_targets, table in ((1, pd.concat(rows)), (experiment.n_targets, means)):
                low, high = table[f"{metric}_low"], table[f"{metric}_high"]
                key = (attack, f"{metric}, {n_targets}")
                covered[key] = ((low <= truth) & (truth <= high)).mean()
                deviation = (firsts if n_targets == 1 else means)[metric].std()
                width[key] = (high - low).mean() / (2 * norm.ppf(0.975) * deviation)
        guesses = experiment.n_samples * experiment.n_targets
        ends = [clopper_pearson(round(value * guesses), guesses) for value in means.accuracy]
        covered[attack, "accuracy, binomial"] = np.mean([low <= means.accuracy.mean() <= high for low, high in ends])
        for rate in RATES:
            metric, n_members = f"tpr_at_fpr_{rate:g}", experiment.n_samples // 2
            ends = [clopper_pearson(round(value * n_members), n_members) for value in pd.concat(rows)[metric]]
            covered[attack, f"{metric}, binomial"] = np.mean([low <= tpr[attack, metric] <= high for low, high in ends])
    return covered, width
