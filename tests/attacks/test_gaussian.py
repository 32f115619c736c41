"""Every formula against its naive loop, its parameters, and what it does with missing sides and extreme scores."""

import numpy as np
import pytest

from lira.attacks.run import attack_targets
from lira.errors import InputError
from tests.helpers.naive_attacks import ORACLES, rmia, rmia_offline
from tests.helpers.shadows import scores


@pytest.mark.parametrize("kind", ["normal", "ties", "constant"])
@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("name", ORACLES)
def test_every_formula_equals_its_naive_loop(name, n_queries, kind):
    phi, member = scores(0, n_targets=2, n_queries=n_queries, kind=kind)
    for scored in attack_targets(phi, member, n_targets=2, attacks=[name]):
        expected = ORACLES[name](phi[scored.target], phi[2:], member[2:])
        np.testing.assert_allclose(scored.score, expected, rtol=1e-9, atol=1e-9)


def test_samples_short_of_a_side_are_not_scored_rather_than_guessed():
    phi, member = scores(10, n_shadows=8, design="halves")
    member[1:, 0] = True
    member[1:, 1] = False
    result = {scored.attack: scored.score for scored in attack_targets(phi, member, n_targets=1)}
    assert np.isnan(result["lira"][:2]).all()
    assert np.isfinite(result["lira"][2:]).all()
    assert np.isnan(result["rmia"][:2]).all()
    assert np.isnan(result["rmia-offline"][0])
    assert np.isfinite(result["rmia-offline"][1])
    assert np.isfinite(result["loss"]).all()


def test_everything_stays_finite_at_the_extremes():
    phi, member = scores(11, n_targets=2, n_shadows=8)
    phi[:, ::3] = np.where(member, 1e4, -1e4)[:, ::3, None]  # no variance at all
    phi[0, ::5] = -1e4
    phi[3, 1::3] = 1e4
    for scored in attack_targets(phi, member, n_targets=2):
        assert np.isfinite(scored.score).all(), scored.attack
        assert np.isfinite(scored.threshold), scored.attack


@pytest.mark.parametrize(("name", "oracle", "how"), [
    ("rmia", lambda *given: rmia(*given, gamma=1.3), {"gamma": 1.3}),
    ("rmia-offline", lambda *given: rmia_offline(*given, a=0.8), {"offline_a": 0.8}),
])  # fmt: skip
def test_the_parameters_of_rmia_are_used(name, oracle, how):
    phi, member = scores(0)
    plain, told = (attack_targets(phi, member, n_targets=1, attacks=[name], **given)[0].score for given in ({}, how))
    np.testing.assert_allclose(told, oracle(phi[0], phi[1:], member[1:]), rtol=1e-9)
    assert np.any(told != plain)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"convention": "mine"}, "unknown convention 'mine'"),
        ({"gamma": 0.0}, "gamma must be above 0"),
        ({"offline_a": 1.5}, "offline_a from 0 to 1, not 2.0 and 1.5"),
    ],
)
def test_options_that_make_no_sense_are_named(how, message):
    with pytest.raises(InputError, match=message):
        attack_targets(*scores(16), n_targets=1, **how)
