"""A stream's clock: seconds to its ticks, and what of its time is shown."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from fractions import Fraction


def ticks_of(time_s: float, time_base: Fraction) -> int:
    """Seconds to the first tick not before them, give or take the rounding of timestamps to 1 ms; .1 is 1/10."""
    ticks = Fraction(time_s).limit_denominator(1_000_000) / time_base
    return math.ceil(ticks - min(Fraction(1, 2), Fraction(1, 2000) / time_base))


Spans = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Shown:
    """Which spans [begin, end) of coded ticks are shown, one right behind the other: what lies between takes no time.

    The first of them begins at the same tick on both clocks, that of the timestamps and that of what is shown.
    """

    spans: Spans  # in order, at least one

    @property
    def begin(self) -> int:
        return self.spans[0][0]

    @property
    def end(self) -> int:
        """On the clock of what is shown."""
        return self.begin + sum(end - begin for begin, end in self.spans)

    def place(self, pts: int) -> tuple[int, int] | None:
        """When a timestamp is shown, and the coded tick where its span ends; None if it is hidden."""
        at = self.begin
        for begin, end in self.spans:
            if begin <= pts < end:
                return at + pts - begin, end
            at += end - begin
        return None

    def part(self, begin: int, end: int) -> Spans:
        """Spans of coded ticks that are shown in [begin, end) of the clock of what is shown."""
        found, at = [], self.begin
        for first, last in self.spans:
            span = max(first, first + begin - at), min(last, first + end - at)
            if span[0] < span[1]:
                found.append(span)
            at += last - first
        return tuple(found)


def merged(spans: Iterable[tuple[int, int]]) -> Spans:
    """Spans in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for begin, end in spans:
        if found and found[-1][1] == begin:
            found[-1] = found[-1][0], end
        else:
            found.append((begin, end))
    return tuple(found)
