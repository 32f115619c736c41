"""learned: its AUC, its examples, and that nothing of the target's membership enters it."""

import numpy as np

from lira.attacks import learned
from lira.attacks.metrics import auc
from lira.attacks.run import attack_targets
from tests.helpers.shadows import mean_auc, scores


def test_learned_beats_the_attacks_that_it_learns_from():
    generator = np.random.default_rng(23)
    _, member = scores(23, n_targets=2, n_shadows=8, n_samples=3000)
    # Members of low midpoint rise, members of high midpoint fall: no closed form expresses that.
    midpoint = generator.normal(size=(3000, 1))
    gap = np.where(midpoint > 0, -0.4, 0.8)
    phi = midpoint + gap * member[..., None] + generator.normal(size=(*member.shape, 1))
    area = mean_auc(phi, member, 2)
    assert area["learned"] > max(value for name, value in area.items() if name not in ("learned", "lira-bayes"))
    assert area["learned"] > area["lira-bayes"] - 0.005


def test_learned_does_not_depend_on_other_targets():
    phi, member = scores(24, n_targets=2, n_shadows=8)
    rows = [0, *range(2, 10)]
    alone = attack_targets(phi[rows], member[rows], n_targets=1, attacks=["learned"])[0]
    together = attack_targets(phi, member, n_targets=2, attacks=["learned"])[0]
    # Not bit-identical: the trees are the same, the order of the sums is not.
    np.testing.assert_allclose(alone.score, together.score, rtol=1e-9)


def test_examples_are_complete_and_drawn_evenly(monkeypatch):
    monkeypatch.setattr(learned, "MAX_EXAMPLES", 20)
    examples = learned.Examples(2, seed=0)
    generator = np.random.default_rng(0)
    values, member = generator.normal(size=(2, 50, 3)), generator.random((2, 50)) < 0.5
    values[0, ::2, 1] = np.nan
    for group in (0, 1):
        examples.new_group()
        examples.add(values[group], member[group])
    drawn, drawn_member = examples.of([0, 1])
    assert drawn.shape == (20, 3)
    assert np.isfinite(drawn).all()
    for row, side in zip(drawn, drawn_member, strict=True):
        group, sample = np.argwhere((values == row).all(axis=2))[0]
        assert member[group, sample] == side
    assert len(examples.of([1])[0]) == 10


def test_members_alone_give_no_scores():
    values = np.random.default_rng(0).normal(size=(30, 2))
    assert np.isnan(learned.train(values, np.ones(30, dtype=bool), seed=0)(values)).all()


def test_constant_features_and_missing_values_are_harmless():
    generator = np.random.default_rng(1)
    values = np.stack([generator.normal(size=600), np.full(600, 0.3), np.round(generator.normal(size=600))], axis=1)
    member = values[:, 0] + 0.5 * generator.normal(size=600) > 0
    score = learned.train(values, member, seed=0)(np.concatenate([values, np.full((1, 3), np.nan)]))
    assert np.isnan(score[-1])
    assert auc(score[:-1], member) > 0.9
