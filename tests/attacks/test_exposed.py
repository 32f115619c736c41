"""p_member, p-values and q-values: naive loops, a known posterior, and the false discovery rate of whole attacks."""

import numpy as np
import pandas as pd
import pytest

from lira.attacks import exposed
from lira.attacks.exposed import Calibration, at_prior, q_values, reliability_bins, share_identified
from lira.attacks.run import attack_targets, leave_one_out
from tests.helpers.intervals import Experiment
from tests.helpers.shadows import scores


def normal_scores(seed, n_members, n_nonmembers, distance=2.0):
    """(score, member, posterior at a prior of 1/2) of N(0, 1) and N(distance, 1)."""
    member = np.arange(n_members + n_nonmembers) < n_members
    score = np.random.default_rng(seed).normal(size=len(member)) + distance * member
    return score, member, 1 / (1 + np.exp(-distance * (score - distance / 2)))


def false_discovery_proportion(exposure, member, rate):
    identified = q_values(exposure.p_value) <= rate
    return np.sum(identified & ~member) / max(identified.sum(), 1)


# --- p-values and q-values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [9, 0])
def test_p_value_equals_a_loop(digits):
    score, member, _ = normal_scores(0, 30, 40)
    score[[3, 50]] = np.nan
    score = np.round(score, digits)  # 0: most are tied
    calibration = Calibration.fit(score, member)
    nonmembers = [value for value, inside in zip(score, member, strict=True) if not inside and not np.isnan(value)]
    for value, p_value in zip(score, calibration.p_value(score), strict=True):
        expected = (1 + sum(other >= value for other in nonmembers)) / (1 + len(nonmembers))
        assert p_value == expected or np.isnan([p_value, value]).all()


def test_q_values_identify_what_benjamini_and_hochberg_do():
    p_value = np.random.default_rng(1).random(40) ** 2
    p_value[[0, 1, 2, 3]] = p_value[4], p_value[5], np.nan, 1e-5
    q_value, scored = q_values(p_value), p_value[~np.isnan(p_value)]
    for rate in (0.01, 0.05, 0.1, 0.2, 0.5):
        ordered = sorted(scored)
        allowed = [p for k, p in enumerate(ordered, 1) if p <= rate * k / len(ordered)]
        np.testing.assert_array_equal(q_value <= rate, p_value <= max(allowed, default=-1))
    assert np.isnan(q_value[2])


def test_share_identified_at_a_smaller_prior_is_that_of_so_many_more_nonmembers():
    """Against q_values() of as many samples as the prior says, their non-members at the quantiles."""
    score, _, _ = normal_scores(2, 400, 0, distance=3.0)
    n = 400 * 99
    nonmembers = Calibration(np.sort(np.random.default_rng(3).normal(size=100_000)), np.zeros(1), np.zeros(1))
    of_members, of_others = nonmembers.p_value(score), (np.arange(n) + 0.5) / n
    identified = q_values(np.concatenate([of_members, of_others]))[:400] <= 0.1
    assert 0.02 < share_identified(of_members, 0.1, 0.01) == pytest.approx(identified.mean(), abs=0.01)
    assert share_identified(of_members, 0.1, 0.5) > share_identified(of_members, 0.1, 0.1) > identified.mean()
    assert share_identified(np.full(5, np.nan), 0.1, 0.5) == share_identified(np.empty(0), 0.1, 0.5) == 0


# --- p_member --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_members", [20_000, 2000])
def test_p_member_is_the_posterior_at_a_prior_of_a_half(n_members):
    """Whatever the share of members among the held-out scores."""
    score, _, expected = normal_scores(4, 1000, 1000)
    calibration = Calibration.fit(*normal_scores(5, n_members, 20_000)[:2])
    assert np.abs(calibration.p_member(score) - expected).mean() < 0.02


def test_p_member_rises_with_the_score_and_is_never_certain():
    score, member, _ = normal_scores(6, 300, 200, distance=4.0)
    p_member = Calibration.fit(score, member).p_member(np.array([-np.inf, *np.sort(score), np.inf, np.nan]))
    assert np.isnan(p_member[-1])
    assert (np.diff(p_member[:-1]) >= 0).all()
    n_above, n_below = np.sum(score > score[~member].max()), np.sum(score < score[member].min())
    assert p_member[-2] == pytest.approx((n_above / 300) / (n_above / 300 + 0.5 / 200))
    assert p_member[0] == pytest.approx((0.5 / 300) / (n_below / 200 + 0.5 / 300))


def test_one_member_above_all_others_is_no_more_certain_than_those_below():
    score, member = np.array([9.0, *np.linspace(1, 2, 100), *np.linspace(0, 1, 101)]), np.arange(202) < 101
    p_member = Calibration.fit(score, member).p_member(np.array([9.0, 1.5]))
    assert p_member[0] == p_member[1] > 0.99


def test_posterior_at_another_prior():
    assert at_prior(np.array([0.5, 0.9]), 0.5) == pytest.approx([0.5, 0.9])
    assert at_prior(np.array([0.0, 0.9, 1.0]), 0.1) == pytest.approx([0.0, 0.5, 1.0])


def test_reliability_bins_count_each_sample_once():
    p_member = np.array([0.0, 0.03, 0.5, 1.0, np.nan])
    bins = reliability_bins(p_member, np.array([False, True, True, True, False]))
    assert bins.n_samples.tolist() == [2, 1, 1]
    assert bins.p_member.tolist() == [0.015, 0.5, 1.0]
    assert bins.share.tolist() == [0.5, 1.0, 1.0]
    assert exposed.calibration_error(bins) == pytest.approx((2 * 0.485 + 0.5 + 0) / 4)


def test_the_reliability_of_a_shadow_comes_from_other_pairs():
    held_out, predicted = [normal_scores(seed, 50, 60)[:2] for seed in range(6)], []
    for shadow, (score, member) in enumerate(held_out):
        others = [held_out[other] for other in range(6) if other // 2 != shadow // 2]
        calibration = Calibration.fit(*map(np.concatenate, zip(*others, strict=True)))
        predicted.append((calibration.p_member(score), member))
    expected = reliability_bins(*map(np.concatenate, zip(*predicted, strict=True)))
    pd.testing.assert_frame_equal(exposed.reliability(held_out, [2] * 3), expected)


# --- whole attacks ---------------------------------------------------------------------------------------------------


def test_too_few_shadows_state_nothing_of_a_sample():
    """With 4 a held-out score has one value on a side: lira identified everybody where a share was estimated."""
    for n_shadows in (4, 6):
        results = attack_targets(*scores(0, n_shadows=n_shadows), n_targets=1, attacks=["lira", "loss"])
        assert [result.exposure is not None for result in results].count(True) == (n_shadows == 6)


@pytest.mark.parametrize("n_shadows", [8, 20])
def test_the_false_discovery_rate_holds_and_somebody_is_identified(n_shadows):
    """Every held-out shadow as the target; over more of them: benchmarks/exposed.py."""
    proportions, n_identified = [], 0
    for seed in range(3):
        phi, member = Experiment(1500, n_shadows, n_targets=1).scores((seed,))
        for result in leave_one_out(phi, member, n_targets=1, attacks=["lira-pooled"]):
            proportions.append(false_discovery_proportion(result.exposure, member[result.target], 0.1))
            n_identified += int((q_values(result.exposure.p_value) <= 0.1).sum())
    # Half of the samples are members: the rate is 0.05.
    assert np.mean(proportions) < 0.05 + 3 * np.std(proportions, ddof=1) / np.sqrt(len(proportions))
    assert n_identified > 30 * len(proportions)


def test_useless_scores_identify_somebody_as_rarely_as_the_rate_says():
    """Half of those identified are no members, so that it may happen in at most 10 % of the attacks. Samples do not
    differ, which is the worst case: otherwise the samples with the highest phi are compared with their own."""
    n_identified = []
    for seed in range(150):
        phi, member = scores(seed, n_shadows=20, n_samples=60, kind="constant")
        phi = np.random.default_rng((seed, 1)).normal(size=phi.shape)
        (result,) = attack_targets(phi, member, n_targets=1, attacks=["loss"])
        n_identified.append((q_values(result.exposure.p_value) <= 0.1).sum())
    assert 5 < np.count_nonzero(n_identified) < 15 + 3 * np.sqrt(150 * 0.1 * 0.9)


def test_a_sample_without_a_score_has_no_probability_and_no_p_value():
    phi, member = scores(1, n_shadows=6)
    member[1:, 0] = True  # no shadow is a non-member
    for result in attack_targets(phi, member, n_targets=1, attacks=["lira"]):
        assert np.isnan([result.score[0], result.exposure.p_member[0], result.exposure.p_value[0]]).all()
        assert np.isfinite(result.exposure.p_value[1:]).all()
