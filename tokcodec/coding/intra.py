"""The first frame: every square is predicted from the decoded pixels around it, and what that lacks is transformed.

Squares of 16, 8 and 4 pixels a side with the 35 modes of HEVC (ITU-T H.265, 8.4.4.2), reference smoothing and edge
filters included, and DCT-II. All of it is in integers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.planes import GRID, Planes
from tokcodec.coding.quantizer import BIAS_SHIFT
from tokcodec.compiled import njit
from tokcodec.dtypes import I16, I32, I64, U8
from tokcodec.stream.modes import CELLS, CHROMA, DC, HORIZONTAL, PARTITION, PLANAR, STEP, VERTICAL, chroma_mode, size_of

DIMENSIONS = GRID * GRID * 3 // 2  # levels of a position
CELL = GRID // CELLS  # pixels a side
HALF = GRID // 2  # chroma samples of a position, a side
BASIS_BITS = 12  # fraction of a cosine
GREY = 128

_RIGHT = [32, 26, 21, 17, 13, 9, 5, 2]
ANGLES = np.array(
    [0, 0, *_RIGHT, 0, *[-a for a in _RIGHT[::-1]], *[-a for a in _RIGHT[1:]], 0, *_RIGHT[::-1]], np.int32
)
INVERSES = np.array([round(8192 / a) if a < 0 else 0 for a in ANGLES], np.int32)


def cosines(size: int) -> NDArray[np.float64]:
    """The rows of the orthonormal DCT-II."""
    k = np.arange(size)
    rows: NDArray[np.float64] = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def _scan(size: int) -> I32:
    """Places of a square in the order of its coefficients: diagonals, low frequencies first."""
    places = sorted((i + j, i if (i + j) % 2 else j, i, j) for i in range(size) for j in range(size))
    return np.array([i * size + j for _, _, i, j in places], np.int32)


def _whole_cosines(size: int) -> I64:
    whole: I64 = np.round(cosines(size) * 2**BASIS_BITS).astype(np.int64)
    return whole


# In 1/64: the step of number s is the frame's times 2^((s - 4) / 3).
SCALES = np.array([25, 32, 40, 51, 64, 81, 102, 128, 161], np.int32)
COSINES_4, COSINES_8, COSINES_16 = _whole_cosines(4), _whole_cosines(8), _whole_cosines(16)
SCAN_4, SCAN_8, SCAN_16 = _scan(4), _scan(8), _scan(16)


@njit(cache=True, nogil=True)
def step_of(step16: int, number: int) -> int:
    """The step of a position, of the frame's."""
    return max((step16 * int(SCALES[number]) + 32) >> 6, 1)


@njit(cache=True, nogil=True, inner=True)
def chroma_step_of(step16: int) -> int:
    """The step of chroma, of that of luma: seven eighths."""
    return max(7 * step16 >> 3, 1)


@njit(cache=True, nogil=True, inner=True)
def luma_place(d: int) -> int:
    """The dimension of coefficient d of a position's 256 of luma; two of chroma stand behind every four."""
    return d + 2 * (d // 4)


@njit(cache=True, nogil=True)
def around(plane: I32, done: U8, cell: int, top: int, left: int, size: int, out: I32) -> None:
    """The decoded samples beside a square: up from below left to the corner, then on to above right.

    Args:
        plane: `[H, W]`, what is decoded so far.
        done: of its squares of `cell` pixels, whether they are.
        out: takes 4 * size + 1 samples, the corner is number 2 * size. What is not there is as its neighbour.
    """
    height, width = plane.shape
    corner, last = 2 * size, 4 * size
    first = -1
    for k in range(last + 1):
        y = top + corner - 1 - k if k < corner else top - 1
        x = left - 1 if k <= corner else left + k - corner - 1
        if 0 <= y < height and 0 <= x < width and done[y // cell, x // cell] != 0:
            out[k] = plane[y, x]
            if first < 0:
                first = k
        elif first >= 0:
            out[k] = out[k - 1]
    for k in range(last + 1 if first < 0 else first):
        out[k] = GREY if first < 0 else out[first]


@njit(cache=True, nogil=True)
def smoothed(samples: I32, size: int, out: I32) -> None:
    """Samples of `around`, filtered (1 2 1) / 4."""
    last = 4 * size
    out[0], out[last] = samples[0], samples[last]
    for k in range(1, last):
        out[k] = (samples[k - 1] + 2 * samples[k] + samples[k + 1] + 2) >> 2


@njit(cache=True, nogil=True)
def predict(sharp: I32, smooth: I32, size: int, mode: int, is_luma: bool, out: I32) -> None:
    """Predict a square into `out` `[size, size]` from the samples around it, as they are and smoothed."""
    c = 2 * size
    bits = 2 if size == 4 else (3 if size == 8 else 4)
    turn = min(abs(mode - VERTICAL), abs(mode - HORIZONTAL))
    is_smooth = is_luma and size > 4 and (mode == PLANAR or (mode > DC and turn > (7 if size == 8 else 1)))
    r = smooth if is_smooth else sharp
    if mode == PLANAR:
        for y in range(size):
            for x in range(size):
                across = (size - 1 - x) * r[c - 1 - y] + (x + 1) * r[c + 1 + size]
                down = (size - 1 - y) * r[c + 1 + x] + (y + 1) * r[c - 1 - size]
                out[y, x] = (across + down + size) >> (bits + 1)
        return
    if mode == DC:
        total = size
        for k in range(size):
            total += r[c - 1 - k] + r[c + 1 + k]
        mean = total >> (bits + 1)
        for y in range(size):
            for x in range(size):
                out[y, x] = mean
        if is_luma:
            out[0, 0] = (r[c - 1] + 2 * mean + r[c + 1] + 2) >> 2
            for k in range(1, size):
                out[0, k] = (r[c + 1 + k] + 3 * mean + 2) >> 2
                out[k, 0] = (r[c - 1 - k] + 3 * mean + 2) >> 2
        return
    angle, inverse = ANGLES[mode], INVERSES[mode]
    is_down = mode >= 18
    way = 1 if is_down else -1  # from the corner along the side that is projected
    line = np.empty(3 * GRID + 1, np.int32)  # number `size` is the corner
    for k in range(size + 1):
        line[size + k] = r[c + way * k]
    if angle < 0:
        for k in range(-1, ((size * angle) >> 5) - 1, -1):
            line[size + k] = r[c - way * ((k * inverse + 128) >> 8)]
    else:
        for k in range(size + 1, 2 * size + 1):
            line[size + k] = r[c + way * k]
    for a in range(size):
        whole, part = ((a + 1) * angle) >> 5, ((a + 1) * angle) & 31
        for b in range(size):
            k = size + b + whole + 1
            value = line[k] if part == 0 else ((32 - part) * line[k] + part * line[k + 1] + 16) >> 5
            if is_down:
                out[a, b] = value
            else:
                out[b, a] = value
    if is_luma and angle == 0:  # a step along the edge goes on
        for k in range(size):
            value = min(max(r[c + way] + ((r[c - way * (1 + k)] - r[c]) >> 1), 0), 255)
            if is_down:
                out[k, 0] = value
            else:
                out[0, k] = value


@njit(cache=True, nogil=True, inner=True)
def add(
    levels: I32, step16: int, cosine: I64, scan: I32, prediction: I32, plane: I32, top: int, left: int
) -> None:  # fmt: skip
    """A square: its prediction plus what its levels stand for, rounded and clipped to 8 bits.

    Args:
        levels: of its coefficients, in the order of the scan.
        step16: step in 1/16 level.
        plane, top, left: what takes the square, and where.
    """
    size = cosine.shape[0]
    values = np.zeros((size, size), np.int64)
    is_empty = True
    for k in range(size * size):
        level = np.int64(levels[k])
        if level != 0:
            is_empty = False
            value = abs(level) * step16 - (step16 >> BIAS_SHIFT)
            values[scan[k] // size, scan[k] % size] = value if level > 0 else -value
    if is_empty:
        for i in range(size):
            for j in range(size):
                plane[top + i, left + j] = prediction[i, j]
        return
    half = np.zeros((size, size), np.int64)
    for i in range(size):
        for k in range(size):
            for j in range(size):
                half[i, j] += cosine[k, i] * values[k, j]
    for i in range(size):
        for j in range(size):
            total = np.int64(0)
            for k in range(size):
                total += ((half[i, k] + (1 << (BASIS_BITS - 1))) >> BASIS_BITS) * cosine[k, j]
            whole = (total + (1 << (BASIS_BITS + 3))) >> (BASIS_BITS + 4)
            plane[top + i, left + j] = min(max(prediction[i, j] + whole, 0), 255)


@njit(cache=True, nogil=True)
def _reconstruct(levels: I16, modes: I16, frame_step16: int, luma: I32, chroma: I32) -> None:
    rows, columns = modes.shape[1:]
    done = np.zeros((CELLS * rows, CELLS * columns), np.uint8)
    done_chroma = np.zeros((rows, columns), np.uint8)
    sharp, smooth = np.zeros(4 * GRID + 1, np.int32), np.zeros(4 * GRID + 1, np.int32)
    guess, own = np.zeros((GRID, GRID), np.int32), np.zeros(GRID * GRID, np.int32)
    for i in range(rows):
        for j in range(columns):
            step16 = step_of(frame_step16, modes[STEP, i, j])
            for s in range(4):
                cells = size_of(modes[PARTITION, i, j], s)
                if cells == 4 and s > 0:
                    break
                for t in range(4):
                    if cells > 1 and t > 0:
                        break
                    y, x = 2 * (s >> 1) + (t >> 1), 2 * (s & 1) + (t & 1)
                    size, top, left = CELL * cells, GRID * i + CELL * y, GRID * j + CELL * x
                    if cells == 4:
                        cosine, scan = COSINES_16, SCAN_16
                        for k in range(256):
                            own[k] = levels[luma_place(k), i, j]
                    elif cells == 2:
                        cosine, scan = COSINES_8, SCAN_8
                        for k in range(64):
                            own[k] = levels[luma_place(4 * k + s), i, j]
                    else:
                        cosine, scan = COSINES_4, SCAN_4
                        for k in range(16):
                            own[k] = levels[luma_place(4 * (4 * k + t) + s), i, j]
                    around(luma, done, CELL, top, left, size, sharp)
                    smoothed(sharp, size, smooth)
                    predict(sharp, smooth, size, modes[CELLS * y + x, i, j], True, guess)
                    add(own, step16, cosine, scan, guess, luma, top, left)
                    for a in range(CELLS * i + y, CELLS * i + y + cells):
                        for b in range(CELLS * j + x, CELLS * j + x + cells):
                            done[a, b] = 1
            mode = chroma_mode(modes[CHROMA, i, j], modes[0, i, j])
            top, left = HALF * i, HALF * j
            chroma_step = chroma_step_of(step16)
            for plane in range(2):
                for k in range(64):
                    own[k] = levels[6 * k + 4 + plane, i, j]
                around(chroma[plane], done_chroma, HALF, top, left, HALF, sharp)
                predict(sharp, sharp, HALF, mode, False, guess)
                add(own, chroma_step, COSINES_8, SCAN_8, guess, chroma[plane], top, left)
            done_chroma[i, j] = 1


def reconstruct(levels: I16, modes: I16, step16: int) -> Planes:
    """The frame that levels and modes stand for.

    Args:
        levels: int16 `[384, h, w]`.
        modes: int16 `[19, h, w]`, see `stream.modes`.
        step16: step of the quantizer, in 1/16 of an 8-bit level.
    """
    h, w = modes.shape[1:]
    luma, chroma = np.zeros((GRID * h, GRID * w), np.int32), np.zeros((2, HALF * h, HALF * w), np.int32)
    levels, modes = np.ascontiguousarray(levels), np.ascontiguousarray(modes)  # one form: it is compiled once
    _reconstruct(levels, modes, step16, luma, chroma)
    return Planes(luma[None].astype(np.uint8), chroma[None].astype(np.uint8))
