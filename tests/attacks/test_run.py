"""The attacks as a whole: leaving one out, the curve, nothing leaks, bad scores are named."""

import numpy as np
import pytest
from scipy.stats import norm

from lira.attacks.gaussian import fit_lira
from lira.attacks.inputs import AttackOptions, validate_scores
from lira.attacks.metrics import best_threshold
from lira.attacks.registry import ATTACKS
from lira.attacks.run import attack_targets, curve, leave_one_out, strongest
from lira.attacks.statistics import Statistics
from lira.errors import InputError
from tests.helpers.leakage import auc_by_sample, without_information
from tests.helpers.naive_attacks import ORACLES
from tests.helpers.shadows import scores


@pytest.mark.parametrize("name", ORACLES)
def test_leave_one_out_equals_a_loop_without_the_pair(name):
    phi, member = scores(1, n_shadows=6, n_samples=30)
    result = leave_one_out(phi, member, n_targets=1, attacks=[name])
    assert [scored.target for scored in result] == list(range(1, 7))
    for scored in result:
        pair = (scored.target - 1) // 2
        rest = [row for row in range(1, 7) if (row - 1) // 2 != pair]
        expected = ORACLES[name](phi[scored.target], phi[rest], member[rest])
        np.testing.assert_allclose(scored.score, expected, rtol=1e-9, atol=1e-9)
        held_out = [
            ORACLES[name](
                phi[row],
                *(x[[r for r in rest if (r - 1) // 2 != (row - 1) // 2]] for x in (phi, member)),
            )
            for row in rest
        ]
        threshold = best_threshold(np.concatenate(held_out), member[rest].ravel())
        assert scored.threshold == pytest.approx(threshold, rel=1e-9)


CHEAP = [name for name in ATTACKS if name != "learned"]


@pytest.mark.parametrize(
    ("design", "n_shadows", "n_samples", "names"),
    [
        ("pairs", 4, 600, None),
        ("halves", 4, 600, None),
        ("equal", 4, 600, None),
        ("pairs", 8, 300, None),
        ("equal", 8, 100, None),
        ("equal over all", 8, 2000, CHEAP),
        ("halves", 20, 60, CHEAP),
        ("equal", 20, 60, CHEAP),
        ("pairs", 64, 60, CHEAP),
    ],
)
def test_scores_without_information_tell_nothing(design, n_shadows, n_samples, names):
    """A part of benchmarks/attacks_leakage.py, which plays every design and count with every attack."""
    found = without_information(design, n_shadows, n_samples, seed=5, attacks=names)
    assert ("learned" in found) == (n_shadows == 8 and names is None)
    for name, (area, away) in found.items():
        assert abs(away) < norm.isf(0.0005), f"{name}: AUC {area}, {away:+.1f} standard errors"


def test_leaving_the_partner_in_would_leak():
    """The leak test can fail: with the partner left in, a member is short of a member of its own kind."""
    phi, member = scores(5, n_shadows=4, n_samples=2000, gap=0.0)
    statistics = Statistics.from_shadows(phi[1:], member[1:])
    played = [
        fit_lira(statistics.without([row]), AttackOptions())(phi[row + 1][None], None)[0, :, 0] for row in range(4)
    ]
    area, error = auc_by_sample(np.stack(played), member[1:])
    assert abs(area - 0.5) > norm.isf(0.0005) * error


def test_the_curve_takes_whole_pairs_in_their_order():
    phi, member = scores(22, n_targets=2, n_shadows=10)
    result = curve(phi, member, n_targets=2, attacks=["lira", "learned"])
    assert [(size, scored.attack) for size, scored in result[:2]] == [(4, "lira"), (4, "lira")]
    assert sorted({size for size, _ in result}) == [4, 8, 10]
    assert {size for size, scored in result if scored.attack == "learned"} == {8, 10}
    for size, scored in result:
        rows = [scored.target, *range(2, 2 + size)]
        alone = attack_targets(phi[rows], member[rows], n_targets=1, attacks=[scored.attack])[0]
        np.testing.assert_allclose(scored.score, alone.score, rtol=1e-9)
        assert scored.threshold == pytest.approx(alone.threshold, rel=1e-9)
    with pytest.raises(InputError, match="not 12"):
        curve(phi, member, n_targets=2, sizes=[12])


def test_single_precision_and_a_missing_query_axis_are_accepted():
    phi, member = scores(12)
    single = phi.astype(np.float32)
    wide = attack_targets(single.astype(np.float64), member, n_targets=1)
    for one, two in zip(attack_targets(single[..., 0], member, n_targets=1), wide, strict=True):
        np.testing.assert_array_equal(one.score, two.score)


def test_the_strongest_attack_is_named_by_the_shadows():
    phi, member = scores(13, n_targets=2, n_shadows=16, n_samples=400)
    result = attack_targets(phi, member, n_targets=2)
    name = strongest(result)
    assert name != "loss"
    assert max(scored.held_out_auc for scored in result if scored.attack == name) == max(
        scored.held_out_auc for scored in result
    )


def test_repetition_gives_the_same_bits():
    phi, member = scores(14, n_shadows=8, design="equal")
    one, two = (leave_one_out(phi, member, n_targets=1, seed=3) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.score, second.score)
        assert first.threshold == second.threshold


def broken(what):
    phi, member = scores(15, n_shadows=4)
    if what == "nan":
        phi[3, 7] = np.nan
    elif what == "one side":
        member[1:] = True
    elif what == "shape":
        member = member[:, :-1]
    elif what == "words":
        phi = phi.astype(str)
    elif what == "few":
        phi, member = phi[:4], member[:4]
    elif what == "twos":
        member = member.astype(int)
        member[2, 5] = 2
    return phi, member


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "row 3, column 7 is nan"),
        ("one side", "no sample has both"),
        ("shape", r"\(5, 50\).*\(5, 49\)"),
        ("words", "real numbers"),
        ("few", "4 shadows are needed at least, but of 4 rows 1 are targets and 3 shadows"),
        ("twos", "row 2, column 5 is 2"),
    ],
)
def test_bad_scores_are_named_in_one_line(what, message):
    with pytest.raises(InputError, match=message) as caught:
        validate_scores(*broken(what), 1)
    assert "\n" not in str(caught.value)


def test_unknown_attacks_are_named():
    with pytest.raises(InputError, match="unknown attack 'liar'"):
        attack_targets(*scores(16), n_targets=1, attacks=["liar"])
