"""Images in memory on the device, and the augmentation of a batch there.

Letters: B batch, C channels, H and W image size."""

import torch
import torch.nn.functional as F

from lira.data.images import Images

Query = tuple[int, int, bool]  # (pixels down, pixels right, flipped)
IDENTITY: Query = (0, 0, False)


class ImageStore:
    """All images of a dataset, uint8 in one tensor on the device: training images first, then target samples.

    Images are stored with a black margin, so that a shifted image is a window of the padded one: a single gather
    makes a whole batch, already in channels_last memory. margin: the largest shift, in pixels."""

    def __init__(self, images: Images, *, flip: bool, device: torch.device):
        x = torch.cat([images.x_train, images.x_test])
        self.first_sample = len(images.x_train)
        self.channels, self.size = images.channels, images.size
        self.margin = min(self.size) // 8  # 4 pixels for CIFAR
        self.flip, self.device = flip, device
        self.y = torch.cat([images.y_train, images.y_test]).to(device)
        padded = F.pad(x, [self.margin] * 4).permute(0, 2, 3, 1).contiguous().to(device)
        # (n, H + 2m, W + 2m, C) -> windows (n, 2m + 1, 2m + 1, H, W, C), a view
        self._windows = padded.unfold(1, self.size[0], 1).unfold(2, self.size[1], 1).permute(0, 1, 2, 4, 5, 3)
        mean, std = (torch.tensor(values, device=device) * 255 for values in (images.mean, images.std))
        n_pixels = self.size[0] * self.size[1]  # repeated for each pixel: much faster than broadcasting over C
        self._scale, self._shift = (1 / std).repeat(n_pixels), (-mean / std).repeat(n_pixels)

    def raw(self, index: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """uint8 (B, H, W, C). index, top, left: int64 (B,), flip: bool (B,); top = left = margin is the identity."""
        x = self._windows[index, top, left]
        return torch.where(flip[:, None, None, None], x.flip(2), x)

    def batch(self, index: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """raw() normalised by each channel's mean and std: float32 (B, C, H, W) in channels_last memory."""
        pixels = self.raw(index, top, left, flip).flatten(1).float()
        normalised = torch.addcmul(self._shift, pixels, self._scale)
        return normalised.view(len(index), *self.size, self.channels).permute(0, 3, 1, 2)

    def unaugmented(self, index: torch.Tensor, query: Query = IDENTITY) -> torch.Tensor:
        """batch() with the same (down, right, flip) for all images, by default the identity."""
        down, right, flip = query
        top, left = (torch.full_like(index, self.margin + shift) for shift in (down, right))
        return self.batch(index, top, left, torch.full_like(index, flip, dtype=torch.bool))

    def draw(self, n: int, generator: torch.Generator, *, augment: bool) -> tuple[torch.Tensor, ...]:
        """(top, left, flip) for n images, independent of each other; on the CPU, so the same for all devices."""
        if not augment:
            centre = torch.full((n,), self.margin)
            return centre, centre, torch.zeros(n, dtype=torch.bool)
        top, left = torch.randint(0, 2 * self.margin + 1, (2, n), generator=generator)
        flip = torch.randint(0, 2, (n,), generator=generator).bool()
        return top, left, flip & self.flip
