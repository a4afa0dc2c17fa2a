"""Whether pictures are good enough: what `--target-lpips` and `--target-psnr` ask of every chunk."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.rate import Rate
from tokcodec.scoring.scores import lpips_distance, mean_psnr_db

LPIPS_SIDE = 31  # pixels: AlexNet makes nothing of less


@dataclasses.dataclass(frozen=True)
class QualityGoal:
    """A target of quality, which says whether pictures meet it.

    Attributes:
        goal: LPIPS that they may have at most, or PSNR in dB that they must have at least.
        lpips: the network that measures; None for PSNR.
    """

    goal: float
    lpips: Any = None

    def __call__(self, original: Frames, shown: Frames) -> bool:
        """Whether pictures, uint8 `[T, H, W, 3]`, meet it.

        Raises:
            TokcodecError: the frames are too small for LPIPS.
        """
        if self.lpips is not None:
            if min(original.shape[1:3]) < LPIPS_SIDE:
                raise TokcodecError(f"LPIPS needs {LPIPS_SIDE} pixels a side")
            return lpips_distance(self.lpips, original, shown) <= self.goal
        return mean_psnr_db(original, shown) >= self.goal

    def __str__(self) -> str:
        return f"LPIPS {self.goal:g}" if self.lpips is not None else f"PSNR {self.goal:g} dB"


def quality_goal(rate: Rate, lpips_dir: str | Path | None = None) -> QualityGoal | None:
    """What a rate asks for; None if it is no target of quality. `lpips_dir` is as for `load_lpips`.

    Raises:
        ModelError: LPIPS is asked for and cannot be had.
    """
    if rate.target_psnr_db is not None:
        return QualityGoal(rate.target_psnr_db)
    if rate.target_lpips is None:
        return None
    return QualityGoal(rate.target_lpips, _alex(str(lpips_dir or os.environ.get("TOKCODEC_LPIPS_DIR") or "")))


@functools.cache
def _alex(directory: str) -> Any:
    from tokcodec.scoring.perceptual import load_lpips

    return load_lpips("alex", directory)
