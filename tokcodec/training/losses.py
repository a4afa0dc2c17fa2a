"""Loss terms, each a plain function of tensors. Clips are float `[B, T, 3, H, W]` in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Charbonnier (a smooth L1, epsilon 1e-3) plus mean squared error; float32 scalar."""
    squares = (output.float() - target.float()).square()
    return torch.sqrt(squares + 1e-6).mean() + squares.mean()


def temporal_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the differences of neighbouring frames: judder and shimmer, of which LPIPS sees nothing.

    Float32 scalar; 0 for clips of one frame.
    """
    error = output.float() - target.float()
    if error.shape[1] == 1:
        return error.new_zeros(())
    return (error[:, 1:] - error[:, :-1]).abs().mean()


def frame_perceptual_loss(lpips: nn.Module, output: Tensor, target: Tensor, frames: Tensor) -> Tensor:
    """Mean LPIPS of chosen frames (Zhang et al., CVPR 2018).

    Args:
        lpips: the metric network; takes `[N, 3, H, W]` in [-1, 1].
        output: gradient flows to it.
        target: the same shape.
        frames: int64 `[B, n]`: which frames of each clip.
    """
    clip = torch.arange(len(frames), device=frames.device)[:, None]
    images = [x[clip, frames].flatten(0, 1).contiguous(memory_format=torch.channels_last) for x in (output, target)]
    loss: Tensor = lpips(*images).float().mean()
    return loss


class MeanDistance(nn.Module):
    """The mean of several LPIPS networks: one alone teaches its own weaknesses."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([network(a, b).float() for network in self.networks]).mean(0)
