"""phi of a model against extended precision, whatever mode it was left in and whoever its neighbours are."""

import numpy as np
import pytest
import torch
from torch import nn

from lira.data.store import IDENTITY
from lira.errors import InputError
from lira.training.query import declared_queries, query_model
from tests.helpers.networks import normed
from tests.helpers.tiny_images import store

INDEX = torch.arange(37, 49)


def trained_a_little(one, precision=None):
    """A network whose running statistics are not those of any batch."""
    torch.manual_seed(0)
    model = normed(4, 3)
    if precision:
        model = model.to(precision)
    model.train()
    with torch.no_grad():
        for start in range(0, 30, 10):
            model(one.unaugmented(torch.arange(start, start + 10)).to(precision or torch.float32) * 2 + 1)
    return model


def oracle(z, label):
    """The definition, in extended precision. z: logits (K,)."""
    z = np.asarray(z, dtype=np.longdouble)
    others = np.delete(z, label)
    return z[label] - (others.max() + np.log(np.exp(others - others.max()).sum()))


def ask(model, one, *, index=INDEX, batch_size=5, **settings):
    return query_model(model, one.plain, index, one.y[index], batch_size=batch_size, **settings)


@pytest.mark.parametrize("mode", [True, False])
def test_phi_equals_the_oracle_on_eval_mode_logits(mode):
    one = store()
    model = trained_a_little(one)
    model.eval()
    with torch.no_grad():
        logits = model(one.unaugmented(INDEX)).numpy()
    model.train(mode)
    found = ask(model, one)
    assert found.shape == (12, 1)
    assert found.dtype == np.float32
    expected = [float(oracle(z, label)) for z, label in zip(logits, one.y[INDEX], strict=True)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-6)
    model.train()
    with torch.no_grad():
        other = model(one.unaugmented(INDEX)).numpy()
    assert not np.allclose(other, logits, atol=1e-3)  # or the test could not fail


def test_extreme_logits_keep_their_digits():
    """A model that answers with what it is shown: logits of +-500, and nearly equal ones."""
    table = torch.tensor([[500.0, -500, 3, 0], [-500, 500, 499.5, 0], [500, 500, 500, 500], [1e-4, 0, -1e-4, 0]])
    label = torch.tensor([0, 0, 2, 1])
    found = query_model(nn.Identity(), lambda index, query: table[index], torch.arange(4), label, batch_size=3)
    expected = [float(oracle(z, y)) for z, y in zip(table.numpy(), label.tolist(), strict=True)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


def test_neighbours_and_batch_size_do_not_matter():
    one = store()
    model = trained_a_little(one)
    together = ask(model, one, batch_size=100)
    for batch_size in (1, 5, 12):
        np.testing.assert_allclose(ask(model, one, batch_size=batch_size), together, rtol=1e-5, atol=1e-5)
    alone = np.concatenate([ask(model, one, index=INDEX[i : i + 1]) for i in range(12)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ask(model, one, index=INDEX.flip(0))[::-1], together, rtol=1e-5, atol=1e-5)


def test_a_bf16_model_is_asked_in_fp32():
    one = store()
    model = trained_a_little(one, torch.bfloat16)
    found = ask(model, one)
    model.eval().float()
    with torch.no_grad():
        logits = model(one.unaugmented(INDEX)).numpy()
    expected = [float(oracle(z, y)) for z, y in zip(logits, one.y[INDEX], strict=True)]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_asking_leaves_the_weights_and_statistics_alone():
    one = store()
    model = trained_a_little(one)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ask(model, one)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_query_is_a_column():
    one = store(size=(32, 32))
    model = trained_a_little(one)
    queries = ((0, 0, False), (2, 0, False), (0, 0, True))
    found = ask(model, one, queries=queries)
    assert found.shape == (12, 3)
    for column, query in zip(found.T, queries, strict=True):
        np.testing.assert_allclose(column, ask(model, one, queries=(query,))[:, 0], rtol=1e-6)
    assert not np.allclose(found[:, 0], found[:, 1])


# --- the declared list ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [True, False])
def test_the_declared_list_is_fixed_and_begins_with_the_identity(flip):
    """A shorter list is the head of a longer one: more queries never change those there are."""
    longest = (1 + 8 * 3) * (1 + flip)
    every = declared_queries(longest, flip=flip, margin=3)
    assert every[0] == IDENTITY
    assert every == declared_queries(longest, flip=flip, margin=3)
    assert len(set(every)) == longest
    for n in range(1, longest):
        assert declared_queries(n, flip=flip, margin=3) == every[:n]


def test_images_are_mirrored_only_where_training_mirrors_them():
    assert declared_queries(2, flip=True, margin=4) == (IDENTITY, (0, 0, True))
    assert not any(mirror for _, _, mirror in declared_queries(33, flip=False, margin=4))
    assert sum(mirror for _, _, mirror in declared_queries(66, flip=True, margin=4)) == 33


def test_near_shifts_come_before_far_ones_and_none_leaves_the_margin():
    shifts = declared_queries(33, flip=False, margin=4)
    reach = [max(abs(down), abs(right)) for down, right, _ in shifts]
    assert reach == sorted(reach)
    assert reach[-1] == 4
    assert shifts[1:5] == ((0, 1, False), (0, -1, False), (1, 0, False), (-1, 0, False))


@pytest.mark.parametrize(("margin", "flip", "most"), [(0, False, 1), (0, True, 2), (1, False, 9), (4, True, 66)])
def test_more_queries_than_there_are_is_one_line(margin, flip, most):
    assert len(declared_queries(most, flip=flip, margin=margin)) == most
    with pytest.raises(InputError) as caught:
        declared_queries(most + 1, flip=flip, margin=margin)
    assert f"at most {most}" in str(caught.value)
    assert f"got {most + 1}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_declared_query_shows_another_image():
    one = store(size=(16, 20))
    queries = declared_queries(2 * (1 + 8 * one.margin), flip=True, margin=one.margin)
    shown = {one.unaugmented(INDEX[:1], query).numpy().tobytes() for query in queries}
    assert len(shown) == len(queries)
