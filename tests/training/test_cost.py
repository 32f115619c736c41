"""The measurement and the arithmetic of --plan; with real models it is in tests/test_plan.py."""

import os
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from lira.training import cost, workers
from lira.training.cost import Cost, measure_cost, wall_clock_seconds
from lira.training.workers import Workers
from tests.helpers.workers import in_threads, workers_of_a_run

CPU = torch.device("cpu")
BATCH, TEST_IMAGES = 32, 500
STATE = {
    "weights": {"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16)},  # 48 + 10 bytes
    "optimizer": {"state": {0: {"momentum": torch.zeros(3, 4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "schedule": {"milestones": (80,), "buffers": (torch.zeros(2, dtype=torch.float64),)},
    "history": [{"epoch": 1, "model": "target_00"}],
    "generator": torch.zeros(7, dtype=torch.uint8),
}


class FakeModel:
    """Training steps and evaluations that take no time: they set forward the clock of their thread.

    rates: images/s in training, before and after state_dict() was called. The first two steps and the first evaluation
    take a minute each. events: what was called, with `name`."""

    def __init__(self, clock, *, rates, query_rate=10_000, events=None, name=""):
        self.clock, self.rates, self.query_rate = clock, rates, query_rate
        self.events, self.name = [] if events is None else events, name
        self.n_steps, self.n_evaluations, self.saved = 0, 0, False

    def take_steps(self, n):
        self.events.append((self.name, "steps"))
        for _ in range(n):
            self.n_steps += 1
            self.clock.seconds += 60 if self.n_steps <= 2 else BATCH / self.rates[self.saved]
        return n * BATCH

    def evaluate(self):
        self.n_evaluations += 1
        self.clock.seconds += 60 if self.n_evaluations == 1 else TEST_IMAGES / self.query_rate
        return TEST_IMAGES

    def state_dict(self):
        self.events.append((self.name, "state"))
        self.saved = True
        return STATE

    def measure(self, worker):
        return measure_cost(worker, self.take_steps, self.evaluate, self.state_dict, CPU)


class Clock(threading.local):
    """One per thread, as perf_counter() is read in the thread that measures."""

    seconds = 0.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: clock.seconds))
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.001)
    return clock


def test_rates_are_those_after_the_first_steps(clock):
    model = FakeModel(clock, rates=(3200, 1))
    measured = model.measure(Workers())
    assert measured.train_rate == pytest.approx(3200)
    assert measured.query_rate == pytest.approx(10_000)
    assert measured.slowdown == 1.0
    assert 2 * cost.MEASURE_SECONDS <= clock.seconds - 3 * 60 < 2 * cost.MEASURE_SECONDS + 0.5, "and no longer"


def test_bytes_are_those_of_all_tensors_and_of_the_published_weights(clock):
    measured = FakeModel(clock, rates=(3200, 1)).measure(Workers())
    assert measured.weights == 48 + 10
    assert measured.state == 48 + 10 + 48 + 16 + 7
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 50e6 < measured.memory < total, "bytes: a process that has imported torch takes more than 50 MB"


@pytest.mark.parametrize(("together", "slowdown"), [((800, 1600, 2400), 2.0), ((4000, 3200, 3200), 1.0)])
def test_the_slowdown_is_the_rate_alone_divided_by_the_mean_rate_of_all_together(clock, together, slowdown):
    events = []
    models = [
        FakeModel(clock, rates=(rate if rank else 3200, rate), events=events, name=rank)
        for rank, rate in enumerate(together)
    ]
    costs = in_threads(*map(partial, [model.measure for model in models], workers_of_a_run(3)))
    assert costs[0].slowdown == pytest.approx(slowdown)
    assert costs[0].train_rate == pytest.approx(3200), "of the leader alone"
    assert costs[1:] == [None, None]
    assert {rank for rank, _ in events[: events.index((0, "state"))]} == {0}, "the others wait meanwhile"
    assert all((rank, "steps") in events[events.index((0, "state")) :] for rank in range(3))


def test_wall_clock_seconds_of_workers_that_share_the_models():
    assert wall_clock_seconds([10] * 21, 1, 1.0) == 210
    assert wall_clock_seconds([10] * 21, 4, 1.0) == 60  # six rounds, the last for one model
    assert wall_clock_seconds([10] * 21, 4, 2.0) == 120
    assert wall_clock_seconds([], 4, 1.0) == 0


@pytest.mark.parametrize(("eval_every", "evaluations"), [(1, 10), (3, 4), (5, 2), (10, 1), (80, 1)])
def test_cost_of_a_model(eval_every, evaluations):
    """Of ten epochs; the last is always evaluated."""
    measured = Cost(train_rate=100.0, query_rate=1000.0, weights=0, state=0, memory=0)
    assert measured.seconds(500, 2000, epochs=10, eval_every=eval_every) == pytest.approx(10 * 5 + evaluations * 2)
    assert measured.seconds(500, 2000, epochs=0, eval_every=eval_every) == 0
