"""What an encoder plans before it codes a chunk: spans by content, and finer steps for what later frames inherit.

Both look at pictures of a quarter of the size. Two spans of half the length and one of the whole differ in two frames
only: the first of the two anchors becomes a frame halfway, and the second is predicted from twice as far. Spans are
joined where that leaves less to code.

How much of a block later frames inherit is followed backwards through the pyramids, as x264's macroblock tree does
(J. Garrett-Glaser, "A novel macroblock-tree algorithm for high-performance optimization of dependent video coding in
H.264/AVC", 2009): a block passes on what it holds and what is made of it, by the share that its prediction explains.
Steps are planned for a window of frames at a time, from what is known of some windows ahead.
"""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tokcodec.coding.motion_search import COARSE_CELL, coarse_reach, coarse_vectors, halfway_errors
from tokcodec.compiled import njit
from tokcodec.dtypes import F32, I16, I32
from tokcodec.pipeline import Helpers
from tokcodec.stream.pyramid import SPANS, Place, order

NOISE = 0.06  # share of the step that the small planes do not show, as a mean absolute difference
JOINING = 1.05, 0.06  # a pyramid's steps save bits: factor and addend, a block, of what two spans cost
STRENGTH = 2.0  # step numbers, eighths of an octave, that a doubling of what is inherited takes off
FIRST = 1.8  # times as many for the first frame: what it has right costs the anchors after it nothing
MOST = 13, 21, 27, 29  # largest step numbers of first frames, anchors, frames halfway, single frames
LEAF = 29  # step number of a frame that nobody inherits from
FINEST = 8  # least number
WINDOW = SPANS[-1]  # frames whose steps are planned at once, at least
AHEAD = 128  # frames from the begin of a window that their steps depend on
FLOOR = 64  # sum of 64 absolute differences of small planes that any block holds


class _Pair(NamedTuple):
    """How well a frame is predicted from one some frames before it."""

    vectors: I16
    errors: I32


class Lookahead:
    """Plans a chunk of F frames, a window after the other.

    Args:
        smalls: its frames, as `search.small` makes them.
        step: of the chunk, in levels.
        spans: lengths of the pyramids; chosen by content if None.
        helpers: take over a part of the work.

    Attributes:
        numbers: int64 `[F]`, step numbers of the frames that are planned.
        weight: float32 `[H / 16, W / 16]`, step numbers by which blocks of the first frame are below its own, mean 0.
    """

    def __init__(
        self, smalls: Sequence[I32], step: float, spans: Sequence[int] | None = None, helpers: Helpers | None = None
    ) -> None:
        self._smalls, self._step, self._helpers = smalls, step, helpers
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._middles: dict[tuple[int, int], I32] = {}
        self._held = [_texture(small) for small in smalls]
        self._last = len(smalls) - 1
        self._wanted = None if spans is None else collections.deque(spans)
        self._spans, self._known = list[int](), 0  # spans so far, and the frames they reach
        self.numbers = np.zeros(len(smalls), np.int64)
        finer = self._plan(0, 0, -1)
        self.numbers[0] = max(min(np.rint(LEAF - FIRST * float(finer.mean())), MOST[0]), FINEST)
        self.weight = (finer - finer.mean()).astype(np.float32)

    def spans(self) -> Iterator[int]:
        """The spans of the chunk in turn: when one is asked for, the steps of its frames are planned."""
        begin, before, planned = 0, -1, 0
        for i in itertools.count():
            if begin == self._last:
                return
            if begin == planned:
                planned = self._end(i, begin)
                if begin > 0:
                    self._plan(i, begin, before)
            begin, before = begin + self._spans[i], begin
            yield self._spans[i]

    def _end(self, i: int, begin: int) -> int:
        """The frame that a window ends with, which begins with span i, behind frame `begin`."""
        end = begin
        for span in self._spans[i:]:
            if end - begin >= WINDOW:
                break
            end += span
        return end

    def _plan(self, i: int, begin: int, before: int) -> F32:
        """Choose the spans ahead and the steps of a window.

        Args:
            i: number of its first span.
            begin: the frame that it follows.
            before: the anchor before.

        Returns:
            By how many step numbers the blocks of the frame that it follows should be finer.
        """
        self._choose(begin + AHEAD)
        places = list(order(self._spans[i:], begin, before))
        inherited = {frame: np.zeros_like(self._held[frame]) for frame in range(begin, self._known + 1)}
        for place in reversed(places):
            self._pass_on(place, inherited)
        finer = {f: STRENGTH * np.log2(1 + amount / self._held[f]) for f, amount in inherited.items()}
        end = self._end(i, begin)
        for place in places:
            if place.frame <= end:
                number = np.rint(LEAF - float(finer[place.frame].mean()))
                self.numbers[place.frame] = max(min(number, MOST[place.kind]), FINEST)
        found: F32 = finer[begin]
        return found

    def _pass_on(self, place: Place, inherited: dict[int, F32]) -> None:
        """Add what the blocks of a frame inherit to those of its references."""
        frame, first, second, held = place.frame, place.first, place.second, self._held[place.frame]
        if place.depth == 0:
            pair = self._pair(first, place.distance)
            _pass_on(pair.vectors, pair.errors, held, inherited[frame], 1.0, 1, inherited[first])
            return
        vectors, errors = self._pair(first, second - first).vectors, self._middle(first, second - first)
        _pass_on(vectors, errors, held, inherited[frame], 0.5, 2, inherited[first])
        _pass_on(vectors, errors, held, inherited[frame], 0.5, -2, inherited[second])

    def _choose(self, until: int) -> None:
        """Choose spans up to a frame, or beyond."""
        offered = []
        while self._known < min(until, self._last):
            if self._wanted is not None:
                self._spans.append(self._wanted.popleft())
                self._known += self._spans[-1]
                continue
            longest = max(span for span in SPANS if span <= self._last - self._known)
            work = functools.partial(self._best, self._known, longest)
            offered.append(self._helpers.share(work) if self._helpers else work)
            self._known += longest
        for ready in offered:
            self._spans += ready()[0]

    def _pair(self, begin: int, span: int) -> _Pair:
        if (begin, span) not in self._pairs:
            found = coarse_vectors(self._smalls[begin + span], self._smalls[begin], coarse_reach(span))
            self._pairs[begin, span] = _Pair(*found)
        return self._pairs[begin, span]

    def vectors(self, place: Place) -> I16:
        """Where an anchor's search begins: vectors as of `coarse_vectors`."""
        return self._pair(place.first, place.distance).vectors

    def _middle(self, begin: int, span: int) -> I32:
        if (begin, span) not in self._middles:
            now, low, high = (self._smalls[i] for i in (begin + span // 2, begin, begin + span))
            self._middles[begin, span] = halfway_errors(now, low, high, self._pair(begin, span).vectors)
        return self._middles[begin, span]

    def _bits(self, errors: I32) -> float:
        """About what a frame's residual costs, in bits a block."""
        levels = errors / 256.0  # mean absolute difference, in levels
        return float(np.log2(1 + np.square(levels / (NOISE * self._step))).mean())

    def _best(self, begin: int, span: int) -> tuple[list[int], float]:
        """How best to divide a span, and what its last anchor costs, predicted from the one before."""
        whole = self._bits(self._pair(begin, span).errors)
        if span == 1:
            return [1], whole
        half = span // 2
        first, first_bits = self._best(begin, half)
        second, second_bits = self._best(begin + half, half)
        if len(first) == len(second) == 1:
            middle = self._bits(self._middle(begin, span))
            if whole + middle <= JOINING[0] * (first_bits + second_bits) + JOINING[1]:
                return [span], whole
        return first + second, second_bits


def _texture(small: I32) -> F32:
    """What blocks of 4x4 samples of a small plane hold, float32 `[H / 16, W / 16]`: as errors, without their mean."""
    blocks = small.reshape(small.shape[0] // COARSE_CELL, COARSE_CELL, small.shape[1] // COARSE_CELL, COARSE_CELL)
    around: F32 = np.abs(blocks - blocks.mean((1, 3), keepdims=True)).sum((1, 3)).astype(np.float32)
    return FLOOR + 4 * around


@njit(cache=True, nogil=True)
def _pass_on(vectors: I16, errors: I32, held: F32, inherited: F32, share: float, part: int, out: F32) -> None:
    """Add what blocks of a frame inherit to those that they are predicted from.

    Args:
        vectors: quarter pixels, of which the reference is a `part`-th away.
        errors: of the prediction.
        held, inherited: of the frame's blocks.
        share: of this reference.
        out: what is inherited from the reference's blocks; grows.
    """
    rows, columns = held.shape
    for i in range(rows):
        for j in range(columns):
            explained = 1 - min(errors[i, j] / held[i, j], 1.0)
            amount = share * explained * (held[i, j] + inherited[i, j])
            y, x = i + vectors[0, i, j] / (64.0 * part), j + vectors[1, i, j] / (64.0 * part)
            top, left = int(np.floor(y)), int(np.floor(x))
            fy, fx = y - top, x - left
            for a in range(2):
                for b in range(2):
                    r, q = top + a, left + b
                    if 0 <= r < rows and 0 <= q < columns:
                        out[r, q] += amount * (fy if a == 1 else 1 - fy) * (fx if b == 1 else 1 - fx)
