"""What to spend on a video: a quantizer step, or a goal that the step is chosen for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

STEP_UNITS = 16  # a level of 255 has so many units of the step in a stream
QUALITIES = 8
COARSEST, FINEST = 224.0, 12.0  # steps of quality 1 and 8, in levels
STEP_RANGE = (1 / STEP_UNITS, 512.0)  # in which goals are looked for: from the finest; past 512, bits are gone already
LIKELY_FINEST = 2.0  # a search goes past it only when it has seen that bits are left there
SLOPE = 1.2  # bits fall with the step to this power, as long as nothing is known of a video
MARGIN = 0.985  # share of a budget to aim at: the model errs on both sides
CLOSE = 0.975  # share of a budget that is close enough
NEAR = 0.9  # ... and below which it is told that no more is used


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


def first_step(bits_per_px: float | None) -> float:
    """A step to begin a search with, in levels, for a goal in bits per pixel (None: not known)."""
    guess = 30.0 if bits_per_px is None else 30 * (0.02 / bits_per_px) ** (1 / SLOPE)
    return whole_units(min(max(guess, 4.0), 200.0))


class Try(NamedTuple):
    """A video coded with one step."""

    step: float  # levels
    sizes: list[int]  # bytes of each chunk

    @property
    def bytes(self) -> int:
        return sum(self.sizes)


def next_step(tries: Sequence[Try], budget: int) -> float | None:
    """The step to try next so that the chunks take `budget` bytes; None if there is none left to try.

    The logarithm of the bytes is taken for a line over that of the step, through the tries around the budget.
    """
    ordered = sorted(tries)
    below = [t for t in ordered if t.bytes <= budget]
    above = [t for t in ordered if t.bytes > budget]
    near = [*above[-1:], *below[:1]] if above and below else ordered[-2:] if above else ordered[:2]
    anchor, slope = near[-1] if above else near[0], SLOPE
    if len(near) == 2 and near[0].bytes > near[1].bytes:
        slope = math.log(near[0].bytes / near[1].bytes) / math.log(near[1].step / near[0].step)
    aim = max(1.0, MARGIN * budget)
    step = anchor.step * (anchor.bytes / aim) ** (1 / min(max(slope, 0.3), 2.5))
    low = above[-1].step if above else LIKELY_FINEST if below[0].step > LIKELY_FINEST else STEP_RANGE[0]
    high = below[0].step if below else STEP_RANGE[1]
    step = whole_units(min(max(step, low), high))
    if any(step == t.step for t in tries):  # the model would stay where it is: a little further, towards the budget
        step = whole_units(step * 1.02 + 1 / STEP_UNITS if step == low else step / 1.02 - 1 / STEP_UNITS)
        step = step if low < step < high else whole_units(math.sqrt(low * high))
    return None if any(step == t.step for t in tries) else step


def choose(tries: Sequence[Try], budget: int) -> list[int] | None:
    """Which try to take each chunk from, so that all come as close to a budget as they can from below.

    Most chunks are of the finest try that fits as a whole, some, evenly spread, of the next finer one.

    Args:
        tries: of the same chunks.
        budget: bytes of all chunks together.

    Returns:
        A number of a try for each chunk; None if no try fits.
    """
    fitting = [i for i, t in enumerate(tries) if t.bytes <= budget]
    if not fitting:
        return None
    base = min(fitting, key=lambda i: tries[i].step)
    finer = [i for i, t in enumerate(tries) if t.step < tries[base].step]
    count, total = len(tries[base].sizes), tries[base].bytes
    chosen = [base] * count
    if finer:
        better = max(finer, key=lambda i: tries[i].step)
        for chunk in sorted(range(count), key=lambda i: (i * 0x9E3779B1) % 2**32):  # Weyl's sequence spreads evenly
            more = tries[better].sizes[chunk] - tries[base].sizes[chunk]
            if total + more <= budget:
                total += more
                chosen[chunk] = better
    return chosen


def total(tries: Sequence[Try], chosen: Sequence[int]) -> int:
    """Bytes of the chunks that were chosen."""
    return sum(tries[t].sizes[i] for i, t in enumerate(chosen))


BISECTIONS = 3  # of a factor of 2: to 9 % of the step


def coarsest(attempt: Callable[[float], tuple[bool, T]]) -> tuple[float, bool, T]:
    """Look for the largest step that is good enough.

    Args:
        attempt: a step in levels to whether it is, and what came of it. Smaller steps are better.

    Returns:
        The step, whether it is good enough (if not, it is the smallest there is), and what came of it.
    """
    low, high = STEP_RANGE
    step = quality_step(DEFAULT_QUALITY)
    is_good, made = attempt(step)
    best = (step, is_good, made)
    while step != (limit := high if is_good else low):
        step = whole_units(min(2 * step, limit) if is_good else max(step / 2, limit))
        was_good = is_good
        is_good, made = attempt(step)
        if is_good or not was_good:
            best = (step, is_good, made)
        if is_good != was_good:
            break
    else:
        return best
    good, bad = (step, 2 * step) if is_good else (best[0], step)
    for _ in range(BISECTIONS):
        step = whole_units(math.sqrt(good * bad))
        if step in (good, bad):  # there is none between
            break
        is_good, made = attempt(step)
        if is_good:
            good, best = step, (step, True, made)
        else:
            bad = step
    return best
