"""The audit in words."""

import numpy as np
import pandas as pd

from lira.report import text


def verdict(table):
    """Without its line breaks inside sentences."""
    said = text.verdict(table)
    assert max(map(len, said.splitlines())) <= text.WIDTH
    return " ".join(said.split())


def audit(lower, upper):
    common = dict(attack="lira", delta=1e-5, confidence=0.95, n_audited=1000, n_guesses=100, n_correct=80)
    rows = [
        {"target": f"target_{place:02d}", "epsilon_lower": low, "epsilon_upper": high} | common
        for place, (low, high) in enumerate(zip(lower, upper, strict=True))
    ]
    return pd.DataFrame(rows)


def test_without_a_promise_it_is_one_sentence():
    assert verdict(audit([0.5], [np.nan])) == (
        "at 95% confidence the epsilon of this training is at least 0.50 "
        "(lira, 100 of 1,000 samples guessed, 80.0% of them right)"
    )


def test_several_targets_are_their_median():
    said = verdict(audit([0.5, 3.0, 1.0], [8.0, 8.0, 8.0]))
    assert "at least 1.00 (median over 3 targets; lira" in said
    assert "at most 8.00, at delta 1e-05" in said
    assert "VIOLATION" not in said


def test_each_violation_is_named():
    said = verdict(audit([0.5, 9.0, 8.0], [8.0, 8.0, 8.0]))
    assert said.count("VIOLATION") == 1
    assert "VIOLATION: target_01 shows epsilon 9.00 or more, above the promised 8.00: its training" in said


def test_targets_without_a_bound_are_held_out():
    assert "at least 0.50 (lira" in verdict(audit([np.nan, 0.5], [np.nan, np.nan]))
    assert "no lower bound" in verdict(audit([np.nan], [8.0]))
