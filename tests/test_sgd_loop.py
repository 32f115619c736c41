"""The SGD loop against a naive one: the same images, the optimizers' formulas written out."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common import OPTIMIZERS, Setup, Trainer, epoch_batches, make_split
from lira.data.store import ImageStore
from lira.errors import ModelError
from tests.helpers.networks import equal_weights
from tests.helpers.tiny_images import images, store
from tests.helpers.training import SEED, TEST_SET, TRAINING_SET, fixed_split, make_setup, train

# --- the naive loop ------------------------------------------------------------------------------------------------


def naive_batch(data, index, augmentation, margin):
    """Pad, crop, flip and normalize image by image, in float64."""
    pixels, batch = torch.cat([data.x_train, data.x_test]), []
    height, width = pixels.shape[2:]
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (data.mean, data.std))
    for i, top, left, flip in zip(index.tolist(), *(column.tolist() for column in augmentation), strict=True):
        x = F.pad(pixels[i], [margin] * 4)[:, top : top + height, left : left + width]
        x = x.flip(2) if flip else x
        batch.append((x.double() / 255 - mean) / std)
    return torch.stack(batch)


def step_sgd(w, g, state, lr):
    return w - lr * g


def step_msgd(w, g, state, lr):
    state["v"] = g if "v" not in state else 0.9 * state["v"] + g
    return w - lr * state["v"]


def step_adam(w, g, state, lr):
    state["t"] = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["s"] = 0.999 * state.get("s", 0) + 0.001 * g * g
    m, s = state["m"] / (1 - 0.9 ** state["t"]), state["s"] / (1 - 0.999 ** state["t"])
    return w - lr * m / (s.sqrt() + 1e-8)


def step_rmsprop(w, g, state, lr):
    state["s"] = 0.99 * state.get("s", 0) + 0.01 * g * g
    return w - lr * g / (state["s"].sqrt() + 1e-8)


STEPS = {"SGD": step_sgd, "MSGD": step_msgd, "adam": step_adam, "RMSprop": step_rmsprop}


def naive_train(setup):
    """float64 throughout; only the random draws come from the same generator, in the same order."""
    data, settings, margin = setup.images, setup.config.train, setup.store.margin
    torch.manual_seed(SEED)
    model = setup.build().double()
    generator = torch.Generator().manual_seed(SEED)
    states = [{} for _ in model.parameters()]
    labels = torch.cat([data.y_train, data.y_test])
    training_set = torch.from_numpy(TRAINING_SET)
    for epoch in range(1, settings.epochs + 1):
        rate = settings.lr if settings.lr_step and epoch <= settings.lr_step else settings.lr / 10
        if settings.lr_schedule == "cosine":
            rate = settings.lr * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs)) / 2
        order = training_set[torch.randperm(len(training_set), generator=generator)]
        top = left = torch.full((len(order),), margin)
        mirrored = torch.zeros(len(order), dtype=torch.bool)
        if setup.config.data.augment:
            top, left = torch.randint(0, 2 * margin + 1, (2, len(order)), generator=generator)
            mirrored = torch.randint(0, 2, (len(order),), generator=generator).bool()
        for start in range(0, len(order), settings.train_batch_size):
            rows = slice(start, start + settings.train_batch_size)
            x = naive_batch(data, order[rows], (top[rows], left[rows], mirrored[rows]), margin)
            loss = -torch.log_softmax(model(x), 1)[torch.arange(len(x)), labels[order[rows]]].mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for w, g, state in zip(model.parameters(), gradients, states, strict=True):
                    w.copy_(STEPS[settings.optimizer](w, g + settings.weight_decay * w, state, rate))
    return model


@pytest.mark.parametrize(("optimizer", "lr"), [("SGD", 0.05), ("MSGD", 0.02), ("adam", 1e-3), ("RMSprop", 3e-4)])
@pytest.mark.parametrize("augment", [True, False])
def test_the_loop_equals_a_naive_one_in_every_weight(optimizer, lr, augment):
    """Three epochs of three batches and a rest, the learning rate step after two; weight decay changes 1e-4 here."""
    trainer = train(lr=lr, optimizer=optimizer, augment=augment)
    assert_same_weights(trainer.model, naive_train(trainer.setup))
    assert [row["lr"] for row in trainer.history] == pytest.approx([lr, lr, lr / 10])


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_cosine_falls_from_epoch_to_epoch(weight_decay):
    """From lr towards 0 at the end of the last epoch, like torch's CosineAnnealingLR stepped once per epoch."""
    trainer = train(lr=0.02, lr_schedule="cosine", lr_step=None, weight_decay=weight_decay)
    assert_same_weights(trainer.model, naive_train(trainer.setup))
    assert [row["lr"] for row in trainer.history] == pytest.approx([0.02, 0.015, 0.005])


@pytest.mark.parametrize("name", ["ConvNet", "ResNet18", "WRN28-2"])
def test_an_epoch_of_the_real_networks_equals_a_naive_one_in_every_weight(name, monkeypatch):
    """Shifted and mirrored images in channels_last, in float64 too: in fp32 the rounding moves values across ReLU's
    kink, and batch normalization amplifies that to 1e-4 with most seeds. Weights change by up to 5e-3."""
    build = Setup.build
    monkeypatch.setattr(Setup, "build", lambda setup: build(setup).double())
    for method in ("batch", "unaugmented"):
        make = getattr(ImageStore, method)
        monkeypatch.setattr(ImageStore, method, lambda *arguments, make=make: make(*arguments).double())
    trainer = train(name, data=images(size=(16, 16)), epochs=1, lr=0.003, train_batch_size=14)
    assert_same_weights(trainer.model, naive_train(trainer.setup), atol=1e-6)


def assert_same_weights(model, expected, *, atol=1e-5):
    expected = expected.state_dict()
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(value.double(), expected[key].double(), rtol=0, atol=atol, err_msg=key)


def test_every_optimizer_is_tested():
    assert STEPS.keys() == OPTIMIZERS.keys()


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [(17, 8, [8, 9]), (16, 8, [8, 8]), (18, 8, [8, 8, 2]), (1, 8, [1]), (9, 8, [9]), (8, 8, [8]), (5, 100, [5])],
)
def test_a_last_batch_of_one_image_is_added_to_the_batch_before(n, size, expected):
    training_set = torch.arange(100, 100 + n)
    batches = list(epoch_batches(store(), training_set, torch.Generator().manual_seed(0), size=size, augment=True))
    assert [len(index) for index, *_ in batches] == expected
    assert all(len(column) == len(batch[0]) for batch in batches for column in batch)
    assert sorted(torch.cat([index for index, *_ in batches]).tolist()) == training_set.tolist()


def test_every_image_occurs_once_per_epoch_each_time_in_a_new_order():
    generator, training_set, epochs = torch.Generator().manual_seed(0), torch.arange(50, 90), []
    for _ in range(3):
        batches = epoch_batches(store(), training_set, generator, size=7, augment=True)
        epochs.append(torch.cat([index for index, *_ in batches]).tolist())
    assert all(sorted(epoch) == training_set.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


def test_progress_counts_every_image():
    counts = []
    train(progress=counts.append)
    assert sum(counts) == 3 * len(TRAINING_SET)


def test_the_timed_parts_of_an_epoch_and_of_the_evaluation_tell_their_number_of_images():
    trainer = Trainer(make_setup(test_batch_size=3), "target", 0)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    assert trainer.evaluate_part() == 6
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())
    assert trainer.take_steps(2) == 16
    assert trainer.model.state_dict()["1.num_batches_tracked"] == 2
    assert trainer.take_steps(10) == 27  # an epoch has four batches


# --- what a model depends on, and what is logged -------------------------------------------------------------------


@pytest.mark.parametrize("role", ["target", "shadow"])
def test_a_trainer_has_the_images_and_the_seed_of_its_role_and_index(role):
    split = make_split(37, 12, n_train=None, exp_idx=0, inclusion="half")
    trainer = Trainer(make_setup(split=split), role, 3)
    assert trainer.name == f"{role}_03"
    assert trainer.training_set.tolist() == split.training_set(role, 3, first_sample=37).tolist()
    assert trainer.test_set.tolist() == split.test_set(role).tolist()
    assert trainer.generator.initial_seed() == split.seed(role, 3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_model_depends_on_its_seed_alone(precision):
    first = train(precision=precision).model
    torch.rand(100)  # earlier draws do not matter
    assert equal_weights(first, train(precision=precision).model)
    assert not equal_weights(first, train(precision=precision, split=fixed_split(seed=6)).model)


def test_evaluation_does_not_change_the_model():
    assert equal_weights(train(eval_every=1, test_batch_size=3).model, train(eval_every=50).model)


def test_compiled_code_trains_the_same_model(monkeypatch):
    """Dynamo's graphs with eager kernels: full batches, the last one of an epoch, evaluation; keys do not change."""
    calls, real_compile = [], nn.Module.compile

    def compile_without_kernels(self, **settings):
        calls.append(settings)
        real_compile(self, backend="eager", **settings)

    monkeypatch.setattr(nn.Module, "compile", compile_without_kernels)
    plain, compiled = train().model, train(compile=True).model
    assert calls == [{"dynamic": False}]
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert_same_weights(compiled, plain)


def test_weights_stay_fp32_under_bf16():
    model = train(precision="bf16").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not equal_weights(model, train().model)


def test_the_history_has_one_row_per_epoch():
    trainer, history = Trainer(make_setup(epochs=5, eval_every=2), "shadow", 7), []
    for row in trainer.epochs():
        history.append(row)
        assert trainer.history == history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert {row["model"] for row in history} == {"shadow_07"}
    assert [row["test_accuracy"] is not None for row in history] == [False, True, False, True, True]
    assert [row["lr"] for row in history] == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.001])
    assert all(0 <= row["train_accuracy"] <= 1 < row["train_loss"] + 1 for row in history)


def test_test_loss_and_accuracy_are_those_of_eval_mode():
    trainer = train()
    row = trainer.history[-1]
    trainer.model.train()  # evaluate() switches to eval mode
    assert trainer.evaluate(torch.from_numpy(TEST_SET)) == (row["test_loss"], row["test_accuracy"])
    assert_loss_and_accuracy(trainer, TEST_SET, row["test_loss"], row["test_accuracy"])


def test_train_loss_and_accuracy_are_means_over_images_not_over_batches():
    """With a learning rate near 0 and no augmentation all batches see the same weights: the mean is that of all."""
    trainer = train("tests.helpers.networks:mlp", lr=1e-12, epochs=1, augment=False)
    row = trainer.history[0]
    assert_loss_and_accuracy(trainer, TRAINING_SET, row["train_loss"], row["train_accuracy"])


def assert_loss_and_accuracy(trainer, index, loss, accuracy):
    images, index = trainer.store, torch.from_numpy(index)
    with torch.no_grad():
        logits, label = trainer.model.eval()(images.unaugmented(index)), images.y[index]
    assert loss == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == label).float().mean().item())


def test_evaluation_batches_on_cpu_hold_at_most_256_images():
    sizes = []
    for test_batch_size in (1024, 250):
        trainer = Trainer(make_setup(data=images(n_train=600), test_batch_size=test_batch_size), "shadow", 7)
        trainer.model.register_forward_hook(lambda module, inputs, logits: sizes.append(len(logits)))
        trainer.evaluate(torch.arange(600))
    assert sizes == [256, 256, 88, 250, 250, 100]


@pytest.mark.parametrize(
    "settings",  # in the training loss; in the test loss only
    [dict(lr=1e30, epochs=3, eval_every=3), dict(lr=1e36, epochs=1, train_batch_size=100)],
)
def test_a_loss_that_is_not_finite_is_a_model_error(settings):
    with pytest.raises(ModelError, match=r"^the loss is (nan|inf) in epoch 1 at learning rate 1e\+3\d; lower --lr$"):
        train(**settings)
