"""Runs train_model.main and kills it, without a chance to clean up, at a chosen moment of its writing to disk.

    torchrun … tests/helpers/killing.py MOMENT train_model's flags …      (kills rank 1, before the first restart only)

A moment is a step of a write: a temporary file opened, each part of its bytes written, forced to disk, renamed, the
folder forced to disk, a file removed. Whatever a process does between two moments leaves the same files behind."""

import os
import resource
import signal
import sys
from multiprocessing import get_context
from pathlib import Path

PARTS = 3  # in which the bytes of a file are written


class Moments:
    """Counts the moments, and kills this process at the one that is asked for."""

    def __init__(self, fatal: int | None = None):
        self.passed, self.fatal = 0, fatal

    def __call__(self):
        self.passed += 1
        if self.passed == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function):
        def counted(*args, **kwargs):
            self()
            return function(*args, **kwargs)

        return counted

    def install(self):
        """Only for a process that is thrown away: nothing puts the original functions back."""
        fdopen = os.fdopen

        def opened(*args, **kwargs):
            file = fdopen(*args, **kwargs)
            if "w" in str(args[1:]):
                file = _Parts(file, self)
            return file

        os.fdopen = opened
        os.fsync = self.around(os.fsync)
        Path.replace = self.around(Path.replace)
        Path.unlink = self.around(Path.unlink)


class _Parts:
    """A file that writes its bytes in parts, each of them on its way to the disk before the next moment."""

    def __init__(self, file, moments):
        self._file, self._moments = file, moments

    def write(self, content):
        content = memoryview(content).cast("B")
        step = -(-len(content) // PARTS) or 1
        for start in range(0, len(content), step):
            self._file.write(content[start : start + step])
            self._file.flush()
            self._moments()
        return len(content)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def _child(argv, fatal, limit, result):
    import torch

    import train_model

    torch.set_num_threads(1)
    moments = Moments(fatal)
    moments.install()
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    result.put((train_model.main(argv), moments.passed))


def start(argv, *, fatal=None, limit=None):
    """A process of its own that runs train_model.main(argv), from a server that has imported everything already.

    fatal: the moment at which it dies; limit: bytes a file may grow to, as a stand-in for a full disk."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["train_model"])
    result = context.SimpleQueue()
    process = context.Process(target=_child, args=(argv, fatal, limit, result))
    process.start()
    process.result = result
    return process


def run(argv, **how):
    """Start, wait. Returns (exit status of main, moments that passed); (None, None) for one that was killed."""
    process = start(argv, **how)
    process.join_workers()
    return process.result.get() if process.exitcode == 0 else (None, None)


def _as_worker(moment, argv):
    """One of torchrun's two workers; they begin together, so that the second has a model to die of."""
    import train_model

    train_all = train_model.fleet.train_all

    def begin_together(*args, workers, **kwargs):
        if not workers.restarts:
            workers.barrier("begin the test")
            if workers.rank == 1:
                Moments(moment).install()
        return train_all(*args, workers=workers, **kwargs)

    train_model.fleet.train_all = begin_together
    return train_model.main(argv)


if __name__ == "__main__":
    sys.exit(_as_worker(int(sys.argv[1]), sys.argv[2:]))
