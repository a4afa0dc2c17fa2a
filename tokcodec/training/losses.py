"""Loss terms, each a plain function of tensors. Pixels are float in [-1, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Charbonnier (a smooth L1, epsilon 1e-3) plus mean squared error; float32 scalar."""
    error = output.float() - target.float()
    return torch.sqrt(error.square() + 1e-6).mean() + error.square().mean()


def frame_perceptual_loss(lpips: nn.Module, output: Tensor, target: Tensor, frames: Tensor) -> Tensor:
    """Mean LPIPS of chosen frames (Zhang et al., CVPR 2018).

    Args:
        lpips: the metric network; takes `[N, 3, H, W]` in [-1, 1].
        output: `[B, 3, T, H, W]`; gradient flows to it.
        target: the same shape.
        frames: int64 `[B, n]`: which frames of each clip.
    """
    pick = frames.to(output.device)[:, None, :, None, None].expand(-1, 3, -1, *output.shape[3:])
    images = [
        x.gather(2, pick).transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        for x in (output, target)
    ]
    loss: Tensor = lpips(*images).float().mean()
    return loss


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator on its logits; float32 scalar."""
    return (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()) / 2


def generator_hinge(fake: Tensor) -> Tensor:
    """Hinge loss of the decoder: raise the logits of its own clips; float32 scalar."""
    return -fake.float().mean()


def lecam(real: Tensor, fake: Tensor, real_mean: Tensor, fake_mean: Tensor) -> Tensor:
    """LeCAM regularization (Tseng et al., CVPR 2021): keep logits near the other side's moving average."""
    return F.relu(real.float() - fake_mean).square().mean() + F.relu(real_mean - fake.float()).square().mean()
