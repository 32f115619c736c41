"""DP-SGD that is broken on purpose, in ways that the accountant does not hear of."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from lira.privacy.canaries import Canaries
from lira.privacy.dp_sgd import Noise, PrivateTraining, _Optimizer

ADD_NOISE, NORMAL, ADD = _Optimizer.add_noise, Noise.normal, Canaries.add


def noise_of_half_the_size(patch):
    patch.setattr(Noise, "normal", lambda self, like: NORMAL(self, like) / 2)


def no_noise_in_every_second_step(patch):
    def add_noise(self):
        self.n_steps = getattr(self, "n_steps", 0) + 1
        ADD_NOISE(self)
        if self.n_steps % 2 == 0:
            _without_noise(self.params)

    patch.setattr(_Optimizer, "add_noise", add_noise)


def no_noise_in_one_layer(patch):
    """The last one: its weights and its biases."""

    def add_noise(self):
        ADD_NOISE(self)
        _without_noise(self.params[-2:])

    patch.setattr(_Optimizer, "add_noise", add_noise)


def _without_noise(weights):
    for p in weights:
        p.grad = torch.empty_like(p).copy_(p.summed_grad)


def the_same_noise_in_every_step(patch):
    def add_noise(self):
        self.first_state = getattr(self, "first_state", None) or self.generator.state_dict()
        self.generator.load_state_dict(self.first_state)
        ADD_NOISE(self)

    patch.setattr(_Optimizer, "add_noise", add_noise)


def records_of_weight_2C(patch):
    def add(self, sums):
        images = [total.clone() for total in sums]
        ADD(self, sums)
        for total, before in zip(sums, images, strict=True):
            total += total - before

    patch.setattr(Canaries, "add", add)


def twice_the_sampling_rate(patch):
    patch.setattr(PrivateTraining, "_sample", lambda self, n: self._sampling.random(n) < 2 * self._privacy.sample_rate)


def shuffled_batches(patch):
    """Every record in exactly one batch of each epoch."""

    def sample(self, n):
        if not getattr(self, "batches_left", None):
            order = self._sampling.permutation(n)
            self.batches_left = np.array_split(order, self._privacy.steps_per_epoch)
        return np.isin(np.arange(n), self.batches_left.pop())

    patch.setattr(PrivateTraining, "_sample", sample)


BREAKAGES = {  # how training is broken -> the check that has to name it
    noise_of_half_the_size: "noise scale",
    no_noise_in_every_second_step: "noise scale",
    no_noise_in_one_layer: "noise scale",
    the_same_noise_in_every_step: "correlation",
    records_of_weight_2C: "weight",
    twice_the_sampling_rate: "participation",
    shuffled_batches: "once per epoch",
}


@contextmanager
def broken(breakage):
    """Inside, training is broken in this way; None: in none."""
    with pytest.MonkeyPatch.context() as patch:
        if breakage:
            breakage(patch)
        yield
