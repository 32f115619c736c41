"""Attacks that were played on random scores, for the tests of tables and figures."""

import numpy as np

from lira.attacks.inputs import AttackInputs
from lira.attacks.run import attack_targets

N = 40


def halves(n_targets, n_shadows, n_samples, rng):
    """Members, bool (M, N): each target a random half of the samples, the shadows in complementary pairs."""
    half = np.array([rng.permutation(n_samples) < n_samples // 2 for _ in range(n_shadows // 2)])
    shadows = np.stack([half, ~half], axis=1).reshape(n_shadows, n_samples)
    return np.concatenate([[rng.permutation(n_samples) < n_samples // 2 for _ in range(n_targets)], shadows])


def inputs(n_targets=2, n_shadows=6, *, n_queries=1, classes=4, images=False, seed=0, gap=2.0) -> AttackInputs:
    """Models whose members answer `gap` higher."""
    rng = np.random.default_rng(seed)
    member = halves(n_targets, n_shadows, N, rng)
    names = [f"target_{i:02d}" for i in range(n_targets)] + [f"shadow_{i:02d}" for i in range(n_shadows)]
    return AttackInputs(
        phi=(rng.normal(size=(*member.shape, n_queries)) + gap * member[:, :, None]).astype(np.float32),
        member=member,
        n_targets=n_targets,
        label=np.arange(N) % classes,
        class_names=tuple("abcdefgh"[:classes]),
        names=tuple(names),
        images=rng.integers(0, 256, (N, 1, 8, 8), dtype=np.uint8) if images else None,
    )


def truths(*rows) -> AttackInputs:
    """AttackInputs of which only the truth matters, a row a target."""
    member = np.array(rows, dtype=bool)
    names = tuple(f"target_{i:02d}" for i in range(len(member)))
    label = np.zeros(member.shape[1], dtype=np.int64)
    return AttackInputs(np.zeros((*member.shape, 1)), member, len(member), label, ("only",), names)


def played(attacks=None, **how):
    """(inputs, what attack_targets() says of it)."""
    given = inputs(**how)
    return given, attack_targets(given.phi, given.member, n_targets=given.n_targets, attacks=attacks)
