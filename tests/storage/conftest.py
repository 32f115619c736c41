"""A run without models."""

import pytest

from lira.storage.runs import open_run


@pytest.fixture(scope="session")
def identity():
    return {
        **dict(dataset="digits", network="ConvNet", optimizer="MSGD", lr=0.05, batch_size=256, epochs=40),
        **dict(precision="bf16", augment=True, n_train=478, n_train_is_default=True, exp_idx=0, lr_step=80),
        **dict(target_inclusion="half", data_fingerprint="f" * 64),
    }


@pytest.fixture
def run(tmp_path, identity):
    return open_run(tmp_path / "model", tmp_path / "result", identity, provenance={"command": "train"})
