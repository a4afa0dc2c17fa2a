"""The order of frames: a chunk is a first frame and then spans, each a pyramid of frames.

The last frame of a span, its anchor, is coded first. Then come the frames between, each in the middle of two that are
coded: first the one halfway, then those halfway to it, down to single frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

SPANS = (1, 2, 4, 8, 16, 32)  # frames
ANCHOR, MIDDLE, LEAF = 1, 2, 3  # kinds of predicted frames; 0 is a first frame
KINDS = 4


class Place(NamedTuple):
    """Where a predicted frame stands.

    Attributes:
        frame: its number in the chunk, from 1.
        first: the number of its first reference frame, which is shown before it.
        second: that of its second one: later than it, or for an anchor the anchor before `first`; -1 without one.
        depth: 0 for an anchor, then one more for each frame between.
        parent: of its references the one that was coded last; for an anchor `first`.
    """

    frame: int
    first: int
    second: int
    depth: int
    parent: int

    @property
    def distance(self) -> int:
        """Frames from the first reference to this one: a power of two."""
        return self.frame - self.first

    @property
    def kind(self) -> int:
        """ANCHOR, MIDDLE or LEAF: from a leaf nothing is predicted."""
        if self.depth == 0:
            return ANCHOR
        return LEAF if self.distance == 1 else MIDDLE


def pyramid(begin: int, span: int, before: int) -> list[Place]:
    """The frames of a span in the order of coding.

    Args:
        begin: the frame that it follows: an anchor, or the first frame.
        span: one of SPANS.
        before: the anchor before `begin`; -1 without one.
    """
    places = [Place(begin + span, begin, before, 0, begin)]
    _between(places, begin, begin + span, 1, begin + span)
    return places


def order(spans: Iterable[int], begin: int = 0, before: int = -1) -> Iterator[Place]:
    """The predicted frames of spans in the order of coding; a span is asked for when the one before is done.

    Args:
        spans: their lengths.
        begin: the frame that they follow; the first of the chunk.
        before: the anchor before it; -1 without one.
    """
    for span in spans:
        yield from pyramid(begin, int(span), before)
        begin, before = begin + int(span), begin


def _between(places: list[Place], low: int, high: int, depth: int, parent: int) -> None:
    if high - low > 1:
        middle = (low + high) // 2
        places.append(Place(middle, low, high, depth, parent))
        _between(places, low, middle, depth + 1, middle)
        _between(places, middle, high, depth + 1, middle)


def kinds(spans: Iterable[int]) -> list[int]:
    """The kinds of the frames of a chunk, in the order they are shown."""
    found = {0: 0} | {place.frame: place.kind for place in order(spans)}
    return [found[frame] for frame in range(len(found))]


def uniform(frames: int, longest: int) -> list[int]:
    """Spans of one length, and what is left at the end in shorter ones.

    Args:
        frames: of the chunk, with its first.
        longest: one of SPANS.
    """
    left, spans = frames - 1, []
    while left:
        while longest > left:
            longest //= 2
        spans.append(longest)
        left -= longest
    return spans
