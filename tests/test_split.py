"""Who trains on what."""

import numpy as np
import pytest

from common import Split, default_n_train, make_split
from lira.errors import InputError

SIZES = [(20, 12), (21, 13), (1197, 600), (1000, 1001)]


def split(n_images=100, n_samples=30, *, n_train=None, exp_idx=0, inclusion="half") -> Split:
    return make_split(n_images, n_samples, n_train=n_train, exp_idx=exp_idx, inclusion=inclusion)


@pytest.mark.parametrize(("n_images", "n_samples"), SIZES)
@pytest.mark.parametrize("exp_idx", [0, 3])
def test_shadows_are_complementary_in_pairs_and_balanced(n_images, n_samples, exp_idx):
    one = split(n_images, n_samples, exp_idx=exp_idx)
    member = np.stack([one.member("shadow", index) for index in range(10)])
    for pair in range(5):
        np.testing.assert_array_equal(member[2 * pair], ~member[2 * pair + 1])
        assert member[2 * pair].sum() == n_samples // 2  # and the rest for its partner, one more for an odd N
    np.testing.assert_array_equal(member.sum(axis=0), 5)  # every sample in exactly S / 2
    assert len({row.tobytes() for row in member}) == 10


@pytest.mark.parametrize("n_samples", [600, 601])
def test_targets_take_a_half_each_for_itself(n_samples):
    one = split(n_samples=n_samples)
    member = np.stack([one.member("target", index) for index in range(200)])
    np.testing.assert_array_equal(member.sum(axis=1), n_samples // 2)
    # Independent and uniform: two rows agree on half of the samples, and so do neighbours in the same row.
    agree = [(member[i] == member[i + 1]).mean() for i in range(0, 200, 2)]
    assert abs(np.mean(agree) - 0.5) < 4 * 0.5 / np.sqrt(100 * n_samples)
    assert abs(member.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(200)
    shadow = one.member("shadow", 0)
    assert all(0.35 < (row == shadow).mean() < 0.65 for row in member)


def test_coin_inclusion_draws_each_sample_for_itself():
    one = split(n_samples=600, inclusion="coin")
    counts = np.array([one.member("target", index).sum() for index in range(400)])
    assert abs(counts.mean() - 300) < 4 * np.sqrt(150 / 400)
    assert 0.75 < counts.var() / 150 < 1.3  # binomial; an exact half has no variance
    np.testing.assert_array_equal(one.member("shadow", 4), split(n_samples=600).member("shadow", 4))


@pytest.mark.parametrize(("n_images", "n_samples"), SIZES)
def test_halves_are_disjoint_equal_and_the_same_for_every_experiment(n_images, n_samples):
    one, other = split(n_images, n_samples), split(n_images, n_samples, exp_idx=7, n_train=3)
    assert len(one.target_half) == len(one.attack_half) == n_images // 2
    together = np.concatenate([one.target_half, one.attack_half])
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(n_images))
    np.testing.assert_array_equal(one.target_half, other.target_half)
    np.testing.assert_array_equal(one.attack_half, other.attack_half)
    assert not np.array_equal(np.sort(one.target_half), np.arange(n_images // 2))  # at random


@pytest.mark.parametrize(("n_images", "n_samples"), SIZES)
@pytest.mark.parametrize(("role", "own"), [("shadow", "target_half"), ("target", "attack_half")])
def test_a_training_set_is_drawn_from_its_half_and_its_samples(n_images, n_samples, role, own):
    one = split(n_images, n_samples)
    for index in range(4):
        drawn = one.training_set(role, index, first_sample=n_images)
        images, samples = drawn[drawn < n_images], drawn[drawn >= n_images] - n_images
        assert drawn.dtype == np.int64
        assert len(set(drawn)) == len(drawn)
        assert len(images) == one.n_train
        assert set(images) <= set(getattr(one, own))
        np.testing.assert_array_equal(samples, np.flatnonzero(one.member(role, index)))
        assert not set(drawn) & set(one.test_set(role))  # no image is tested on that was trained on
        assert len(one.test_set(role)) == n_images // 2


def test_draws_depend_on_experiment_role_and_index_alone():
    one = split()
    late = [one.member("target", 3), one.training_set("target", 3, 100), one.seed("target", 3)]
    fresh = split()
    assert fresh.seed("target", 3) == late[2]
    np.testing.assert_array_equal(fresh.member("target", 3), late[0])
    np.testing.assert_array_equal(fresh.training_set("target", 3, 100), late[1])


def test_no_two_models_share_a_draw():
    jobs = [(exp, role, index) for exp in (0, 1) for role in ("target", "shadow") for index in range(12)]
    seeds = {split(exp_idx=exp).seed(role, index) for exp, role, index in jobs}
    assert len(seeds) == len(jobs)
    assert all(0 <= seed < 2**63 for seed in seeds)
    sets = {split(exp_idx=exp).training_set(role, index, 100)[:80].tobytes() for exp, role, index in jobs}
    assert len(sets) == len(jobs)
    # The partner of a pair has images of its own: only the target samples are complementary.
    one = split(1000)
    drawn = [set(one.training_set("shadow", index, 1000)[:400]) for index in (0, 1)]
    assert 250 < len(drawn[0] & drawn[1]) < 400  # 320 are expected of 400 out of 500


@pytest.mark.parametrize(
    ("n_images", "expected"), [(50_000, 20_000), (60_000, 20_000), (49_999, 19_999), (1197, 478), (10, 4)]
)
def test_default_number_of_images(n_images, expected):
    assert default_n_train(n_images) == expected
    assert split(n_images).n_train == expected


@pytest.mark.parametrize("n_train", [0, 51, -1])
def test_more_than_a_half_is_refused(n_train):
    with pytest.raises(InputError, match=rf"--n-train must be from 1 to 50.* got {n_train}$"):
        split(101, n_train=n_train)


def test_a_whole_half_may_be_taken():
    assert set(split(n_train=50).training_set("shadow", 0, 100)[:50]) == set(split().target_half)
