"""Seconds to ticks of a stream's clock."""

from __future__ import annotations

import math
from fractions import Fraction


def ticks_of(time_s: float, time_base: Fraction) -> int:
    """Seconds to the first tick not before them, give or take the rounding of timestamps to 1 ms; .1 is 1/10."""
    ticks = Fraction(time_s).limit_denominator(1_000_000) / time_base
    return math.ceil(ticks - min(Fraction(1, 2), Fraction(1, 2000) / time_base))
