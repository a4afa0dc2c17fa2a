"""The decisions that the first frame's modes are coded as. FORMAT.md, "Modes", is the specification.

How a position of the first frame is coded are 19 numbers: the mode of each of its 4x4 cells of 4x4 pixels, row by
row, from 0 to 34 as in ITU-T H.265; then 0 if it is one square of 16x16, or else 1 and the sum of 2^s over its
quarters s that are cut into squares of 4x4 instead of one of 8x8; then the number of its chroma mode in
`chroma_mode`; then the number of its step, 0 to 8, finer or coarser than the frame's. All cells of a square have one
mode, and all four positions of a square of 32x32 pixels one step.
"""

from __future__ import annotations

import numpy as np

from tokcodec.compiled import njit
from tokcodec.dtypes import Array
from tokcodec.stream import levels
from tokcodec.stream.rangecoder import OVERRUN, Coder, code, context

CELLS = 4  # along a side of a position
PARTITION, CHROMA, STEP = 16, 17, 18  # rows of the modes
ROWS = 19
MODES, PARTITIONS, CHROMAS, STEPS = 35, 17, 5, 9
PLAIN_STEP = 4  # the number of the frame's own step
PLANAR, DC, HORIZONTAL, VERTICAL = 0, 1, 10, 26

_SPLIT, _QUARTER, _LEFT, _UP, _MODE, _CHROMA, _STEP = range(8, 15)  # kinds of decisions, behind those of levels
_BY_SPLIT, _BY_QUARTER, _BY_LEFT, _BY_UP, _BY_MODE, _BY_CHROMA = (levels.MIXERS + n for n in (0, 1, 5, 8, 11, 17))
_THEN_SPLIT, _THEN_QUARTER, _THEN_LEFT, _THEN_UP, _THEN_MODE, _THEN_CHROMA = (
    levels.MIXERS + n for n in (20, 24, 28, 32, 36, 45)
)
_BY_STEP, _THEN_STEP = levels.MIXERS + 48, levels.MIXERS + 54
MIXERS = levels.MIXERS + 63  # those of levels stand before


@njit(cache=True, nogil=True, inner=True)
def chroma_mode(number: int, luma: int) -> int:
    """The mode of a position's chroma, of its number and the mode of its first cell."""
    if number == 1:
        return PLANAR
    if number == 2:
        return DC
    if number == 3:
        return VERTICAL
    return HORIZONTAL if number == 4 else luma


@njit(cache=True, nogil=True, inner=True)
def size_of(partition: int, quarter: int) -> int:
    """Cells along the side of the squares in a quarter of a position."""
    if partition == 0:
        return 4
    return 1 if ((partition - 1) >> quarter) & 1 else 2


@njit(cache=True, nogil=True, inner=True)
def _class(partition: int) -> int:
    """0: one square, 1: quarters, 2: smaller ones."""
    return min(int(partition), 2)


@njit(cache=True, nogil=True, inner=True)
def _turn(mode: int) -> int:
    """The class of a mode: planar, DC, eight of direction."""
    return mode if mode < 2 else 2 + (mode - 2) // 4


@njit(cache=True, nogil=True)
def places(modes: Array) -> Array:
    """The class of the modes of each position, int64 `[1, h, w]`, from 0 to 32."""
    out = np.empty((1, *modes.shape[1:]), np.int64)
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[0, i, j] = 11 * _class(modes[PARTITION, i, j]) + _turn(modes[0, i, j])
    return out


@njit(cache=True, nogil=True, inner=True)
def _mode_at(modes: Array, y: int, x: int) -> int:
    """Of a cell; DC outside of the picture."""
    if y < 0 or x < 0 or y >= CELLS * modes.shape[1] or x >= CELLS * modes.shape[2]:
        return DC
    return int(modes[CELLS * (y % CELLS) + x % CELLS, y // CELLS, x // CELLS])


@njit(cache=True, nogil=True, inner=True)
def _code_mode(coder: Coder, modes: Array, wanted: int, y: int, x: int, size: int, step: int) -> int:
    """Code the mode of the square whose first cell is (y, x)."""
    at = coder.at
    left, up, corner = _mode_at(modes, y, x - 1), _mode_at(modes, y - 1, x), _mode_at(modes, y - 1, x - 1)
    side = size >> 1  # 0, 1, 2
    same = 1 if left == up else 0
    agree = 2 * (corner == left) + (corner == up)
    at[0] = context(_LEFT, side, same)
    at[1] = context(_LEFT, side, _turn(left), _turn(up))
    at[2] = context(_LEFT, left, side)
    at[3] = context(_LEFT, left, up)
    at[4] = context(_LEFT, side, same, agree)
    at[5] = context(_LEFT, step, side, same)
    at[6] = context(_LEFT, _turn(left), agree)
    at[7] = context(_LEFT, up, same, side)
    if code(coder, _BY_LEFT + side, _THEN_LEFT + 2 * (side == 0) + same, wanted == left) != 0:
        return left
    if same == 0:
        at[0] = context(_UP, side)
        at[1] = context(_UP, side, _turn(left), _turn(up))
        at[2] = context(_UP, up, side)
        at[3] = context(_UP, left, up)
        at[4] = context(_UP, side, agree)
        at[5] = context(_UP, step, side)
        at[6] = context(_UP, _turn(up), agree)
        at[7] = context(_UP, left, side)
        if code(coder, _BY_UP + side, _THEN_UP + agree, wanted == up) != 0:
            return up
    mode = 1
    for n in range(5, -1, -1):
        at[0] = context(_MODE, mode, side)
        at[1] = context(_MODE, mode, _turn(left))
        at[2] = context(_MODE, mode, _turn(up))
        at[3] = context(_MODE, mode, left)
        at[4] = context(_MODE, mode, up)
        at[5] = context(_MODE, mode, _turn(left), _turn(up))
        at[6] = context(_MODE, mode, step)
        at[7] = context(_MODE, mode, _turn(corner), same)
        mode = 2 * mode + code(coder, _BY_MODE + n, _THEN_MODE + 3 * side + min(left, 2), wanted >> n & 1)
    return mode - 64


@njit(cache=True, nogil=True, inner=True)
def _step_at(modes: Array, i: int, j: int, otherwise: int) -> int:
    """Of a position."""
    return int(modes[STEP, i, j]) if i >= 0 and 0 <= j < modes.shape[2] else otherwise


@njit(cache=True, nogil=True, inner=True)
def _code_step(coder: Coder, modes: Array, wanted: int, i: int, j: int, step: int) -> int:
    """Code the number of the step of the square of 32x32 whose first position is (i, j)."""
    at = coder.at
    left = _step_at(modes, i, j - 1, _step_at(modes, i - 1, j, PLAIN_STEP))
    up = _step_at(modes, i - 1, j, left)
    corner, right = _step_at(modes, i - 1, j - 1, up), _step_at(modes, i - 1, j + 2, up)
    number = (left + up + 1) >> 1
    way, apart = 0, abs(left - up)
    for n in range(1 + STEPS):  # whether it is another; which way, if there are two; whether it is further
        if n == 1 and (number == 0 or number == STEPS - 1):
            way = 1 if number == 0 else -1
        else:
            k = 0 if n == 0 else (1 if n == 1 else min(n, 4) + 4 * (way > 0))
            at[0] = context(_STEP, 0, k)
            at[1] = context(_STEP, 1, k, left, up)
            at[2] = context(_STEP, 2, k, number)
            at[3] = context(_STEP, 3, k, step)
            at[4] = context(_STEP, 4, k, corner, right)
            at[5] = context(_STEP, 5, k, apart)
            at[6] = context(_STEP, 6, k, left + up, corner)
            at[7] = context(_STEP, 7, k, left, up, right)
            asked = wanted > number if n == 1 else (wanted - number) * way > 0 or (n == 0 and wanted != number)
            bit = code(coder, _BY_STEP + min(n, 5), _THEN_STEP + apart, asked)
            if n == 1:
                way = 1 if bit != 0 else -1
            elif bit == 0:
                break
        if n > 0:
            number += way
            if number == 0 or number == STEPS - 1:
                break
    return number


@njit(cache=True, nogil=True)
def code_modes(coder: Coder, wanted: Array, modes: Array, step: int) -> bool:
    """Code the modes of a first frame.

    Args:
        wanted: int16 `[19, h, w]`; a decoder does not look at it.
        modes: int16 `[19, h, w]`, is filled.
        step: class of the chunk's step.

    Returns:
        Whether all went well: false where the payload is damaged, a mode is out of range or the buffer full.
    """
    at = coder.at
    rows, columns = modes.shape[1:]
    for i in range(rows):
        if coder.registers[OVERRUN] != 0:
            return False
        for j in range(columns):
            is_first = i % 2 == 0 and j % 2 == 0
            modes[STEP, i, j] = (
                _code_step(coder, modes, wanted[STEP, i, j], i, j, step) if is_first
                else modes[STEP, i - i % 2, j - j % 2]
            )  # fmt: skip
            left = 1 + _class(modes[PARTITION, i, j - 1]) if j > 0 else 0
            up = 1 + _class(modes[PARTITION, i - 1, j]) if i > 0 else 0
            corner = 1 + _class(modes[PARTITION, i - 1, j - 1]) if i > 0 and j > 0 else 0
            right = 1 + _class(modes[PARTITION, i - 1, j + 1]) if i > 0 and j + 1 < columns else 0
            for k in range(8):
                at[k] = context(_SPLIT, k, left, up if k != 4 else 0)
            at[0] = context(_SPLIT, 0)
            at[2] = context(_SPLIT, 2, left, up, corner)
            at[3] = context(_SPLIT, 3, step)
            at[5] = context(_SPLIT, 5, step, left, up)
            at[6] = context(_SPLIT, 6, left, up, right, corner)
            at[7] = context(_SPLIT, 7, up, right)
            partition = 0
            if code(coder, _BY_SPLIT, _THEN_SPLIT + left, wanted[PARTITION, i, j] != 0) != 0:
                partition, split = 1, 0
                for s in range(4):
                    at[0] = context(_QUARTER, 0, s, split)
                    at[1] = context(_QUARTER, 1, left, up, split)
                    at[2] = context(_QUARTER, 2, s, left, up)
                    at[3] = context(_QUARTER, 3, step, split)
                    at[4] = context(_QUARTER, 4, partition, s)
                    at[5] = context(_QUARTER, 5, step, left, up)
                    at[6] = context(_QUARTER, 6, left, up, corner, right)
                    at[7] = context(_QUARTER, 7, right, split)
                    asked = (max(wanted[PARTITION, i, j] - 1, 0) >> s) & 1
                    bit = code(coder, _BY_QUARTER + s, _THEN_QUARTER + left, asked)
                    partition, split = partition + (bit << s), split + bit
            modes[PARTITION, i, j] = partition
            for s in range(4):
                size = size_of(partition, s)
                if size == 4 and s > 0:
                    break
                for t in range(4):
                    if size > 1 and t > 0:
                        break
                    y = 2 * (s >> 1) + (t >> 1)
                    x = 2 * (s & 1) + (t & 1)
                    asked = wanted[CELLS * y + x, i, j]
                    mode = _code_mode(coder, modes, asked, CELLS * i + y, CELLS * j + x, size, step)
                    if mode >= MODES:
                        return False
                    for a in range(y, y + size):
                        for b in range(x, x + size):
                            modes[CELLS * a + b, i, j] = mode
            luma = modes[0, i, j]
            beside = modes[CHROMA, i, j - 1] + 1 if j > 0 else 0
            above = modes[CHROMA, i - 1, j] + 1 if i > 0 else 0
            number = 0
            for k in range(3):  # as luma; else two bits
                at[0] = context(_CHROMA, k, number)
                at[1] = context(_CHROMA, k, number, beside, above)
                at[2] = context(_CHROMA, k, number, luma)
                at[3] = context(_CHROMA, k, number, _turn(luma), _class(partition))
                at[4] = context(_CHROMA, k, number, step)
                at[5] = context(_CHROMA, k, number, beside)
                at[6] = context(_CHROMA, k, number, above)
                at[7] = context(_CHROMA, k, number, _class(partition), beside, above)
                number_asked = wanted[CHROMA, i, j]
                asked = (number_asked != 0) if k == 0 else ((number_asked - 1) >> (2 - k)) & 1 != 0
                bit = code(coder, _BY_CHROMA + k, _THEN_CHROMA + min(luma, 2), asked)
                if bit == 0 and k == 0:
                    break
                number = 2 * number + bit if k > 0 else 0
                if k == 2:
                    number += 1
            modes[CHROMA, i, j] = number
    return True


def are_modes(modes: Array) -> bool:
    """Whether int16 `[19, h, w]` are modes: in range, and one for all cells and positions of a square."""
    if modes.min() < 0 or (modes[:PARTITION] >= MODES).any():
        return False
    if (modes[PARTITION] >= PARTITIONS).any() or (modes[CHROMA] >= CHROMAS).any() or (modes[STEP] >= STEPS).any():
        return False
    h, w = modes.shape[1:]
    if (modes[STEP] != modes[STEP, ::2, ::2].repeat(2, 0).repeat(2, 1)[:h, :w]).any():
        return False
    cells = modes[:PARTITION].reshape(2, 2, 2, 2, *modes.shape[1:])  # quarter's row, row, quarter's column, column
    quarters = cells[:, :1, :, :1]
    is_quarter = (modes[PARTITION] == 0) | ((np.maximum(modes[PARTITION] - 1, 0) >> _NUMBERS & 1) == 0)
    fits = (cells == quarters) | ~is_quarter[:, None, :, None]
    return bool(fits.all() and ((modes[:PARTITION] == modes[0]) | (modes[PARTITION] > 0)).all())


_NUMBERS = np.arange(4, dtype=np.int16).reshape(2, 2, 1, 1)
