"""Runs train_model.main and kills it, without a chance to clean up, at a chosen step of its writing to disk.

    torchrun … tests/helpers/killing.py STEP train_model's flags …      (kills rank 1, before the first restart only)

A step: a temporary file opened, a part of its bytes written, forced to disk, renamed, the folder forced to disk, a
file removed. What a process does between two steps does not change the files on disk."""

import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path

import torch

from lira.storage.checksums import digest

PARTS = 3  # in which the bytes of a file are written
PRELOADED = [f"lira.{name}" for name in ("privacy.dp_sgd", "training.cost", "training.progress", "training.schedule")]


class WriteSteps:
    """Counts the steps, and kills this process at step kill_at."""

    def __init__(self, kill_at: int | None = None):
        self.count, self.kill_at = 0, kill_at

    def __call__(self):
        self.count += 1
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, function):
        def counted(*args, **kwargs):
            self()
            return function(*args, **kwargs)

        return counted

    def install(self):
        """Only for a process that is thrown away: the original functions are not restored."""
        fdopen = os.fdopen

        def opened(*args, **kwargs):
            file = fdopen(*args, **kwargs)
            if "w" in str(args[1:]):
                file = _FileInParts(file, self)
            return file

        os.fdopen = opened
        os.fsync = self.before(os.fsync)
        Path.replace = self.before(Path.replace)
        Path.unlink = self.before(Path.unlink)


class _FileInParts:
    """A file that writes its bytes in parts, each flushed before the next step."""

    def __init__(self, file, steps):
        self._file, self._steps = file, steps

    def write(self, content):
        content = memoryview(content).cast("B")
        size = -(-len(content) // PARTS) or 1
        for start in range(0, len(content), size):
            self._file.write(content[start : start + size])
            self._file.flush()
            self._steps()
        return len(content)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def _child(argv, kill_at, result):
    import train_model

    torch.set_num_threads(1)
    steps = WriteSteps(kill_at)
    steps.install()
    result.put((train_model.main(argv), steps.count))


def start(argv, *, kill_at=None):
    """A new process that runs train_model.main(argv) and is killed at the step kill_at.

    It is forked from a server that has imported everything already."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.killing", "common", *PRELOADED])
    result = context.SimpleQueue()
    process = context.Process(target=_child, args=(argv, kill_at, result))
    process.start()
    process.result = result
    return process


def run(argv, **settings):
    """Start, wait. Returns (exit status of main, number of steps); (None, None) if the process was killed."""
    process = start(argv, **settings)
    process.join()
    return process.result.get() if process.exitcode == 0 else (None, None)


def weights(folder):
    """File name -> digest of the weights of every model under folder."""
    paths = sorted((folder / "model").glob("*/*.pt"))
    return {path.name: digest(torch.load(path, weights_only=True)["weights"]) for path in paths}


def _as_worker(kill_at, argv):
    """One of torchrun's two workers. They begin together, so that the second gets a model before it is killed."""
    import train_model
    from lira.training import schedule

    turns = schedule.turns

    def begin_together(jobs, workers):
        if not workers.restarts:
            workers.barrier("begin the test")
            if workers.rank == 1:
                WriteSteps(kill_at).install()
        return turns(jobs, workers)

    schedule.turns = begin_together
    return train_model.main(argv)


if __name__ == "__main__":
    sys.exit(_as_worker(int(sys.argv[1]), sys.argv[2:]))
