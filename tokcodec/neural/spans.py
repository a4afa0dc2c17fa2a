"""The lengths of the pyramids, chosen by content.

Two spans of half the length and one of the whole differ in two frames only: the first of the two anchors becomes a frame
halfway, and the second is predicted from twice as far. So a span is made of two where that leaves less to code, by what
is left of pictures of a quarter of the size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tokcodec.neural.search import COARSE_REACH, coarse_vectors, halfway_errors
from tokcodec.stream.pyramid import SPANS

NOISE = 0.06  # share of the step that the small planes do not show, as a mean absolute difference
JOINING = 0.06  # bits a block that a pyramid saves by its steps
I32 = NDArray[np.int32]


def choose_spans(smalls: Sequence[I32], step: float) -> Iterator[int]:
    """The spans of a chunk.

    Args:
        smalls: its frames, as `search.small` makes them.
        step: of the chunk, in levels.
    """
    at, last = 0, len(smalls) - 1
    while at < last:
        longest = max(span for span in SPANS if span <= last - at)
        spans, _ = _best(smalls, step, at, longest)
        yield from spans
        at += longest


def bits(errors: I32, step: float) -> float:
    """About what a frame's residual costs, in bits a block, by the errors of `coarse_vectors`."""
    levels = errors / 256.0  # mean absolute difference, in levels
    return float(np.log2(1 + np.square(levels / (NOISE * step))).mean())


def _anchor(smalls: Sequence[I32], begin: int, span: int) -> tuple[NDArray[np.int16], I32]:
    return coarse_vectors(smalls[begin + span], smalls[begin], min(COARSE_REACH, 4 + 2 * span))


def _best(smalls: Sequence[I32], step: float, begin: int, span: int) -> tuple[list[int], float]:
    """How best to divide a span, and what its last anchor costs, predicted from the one before."""
    vectors, errors = _anchor(smalls, begin, span)
    whole = bits(errors, step)
    if span == 1:
        return [1], whole
    half = span // 2
    first, first_bits = _best(smalls, step, begin, half)
    second, second_bits = _best(smalls, step, begin + half, half)
    if len(first) == len(second) == 1:
        middle = bits(halfway_errors(smalls[begin + half], smalls[begin], smalls[begin + span], vectors), step)
        if whole + middle <= first_bits + second_bits + JOINING:
            return [span], whole
    return first + second, second_bits
