"""Motion compensation: what the decoder does, in integers.

A frame is predicted in blocks of 8x8 from one or two reference frames. A block has one vector, in quarter pixels over
the distance to the first reference; for the second it is scaled by distance. Blocks overlap
(OBMC, as in H.263 annex F), so that their borders do not show. Quarter pixels of luma are interpolated
with HEVC's 8-tap filters, eighths of chroma with its 4-tap filters (ITU-T H.265, 8.5.3.3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.planes import Planes
from tokcodec.compiled import njit
from tokcodec.dtypes import I16, I32, U8
from tokcodec.stream.fields import BOTH, SECOND

BLOCK = 8  # pixels of a vector's block
BORDER = 24  # of a reference, on every side: a block further out sees nothing else

LUMA = np.array(
    [
        [0, 0, 0, 64, 0, 0, 0, 0],
        [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 1, -5, 17, 58, -10, 4, -1],
    ],
    np.int32,
)
CHROMA = np.array(
    [
        [0, 64, 0, 0],
        [-2, 58, 10, -2],
        [-4, 54, 16, -2],
        [-6, 46, 28, -4],
        [-4, 36, 36, -4],
        [-4, 28, 46, -6],
        [-2, 16, 54, -4],
        [-2, 10, 58, -2],
    ],
    np.int32,
)
_SIDE = np.array(
    [[2, 2, 2, 2, 2, 2, 2, 2], [1, 1, 2, 2, 2, 2, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32
)
ABOVE = np.concatenate([_SIDE, _SIDE[::-1]])  # weight of the nearer vertical neighbour's vector, of 8 in all
BESIDE = np.ascontiguousarray(ABOVE.T)


class Reference(NamedTuple):
    """A decoded frame as vectors look into it.

    Attributes:
        luma: uint8 `[16, H + 2 * BORDER, W + 2 * BORDER]`, plane 4 * y + x is moved by y / 4 and x / 4 pixels.
        chroma: uint8 `[2, H / 2 + BORDER, W / 2 + BORDER]`.
    """

    luma: U8
    chroma: U8


def reference(planes: Planes) -> Reference:
    """A reference made of a single frame."""
    border = BORDER + 4
    luma = np.pad(planes.y[0], border, mode="edge")
    height, width = planes.y.shape[1:]
    phases = np.empty((16, height + 2 * BORDER, width + 2 * BORDER), np.uint8)
    _interpolate(luma, phases)
    half = BORDER // 2
    return Reference(phases, np.pad(planes.c[0], ((0, 0), (half, half), (half, half)), mode="edge"))


@njit(cache=True, nogil=True)
def _interpolate(luma: U8, phases: U8) -> None:
    """All phases of a plane; sums of eight products fit 16 bits across and 32 bits down, as HEVC has it."""
    height, width = phases.shape[1:]
    across = np.empty((height + 8, width), np.int16)
    for x in range(4):
        _across(luma, LUMA[x], across)
        for y in range(4):
            _down(across, LUMA[y], phases[4 * y + x])


@njit(cache=True, nogil=True, inner=True)
def _across(luma: U8, taps: I32, out: I16) -> None:
    t0, t1, t2, t3 = np.int16(taps[0]), np.int16(taps[1]), np.int16(taps[2]), np.int16(taps[3])
    t4, t5, t6, t7 = np.int16(taps[4]), np.int16(taps[5]), np.int16(taps[6]), np.int16(taps[7])
    for i in range(out.shape[0]):
        line = luma[i]
        for j in range(np.uintp(out.shape[1])):
            total = np.int16(t0 * np.int16(line[j + 1]))
            total = np.int16(total + np.int16(t1 * np.int16(line[j + 2])))
            total = np.int16(total + np.int16(t2 * np.int16(line[j + 3])))
            total = np.int16(total + np.int16(t3 * np.int16(line[j + 4])))
            total = np.int16(total + np.int16(t4 * np.int16(line[j + 5])))
            total = np.int16(total + np.int16(t5 * np.int16(line[j + 6])))
            total = np.int16(total + np.int16(t6 * np.int16(line[j + 7])))
            out[i, j] = np.int16(total + np.int16(t7 * np.int16(line[j + 8])))


@njit(cache=True, nogil=True, inner=True)
def _down(across: I16, taps: I32, out: U8) -> None:
    t0, t1, t2, t3, t4, t5, t6, t7 = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    low, high = np.int32(0), np.int32(255)
    for i in range(out.shape[0]):
        a0, a1, a2, a3 = across[i + 1], across[i + 2], across[i + 3], across[i + 4]
        a4, a5, a6, a7 = across[i + 5], across[i + 6], across[i + 7], across[i + 8]
        if t3 == 64:  # alone
            for j in range(np.uintp(out.shape[1])):
                out[i, j] = np.uint8(min(max(np.int32(np.int32(a3[j]) + 32) >> 6, low), high))
            continue
        for j in range(np.uintp(out.shape[1])):
            total = np.int32(2048 + np.int32(t0 * np.int32(a0[j])))
            total = np.int32(total + np.int32(t1 * np.int32(a1[j])))
            total = np.int32(total + np.int32(t2 * np.int32(a2[j])))
            total = np.int32(total + np.int32(t3 * np.int32(a3[j])))
            total = np.int32(total + np.int32(t4 * np.int32(a4[j])))
            total = np.int32(total + np.int32(t5 * np.int32(a5[j])))
            total = np.int32(total + np.int32(t6 * np.int32(a6[j])))
            total = np.int32(total + np.int32(t7 * np.int32(a7[j])))
            out[i, j] = np.uint8(min(max(total >> 12, low), high))


@njit(cache=True, nogil=True, inline="always")
def share(vector: int, scale: int) -> int:
    """A vector over the distance to a reference, whose scale is in 1/16 (negative: the reference is later)."""
    return (vector * scale + 8) >> 4


@njit(cache=True, nogil=True, inner=True)
def _fetch(luma: U8, chroma: U8, top: int, left: int, y: int, x: int, out_y: I32, out_c: I32) -> None:
    """A block of 8x8 pixels and 2 of 4x4 chroma samples, moved by (y, x) quarter pixels."""
    plane = luma[4 * (y & 3) + (x & 3)]
    row = min(max(top + (y >> 2) + BORDER, 0), plane.shape[0] - BLOCK)
    column = min(max(left + (x >> 2) + BORDER, 0), plane.shape[1] - BLOCK)
    for i in range(BLOCK):
        for j in range(BLOCK):
            out_y[i, j] = plane[row + i, column + j]
    fy, fx = CHROMA[y & 7], CHROMA[x & 7]
    row = min(max(top // 2 + (y >> 3) + BORDER // 2, 1), chroma.shape[1] - 7)
    column = min(max(left // 2 + (x >> 3) + BORDER // 2, 1), chroma.shape[2] - 7)
    for k in range(2):
        for i in range(4):
            for j in range(4):
                if (y & 7) == 0 and (x & 7) == 0:
                    out_c[k, i, j] = chroma[k, row + i, column + j]
                else:
                    total = 2048
                    for a in range(4):
                        line = 0
                        for b in range(4):
                            line += fx[b] * chroma[k, row + i + a - 1, column + j + b - 1]
                        total += fy[a] * line
                    out_c[k, i, j] = min(max(total >> 12, 0), 255)


@njit(cache=True, nogil=True, inner=True)
def _block(
    a_luma: U8, a_chroma: U8, b_luma: U8, b_chroma: U8, scale: int, top: int, left: int,
    y: int, x: int, kind: int, out_y: I32, out_c: I32, more_y: I32, more_c: I32,
) -> None:  # fmt: skip
    """The prediction of one block by one vector."""
    if kind == SECOND:
        _fetch(b_luma, b_chroma, top, left, share(y, scale), share(x, scale), out_y, out_c)
        return
    _fetch(a_luma, a_chroma, top, left, y, x, out_y, out_c)
    if kind == BOTH:
        _fetch(b_luma, b_chroma, top, left, share(y, scale), share(x, scale), more_y, more_c)
        for i in range(BLOCK):
            for j in range(BLOCK):
                out_y[i, j] = (out_y[i, j] + more_y[i, j] + 1) >> 1
        for k in range(2):
            for i in range(4):
                for j in range(4):
                    out_c[k, i, j] = (out_c[k, i, j] + more_c[k, i, j] + 1) >> 1


@njit(cache=True, nogil=True)
def _compensate(
    a_luma: U8, a_chroma: U8, b_luma: U8, b_chroma: U8, scale: int,
    field: NDArray[np.int16], y: U8, c: U8,
) -> None:  # fmt: skip
    vector, kind = field[:2], field[2]
    rows, columns = kind.shape
    own_y, own_c = np.empty((BLOCK, BLOCK), np.int32), np.empty((2, 4, 4), np.int32)
    near_y, near_c = np.empty((BLOCK, BLOCK), np.int32), np.empty((2, 4, 4), np.int32)
    more_y, more_c = np.empty((BLOCK, BLOCK), np.int32), np.empty((2, 4, 4), np.int32)
    sum_y, sum_c = np.empty((BLOCK, BLOCK), np.int32), np.empty((2, 4, 4), np.int32)
    for i in range(rows):
        for j in range(columns):
            v0, v1, k = vector[0, i, j], vector[1, i, j], kind[i, j]
            _block(
                a_luma, a_chroma, b_luma, b_chroma, scale, i * BLOCK, j * BLOCK, v0, v1, k, own_y, own_c, more_y, more_c
            )
            mixed = False
            for side in range(4):  # above, below, left, right
                ni = i + (side == 1) - (side == 0)
                nj = j + (side == 3) - (side == 2)
                if ni < 0 or nj < 0 or ni >= rows or nj >= columns:
                    continue
                if vector[0, ni, nj] == v0 and vector[1, ni, nj] == v1 and kind[ni, nj] == k:
                    continue
                if not mixed:
                    mixed = True
                    for r in range(BLOCK):
                        for q in range(BLOCK):
                            sum_y[r, q] = 8 * own_y[r, q]
                    for p in range(2):
                        for r in range(4):
                            for q in range(4):
                                sum_c[p, r, q] = 8 * own_c[p, r, q]
                _block(
                    a_luma, a_chroma, b_luma, b_chroma, scale, i * BLOCK, j * BLOCK,
                    vector[0, ni, nj], vector[1, ni, nj], kind[ni, nj], near_y, near_c, more_y, more_c,
                )  # fmt: skip
                weights = ABOVE if side < 2 else BESIDE
                r0, r1 = (4 if side == 1 else 0), (4 if side == 0 else 8)
                q0, q1 = (4 if side == 3 else 0), (4 if side == 2 else 8)
                for r in range(r0, r1):
                    for q in range(q0, q1):
                        sum_y[r, q] += weights[r, q] * (near_y[r, q] - own_y[r, q])
                for p in range(2):
                    for r in range(r0 // 2, r1 // 2):
                        for q in range(q0 // 2, q1 // 2):
                            sum_c[p, r, q] += weights[2 * r, 2 * q] * (near_c[p, r, q] - own_c[p, r, q])
            for r in range(BLOCK):
                for q in range(BLOCK):
                    y[i * BLOCK + r, j * BLOCK + q] = (sum_y[r, q] + 4) >> 3 if mixed else own_y[r, q]
            for p in range(2):
                for r in range(4):
                    for q in range(4):
                        c[p, i * 4 + r, j * 4 + q] = (sum_c[p, r, q] + 4) >> 3 if mixed else own_c[p, r, q]


def compensate(first: Reference, second: Reference, scale: int, field: NDArray[np.int16]) -> Planes:
    """Predict a frame.

    Args:
        first, second: reference frames; the same one twice where there is only one.
        scale: distance to the second one over that to the first, in 1/16; negative where it is later.
        field: motion of the frame, int16 `[>= 3, H / 8, W / 8]`: y, x and the kind of each cell (see `stream.fields`).

    Returns:
        Planes of one frame.
    """
    rows, columns = field.shape[1:]
    y = np.empty((1, rows * BLOCK, columns * BLOCK), np.uint8)
    c = np.empty((1, 2, rows * BLOCK // 2, columns * BLOCK // 2), np.uint8)
    _compensate(*first, *second, scale, field, y[0], c[0])
    return Planes(y, c)
