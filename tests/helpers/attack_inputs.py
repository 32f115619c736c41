"""Random attack inputs, and the results of attacks on them, for the tests of tables, report and scripts."""

import numpy as np

from lira.attacks.inputs import AttackInputs
from lira.attacks.run import attack_targets
from tests.helpers.shadows import members

N = 40


def inputs(n_targets=2, n_shadows=6, *, n_queries=1, classes=4, images=False, seed=0, gap=2.0) -> AttackInputs:
    """The phi of members is higher by `gap`."""
    rng = np.random.default_rng(seed)
    member = members(rng, n_targets, n_shadows, N, "pairs")
    model_names = [f"target_{i:02d}" for i in range(n_targets)] + [f"shadow_{i:02d}" for i in range(n_shadows)]
    return AttackInputs(
        phi=(rng.normal(size=(*member.shape, n_queries)) + gap * member[:, :, None]).astype(np.float32),
        member=member,
        n_targets=n_targets,
        label=np.arange(N) % classes,
        class_names=tuple("abcdefgh"[:classes]),
        model_names=tuple(model_names),
        images=rng.integers(0, 256, (N, 1, 8, 8), dtype=np.uint8) if images else None,
    )


def truths(*rows) -> AttackInputs:
    """AttackInputs of targets alone, for tables of results that a test makes: one row of memberships per target."""
    member = np.array(rows, dtype=bool)
    model_names = tuple(f"target_{i:02d}" for i in range(len(member)))
    label = np.zeros(member.shape[1], dtype=np.int64)
    return AttackInputs(np.zeros((*member.shape, 1)), member, len(member), label, ("only",), model_names)


def inputs_and_results(attacks=None, **kwargs):
    """(inputs(**kwargs), the results of attack_targets() on them)."""
    reference = inputs(**kwargs)
    return reference, attack_targets(reference.phi, reference.member, n_targets=reference.n_targets, attacks=attacks)
