"""learned: its AUC, its examples, and that nothing of the target's membership enters it."""

import numpy as np
import pytest

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
    for shadow in (0, 1):
        examples.add(values[shadow], member[shadow])
    drawn, drawn_member = examples.arrays()
    assert drawn.shape == (20, 3)
    assert np.isfinite(drawn).all()
    shadows = []
    for row, side in zip(drawn, drawn_member, strict=True):
        shadow, sample = np.argwhere((values == row).all(axis=2))[0]
        assert member[shadow, sample] == side
        shadows.append(shadow)
    assert shadows == [0] * 10 + [1] * 10


def trained_on(monkeypatch, phi, member):
    """What the classifiers of one attack on one target are trained on, in turn: (features, memberships) each."""
    calls, train = [], learned.train

    def record(values, member, *, seed):
        calls.append((values, member))
        return train(values, member, seed=seed)

    monkeypatch.setattr(learned, "train", record)
    attack_targets(phi, member, n_targets=1, attacks=["learned"])
    monkeypatch.setattr(learned, "train", train)
    return calls


@pytest.mark.parametrize(("design", "pair"), [("pairs", (4, 5)), ("coins", (4,))])
def test_a_held_out_shadow_is_scored_by_a_classifier_that_knows_nothing_of_its_pair(monkeypatch, design, pair):
    """Other scores and other members of the pair change every classifier but the one that scores it."""
    phi, member = scores(25, n_shadows=8, n_samples=200, design=design)
    changed_phi, changed_member = phi.copy(), member.copy()
    for row in pair:
        changed_phi[1 + row] += np.random.default_rng(row).normal(size=phi[0].shape)
        changed_member[1 + row] = np.random.default_rng(0).permutation(member[1 + pair[0]]) ^ (row != pair[0])
    before, after = (trained_on(monkeypatch, *case) for case in ((phi, member), (changed_phi, changed_member)))
    n_pairs = 8 // len(pair)
    assert len(before) == len(after) == n_pairs + 1  # one for each pair, and that of the target
    same = [np.array_equal(old, new, equal_nan=True) for (old, _), (new, _) in zip(before, after, strict=True)]
    assert same == [pair[0] // len(pair) == index for index in range(n_pairs + 1)]
    assert (before[pair[0] // len(pair)][1] == after[pair[0] // len(pair)][1]).all()


def test_with_many_samples_a_classifier_is_trained_on_evenly_spaced_ones(monkeypatch):
    monkeypatch.setattr(learned, "MAX_NESTED_EXAMPLES", 6 * 300)
    phi, member = scores(26, n_shadows=8, n_samples=1000, gap=2.0)
    *nested, whole = trained_on(monkeypatch, phi, member)
    assert [len(values) for values, _ in nested] == [6 * 300] * 4
    assert len(whole[0]) == 8 * 1000
    (result,) = attack_targets(phi, member, n_targets=1, attacks=["learned"])
    assert abs(result.held_out_auc - auc(result.score, member[0])) < 0.03


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
