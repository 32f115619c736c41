"""Whether scores of shadows that played the target tell anything where phi knows nothing of membership."""

import numpy as np
from scipy.stats import rankdata

from lira.attacks.run import leave_one_out
from tests.helpers.shadows import scores


def auc_by_sample(score, truth):
    """(AUC, standard error) over all shadows together. score: float64 (S, N), NaN left out; truth: bool (S, N).

    Shadows that played the target share the scores of their samples, so that only samples are independent:
    the variance is that of DeLong's placements summed by sample."""
    shadow, sample = np.nonzero(~np.isnan(score))
    values, inside = score[shadow, sample], truth[shadow, sample]
    members, others = inside.sum(), (~inside).sum()
    ranks = rankdata(values)
    placement = np.empty(len(values))
    placement[inside] = (ranks[inside] - rankdata(values[inside])) / others
    placement[~inside] = 1 - (ranks[~inside] - rankdata(values[~inside])) / members
    area = placement[inside].mean()
    weight = np.where(inside, 1 / members, 1 / others)
    influence = np.bincount(sample, (placement - area) * weight, minlength=score.shape[1])
    return area, np.sqrt(np.sum(influence**2))


def without_information(design, n_shadows, n_samples, *, seed, attacks=None):
    """dict of (AUC, standard errors that it lies from 0.5) of every attack with leave_one_out, phi without a gap.

    Attacks that can score no sample are left out."""
    n_targets = 2 if design == "equal over all" else 1  # an even number of models in all
    phi, member = scores(seed, n_targets=n_targets, n_shadows=n_shadows, n_samples=n_samples, gap=0.0, design=design)
    by_attack: dict = {}
    for scored in leave_one_out(phi, member, n_targets=n_targets, attacks=attacks):
        by_attack.setdefault(scored.attack, []).append(scored.score)
    result = {}
    for name, played in by_attack.items():
        if not np.isnan(played).all():
            area, error = auc_by_sample(np.stack(played), member[n_targets:])
            result[name] = (area, (area - 0.5) / error)
    return result
