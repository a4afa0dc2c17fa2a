"""Tokens as a language: each position of a group of four is a word of factors, and back.

The first four factors say where the motion of the group's four frames is taken over from, or else its kind; the next
eight its vectors, which count only in the latter case; the others eight lookup-free bits of the levels each. A group
has one motion a frame and position (of the upper left 8x8 cell); levels past the first dimensions are left out, and
those past the thresholds are cut. The first group of a chunk, which follows from nothing before it, is read but never
spoken: its levels say what its own neighbours lack, so it is read as what they add up to, in integers and without the
network.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.compiled import njit
from tokcodec.neural.intra import GREY, reconstruct
from tokcodec.neural.lfq import bits_of, index_of, levels_of
from tokcodec.neural.loop import GROUP, LEVELS, MODES, steps_of
from tokcodec.neural.planes import CELL, GRID, cell_means
from tokcodec.stream.entropy import Tokens
from tokcodec.stream.fields import BOTH, MAX_CANDIDATES, MAX_VECTOR, UNKNOWN, candidates
from tokcodec.stream.trees import TREE, node

BITS = 8  # of a factor
VALUES = 1 << BITS
# Dimensions of the key block and of the block between that are spoken of, and the thresholds of each.
KEY_FINE, KEY, BETWEEN = 16, 64, 32
FINE, COARSE = 2, 1
FIRST = (GRID // CELL) ** 2 * 3 // 2  # means of cells of a position, of the first group
# Merges, values of the first factors: motion taken over from the temporal field (for the key frame that of the group
# before, for the three between their key frame's), from the position left, above, above right; none, of the first
# reference, and of both. From COPIES on it is explicit, of kind value - COPIES. The first that fits is told.
TEMPORAL, LEFT, ABOVE, RIGHT, STILL, STILL_BOTH, COPIES = range(7)
MERGES = COPIES + 3
MOTION = 3 * GROUP  # factors: merges of the key frame and the three between, then y and x of each
REACH = VALUES // 2 - 1  # of a difference of vectors
ESCAPE = 0  # the value of a difference out of reach; it is never sampled

U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]


class Words(NamedTuple):
    """n groups of four of a chunk.

    Attributes:
        levels: uint8 `[L, n, h, w]`, factors of eight bits.
        merges: uint8 `[n, 4, h, w]`, of the key frame and the others, 0 to 8.
        vectors: int16 `[n, 4, 2, h, w]`, y and x of their motion; what a merge takes over need not be there yet.
    """

    levels: U8
    merges: U8
    vectors: I16


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which levels the factors hold.

    Attributes:
        blocks: dimensions of intra, key and between, as of the loop.
    """

    blocks: tuple[int, int, int]

    @functools.cached_property
    def spans(self) -> tuple[tuple[int, int, int], ...]:
        """First dimension, end and thresholds of each factor of levels."""
        key, behind = self.blocks[1], self.blocks[1] + self.blocks[2]
        parts = (
            (0, min(KEY_FINE, key), FINE),
            (min(KEY_FINE, key), min(KEY, key), COARSE),
            (key, min(key + BETWEEN, behind), COARSE),
        )
        return tuple(
            (begin, min(begin + BITS // (2 * thresholds), stop), thresholds)
            for start, stop, thresholds in parts
            for begin in range(start, stop, BITS // (2 * thresholds))
        )

    @property
    def factors(self) -> int:
        """Of a word, in all."""
        return MOTION + len(self.spans)

    def words(self, tokens: Tokens) -> Words:
        """All groups of four of a chunk."""
        levels = np.stack(
            [
                index_of(bits_of(tokens.levels[begin:end, 1:], thresholds)).astype(np.uint8)
                for begin, end, thresholds in self.spans
            ]
        )
        cells = tokens.motion[:, :3, ::2, ::2].reshape(-1, GROUP, 3, *tokens.levels.shape[2:])
        merges = np.zeros((len(cells), GROUP, *cells.shape[3:]), np.uint8)
        for n in range(len(cells)):
            for role in range(GROUP):
                key = cells[n if role else n - 1, 0]  # of the first key frame there is none
                _tell(cells[n, role], key, n + role > 0, merges[n, role])
        return Words(levels, merges, np.ascontiguousarray(cells[:, :, :2]))

    def first(self, tokens: Tokens, step: float) -> I16:
        """What is read of the first group: means of 4x4 samples less 128, int16 `[24, h, w]`, of Y, Cb and Cr.

        Args:
            tokens: of a chunk.
            step: of the chunk, in levels.
        """
        planes = reconstruct(tokens.levels[LEVELS, 0], tokens.levels[MODES, 0], steps_of(step)[0])
        first: I16 = np.round(cell_means(planes) - GREY).astype(np.int16)
        return first

    def tokens(self, words: Words, dimensions: int, before: I16 | None) -> Tokens:
        """Levels int16 `[D, n, h, w]` and motion int16 `[4 n, 5, 2 h, 2 w]` of n groups.

        Args:
            words: of the groups.
            dimensions: D.
            before: motion `[5, 2 h, 2 w]` of the key frame of the group before; None at a chunk's start.
        """
        count, _, *grid = words.merges.shape
        levels = np.zeros((dimensions, count, *grid), np.int16)
        for factor, (begin, end, thresholds) in zip(words.levels, self.spans, strict=True):
            shifts = np.arange(2 * thresholds * (end - begin), dtype=np.uint8)[:, None, None, None]
            levels[begin:end] = levels_of(factor >> shifts & 1, thresholds)
        motion = np.zeros((GROUP * count, 5, 2 * grid[0], 2 * grid[1]), np.int16)
        for n in range(count):
            key = before
            for role in range(GROUP):
                cells = np.zeros((3, *grid), np.int16)
                cells[:2] = words.vectors[n, role].clip(-MAX_VECTOR, MAX_VECTOR)
                temporal = cells if key is None else np.ascontiguousarray(key[:3, ::2, ::2])
                _take_over(cells, temporal, key is not None, words.merges[n, role])
                motion[GROUP * n + role] = planted(cells.repeat(2, 1).repeat(2, 2), key)
                if role == 0:
                    key = before = motion[GROUP * n]
        return Tokens(levels, motion)

    def allowed(self) -> NDArray[np.bool_]:
        """Which values each factor may take, bool `[factors, 256]`; an escape may be read but not sampled."""
        allowed = np.zeros((self.factors, VALUES), bool)
        allowed[:GROUP, :MERGES] = True
        allowed[GROUP:MOTION] = True
        values = np.arange(VALUES, dtype=np.int64)
        for i, (begin, end, thresholds) in enumerate(self.spans):
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
        return np.stack([*[merges] * GROUP, *[vectors] * (2 * GROUP), *[bits] * len(self.spans)]).astype(np.float32)


@njit(cache=True, nogil=True)
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


def planted(plain: I16, key: I16 | None) -> I16:
    """The quad-tree of a field of cells: the largest blocks of one motion, merged with a neighbour where one has it.

    Args:
        plain: int16 `[3, h8, w8]`, vector y and x (in the coder's range) and kind of each cell.
        key: the temporal field `[5, h8, w8]`: of the group's key frame, or of the one before; None without one.

    Returns:
        int16 `[5, h8, w8]` as in `Tokens.motion`.
    """
    field = np.zeros((5, *plain.shape[1:]), np.int16)
    field[2] = UNKNOWN
    _plant(plain, field, field if key is None else key, key is not None)
    return field


@njit(cache=True, nogil=True)
def _plant(cells: Any, field: Any, key: Any, has_key: bool) -> None:
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
                    count = candidates(field[:2], field[2], i, j, size, key[:2], key[2], has_key, offers)
                    merge = -1
                    for k in range(count - 1, -1, -1):
                        if offers[k, 0] == y and offers[k, 1] == x and offers[k, 2] == kind:
                            merge = k
                    for a in range(i, i + size):
                        for b in range(j, j + size):
                            field[0, a, b], field[1, a, b], field[2, a, b] = y, x, kind
                            field[3, a, b], field[4, a, b] = depth, merge
                z += size * size


@njit(cache=True, nogil=True)
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
    for name in sorted(name for name in arrays if name.startswith("klt.")):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
