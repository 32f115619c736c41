"""learned: what it finds, and that nothing of the target's truth reaches it."""

import numpy as np

from lira.attacks import learned
from lira.attacks.metrics import auc
from lira.attacks.run import attack_targets
from tests.helpers.shadows import scores


def test_learned_finds_more_than_the_formulas_it_learns_from():
    generator = np.random.default_rng(23)
    _, member = scores(23, n_targets=2, n_shadows=8, n_samples=3000)
    # Members of low-level samples rise, members of high-level samples fall: no single formula says so after
    # noise.
    level = generator.normal(size=(3000, 1))
    phi = level + np.where(level > 0, -0.4, 0.8) * member[..., None] + generator.normal(size=(*member.shape, 1))
    areas: dict = {}
    for scored in attack_targets(phi, member, n_targets=2):
        areas.setdefault(scored.attack, []).append(auc(scored.score, member[scored.target]))
    mean = {name: np.mean(values) for name, values in areas.items()}
    assert mean["learned"] > max(value for name, value in mean.items() if name not in ("learned", "lira-bayes"))
    assert mean["learned"] > mean["lira-bayes"] - 0.005


def test_learned_sees_nothing_of_the_target():
    phi, member = scores(24, n_targets=2, n_shadows=8)
    alone = attack_targets(phi[[0, *range(2, 10)]], member[[0, *range(2, 10)]], n_targets=1, attacks=["learned"])[0]
    beside = attack_targets(phi, member, n_targets=2, attacks=["learned"])[0]
    # Not to the bit: the trees that both train are the same, the order of the sums is not.
    np.testing.assert_allclose(alone.score, beside.score, rtol=1e-9)


def test_examples_leave_out_what_is_missing_and_draw_evenly(monkeypatch):
    monkeypatch.setattr(learned, "MAX_EXAMPLES", 20)
    examples = learned.Examples(2, seed=0)
    generator = np.random.default_rng(0)
    values, truth = generator.normal(size=(2, 50, 3)), generator.random((2, 50)) < 0.5
    values[0, ::2, 1] = np.nan
    for group in (0, 1):
        examples.new_group()
        examples.add(values[group], truth[group])
    kept, told = examples.of([0, 1])
    assert kept.shape == (20, 3)
    assert np.isfinite(kept).all()
    for row, side in zip(kept, told, strict=True):
        group, place = np.argwhere((values == row).all(axis=2))[0]
        assert truth[group, place] == side
    assert len(examples.of([1])[0]) == 10


def test_one_truth_alone_teaches_nothing():
    values = np.random.default_rng(0).normal(size=(30, 2))
    assert np.isnan(learned.train(values, np.ones(30, dtype=bool), seed=0)(values)).all()


def test_features_that_do_not_vary_and_pairs_that_are_missing_do_no_harm():
    generator = np.random.default_rng(1)
    values = np.stack([generator.normal(size=600), np.full(600, 0.3), np.round(generator.normal(size=600))], axis=1)
    truth = values[:, 0] + 0.5 * generator.normal(size=600) > 0
    score = learned.train(values, truth, seed=0)
    asked = np.concatenate([values, np.full((1, 3), np.nan)])
    assert np.isnan(score(asked)[-1])
    assert auc(score(asked)[:-1], truth) > 0.9
