"""Gradient canaries: where they are, what is added and what their scores are; and the audit of other people's steps."""

import re
import sys
import textwrap
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer
from scipy.special import logsumexp
from scipy.stats import norm

from lira.errors import InputError
from lira.privacy import canaries
from lira.privacy.audit import Mechanism
from lira.privacy.canaries import PER_TENSOR, Canaries, allocate, audit_step, number
from tests.helpers.documents import python

C = 0.5
CLAIMED = Mechanism(sigma=0.8, sample_rate=0.2, steps=50)
SHAPES = {"filters": (8, 3, 3, 3), "biases": (8,), "scalar": (), "linear": (10, 40)}
WEIGHTS = {name: torch.zeros(shape) for name, shape in SHAPES.items()}


def make(n=100, *, seed=0, mechanism=CLAIMED):
    return Canaries(WEIGHTS, n, mechanism, max_grad_norm=C, rng=np.random.default_rng(seed))


# --- where they are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 30, 41, 200, 625])
def test_every_tensor_has_its_share(n):
    sizes = [216, 8, 1, 400]
    many = [allocate(sizes, n, np.random.default_rng(seed)) for seed in range(200)]
    for each in many:
        assert each.sum() == n
        assert np.all(each <= sizes)
        if n >= 16 + 8 + 1 + 16:
            assert np.all(each >= np.minimum(PER_TENSOR, sizes))
    if n == 200:  # 159 among the 200 and 384 coordinates that are left
        np.testing.assert_allclose(np.mean(many, axis=0)[[0, 3]] - 16, [159 * 200 / 584, 159 * 384 / 584], atol=1.5)


def test_each_has_a_coordinate_of_its_own_a_fair_sign_and_a_fair_coin():
    state = make(600).state_dict()
    places = set(zip(state["tensor"].tolist(), state["coordinate"].tolist(), strict=True))
    assert len(places) == 600
    for fair in (state["sign"] > 0, state["member"]):
        assert 240 < fair.sum() < 360
    other = make(600, seed=1).state_dict()
    for key in ("coordinate", "sign", "member"):
        assert not torch.equal(state[key], other[key]), key


def test_the_default_number():
    assert number(None, 6634) == 663
    assert number(None, 10**7) == 5000
    assert number(0, 10) == 0
    with pytest.raises(
        InputError, match="--canaries must be at most 10, one for each trained weight of the network; got 11"
    ):
        number(11, 10)


# --- what is added and observed ------------------------------------------------------------------------------------


def test_scores_equal_those_of_a_naive_loop():
    """Sums of images of any size, in tensors of any memory format."""
    rng, made = np.random.default_rng(5), make()
    state = made.state_dict()
    sign, member = state["sign"].numpy(), state["member"].numpy()
    expected, taken = np.zeros(100), []
    for _ in range(CLAIMED.steps):
        sampled = rng.random(100) < CLAIMED.sample_rate
        images = [torch.from_numpy(rng.normal(0, 0.3, shape).astype(np.float32)) for shape in SHAPES.values()]
        sums = [image.clone() for image in images]
        sums[0] = sums[0].to(memory_format=torch.channels_last)
        made.take_part(sampled)
        made.add(sums)
        gradients, flat = made.gradients(C), []
        for total, image, gradient in zip(sums, images, gradients, strict=True):
            torch.testing.assert_close(total, image + gradient.sum(0).view_as(image))
            total += torch.from_numpy(rng.normal(0, CLAIMED.sigma * C, tuple(total.shape)).astype(np.float32))
            flat.append(total.flatten().numpy())
        assert len(gradients[0]) == np.sum(sampled & member)
        y = sign * [flat[t][i] / C for t, i in zip(state["tensor"], state["coordinate"], strict=True)]
        deviation = np.array([max(0.8, np.sqrt(np.mean(y[state["tensor"] == t] ** 2))) for t in state["tensor"]])
        of_none, of_one = norm.logpdf(y, 0, deviation), norm.logpdf(y, 1, deviation)
        rates = np.array([[1 - CLAIMED.sample_rate], [CLAIMED.sample_rate]])
        expected += logsumexp([of_none, of_one], b=rates, axis=0) - of_none
        made.observe([total / 20 for total in sums], scale=20)
        taken.append(sampled & member)
    scores = made.scores()
    np.testing.assert_allclose(scores.score, expected, atol=1e-4)
    np.testing.assert_array_equal(scores.member, member)
    np.testing.assert_array_equal(made.state_dict()["sums"]["n_in"], np.sum(taken, axis=0))
    found = {(each.check, each.scope): each.value for each in made.estimates()}
    assert found["weight", "all"] == pytest.approx(1, abs=0.15)
    assert found["noise scale", "all"] == pytest.approx(0.8, abs=0.04), "the sums of images are subtracted"


# --- other people's steps ------------------------------------------------------------------------------------------


def opacus_step(*, sigma=CLAIMED.sigma, max_grad_norm=C, seed=0):
    """(step, weights) of Opacus's optimizer, driven by hand."""
    model = torch.nn.Linear(40, 30)
    optimizer = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1),
        noise_multiplier=sigma,
        max_grad_norm=max_grad_norm,
        expected_batch_size=None,
        loss_reduction="sum",
        generator=torch.Generator().manual_seed(seed),
    )

    def step(per_sample):
        optimizer.zero_grad()
        for weight, gradients in zip(model.parameters(), per_sample, strict=True):
            weight.grad_sample = gradients
        optimizer.pre_step()
        return [weight.grad for weight in model.parameters()]

    return step, model


def own_step(*, sigma=CLAIMED.sigma, max_grad_norm=C, clip="each", noisy=(True, True), seed=0):
    """(step, weights) of DP-SGD in twenty lines, right or broken."""
    generator = torch.Generator().manual_seed(seed)

    def step(per_sample):
        n = len(per_sample[0])
        norms = torch.sqrt(sum(gradient.reshape(n, -1).square().sum(1) for gradient in per_sample))
        if clip == "each":
            factor = (max_grad_norm / norms).clamp(max=1)
        elif clip == "sum":  # a batch instead of each record
            norm = torch.sqrt(sum(gradient.sum(0).square().sum() for gradient in per_sample))
            factor = (max_grad_norm / norm).clamp(max=1).expand(n)
        else:
            factor = torch.ones(n)
        sums = [torch.tensordot(factor, gradient, dims=1) for gradient in per_sample]
        noise = [torch.randn(total.shape, generator=generator) * sigma * max_grad_norm for total in sums]
        return [total + draw * use for total, draw, use in zip(sums, noise, noisy, strict=True)]

    return step, torch.nn.Linear(40, 30)


def shuffled(n_batches, seed=0):
    rng, left = np.random.default_rng(seed), []

    def sample(n):
        left[:] = left or np.array_split(rng.permutation(n), n_batches)
        return np.isin(np.arange(n), left.pop())

    return sample


@pytest.mark.parametrize(
    ("made", "sample", "deviating"),
    [
        (opacus_step(), None, set()),
        (own_step(), None, set()),
        (opacus_step(sigma=CLAIMED.sigma / 2), None, {("noise scale", scope) for scope in ("all", "weight", "bias")}),
        (opacus_step(sigma=CLAIMED.sigma / 2, max_grad_norm=2 * C), None, {("weight", "all"), ("weight", "weight")}),
        (own_step(clip="none"), None, {("weight", scope) for scope in ("all", "weight", "bias")}),
        (own_step(clip="sum"), None, {("weight", scope) for scope in ("all", "weight", "bias")}),
        (own_step(noisy=(True, False)), None, {("noise scale", "all"), ("noise scale", "bias")}),
        (own_step(), shuffled(5), {("once per epoch", "all"), ("once per epoch", "weight")}),
    ],
)
def test_a_step_of_ones_own_is_audited(made, sample, deviating):
    step, model = made
    weights = dict(model.named_parameters())
    audit = audit_step(step, weights, CLAIMED, max_grad_norm=C, n_canaries=200, sample=sample, seed=1)
    found = {(outcome.check, outcome.scope) for outcome in audit.deviations}
    assert found >= deviating
    assert {check for check, _ in found} == {check for check, _ in deviating}
    assert ("noise scale", "weight") not in found or ("noise scale", "weight") in deviating


LINES = textwrap.dedent(re.findall(r"(?:(?: {8}.*)?\n)+", audit_step.__doc__)[0]).strip() + "\n"


@pytest.mark.parametrize("make", [opacus_step, own_step])
@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_the_ten_lines_audit_a_step_right_or_broken(make, sigma, monkeypatch, capsys):
    assert len([line for line in LINES.splitlines() if line]) <= 10
    monkeypatch.setattr(canaries, "audit_step", partial(audit_step, seed=1))  # one right step in a thousand deviates
    step, model = make(sigma=sigma, max_grad_norm=0.1)
    monkeypatch.setitem(sys.modules, "my_training", SimpleNamespace(dp_step=step, model=model))
    with pytest.raises(AssertionError) if sigma < 1 else nullcontext():
        exec(LINES, {})
    *deviations, bound = capsys.readouterr().out.splitlines()
    assert bound.startswith("no Gaussian mechanism up to epsilon ")
    scopes = [re.fullmatch(r"noise scale \((\w+)\): 0.[45]\d*, claimed 1", line)[1] for line in deviations]
    assert scopes == (["all", "weight", "bias"] if sigma < 1 else [])


def test_the_documentation_has_the_same_lines():
    assert python("docs/privacy.md", "audit_step") == LINES
