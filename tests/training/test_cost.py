"""The arithmetic of --plan; the measurement itself is in tests/test_plan.py."""

import pytest

from lira.training.cost import Cost, wall_clock_seconds


def test_wall_clock_seconds_of_workers_that_share_the_models():
    assert wall_clock_seconds([10] * 21, 1, 1.0) == 210
    assert wall_clock_seconds([10] * 21, 4, 1.0) == 60  # six rounds, the last for one model
    assert wall_clock_seconds([10] * 21, 4, 2.0) == 120
    assert wall_clock_seconds([], 4, 1.0) == 0


def test_cost_of_a_model():
    cost = Cost(train_rate=100.0, query_rate=1000.0, weights=0, state=0, memory=0)
    assert cost.seconds(500, 2000, epochs=10, evaluations=3) == pytest.approx(10 * 5 + 3 * 2)
