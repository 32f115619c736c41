"""The closed forms of LiRA against naive loops, with missing sides and at extreme scores."""

import numpy as np
import pytest

from lira.attacks.run import attack_targets
from tests.helpers.naive_attacks import GAUSSIAN_ORACLES
from tests.helpers.shadows import scores


@pytest.mark.parametrize("kind", ["normal", "ties", "constant"])
@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("name", GAUSSIAN_ORACLES)
def test_closed_form_equals_its_naive_loop(name, n_queries, kind):
    phi, member = scores(0, n_targets=2, n_queries=n_queries, kind=kind)
    for result in attack_targets(phi, member, n_targets=2, attacks=[name]):
        expected = GAUSSIAN_ORACLES[name](phi[result.target], phi[2:], member[2:])
        np.testing.assert_allclose(result.score, expected, rtol=1e-9, atol=1e-9)


def test_samples_without_a_side_get_no_score():
    phi, member = scores(10, n_shadows=8, design="halves")
    member[1:, 0] = True
    member[1:, 1] = False
    score = {result.attack: result.score for result in attack_targets(phi, member, n_targets=1)}
    for online in ("lira", "rmia"):
        assert np.isnan(score[online][:2]).all()
        assert np.isfinite(score[online][2:]).all()
    assert np.isnan(score["rmia-offline"][0])
    assert np.isfinite(score["rmia-offline"][1])
    assert np.isfinite(score["loss"]).all()


def test_all_attacks_stay_finite_at_extreme_scores():
    phi, member = scores(11, n_targets=2, n_shadows=8)
    phi[:, ::3] = np.where(member, 1e4, -1e4)[:, ::3, None]  # no variance at all
    phi[0, ::5] = -1e4
    phi[3, 1::3] = 1e4
    for result in attack_targets(phi, member, n_targets=2):
        assert np.isfinite(result.score).all(), result.attack
        assert np.isfinite(result.threshold), result.attack
