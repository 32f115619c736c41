"""The null case: the AUC of leave-one-out scores where phi is independent of membership."""

import numpy as np
from scipy.stats import rankdata

from lira.attacks.run import leave_one_out
from tests.helpers.shadows import scores


def auc_by_sample(score, member):
    """(AUC, standard error) over all shadows together. score: float64 (S, N), NaN left out; member: bool (S, N).

    The scores of one sample depend on the same shadows, so that only samples are independent: the variance is that of
    DeLong's placements summed by sample."""
    shadow, sample = np.nonzero(~np.isnan(score))
    values, inside = score[shadow, sample], member[shadow, sample]
    n_members, n_nonmembers = inside.sum(), (~inside).sum()
    ranks = rankdata(values)
    placement = np.empty(len(values))
    placement[inside] = (ranks[inside] - rankdata(values[inside])) / n_nonmembers
    placement[~inside] = 1 - (ranks[~inside] - rankdata(values[~inside])) / n_members
    area = placement[inside].mean()
    weight = np.where(inside, 1 / n_members, 1 / n_nonmembers)
    influence = np.bincount(sample, (placement - area) * weight, minlength=score.shape[1])
    return area, np.sqrt(np.sum(influence**2))


def null_aucs(design, n_shadows, n_samples, *, seed, attacks=None):
    """dict: attack -> (AUC of leave_one_out, its distance from 0.5 in standard errors), phi without a gap.

    Attacks that can score no sample are left out."""
    n_targets = 2 if design == "equal over all" else 1  # an even number of models in all
    phi, member = scores(seed, n_targets=n_targets, n_shadows=n_shadows, n_samples=n_samples, gap=0.0, design=design)
    by_attack: dict = {}
    for result in leave_one_out(phi, member, n_targets=n_targets, attacks=attacks):
        by_attack.setdefault(result.attack, []).append(result.score)
    result = {}
    for name, attack_scores in by_attack.items():
        if not np.isnan(attack_scores).all():
            area, error = auc_by_sample(np.stack(attack_scores), member[n_targets:])
            result[name] = (area, (area - 0.5) / error)
    return result
