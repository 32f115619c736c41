"""The SGD loop against a naive one: the same images, the optimizers' formulas written out."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import network
from lira.errors import ModelError
from lira.training.loop import (
    OPTIMIZERS,
    Trainer,
    TrainingSettings,
    epoch_batches,
    evaluate,
    out_of_memory_as_model_error,
)
from tests.helpers.networks import equal_weights, mlp, normed
from tests.helpers.tiny_images import images, store
from tests.helpers.training import EVALUATION, SEED, SETTINGS, TEST_SET, TRAINING_SET, train

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


def naive_train(data, margin, flip, build, *, epochs, lr, lr_step, optimizer, batch_size, augment):
    """float64 throughout; only the random draws come from the same generator, in the same order."""
    torch.manual_seed(SEED)
    model = build().double()
    generator = torch.Generator().manual_seed(SEED)
    states = [{} for _ in model.parameters()]
    labels = torch.cat([data.y_train, data.y_test])
    training_set = torch.from_numpy(TRAINING_SET)
    for epoch in range(1, epochs + 1):
        rate = lr if epoch <= lr_step else lr / 10
        order = training_set[torch.randperm(len(training_set), generator=generator)]
        top = left = torch.full((len(order),), margin)
        mirrored = torch.zeros(len(order), dtype=torch.bool)
        if augment:
            top, left = torch.randint(0, 2 * margin + 1, (2, len(order)), generator=generator)
            mirrored = torch.randint(0, 2, (len(order),), generator=generator).bool() & flip
        for start in range(0, len(order), batch_size):
            rows = slice(start, start + batch_size)
            x = naive_batch(data, order[rows], (top[rows], left[rows], mirrored[rows]), margin)
            loss = -torch.log_softmax(model(x), 1)[torch.arange(len(x)), labels[order[rows]]].mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for w, g, state in zip(model.parameters(), gradients, states, strict=True):
                    w.copy_(STEPS[optimizer](w, g + 1e-4 * w, state, rate))
    return model


@pytest.mark.parametrize(("optimizer", "lr"), [("SGD", 0.05), ("MSGD", 0.02), ("adam", 1e-3), ("RMSprop", 3e-4)])
@pytest.mark.parametrize("augment", [True, False])
def test_the_loop_equals_a_naive_one_in_every_weight(optimizer, lr, augment):
    """Three epochs of three batches and a rest, the learning rate step after two; weight decay changes 1e-4 here."""
    settings = SETTINGS | dict(lr=lr, optimizer=optimizer, augment=augment)
    model, history = train(store(), **settings)
    expected = naive_train(images(), store().margin, True, lambda: normed(4, 3), **settings)
    assert_same_weights(model, expected)
    assert [row["lr"] for row in history] == pytest.approx([lr, lr, lr / 10])


@pytest.mark.parametrize("name", ["ConvNet", "ResNet18"])
def test_an_epoch_of_the_real_networks_equals_a_naive_one_in_every_weight(name):
    """Shifted and mirrored images in channels_last fp32 on one thread, against float64 image by image. Weights change
    by up to 5e-3; with smaller batches or larger steps batch normalization would amplify the rounding of fp32."""
    data, in_store = images(size=(16, 16)), store(size=(16, 16))
    build = partial(network.build, name, num_classes=4, in_channels=3, size=(16, 16))
    settings = SETTINGS | dict(epochs=1, lr=0.003, batch_size=14)
    model, _ = train(in_store, build, **settings)
    assert_same_weights(model, naive_train(data, in_store.margin, True, build, **settings))


def assert_same_weights(model, expected):
    expected = expected.state_dict()
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(value.double(), expected[key].double(), rtol=0, atol=1e-5, err_msg=key)


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
    train(store(), progress=counts.append)
    assert sum(counts) == 3 * len(TRAINING_SET)


# --- what a model depends on, and what is logged -------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_model_depends_on_its_seed_alone(precision):
    first, _ = train(store(), precision=precision)
    torch.rand(100)  # earlier draws do not matter
    assert equal_weights(first, train(store(), precision=precision)[0])
    assert not equal_weights(first, train(store(), precision=precision, seed=6)[0])


def test_evaluation_does_not_change_the_model():
    assert equal_weights(train(store(), eval_every=1, test_batch_size=3)[0], train(store(), eval_every=50)[0])


def test_compiled_code_trains_the_same_model(monkeypatch):
    """Dynamo's graphs with eager kernels: full batches, the last one of an epoch, evaluation; keys do not change."""
    calls, real_compile = [], nn.Module.compile

    def compile_without_kernels(self, **settings):
        calls.append(settings)
        real_compile(self, backend="eager", **settings)

    monkeypatch.setattr(nn.Module, "compile", compile_without_kernels)
    plain, compiled = train(store())[0], train(store(), compiled=True)[0]
    assert calls == [{"dynamic": False}]
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert_same_weights(compiled, plain)


def test_weights_stay_fp32_under_bf16():
    model, _ = train(store(), precision="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not equal_weights(model, train(store())[0])


def test_the_history_has_one_row_per_epoch():
    lengths = []
    _, history = train(store(), epochs=5, eval_every=2, on_epoch=lambda history: lengths.append(len(history)))
    assert lengths == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert {row["model"] for row in history} == {"shadow_07"}
    assert [row["test_accuracy"] is not None for row in history] == [False, True, False, True, True]
    assert [row["lr"] for row in history] == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.001])
    assert all(0 <= row["train_accuracy"] <= 1 < row["train_loss"] + 1 for row in history)


def test_test_loss_and_accuracy_are_those_of_eval_mode():
    images = store()
    model, history = train(images)
    assert_loss_and_accuracy(model.eval(), images, TEST_SET, history[-1]["test_loss"], history[-1]["test_accuracy"])
    model.train()  # evaluate() switches to eval mode
    loss, _ = evaluate(model, images, torch.from_numpy(TEST_SET), batch_size=3, precision="fp32")
    assert loss == pytest.approx(history[-1]["test_loss"])


def test_train_loss_and_accuracy_are_means_over_images_not_over_batches():
    """With a learning rate near 0 and no augmentation all batches see the same weights: the mean is that of all."""
    images = store()
    model, (row,) = train(images, lambda: mlp(4, 3), lr=1e-12, epochs=1, augment=False)
    assert_loss_and_accuracy(model, images, TRAINING_SET, row["train_loss"], row["train_accuracy"])


def assert_loss_and_accuracy(model, images, index, loss, accuracy):
    with torch.no_grad():
        logits, label = model(images.unaugmented(torch.from_numpy(index))), images.y[torch.from_numpy(index)]
    assert loss == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == label).float().mean().item())


def test_evaluation_batches_on_cpu_hold_at_most_256_images():
    sizes, model = [], normed(4, 3)
    model.register_forward_hook(lambda module, inputs, logits: sizes.append(len(logits)))
    for batch_size in (1024, 250):
        evaluate(model, store(n_train=600), torch.arange(600), batch_size=batch_size, precision="fp32")
    assert sizes == [256, 256, 88, 250, 250, 100]


# --- models that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [dict(lr=1e30, epochs=3), dict(lr=1e36, epochs=1, batch_size=100)],  # in the training loss; in the test loss only
)
def test_a_loss_that_is_not_finite_names_the_model(settings):
    with pytest.raises(ModelError, match=r"^shadow_07: the .*loss is (nan|inf).* epoch \d.*lower --lr$"):
        train(store(), **settings)


def test_out_of_memory_is_a_model_error():
    with (
        pytest.raises(ModelError, match=r"shadow_07: out of memory .*--train-batch-size \(256\)"),
        out_of_memory_as_model_error("shadow_07", "--train-batch-size (256)"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has …")
    with pytest.raises(RuntimeError, match="something else"), out_of_memory_as_model_error("shadow_07", "--flag"):
        raise RuntimeError("something else")


def test_resume_file_of_a_changed_network():
    def trainer(width):
        settings = TrainingSettings(**SETTINGS, **EVALUATION)
        return Trainer("shadow_02", lambda: nn.Linear(2, width), torch.device("cpu"), settings, seed=0)

    state = trainer(3).state_dict()
    trainer(3).load_state_dict(state)
    with pytest.raises(ModelError, match="shadow_02: its resume file does not fit the network, whose code has changed"):
        trainer(4).load_state_dict(state)
