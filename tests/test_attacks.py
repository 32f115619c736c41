"""The attacks against naive loops; nothing leaks; thresholds never see the target."""

import numpy as np
import pytest
from leakage import auc_by_sample
from naive_attacks import OFFICIAL_ORACLES, ORACLES, official

from lira.attacks import (
    ATTACKS,
    Options,
    Statistics,
    attack_targets,
    curve,
    leave_one_out,
    strongest,
    validate_scores,
)
from lira.errors import InputError
from lira.formulas import fit_lira
from lira.metrics import auc, best_threshold
from lira.pairing import Design


def pairs(generator, n_models, n_samples):
    """Complementary pairs of random halves, bool (M, N)."""
    first = generator.permuted(np.tile(np.arange(n_samples) < n_samples // 2, (n_models // 2, 1)), axis=1)
    return np.stack([first, ~first], axis=1).reshape(-1, n_samples)


def halves(generator, n_models, n_samples):
    """Independent random halves."""
    return generator.permuted(np.tile(np.arange(n_samples) < n_samples // 2, (n_models, 1)), axis=1)


def equal_counts(generator, n_models, n_samples):
    """Every sample in exactly half of the models, no pairs."""
    return generator.permuted(np.tile(np.arange(n_models)[:, None] < n_models // 2, (1, n_samples)), axis=0)


DESIGNS = {"pairs": pairs, "halves": halves, "equal": equal_counts}


def scores(seed, *, n_targets=1, n_shadows=8, n_samples=50, n_queries=1, gap=1.0, design="pairs", kind="normal"):
    """(phi (M, N, A), member (M, N)): targets draw independently, shadows by the design."""
    generator = np.random.default_rng(seed)
    member = np.concatenate([halves(generator, n_targets, n_samples), DESIGNS[design](generator, n_shadows, n_samples)])
    level = generator.normal(2.0, 3.0, size=(n_samples, 1))
    phi = level + gap * member[..., None] + generator.normal(size=(*member.shape, n_queries))
    return {"normal": phi, "ties": np.round(phi), "constant": np.full_like(phi, 0.3)}[kind], member


@pytest.mark.parametrize("kind", ["normal", "ties", "constant"])
@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("name", ORACLES)
def test_every_formula_equals_its_naive_loop(name, n_queries, kind):
    phi, member = scores(0, n_targets=2, n_queries=n_queries, kind=kind)
    for scored in attack_targets(phi, member, n_targets=2, attacks=[name]):
        expected = ORACLES[name](phi[scored.target], phi[2:], member[2:])
        np.testing.assert_allclose(scored.score, expected, rtol=1e-9, atol=1e-9)


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
        left_out = [
            ORACLES[name](
                phi[row],
                *(x[[r for r in rest if (r - 1) // 2 != (row - 1) // 2]] for x in (phi, member)),
            )
            for row in rest
        ]
        threshold = best_threshold(np.concatenate(left_out), member[rest].ravel())
        assert scored.threshold == pytest.approx(threshold, rel=1e-9)


def test_threshold_comes_from_each_shadow_with_its_pair_left_out():
    phi, member = scores(2, n_shadows=6)
    scored = attack_targets(phi, member, n_targets=1, attacks=["lira"])[0]
    left_out = []
    for row in range(1, 7):
        rest = [other for other in range(1, 7) if (other - 1) // 2 != (row - 1) // 2]
        left_out.append(ORACLES["lira"](phi[row], phi[rest], member[rest]))
    assert scored.threshold == pytest.approx(best_threshold(np.concatenate(left_out), member[1:].ravel()))
    strength = np.mean([auc(score, truth) for score, truth in zip(left_out, member[1:], strict=True)])
    assert scored.strength == pytest.approx(strength)


def test_pairs_are_found_by_their_rows_not_by_their_place():
    phi, member = scores(3, n_shadows=8)
    order = np.array([0, 1, 3, 5, 7, 2, 4, 6, 8])  # partners far apart
    plain = leave_one_out(phi, member, n_targets=1, attacks=["lira"])
    moved = leave_one_out(phi[order], member[order], n_targets=1, attacks=["lira"])
    for scored in moved:
        same = next(one for one in plain if one.target == order[scored.target])
        np.testing.assert_allclose(scored.score, same.score, rtol=1e-9)


def test_the_target_membership_changes_nothing():
    phi, member = scores(4)
    other = member.copy()
    other[0] = ~other[0]
    for one, two in zip(*(attack_targets(phi, m, n_targets=1) for m in (member, other)), strict=True):
        np.testing.assert_array_equal(one.score, two.score)
        assert one.threshold == two.threshold


CHEAP = [name for name in ATTACKS if name not in ("learned", "lira-bayes")]


@pytest.mark.parametrize(
    ("design", "n_shadows", "n_samples", "names"),
    [
        ("pairs", 4, 600, list(ATTACKS)),
        ("halves", 4, 600, list(ATTACKS)),
        ("equal", 4, 600, list(ATTACKS)),
        ("pairs", 8, 300, list(ATTACKS)),
        ("equal", 8, 100, list(ATTACKS)),
        ("halves", 20, 60, CHEAP),
        ("equal", 20, 60, CHEAP),
        ("pairs", 64, 60, CHEAP),
    ],
)
def test_scores_without_information_tell_nothing(design, n_shadows, n_samples, names):
    """Not every design and count with every attack: learned and lira-bayes cost minutes at 20 and 64."""
    phi, member = scores(5, n_shadows=n_shadows, n_samples=n_samples, gap=0.0, design=design)
    by_attack: dict = {}
    for scored in leave_one_out(phi, member, n_targets=1, attacks=names):
        by_attack.setdefault(scored.attack, []).append(scored.score)
    assert ("learned" in by_attack) == (n_shadows == 8)
    for name, played in by_attack.items():
        _, low, high = auc_by_sample(np.stack(played), member[1:], 0.999)
        assert low <= 0.5 <= high, f"{name}: {low} to {high}"


def test_leaving_the_partner_in_would_leak():
    """The leak test can fail: with the partner left in, a member is short of a member of its own kind."""
    phi, member = scores(5, n_shadows=4, n_samples=2000, gap=0.0)
    statistics = Statistics.from_shadows(phi[1:], member[1:])
    played = [fit_lira(statistics.without([row]), Options())(phi[row + 1][None], None)[0, :, 0] for row in range(4)]
    _, low, high = auc_by_sample(np.stack(played), member[1:], 0.999)
    assert not low <= 0.5 <= high


@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("design", ["pairs", "halves"])
@pytest.mark.parametrize("name", OFFICIAL_ORACLES)
def test_the_official_convention_equals_its_naive_loop(name, n_queries, design):
    phi, member = scores(20, n_targets=2, n_shadows=12, n_queries=n_queries, design=design)
    member[2:6] = pairs(np.random.default_rng(0), 4, 50)  # every sample has both sides
    result = attack_targets(phi, member, n_targets=2, attacks=[name], convention="official")
    for scored in result:
        expected = official(phi[scored.target], phi[2:], member[2:], OFFICIAL_ORACLES[name])
        np.testing.assert_allclose(scored.score, expected, rtol=1e-9, atol=1e-9)


def test_the_official_convention_stays_finite_and_names_an_empty_side():
    phi, member = scores(21, kind="constant")
    phi[0, ::2] = 1e4
    for scored in attack_targets(phi, member, n_targets=1, convention="official"):
        assert np.isfinite(scored.score).all()
    member[1:, 3] = True
    with pytest.raises(InputError, match="sample 3 has 0"):
        attack_targets(phi, member, n_targets=1, attacks=["lira"], convention="official")


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


def test_learned_finds_more_than_the_formulas_it_learns_from():
    generator = np.random.default_rng(23)
    _, member = scores(23, n_targets=2, n_shadows=8, n_samples=3000)
    # Members of low-level samples rise, members of high-level samples fall: no single formula says so after
    # noise.
    level = generator.normal(size=(3000, 1))
    phi = level + np.where(level > 0, -0.4, 0.8) * member[..., None] + generator.normal(size=(*member.shape, 1))
    areas: dict = {}
    for scored in attack_targets(phi, member, n_targets=2):
        areas.setdefault(scored.attack, []).append(auc(scored.score, member[scored.target]))
    mean = {name: np.mean(values) for name, values in areas.items()}
    assert mean["learned"] > max(value for name, value in mean.items() if name not in ("learned", "lira-bayes"))
    assert mean["learned"] > mean["lira-bayes"] - 0.005


def test_learned_sees_nothing_of_the_target():
    phi, member = scores(24, n_targets=2, n_shadows=8)
    alone = attack_targets(phi[[0, *range(2, 10)]], member[[0, *range(2, 10)]], n_targets=1, attacks=["learned"])[0]
    beside = attack_targets(phi, member, n_targets=2, attacks=["learned"])[0]
    # Not to the bit: the trees that both train are the same, the order of the sums is not.
    np.testing.assert_allclose(alone.score, beside.score, rtol=1e-9)


def test_a_random_opposite_keeps_the_counts_silent():
    """Without it the sample's count of members left would be the target's membership."""
    phi, member = scores(6, n_shadows=6, n_samples=300, design="equal")
    design = Design(member, 1)
    for row in range(6):
        statistics = Statistics.from_shadows(phi[1:], member[1:]).without(design.aside((row,)))
        assert (statistics.n_in == 2).all()
        assert (statistics.n_out == 2).all()
    # Equal over targets and shadows together: the target itself needs the same care.
    everyone = equal_counts(np.random.default_rng(7), 8, 300)
    design = Design(everyone, 1)
    statistics = Statistics.from_shadows(phi[:7], everyone[1:]).without(design.aside_for_targets())
    assert (statistics.count == 3).all()


def test_a_target_paired_with_a_shadow_is_scored_without_it():
    phi, member = scores(8, n_shadows=8)
    member[0] = ~member[3]
    member[4] = halves(np.random.default_rng(9), 1, 50)  # the former partner of row 3 has none now
    scored = attack_targets(phi, member, n_targets=1, attacks=["lira"])[0]
    rest = [1, 2, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(scored.score, ORACLES["lira"](phi[0], phi[rest], member[rest]), rtol=1e-9)


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
    assert max(scored.strength for scored in result if scored.attack == name) == max(
        scored.strength for scored in result
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
    phi, member = scores(16)
    with pytest.raises(InputError, match="unknown attack 'liar'"):
        attack_targets(phi, member, n_targets=1, attacks=["liar"])
    with pytest.raises(InputError, match="unknown convention 'mine'"):
        attack_targets(phi, member, n_targets=1, convention="mine")
    with pytest.raises(InputError, match="gamma must be above 0"):
        attack_targets(phi, member, n_targets=1, gamma=0.0)
