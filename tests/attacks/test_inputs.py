"""Scores from elsewhere: what is read, and the one line for each thing that can be wrong with them."""

import contextlib

import numpy as np
import pytest

from lira.errors import InputError
from lira.storage.scores import read_scores
from tests.helpers.attack_inputs import inputs


def arrays(**changed):
    given = inputs()
    return {"phi": given.phi, "member": given.member} | changed


def saved(folder, name="given.npz", **changed):
    np.savez(folder / name, **{key: value for key, value in arrays(**changed).items() if value is not None})
    return folder / name


def rejected(path, n_targets=2):
    with pytest.raises(InputError) as caught:
        read_scores(path, n_targets=n_targets)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_every_query_is_kept(tmp_path):
    given = inputs(n_queries=3)
    found = read_scores(saved(tmp_path, phi=given.phi, member=given.member, label=given.label), n_targets=2)
    np.testing.assert_array_equal(found.phi, given.phi)
    np.testing.assert_array_equal(found.member, given.member)
    np.testing.assert_array_equal(found.label, given.label)
    assert (found.n_targets, found.names, found.class_names) == (2, given.names, ("0", "1", "2", "3"))
    assert found.images is None
    assert found.n_shadows == 6


def test_one_query_needs_no_axis_and_no_label(tmp_path):
    given = inputs()
    found = read_scores(saved(tmp_path, phi=given.phi[..., 0]), n_targets=3)
    np.testing.assert_array_equal(found.phi, given.phi)
    assert found.names[2:4] == ("target_02", "shadow_00")
    assert found.label.tolist() == [0] * 40
    assert found.class_names == ("0",)


def test_members_may_be_zeros_and_ones(tmp_path):
    given = inputs()
    for kind in (np.uint8, np.float64):
        found = read_scores(saved(tmp_path, member=given.member.astype(kind)), n_targets=2)
        assert found.member.dtype == bool
        np.testing.assert_array_equal(found.member, given.member)


def changed(array, place, value):
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
        (lambda g: {"member": g.member[:, :39]}, ["member", "(8, 40)", "(8, 39)"]),
        (lambda g: {"member": g.member.T}, ["member", "(8, 40)", "(40, 8)"]),
        (lambda g: {"member": np.full((8, 40), "yes")}, ["member", "<U3"]),
        (lambda g: {"member": changed(g.member, (2, 9), 2)}, ["member", "row 2", "column 9", "2.0"]),
        (lambda g: {"member": changed(g.member, (2, 9), np.nan)}, ["member", "row 2", "column 9", "nan"]),
        (lambda g: {"phi": changed(g.phi, (3, 5, 0), np.nan)}, ["row 3", "column 5", "nan"]),
        (lambda g: {"phi": changed(g.phi, (7, 39, 0), -np.inf)}, ["row 7", "column 39", "-inf"]),
        (lambda g: {"member": np.zeros((8, 40), dtype=bool)}, ["no sample has both", "6 shadows"]),
        (lambda g: {"phi": g.phi[:5], "member": g.member[:5]}, ["4 shadows", "5 rows", "3 shadows"]),
        (lambda g: {"phi": g.phi[:1], "member": g.member[:1]}, ["4 shadows", "1 rows", "0 shadows"]),
        (lambda g: {"phi": np.full((8, 40), None)}, ["cannot be read", "allow_pickle=False"]),
        (lambda g: {"label": np.full(40, None)}, ["cannot be read", "allow_pickle=False"]),
        (lambda g: {"phi": None}, ["no array 'phi'"]),
        (lambda g: {"member": None}, ["no array 'member'"]),
        (lambda g: {"label": np.zeros(39, dtype=int)}, ["label", "40 class numbers", "(39,)"]),
        (lambda g: {"label": np.zeros((40, 1), dtype=int)}, ["label", "(40, 1)"]),
        (lambda g: {"label": np.zeros(40)}, ["label", "float64"]),
        (lambda g: {"label": np.arange(40) - 1}, ["label", "column 0", "-1"]),
        (lambda g: {"label": np.where(np.arange(40) == 6, 10**12, 0)}, ["label", "column 6", "1000000000000"]),
    ],
)
def test_each_mistake_is_one_line(tmp_path, change, words):
    line = rejected(saved(tmp_path, **change(inputs())))
    for word in words:
        assert word in line


def test_what_is_no_npz_file_is_one_line(tmp_path):
    assert "no such file" in rejected(tmp_path / "missing.npz")
    assert "no such file" in rejected(tmp_path)
    good = saved(tmp_path).read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, content in (("empty", b""), ("text", b"no scores\n" * 9), ("head", good[:4])):
        (tmp_path / name).write_bytes(content)
        assert f"{name} cannot be read" in rejected(tmp_path / name)
    assert "array.npy cannot be read" in rejected(tmp_path / "array.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_cut_or_flipped_anywhere_is_refused_or_still_whole(tmp_path, save):
    path, bad = tmp_path / "good.npz", tmp_path / "bad.npz"
    save(path, **arrays())
    good, rng = path.read_bytes(), np.random.default_rng(0)
    for length in rng.integers(0, len(good), 60):
        bad.write_bytes(good[:length])
        assert "cannot be read" in rejected(bad)
    for place in rng.integers(0, len(good), 200):
        bad.write_bytes(good[:place] + bytes([good[place] ^ (1 << rng.integers(8))]) + good[place + 1 :])
        with contextlib.suppress(InputError):
            read_scores(bad, n_targets=2)
