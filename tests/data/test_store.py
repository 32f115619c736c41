"""Augmentation and normalisation of a batch, against loops over images and pixels."""

import numpy as np
import pytest
import torch

from tests.helpers import tiny_images

SHAPES = [
    {"size": (32, 32), "channels": 3},
    {"size": (28, 28), "channels": 1},
    {"size": (16, 20), "channels": 3},
    {"size": (5, 9), "channels": 1},
]


def draw(store, n, augment=True):
    return store.draw(n, torch.Generator().manual_seed(0), augment=augment)


def naive_augmentation(x, top, left, flip, margin):
    """One image (C, H, W): pad with black, crop at (top, left), mirror left and right."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2 * margin, width + 2 * margin), dtype=np.uint8)
    padded[:, margin : margin + height, margin : margin + width] = x
    cropped = padded[:, top : top + height, left : left + width]
    return cropped[:, :, ::-1] if flip else cropped


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flip", [True, False])
def test_augmentation_equals_pad_crop_and_flip_of_each_image(shape, flip):
    images, store = tiny_images.images(**shape), tiny_images.store(flip=flip, **shape)
    all_images = torch.cat([images.x_train, images.x_test]).numpy()
    index = torch.randint(0, len(all_images), (200,), generator=torch.Generator().manual_seed(1))
    drawn = draw(store, 200)
    raw = store.raw(index, *drawn)
    assert raw.dtype == torch.uint8  # no overflow: a pixel of the image, or black
    for image, i, top, left, mirrored in zip(raw, index, *drawn, strict=True):
        expected = naive_augmentation(all_images[i], int(top), int(left), bool(mirrored), store.margin)
        np.testing.assert_array_equal(image.permute(2, 0, 1), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_normalisation_subtracts_the_mean_and_divides_by_the_std(shape):
    images, store = tiny_images.images(**shape), tiny_images.store(**shape)
    x = images.x_train.numpy().astype(np.float64) / 255
    mean, std = x.mean(axis=(0, 2, 3), keepdims=True), x.std(axis=(0, 2, 3), keepdims=True)
    batch = store.unaugmented(torch.arange(len(x)))
    np.testing.assert_allclose(batch, (x - mean) / std, atol=2e-6)
    assert batch.dtype == torch.float32
    np.testing.assert_allclose(batch.mean(dim=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(batch.std(dim=(0, 2, 3), correction=0), 1, atol=1e-5)


def test_margin_is_black_after_normalisation():
    """Its pixels are black ones normalised, not 0, which is the mean."""
    images, store = tiny_images.images(channels=3), tiny_images.store(channels=3)
    batch = store.unaugmented(torch.tensor([0]), (store.margin, 0, False))
    black = -torch.tensor(images.mean) / torch.tensor(images.std)
    bottom = batch[0, :, -store.margin :, :]
    np.testing.assert_allclose(bottom, black[:, None, None].expand_as(bottom), rtol=1e-5)


def test_every_value_lies_between_black_and_white():
    images, store = tiny_images.images(size=(32, 32)), tiny_images.store(size=(32, 32))
    batch = store.batch(torch.arange(37), *draw(store, 37))
    for channel, (mean, std) in enumerate(zip(images.mean, images.std, strict=True)):
        assert batch[:, channel].min() >= -mean / std - 1e-5
        assert batch[:, channel].max() <= (1 - mean) / std + 1e-5


def test_batches_have_channels_last_memory():
    store = tiny_images.store(size=(16, 20), channels=3)
    batch = store.batch(torch.arange(5), *draw(store, 5))
    assert batch.shape == (5, 3, 16, 20)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.stride() == (16 * 20 * 3, 1, 20 * 3, 3)


def test_augmentation_is_drawn_for_each_image():
    """Every shift and both directions are equally frequent and independent of each other."""
    store = tiny_images.store(size=(32, 32), channels=3)
    top, left, flip = draw(store, 4000)
    assert store.margin == 4
    assert sorted(set(top.tolist())) == sorted(set(left.tolist())) == list(range(9))
    assert abs(flip.float().mean() - 0.5) < 5 * 0.5 / 4000**0.5
    counts = torch.bincount(top * 18 + left * 2 + flip, minlength=162).double()
    chi = ((counts - 4000 / 162) ** 2 / (4000 / 162)).sum()
    assert chi < 161 + 5 * (2 * 161) ** 0.5
    batch = store.batch(torch.zeros(50, dtype=torch.int64), top[:50], left[:50], flip[:50])
    assert len({image.numpy().tobytes() for image in batch}) > 40


def test_without_flip_no_image_is_mirrored():
    store = tiny_images.store(flip=False)
    assert not draw(store, 1000)[2].any()
    # the shifts are the same as with flips
    for a, b in zip(draw(store, 1000)[:2], draw(tiny_images.store(flip=True), 1000)[:2], strict=True):
        assert torch.equal(a, b)


def test_without_augmentation_a_batch_is_the_original_images():
    images, store = tiny_images.images(), tiny_images.store()
    raw = store.raw(torch.arange(37), *draw(store, 37, augment=False))
    assert torch.equal(raw.permute(0, 3, 1, 2), images.x_train)
    batch = store.batch(torch.arange(37), *draw(store, 37, augment=False))
    assert torch.equal(batch, store.unaugmented(torch.arange(37)))


@pytest.mark.parametrize(("down", "right", "flip"), [(0, 0, False), (1, 0, False), (-2, 1, True), (0, 2, True)])
def test_a_query_shifts_all_images_alike(down, right, flip):
    images, store = tiny_images.images(size=(16, 20)), tiny_images.store(size=(16, 20))
    batch = store.unaugmented(torch.arange(37), (down, right, flip))
    mean, std = (torch.tensor(values)[:, None, None].double() for values in (images.mean, images.std))
    for image, x in zip(batch, images.x_train, strict=True):
        shifted = naive_augmentation(x.numpy(), store.margin + down, store.margin + right, flip, store.margin).copy()
        np.testing.assert_allclose(image, (torch.from_numpy(shifted).double() / 255 - mean) / std, atol=2e-6)


def test_target_samples_follow_the_training_images():
    images, store = tiny_images.images(), tiny_images.store()
    assert store.first_sample == 37
    assert torch.equal(store.y, torch.cat([images.y_train, images.y_test]))
    index = torch.arange(12) + store.first_sample
    raw = store.raw(index, *draw(store, 12, augment=False))
    assert torch.equal(raw.permute(0, 3, 1, 2), images.x_test)
