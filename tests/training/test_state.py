"""A state saved in the middle of a training: another Trainer continues bit-identically, or rejects it."""

import pytest

from lira.errors import ModelError
from tests.helpers.networks import equal_weights
from tests.helpers.training import train

TINY = "tests.helpers.networks:tiny"  # with dropout, which draws from torch's global generator


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam"}, {"lr_schedule": "cosine", "lr_step": None}])
def test_a_continued_training_is_bit_identical(epochs, settings):
    """Weights, statistics and history, although the learning rate falls after epoch 2, or after each epoch."""
    complete = train(TINY, **settings)
    state = train(TINY, **settings, stop_after=epochs).state.state_dict()
    assert [row["epoch"] for row in state["history"]] == [1, 2][:epochs]
    state["history"][-1]["seconds"] = 1000
    continued = train(TINY, **settings, state=state)
    assert equal_weights(complete.model, continued.model)
    assert without_seconds(continued.history) == without_seconds(complete.history)
    assert continued.history[-1]["seconds"] > 1000


def without_seconds(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def test_the_state_of_a_changed_network_is_rejected():
    state = train(TINY, stop_after=1).state.state_dict()
    message = r"^its resume file does not fit the network, whose code has changed: RuntimeError: .*; restore the code"
    with pytest.raises(ModelError, match=message):
        train("tests.helpers.networks:mlp", state=state)
