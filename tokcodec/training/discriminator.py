"""A PatchGAN discriminator on clips (Isola et al., CVPR 2017, in three dimensions), with blur pooling.

It halves the resolution only after a low-pass filter (Zhang, ICML 2019), so that its gradient carries no
checkerboard. It has no norm: nothing but its own patch decides a logit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def blur_pool(x: Tensor) -> Tensor:
    """Halve time, height and width (rounded up) of `[B, C, T, H, W]` after the filter [1, 2, 1] / 4 along each."""
    for dim in (2, 3, 4):
        size = x.shape[dim]
        x = torch.cat([x.narrow(dim, 0, 1), x, x.narrow(dim, size - 1, 1)], dim=dim)
        left, middle, right = (x[(slice(None),) * dim + (slice(i, i + size, 2),)] for i in range(3))
        x = (left + 2 * middle + right) / 4
    return x


class Discriminator(nn.Module):
    """Clips to one logit a patch: high for real, low for decoded.

    Args:
        channels: at half the resolution; twice and four times that at a quarter and an eighth.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, channels, (3, 4, 4), stride=(1, 2, 2), padding=1)
        self.quarter = nn.Conv3d(channels, 2 * channels, 3, padding=1)
        self.eighth = nn.Conv3d(2 * channels, 4 * channels, 3, padding=1)
        self.mix = nn.Conv3d(4 * channels, 4 * channels, 3, padding=1)
        self.head = nn.Conv3d(4 * channels, 1, 1)
        for conv in (self.stem, self.quarter, self.eighth, self.mix):  # the default would shrink each layer's output
            nn.init.kaiming_normal_(conv.weight, a=0.2)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, clip: Tensor) -> Tensor:
        """Float `[B, 3, T, H, W]` in [-1, 1], H and W multiples of 8, to `[B, 1, ceil(T/4), H/8, W/8]`."""
        x = F.leaky_relu(self.stem(clip), 0.2)  # [B, 32, T, H/2, W/2]
        x = F.leaky_relu(self.quarter(blur_pool(x)), 0.2)  # [B, 64, T/2, H/4, W/4]
        x = F.leaky_relu(self.eighth(blur_pool(x)), 0.2)  # [B, 128, T/4, H/8, W/8]
        logits: Tensor = self.head(F.leaky_relu(self.mix(x), 0.2))
        return logits
