"""Whether scores of shadows that played the target tell anything: the AUC with an interval by sample."""

import numpy as np
from scipy.stats import norm, rankdata


def auc_by_sample(score, truth, confidence):
    """(AUC, low, high) over all shadows together. score: float64 (S, N), NaN left out; truth: bool (S, N).

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
    reach = norm.ppf(0.5 + confidence / 2) * np.sqrt(np.sum(influence**2))
    return area, area - reach, area + reach
