"""learned: a classifier of (shadow, sample) pairs on what the other attacks say, trained on the shadows only.

Each shadow in turn plays the target with what would give it away left out; the scores of the other attacks
and the shadows' statistics are the features, its true membership the label. Two models of different kinds,
a logistic regression on piecewise-linear splines and gradient-boosted trees, and the sum of their log odds:
the one is right in the tails, the other where features interact. Deterministic for a seed.

Letters: R models, N target samples, A queries, F features, n examples."""

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from lira.attacks.gaussian import VARIANCE_FLOOR

# The attacks whose scores are features; the log of a density ratio has long tails, asinh draws them in.
FEATURE_ATTACKS = ("lira-bayes", "lira", "lira-pooled", "rmia", "ratio", "loss")
LONG_TAILS = ("lira", "lira-pooled")
MAX_EXAMPLES = 200_000  # examples trained on, drawn evenly over the shadows
KNOTS = 8
BLOCK = 65536  # examples scored at a time


def features(statistics, phi, scores):
    """Features of every (model, sample) pair, float64 (R, N, F); NaN where a side is missing.

    phi: float64 (R, N, A). scores: dict of (R, N) with the FEATURE_ATTACKS. Averaged over queries."""
    columns = [np.arcsinh(scores[name]) if name in LONG_TAILS else scores[name] for name in FEATURE_ATTACKS]
    level = 0.5 * (statistics.mean_in + statistics.mean_out)
    freedom = np.maximum((statistics.count - 1).sum(axis=0), 1)[:, None]
    variance = statistics.squares.sum(axis=0) / freedom + VARIANCE_FLOOR
    ratio = (statistics.var_in + VARIANCE_FLOOR) / (statistics.var_out + VARIANCE_FLOOR)
    residual = phi - level
    columns += [phi.mean(axis=-1), residual.mean(axis=-1), (residual / np.sqrt(variance)).mean(axis=-1)]
    for known in (level, statistics.mean_in - statistics.mean_out, np.log(variance), np.log(ratio)):
        columns.append(np.broadcast_to(known.mean(axis=-1), columns[0].shape))
    return np.stack(columns, axis=-1)


class Examples:
    """What the shadows that played the target give to learn from: features and truths, a group of shadows
    at a time.

    most: examples kept of each shadow, drawn at random from the seed."""

    def __init__(self, n_players, seed):
        self.most = max(1, MAX_EXAMPLES // max(n_players, 1))
        self.generator = np.random.default_rng((seed, 2))
        self.groups: list[list[tuple[np.ndarray, np.ndarray]]] = []

    def new_group(self):
        self.groups.append([])

    def add(self, values, truth):
        """values: float64 (n, F); truth: bool (n,). Pairs with a missing side are left out."""
        known = np.flatnonzero(~np.isnan(values).any(axis=1))
        if len(known) > self.most:
            known = np.sort(self.generator.permutation(known)[: self.most])
        self.groups[-1].append((values[known], truth[known]))

    def of(self, groups):
        """(features (n, F), truths (n,)) of the groups with these numbers."""
        chosen = [example for group in groups for example in self.groups[group]]
        return np.concatenate([values for values, _ in chosen]), np.concatenate([truth for _, truth in chosen])


def held_out_scores(examples, seed):
    """list of (score, truth), one a shadow, each from a model trained on the other half of the groups."""
    numbers = range(len(examples.groups))
    if len(numbers) < 2:
        return []
    result = []
    for half in (0, 1):
        model = train(*examples.of([number for number in numbers if number % 2 != half]), seed=seed)
        for number in numbers[half::2]:
            result += [(model(values), truth) for values, truth in examples.groups[number]]
    return result


def train(values, truth, *, seed):
    """Fit both models. values: float64 (n, F), finite; truth: bool (n,). Returns score(values (m, F)) ->
    (m,).

    The score is the sum of two log odds; NaN for values that are NaN, and everywhere when only one truth
    occurs."""
    if len(np.unique(truth)) < 2:
        return lambda asked: np.full(len(asked), np.nan)
    splines = _Splines(values)
    logistic = LogisticRegression(C=1.0, solver="newton-cholesky", max_iter=100).fit(splines(values), truth)
    trees = HistGradientBoostingClassifier(
        max_iter=80,
        learning_rate=0.1,
        max_leaf_nodes=8,
        min_samples_leaf=200,
        l2_regularization=10.0,
        early_stopping=False,
        random_state=seed,
    ).fit(values, truth)

    def score(asked):
        result = np.full(len(asked), np.nan)
        known = np.flatnonzero(~np.isnan(asked).any(axis=1))
        for start in range(0, len(known), BLOCK):
            some = known[start : start + BLOCK]
            part = asked[some]
            result[some] = logistic.decision_function(splines(part)) + trees.decision_function(part)
        return result

    return score


class _Splines:
    """Piecewise-linear splines of every feature: itself and hinges at its quantiles, so that tails stay
    linear.

    Ties among the quantiles, constant features even, are harmless: each knot counts once."""

    def __init__(self, values):
        self.centre, self.scale = values.mean(axis=0), values.std(axis=0)
        self.scale[self.scale == 0] = 1.0
        quantiles = np.quantile((values - self.centre) / self.scale, np.linspace(0.02, 0.98, KNOTS), axis=0)
        self.knots = [np.unique(column) for column in quantiles.T]

    def __call__(self, values):
        scaled = (values - self.centre) / self.scale
        hinges = [np.maximum(column[:, None] - knots, 0) for column, knots in zip(scaled.T, self.knots, strict=True)]
        return np.concatenate([scaled, *hinges], axis=1)
