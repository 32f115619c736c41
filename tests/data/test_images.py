"""The checks of make_images, channel statistics, the fingerprint and duplicates."""

import numpy as np
import pytest

from lira.data.images import ARRAYS, few_samples, find_duplicates, make_images
from tests.helpers.datasets import arrays, pixels
from tests.helpers.errors import input_error_line


def make_with(**changes):
    return make_images("here", **(arrays() | changes))


INVALID_ARRAYS = {
    "channels first": (
        {"x_train": np.zeros((6, 3, 8, 10), np.uint8)},
        ["(6, 3, 8, 10)", "x_train.transpose(0, 2, 3, 1)"],
    ),
    "normalised pixels": (
        {"x_test": np.full((4, 8, 10, 3), -2.1)},
        ["x_test is float64", "before they were normalised"],
    ),
    "alpha channel": ({"x_train": np.zeros((6, 8, 10, 4), np.uint8)}, ["(6, 8, 10, 4)", "x_train[..., :3]"]),
    "two channels": ({"x_test": np.zeros((4, 8, 10, 2), np.uint8)}, ["x_test", "(4, 8, 10, 2)"]),
    "flat images": ({"x_train": np.zeros((6, 80), np.uint8)}, ["x_train", "(6, 80)", "x_train.reshape(-1, H, W)"]),
    "no images": (
        {"x_test": np.zeros((0, 8, 10, 3), np.uint8), "y_test": np.zeros(0, int)},
        ["x_test has shape (0, 8, 10, 3)", "at least one"],
    ),
    "one pixel": ({"x_train": np.zeros((6, 1, 1, 3), np.uint8)}, ["x_train", "(6, 1, 1, 3)", "4x4"]),
    "sizes differ": ({"x_test": np.zeros((4, 8, 9, 3), np.uint8)}, ["(6, 8, 10, 3)", "(4, 8, 9, 3)"]),
    "channels differ": ({"x_test": np.zeros((4, 8, 10), np.uint8)}, ["(6, 8, 10, 3)", "(4, 8, 10)"]),
    "lengths differ": ({"y_train": np.zeros(5, int)}, ["y_train", "(5,)", "(6,)"]),
    "labels as a column": ({"y_train": np.zeros((6, 1), int)}, ["y_train", "(6, 1)", "(6,)", "y_train.ravel()"]),
    "float labels": ({"y_test": np.zeros(4)}, ["y_test is float64", "integers", "y_test.astype(np.int64)"]),
    "negative label": ({"y_train": np.array([0, 1, 2, -7, 0, -1])}, ["y_train[3] is -7", "2 of 6"]),
    "test label too high": ({"y_test": np.array([0, 1, 5, 9])}, ["y_test[2] is 5", "0..2"]),
    "label is an identifier": ({"y_train": np.array([0, 1, 0, 1, 10**9, 0])}, ["y_train[4] is 1000000000"]),
    "huge unsigned label": ({"y_train": np.array([0, 1, 2, 0, 1, 2**64 - 1], np.uint64)}, [str(2**64 - 1)]),
    "more labels than names": ({"class_names": np.array(["a", "b"])}, ["y_train[2] is 2", "0..1"]),
    "one-hot labels": ({"y_train": np.eye(6, 3, dtype=int)}, ["y_train", "(6, 3)", "y_train.argmax(axis=1)"]),
    "labels from 1": (
        {"y_train": np.arange(6) % 3 + 1, "y_test": np.arange(4) % 3 + 1},
        ["no image of class 0, do labels start at 1?", "y_train - 1 and y_test - 1"],
    ),
    "labels from 1 to the number of names": (
        {"class_names": np.array(["a", "b", "c"]), "y_train": np.arange(6) % 3 + 1},
        ["y_train[2] is 3", "0..2", "seem to start at 1, save y_train - 1"],
    ),
    "members of other samples": ({"member": np.ones(5, bool)}, ["member has shape (5,)", "(4,), or (T, 4)"]),
    "members transposed": ({"member": np.ones((4, 3), bool)}, ["(4, 3)", "transposed: save member.T"]),
    "members that are numbers": ({"member": np.arange(4)}, ["member must be True", "booleans"]),
    "one class": ({"y_train": np.zeros(6, int), "y_test": np.zeros(4, int)}, ["1 class", "at least 2"]),
}


@pytest.mark.parametrize("case", INVALID_ARRAYS)
def test_invalid_arrays_are_rejected_by_name(case):
    changes, expected = INVALID_ARRAYS[case]
    line = input_error_line(make_with, **changes)
    assert line.startswith("here: ")
    assert all(part in line for part in expected), line


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (np.array([0, 0.5, 1], np.float32), "np.rint(255 * x_train).astype(np.uint8)"),
        (np.array([0, 200.0, 255]), "np.rint(x_train).astype(np.uint8)"),
        (np.array([-1, 0.5, 1]), "np.rint(127.5 * (x_train + 1)).astype(np.uint8)"),
        (np.array([0, 7, 255]), "x_train.astype(np.uint8)"),
        (np.array([False, True, True]), "x_train.astype(np.uint8)"),
    ],
)
def test_other_pixels_are_named_with_the_line_that_converts_them(values, line):
    """The line of the message, run, gives pixels that are accepted and span the same range."""
    x_train = np.resize(values, (6, 8, 10, 3))
    message = input_error_line(make_with, x_train=x_train)
    assert message.startswith(f"here: x_train is {values.dtype}")
    assert message.endswith(f"save {line}")
    converted = eval(line, {"np": np, "x_train": x_train})
    images = make_with(x_train=converted)
    assert images.x_train.min() == 0
    assert images.x_train.max() == (255 if values.dtype.kind != "b" else 1)


def test_members_of_one_model_or_of_several():
    for member in (np.arange(4) == 2, np.arange(8).reshape(2, 4) % 3 == 0, np.array([[0, 1, 1, 0]])):
        images = make_with(member=member)
        np.testing.assert_array_equal(images.member, np.atleast_2d(member))
        assert images.member.dtype == bool
        assert images.fingerprint == make_with().fingerprint
    assert make_with().member is None


def test_few_target_samples_are_named():
    assert few_samples(make_with(**arrays(n_test=300))) == []
    lines = few_samples(make_with(**arrays(n_test=29)))
    assert lines[0].startswith("29 target samples are few")
    assert lines[1].startswith("1 of 3 classes have fewer than 10 target samples, the fewest 2 (9)")


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
