"""learned: a classifier of (shadow, sample) pairs on the scores of the other attacks, trained on the shadows only.

Each shadow in turn is held out, with whatever else would reveal its membership. The scores of the other attacks and the
statistics of the remaining shadows are the features, its true membership the label. Two models of different kinds, a
logistic regression on piecewise-linear splines and gradient-boosted trees, and the sum of their log odds: the first is
accurate in the tails, the second where features interact. Deterministic for a seed.

The classifier of the targets is trained on all pairs. A held-out shadow, for thresholds, is scored by another, of which
neither examples nor statistics know its pair: whatever membership reveals then, it reveals of the target.

Letters: R models, N target samples, A queries, F features, n examples."""

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from lira.attacks.gaussian import VARIANCE_FLOOR
from lira.attacks.statistics import Statistics

# The attacks whose scores are features; the log of a density ratio has long tails, which asinh compresses.
FEATURE_ATTACKS = ("lira-bayes", "lira", "lira-pooled", "rmia", "ratio", "loss")
LONG_TAILED = ("lira", "lira-pooled")
MAX_EXAMPLES = 200_000  # examples trained on, drawn evenly over the shadows
MAX_NESTED_EXAMPLES = 30_000  # where a classifier scores one held-out pair
KNOTS = 8
BLOCK = 65536  # examples scored at a time

Classifier = Callable[[np.ndarray], np.ndarray]  # score(values (m, F)) -> float64 (m,)


def features(statistics: Statistics, phi: np.ndarray, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Features of every (model, sample) pair, float64 (R, N, F); NaN where a side is missing.

    phi: float64 (R, N, A). scores: (R, N) of each of the FEATURE_ATTACKS. Averaged over queries."""
    columns = [np.arcsinh(scores[name]) if name in LONG_TAILED else scores[name] for name in FEATURE_ATTACKS]
    midpoint = 0.5 * (statistics.mean_in + statistics.mean_out)
    dof = np.maximum((statistics.count - 1).sum(axis=0), 1)[:, None]
    variance = statistics.squared_residuals.sum(axis=0) / dof + VARIANCE_FLOOR
    ratio = (statistics.var_in + VARIANCE_FLOOR) / (statistics.var_out + VARIANCE_FLOOR)
    residual = phi - midpoint
    columns += [phi.mean(axis=-1), residual.mean(axis=-1), (residual / np.sqrt(variance)).mean(axis=-1)]
    for statistic in (midpoint, statistics.mean_in - statistics.mean_out, np.log(variance), np.log(ratio)):
        columns.append(np.broadcast_to(statistic.mean(axis=-1), columns[0].shape))
    return np.stack(columns, axis=-1)


class Examples:
    """Features and memberships of held-out shadows.

    n_shadows: how many will be added; each may add as many examples, drawn at random from the seed."""

    def __init__(self, n_shadows: int, seed: int):
        self.max_per_shadow = max(1, MAX_EXAMPLES // max(n_shadows, 1))
        self.generator = np.random.default_rng((seed, 2))
        self.values: list[np.ndarray] = []
        self.members: list[np.ndarray] = []

    def add(self, values: np.ndarray, member: np.ndarray) -> None:
        """values: float64 (n, F); member: bool (n,), of one shadow. Examples with a missing side are left out."""
        complete = np.flatnonzero(~np.isnan(values).any(axis=1))
        if len(complete) > self.max_per_shadow:
            complete = np.sort(self.generator.permutation(complete)[: self.max_per_shadow])
        self.values.append(values[complete])
        self.members.append(member[complete])

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(features (n, F), memberships (n,)) of all of them."""
        if not self.values:
            return np.empty((0, 0)), np.empty(0, dtype=bool)
        return np.concatenate(self.values), np.concatenate(self.members)


def train(values: np.ndarray, member: np.ndarray, *, seed: int) -> Classifier:
    """Fit both models. values: float64 (n, F), finite; member: bool (n,). Returns score(values (m, F)) -> float64 (m,).

    The score is the sum of two log odds, higher = member; NaN for rows with NaN, and everywhere unless there are
    members and non-members."""
    if len(np.unique(member)) < 2:
        return lambda values: np.full(len(values), np.nan)
    splines = _Splines(values)
    logistic = LogisticRegression(C=1.0, solver="newton-cholesky", max_iter=100).fit(splines(values), member)
    trees = HistGradientBoostingClassifier(
        max_iter=80,
        learning_rate=0.1,
        max_leaf_nodes=8,
        min_samples_leaf=200,
        l2_regularization=10.0,
        early_stopping=False,
        random_state=seed,
    ).fit(values, member)

    def score(values: np.ndarray) -> np.ndarray:
        result = np.full(len(values), np.nan)
        complete = np.flatnonzero(~np.isnan(values).any(axis=1))
        for start in range(0, len(complete), BLOCK):
            block = complete[start : start + BLOCK]
            rows = values[block]
            result[block] = logistic.decision_function(splines(rows)) + trees.decision_function(rows)
        return result

    return score


class _Splines:
    """Piecewise-linear splines of every feature: itself and hinges at its quantiles, so that tails stay linear.

    Ties among the quantiles, or constant features, are harmless: each knot counts once."""

    def __init__(self, values: np.ndarray):
        self.centre, self.scale = values.mean(axis=0), values.std(axis=0)
        self.scale[self.scale == 0] = 1.0
        quantiles = np.quantile((values - self.centre) / self.scale, np.linspace(0.02, 0.98, KNOTS), axis=0)
        self.knots = [np.unique(column) for column in quantiles.T]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        scaled = (values - self.centre) / self.scale
        hinges = [np.maximum(column[:, None] - knots, 0) for column, knots in zip(scaled.T, self.knots, strict=True)]
        return np.concatenate([scaled, *hinges], axis=1)
