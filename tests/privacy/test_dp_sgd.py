"""Private training against a naive loop over images, its accounting against Opacus called by hand, its refusals."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from opacus.accountants import PRVAccountant, RDPAccountant
from opacus.validators import ModuleValidator
from torch import nn

from lira.errors import InputError
from lira.privacy.compatibility import check_network, replace_batch_norm
from lira.privacy.dp_sgd import DPSGD
from lira.training.loop import train_model
from resnet import resnet
from tests.helpers.networks import normed
from tests.helpers.tiny_images import store

SETTINGS = dict(
    seed=5, epochs=3, lr=0.5, lr_step=None, optimizer="MSGD", batch_size=8, augment=True, precision="fp32",
    eval_every=2, test_batch_size=7,
)  # fmt: skip
TRAINING, TESTED = np.arange(3, 30), np.arange(30, 37)
SEEDS = dict(sampling=11, noise=12)


def promise(**changed):
    known = dict(
        n_images=27, batch_size=8, epochs=3, sigma=0.8, target_epsilon=None, max_grad_norm=0.5, delta=1e-5,
        max_physical_batch=64,
    )  # fmt: skip
    return DPSGD(**known | changed)


def private_net():
    return replace_batch_norm(normed(4, 3))


def train(privacy, build=private_net, on_state=lambda epoch, state: None, resume=None, **settings):
    return train_model(
        "shadow_07", build, store(), TRAINING, TESTED, **(SETTINGS | settings), on_epoch=lambda rows: None,
        progress=lambda n: None, make_private=partial(privacy.begin, **SEEDS), on_state=on_state, resume=resume,
    )  # fmt: skip


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


# --- the naive loop ------------------------------------------------------------------------------------------------


def clipped_sum(model, x, y, norm):
    """The sum over images of their gradients, each scaled to at most `norm` over all weights together."""
    total = [torch.zeros_like(weight) for weight in model.parameters()]
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        length = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        for part, g in zip(total, gradients, strict=True):
            part += g * min(1.0, norm / (length + 1e-6))
    return total


def naive_train(privacy, *, optimizer, lr, epochs=3):
    """float64 but for the noise; draws from the same generators in the documented order. Returns (model, samples)."""
    torch.manual_seed(SETTINGS["seed"])
    model, one = private_net().double(), store()
    augmentation = torch.Generator().manual_seed(SETTINGS["seed"])
    sampling, noise = (torch.Generator().manual_seed(seed) for seed in SEEDS.values())
    make = {"MSGD": partial(torch.optim.SGD, momentum=0.9), "adam": torch.optim.Adam}[optimizer]
    stepper, sizes = make(model.parameters(), lr=lr, weight_decay=1e-4), []
    for _ in range(epochs * math.ceil(27 / privacy.batch_size)):
        chosen = torch.rand(len(TRAINING), generator=sampling) < 1 / math.ceil(27 / privacy.batch_size)
        index = torch.from_numpy(TRAINING)[chosen]
        sizes.append(len(index))
        top, left = torch.randint(0, 2 * one.margin + 1, (2, len(index)), generator=augmentation)
        flip = torch.randint(0, 2, (len(index),), generator=augmentation).bool()
        x = one.batch(index, top, left, flip).double()
        total = clipped_sum(model, x, one.y[index], privacy.max_grad_norm)
        for weight, part in zip(model.parameters(), total, strict=True):
            drawn = torch.normal(0.0, privacy.sigma * privacy.max_grad_norm, weight.shape, generator=noise)
            weight.grad = (part + drawn) / (27 / math.ceil(27 / privacy.batch_size))
        stepper.step()
    return model, sizes


@pytest.mark.parametrize(("optimizer", "lr"), [("MSGD", 0.5), ("adam", 1e-3)])
@pytest.mark.parametrize("changed", [{}, {"max_physical_batch": 3}, {"batch_size": 1}, {"batch_size": 100}])
def test_the_loop_equals_a_naive_one_in_every_weight(optimizer, lr, changed):
    """Batches of 8, the same in parts of 3, batches that are often empty, and the whole set at every step."""
    privacy = promise(**changed)
    model, history = train(privacy, optimizer=optimizer, lr=lr)
    expected, sizes = naive_train(privacy, optimizer=optimizer, lr=lr)
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(value.double(), expected.state_dict()[key].double(), atol=2e-5, err_msg=key)
    assert (0 in sizes) == (privacy.batch_size == 1)
    assert history[-1]["lr"] == lr


def test_an_epoch_without_a_image_has_no_figures_and_counts():
    one = torch.tensor([5])
    for seed in range(50):
        seeds = dict(sampling=seed, noise=1)
        privacy = promise(n_images=2, batch_size=1, epochs=1)
        _, history = train_model(
            "x", private_net, store(), one.numpy(), TESTED, **SETTINGS | {"epochs": 1}, on_epoch=lambda rows: None,
            progress=lambda n: None, make_private=partial(privacy.begin, **seeds),
        )  # fmt: skip
        if history[0]["train_loss"] is None:
            break
    assert history[0]["train_accuracy"] is None
    assert history[0]["test_accuracy"] is not None
    assert history[0]["epsilon"] == privacy.epsilon > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_image_weighs_more_than_the_clipping_norm(precision):
    """Norms in bf16 would let it weigh up to 0.4 % more than the noise is made for."""
    privacy = promise(sigma=1e-9, max_grad_norm=0.1)
    heaviest = 0.0
    for seed in range(20):
        torch.manual_seed(seed)
        model = private_net()
        private = privacy.begin(model, torch.optim.SGD(model.parameters(), lr=1.0), **SEEDS)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(torch.rand(1, 3, 16, 20) * 10)
        F.cross_entropy(logits.float(), torch.tensor([1])).backward()
        private.optimizer.step()
        length = math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in model.parameters()))
        heaviest = max(heaviest, length * privacy.n_images * privacy.sample_rate)
    assert 0.0999 < heaviest < 0.1 * (1 + 1e-5)


# --- what a model depends on ---------------------------------------------------------------------------------------


def test_killed_and_resumed_is_the_same_model_to_the_bit():
    kept = {}
    whole, history = train(promise(), on_state=lambda epoch, state: kept.setdefault(epoch, state()))
    for epoch in (1, 2):
        torch.rand(100)
        again, rows = train(promise(), resume=kept[epoch])
        assert same(whole, again)
        assert [row["epsilon"] for row in rows] == [row["epsilon"] for row in history]


def test_samples_and_noise_have_seeds_of_their_own():
    model, _ = train(promise())
    assert same(model, train(promise())[0])
    for changed in ({"sampling": 1}, {"noise": 1}):
        other, _ = train_model(
            "x", private_net, store(), TRAINING, TESTED, **SETTINGS, on_epoch=lambda rows: None,
            progress=lambda n: None, make_private=partial(promise().begin, **SEEDS | changed),
        )  # fmt: skip
        assert not same(model, other), changed


def test_a_coin_does_not_show_in_the_sampling():
    """More or fewer members than planned: the rate, the steps and the scale of a step stay those of the plan."""
    model, _ = train(promise(n_images=24))
    assert (promise(n_images=24).sample_rate, promise(n_images=24).steps) == (1 / 3, 9)
    assert not same(model, train(promise())[0])


# --- epsilon -------------------------------------------------------------------------------------------------------


def test_the_epsilon_of_every_epoch_is_opacus_own_for_the_steps_taken():
    _, history = train(promise())
    by_hand = PRVAccountant()
    for row in history:
        for _ in range(4):
            by_hand.step(noise_multiplier=0.8, sample_rate=1 / 4)
        assert row["epsilon"] == pytest.approx(by_hand.get_epsilon(1e-5), rel=1e-12)
    assert promise().record()["epsilon"] == history[-1]["epsilon"]
    assert promise().record()["steps"] == 12


@pytest.mark.filterwarnings("ignore:Optimal order")
def test_where_prv_would_cost_too_much_it_is_rdp():
    by_hand = RDPAccountant()
    by_hand.history = [(0.3, 1 / 4, 12)]
    assert promise(sigma=0.3).accountant == "rdp"
    assert promise(sigma=0.3).epsilon == pytest.approx(by_hand.get_epsilon(1e-5))


@pytest.mark.parametrize("target", [0.5, 1.0, 8.0, 30.0])
@pytest.mark.parametrize("batch_size", [8, 27])
def test_a_target_epsilon_is_reached_from_below(target, batch_size):
    privacy = promise(sigma=None, target_epsilon=target, batch_size=batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0.98 * target <= privacy.epsilon <= target
    assert privacy.noise_multiplier > 0


def test_a_target_epsilon_out_of_reach_is_refused():
    with pytest.raises(InputError, match="--target-epsilon 1e-05 cannot be reached in 12 steps"):
        promise(sigma=None, target_epsilon=1e-5).provenance()


def test_training_prints_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        train(promise(batch_size=1), epochs=1)


# --- networks ------------------------------------------------------------------------------------------------------


def test_batch_normalisation_becomes_group_normalisation():
    model = replace_batch_norm(resnet("ResNet18", num_classes=10, in_channels=3))
    assert not [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert sum(isinstance(layer, nn.GroupNorm) for layer in model.modules()) == 20
    assert ModuleValidator.validate(model, strict=True) == []
    check_network(model, (3, 16, 16))  # residual blocks add in place


def test_what_has_no_batch_normalisation_is_left_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    assert replace_batch_norm(model) is model


class Mixing(nn.Sequential):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Own(nn.BatchNorm2d):
    pass


class Counting(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean += x.mean()
        return super().forward(x)


class Tied(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + F.linear(x.flatten(1), self[1].weight)


class Unused(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        return self[1](self[0](x))


def mixing(num_classes, in_channels):
    return Mixing(nn.Flatten(), nn.LazyLinear(num_classes))


def linear(kind=nn.Sequential, *first):
    return kind(*first, nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (linear(nn.Sequential, nn.BatchNorm2d(3, affine=False)), r"layer 0 \(BatchNorm2d\): BatchNorm cannot"),
        (linear(nn.Sequential, Own(3)), r"layer 0 \(Own\): it mixes the images of a batch"),
        (linear(nn.Sequential, nn.InstanceNorm2d(3, track_running_stats=True)), r"layer 0 \(InstanceNorm2d\)"),
        (linear(Mixing), "depends on the other images of the batch"),
        (linear(Counting), "buffer mean changes in training"),
        (linear(Tied), r"the per-sample gradients of 1.weight are missing or wrong"),
        (linear(Unused), r"the per-sample gradients of spare.weight are missing or wrong"),
    ],
)
def test_a_network_that_cannot_be_private_is_refused_by_name(model, reason):
    with pytest.raises(InputError, match=reason):
        check_network(replace_batch_norm(model), (3, 8, 8))


def test_the_check_draws_no_random_number():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_network(nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Dropout(0.5)), (3, 8, 8))
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    state = torch.get_rng_state()
    replace_batch_norm(model)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(before, state), "only making the layers did"


def test_a_private_residual_network_loads_back_as_a_plain_one():
    def build():
        return replace_batch_norm(resnet("ResNet18", num_classes=4, in_channels=3))

    model, history = train(promise(max_physical_batch=4), build, epochs=1, augment=False, precision="bf16")
    fresh = build()
    fresh.load_state_dict(model.state_dict())
    x = store().unaugmented(torch.from_numpy(TESTED))
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), model.eval()(x))
    assert history[-1]["test_accuracy"] is not None
