"""The search for quantizer steps that meet a goal: arithmetic alone, which codes nothing itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from tokcodec.rate import DEFAULT_QUALITY, STEP_RANGE, STEP_UNITS, quality_step, whole_units

T = TypeVar("T")

LIKELY_FINEST = 2.0  # a search goes past it only when it has seen that bits are left there
SLOPE = 1.2  # bits fall with the step to this power, as long as nothing is known of a video
MARGIN = 0.985  # share of a budget to aim at: the model errs on both sides


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


def pick_tries(tries: Sequence[Try], budget: int) -> list[int] | None:
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
