"""Which shadows are held out together, so that the counts left reveal nothing of a membership."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from lira.attacks.design import MembershipDesign, partners
from lira.attacks.run import attack_targets, leave_one_out
from lira.attacks.statistics import Statistics
from tests.helpers.naive_attacks import ORACLES
from tests.helpers.shadows import OVER_ALL, equal_counts, halves, members, pairs, scores


def test_partners_are_complements_each_taken_once():
    member = pairs(np.random.default_rng(0), 4, 30)
    rows = np.stack([member[0], member[2], member[1], member[1], member[0] ^ member[2], member[3]])
    assert partners(rows).tolist() == [2, 5, 0, -1, -1, 1]


def test_pairs_are_found_by_their_members_not_by_their_position():
    phi, member = scores(3, n_shadows=8)
    order = np.array([0, 1, 3, 5, 7, 2, 4, 6, 8])  # partners far apart
    reference = {result.target: result.score for result in leave_one_out(phi, member, n_targets=1, attacks=["lira"])}
    for result in leave_one_out(phi[order], member[order], n_targets=1, attacks=["lira"]):
        np.testing.assert_allclose(result.score, reference[order[result.target]], rtol=1e-9)


def test_independent_draws_are_held_out_alone():
    member = halves(np.random.default_rng(0), 9, 40)
    design = MembershipDesign(member, 1, seed=0)
    assert design.pairs() == [(row,) for row in range(8)]
    assert design.held_out_with((3,), []) == [3]
    assert design.held_out_for_targets() == []


def test_a_target_paired_with_a_shadow_is_scored_without_it():
    phi, member = scores(8, n_shadows=8)
    member[0] = ~member[3]
    member[4] = halves(np.random.default_rng(9), 1, 50)  # the former partner of row 3 has none now
    result = attack_targets(phi, member, n_targets=1, attacks=["lira"])[0]
    others = [1, 2, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(result.score, ORACLES["lira"](phi[0], phi[others], member[others]), rtol=1e-9)


def test_balancing_shadows_leave_equal_counts_for_every_sample():
    """Without them the number of members among the other shadows would reveal the target's membership."""
    phi, member = scores(6, n_shadows=6, n_samples=300, design="equal")
    design = MembershipDesign(member, 1, seed=0)
    for shadow in range(6):
        statistics = Statistics.from_shadows(phi[1:], member[1:]).without(design.held_out_with((shadow,), []))
        assert (statistics.count[1] == 2).all()
        assert (statistics.count[0] == 2).all()
    # Equal over targets and shadows together: the target itself is balanced as well.
    member = equal_counts(np.random.default_rng(7), 8, 300)
    design = MembershipDesign(member, 1, seed=0)
    statistics = Statistics.from_shadows(phi[:7], member[1:]).without(design.held_out_for_targets())
    assert (statistics.count == 3).all()


@pytest.mark.parametrize("design", ["equal", "equal over all"])
def test_nested_balancing_shadows_leave_equal_counts_too(design):
    """A shadow that balances a target, or another shadow, needs no balancing shadow itself."""
    n_targets = 2
    phi, member = scores(9, n_targets=n_targets, n_shadows=10, n_samples=400, design=design)
    design = MembershipDesign(member, n_targets, seed=0)
    for_targets = design.held_out_for_targets()
    for first in range(10):
        outer = [*for_targets, *design.held_out_with((first,), for_targets)]
        statistics = Statistics.from_shadows(phi[n_targets:], member[n_targets:]).without(outer)
        assert (statistics.count[1] == statistics.count[0]).all()
        for second in {0, 1, 2} - {first}:
            nested = statistics.without(design.held_out_with((second,), outer))
            assert (nested.count[1] == nested.count[0]).all()


@pytest.mark.parametrize("design", ["equal", "equal but one sample", "equal less one", "equal less two"])
def test_the_counts_left_reveal_nothing_where_counts_are_nearly_equal(design):
    """Members and non-members are left with equally distributed numbers of members and of non-members."""
    phi, member = scores(10, n_shadows=11, n_samples=1000, design=design)
    found = MembershipDesign(member, 1, seed=0)
    statistics = Statistics.from_shadows(phi[1:], member[1:])
    for shadow, truth in enumerate(member[1:]):
        left = statistics.without(found.held_out_with((shadow,), [])).count
        alone = statistics.without([shadow]).count
        for side in (0, 1):
            assert ks_2samp(left[side, truth], left[side, ~truth]).statistic < 0.04  # half of it by chance
            assert ks_2samp(alone[side, truth], alone[side, ~truth]).statistic > 0.2
        assert np.median(left.sum(axis=0)) == len(member) - 3  # one balancing shadow for each sample


def test_the_counts_left_reveal_nothing_of_targets_either():
    phi, member = scores(11, n_targets=3, n_shadows=9, n_samples=1000, design="equal over all less one")
    statistics = Statistics.from_shadows(phi[3:], member[3:])
    left = statistics.without(MembershipDesign(member, 3, seed=0).held_out_for_targets()).count[1]
    for truth in member[:3]:
        assert ks_2samp(left[truth], left[~truth]).statistic < 0.05
        assert ks_2samp(statistics.count[1][truth], statistics.count[1][~truth]).statistic > 0.1


@pytest.mark.parametrize("design", ["pairs", "pairs less one", "halves", "coins"])
@pytest.mark.parametrize("n_samples", [30, 1000])
def test_where_counts_vary_as_independent_ones_nothing_is_balanced(design, n_samples):
    for seed in range(20):
        _, member = scores(seed, n_targets=2, n_shadows=11, n_samples=n_samples, design=design)
        found = MembershipDesign(member, 2, seed=0)
        assert found.independent
        assert found.held_out_for_targets() == []
        for pair in found.pairs():
            assert found.held_out_with(pair, []) == list(pair)


def test_targets_that_depend_on_other_models_are_found():
    generator = np.random.default_rng(12)
    shadows = equal_counts(generator, 12, 300)
    assert MembershipDesign(np.concatenate([halves(generator, 2, 300), shadows]), 2, seed=0).independent
    for design in OVER_ALL:
        assert not MembershipDesign(members(generator, 2, 12, 300, design), 2, seed=0).independent
    assert not MembershipDesign(np.concatenate([pairs(generator, 2, 300), shadows]), 2, seed=0).independent
    assert not MembershipDesign(np.concatenate([equal_counts(generator, 4, 300), shadows]), 4, seed=0).independent
