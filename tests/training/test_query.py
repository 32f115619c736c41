"""phi of a model against extended precision, in any mode, precision and batch; the list of queries."""

import numpy as np
import pytest
import torch
from torch import nn

from lira.data.store import IDENTITY
from lira.training.query import declared_queries, query_model
from tests.helpers.errors import input_error_line
from tests.helpers.naive_attacks import scaled_logits
from tests.helpers.networks import normed
from tests.helpers.tiny_images import store

INDEX = torch.arange(37, 49)


def make_model(images, dtype=torch.float32):
    """A network whose running statistics are those of no batch."""
    torch.manual_seed(0)
    model = normed(4, 3).to(dtype)
    model.train()
    with torch.no_grad():
        for start in range(0, 30, 10):
            model(images.unaugmented(torch.arange(start, start + 10)).to(dtype) * 2 + 1)
    return model


def logits_of(model, images):
    with torch.no_grad():
        return model(images.unaugmented(INDEX)).numpy()


def query(model, images, *, index=INDEX, batch_size=5, queries=(IDENTITY,)):
    label = images.y[index]
    return query_model(model, images.unaugmented, index, label, batch_size=batch_size, queries=queries)


@pytest.mark.parametrize("mode", [True, False])
def test_phi_equals_the_definition_on_eval_mode_logits(mode):
    images = store()
    model = make_model(images)
    logits = logits_of(model.eval(), images)
    phi = query(model.train(mode), images)
    assert phi.shape == (12, 1)
    assert phi.dtype == np.float32
    np.testing.assert_allclose(phi[:, 0], scaled_logits(logits, images.y[INDEX]), rtol=1e-5, atol=1e-6)
    assert not np.allclose(logits_of(model.train(), images), logits, atol=1e-3)  # or the test could not fail


def test_extreme_logits_keep_their_digits():
    """Logits of +-500, and nearly equal ones, from a model that returns its input."""
    table = torch.tensor([[500.0, -500, 3, 0], [-500, 500, 499.5, 0], [500, 500, 500, 500], [1e-4, 0, -1e-4, 0]])
    label, index = torch.tensor([0, 0, 2, 1]), torch.arange(4)
    settings = dict(queries=(IDENTITY,), batch_size=3)
    phi = query_model(nn.Identity(), lambda index, query: table[index], index, label, **settings)
    np.testing.assert_allclose(phi[:, 0], scaled_logits(table, label), rtol=1e-6)


@pytest.mark.parametrize("largest", [1e30, 3e38, np.inf])
def test_huge_logits_give_no_warning_and_the_right_phi_or_none(largest):
    """phi beyond float32 is infinite, that of an infinite logit is not a number: neither is ever saved."""
    table = torch.tensor([[largest, 0.0, 1.0], [-largest, 0.0, largest]], dtype=torch.float32)
    label, index = torch.tensor([0, 0]), torch.arange(2)
    settings = dict(queries=(IDENTITY,), batch_size=2)
    phi = query_model(nn.Identity(), lambda index, query: table[index], index, label, **settings)[:, 0]
    if largest == 1e30:
        np.testing.assert_allclose(phi, [1e30, -2e30], rtol=1e-6)
    elif largest == 3e38:
        np.testing.assert_array_equal(phi, np.array([3e38, -np.inf], dtype=np.float32))
    else:
        assert not np.isfinite(phi).any()


def test_phi_does_not_depend_on_the_batch():
    images = store()
    model = make_model(images)
    together = query(model, images, batch_size=100)
    for batch_size in (1, 5, 12):
        np.testing.assert_allclose(query(model, images, batch_size=batch_size), together, rtol=1e-5, atol=1e-5)
    alone = np.concatenate([query(model, images, index=INDEX[i : i + 1]) for i in range(12)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(query(model, images, index=INDEX.flip(0))[::-1], together, rtol=1e-5, atol=1e-5)


def test_a_bf16_model_is_queried_in_fp32():
    images = store()
    model = make_model(images, torch.bfloat16)
    phi = query(model, images)
    logits = logits_of(model.eval().float(), images)
    np.testing.assert_allclose(phi[:, 0], scaled_logits(logits, images.y[INDEX]), rtol=1e-5, atol=1e-6)


def test_queries_do_not_change_weights_and_statistics():
    images = store()
    model = make_model(images)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    query(model, images)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_query_is_a_column():
    images = store(size=(32, 32))
    model = make_model(images)
    queries = ((0, 0, False), (2, 0, False), (0, 0, True))
    phi = query(model, images, queries=queries)
    assert phi.shape == (12, 3)
    for column, declared in zip(phi.T, queries, strict=True):
        np.testing.assert_allclose(column, query(model, images, queries=(declared,))[:, 0], rtol=1e-6)
    assert not np.allclose(phi[:, 0], phi[:, 1])


# --- the declared list ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [True, False])
def test_the_declared_list_is_fixed_and_begins_with_the_identity(flip):
    """A shorter list is the beginning of a longer one, so more queries leave the others as they are."""
    length = (1 + 8 * 3) * (1 + flip)
    queries = declared_queries(length, flip=flip, margin=3)
    assert queries[0] == IDENTITY
    assert queries == declared_queries(length, flip=flip, margin=3)
    assert len(set(queries)) == length
    for n in range(1, length):
        assert declared_queries(n, flip=flip, margin=3) == queries[:n]


def test_images_are_mirrored_only_if_training_mirrors_them():
    assert declared_queries(2, flip=True, margin=4) == (IDENTITY, (0, 0, True))
    assert not any(mirror for _, _, mirror in declared_queries(33, flip=False, margin=4))
    assert sum(mirror for _, _, mirror in declared_queries(66, flip=True, margin=4)) == 33


def test_small_shifts_come_first_and_none_exceeds_the_margin():
    shifts = declared_queries(33, flip=False, margin=4)
    pixels = [max(abs(down), abs(right)) for down, right, _ in shifts]
    assert pixels == sorted(pixels)
    assert pixels[-1] == 4
    assert shifts[1:5] == ((0, 1, False), (0, -1, False), (1, 0, False), (-1, 0, False))


@pytest.mark.parametrize(("margin", "flip", "length"), [(0, False, 1), (0, True, 2), (1, False, 9), (4, True, 66)])
def test_more_queries_than_the_list_has_are_rejected(margin, flip, length):
    assert len(declared_queries(length, flip=flip, margin=margin)) == length
    line = input_error_line(declared_queries, length + 1, flip=flip, margin=margin)
    assert f"at most {length}" in line
    assert f"got {length + 1}" in line


def test_every_declared_query_gives_another_image():
    images = store(size=(16, 20))
    queries = declared_queries(2 * (1 + 8 * images.margin), flip=True, margin=images.margin)
    distinct = {images.unaugmented(INDEX[:1], declared).numpy().tobytes() for declared in queries}
    assert len(distinct) == len(queries)
