"""When the state of an unfinished model is saved."""

from collections.abc import Callable
from time import perf_counter

MAX_TIME_SHARE = 0.02  # of the training time that checkpoints may take
INITIAL_COST_SECONDS = 0.5  # assumed for a checkpoint until one has been timed
MIN_INTERVAL_SECONDS = 10.0  # of training between two checkpoints, however cheap they are


class Checkpoints:
    """Every `every` epochs; with None, as often as MAX_TIME_SHARE allows.

    The cost of a checkpoint is timed, disk and checksum included, and carried over from model to model. A kill then
    loses at most an epoch, 50 times the seconds of a checkpoint, or 10 seconds, whichever is longest."""

    def __init__(self, every: int | None):
        self._every = every
        self._cost = INITIAL_COST_SECONDS
        self.start_model()

    def start_model(self) -> None:
        self._last = perf_counter()

    def due(self, epoch: int) -> bool:
        if self._every:
            return epoch % self._every == 0
        return perf_counter() - self._last >= max(self._cost / MAX_TIME_SHARE, MIN_INTERVAL_SECONDS)

    def save(self, write: Callable[[], None]) -> None:
        """Call write() and time it."""
        start = perf_counter()
        write()
        self._last = perf_counter()
        self._cost = self._last - start
