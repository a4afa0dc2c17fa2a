"""How good pictures are, by one definition: PSNR and LPIPS of frames, and a judge that asks for so much of one."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokcodec.rate import Rate

if TYPE_CHECKING:
    from torch import nn

LPIPS_EVERY = 3  # every third frame: coprime to the length of a group, so that all its places are judged

Frames = NDArray[np.uint8]


def psnr_db(error: NDArray[np.float32]) -> float:
    """Mean over frames of the PSNR of errors `[T, H, W, 3]`, in levels of 255; in dB (100 for no error)."""
    squares = np.square(error).mean(axis=(1, 2, 3))
    return float(np.mean(np.minimum(100, 10 * np.log10(255**2 / np.maximum(squares, 1e-9)))))


def lpips_distance(lpips: nn.Module, a: Frames, b: Frames) -> float:
    """Mean LPIPS of every third frame of uint8 `[T, H, W, 3]`, frame by frame (memory), in float32."""
    import torch

    device = next((p.device for p in lpips.parameters()), torch.device("cpu"))
    distances = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for pair in zip(a[::LPIPS_EVERY], b[::LPIPS_EVERY], strict=True):
            images = [torch.from_numpy(x[None]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in pair]
            distances.append(lpips(*images).mean().item())
    return float(np.mean(distances))


@dataclasses.dataclass(frozen=True)
class Judge:
    """Says whether pictures are good enough.

    Attributes:
        goal: LPIPS that they may have at most, or PSNR in dB that they must have at least.
        lpips: the network that measures; None for PSNR.
    """

    goal: float
    lpips: Any = None

    def __call__(self, original: Frames, shown: Frames) -> bool:
        """Judge uint8 `[T, H, W, 3]`."""
        if self.lpips is not None:
            return lpips_distance(self.lpips, original, shown) <= self.goal
        errors = (shown[i : i + 1].astype(np.float32) - original[i] for i in range(len(original)))  # memory
        return float(np.mean([psnr_db(error) for error in errors])) >= self.goal

    def __str__(self) -> str:
        return f"LPIPS {self.goal:g}" if self.lpips is not None else f"PSNR {self.goal:g} dB"


def judge_of(rate: Rate) -> Judge | None:
    """The judge that a rate asks for; None if it is no target of quality.

    Raises:
        ModelError: LPIPS is asked for and cannot be had.
    """
    if rate.target_psnr_db is not None:
        return Judge(rate.target_psnr_db)
    return None if rate.target_lpips is None else Judge(rate.target_lpips, _alex(os.environ.get("TOKCODEC_LPIPS_DIR")))


@functools.cache
def _alex(directory: str | None) -> Any:
    from tokcodec.perceptual import load_lpips

    return load_lpips("alex", directory)
