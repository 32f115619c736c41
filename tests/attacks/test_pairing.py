"""Who steps aside for whom, so that the count of members left says nothing."""

import numpy as np
import pytest

from lira.attacks.held_out import MembershipDesign, partners
from lira.attacks.run import attack_targets, leave_one_out
from lira.attacks.statistics import Statistics
from tests.helpers.naive_attacks import ORACLES
from tests.helpers.shadows import equal_counts, halves, pairs, scores


def test_pairs_are_found_by_their_rows_not_by_their_place():
    phi, member = scores(3, n_shadows=8)
    order = np.array([0, 1, 3, 5, 7, 2, 4, 6, 8])  # partners far apart
    plain = leave_one_out(phi, member, n_targets=1, attacks=["lira"])
    moved = leave_one_out(phi[order], member[order], n_targets=1, attacks=["lira"])
    for scored in moved:
        same = next(one for one in plain if one.target == order[scored.target])
        np.testing.assert_allclose(scored.score, same.score, rtol=1e-9)


def test_a_random_opposite_keeps_the_counts_silent():
    """Without it the sample's count of members left would be the target's membership."""
    phi, member = scores(6, n_shadows=6, n_samples=300, design="equal")
    design = MembershipDesign(member, 1)
    for row in range(6):
        statistics = Statistics.from_shadows(phi[1:], member[1:]).without(design.aside((row,)))
        assert (statistics.n_in == 2).all()
        assert (statistics.n_out == 2).all()
    # Equal over targets and shadows together: the target itself needs the same care.
    everyone = equal_counts(np.random.default_rng(7), 8, 300)
    design = MembershipDesign(everyone, 1)
    statistics = Statistics.from_shadows(phi[:7], everyone[1:]).without(design.aside_for_targets())
    assert (statistics.count == 3).all()


def test_a_target_paired_with_a_shadow_is_scored_without_it():
    phi, member = scores(8, n_shadows=8)
    member[0] = ~member[3]
    member[4] = halves(np.random.default_rng(9), 1, 50)  # the former partner of row 3 has none now
    scored = attack_targets(phi, member, n_targets=1, attacks=["lira"])[0]
    rest = [1, 2, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(scored.score, ORACLES["lira"](phi[0], phi[rest], member[rest]), rtol=1e-9)


def test_partners_are_complements_each_taken_once():
    member = pairs(np.random.default_rng(0), 4, 30)
    rows = np.stack([member[0], member[2], member[1], member[1], member[0] ^ member[2], member[3]])
    assert partners(rows).tolist() == [2, 5, 0, -1, -1, 1]


@pytest.mark.parametrize("design", ["equal", "equal over all"])
def test_nested_opposites_keep_the_counts_silent_too(design):
    """A shadow that stepped aside for a target, or for another shadow, needs no opposite of its own."""
    n_targets = 2
    phi, member = scores(9, n_targets=n_targets, n_shadows=10, n_samples=400, design=design)
    design = MembershipDesign(member, n_targets)
    first = design.aside_for_targets()
    for one in range(10):
        aside = design.aside((one,), first)
        statistics = Statistics.from_shadows(phi[n_targets:], member[n_targets:]).without([*first, *aside])
        assert (statistics.n_in == statistics.n_out).all()
        for two in {0, 1, 2} - {one}:
            nested = statistics.without(design.aside((two,), [*first, *aside]))
            assert (nested.n_in == nested.n_out).all()


def test_independent_draws_leave_alone():
    member = halves(np.random.default_rng(0), 9, 40)
    design = MembershipDesign(member, 1)
    assert design.groups() == [(row,) for row in range(8)]
    assert design.aside((3,)) == [3]
    assert design.aside_for_targets() == []
