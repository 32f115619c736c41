"""Checkpoints stay within their share of the training time, or come every N epochs."""

import pytest

from lira.training import checkpoints
from lira.training.checkpoints import INITIAL_COST_SECONDS, MAX_TIME_SHARE, MIN_INTERVAL_SECONDS, Checkpoints


@pytest.mark.parametrize(("epoch_seconds", "cost"), [(0.1, 0.005), (3.0, 0.2), (60.0, 0.5), (5.0, 4.0)])
def test_checkpoints_cost_less_than_two_percent(epoch_seconds, cost, monkeypatch):
    now = 0.0
    monkeypatch.setattr(checkpoints, "perf_counter", lambda: now)
    schedule = Checkpoints(None)
    checkpoint_seconds, intervals, last = 0.0, [], 0.0

    def write():
        nonlocal now
        now += cost

    for epoch in range(1, 2001):
        now += epoch_seconds
        if schedule.due(epoch):
            intervals.append(now - last)
            schedule.save(write)
            checkpoint_seconds, last = checkpoint_seconds + cost, now
    limit = MAX_TIME_SHARE * (now - checkpoint_seconds) + max(cost - INITIAL_COST_SECONDS, 0)
    assert checkpoint_seconds <= limit, f"{checkpoint_seconds} of {now} seconds"
    assert max(intervals[1:]) <= max(MIN_INTERVAL_SECONDS, cost / MAX_TIME_SHARE) + epoch_seconds


def test_checkpoint_every_is_obeyed():
    every_seven = Checkpoints(7)
    assert [epoch for epoch in range(1, 30) if every_seven.due(epoch)] == [7, 14, 21, 28]
