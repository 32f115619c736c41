"""Accounted epsilon and the noise multiplier for a target epsilon."""

import pytest
from opacus.accountants.utils import get_noise_multiplier

from lira.errors import InputError
from lira.privacy.accounting import epsilon, min_noise_multiplier


@pytest.mark.parametrize(("target", "rate", "steps"), [(3.0, 0.1, 60), (1.0, 0.01, 500)])
def test_noise_multiplier_equals_that_of_opacus(target, rate, steps):
    expected = get_noise_multiplier(
        target_epsilon=target,
        target_delta=1e-5,
        sample_rate=rate,
        steps=steps,
        accountant="prv",
        epsilon_tolerance=0.01,
    )
    assert min_noise_multiplier(target, "prv", rate, steps, 1e-5) == expected
    assert target - 0.01 <= epsilon("prv", ((expected, rate, steps),), 1e-5) <= target


@pytest.mark.parametrize(("sigma", "delta"), [(1e-200, 1e-5), (1e200, 1e-5)])
def test_extreme_noise_multiplier_is_rejected(sigma, delta):
    with pytest.raises(InputError, match="no epsilon can be computed for a noise multiplier"):
        epsilon("rdp", ((sigma, 0.25, 60),), delta)


def test_without_steps_epsilon_is_zero():
    assert epsilon("prv", (), 1e-5) == 0.0
