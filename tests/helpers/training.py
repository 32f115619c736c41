"""Short trainings of a small network on 27 tiny images."""

from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from common import Setup, Split, Trainer
from lira.data.images import Images
from lira.privacy.dp_sgd import DPSGD
from tests.helpers.tiny_images import images
from util import Config, DataConfig, ModelConfig, RunConfig, TrainConfig

SETTINGS = dict(epochs=3, lr=0.01, lr_step=2, optimizer="MSGD", train_batch_size=8, eval_every=2)
TRAINING_SET, TEST_SET = np.arange(3, 30), np.arange(30, 37)
SEED = 5


def fixed_split(training_set: np.ndarray = TRAINING_SET, *, seed: int = SEED) -> Any:
    """Takes the place of a Split: the same images and seeds for every model."""
    return SimpleNamespace(
        training_set=lambda role, index, first_sample: training_set,
        test_set=lambda role: TEST_SET,
        seed=lambda role, index: seed,
        exp_idx=0,
    )


def make_setup(
    network: str = "tests.helpers.networks:normed",
    *,
    data: Images | None = None,
    split: Split | None = None,
    precision: str = "fp32",
    privacy: DPSGD | None = None,
    augment: bool = True,
    test_batch_size: int = 7,
    compile: bool = False,
    **train: Any,
) -> Setup:
    """train: fields of TrainConfig that differ from SETTINGS."""
    config = Config(
        DataConfig(augment=augment),
        ModelConfig(network),
        TrainConfig(**SETTINGS | train),
        dp=None,
        run=RunConfig(test_batch_size=test_batch_size, compile=compile),
    )
    return Setup(config, data or images(), True, split or fixed_split(), torch.device("cpu"), precision, privacy)


def train(
    *network: str,
    role: str = "shadow",
    state: dict[str, Any] | None = None,
    stop_after: int | None = None,
    progress: Callable[[int], None] = lambda n: None,
    **changed: Any,
) -> Trainer:
    """Model 7 of this role of make_setup(*network, **changed), trained. state: to be continued; stop_after: epochs."""
    trainer = Trainer(make_setup(*network, **changed), role, 7)
    if state:
        trainer.state.load_state_dict(state)
    list(islice(trainer.epochs(progress), stop_after))
    return trainer
