"""The null case: AUCs and accuracies where phi is independent of membership, so that each must be 0.5."""

import numpy as np
from scipy.stats import norm, rankdata, t

from lira.attacks.run import attack_targets, leave_one_out
from tests.helpers.shadows import OVER_ALL, scores


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


def null_scores(design, n_shadows, n_samples, seed):
    """(phi, member, n_targets), phi without a gap; an even number of models where the design is over all of them."""
    n_targets = 2 if design in OVER_ALL else 1
    phi, member = scores(seed, n_targets=n_targets, n_shadows=n_shadows, n_samples=n_samples, gap=0.0, design=design)
    return phi, member, n_targets


def null_aucs(design, n_shadows, n_samples, *, seed, attacks=None):
    """dict: attack -> (AUC of leave_one_out, its distance from 0.5 in standard errors), phi without a gap.

    Attacks that can score no sample are left out."""
    phi, member, n_targets = null_scores(design, n_shadows, n_samples, seed)
    results = leave_one_out(phi, member, n_targets=n_targets, attacks=attacks)
    aucs = {name: leave_one_out_auc(results, member, name) for name in dict.fromkeys(r.attack for r in results)}
    return {name: (area, (area - 0.5) / error) for name, (area, error) in aucs.items() if not np.isnan(area)}


def leave_one_out_auc(results, member, name):
    """auc_by_sample() of one attack in the results of leave_one_out(); NaN where it scores no sample."""
    score, truth = zip(*((r.score, member[r.target]) for r in results if r.attack == name), strict=True)
    return (np.nan, np.nan) if np.isnan(score).all() else auc_by_sample(np.stack(score), np.stack(truth))


def accuracy(results, member, name):
    """Share of right guesses of one attack at its thresholds over all results; NaN where nothing is guessed."""
    chosen = [r for r in results if r.attack == name and not np.isnan(r.threshold)]
    right = [((r.score >= r.threshold) == member[r.target])[~np.isnan(r.score)] for r in chosen]
    return np.concatenate(right).mean() if chosen else np.nan


def null_figures(design, n_shadows, n_samples, *, seed, attacks=None, with_leave_one_out=True):
    """dict: (attack, figure) -> AUC or accuracy, phi without a gap; NaN where there is none.

    `learned` is not run with leave_one_out(): that scores shadows as for its held-out AUC, at many times the cost."""
    phi, member, n_targets = null_scores(design, n_shadows, n_samples, seed)
    results = attack_targets(phi, member, n_targets=n_targets, attacks=attacks)
    names = list(dict.fromkeys(result.attack for result in results))
    held_out_aucs = {result.attack: result.held_out_auc for result in results}  # the same for every target
    figures = {(name, "held-out AUC"): held_out_aucs[name] for name in names}
    figures |= {(name, "accuracy"): accuracy(results, member, name) for name in names}
    names = [name for name in names if name != "learned"]
    if with_leave_one_out and names:
        results = leave_one_out(phi, member, n_targets=n_targets, attacks=names)
        figures |= {(name, "leave-one-out AUC"): leave_one_out_auc(results, member, name)[0] for name in names}
        figures |= {(name, "leave-one-out accuracy"): accuracy(results, member, name) for name in names}
    return figures


def distance_from_half(values):
    """(mean, its distance from 0.5 as a normal deviate) of figures of several seeds, from their spread alone.

    A Student's t of few values has long tails: it becomes the normal deviate of the same probability."""
    values = np.asarray(values, dtype=np.float64)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    if abs(mean - 0.5) < 1e-12:
        return mean, 0.0
    if not error:
        return mean, np.sign(mean - 0.5) * np.inf
    distance = (mean - 0.5) / error
    return mean, -np.sign(distance) * norm.ppf(t.sf(abs(distance), len(values) - 1))
