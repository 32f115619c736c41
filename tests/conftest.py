"""One thread for all tests, and one small finished run that the tests of the two scripts look at."""

import os

import pytest
import torch

from tests.helpers.scripts import FLAGS, Finished

torch.set_num_threads(1)  # repetition is bit-identical for equal numbers of threads


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """Every row of every log is forced to disk: seconds on a busy machine, and no test pulls the plug."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run of two targets and four shadows, trained and attacked by main(). Look, do not touch: see `own`."""
    return Finished.made_in(tmp_path_factory.mktemp("finished"), FLAGS)


@pytest.fixture
def own(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return finished.copy(tmp_path)
