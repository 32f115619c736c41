"""The official convention against a naive re-statement of the published script."""

import numpy as np
import pytest

from lira.attacks.run import attack_targets, leave_one_out
from tests.helpers.naive_attacks import OFFICIAL_ORACLES, official
from tests.helpers.shadows import pairs, scores


@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("design", ["pairs", "halves"])
@pytest.mark.parametrize("name", OFFICIAL_ORACLES)
def test_the_official_convention_equals_its_naive_loop(name, n_queries, design):
    phi, member = scores(20, n_targets=2, n_shadows=12, n_queries=n_queries, design=design)
    member[2:6] = pairs(np.random.default_rng(0), 4, 50)  # every sample has both sides
    result = attack_targets(phi, member, n_targets=2, attacks=[name], convention="official")
    for scored in result:
        expected = official(phi[scored.target], phi[2:], member[2:], OFFICIAL_ORACLES[name])
        np.testing.assert_allclose(scored.score, expected, rtol=1e-9, atol=1e-9)


def test_the_official_convention_stays_finite():
    phi, member = scores(21, kind="constant")
    phi[0, ::2] = 1e4
    for scored in attack_targets(phi, member, n_targets=1, convention="official"):
        assert np.isfinite(scored.score).all()


def test_samples_without_a_side_are_not_scored_and_change_nothing_for_the_others():
    phi, member = scores(22)
    member[1:, 3], member[1:, 7] = True, False
    result = {one.attack: one.score for one in attack_targets(phi, member, n_targets=1, convention="official")}
    for name in OFFICIAL_ORACLES:
        assert np.flatnonzero(np.isnan(result[name])).tolist() == ([3] if "offline" in name else [3, 7])
    rest = np.setdiff1d(np.arange(50), [3, 7])
    expected = official(phi[0, rest], phi[1:, rest], member[1:, rest], OFFICIAL_ORACLES["lira"])
    np.testing.assert_allclose(result["lira"][rest], expected, rtol=1e-9)


def test_leaving_one_out_of_four_leaves_no_threshold_but_scores():
    """One shadow a side scores; with another pair left out for the threshold there is none."""
    phi, member = scores(23, n_shadows=4)
    for scored in leave_one_out(phi, member, n_targets=1, convention="official"):
        assert np.isfinite(scored.score).all()
        assert np.isnan(scored.threshold) == (scored.attack not in ("loss",))
