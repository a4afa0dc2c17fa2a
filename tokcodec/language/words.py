"""Tokens as a language: each position of a span of four frames is a word of factors, and back.

The roles of a span's frames are 0 for its anchor, and 1 to 3 for the others in the order of coding. The first four
factors say where the motion of each is taken over from, or else its kind; the next eight its vectors, which count only
in the latter case; the others eight lookup-free bits of the levels each. A frame has one motion a position (of the
upper left 8x8 cell); levels past the first dimensions are left out, and those past the thresholds are cut. The first
frame of a chunk, which follows from nothing before it, is read but never spoken: its levels are residuals of a
prediction from its own pixels, so it is read as what they add up to, in integers and without the network.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.intra import GREY, reconstruct
from tokcodec.coding.loop import LEVELS, MODES
from tokcodec.coding.planes import CELL, GRID, cell_means
from tokcodec.compiled import njit
from tokcodec.dtypes import I16, U8
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.entropy import Guesses, Tokens, frame_step
from tokcodec.stream.fields import BOTH, MAX_CANDIDATES, UNKNOWN, candidates, scaled
from tokcodec.stream.pyramid import pyramid
from tokcodec.stream.trees import TREE, node
from tokcodec.tokens.bits import bits_of, index_of, levels_of

SPAN = 4  # frames, all of which have a role
FRAMES = tuple(place.frame for place in pyramid(0, SPAN, -1))  # of a span by role: 4, 2, 1, 3
DISTANCES = tuple(place.distance for place in pyramid(0, SPAN, -1))
BITS = 8  # of a factor
VALUES = 1 << BITS
# Dimensions of an anchor's block and of another's that are spoken of, and the thresholds of each.
ANCHOR_FINE, ANCHOR, BETWEEN = 16, 64, 12
FINE, COARSE = 2, 1
FIRST_MEANS = (GRID // CELL) ** 2 * 3 // 2  # means of cells of a position, of the first frame
# Merges, values of the first factors: motion taken over from the temporal field (for an anchor that of the anchor
# before, for the three between their anchor's, as from both references), from the position left, above, above right;
# none, of the first reference, and of both. From COPIES on it is explicit, of kind value - COPIES. The first that fits
# is taken.
TEMPORAL, LEFT, ABOVE, RIGHT, STILL, STILL_BOTH, COPIES = range(7)
MERGES = COPIES + 3
MOTION = 3 * SPAN  # factors: merges of the anchor and the three between, then y and x of each
REACH = VALUES // 2 - 1  # of a difference of vectors
ESCAPE = 0  # the value of a difference out of reach; it is never sampled


class Words(NamedTuple):
    """n spans of four of a chunk, the frames of each by their roles.

    Attributes:
        levels: uint8 `[L, n, h, w]`, factors of eight bits.
        merges: uint8 `[n, 4, h, w]`, 0 to 8.
        vectors: int16 `[n, 4, 2, h, w]`, y and x in quarter pixels over four frames; what a merge takes over need not
            be there yet.
    """

    levels: U8
    merges: U8
    vectors: I16


def whole_spans(tokens: Tokens) -> int:
    """How many spans of four a chunk has; up to three frames behind them are left out.

    Raises:
        ValueError: it has others before.
    """
    count: int = (tokens.levels.shape[1] - 1) // SPAN
    if (tokens.spans[:count] != SPAN).any():
        raise ValueError(f"words are of spans of {SPAN} frames, not of {tokens.spans.tolist()}")
    return count


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which levels the factors hold.

    Attributes:
        blocks: dimensions of the blocks of a first frame and of others, as of the loop.
    """

    blocks: tuple[int, int]

    @functools.cached_property
    def parts(self) -> tuple[tuple[int, int, int, int], ...]:
        """Role of the frame, first dimension, end and thresholds of each factor of levels."""
        size = self.blocks[1]
        parts = [
            (0, 0, min(ANCHOR_FINE, size), FINE),
            (0, min(ANCHOR_FINE, size), min(ANCHOR, size), COARSE),
            *((role, 0, min(BETWEEN, size), COARSE) for role in range(1, SPAN)),
        ]
        return tuple(
            (role, begin, min(begin + BITS // (2 * thresholds), stop), thresholds)
            for role, start, stop, thresholds in parts
            for begin in range(start, stop, BITS // (2 * thresholds))
        )

    @property
    def factors(self) -> int:
        """Of a word, in all."""
        return MOTION + len(self.parts)

    def words(self, tokens: Tokens) -> Words:
        """All spans of four of a chunk.

        Raises:
            ValueError: it has others before.
        """
        count, grid = whole_spans(tokens), tokens.levels.shape[2:]
        levels = np.stack(
            [
                index_of(bits_of(tokens.levels[begin:end, FRAMES[role] : 1 + SPAN * count : SPAN], thresholds))
                for role, begin, end, thresholds in self.parts
            ]
        ).astype(np.uint8)
        merges = np.zeros((count, SPAN, *grid), np.uint8)
        vectors = np.zeros((count, SPAN, 2, *grid), np.int16)
        anchor: I16 | None = None
        for n in range(count):
            for role, (frame, distance) in enumerate(zip(FRAMES, DISTANCES, strict=True)):
                cells = np.ascontiguousarray(tokens.motion[SPAN * n + frame - 1, :3, ::2, ::2])
                key, has_key = _temporal(anchor, role, distance, cells)
                _tell(cells, key, has_key, merges[n, role])
                cells[:2] *= SPAN // distance
                key, has_key = _temporal(anchor, role, SPAN, cells)
                _take_over(cells, key, has_key, merges[n, role])
                vectors[n, role] = cells[:2]
                anchor = cells if role == 0 else anchor
        return Words(levels, merges, vectors)

    def first(self, tokens: Tokens, step: float) -> I16:
        """What is read of the first frame: means of 4x4 samples less 128, int16 `[24, h, w]`, of Y, Cb and Cr.

        Args:
            tokens: of a chunk.
            step: of the chunk, in levels.
        """
        own16 = frame_step(round(step * STEP_UNITS), int(tokens.numbers[0]))
        planes = reconstruct(tokens.levels[LEVELS, 0], tokens.levels[MODES, 0], own16)
        first: I16 = np.round(cell_means(planes) - GREY).astype(np.int16)
        return first

    def tokens(self, words: Words, dimensions: int, before: I16) -> tuple[I16, I16]:
        """Levels int16 `[D, 4 n, h, w]` and motion int16 `[4 n, 5, 2 h, 2 w]` of n spans, frames as they are shown.

        Args:
            words: of the spans.
            dimensions: D.
            before: motion int16 `[4 k, 5, 2 h, 2 w]` of the k spans of four that stand before them in the chunk.
        """
        count, _, *grid = words.merges.shape
        levels = np.zeros((dimensions, SPAN * count, *grid), np.int16)
        for factor, (role, begin, end, thresholds) in zip(words.levels, self.parts, strict=True):
            shifts = np.arange(2 * thresholds * (end - begin), dtype=np.uint8)[:, None, None, None]
            levels[begin:end, FRAMES[role] - 1 :: SPAN] = levels_of(factor >> shifts & 1, thresholds)
        motion = np.concatenate([before, np.zeros((SPAN * count, *before.shape[1:]), np.int16)])
        guesses, anchor = Guesses(*before.shape[2:]), None
        for begin in range(0, len(motion), SPAN):
            for role, place in enumerate(pyramid(begin, SPAN, max(begin - SPAN, -1))):
                if begin >= len(before):
                    cells = np.zeros((3, *grid), np.int16)
                    n = (begin - len(before)) // SPAN
                    cells[:2] = words.vectors[n, role]
                    _take_over(cells, *_temporal(anchor, role, SPAN, cells), words.merges[n, role])
                    cells = scaled(cells, SPAN, place.distance)
                    motion[place.frame - 1] = quad_tree(cells.repeat(2, 1).repeat(2, 2), *guesses.of(place))
                guesses.add(place, motion[place.frame - 1])
                anchor = np.ascontiguousarray(motion[place.frame - 1, :3, ::2, ::2]) if role == 0 else anchor
        return levels, motion[len(before) :]

    def allowed(self) -> NDArray[np.bool_]:
        """Which values each factor may take, bool `[factors, 256]`; an escape may be read but not sampled."""
        allowed = np.zeros((self.factors, VALUES), bool)
        allowed[:SPAN, :MERGES] = True
        allowed[SPAN:MOTION] = True
        values = np.arange(VALUES, dtype=np.int64)
        for i, (_, begin, end, thresholds) in enumerate(self.parts):
            width = 2 * thresholds * (end - begin)
            bits = (values >> np.arange(width)[:, None] & 1).astype(np.uint8)
            allowed[MOTION + i] = index_of(bits_of(levels_of(bits, thresholds), thresholds)) == values
        return allowed

    def marks(self) -> NDArray[np.float32]:
        """What the values of each factor have in common, float32 `[factors, 256, 8]`.

        Of merges: which it is; of a difference of vectors: its sign and size; of levels: the bits.
        """
        values = np.arange(VALUES)
        bits = values[:, None] >> np.arange(BITS) & 1
        merges = values[:, None] == np.arange(BITS)
        d = (values - REACH - 1)[:, None]
        size = np.log2(1 + np.abs(d)) / BITS
        vectors = np.concatenate([d > 0, d < 0, size, size * np.sign(d), *(np.abs(d) > n for n in (0, 2, 8, 32))], 1)
        return np.stack([*[merges] * SPAN, *[vectors] * (2 * SPAN), *[bits] * len(self.parts)]).astype(np.float32)


def _temporal(anchor: I16 | None, role: int, distance: int, instead: I16) -> tuple[I16, bool]:
    """The temporal field of a frame, int16 `[3, h, w]`, and whether there is one: its anchor's motion, or for an anchor
    that of the anchor before, in quarter pixels over `distance`."""
    if anchor is None:
        return instead, False
    return scaled(anchor, SPAN, distance, BOTH if role else UNKNOWN), True


@njit(cache=True, nogil=True, inner=True)
def _offered(cells: Any, key: Any, has_key: bool, merge: int, i: int, j: int) -> tuple[int, int, int]:
    """What a merge takes over at a position: vector y and x and kind; the kind is -1 where its source is not there."""
    a, b, source = i, j, cells
    if merge == TEMPORAL:
        source = key
    elif merge == LEFT:
        b = j - 1
    elif merge == ABOVE:
        a = i - 1
    elif merge == RIGHT:
        a, b = i - 1, j + 1
    else:
        return 0, 0, BOTH if merge == STILL_BOTH else 0
    if a < 0 or b < 0 or b == cells.shape[2] or (merge == TEMPORAL and not has_key):
        return 0, 0, UNKNOWN
    return int(source[0, a, b]), int(source[1, a, b]), int(source[2, a, b])


@njit(cache=True, nogil=True)
def _tell(cells: Any, key: Any, has_key: bool, merges: Any) -> None:
    """Fill in the merges `[h, w]` of a frame's motion `[3, h, w]`; `key` is its temporal field, where `has_key`."""
    for i in range(cells.shape[1]):
        for j in range(cells.shape[2]):
            merges[i, j] = COPIES + cells[2, i, j]
            for merge in range(COPIES - 1, -1, -1):
                y, x, kind = _offered(cells, key, has_key, merge, i, j)
                if y == cells[0, i, j] and x == cells[1, i, j] and kind == cells[2, i, j]:
                    merges[i, j] = merge


@njit(cache=True, nogil=True)
def _take_over(cells: Any, key: Any, has_key: bool, merges: Any) -> None:
    """Fill in the motion of a frame by its merges, in the coder's order; explicit vectors are there.

    A merge whose source is not there is no motion.
    """
    for i in range(cells.shape[1]):
        for j in range(cells.shape[2]):
            if merges[i, j] >= COPIES:
                cells[2, i, j] = merges[i, j] - COPIES
            else:
                y, x, kind = _offered(cells, key, has_key, merges[i, j], i, j)
                cells[0, i, j], cells[1, i, j], cells[2, i, j] = y, x, max(kind, 0)


def quad_tree(plain: I16, near: I16, far: I16) -> I16:
    """The quad-tree of a field of cells: the largest blocks of one motion, merged with a neighbour where one has it.

    Args:
        plain: int16 `[3, h8, w8]`, vector y and x (in the coder's range) and kind of each cell.
        near, far: the temporal fields `[5, h8, w8]`, as of `Guesses`.

    Returns:
        int16 `[5, h8, w8]` as in `Tokens.motion`.
    """
    field = np.zeros((5, *plain.shape[1:]), np.int16)
    field[2] = UNKNOWN
    _fill_quad_tree(plain, field, near, far)
    return field


@njit(cache=True, nogil=True)
def _fill_quad_tree(cells: Any, field: Any, near: Any, far: Any) -> None:
    rows, columns = cells.shape[1:]
    offers = np.zeros((MAX_CANDIDATES, 3), np.int16)
    for top in range(0, rows, TREE):
        for left in range(0, columns, TREE):
            z = 0  # number of a cell in z-order, as in the coder
            while z < TREE * TREE:
                row, column, size, depth = node(z)
                i, j = top + row, left + column
                if i < rows and j < columns:
                    while size > 1 and not _is_one(cells, i, j, size):
                        size, depth = size >> 1, depth + 1
                    y, x, kind = cells[0, i, j], cells[1, i, j], cells[2, i, j]
                    count = candidates(field[:2], field[2], i, j, size, near, far, offers)
                    merge = -1
                    for k in range(count - 1, -1, -1):
                        if offers[k, 0] == y and offers[k, 1] == x and offers[k, 2] == kind:
                            merge = k
                    for a in range(i, i + size):
                        for b in range(j, j + size):
                            field[0, a, b], field[1, a, b], field[2, a, b] = y, x, kind
                            field[3, a, b], field[4, a, b] = depth, merge
                z += size * size


@njit(cache=True, nogil=True, inner=True)
def _is_one(cells: Any, i: int, j: int, size: int) -> bool:
    """Whether a block lies inside the field and has one motion."""
    if i + size > cells.shape[1] or j + size > cells.shape[2]:
        return False
    for a in range(i, i + size):
        for b in range(j, j + size):
            for c in range(3):
                if cells[c, a, b] != cells[c, i, j]:
                    return False
    return True


def basis_sha256(arrays: Mapping[str, NDArray[Any]]) -> str:
    """What the levels mean: a digest, in hex, of the transforms of some weights."""
    digest = hashlib.sha256()
    for name in sorted(name for name in arrays if name.startswith("klt")):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
