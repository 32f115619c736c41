"""A run without models."""

import pytest

from lira.storage.runs import open_run
from tests.helpers.runs import IDENTITY, RECORDED


@pytest.fixture
def run(tmp_path):
    return open_run(tmp_path / "model", tmp_path / "result", IDENTITY, record=RECORDED)
