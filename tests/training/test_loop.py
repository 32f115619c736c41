"""The loop against a naive one: the same images, the optimizers' formulas written out."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import network
from lira.errors import ModelError
from lira.training.loop import OPTIMIZERS, epoch_batches, evaluate, train_model
from tests.helpers.networks import normed
from tests.helpers.tiny_images import images, store

SETTINGS = dict(
    seed=5, epochs=3, lr=0.01, lr_step=2, optimizer="MSGD", batch_size=8, augment=True, precision="fp32",
    eval_every=2, test_batch_size=7,
)  # fmt: skip
TRAINING, TESTED = np.arange(3, 30), np.arange(30, 37)


def train(one, build=lambda: normed(4, 3), **settings):
    seen = []
    model, history = train_model(
        "shadow_07", build, one, TRAINING, TESTED, **(SETTINGS | settings),
        on_epoch=lambda rows: seen.append(len(rows)), progress=lambda n: None,
    )  # fmt: skip
    assert seen == list(range(1, len(history) + 1))
    return model, history


# --- the naive loop ------------------------------------------------------------------------------------------------


def naive_batch(data, index, drawn, margin):
    """Pad, crop, flip and normalise image by image, in float64."""
    everything, rows = torch.cat([data.x_train, data.x_test]), []
    mean, std = (torch.tensor(part, dtype=torch.float64)[:, None, None] for part in (data.mean, data.std))
    for i, top, left, flip in zip(index.tolist(), *(column.tolist() for column in drawn), strict=True):
        height, width = everything.shape[2:]
        x = F.pad(everything[i], [margin] * 4)[:, top : top + height, left : left + width]
        x = x.flip(2) if flip else x
        rows.append((x.double() / 255 - mean) / std)
    return torch.stack(rows)


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


def naive_train(data, margin, flip, build, *, seed, epochs, lr, lr_step, optimizer, batch_size, augment):
    """float64 throughout; only the draws come from the same generator, in the order that the loop documents."""
    torch.manual_seed(seed)
    model = build().double()
    generator = torch.Generator().manual_seed(seed)
    states = [{} for _ in model.parameters()]
    labels = torch.cat([data.y_train, data.y_test])
    training_set = torch.from_numpy(TRAINING)
    for epoch in range(1, epochs + 1):
        rate = lr if epoch <= lr_step else lr / 10
        order = training_set[torch.randperm(len(training_set), generator=generator)]
        top = left = torch.full((len(order),), margin)
        mirrored = torch.zeros(len(order), dtype=torch.bool)
        if augment:
            top, left = torch.randint(0, 2 * margin + 1, (2, len(order)), generator=generator)
            mirrored = torch.randint(0, 2, (len(order),), generator=generator).bool() & flip
        for start in range(0, len(order), batch_size):
            part = slice(start, start + batch_size)
            x = naive_batch(data, order[part], (top[part], left[part], mirrored[part]), margin)
            loss = -torch.log_softmax(model(x), 1)[torch.arange(len(x)), labels[order[part]]].mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for w, g, state in zip(model.parameters(), gradients, states, strict=True):
                    w.copy_(STEPS[optimizer](w, g + 1e-4 * w, state, rate))
    return model


@pytest.mark.parametrize(("optimizer", "lr"), [("SGD", 0.05), ("MSGD", 0.02), ("adam", 1e-3), ("RMSprop", 3e-4)])
@pytest.mark.parametrize("augment", [True, False])
def test_the_loop_equals_a_naive_one_in_every_weight(optimizer, lr, augment):
    """Three epochs of three batches and a bit, the step of the rate after two; weight decay is worth 1e-4 here."""
    data, one = images(), store()
    settings = dict(seed=5, epochs=3, lr=lr, lr_step=2, optimizer=optimizer, batch_size=8, augment=augment)
    model, history = train(one, **settings)
    expected = naive_train(data, one.margin, True, lambda: normed(4, 3), **settings)
    assert_same_weights(model, expected)
    assert [row["lr"] for row in history] == pytest.approx([lr, lr, lr / 10])


@pytest.mark.parametrize("name", ["ConvNet", "ResNet18"])
def test_an_epoch_of_the_real_networks_equals_a_naive_one_in_every_weight(name):
    """Shifted and mirrored images in channels_last fp32 on one thread, against float64 image by image. Weights
    move by up to 5e-3; smaller batches or larger steps let batch normalisation blow up what fp32 rounds."""
    data, one = images(size=(16, 16)), store(size=(16, 16))
    build = partial(network.build, name, num_classes=4, in_channels=3, size=(16, 16))
    settings = dict(seed=5, epochs=1, lr=0.003, lr_step=2, optimizer="MSGD", batch_size=14, augment=True)
    model, _ = train(one, build, **settings)
    assert_same_weights(model, naive_train(data, one.margin, True, build, **settings))


def assert_same_weights(model, expected):
    expected = expected.state_dict()
    for key, value in model.state_dict().items():
        np.testing.assert_allclose(value.double(), expected[key].double(), rtol=0, atol=1e-5, err_msg=key)


def test_the_table_of_optimizers_is_tested_in_full():
    assert STEPS.keys() == OPTIMIZERS.keys()


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [(17, 8, [8, 9]), (16, 8, [8, 8]), (18, 8, [8, 8, 2]), (1, 8, [1]), (9, 8, [9]), (8, 8, [8]), (5, 100, [5])],
)
def test_a_last_batch_of_one_joins_the_one_before(n, size, expected):
    chosen = torch.arange(100, 100 + n)
    batches = list(epoch_batches(store(), chosen, torch.Generator().manual_seed(0), size=size, augment=True))
    assert [len(index) for index, *_ in batches] == expected
    assert all(len(column) == len(batch[0]) for batch in batches for column in batch)
    assert sorted(torch.cat([index for index, *_ in batches]).tolist()) == chosen.tolist()


def test_every_image_occurs_once_an_epoch_in_an_order_of_its_own():
    generator, chosen = torch.Generator().manual_seed(0), torch.arange(50, 90)
    epochs = [
        torch.cat([index for index, *_ in epoch_batches(store(), chosen, generator, size=7, augment=True)]).tolist()
        for _ in range(3)
    ]
    assert all(sorted(epoch) == chosen.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])


def test_progress_counts_every_image():
    counted = []
    train_model(
        "x", lambda: normed(4, 3), store(), TRAINING, TESTED, **SETTINGS, on_epoch=lambda rows: None,
        progress=counted.append,
    )  # fmt: skip
    assert sum(counted) == 3 * len(TRAINING)


# --- what a model depends on, and what it reports ------------------------------------------------------------------


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_seed_alone_decides(precision):
    first, _ = train(store(), precision=precision)
    torch.rand(100)  # whatever was drawn before
    assert same(first, train(store(), precision=precision)[0])
    assert not same(first, train(store(), precision=precision, seed=6)[0])


def test_how_often_a_model_is_tested_does_not_change_it():
    assert same(train(store(), eval_every=1, test_batch_size=3)[0], train(store(), eval_every=50)[0])


def test_compiled_code_trains_the_same_model(monkeypatch):
    """Dynamo's graphs without a compiler's kernels: whole batches, the rest of an epoch, evaluation; names stay."""
    calls, real = [], torch.nn.Module.compile

    def compile_without_kernels(self, **how):
        calls.append(how)
        real(self, backend="eager", **how)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_without_kernels)
    plain, compiled = train(store())[0], train(store(), compiled=True)[0]
    assert calls == [{"dynamic": False}]
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    assert_same_weights(compiled, plain)


def test_weights_stay_fp32_under_bf16():
    model, _ = train(store(), precision="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not same(model, train(store())[0])


def test_the_history_has_a_row_an_epoch():
    _, history = train(store(), epochs=5, eval_every=2)
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5]
    assert {row["model"] for row in history} == {"shadow_07"}
    assert [row["test_accuracy"] is not None for row in history] == [False, True, False, True, True]
    assert [row["lr"] for row in history] == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.001])
    assert all(0 <= row["train_accuracy"] <= 1 < row["train_loss"] + 1 for row in history)


def test_test_figures_are_those_of_eval_mode():
    one = store()
    model, history = train(one)
    model.eval()
    with torch.no_grad():
        logits = model(one.unaugmented(torch.from_numpy(TESTED)))
    label = one.y[torch.from_numpy(TESTED)]
    assert history[-1]["test_accuracy"] == pytest.approx((logits.argmax(1) == label).float().mean().item())
    assert history[-1]["test_loss"] == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
    model.train()  # evaluate() must not care
    settings = dict(batch_size=3, precision="fp32")
    assert evaluate(model, one, torch.from_numpy(TESTED), **settings)[0] == pytest.approx(history[-1]["test_loss"])


def test_questions_on_cpu_come_in_parts_of_at_most_256():
    one, sizes = store(n_train=600), []
    model = normed(4, 3)
    model.register_forward_hook(lambda module, given, got: sizes.append(len(got)))
    for batch_size in (1024, 250):
        evaluate(model, one, torch.arange(600), batch_size=batch_size, precision="fp32")
    assert sizes == [256, 256, 88, 250, 250, 100]


def test_train_figures_are_the_mean_over_images_not_over_batches():
    """Rate (almost) 0, no augmentation: every batch meets the same weights, so the mean is that of all images."""
    from tests.helpers.networks import mlp

    one = store()
    model, history = train(one, lambda: mlp(4, 3), lr=1e-12, epochs=1, augment=False)
    with torch.no_grad():
        logits = model(one.unaugmented(torch.from_numpy(TRAINING)))
    label = one.y[torch.from_numpy(TRAINING)]
    assert history[0]["train_loss"] == pytest.approx(F.cross_entropy(logits, label).item(), rel=1e-5)
    assert history[0]["train_accuracy"] == pytest.approx((logits.argmax(1) == label).float().mean().item())


@pytest.mark.parametrize(
    "settings",
    [dict(lr=1e30, epochs=3), dict(lr=1e36, epochs=1, batch_size=100)],  # seen in a training loss; only in the test
)
def test_a_loss_that_is_not_finite_names_the_model(settings):
    with pytest.raises(ModelError, match=r"^shadow_07: the .*loss is (nan|inf).* epoch \d.*lower --lr$"):
        train(store(), **settings)
