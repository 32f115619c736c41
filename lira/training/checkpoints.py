"""When the state of an unfinished model is saved."""

import time
from collections.abc import Callable

SHARE = 0.02  # of the training time, at most, goes into checkpoints
FIRST_COST = 0.5  # seconds, until one has been measured
SHORTEST = 10.0  # seconds of training that are not worth a checkpoint, however cheap


class Checkpoints:
    """Every `every` epochs, or where that is None as often as their cost stays below SHARE of the training time.

    Costs are measured, disk and checksum included, and remembered from model to model: nothing is assumed about the
    disk. A kill then costs an epoch, or 50 times what it takes to save one, or 10 seconds: whichever is most."""

    def __init__(self, every: int | None, *, clock: Callable[[], float] = time.perf_counter):
        self._every, self._clock = every, clock
        self._cost = FIRST_COST
        self.start_model()

    def start_model(self) -> None:
        self._last = self._clock()

    def due(self, epoch: int) -> bool:
        if self._every:
            return epoch % self._every == 0
        return self._clock() - self._last >= max(self._cost / SHARE, SHORTEST)

    def save(self, write: Callable[[], None]) -> None:
        """Call write() and take its time."""
        start = self._clock()
        write()
        self._last = self._clock()
        self._cost = self._last - start
