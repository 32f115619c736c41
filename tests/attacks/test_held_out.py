"""Thresholds and held-out AUCs come from held-out shadows, never from the target."""

import numpy as np
import pytest
from scipy.stats import norm

from lira.attacks import held_out
from lira.attacks.metrics import auc, best_threshold
from lira.attacks.registry import CONVENTIONS
from lira.attacks.run import attack_targets, leave_one_out
from tests.helpers.leakage import null_aucs
from tests.helpers.naive_attacks import ORACLES
from tests.helpers.shadows import scores


@pytest.mark.parametrize(
    ("design", "n_shadows"),
    [
        *[("equal", 12), ("equal but one sample", 12), ("equal less one", 11), ("equal less two", 10)],
        *[("equal over all less one", 11), ("pairs less one", 11), ("halves", 12), ("coins", 12)],
    ],
)
def test_nearly_equal_counts_reveal_nothing(design, n_shadows):
    """A part of benchmarks/attacks_leakage.py. With one sample or model amiss lira had an AUC of .47 and z = -6."""
    for name, (area, distance) in null_aucs(design, n_shadows, 2000, seed=1, attacks=["lira", "ratio"]).items():
        assert abs(distance) < norm.isf(0.0005), f"{name}: AUC {area}, {distance:+.1f} standard errors"


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_the_threshold_comes_from_each_shadow_with_its_pair_held_out():
    phi, member = scores(2, n_shadows=6)
    result = attack_targets(phi, member, n_targets=1, attacks=["lira"])[0]
    expected = []
    for row in range(1, 7):
        others = [other for other in range(1, 7) if (other - 1) // 2 != (row - 1) // 2]
        expected.append(ORACLES["lira"](phi[row], phi[others], member[others]))
    assert result.threshold == pytest.approx(best_threshold(np.concatenate(expected), member[1:].ravel()))
    aucs = [auc(score, truth) for score, truth in zip(expected, member[1:], strict=True)]
    assert result.held_out_auc == pytest.approx(np.mean(aucs))


def test_the_target_membership_changes_nothing():
    phi, member = scores(4)
    inverted = member.copy()
    inverted[0] = ~inverted[0]
    results, others = (attack_targets(phi, rows, n_targets=1) for rows in (member, inverted))
    for result, other in zip(results, others, strict=True):
        np.testing.assert_array_equal(result.score, other.score)
        assert result.threshold == other.threshold


def test_of_many_shadows_an_even_spread_is_held_out():
    shadow_pairs = [(2 * k, 2 * k + 1) for k in range(100)]
    chosen = held_out._spread(shadow_pairs, 1000)
    assert len(chosen) == held_out.MAX_HELD_OUT_SHADOWS // 2
    assert (chosen[0], chosen[-1]) == (shadow_pairs[0], shadow_pairs[-1])
    assert len(held_out._spread(shadow_pairs, 10**6)) == 2  # at least four shadows
    assert held_out._spread(shadow_pairs[:3], 1000) == shadow_pairs[:3]
    assert held_out._spread([], 1000) == []


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_shadows_that_cannot_score_each_other_give_no_threshold(convention):
    """Of four shadows, one pair is scored as the target, and the other held out for the threshold: none is left."""
    for result in leave_one_out(*scores(3, n_shadows=4), n_targets=1, convention=convention):
        assert np.isfinite(result.score).all()
        assert np.isnan([result.threshold, result.held_out_auc]).all() == (result.attack != "loss")
