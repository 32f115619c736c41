"""Thresholds and strengths come from the shadows that played the target, never from the target."""

import numpy as np
import pytest

from lira.attacks import held_out
from lira.attacks.metrics import auc, best_threshold
from lira.attacks.run import attack_targets, leave_one_out
from tests.helpers.naive_attacks import ORACLES
from tests.helpers.shadows import scores


def test_threshold_comes_from_each_shadow_with_its_pair_held_out():
    phi, member = scores(2, n_shadows=6)
    scored = attack_targets(phi, member, n_targets=1, attacks=["lira"])[0]
    held_out = []
    for row in range(1, 7):
        rest = [other for other in range(1, 7) if (other - 1) // 2 != (row - 1) // 2]
        held_out.append(ORACLES["lira"](phi[row], phi[rest], member[rest]))
    assert scored.threshold == pytest.approx(best_threshold(np.concatenate(held_out), member[1:].ravel()))
    strength = np.mean([auc(score, truth) for score, truth in zip(held_out, member[1:], strict=True)])
    assert scored.held_out_auc == pytest.approx(strength)


def test_the_target_membership_changes_nothing():
    phi, member = scores(4)
    other = member.copy()
    other[0] = ~other[0]
    for one, two in zip(*(attack_targets(phi, m, n_targets=1) for m in (member, other)), strict=True):
        np.testing.assert_array_equal(one.score, two.score)
        assert one.threshold == two.threshold


def test_many_shadows_lend_a_spread_of_players():
    groups = [(2 * k, 2 * k + 1) for k in range(100)]
    chosen = held_out._spread(groups, 1000)
    assert len(chosen) == held_out.MAX_PLAYERS // 2
    assert (chosen[0], chosen[-1]) == (groups[0], groups[-1])
    assert len(held_out._spread(groups, 10**6)) == 2  # four shadows at least
    assert held_out._spread(groups[:3], 1000) == groups[:3]
    assert held_out._spread([], 1000) == []


def test_shadows_that_cannot_score_each_other_give_no_threshold():
    """Of four shadows the player's pair and, for the threshold, the other pair are out."""
    for scored in leave_one_out(*scores(3, n_shadows=4), n_targets=1, attacks=["lira", "loss"]):
        assert np.isfinite(scored.score).all()
        assert np.isnan([scored.threshold, scored.held_out_auc]).all() == (scored.attack == "lira")
