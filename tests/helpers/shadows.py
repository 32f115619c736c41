"""Random scores of targets and shadows, their members drawn by the designs that the attacks distinguish."""

import numpy as np

from lira.attacks.metrics import auc
from lira.attacks.run import attack_targets


def pairs(generator, n_models, n_samples):
    """Complementary pairs of random halves, bool (M, N)."""
    first = generator.permuted(np.tile(np.arange(n_samples) < n_samples // 2, (n_models // 2, 1)), axis=1)
    return np.stack([first, ~first], axis=1).reshape(-1, n_samples)


def halves(generator, n_models, n_samples):
    """Independent random halves."""
    return generator.permuted(np.tile(np.arange(n_samples) < n_samples // 2, (n_models, 1)), axis=1)


def equal_counts(generator, n_models, n_samples):
    """Every sample in exactly half of the models, no pairs."""
    return generator.permuted(np.tile(np.arange(n_models)[:, None] < n_models // 2, (1, n_samples)), axis=0)


def coins(generator, n_models, n_samples):
    """Every sample in every model with probability 1/2, independently."""
    return generator.random((n_models, n_samples)) < 0.5


def equal_but_one_sample(generator, n_models, n_samples):
    """Equal counts, but for sample 0, which is in one model more or less."""
    member = equal_counts(generator, n_models, n_samples)
    member[0, 0] = ~member[0, 0]
    return member


def equal_less_one(generator, n_models, n_samples):
    """Equal counts over an even number of models, of which one is lost: n_models of them, or one more."""
    return equal_counts(generator, n_models + 1 + (n_models + 1) % 2, n_samples)[:-1]


def equal_less_two(generator, n_models, n_samples):
    """Equal counts over two models more, which are lost."""
    return equal_counts(generator, n_models + 2, n_samples)[:-2]


def pairs_less_one(generator, n_models, n_samples):
    """Complementary pairs, of which one lost a model: n_models of them, or one more."""
    return pairs(generator, n_models + 1 + (n_models + 1) % 2, n_samples)[:-1]


DESIGNS = {
    "pairs": pairs,
    "pairs less one": pairs_less_one,
    "halves": halves,
    "coins": coins,
    "equal": equal_counts,
    "equal but one sample": equal_but_one_sample,
    "equal less one": equal_less_one,
    "equal less two": equal_less_two,
}
OVER_ALL = {"equal over all": equal_counts, "equal over all less one": equal_less_one}  # targets and shadows together


def members(generator, n_targets, n_shadows, n_samples, design):
    """bool (M, N). Targets draw independently, shadows by the design; one OVER_ALL includes the targets."""
    if design in OVER_ALL:
        return OVER_ALL[design](generator, n_targets + n_shadows, n_samples)
    targets = halves(generator, n_targets, n_samples)
    return np.concatenate([targets, DESIGNS[design](generator, n_shadows, n_samples)])


def scores(seed, *, n_targets=1, n_shadows=8, n_samples=50, n_queries=1, gap=1.0, design="pairs", kind="normal"):
    """(phi (M, N, A), member (M, N)). With a design that lost a model there may be one shadow more than n_shadows."""
    generator = np.random.default_rng(seed)
    member = members(generator, n_targets, n_shadows, n_samples, design)
    mean_out = generator.normal(2.0, 3.0, size=(n_samples, 1))
    phi = mean_out + gap * member[..., None] + generator.normal(size=(*member.shape, n_queries))
    return {"normal": phi, "ties": np.round(phi), "constant": np.full_like(phi, 0.3)}[kind], member


def mean_auc(phi, member, n_targets, attacks=None):
    """dict: attack -> mean AUC over the targets."""
    results = attack_targets(phi, member, n_targets=n_targets, attacks=attacks)
    areas = [(result.attack, auc(result.score, member[result.target])) for result in results]
    return {name: np.mean([area for attack, area in areas if attack == name]) for name, _ in areas}
