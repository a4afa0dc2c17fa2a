"""What to spend on a video: a quantizer step, or a goal that the step is chosen for."""

from __future__ import annotations

import dataclasses
import math

STEP_UNITS = 16  # a level of 255 has so many units of the step in a stream
QUALITIES = 8
COARSEST, FINEST = 224.0, 12.0  # steps of quality 1 and 8, in levels
STEP_RANGE = (1 / STEP_UNITS, 512.0)  # in which goals are looked for: from the finest; past 512, bits are gone already


@dataclasses.dataclass(frozen=True)
class Rate:
    """How much to spend; at most one attribute is set, none means quality 4.

    Raises ValueError if more than one is set, or one is out of range.

    Attributes:
        step: of the quantizer, in levels of 255, from 1/16 to 4095; kept to 1/16.
        quality: 1 (small) to 8 (best), a step by `quality_step`.
        bitrate_kbps: of the stream without its copied audio and so on, in 1000 bits/s; met from below.
        target_size_bytes: of the whole file; met from below.
        target_lpips: of every chunk (AlexNet, mean over frames); reached or better.
        target_psnr_db: of every chunk (RGB, mean over frames); reached or better.
    """

    step: float | None = None
    quality: int | None = None
    bitrate_kbps: float | None = None
    target_size_bytes: int | None = None
    target_lpips: float | None = None
    target_psnr_db: float | None = None

    def __post_init__(self) -> None:
        given = [value for value in dataclasses.astuple(self) if value is not None]
        if len(given) > 1 or not all(0 < value < math.inf for value in given):
            raise ValueError(f"a rate is one positive number, not {self}")
        if self.step is not None and not 1 <= round(STEP_UNITS * self.step) < 2**16:
            raise ValueError(f"step must be 1/16 to 4095 levels, not {self.step:g}")
        if self.quality is not None and self.quality not in range(1, QUALITIES + 1):
            raise ValueError(f"quality must be 1 to {QUALITIES}, not {self.quality}")

    @property
    def fixed_step(self) -> float | None:
        """The step in levels; None if it follows from the video."""
        if self.step is not None:
            return whole_units(self.step)
        if any(value is not None for value in dataclasses.astuple(self)[2:]):
            return None
        return quality_step(self.quality or DEFAULT_QUALITY)

    @property
    def is_of_quality(self) -> bool:
        """Whether it is met by looking at decoded pictures."""
        return self.target_lpips is not None or self.target_psnr_db is not None

    @property
    def is_of_the_whole(self) -> bool:
        """Whether the size of all chunks together decides the step of each."""
        return self.bitrate_kbps is not None or self.target_size_bytes is not None


DEFAULT_QUALITY = 4
DEFAULT_RATE = Rate(quality=DEFAULT_QUALITY)


def whole_units(step: float) -> float:
    """The nearest step that a stream can say, in levels: a multiple of 1/16, from 1/16."""
    return max(1, round(STEP_UNITS * step)) / STEP_UNITS


def quality_step(quality: int) -> float:
    """The step of a quality from 1 to 8, in levels: a geometric row from 224 to 12."""
    return whole_units(COARSEST * (FINEST / COARSEST) ** ((quality - 1) / (QUALITIES - 1)))
