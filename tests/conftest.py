"""One thread for all tests, and one small finished run that the tests of the two scripts read."""

import os

import pytest
import torch

from tests.helpers.scripts import FLAGS, FinishedRun

torch.set_num_threads(1)  # repetition is bit-identical for equal numbers of threads


@pytest.fixture(scope="session", autouse=True)
def _no_fsync():
    """Forcing files to disk takes seconds on a busy machine, and no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of two targets and four shadows, trained and attacked by main(). Read only: see `run_copy`."""
    return FinishedRun.create(tmp_path_factory.mktemp("finished"), FLAGS)


@pytest.fixture
def run_copy(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return finished.copy(tmp_path)
