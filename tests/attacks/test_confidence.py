"""rmia, ratio and loss against naive loops, and the parameters of rmia."""

import numpy as np
import pytest

from lira.attacks.run import attack_targets
from lira.errors import InputError
from tests.helpers.naive_attacks import CONFIDENCE_ORACLES
from tests.helpers.shadows import scores


@pytest.mark.parametrize("kind", ["normal", "ties", "constant"])
@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("name", CONFIDENCE_ORACLES)
def test_confidence_attack_equals_its_naive_loop(name, n_queries, kind):
    phi, member = scores(0, n_targets=2, n_queries=n_queries, kind=kind)
    for result in attack_targets(phi, member, n_targets=2, attacks=[name]):
        expected = CONFIDENCE_ORACLES[name](phi[result.target], phi[2:], member[2:])
        np.testing.assert_allclose(result.score, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "options"), [("rmia", {"gamma": 1.3}), ("rmia-offline", {"offline_a": 0.8})])
def test_rmia_uses_its_parameters(name, options):
    phi, member = scores(0)
    default = attack_targets(phi, member, n_targets=1, attacks=[name])[0].score
    score = attack_targets(phi, member, n_targets=1, attacks=[name], **options)[0].score
    expected = CONFIDENCE_ORACLES[name](phi[0], phi[1:], member[1:], **options)
    np.testing.assert_allclose(score, expected, rtol=1e-9)
    assert np.any(score != default)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "mine"}, "unknown convention 'mine'"),
        ({"gamma": 0.0}, "gamma must be above 0"),
        ({"offline_a": 1.5}, "offline_a from 0 to 1, not 2.0 and 1.5"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(InputError, match=message):
        attack_targets(*scores(16), n_targets=1, **options)
