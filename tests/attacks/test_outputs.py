"""phi from logits, probabilities or phi against its definition, and arrays that are not what their name says."""

import math

import numpy as np
import pytest

from lira.attacks.outputs import looks_like_softmax, to_phi
from tests.helpers.errors import input_error_line

M, N, A, K = 3, 7, 2, 5
LABEL = np.arange(N) % K
LOGITS = np.random.default_rng(0).normal(scale=4, size=(M, N, A, K))


def softmax(logits):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def naive(logits, label):
    """phi of one sample: the log odds of the true class, by its definition."""
    others = [math.exp(value - logits[label]) for k, value in enumerate(logits) if k != label]
    return -math.log(sum(others))


@pytest.mark.parametrize("name", ["logits", "probabilities"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_phi_is_that_of_its_definition(name, dtype):
    """Of any number of models and queries, and of one model without either."""
    values = (LOGITS if name == "logits" else softmax(LOGITS)).astype(dtype)
    found = to_phi({name: values}, LABEL, n_samples=N, models_first=True)
    assert found.phi.shape == found.correct.shape == (M, N, A)
    for m, n, a in np.ndindex(M, N, A):
        assert found.phi[m, n, a] == pytest.approx(naive(LOGITS[m, n, a], LABEL[n]), rel=1e-4, abs=1e-5)
        assert found.correct[m, n, a] == (LOGITS[m, n, a].argmax() == LABEL[n])
    one_query = to_phi({name: values[:, :, 0]}, LABEL, n_samples=N, models_first=True)
    one_model = to_phi({name: values[0, :, 0]}, LABEL, n_samples=N, models_first=False)
    np.testing.assert_array_equal(one_query.phi, found.phi[..., 0])
    np.testing.assert_array_equal(one_model.phi, found.phi[:1, :, 0])
    assert (found.n_clipped, found.describe()) == (0, "")


def test_phi_passes_unchanged():
    phi = LOGITS[..., 0]
    found = to_phi({"phi": phi}, None, n_samples=N, models_first=True)
    np.testing.assert_array_equal(found.phi, phi)
    assert found.correct is None


def test_confident_probabilities_keep_their_digits():
    """1 - p_y is 0 in float32 where the other classes still add up to something."""
    logits = np.zeros((1, 4, K), dtype=np.float64)
    logits[0, :, 0] = [20, 40, 60, 80]
    p = softmax(logits).astype(np.float32)
    assert (p[..., 0] == 1).all()
    found = to_phi({"probabilities": p}, np.zeros(4, dtype=int), n_samples=4, models_first=True)
    np.testing.assert_allclose(found.phi[0], np.array([20, 40, 60, 80]) - math.log(K - 1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_probabilities_of_0_and_1_are_clipped_and_counted(dtype):
    """Votes of four trees: the order of confidence is kept, and the bound is the rounding error of their type."""
    votes = np.array([[4, 0], [3, 1], [2, 2], [1, 3], [0, 4], [4, 0]]) / 4
    found = to_phi({"probabilities": votes.astype(dtype)}, np.zeros(6, dtype=int), n_samples=6, models_first=False)
    bound = -math.log(np.finfo(dtype).eps)
    np.testing.assert_allclose(found.phi[0], [bound, math.log(3), 0, -math.log(3), -bound, bound], rtol=1e-6)
    assert found.n_clipped == 3
    assert found.describe().startswith("3 of 6 probabilities of the true class are exactly 0 or 1: clipped")


def test_a_softmax_is_told_from_logits():
    assert looks_like_softmax(softmax(LOGITS))
    assert looks_like_softmax(softmax(LOGITS).astype(np.float32))
    for logits in (LOGITS, np.log(softmax(LOGITS)), 1 / (1 + np.exp(-LOGITS)), np.zeros((2, 3)), np.ones((2, 1))):
        assert not looks_like_softmax(logits)


P = softmax(LOGITS[:, :, 0])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, ["one of the arrays phi, logits, probabilities", "there is none"]),
        ({"phi": LOGITS[..., 0, 0], "logits": LOGITS}, ["phi and logits are given"]),
        ({"logits": LOGITS.astype(str)}, ["logits must be real numbers", "(models, samples, classes)"]),
        ({"logits": LOGITS[0, 0, 0]}, ["logits must be", "(5,)"]),
        ({"logits": np.moveaxis(LOGITS[:, :, 0], 1, 0)}, ["logits is transposed", "np.moveaxis(logits, 0, 1)"]),
        ({"phi": LOGITS[:, :, 0, 0].T}, ["phi is transposed", "np.moveaxis(phi, 0, 1)"]),
        ({"phi": LOGITS[:, :6, 0, 0]}, ["(3, 6)", "7 samples"]),
        ({"phi": P[..., 0]}, ["phi lies in [0, 1] throughout", "np.log(p / (1 - p))"]),
        ({"logits": P}, ["logits of model 0", "probably probabilities"]),
        ({"logits": np.where(P > 0.1, np.log(P), -np.inf)}, ["logits must be finite", "-inf", "clipped"]),
        ({"probabilities": LOGITS[:, :, 0]}, ["probabilities must lie in 0..1", "model 0, sample 0, class "]),
        ({"probabilities": 0.5 * P}, ["add up to 1", "model 0, sample 0 to 0.5", "sigmoid"]),
        ({"probabilities": np.where(np.arange(N) == 3, np.nan, 0.2)[None, :, None] + 0 * P}, ["sample 3", "nan"]),
        ({"probabilities": P[..., :1]}, ["1 column", "[1 - p, p]"]),
        ({"logits": LOGITS[:, :, 0, :4]}, ["4 columns", "label 4"]),
    ],
)
def test_what_an_array_is_not_is_named(arrays, words):
    line = input_error_line(to_phi, arrays, LABEL, n_samples=N, models_first=True)
    for word in words:
        assert word in line


def test_logits_without_labels_are_rejected():
    assert "save label" in input_error_line(to_phi, {"logits": LOGITS}, None, n_samples=N, models_first=True)


def test_the_outputs_of_one_model_transposed_are_named():
    line = input_error_line(to_phi, {"logits": LOGITS[0, :, 0].T}, LABEL, n_samples=N, models_first=False)
    assert "logits is transposed: (5, 7), with 7 samples; save np.moveaxis(logits, 1, 0)" in line
