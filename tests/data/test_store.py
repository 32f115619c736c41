"""Augmentation and normalisation of a batch, against loops over images and pixels."""

import numpy as np
import pytest
import torch

from tests.helpers.tiny_images import images, store

SHAPES = [
    {"size": (32, 32), "channels": 3}, {"size": (28, 28), "channels": 1},
    {"size": (16, 20), "channels": 3}, {"size": (5, 9), "channels": 1},
]  # fmt: skip


def draw(one, n, seed=0, augment=True):
    return one.draw(n, torch.Generator().manual_seed(seed), augment=augment)


def naive(x, top, left, flip, margin):
    """One image (C, H, W): pad with black, crop at (top, left), mirror left and right."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2 * margin, width + 2 * margin), dtype=np.uint8)
    padded[:, margin : margin + height, margin : margin + width] = x
    cropped = padded[:, top : top + height, left : left + width]
    return cropped[:, :, ::-1] if flip else cropped


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [True, False])
def test_augmentation_equals_pad_crop_and_flip_of_each_image(shape, flip):
    data, one = images(**shape), store(flip=flip, **shape)
    everything = torch.cat([data.x_train, data.x_test]).numpy()
    index = torch.randint(0, len(everything), (200,), generator=torch.Generator().manual_seed(1))
    drawn = draw(one, 200)
    raw = one.raw(index, *drawn)
    assert raw.dtype == torch.uint8  # every pixel in range: a pixel of the image, or black
    for got, i, top, left, mirrored in zip(raw, index, *drawn, strict=True):
        expected = naive(everything[i], int(top), int(left), bool(mirrored), one.margin)
        np.testing.assert_array_equal(got.permute(2, 0, 1), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_normalisation_equals_subtracting_and_dividing(shape):
    data, one = images(**shape), store(**shape)
    x = data.x_train.numpy().astype(np.float64) / 255
    mean, std = x.mean(axis=(0, 2, 3), keepdims=True), x.std(axis=(0, 2, 3), keepdims=True)
    batch = one.unaugmented(torch.arange(len(x)))
    np.testing.assert_allclose(batch, (x - mean) / std, atol=2e-6)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.mean(dim=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(batch.std(dim=(0, 2, 3), correction=0), 1, atol=1e-5)


def test_padding_is_black_after_normalisation_too():
    """The margin is a black pixel, not a pixel of the mean."""
    data, one = images(channels=3), store(channels=3)
    batch = one.unaugmented(torch.tensor([0]), (one.margin, 0, False))
    black = -torch.tensor(data.mean) / torch.tensor(data.std)
    bottom = batch[0, :, -one.margin :, :]
    np.testing.assert_allclose(bottom, black[:, None, None].expand_as(bottom), rtol=1e-5)


def test_every_value_lies_between_black_and_white():
    data, one = images(size=(32, 32)), store(size=(32, 32))
    batch = one.batch(torch.arange(37), *draw(one, 37))
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        assert batch[:, channel].min() >= -mean / std - 1e-5
        assert batch[:, channel].max() <= (1 - mean) / std + 1e-5


def test_batches_lie_in_channels_last_memory():
    one = store(size=(16, 20), channels=3)
    batch = one.batch(torch.arange(5), *draw(one, 5))
    assert batch.shape == (5, 3, 16, 20)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.stride() == (16 * 20 * 3, 1, 20 * 3, 3)


def test_each_image_of_a_batch_is_drawn_for_itself():
    """The same image a thousand times: every shift and both directions, about equally often."""
    one = store(size=(32, 32), channels=3)
    top, left, flip = draw(one, 4000)
    assert one.margin == 4
    assert sorted(set(top.tolist())) == sorted(set(left.tolist())) == list(range(9))
    assert abs(flip.float().mean() - 0.5) < 5 * 0.5 / 4000**0.5
    counts = torch.bincount(top * 18 + left * 2 + flip, minlength=162).double()
    chi = ((counts - 4000 / 162) ** 2 / (4000 / 162)).sum()
    assert chi < 161 + 5 * (2 * 161) ** 0.5  # independent of each other
    batch = one.batch(torch.zeros(50, dtype=torch.int64), top[:50], left[:50], flip[:50])
    assert len({image.numpy().tobytes() for image in batch}) > 40


def test_without_flip_nothing_is_mirrored():
    one = store(flip=False)
    assert not draw(one, 1000)[2].any()
    # and the shifts are those that are drawn with flips
    for a, b in zip(draw(one, 1000)[:2], draw(store(flip=True), 1000)[:2], strict=True):
        assert torch.equal(a, b)


def test_without_augmentation_a_batch_is_the_images():
    data, one = images(), store()
    raw = one.raw(torch.arange(37), *draw(one, 37, augment=False))
    assert torch.equal(raw.permute(0, 3, 1, 2), data.x_train)
    assert torch.equal(one.batch(torch.arange(37), *draw(one, 37, augment=False)), one.unaugmented(torch.arange(37)))


@pytest.mark.parametrize(("down", "right", "flip"), [(0, 0, False), (1, 0, False), (-2, 1, True), (0, 2, True)])
def test_a_declared_query_is_one_shift_for_all(down, right, flip):
    data, one = images(size=(16, 20)), store(size=(16, 20))
    got = one.unaugmented(torch.arange(37), (down, right, flip))
    mean, std = (torch.tensor(part)[:, None, None].double() for part in (data.mean, data.std))
    for image, x in zip(got, data.x_train, strict=True):
        moved = naive(x.numpy(), one.margin + down, one.margin + right, flip, one.margin).copy()
        np.testing.assert_allclose(image, (torch.from_numpy(moved).double() / 255 - mean) / std, atol=2e-6)


def test_target_samples_follow_the_training_images():
    data, one = images(), store()
    assert one.first_sample == 37
    assert torch.equal(one.y, torch.cat([data.y_train, data.y_test]))
    index = torch.arange(12) + one.first_sample
    raw = one.raw(index, *draw(one, 12, augment=False))
    assert torch.equal(raw.permute(0, 3, 1, 2), data.x_test)
