"""Images resident on the device, and the augmentation of a batch where it lies.

Letters: B batch, C channels, H and W image size."""

import torch
import torch.nn.functional as F

from lira.data.images import Images

Query = tuple[int, int, bool]  # (pixels down, pixels right, flipped)
IDENTITY: Query = (0, 0, False)


class ImageStore:
    """All images of a data set, uint8 in one tensor on the device: training images first, then target samples.

    Images are stored with a black margin, so that a shifted image is a window of its margin: one gather cuts a
    whole batch, and its memory is already channels_last. margin: pixels, the farthest shift."""

    def __init__(self, images: Images, *, flip: bool, device: torch.device):
        x = torch.cat([images.x_train, images.x_test])
        self.first_sample = len(images.x_train)
        self.channels, self.size = x.shape[1], tuple(x.shape[2:])
        self.margin = min(self.size) // 8  # 4 pixels for CIFAR
        self.flip, self.device = flip, device
        self.y = torch.cat([images.y_train, images.y_test]).to(device)
        padded = F.pad(x, [self.margin] * 4).permute(0, 2, 3, 1).contiguous().to(device)
        # (n, H + 2m, W + 2m, C) -> windows (n, 2m + 1, 2m + 1, H, W, C), a view
        self._windows = padded.unfold(1, self.size[0], 1).unfold(2, self.size[1], 1).permute(0, 1, 2, 4, 5, 3)
        mean = torch.tensor(images.mean, device=device) * 255
        std = torch.tensor(images.std, device=device) * 255
        pixels = self.size[0] * self.size[1]  # one value a pixel and channel: far quicker than broadcasting over C
        self._scale, self._shift = (1 / std).repeat(pixels), (-mean / std).repeat(pixels)

    def raw(self, index: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
        """uint8 (B, H, W, C). index, top, left: int64 (B,), flip: bool (B,); top = left = margin is the identity."""
        x = self._windows[index, top, left]
        return torch.where(flip[:, None, None, None], x.flip(2), x)

    def batch(self, index, top, left, flip) -> torch.Tensor:
        """The same as float32 (B, C, H, W) in channels_last memory, each channel of mean 0 and deviation 1."""
        x = self.raw(index, top, left, flip).flatten(1).float()
        x = torch.addcmul(self._shift, x, self._scale)
        return x.view(len(index), *self.size, self.channels).permute(0, 3, 1, 2)

    def unaugmented(self, index: torch.Tensor, query: Query = IDENTITY) -> torch.Tensor:
        """batch() with one (down, right, flip) for all images, by default the identity."""
        down, right, flip = query
        whole = torch.ones_like(index)
        return self.batch(
            index, whole * (self.margin + down), whole * (self.margin + right), (whole * int(flip)).bool()
        )

    def draw(self, n: int, generator: torch.Generator, *, augment: bool) -> tuple[torch.Tensor, ...]:
        """(top, left, flip) for n images, each drawn for itself; on the CPU, so that all devices see the same."""
        if not augment:
            centre = torch.full((n,), self.margin)
            return centre, centre, torch.zeros(n, dtype=torch.bool)
        top, left = torch.randint(0, 2 * self.margin + 1, (2, n), generator=generator)
        flip = torch.randint(0, 2, (n,), generator=generator).bool()
        return top, left, flip & self.flip
