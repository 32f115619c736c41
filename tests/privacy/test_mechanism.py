"""The checks of the mechanism: against a naive loop, their coverage, and what they say of training that is broken."""

import numpy as np
import pytest

from lira.privacy.audit import Mechanism
from lira.privacy.dp_sgd import DPSGD
from lira.privacy.mechanism import MIN_CANARIES, SMALL, CanarySums, check_mechanisms, estimates
from tests.helpers import training
from tests.helpers.breakages import BREAKAGES, broken

CLAIMED = Mechanism(sigma=0.8, sample_rate=1 / 4, steps=20)


def simulate(rng, *, m=60, n_tensors=1, mechanism=CLAIMED):
    """(sums of correct training, x (steps, M), in_sample bool (steps, M))."""
    shape, per_epoch = (mechanism.steps, m), round(1 / mechanism.sample_rate)
    member = rng.random(m) < 0.5
    in_sample = (rng.random(shape) < mechanism.sample_rate) & member
    x = in_sample + mechanism.sigma * rng.standard_normal(shape)
    by_epoch = in_sample[: len(x) // per_epoch * per_epoch].reshape(-1, per_epoch, m).sum(axis=1)
    sums = CanarySums(
        n_steps=mechanism.steps,
        n_epochs=len(by_epoch),
        member=member,
        tensor=np.arange(m) * n_tensors // m,
        total=x.sum(axis=0),
        quiet_squares=np.where(in_sample, 0, x**2).sum(axis=0),
        n_in=in_sample.sum(axis=0),
        total_in=np.where(in_sample, x, 0).sum(axis=0),
        n_once=(by_epoch == 1).sum(axis=0),
    )
    return sums, x, in_sample


def test_estimates_equal_those_of_a_naive_loop():
    rng = np.random.default_rng(0)
    sums, x, in_sample = simulate(rng, n_tensors=2)
    found = {(check, scope): (value, n) for check, scope, value, n in estimates(sums, ["a", "b"])}
    assert {scope for _, scope in found} == {"all", "a", "b"}
    for scope, chosen in (("all", np.ones(60, bool)), ("a", sums.tensor == 0), ("b", sums.tensor == 1)):
        quiet = [x[t, i] for t, i in np.ndindex(x.shape) if chosen[i] and not in_sample[t, i]]
        inside = [x[t, i] for t, i in np.ndindex(x.shape) if chosen[i] and in_sample[t, i]]
        members = np.flatnonzero(chosen & sums.member)
        once = [in_sample[t : t + 4, i].sum() == 1 for i in members for t in range(0, 20, 4)]
        noise = x[:, chosen & ~sums.member].T  # one row per canary
        between = 20 * np.mean(noise.mean(axis=1) ** 2)
        within = np.mean([np.sum((row - row.mean()) ** 2) / 19 for row in noise])
        expected = {
            "noise scale": (np.sqrt(np.mean(np.square(quiet))), len(quiet)),
            "participation": (len(inside) / (20 * len(members)), 20 * len(members)),
            "weight": (np.mean(inside), len(inside)),
            "correlation": ((between - within) / (between + 19 * within), len(noise)),
            "once per epoch": (np.mean(once), len(once)),
        }
        for check, values in expected.items():
            np.testing.assert_allclose(found[check, scope], values, rtol=1e-10, err_msg=f"{check} {scope}")
    assert found["steps", "all"] == (20, 20)


def test_intervals_cover_what_is_claimed_as_often_as_they_say():
    """1,000 correct trainings, each check at 90 %: 10 % of them deviate, binomial ones at most as many."""
    rng, n, n_deviating = np.random.default_rng(1), 1000, {}
    for _ in range(n):
        found = [each for each in estimates(simulate(rng)[0], ["a"]) if each.scope == "all"]
        (outcomes,) = check_mechanisms([found], [CLAIMED], confidence=1 - 0.1 * len(found))
        for outcome in outcomes:
            n_deviating[outcome.check] = n_deviating.get(outcome.check, 0) + outcome.deviates
    assert n_deviating.pop("steps") == 0
    for check, count in n_deviating.items():
        exact = check in ("noise scale", "correlation", "weight")
        assert (0.07 if exact else 0.02) * n < count < 0.13 * n, (check, count)


def test_no_estimate_is_that_of_a_single_canary():
    """Neither by itself nor as the difference of two: with the weights it would undo the noise there."""
    rng = np.random.default_rng(2)
    sums = simulate(rng)[0]
    alone = CanarySums(**vars(sums) | {"tensor": np.where(np.arange(60) == 7, 1, 0)})
    found = {(check, scope): n for check, scope, _, n in estimates(alone, ["large", "scalar"])}
    assert {scope for _, scope in found} == {"all", "large"}
    assert found["correlation", "all"] == found["correlation", "large"]
    few = CanarySums(**vars(sums) | {"tensor": np.minimum(np.arange(60), 20)})  # 20 tensors of one canary
    found = estimates(few, [f"scalar {i}" for i in range(20)] + ["large"])
    assert {estimate.scope for estimate in found} == {"all", "large", SMALL}
    assert all(estimate.n >= MIN_CANARIES for estimate in found)


# --- training that is broken on purpose ----------------------------------------------------------------------------


def deviations(breakage, seed=0):
    """The outcomes that deviate after training a target on tiny images."""
    privacy = DPSGD(27, 8, 6, 0.8, None, 0.5, 1e-5, 64, noise_seed=seed, canaries=300)
    split = training.fixed_split()
    with broken(breakage):
        target = training.train(role="target", privacy=privacy, split=split, lr=0.1, lr_step=None, epochs=6)
    (outcomes,) = check_mechanisms([target.private.canaries.estimates()], [target.private.mechanism()])
    return [outcome for outcome in outcomes if outcome.deviates]


@pytest.mark.parametrize(("breakage", "check"), BREAKAGES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_broken_training_is_named(breakage, check):
    found = deviations(breakage)
    assert check in {outcome.check for outcome in found}
    if breakage.__name__ == "no_noise_in_one_layer":
        assert {outcome.scope for outcome in found} >= {"5.weight"}
        assert "0.weight" not in {outcome.scope for outcome in found}


def test_correct_training_is_not():
    assert deviations(None) == []


def test_an_accountant_that_misses_steps_is_named():
    sums = simulate(np.random.default_rng(3))[0]
    claimed = Mechanism(CLAIMED.sigma, CLAIMED.sample_rate, 19)
    (outcomes,) = check_mechanisms([estimates(sums, ["a"])], [claimed])
    assert [outcome.check for outcome in outcomes if outcome.deviates] == ["steps"]
