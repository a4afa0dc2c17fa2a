"""What a motion block takes from the blocks around it: the rule that search and coder share.

A field holds vectors int16 `[2, h8, w8]` and kinds of cells of 8x8 pixels; a kind of -1 is a cell that is not decoded
yet. A block covers `size` by `size` cells from (`top`, `left`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokcodec.compiled import njit
from tokcodec.dtypes import I16

MAX_CANDIDATES = 6
MAX_VECTOR = 1023  # a component is -1023 to 1023 quarter pixels over the distance to the first reference
FIRST, SECOND, BOTH = 0, 1, 2  # kinds: which reference a block is predicted from
UNKNOWN = -1

Kinds = NDArray[Any]  # of any signed integers


@njit(cache=True, nogil=True, inline="always")
def _is_known(kind: Kinds, row: int, column: int) -> bool:
    inside = 0 <= row < kind.shape[0] and 0 <= column < kind.shape[1]
    return inside and bool(kind[row, column] >= 0)


@njit(cache=True, nogil=True, inner=True)
def _offer(out: I16, count: int, y: int, x: int, kind: int) -> int:
    if count == MAX_CANDIDATES:
        return count
    for i in range(count):
        if out[i, 0] == y and out[i, 1] == x and out[i, 2] == kind:
            return count
    out[count, 0], out[count, 1], out[count, 2] = y, x, kind
    return count + 1


@njit(cache=True, nogil=True)
def candidates(
    vector: I16, kind: Kinds, top: int, left: int, size: int, near: I16, far: I16, out: I16
) -> int:  # fmt: skip
    """The motions that a block may take over.

    In this order, without those that are there already, at most six: of the cell left of the block's first, of that
    above it, of that above right of the block; of the two temporal fields in the block's centre; no motion from the
    first reference; no motion from both.

    Args:
        vector, kind: the field, as far as it is decoded.
        top, left, size: the block, in cells; within the field.
        near, far: int16 `[>= 3, h8, w8]`, motion of frames that are decoded, scaled to this frame's distance (see
            `scaled`); of kind -1 where there is none.
        out: int16 `[6, 3]`, takes (y, x, kind) of each.

    Returns:
        Their number, at least 2.
    """
    count = 0
    places = ((top, left - 1), (top - 1, left), (top - 1, left + size))
    for row, column in places:
        if _is_known(kind, row, column):
            count = _offer(out, count, vector[0, row, column], vector[1, row, column], kind[row, column])
    row, column = top + size // 2, left + size // 2
    if _is_known(near[2], row, column):
        count = _offer(out, count, near[0, row, column], near[1, row, column], near[2, row, column])
    if _is_known(far[2], row, column):
        count = _offer(out, count, far[0, row, column], far[1, row, column], far[2, row, column])
    count = _offer(out, count, 0, 0, FIRST)
    return _offer(out, count, 0, 0, BOTH)


def scaled(field: I16, distance: int, wanted: int, kind: int = UNKNOWN) -> I16:
    """The motion of one frame as a guess of another's.

    Args:
        field: int16 `[5, h8, w8]`.
        distance: of that frame to its first reference, in frames.
        wanted: distance of the other frame.
        kind: of all blocks of the guess; UNKNOWN keeps theirs.
    """
    out = field.copy()
    out[:2] = ((2 * field[:2].astype(np.int32) * wanted + distance) // (2 * distance)).clip(-MAX_VECTOR, MAX_VECTOR)
    if kind != UNKNOWN:
        out[2] = kind
    return out


def unknown(rows: int, columns: int) -> I16:
    """A field without motion to guess from."""
    field = np.full((5, rows, columns), UNKNOWN, np.int16)
    field[:2] = 0
    return field


@njit(cache=True, nogil=True, inline="always")
def _median(a: int, b: int, c: int) -> int:
    return max(min(a, b), min(max(a, b), c))


@njit(cache=True, nogil=True)
def predicted(vector: I16, kind: Kinds, top: int, left: int, size: int) -> tuple[int, int]:
    """What an explicit vector is coded against: (y, x), medians of the cells left, above and above right.

    The cells are those of `candidates`; one that is not there, or not decoded yet, counts as no motion.
    """
    ay = ax = by = bx = cy = cx = 0
    if _is_known(kind, top, left - 1):
        ay, ax = int(vector[0, top, left - 1]), int(vector[1, top, left - 1])
    if _is_known(kind, top - 1, left):
        by, bx = int(vector[0, top - 1, left]), int(vector[1, top - 1, left])
    if _is_known(kind, top - 1, left + size):
        cy, cx = int(vector[0, top - 1, left + size]), int(vector[1, top - 1, left + size])
    return _median(ay, by, cy), _median(ax, bx, cx)
