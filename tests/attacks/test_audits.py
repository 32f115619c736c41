"""The rows of audit.csv: bounds beside the guarantee, tests of it, and what cannot be audited."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lira.attacks.audits import COLUMNS, POOLED, audit_table, refuted
from lira.attacks.inputs import AttackInputs
from lira.attacks.run import attack_targets
from lira.privacy import f_dp
from lira.privacy.audit import CanaryScores, Mechanism, count_guesses, epsilon_lower_bound, pooled_p_value
from tests.helpers.mechanisms import SubsampledGaussian


def leaky(inclusion, guarantees, shift=6.0, samples=400):
    """Two targets and eight shadows whose members' phi is higher by `shift`."""
    rng = np.random.default_rng(2)
    member = np.argsort(rng.random((10, samples)), axis=1) < samples // 2
    if inclusion == "coin":
        member[:2] = rng.random((2, samples)) < 0.5
    member[3::2] = ~member[2::2]
    phi = (rng.normal(size=(10, samples)) + shift * member)[..., None]
    names, label = tuple(f"m{row}" for row in range(10)), np.zeros(samples, int)
    return AttackInputs(phi, member, 2, label, ("a",), names, inclusion=inclusion, guarantees=guarantees)


def audited(reference, attacks=("lira", "loss")):
    """audit.csv by kind."""
    results = attack_targets(reference.phi, reference.member, n_targets=reference.n_targets, attacks=attacks)
    audit = audit_table(results, reference)
    return {kind: rows.reset_index(drop=True) for kind, rows in audit.groupby("kind", sort=False)}


@pytest.mark.parametrize("inclusion", ["half", "coin"])
def test_the_audit_puts_the_lower_bound_beside_the_guarantee(inclusion):
    tables = audited(leaky(inclusion, np.array([[0.5, 1e-6], [9.0, 1e-5]])))
    assert list(tables) == ["one-run", "f-dp"]
    for audit in tables.values():
        assert audit.columns.tolist() == list(COLUMNS)
        assert audit.target.tolist() == ["m0", "m1", POOLED]
        assert (audit.epsilon_lower > 1).all()
        assert (audit.epsilon_lower <= audit.epsilon_max).all()
        assert audit.epsilon_upper.tolist() == [0.5, 9.0, 9.0], "pooled: the weakest guarantee"
        assert audit.delta.tolist() == [1e-6, 1e-5, 1e-5]
        assert audit.n_audited.tolist() == [400, 400, 800]
    one_run = tables["one-run"]
    for row in one_run[:2].itertuples():
        how = dict(n_audited=400, delta=row.delta, inclusion=inclusion)
        assert row.epsilon_lower == epsilon_lower_bound([row.n_correct], [row.n_guesses], **how)
        assert row.epsilon_max == epsilon_lower_bound([400], [400], **how)
        counts = np.array([[row.n_correct]]), np.array([[row.n_guesses]])
        p = pooled_p_value(np.array([row.epsilon_upper]), *counts, **how)
        assert row.p_value == p[0, 0]
    pooled, how = one_run.iloc[2], dict(n_audited=400, delta=1e-5, inclusion=inclusion)
    counts = [one_run[column][:2].tolist() for column in ("n_correct", "n_guesses")]
    assert pooled.epsilon_lower == epsilon_lower_bound(*counts, **how)
    assert pooled.epsilon_max == epsilon_lower_bound([400] * 2, [400] * 2, **how)
    assert [pooled.n_correct, pooled.n_guesses] == list(map(sum, counts))
    assert refuted(pd.concat(tables.values())).target.tolist() == ["m0"]
    without = audited(leaky(inclusion, None))
    for audit in without.values():
        assert audit[["epsilon_upper", "p_value", "significance"]].isna().all(axis=None)
    assert (without["f-dp"].delta == f_dp.DELTA).all()


@pytest.mark.parametrize("inclusion", ["half", "coin"])
def test_gaussian_curves_are_refuted_by_guesses_of_members(inclusion):
    audit = audited(leaky(inclusion, np.array([[8.0, 1e-5]] * 2)))["f-dp"]
    log_factor = math.log(2**400 / math.comb(400, 200)) if inclusion == "half" else 0.0
    for row in audit[:2].itertuples():
        mu = f_dp.largest_mu(row.n_correct, row.n_guesses, n_audited=400, log_factor=log_factor)
        assert row.mu_lower == pytest.approx(mu, abs=1e-9)
        assert row.epsilon_lower == f_dp.gaussian_epsilon(row.mu_lower, 1e-5) > 3
        assert row.n_guesses <= 200
    counts = [audit[column][:2].tolist() for column in ("n_correct", "n_guesses")]
    pooled = f_dp.largest_mu(*counts, n_audited=400, log_factor=log_factor)
    assert audit.mu_lower[2] == pytest.approx(pooled, abs=1e-9)
    assert audit.p_value.isna().all(), "no mechanism is known"


def test_several_targets_show_more_together_than_each_alone():
    for audit in audited(leaky("coin", None)).values():
        assert audit.epsilon_lower[2] > audit.epsilon_lower[:2].mean()


def test_one_target_has_no_pooled_row():
    inputs = leaky("coin", None)
    inputs = replace(inputs, phi=inputs.phi[1:], member=inputs.member[1:], n_targets=1)
    assert [audit.target.tolist() for audit in audited(inputs).values()] == [["m0"]] * 2


def test_the_choice_does_not_depend_on_the_targets():
    reference = leaky("coin", None)
    inverted = replace(reference, member=np.concatenate([~reference.member[:2], reference.member[2:]]))
    columns = ["attack", "n_guesses", "epsilon_max"]
    for audit, of_inverted in zip(audited(reference).values(), audited(inverted).values(), strict=True):
        assert audit[columns].equals(of_inverted[columns])
        assert (audit.epsilon_lower > 1).all()
        assert (of_inverted.epsilon_lower == 0).all()
    assert audited(reference)["one-run"].n_guesses.nunique() == 2, "the same number for each target"


# --- canaries ------------------------------------------------------------------------------------------------------

CLAIMED = Mechanism(1.417, 0.25, 60)  # epsilon 8 at delta 1e-5
HALF = Mechanism(1.417 / 2, 0.25, 60)


def with_canaries(mechanisms, seed=0, n=2000):
    """Targets that show little themselves, with canaries of these mechanisms, all claimed to be CLAIMED."""
    rng, n_targets = np.random.default_rng(seed), len(mechanisms)
    inputs = leaky("coin", np.array([[8.0, 1e-5]] * 2), shift=0.1)
    canaries = tuple(SubsampledGaussian(mechanism, CLAIMED).canaries(rng, n) for mechanism in mechanisms)
    names, rows = inputs.model_names[2 - n_targets :], slice(2 - n_targets, None)
    return replace(
        inputs, phi=inputs.phi[rows], member=inputs.member[rows], model_names=names, n_targets=n_targets,
        guarantees=inputs.guarantees[rows], canaries=canaries, mechanisms=(CLAIMED,) * n_targets,
    )  # fmt: skip


@pytest.fixture(scope="module")
def correct_and_broken():
    """audit.csv by kind of one correct target, of one with half the noise, and of both together."""
    return [audited(with_canaries(mechanisms), attacks=["loss"]) for mechanisms in ([CLAIMED], [HALF], [CLAIMED, HALF])]


def test_canaries_have_rows_of_their_own(correct_and_broken):
    for tables, n_rows in zip(correct_and_broken, (1, 1, 3), strict=True):
        assert list(tables) == ["one-run", "f-dp", "canary-one-run", "canary-f-dp"]
        assert [len(audit) for audit in tables.values()] == [n_rows] * 4
        assert (tables["canary-f-dp"].n_audited % 2000 == 0).all()
        assert (tables["canary-f-dp"].attack == tables["canary-one-run"].attack).all()
    (row,) = correct_and_broken[0]["canary-f-dp"].itertuples()
    canaries = with_canaries([CLAIMED]).canaries[0]
    n_correct, n_guesses = count_guesses(canaries.score, canaries.member, n_high=row.test_guesses, n_low=0)
    assert (row.test_correct, row.test_guesses) == (n_correct, n_guesses)
    assert row.test_guesses == f_dp.choose_test(CLAIMED, n_audited=2000) > 2 * row.n_guesses
    p = f_dp.p_value(n_correct, n_guesses, n_audited=2000, curve=f_dp.compose(CLAIMED))
    assert row.p_value == p > row.significance
    assert 3 < row.epsilon_lower < 8, "the bound of a correct mechanism"


def test_a_target_of_half_the_noise_is_refuted(correct_and_broken):
    names = [refuted(pd.concat(tables.values())) for tables in correct_and_broken]
    assert [rows.kind.unique().tolist() for rows in names] == [[], ["canary-f-dp"], ["canary-f-dp"]]
    assert names[2].target.tolist() == ["m1"], "the correct target dilutes the pooled row"


def test_5_percent_are_divided_among_the_tests(correct_and_broken):
    for tables in correct_and_broken:
        audit = pd.concat(tables.values())
        assert audit.significance.sum() == pytest.approx(0.05)
        assert tables["canary-f-dp"].significance.sum() == pytest.approx(0.04)
        assert audit[audit.target == POOLED].significance.sum() == pytest.approx(0.025 * (len(audit) > 4))
    inputs = replace(with_canaries([CLAIMED, CLAIMED]), canaries=None)
    alone = pd.concat(audited(inputs, attacks=["loss"]).values())
    assert alone.significance.tolist() == pytest.approx([0.00625, 0.00625, 0.0125] * 2)


def test_mechanisms_that_differ_have_no_pooled_test():
    inputs = with_canaries([CLAIMED, CLAIMED])
    tables = audited(replace(inputs, mechanisms=(CLAIMED, HALF)), attacks=["loss"])
    for kind in ("f-dp", "canary-f-dp"):
        assert tables[kind].p_value.isna().tolist() == [False, False, True]
        assert tables[kind].significance.isna().tolist() == [False, False, True]
    assert pd.concat(tables.values()).significance.sum() == pytest.approx(0.05)


def test_canaries_without_fair_coins_are_not_audited(capsys):
    inputs = with_canaries([CLAIMED, CLAIMED])
    first = inputs.canaries[0]
    unfair = CanaryScores(first.score, first.member | (np.arange(2000) % 3 == 0))
    tables = audited(replace(inputs, canaries=(unfair, inputs.canaries[1])), attacks=["loss"])
    for kind in ("canary-one-run", "canary-f-dp"):
        assert tables[kind].epsilon_lower.isna().tolist() == [True, False, False]
        assert tables[kind].epsilon_lower[1] == tables[kind].epsilon_lower[2], "the pooled row leaves it out"
    assert "no canary audit of m0: " in capsys.readouterr().err
    assert tables["one-run"].epsilon_lower.notna().all()


def test_canaries_are_audited_without_shadows_that_were_held_out():
    tables = audit_table([], with_canaries([CLAIMED]))
    assert tables.kind.tolist() == ["canary-one-run", "canary-f-dp"]
    assert audit_table([], leaky("coin", None)) is None


# --- what cannot be audited ------------------------------------------------------------------------------------------


def test_members_that_are_not_half_are_not_audited_as_half(capsys):
    inputs = replace(leaky("coin", None), inclusion="half")
    inputs.member[0, :50] = True
    inputs.member[1] = np.arange(400) % 2 == 0
    for audit in audited(inputs, attacks=["loss"]).values():
        assert audit.epsilon_lower.isna().tolist() == audit.epsilon_max.isna().tolist() == [True, False, False]
        assert audit.epsilon_lower[2] == audit.epsilon_lower[1], "the pooled row leaves it out"
        assert audit.n_audited.tolist() == [400] * 3
    assert "no audit of m0: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("objection", "is_missing"),
    [
        ("m0: 300 of 400 samples are members, which independent draws", [True, False, False]),
        ("m0: its members follow from those of the other models", [True, False, False]),
        ("m1: its members follow from those of the other models", [True, True, True]),
        ("pooled: the members of these targets were not drawn independently", [False, False, True]),
    ],
)
def test_members_that_were_not_drawn_by_coins_are_not_audited(objection, is_missing, capsys):
    inputs = leaky("coin", None)
    member = inputs.member
    if "300 of 400" in objection:
        member[0] = np.arange(400) % 4 > 0
    elif is_missing == [True, False, False]:
        member[0] = member[5]  # the same training set as a shadow
    elif is_missing == [True, True, True]:  # in the usual design every sample is in half of the models
        member[:] = np.random.default_rng(0).permuted(np.arange(10)[:, None] < np.full(400, 5), axis=0)
    else:
        member[1] = ~member[0]
    for audit in audited(inputs, attacks=["loss"]).values():
        assert audit.epsilon_lower.isna().tolist() == is_missing
    assert f"no audit of {objection}" in capsys.readouterr().err


def test_a_complementary_partner_among_the_shadows_is_held_out_and_no_obstacle():
    inputs = leaky("half", None)
    inputs.member[0] = ~inputs.member[2]
    inputs.member[3] = np.random.default_rng(0).permutation(inputs.member[3])
    assert all(audit.epsilon_lower.notna().all() for audit in audited(inputs).values())
