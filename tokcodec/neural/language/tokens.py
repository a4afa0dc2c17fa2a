"""Tokens as a language: each position of a group of four is a word of factors, and back.

The first factor says the kinds of the motion of the group's four frames, the next eight its vectors, the others eight
lookup-free bits of the levels each. A group has one vector a frame and position (of the upper left 8x8 cell); levels
past the first dimensions are left out, and those past the thresholds are cut. The first group of a chunk, which
follows from nothing before it, is read but never spoken: its levels say what its own neighbours lack, so it is read
as what they add up to, in integers and without the network.
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
from tokcodec.stream.fields import MAX_CANDIDATES, MAX_VECTOR, UNKNOWN, candidates
from tokcodec.stream.trees import TREE, node

BITS = 8  # of a factor
VALUES = 1 << BITS
# Dimensions of the key block and of the block between that are spoken of, and the thresholds of each.
KEY_FINE, KEY, BETWEEN = 16, 64, 32
FINE, COARSE = 2, 1
FIRST = (GRID // CELL) ** 2 * 3 // 2  # means of cells of a position, of the first group
KINDS = 3**GROUP
MOTION = 1 + 2 * GROUP  # factors: the kinds, then y and x of the key frame and of the three between
REACH = VALUES // 2 - 1  # of a difference of vectors
ESCAPE = 0  # the value of a difference out of reach; it is never sampled

U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]


class Words(NamedTuple):
    """n groups of four of a chunk.

    Attributes:
        levels: uint8 `[L, n, h, w]`, factors of eight bits.
        kinds: uint8 `[n, h, w]`, the four frames' kinds as digits to the base 3, the key frame's lowest.
        vectors: int16 `[n, 4, 2, h, w]`, y and x of the key frame's and the others' motion.
    """

    levels: U8
    kinds: U8
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
        kinds = (cells[:, :, 2] * 3 ** np.arange(GROUP)[:, None, None]).sum(1).astype(np.uint8)
        return Words(levels, kinds, np.ascontiguousarray(cells[:, :, :2]))

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
        count, *grid = words.kinds.shape
        levels = np.zeros((dimensions, count, *grid), np.int16)
        for factor, (begin, end, thresholds) in zip(words.levels, self.spans, strict=True):
            shifts = np.arange(2 * thresholds * (end - begin), dtype=np.uint8)[:, None, None, None]
            levels[begin:end] = levels_of(factor >> shifts & 1, thresholds)
        motion = np.zeros((GROUP * count, 5, 2 * grid[0], 2 * grid[1]), np.int16)
        for n in range(count):
            key = before
            for role in range(GROUP):
                kinds = words.kinds[n] // 3**role % 3
                plain = np.stack([*words.vectors[n, role], kinds]).repeat(2, 1).repeat(2, 2).astype(np.int16)
                motion[GROUP * n + role] = planted(plain, key)
                if role == 0:
                    key = before = motion[GROUP * n]
        return Tokens(levels, motion)

    def allowed(self) -> NDArray[np.bool_]:
        """Which values each factor may take, bool `[factors, 256]`; an escape may be read but not sampled."""
        allowed = np.zeros((self.factors, VALUES), bool)
        allowed[0, :KINDS] = True
        allowed[1:MOTION] = True
        values = np.arange(VALUES, dtype=np.int64)
        for i, (begin, end, thresholds) in enumerate(self.spans):
            width = 2 * thresholds * (end - begin)
            bits = (values >> np.arange(width)[:, None] & 1).astype(np.uint8)
            allowed[MOTION + i] = index_of(bits_of(levels_of(bits, thresholds), thresholds)) == values
        return allowed

    def marks(self) -> NDArray[np.float32]:
        """What the values of each factor have in common, float32 `[factors, 256, 8]`.

        Of the kinds: whether each frame's is 1, and whether it is 2; of a difference of vectors: its sign and size;
        of levels: the bits.
        """
        values = np.arange(VALUES)
        bits = values[:, None] >> np.arange(BITS) & 1
        digits = values[:, None] // 3 ** np.arange(GROUP) % 3
        kinds = np.concatenate([digits == 1, digits == 2], 1)
        d = (values - REACH - 1)[:, None]
        size = np.log2(1 + np.abs(d)) / BITS
        vectors = np.concatenate([d > 0, d < 0, size, size * np.sign(d), *(np.abs(d) > n for n in (0, 2, 8, 32))], 1)
        return np.stack([kinds, *[vectors] * (MOTION - 1), *[bits] * len(self.spans)]).astype(np.float32)


def planted(plain: I16, key: I16 | None) -> I16:
    """The quad-tree of a field of cells: the largest blocks of one motion, merged with a neighbour where one has it.

    Args:
        plain: int16 `[3, h8, w8]`, vector y and x (clipped to the coder's range) and kind of each cell.
        key: the temporal field `[5, h8, w8]`: of the group's key frame, or of the one before; None without one.

    Returns:
        int16 `[5, h8, w8]` as in `Tokens.motion`.
    """
    field = np.zeros((5, *plain.shape[1:]), np.int16)
    field[2] = UNKNOWN
    cells = plain.copy()
    np.clip(cells[:2], -MAX_VECTOR, MAX_VECTOR, out=cells[:2])
    _plant(cells, field, field if key is None else key, key is not None)
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
