"""The official convention against a naive restatement of the published script."""

import numpy as np
import pytest

from lira.attacks.run import attack_targets
from tests.helpers.naive_attacks import OFFICIAL_ORACLES, official
from tests.helpers.shadows import pairs, scores


@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("design", ["pairs", "halves"])
@pytest.mark.parametrize("name", OFFICIAL_ORACLES)
def test_official_convention_equals_its_naive_loop(name, n_queries, design):
    phi, member = scores(20, n_targets=2, n_shadows=12, n_queries=n_queries, design=design)
    member[2:6] = pairs(np.random.default_rng(0), 4, 50)  # every sample has both sides
    for result in attack_targets(phi, member, n_targets=2, attacks=[name], convention="official"):
        expected = official(phi[result.target], phi[2:], member[2:], OFFICIAL_ORACLES[name])
        np.testing.assert_allclose(result.score, expected, rtol=1e-9, atol=1e-9)


def test_official_convention_stays_finite_without_variance():
    phi, member = scores(21, kind="constant")
    phi[0, ::2] = 1e4
    for result in attack_targets(phi, member, n_targets=1, convention="official"):
        assert np.isfinite(result.score).all()


def test_samples_without_a_side_get_no_score_and_change_no_other():
    phi, member = scores(22)
    member[1:, 3], member[1:, 7] = True, False
    score = {r.attack: r.score for r in attack_targets(phi, member, n_targets=1, convention="official")}
    for name in OFFICIAL_ORACLES:
        assert np.flatnonzero(np.isnan(score[name])).tolist() == ([3] if "offline" in name else [3, 7])
    others = np.setdiff1d(np.arange(50), [3, 7])
    expected = official(phi[0, others], phi[1:, others], member[1:, others], OFFICIAL_ORACLES["lira"])
    np.testing.assert_allclose(score["lira"][others], expected, rtol=1e-9)
