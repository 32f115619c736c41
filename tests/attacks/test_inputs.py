"""Scores of any origin: each mistake is rejected in one line that names the place."""

import warnings

import numpy as np
import pytest

from lira.attacks.inputs import MAX_PHI, validate_scores
from lira.attacks.registry import CONVENTIONS
from lira.attacks.run import attack_targets
from tests.helpers.attack_inputs import inputs
from tests.helpers.errors import input_error_line


def replaced(array, place, value):
    copy = np.array(array, dtype=float)
    copy[place] = value
    return copy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: {"phi": g.phi[0, :, 0]}, ["phi", "(40,)"]),
        (lambda g: {"phi": g.phi[..., None]}, ["phi", "(8, 40, 1, 1)"]),
        (lambda g: {"phi": g.phi[:, :0], "member": g.member[:, :0]}, ["phi", "(8, 0, 1)"]),
        (lambda g: {"phi": g.phi.astype(complex)}, ["phi", "complex128"]),
        (lambda g: {"phi": g.phi.astype(str)}, ["phi must be real numbers", "<U"]),
        (lambda g: {"member": g.member[:, :39]}, ["member", "(8, 40)", "(8, 39)"]),
        (lambda g: {"member": g.member.T}, ["member", "(8, 40)", "(40, 8)"]),
        (lambda g: {"member": np.full((8, 40), "yes")}, ["member", "<U3"]),
        (lambda g: {"member": replaced(g.member, (2, 9), 2)}, ["member", "row 2, column 9 is 2.0"]),
        (lambda g: {"member": replaced(g.member, (2, 9), 2).astype(int)}, ["member", "row 2, column 9 is 2:"]),
        (lambda g: {"member": replaced(g.member, (2, 9), np.nan)}, ["member", "row 2, column 9 is nan"]),
        (lambda g: {"phi": replaced(g.phi, (3, 5, 0), np.nan)}, ["phi", "row 3, column 5 is nan"]),
        (lambda g: {"phi": replaced(g.phi, (7, 39, 0), -np.inf)}, ["phi", "row 7, column 39 is -inf"]),
        (
            lambda g: {"phi": replaced(g.phi, (1, 2, 0), -1e300)},
            ["between -1e+40 and 1e+40", "row 1, column 2 is -1e+300"],
        ),
        (lambda g: {"member": np.zeros((8, 40), dtype=bool)}, ["no sample has both", "6 shadows", "has 0 members"]),
        (lambda g: {"member": np.ones((8, 40), dtype=bool)}, ["no sample has both", "6 shadows", "has 6 members"]),
        (lambda g: {"phi": g.phi[:5], "member": g.member[:5]}, ["4 shadows are needed, but of 5 rows 2", "3 shadows"]),
        (lambda g: {"phi": g.phi[:1], "member": g.member[:1]}, ["4 shadows are needed, but of 1 rows 2", "0 shadows"]),
    ],
)
def test_invalid_scores_are_rejected_with_their_place(change, words):
    reference = inputs()
    arrays = {"phi": reference.phi, "member": reference.member} | change(reference)
    line = input_error_line(validate_scores, arrays["phi"], arrays["member"], 2)
    for word in words:
        assert word in line


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_largest_valid_scores_can_be_attacked(convention):
    reference = inputs()
    phi = reference.phi.astype(np.float64) / np.abs(reference.phi).max() * MAX_PHI
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = attack_targets(phi, reference.member, n_targets=2, convention=convention)
    for result in results:
        assert np.isfinite(result.score).all(), result.attack


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float64])
def test_the_query_axis_is_added_and_members_become_boolean(dtype):
    reference = inputs()
    phi, member = validate_scores(reference.phi[..., 0], reference.member.astype(dtype), 2)
    np.testing.assert_array_equal(phi, reference.phi)
    assert member.dtype == bool
    np.testing.assert_array_equal(member, reference.member)
