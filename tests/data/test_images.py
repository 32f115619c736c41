"""The checks of make_images, channel statistics, the fingerprint and duplicates."""

import numpy as np
import pytest

from lira.data.images import ARRAYS, find_duplicates, make_images
from tests.helpers.datasets import arrays, pixels
from tests.helpers.errors import input_error_line


def make_with(**changes):
    return make_images("here", **(arrays() | changes))


INVALID_ARRAYS = {
    "float pixels": ({"x_train": np.zeros((6, 8, 10, 3), np.float32)}, ["x_train is float32", "uint8"]),
    "channels first": ({"x_train": np.zeros((6, 3, 8, 10), np.uint8)}, ["x_train", "(6, 3, 8, 10)", "last"]),
    "two channels": ({"x_test": np.zeros((4, 8, 10, 2), np.uint8)}, ["x_test", "(4, 8, 10, 2)"]),
    "flat images": ({"x_train": np.zeros((6, 80), np.uint8)}, ["x_train", "(6, 80)"]),
    "no images": (
        {"x_test": np.zeros((0, 8, 10, 3), np.uint8), "y_test": np.zeros(0, int)},
        ["x_test has shape (0, 8, 10, 3)", "at least one"],
    ),
    "one pixel": ({"x_train": np.zeros((6, 1, 1, 3), np.uint8)}, ["x_train", "(6, 1, 1, 3)", "4x4"]),
    "sizes differ": ({"x_test": np.zeros((4, 8, 9, 3), np.uint8)}, ["(6, 8, 10, 3)", "(4, 8, 9, 3)"]),
    "channels differ": ({"x_test": np.zeros((4, 8, 10), np.uint8)}, ["(6, 8, 10, 3)", "(4, 8, 10)"]),
    "lengths differ": ({"y_train": np.zeros(5, int)}, ["y_train", "(5,)", "(6,)"]),
    "labels as a column": ({"y_train": np.zeros((6, 1), int)}, ["y_train", "(6, 1)", "(6,)"]),
    "float labels": ({"y_test": np.zeros(4)}, ["y_test is float64", "integers"]),
    "negative label": ({"y_train": np.array([0, 1, 2, -7, 0, -1])}, ["y_train[3] is -7", "2 of 6"]),
    "test label too high": ({"y_test": np.array([0, 1, 5, 9])}, ["y_test[2] is 5", "0..2"]),
    "label is an identifier": ({"y_train": np.array([0, 1, 0, 1, 10**9, 0])}, ["y_train[4] is 1000000000"]),
    "huge unsigned label": ({"y_train": np.array([0, 1, 2, 0, 1, 2**64 - 1], np.uint64)}, [str(2**64 - 1)]),
    "more labels than names": ({"class_names": np.array(["a", "b"])}, ["y_train[2] is 2", "0..1"]),
    "one class": ({"y_train": np.zeros(6, int), "y_test": np.zeros(4, int)}, ["1 class", "at least 2"]),
}


@pytest.mark.parametrize("case", INVALID_ARRAYS)
def test_invalid_arrays_are_rejected_by_name(case):
    changes, expected = INVALID_ARRAYS[case]
    line = input_error_line(make_with, **changes)
    assert line.startswith("here: ")
    assert all(part in line for part in expected), line


def test_channel_statistics_equal_those_of_numpy():
    x = pixels(6, 8, 10, 3)
    x[..., 2] = 51  # a constant channel
    images = make_with(x_train=x)
    np.testing.assert_allclose(images.mean, x.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(images.std[:2], x.std((0, 1, 2))[:2] / 255, rtol=1e-12)
    assert images.std[2] == 1 / 255


def test_fingerprint_depends_on_the_content_alone():
    names = np.array(["ant", "bee", "cat"])
    base = make_with(class_names=names).fingerprint
    assert make_with(class_names=names).fingerprint == base
    original = arrays()
    changes = {key: original[key].copy() for key in ARRAYS}
    for key in ("x_train", "x_test"):
        changes[key][1, 2, 3, 1] ^= 1
    changes["y_train"][0], changes["y_test"][0] = 1, 1
    changes["class_names"] = np.array(["ant", "bee", "cow"])
    others = [make_with(**{"class_names": names} | {k: v}) for k, v in changes.items()]
    # the same bytes in another shape
    reshaped = {key: original[key].reshape(-1, 10, 8, 3) for key in ("x_train", "x_test")}
    others.append(make_with(class_names=names, **reshaped))
    assert len({base, *(other.fingerprint for other in others)}) == 7


def test_duplicates_are_the_copied_images_and_no_others():
    changes = arrays(n_train=50, n_test=30)
    changes["x_test"][[4, 9, 20]] = changes["x_train"][[7, 7, 0]]
    changes["x_train"][33] = changes["x_train"][7]  # twice in the training set: the first is returned
    changes["x_test"][25] = changes["x_train"][8]
    changes["x_test"][25, 0, 0, 0] ^= 1  # differs in one bit
    test_index, train_index = find_duplicates(make_with(**changes))
    assert test_index.tolist() == [4, 9, 20]
    assert train_index.tolist() == [7, 7, 0]


def test_distinct_sets_have_no_duplicates():
    test_index, train_index = find_duplicates(make_with())
    assert len(test_index) == len(train_index) == 0
    assert test_index.dtype == train_index.dtype == np.int64
