"""Private training against a naive loop over images, and its accounted epsilon against Opacus's accountants."""

import math
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from opacus.accountants import PRVAccountant, RDPAccountant
from torch import nn

from common import Trainer, make_split
from lira.errors import InputError, ModelError
from lira.privacy.compatibility import replace_batch_norm
from lira.privacy.dp_sgd import DPSGD
from lira.privacy.per_sample import OfEachImage, OuterProducts
from lira.storage.checksums import digest
from tests.helpers import training
from tests.helpers.networks import equal_weights, normed
from tests.helpers.tiny_images import store
from tests.helpers.training import SEED, TEST_SET, TRAINING_SET, fixed_split, make_setup

NOISE_SEED, KEY = 11, (0, 1, 7)  # exp_idx, shadow, index: those of training.train()


def dp_sgd(**changes):
    defaults = {"n_images": 27, "batch_size": 8, "epochs": 3, "sigma": 0.8, "target_epsilon": None}
    defaults |= {"max_grad_norm": 0.5, "delta": 1e-5, "max_physical_batch": 64, "noise_seed": NOISE_SEED}
    return DPSGD(**defaults | changes)


def private_net():
    return replace_batch_norm(normed(4, 3))


def train(privacy, *network, training_set=TRAINING_SET, **changed):
    settings = dict(lr=0.5, lr_step=None, split=fixed_split(training_set)) | changed
    return training.train(*network, privacy=privacy, **settings)


# --- the naive loop ------------------------------------------------------------------------------------------------


def clipped_sum(model, x, y, norm):
    """The sum of the images' gradients, each scaled to at most `norm` over all weights together."""
    total = [torch.zeros_like(weight) for weight in model.parameters()]
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        length = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        for part, g in zip(total, gradients, strict=True):
            part += g * min(1.0, norm / (length + 1e-6))
    return total


def naive_train(privacy, *, optimizer, lr, canaries=None):
    """float64 except for the noise; draws from generators with the same seeds in the documented order. canaries: those
    of the target to compare with, of which coordinates, signs and coins are taken.

    Returns (model, size of each sample)."""
    torch.manual_seed(SEED)
    model, images = private_net().double(), store()
    augmentation = torch.Generator().manual_seed(SEED)
    key = (0, 0, 7) if canaries else KEY
    seeds = np.random.SeedSequence([NOISE_SEED, *key]).spawn(2)
    sampling, noise = map(np.random.default_rng, seeds)
    make = {"MSGD": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam}[optimizer]
    update, sizes = make(model.parameters(), lr=lr, weight_decay=1e-4), []
    steps_per_epoch = math.ceil(27 / privacy.batch_size)
    for _ in range(3 * steps_per_epoch):
        included = sampling.random(len(TRAINING_SET) + privacy.canaries) < 1 / steps_per_epoch
        index = torch.from_numpy(TRAINING_SET[included[: len(TRAINING_SET)]])
        sizes.append(len(index))
        top, left = torch.randint(0, 2 * images.margin + 1, (2, len(index)), generator=augmentation)
        flip = torch.randint(0, 2, (len(index),), generator=augmentation).bool()
        x = images.batch(index, top, left, flip).double()
        total = clipped_sum(model, x, images.y[index], privacy.max_grad_norm)
        if canaries:
            add_canaries(total, canaries.state_dict(), included[len(TRAINING_SET) :], privacy.max_grad_norm)
        for weight, gradient in zip(model.parameters(), total, strict=True):
            drawn = torch.from_numpy(noise.standard_normal(weight.shape, dtype=np.float32))
            noisy = gradient + drawn * privacy.sigma * privacy.max_grad_norm
            weight.grad = noisy / (27 / steps_per_epoch)
        update.step()
    return model, sizes


def add_canaries(total, canaries, included, norm):
    """canaries: their state_dict()."""
    places = zip(*(canaries[key].tolist() for key in ("tensor", "coordinate", "sign", "member")), strict=True)
    for (tensor, coordinate, sign, member), in_sample in zip(places, included, strict=True):
        if member and in_sample:
            total[tensor].view(-1)[coordinate] += sign * norm


@pytest.mark.parametrize("changes", [{"max_physical_batch": 3}, {"batch_size": 1}])
def test_weights_of_a_target_equal_those_of_a_naive_loop_with_canaries(changes):
    """Batches in physical batches of 3, and batches that are often empty."""
    privacy = dp_sgd(canaries=100, **changes)
    trainer = train(privacy, role="target", lr=0.1)
    expected, _ = naive_train(privacy, optimizer="MSGD", lr=0.1, canaries=trainer.private.canaries)
    for key, value in trainer.model.state_dict().items():
        np.testing.assert_allclose(value.double(), expected.state_dict()[key].double(), atol=2e-5, err_msg=key)
    assert train(privacy).private.canaries is None, "shadows train without"


@pytest.mark.parametrize(("optimizer", "lr"), [("MSGD", 0.1), ("adam", 1e-3)])
@pytest.mark.parametrize("changes", [{}, {"max_physical_batch": 3}, {"batch_size": 1}, {"batch_size": 100}])
def test_weights_equal_those_of_a_naive_loop(optimizer, lr, changes):
    """Batches of 8, the same in physical batches of 3, batches that are often empty, and all images at every step."""
    privacy = dp_sgd(**changes)
    trainer = train(privacy, optimizer=optimizer, lr=lr)
    expected, sizes = naive_train(privacy, optimizer=optimizer, lr=lr)
    for key, value in trainer.model.state_dict().items():
        np.testing.assert_allclose(value.double(), expected.state_dict()[key].double(), atol=2e-5, err_msg=key)
    assert (0 in sizes) == (privacy.batch_size == 1)
    assert trainer.history[-1]["lr"] == lr


def test_an_epoch_of_empty_samples_has_no_training_figures_but_is_accounted():
    for seed in range(50):
        privacy = dp_sgd(n_images=2, batch_size=1, epochs=1, noise_seed=seed)
        trainer = train(privacy, training_set=np.array([5]), epochs=1)
        row = trainer.history[0]
        if row["train_loss"] is None:
            break
    assert row["train_loss"] is row["train_accuracy"] is None
    assert row["test_accuracy"] is not None
    assert row["epsilon"] == privacy.epsilon > 0


def few_places():
    """Its second convolution has 9 places: its per-sample gradients are never computed."""
    layers = nn.Conv2d(3, 32, 5, stride=5), nn.GroupNorm(4, 32), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1)
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", [private_net, few_places])
def test_clipped_gradients_do_not_exceed_the_clipping_norm(network, precision):
    """With norms in bf16 they would by up to 0.4 %."""
    privacy = dp_sgd(sigma=1e-9, max_grad_norm=0.1)
    max_length = 0.0
    for seed in range(20):
        torch.manual_seed(seed)
        model = network()
        model(torch.zeros(1, 3, 16, 20))
        private = privacy.make_private(model, torch.optim.SGD(model.parameters(), lr=1.0), key=KEY)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(torch.rand(1, 3, 16, 20) * 10)
        private.backward(F.cross_entropy(logits.float(), torch.tensor([1])), 1)
        private.optimizer.step()
        length = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters()))
        max_length = max(max_length, length * privacy.n_images * privacy.sample_rate)
    assert 0.0999 < max_length < 0.1 * (1 + 1e-5)


def test_clipped_gradients_are_measured_and_added_without_tf32(monkeypatch):
    """On CUDA with bf16 the loop allows TF32, which would round the weight of an image by up to 0.05 %."""
    precisions = set()

    def recorded(method):
        return lambda *args: (precisions.add(torch.get_float32_matmul_precision()), method(*args))[1]

    for kind in (OfEachImage, OuterProducts):
        for name in ("norms", "weighted_sum"):
            monkeypatch.setattr(kind, name, recorded(getattr(kind, name)))
    model = private_net()
    private = dp_sgd().make_private(model, torch.optim.SGD(model.parameters(), lr=1.0), key=KEY)
    private.backward(F.cross_entropy(model(torch.rand(2, 3, 16, 20)), torch.tensor([1, 0])), 2)
    torch.set_float32_matmul_precision("high")
    try:
        private.optimizer.step()
        assert precisions == {"highest"}
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_sum_is_not_used_twice():
    model = private_net()
    private = dp_sgd().make_private(model, torch.optim.SGD(model.parameters(), lr=1.0), key=KEY)
    for step in range(2):
        private.backward(F.cross_entropy(model(torch.rand(2, 3, 16, 20)), torch.tensor([1, 0])), 2)
        if step:
            with pytest.raises(ValueError, match="zero_grad\\(\\) must be called after each step"):
                private.optimizer.step()
        else:
            private.optimizer.step()


# --- what a model depends on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "n_now"), [(1, 50), (2, 0)])
def test_a_continued_training_is_bit_identical(epochs, n_now):
    """With the canaries that it began with, whatever the flag says now."""
    how = dict(role="target")
    complete = train(dp_sgd(canaries=50), **how)
    state = train(dp_sgd(canaries=50), stop_after=epochs, **how).state.state_dict()
    assert len(state["history"]) == epochs
    torch.rand(100)
    continued = train(dp_sgd(canaries=n_now), state=state, **how)
    assert equal_weights(complete.model, continued.model)
    assert [row["epsilon"] for row in continued.history] == [row["epsilon"] for row in complete.history]
    assert digest(continued.private.canaries.results()) == digest(complete.private.canaries.results())


def test_a_target_begun_without_canaries_goes_on_without():
    state = train(dp_sgd(), role="target", stop_after=1).state.state_dict()
    assert "canaries" not in state["privacy"]
    assert train(dp_sgd(canaries=50), role="target", state=state).private.canaries is None


def test_noise_follows_from_a_noise_seed_alone_and_else_from_the_operating_system():
    model = train(dp_sgd()).model
    assert equal_weights(model, train(dp_sgd()).model)
    for noise_seed in (NOISE_SEED + 1, NOISE_SEED + 2**32, None):
        assert not equal_weights(model, train(dp_sgd(noise_seed=noise_seed)).model), noise_seed
    secret = dp_sgd(noise_seed=None)
    assert not equal_weights(train(secret).model, train(secret).model)
    assert "nominal" in dp_sgd().describe()
    assert "nominal" not in secret.describe()


def test_every_model_of_a_noise_seed_has_its_own_noise():
    split = make_split(37, 12, n_train=None, exp_idx=0, inclusion="half")
    setups = [make_setup(split=replace(split, exp_idx=exp_idx), privacy=dp_sgd()) for exp_idx in (0, 1)]
    models = [(setup, role, index) for setup in setups for role in ("target", "shadow") for index in (0, 1)]
    assert len({str(Trainer(*model).private.state_dict()) for model in models}) == 8


def test_a_network_that_keeps_an_image_later_is_not_published():
    trainer = Trainer(make_setup("tests.helpers.networks:keeps_a_later_image", privacy=dp_sgd()), "shadow", 7)
    trainer.private.check_weights()
    list(trainer.epochs())
    with pytest.raises(ModelError, match="seen changed in training: it is no trained weight, and would be published"):
        trainer.private.check_weights()


def test_sampling_does_not_depend_on_the_number_of_members():
    """More or fewer members than planned: rate, steps and scale of a step stay as planned."""
    model = train(dp_sgd(n_images=24)).model
    assert (dp_sgd(n_images=24).sample_rate, dp_sgd(n_images=24).steps) == (1 / 3, 9)
    assert not equal_weights(model, train(dp_sgd()).model)


# --- epsilon -------------------------------------------------------------------------------------------------------


def test_epsilon_of_each_epoch_is_that_of_opacus_for_the_steps_taken():
    history = train(dp_sgd()).history
    accountant = PRVAccountant()
    for row in history:
        for _ in range(4):
            accountant.step(noise_multiplier=0.8, sample_rate=1 / 4)
        assert row["epsilon"] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-12)
    assert dp_sgd().guarantee()["epsilon"] == history[-1]["epsilon"]
    assert dp_sgd().guarantee()["steps"] == 12


@pytest.mark.filterwarnings("ignore:Optimal order")
def test_large_epsilon_is_accounted_by_rdp():
    accountant = RDPAccountant()
    accountant.history = [(0.3, 1 / 4, 12)]
    assert dp_sgd(sigma=0.3).accountant == "rdp"
    assert dp_sgd(sigma=0.3).epsilon == pytest.approx(accountant.get_epsilon(1e-5))


@pytest.mark.parametrize("target", [0.5, 1.0, 8.0, 30.0])
@pytest.mark.parametrize("batch_size", [8, 27])
def test_epsilon_is_just_below_the_target(target, batch_size):
    privacy = dp_sgd(sigma=None, target_epsilon=target, batch_size=batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0.98 * target <= privacy.epsilon <= target
    assert privacy.noise_multiplier > 0


def test_unreachable_target_epsilon_is_rejected():
    with pytest.raises(InputError, match="--target-epsilon 1e-05 cannot be reached in 12 steps"):
        dp_sgd(sigma=None, target_epsilon=1e-5).provenance()


def test_training_prints_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        train(dp_sgd(batch_size=1), epochs=1)


def test_weights_of_a_private_residual_network_load_into_a_plain_one():
    trainer = train(dp_sgd(max_physical_batch=4), "ResNet18", epochs=1, augment=False, precision="bf16")
    plain = trainer.setup.build()
    plain.load_state_dict(trainer.model.state_dict())
    x = trainer.store.unaugmented(torch.from_numpy(TEST_SET)).contiguous()  # as in private training with GroupNorm
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), trainer.model.eval()(x))
    assert trainer.history[-1]["test_accuracy"] is not None
