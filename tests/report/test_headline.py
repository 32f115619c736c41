"""The result in one sentence: which figures it names, and what it says where they are no better than guessing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from lira.attacks.metrics import most_shown
from lira.report import headline, results
from tests.helpers.attack_inputs import inputs
from tests.helpers.report import attacked_run, sign

NO_BETTER = "no better than guessing"


def read_with(run, **columns):
    """Results of the run with other values in attack.csv."""
    table = pd.read_csv(run.results / "attack.csv")
    run.save_table("attack.csv", table.assign(**columns))
    return results.read(sign(run))


@pytest.fixture
def run(tmp_path):
    return attacked_run(tmp_path, inputs(n_targets=2, n_shadows=6), curve=False)


LEAKING = {
    **dict(accuracy=0.798, mean_accuracy_low=0.793, mean_accuracy_high=0.804),
    "tpr_at_fpr_0.001": 0.1204,
    "mean_tpr_at_fpr_0.001_low": 0.0787,
    "mean_tpr_at_fpr_0.001_high": 0.1417,
    "resolvable_at_0.01": True,
    "resolvable_at_0.001": True,
}


def test_accuracy_and_tpr_at_the_lowest_resolved_rate_of_the_strongest_and_of_lira(run):
    read = read_with(run, **LEAKING, held_out_auc=[0.6, 0.7, 0.6, 0.7])
    figures = "79.8% [79.3%, 80.4%]{} (guessing: 50%); its TPR at 0.1 % FPR is 12.04% [7.87%, 14.17%] (guessing: 0.1%)."
    assert headline.lines(read) == [
        f"Given a sample, the strongest attack (loss) is correct in {figures.format(' of cases')}",
        f"The attack as published (lira) is correct in {figures.format('')}",
    ]
    assert headline.parts(read)[1::2] == ["79.8%", "12.04%"]
    (line,) = headline.lines(read_with(run, held_out_auc=[0.7, 0.6, 0.7, 0.6]))
    assert line.startswith("Given a sample, the strongest attack (lira, as published) is correct in 79.8% ")


def test_the_rate_is_one_that_all_attacks_and_targets_resolve(run):
    for resolved, rate in (([True] * 4, "at 0.1 % FPR is"), ([True, True, True, False], "at 1 % FPR is")):
        columns = LEAKING | {"resolvable_at_0.001": resolved}
        assert rate in headline.lines(read_with(run, **columns))[0]
    line, *_, shown = headline.lines(
        read_with(run, **LEAKING | {"resolvable_at_0.01": False, "resolvable_at_0.001": False})
    )
    assert "FPR" not in line
    assert line.endswith("(guessing: 50%).")
    assert shown.endswith("they resolve no FPR of 1 % or less.")


def test_an_interval_that_holds_guessing_is_no_better_than_guessing(run):
    """And what so few could have shown at most is said then alone."""
    assert len(headline.lines(read_with(run, **LEAKING))) <= 2
    for column, low in (("mean_accuracy_low", 0.5), ("mean_tpr_at_fpr_0.001_low", 0.001)):
        line, *_, shown = headline.lines(read_with(run, **LEAKING | {column: low}))
        assert line.count(NO_BETTER) == 1
        counts = pd.read_csv(run.results / "attack.csv").drop_duplicates("target")
        n = counts.n_members.to_numpy(), counts.n_nonmembers.to_numpy()
        assert f"of each of 2 targets could have shown an accuracy of at most {most_shown(*n):.1%}" in shown
        assert f"and a TPR at 0.1 % FPR of at most {most_shown(*n, 0.001):.1%}, by an attack without" in shown
        above = headline.lines(read_with(run, **LEAKING | {column: low + 1e-9}))
        assert NO_BETTER not in " ".join(above)


def test_an_exact_test_that_rejects_what_the_interval_holds_is_named(run):
    columns = LEAKING | {"mean_accuracy_low": 0.4, "accuracy": 0.9}
    assert (
        "no better than guessing (50%) over repetitions, although an exact test on these guesses rejects it"
        in (headline.lines(read_with(run, **columns))[0])
    )


def test_without_intervals_nothing_is_said_of_them(tmp_path):
    columns = {"resolvable_at_0.01": True, "accuracy": 0.51}
    lines = headline.lines(read_with(attacked_run(tmp_path, inputs(n_shadows=4), curve=False), **columns))
    assert "is correct in 51.0% of cases (guessing: 50%); its TPR at 1 % FPR is " in lines[0]
    assert "[" not in " ".join(lines)
    assert NO_BETTER not in " ".join(lines)


def test_another_share_of_members_is_another_guess(tmp_path):
    attack_inputs = inputs(n_targets=1)
    member = attack_inputs.member.copy()
    member[0] = np.arange(member.shape[1]) < 25
    run = attacked_run(tmp_path, dataclasses.replace(attack_inputs, member=member), curve=False)
    columns = dict(mean_accuracy_low=0.63, mean_accuracy_high=0.9)
    assert "(guessing: 62.5%)" in headline.lines(read_with(run, **columns))[0]
    assert "no better than guessing (62.5%)" in headline.lines(read_with(run, mean_accuracy_low=0.62))[0]
