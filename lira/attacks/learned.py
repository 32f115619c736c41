"""learned: a classifier of (shadow, sample) pairs on the scores of the other attacks, trained on the shadows only.

Each shadow in turn is held out, with whatever else would reveal its membership. The scores of the other attacks and the
statistics of the remaining shadows are the features, its true membership the label. Two models of different kinds, a
logistic regression on piecewise-linear splines and gradient-boosted trees, and the sum of their log odds: the first is
accurate in the tails, the second where features interact. Deterministic for a seed.

Letters: R models, N target samples, A queries, F features, n examples."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from lira.attacks.gaussian import VARIANCE_FLOOR
from lira.attacks.statistics import Statistics

# The attacks whose scores are features; the log of a density ratio has long tails, which asinh compresses.
FEATURE_ATTACKS = ("lira-bayes", "lira", "lira-pooled", "rmia", "ratio", "loss")
LONG_TAILED = ("lira", "lira-pooled")
MAX_EXAMPLES = 200_000  # examples trained on, drawn evenly over the shadows
KNOTS = 8
BLOCK = 65536  # examples scored at a time


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
    """Features and memberships of the held-out shadows, by groups of shadows that were held out together.

    max_per_shadow: examples used of each shadow, drawn at random from the seed."""

    def __init__(self, n_shadows: int, seed: int):
        self.max_per_shadow = max(1, MAX_EXAMPLES // max(n_shadows, 1))
        self.generator = np.random.default_rng((seed, 2))
        self.groups: list[list[tuple[np.ndarray, np.ndarray]]] = []

    def new_group(self) -> None:
        self.groups.append([])

    def add(self, values: np.ndarray, member: np.ndarray) -> None:
        """values: float64 (n, F); member: bool (n,). Pairs with a missing side are left out."""
        complete = np.flatnonzero(~np.isnan(values).any(axis=1))
        if len(complete) > self.max_per_shadow:
            complete = np.sort(self.generator.permutation(complete)[: self.max_per_shadow])
        self.groups[-1].append((values[complete], member[complete]))

    def of(self, groups: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """(features (n, F), memberships (n,)) of the groups with these numbers."""
        values, members = zip(*(example for group in groups for example in self.groups[group]), strict=True)
        return np.concatenate(values), np.concatenate(members)


def held_out_scores(examples: Examples, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(score, member) of each shadow, from models trained on the other half of the groups."""
    numbers = range(len(examples.groups))
    if len(numbers) < 2:
        return []
    result = []
    for half in (0, 1):
        score = train(*examples.of([number for number in numbers if number % 2 != half]), seed=seed)
        for number in numbers[half::2]:
            result += [(score(values), member) for values, member in examples.groups[number]]
    return result


def train(values: np.ndarray, member: np.ndarray, *, seed: int) -> Callable[[np.ndarray], np.ndarray]:
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
