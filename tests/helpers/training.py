"""Short trainings of a small network on 27 tiny images."""

import dataclasses

import numpy as np

from lira.training.loop import TrainingSettings, train_model
from tests.helpers.networks import normed

SETTINGS = dict(epochs=3, lr=0.01, lr_step=2, optimizer="MSGD", batch_size=8, augment=True)
EVALUATION = dict(precision="fp32", eval_every=2, test_batch_size=7)
TRAINING_SET, TEST_SET = np.arange(3, 30), np.arange(30, 37)
SEED = 5


def train(images, build=lambda: normed(4, 3), *, training_set=TRAINING_SET, **changed):
    """(model, history) of train_model(); changed: some of its settings and arguments."""
    fields = {field.name for field in dataclasses.fields(TrainingSettings)}
    settings = SETTINGS | EVALUATION | {name: changed.pop(name) for name in fields & changed.keys()}
    options = dict(seed=SEED, progress=lambda n: None, on_epoch=lambda history: None) | changed
    return train_model("shadow_07", build, images, training_set, TEST_SET, TrainingSettings(**settings), **options)
