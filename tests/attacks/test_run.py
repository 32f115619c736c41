"""The attacks as a whole: leave one out, the curve, and no leak of membership where phi holds none."""

import numpy as np
import pytest
from scipy.stats import norm

from lira.attacks.gaussian import fit_lira
from lira.attacks.inputs import AttackOptions
from lira.attacks.metrics import best_threshold
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets, curve, leave_one_out
from lira.attacks.statistics import Statistics
from tests.helpers.leakage import auc_by_sample, null_aucs
from tests.helpers.naive_attacks import ORACLES
from tests.helpers.shadows import scores


@pytest.mark.parametrize("name", ORACLES)
def test_leave_one_out_equals_a_loop_without_the_pair(name):
    phi, member = scores(1, n_shadows=6, n_samples=30)
    results = leave_one_out(phi, member, n_targets=1, attacks=[name])
    assert [result.target for result in results] == list(range(1, 7))

    def expected(row, shadows):
        """The score of this row against the shadows outside its pair, and those shadows."""
        others = [other for other in shadows if (other - 1) // 2 != (row - 1) // 2]
        return ORACLES[name](phi[row], phi[others], member[others]), others

    for result in results:
        score, others = expected(result.target, range(1, 7))
        np.testing.assert_allclose(result.score, score, rtol=1e-9, atol=1e-9)
        held_out = [expected(row, others)[0] for row in others]
        threshold = best_threshold(np.concatenate(held_out), member[others].ravel())
        assert result.threshold == pytest.approx(threshold, rel=1e-9)


CHEAP = [name for name in ATTACKS if name != "learned"]


@pytest.mark.parametrize(
    ("design", "n_shadows", "n_samples", "names"),
    [
        ("pairs", 4, 600, None),
        ("halves", 4, 600, None),
        ("equal", 4, 600, None),
        ("pairs", 8, 300, None),
        ("equal", 8, 100, None),
        ("equal over all", 8, 1000, CHEAP),
        ("halves", 12, 60, CHEAP),
        ("pairs", 20, 60, CHEAP),
    ],
)
def test_scores_without_information_reveal_nothing(design, n_shadows, n_samples, names):
    """A part of benchmarks/attacks_leakage.py, which runs every attack on every design and number of shadows."""
    aucs = null_aucs(design, n_shadows, n_samples, seed=5, attacks=names)
    assert ("learned" in aucs) == (n_shadows == 8 and names is None)
    for name, (auc, deviation) in aucs.items():
        assert abs(deviation) < norm.isf(0.0005), f"{name}: AUC {auc}, {deviation:+.1f} standard errors"


def test_the_partner_would_reveal_the_membership():
    """The leak test can fail: if the partner stays in, a member has one member less among the shadows."""
    phi, member = scores(5, n_shadows=4, n_samples=2000, gap=0.0)
    statistics = Statistics.from_shadows(phi[1:], member[1:])
    leaky = [
        fit_lira(statistics.without([row]), AttackOptions())(phi[row + 1][None], None)[0, :, 0] for row in range(4)
    ]
    auc, error = auc_by_sample(np.stack(leaky), member[1:])
    assert abs(auc - 0.5) > norm.isf(0.0005) * error


def test_the_curve_keeps_pairs_together_in_their_order():
    phi, member = scores(22, n_targets=2, n_shadows=10)
    points = curve(phi, member, n_targets=2, attacks=["lira", "learned"])
    assert [(size, result.attack) for size, result in points[:2]] == [(4, "lira"), (4, "lira")]
    assert sorted({size for size, _ in points}) == [4, 8, 10]
    assert {size for size, result in points if result.attack == "learned"} == {8, 10}
    for size, result in points:
        rows = [result.target, *range(2, 2 + size)]
        alone = attack_targets(phi[rows], member[rows], n_targets=1, attacks=[result.attack])[0]
        np.testing.assert_allclose(result.score, alone.score, rtol=1e-9)
        assert result.threshold == pytest.approx(alone.threshold, rel=1e-9)


def test_single_precision_and_a_missing_query_axis_are_accepted():
    phi, member = scores(12)
    single = phi.astype(np.float32)
    results = attack_targets(single[..., 0], member, n_targets=1)
    expected = attack_targets(single.astype(np.float64), member, n_targets=1)
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.score, reference.score)


def test_repetition_gives_the_same_bits():
    phi, member = scores(14, n_shadows=8, design="equal")
    first, second = (attack_targets(phi, member, n_targets=1, seed=3) for _ in range(2))
    for result, repeated in zip(first, second, strict=True):
        np.testing.assert_array_equal(result.score, repeated.score)
        assert result.threshold == repeated.threshold
