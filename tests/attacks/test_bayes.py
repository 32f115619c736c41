"""lira-bayes against its naive loop, and what its prior is for."""

import numpy as np
import pytest

from lira.attacks import bayes
from lira.attacks.bayes import fit_lira_bayes
from lira.attacks.metrics import auc
from lira.attacks.run import attack_targets
from lira.attacks.statistics import Statistics
from tests.helpers.naive_bayes import lira_bayes
from tests.helpers.shadows import pairs

FEW = ((300, 2), (5000, 2))  # rounds of expectation-maximisation that a loop can follow


def hard_and_easy(seed, n_shadows, n_samples, *, n_queries=1, n_targets=1):
    """Scores whose gap and variance rise together as the level falls; (phi (M, N, A), member (M, N))."""
    generator = np.random.default_rng(seed)
    member = pairs(generator, n_targets + n_shadows + n_targets % 2, n_samples)[: n_targets + n_shadows]
    member = np.concatenate([member[-n_targets:], member[:-n_targets]]) if n_targets % 2 else member
    level = generator.normal(2.0, 2.5, size=(n_samples, 1))
    deviation = np.exp(generator.normal(-0.1 * level, 0.4))
    gap = deviation * np.abs(generator.normal(0.7, 0.5, size=level.shape))
    noise = generator.normal(size=(*member.shape, n_queries))
    return level + gap * (member[..., None] - 0.5) + deviation * noise, member


@pytest.mark.parametrize(
    ("kind", "n_queries", "rounds"),
    [("normal", 1, bayes.ROUNDS), ("normal", 3, FEW), ("ties", 1, FEW), ("constant", 1, FEW)],
)
def test_lira_bayes_equals_its_naive_loop(kind, n_queries, rounds, monkeypatch):
    monkeypatch.setattr(bayes, "ROUNDS", rounds)
    phi, member = hard_and_easy(0, 6, 510 if n_queries == 1 else 405, n_queries=n_queries)
    phi = {"normal": phi, "ties": np.round(phi), "constant": np.full_like(phi, 0.3)}[kind]
    score = fit_lira_bayes(Statistics.from_shadows(phi[1:], member[1:]), None)(phi[:1], None)[0].mean(-1)
    np.testing.assert_allclose(score, lira_bayes(phi[0], phi[1:], member[1:], rounds), rtol=1e-9, atol=1e-9)


def test_counts_that_differ_and_sides_of_one_are_handled(monkeypatch):
    monkeypatch.setattr(bayes, "ROUNDS", FEW)
    phi, member = hard_and_easy(1, 5, 405)
    member[1:] = np.random.default_rng(2).random((5, 405)) < 0.5
    member[1, member[1:].all(0)] = False
    member[1, ~member[1:].any(0)] = True
    score = fit_lira_bayes(Statistics.from_shadows(phi[1:], member[1:]), None)(phi[:1], None)[0, :, 0]
    np.testing.assert_allclose(score, lira_bayes(phi[0], phi[1:], member[1:], FEW), rtol=1e-9, atol=1e-9)


def test_with_one_shadow_a_side_it_still_tells_more_than_a_single_threshold():
    phi, member = hard_and_easy(3, 2, 4000)
    statistics = Statistics.from_shadows(phi[1:], member[1:])
    score = fit_lira_bayes(statistics, None)(phi[:1], None)[0, :, 0]
    assert auc(score, member[0]) > auc(phi[0, :, 0], member[0]) + 0.03


@pytest.mark.parametrize("n_shadows", [4, 8, 20])
def test_it_beats_what_it_shrinks_between(n_shadows):
    phi, member = hard_and_easy(4, n_shadows, 4000, n_targets=2)
    areas: dict = {}
    for scored in attack_targets(phi, member, n_targets=2, attacks=["lira", "lira-pooled", "lira-bayes"]):
        areas.setdefault(scored.attack, []).append(auc(scored.score, member[scored.target]))
    mean = {name: np.mean(values) for name, values in areas.items()}
    assert mean["lira-bayes"] > max(mean["lira"], mean["lira-pooled"]) + 0.01


def test_with_many_shadows_it_is_lira():
    phi, member = hard_and_easy(5, 200, 3000)
    scored = attack_targets(phi, member, n_targets=1, attacks=["lira", "lira-bayes"])
    lira, bayes = (auc(one.score, member[0]) for one in scored)
    assert bayes > lira - 0.001
