"""Modes and levels of the first frame: how an encoder chooses what a decoder follows.

Every square tries all modes by the size of its transformed difference, then codes the best ones in earnest and takes
the least squared error + lambda * bits; so do the sizes of squares among each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.intra import (
    CELL,
    COSINES_4,
    COSINES_8,
    COSINES_16,
    DIMENSIONS,
    HALF,
    SCAN_4,
    SCAN_8,
    SCAN_16,
    add,
    around,
    chroma_step_of,
    cosines,
    luma_place,
    predict,
    smoothed,
    step_of,
)
from tokcodec.coding.planes import GRID, Planes
from tokcodec.coding.quantizer import MAX_LEVEL, level_bits
from tokcodec.compiled import njit
from tokcodec.dtypes import F32, I16, I32, I64, U8
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.modes import (
    CELLS,
    CHROMA,
    CHROMAS,
    DC,
    MODES,
    PARTITION,
    PLAIN_STEP,
    PLANAR,
    ROWS,
    STEP,
    STEPS,
    VERTICAL,
    chroma_mode,
)

RATE = 0.11  # squared steps a bit: of modes and sizes
LEVEL_RATE = 0.12  # of levels
ROUNDING = 0.45  # a coefficient of (m + 1 - ROUNDING) steps may become level m + 1
TRIES = 4  # modes that are coded in earnest
SPLIT_BITS, WHOLE_BITS = 1.2, 0.7
EMPTY_BITS = 1.0
STEP_POWER = 0.22  # the step follows the variance of a square to this power
STEP_OCTAVE = 3  # numbers of steps
QUIET = 16.0  # variances, in squared levels, well below it are as nothing

FORWARD_4, FORWARD_8, FORWARD_16 = (cosines(size).astype(np.float32) for size in (4, 8, 16))


def _bits(size: int) -> F32:
    """About what a zero and a non-zero cost at each place of the scan, `[2, size * size]`."""
    k = np.arange(size * size)
    share = np.clip(0.75 / (1 + k / (0.08 * size * size + 1)) ** 1.2, 0.01, 0.8)
    return np.stack([-np.log2(1 - share), -np.log2(share)]).astype(np.float32)


BITS_4, BITS_8, BITS_16 = _bits(4), _bits(8), _bits(16)


@njit(cache=True, nogil=True, inner=True)
def _mode_bits(mode: int, left: int, up: int) -> float:
    if mode == left:
        return 1.5
    if mode == up:
        return 2.0
    if mode in (PLANAR, DC, VERTICAL) or (left > DC and abs(mode - left) <= 1):
        return 4.0
    return 6.0


@njit(cache=True, nogil=True, inner=True)
def _satd(own: I32, guess: I32, size: int) -> float:
    """Sum of absolute values of the difference after Hadamard transforms of 4x4."""
    t = np.empty((4, 4), np.int32)
    total = 0
    for top in range(0, size, 4):
        for left in range(0, size, 4):
            for i in range(4):
                a = own[top + i, left] - guess[top + i, left]
                b = own[top + i, left + 1] - guess[top + i, left + 1]
                c = own[top + i, left + 2] - guess[top + i, left + 2]
                d = own[top + i, left + 3] - guess[top + i, left + 3]
                t[i, 0], t[i, 1], t[i, 2], t[i, 3] = a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d
            for j in range(4):
                a, b, c, d = t[0, j], t[1, j], t[2, j], t[3, j]
                total += abs(a + b + c + d) + abs(a - b + c - d) + abs(a + b - c - d) + abs(a - b - c + d)
    return total / 4.0


@njit(cache=True, nogil=True, inner=True)
def _transformed(difference: F32, forward: F32) -> F32:
    """The DCT of a square, row by row. In loops: compiled products of matrices need SciPy, which may not be there."""
    size = len(forward)
    half, out = np.zeros((size, size), np.float32), np.zeros(size * size, np.float32)
    for i in range(size):
        for k in range(size):
            for j in range(size):
                half[i, j] += forward[i, k] * difference[k, j]
    for i in range(size):
        for j in range(size):
            for k in range(size):
                out[i * size + j] += half[i, k] * forward[j, k]
    return out


@njit(cache=True, nogil=True, inner=True)
def _code(
    own: I32, guess: I32, size: int, step16: int,
    forward: F32, bits: F32, cosine: I64, scan: I32, levels: I32, shown: I32,
) -> tuple[float, float]:  # fmt: skip
    """Levels of a square, by rate, and what they show; squared error and about the bits."""
    count = size * size
    step = np.float32(step16 / STEP_UNITS)
    difference = np.empty((size, size), np.float32)
    for i in range(size):
        for j in range(size):
            difference[i, j] = own[i, j] - guess[i, j]
    latents = _transformed(difference, forward)
    total, best, last, spent, paid = 0.0, 0.0, -1, 0.0, 0.0
    for k in range(count):
        latent = latents[scan[k]]
        z = abs(latent) / step
        m = min(int(z + ROUNDING), MAX_LEVEL)
        levels[k] = 0
        chosen, cost, price_bits = 0, LEVEL_RATE * bits[0, k], bits[0, k]
        for level in range(max(m - 1, 1), m + 1):
            error = z - level + 0.0625
            needed = level_bits(level, bits[1, k])
            price = error * error - z * z + LEVEL_RATE * needed
            if price < cost:
                chosen, cost, price_bits = level, price, needed
        total += cost
        spent += price_bits
        if chosen > 0:
            levels[k] = chosen if latent > 0 else -chosen
            if total < best:
                best, last, paid = total, k, spent
    for k in range(last + 1, count):
        levels[k] = 0
    needed = EMPTY_BITS if last < 0 else EMPTY_BITS + 2.0 + 0.5 * np.log2(1.0 + last) + paid
    add(levels, step16, cosine, scan, guess, shown, 0, 0)
    error = 0.0
    for i in range(size):
        for j in range(size):
            d = own[i, j] - shown[i, j]
            error += d * d
    return error, needed


@njit(cache=True, nogil=True, inner=True)
def _copy(plane: I32, top: int, left: int, size: int, out: I32) -> None:
    for i in range(size):
        for j in range(size):
            out[i, j] = plane[top + i, left + j]


@njit(cache=True, nogil=True, inner=True)
def _square(
    original: I32, plane: I32, done: U8, modes: I32, top: int, left: int, size: int, step16: int,
    forward: F32, bits: F32, cosine: I64, scan: I32, levels: I32, shown: I32,
) -> tuple[float, int]:  # fmt: skip
    """The best mode of a square of luma: cost and mode; its levels and what they show."""
    sharp, smooth = np.zeros(4 * GRID + 1, np.int32), np.zeros(4 * GRID + 1, np.int32)
    around(plane, done, CELL, top, left, size, sharp)
    smoothed(sharp, size, smooth)
    row, column = top // CELL, left // CELL
    beside = modes[row, column - 1] if column > 0 else DC
    above = modes[row - 1, column] if row > 0 else DC
    own, guess = np.zeros((GRID, GRID), np.int32), np.zeros((GRID, GRID), np.int32)
    trial = np.zeros((GRID, GRID), np.int32)
    _copy(original, top, left, size, own)
    scores = np.empty(MODES)
    rate = RATE * (step16 / STEP_UNITS) ** 2
    for mode in range(MODES):
        predict(sharp, smooth, size, mode, True, guess)
        scores[mode] = _satd(own, guess, size) + 0.6 * math.sqrt(rate) * _mode_bits(mode, beside, above)
    trial_levels = np.zeros(size * size, np.int32)
    best, best_mode = 1e30, 0
    for _ in range(TRIES):
        mode = 0
        for other in range(1, MODES):
            if scores[other] < scores[mode]:
                mode = other
        scores[mode] = 1e30
        predict(sharp, smooth, size, mode, True, guess)
        error, needed = _code(own, guess, size, step16, forward, bits, cosine, scan, trial_levels, trial)
        cost = error + rate * (needed + _mode_bits(mode, beside, above))
        if cost < best:
            best, best_mode = cost, mode
            for k in range(size * size):
                levels[k] = trial_levels[k]
            for i in range(size):
                for j in range(size):
                    shown[i, j] = trial[i, j]
    return best, best_mode


@njit(cache=True, nogil=True, inner=True)
def _put(plane: I32, done: U8, modes: I32, top: int, left: int, size: int, shown: I32, mode: int) -> None:
    for i in range(size):
        for j in range(size):
            plane[top + i, left + j] = shown[i, j]
    row, column, cells = top // CELL, left // CELL, size // CELL
    for i in range(row, row + cells):
        for j in range(column, column + cells):
            done[i, j], modes[i, j] = 1, mode


@njit(cache=True, nogil=True, inner=True)
def _take(done: U8, top: int, left: int, size: int) -> None:
    row, column, cells = top // CELL, left // CELL, size // CELL
    for i in range(row, row + cells):
        for j in range(column, column + cells):
            done[i, j] = 0


@njit(cache=True, nogil=True)
def _encode(y: I32, c: I32, frame_step16: int, luma: I32, chroma: I32, levels: I16, modes: I16) -> None:
    rows, columns = modes.shape[1:]
    done, done_chroma = np.zeros((CELLS * rows, CELLS * columns), np.uint8), np.zeros((rows, columns), np.uint8)
    grid = np.full((CELLS * rows, CELLS * columns), DC, np.int32)
    of_16, of_8, of_4 = np.zeros(256, np.int32), np.zeros(64, np.int32), np.zeros(16, np.int32)
    shown_16, shown_8, shown_4 = (
        np.zeros((16, 16), np.int32), np.zeros((8, 8), np.int32), np.zeros((4, 4), np.int32),
    )  # fmt: skip
    quarters = np.zeros((4, 64), np.int32)
    sharp, own = np.zeros((2, 4 * GRID + 1), np.int32), np.zeros((2, HALF, HALF), np.int32)
    guess, trial, trial_levels = (
        np.zeros((GRID, GRID), np.int32), np.zeros((2, HALF, HALF), np.int32), np.zeros((2, 64), np.int32),
    )  # fmt: skip
    for i in range(rows):
        for j in range(columns):
            top, left = GRID * i, GRID * j
            step16 = step_of(frame_step16, modes[STEP, i, j])
            rate, chroma_step = RATE * (step16 / STEP_UNITS) ** 2, chroma_step_of(step16)
            cost, mode = _square(
                y, luma, done, grid, top, left, 16, step16, FORWARD_16, BITS_16, COSINES_16, SCAN_16, of_16, shown_16
            )
            cost += rate * WHOLE_BITS
            parts, split = rate * SPLIT_BITS, 0
            for s in range(4):
                if parts >= cost:
                    break
                t, l = top + 8 * (s >> 1), left + 8 * (s & 1)  # noqa: E741
                cost_8, mode_8 = _square(
                    y, luma, done, grid, t, l, 8, step16, FORWARD_8, BITS_8, COSINES_8, SCAN_8, of_8, shown_8
                )
                cost_8 += rate * WHOLE_BITS
                parts_8 = rate * SPLIT_BITS
                for u in range(4):
                    if parts_8 >= cost_8:
                        break
                    a, b = t + 4 * (u >> 1), l + 4 * (u & 1)
                    cost_4, mode_4 = _square(
                        y, luma, done, grid, a, b, 4, step16, FORWARD_4, BITS_4, COSINES_4, SCAN_4, of_4, shown_4
                    )
                    parts_8 += cost_4
                    _put(luma, done, grid, a, b, 4, shown_4, mode_4)
                    for k in range(16):
                        quarters[s, 4 * k + u] = of_4[k]
                if parts_8 < cost_8:
                    split |= 1 << s
                    parts += parts_8
                else:
                    _take(done, t, l, 8)
                    _put(luma, done, grid, t, l, 8, shown_8, mode_8)
                    for k in range(64):
                        quarters[s, k] = of_8[k]
                    parts += cost_8
            if parts < cost:
                modes[PARTITION, i, j] = 1 + split
                for s in range(4):
                    for k in range(64):
                        levels[luma_place(4 * k + s), i, j] = quarters[s, k]
            else:
                _take(done, top, left, 16)
                _put(luma, done, grid, top, left, 16, shown_16, mode)
                modes[PARTITION, i, j] = 0
                for k in range(256):
                    levels[luma_place(k), i, j] = of_16[k]
            for a in range(CELLS):
                for b in range(CELLS):
                    modes[CELLS * a + b, i, j] = grid[CELLS * i + a, CELLS * j + b]
            top, left = HALF * i, HALF * j
            for plane in range(2):
                around(chroma[plane], done_chroma, HALF, top, left, HALF, sharp[plane])
                _copy(c[plane], top, left, HALF, own[plane])
            best = 1e30
            for number in range(CHROMAS):
                mode = chroma_mode(number, modes[0, i, j])
                if number > 0 and mode == modes[0, i, j]:
                    continue
                cost = rate * (0.7 if number == 0 else 3.0)
                for plane in range(2):
                    predict(sharp[plane], sharp[plane], HALF, mode, False, guess)
                    error, needed = _code(
                        own[plane], guess, HALF, chroma_step, FORWARD_8, BITS_8, COSINES_8, SCAN_8,
                        trial_levels[plane], trial[plane],
                    )  # fmt: skip
                    cost += error + rate * needed
                if cost < best:
                    best = cost
                    modes[CHROMA, i, j] = number
                    for plane in range(2):
                        for a in range(HALF):
                            for b in range(HALF):
                                chroma[plane, top + a, left + b] = trial[plane, a, b]
                        for k in range(64):
                            levels[6 * k + 4 + plane, i, j] = trial_levels[plane, k]
            done_chroma[i, j] = 1


def steps_of(luma: U8, finer: NDArray[np.float32] | None = None) -> I16:
    """The numbers of the steps of squares, by what errors show in them and by what later frames inherit of them.

    Where little happens errors show, as x264's adaptive quantization has it, and finer steps there cost few bits.

    Args:
        luma: uint8 `[H, W]`.
        finer: float32 `[h, w]`, eighths of an octave by which steps should be below the frame's; None: 0.

    Returns:
        int16 `[h, w]`.
    """
    height, width = luma.shape
    h, w = height // GRID, width // GRID
    deviation = luma.reshape(2 * h, HALF, 2 * w, HALF).std((1, 3), dtype=np.float64).reshape(h, 2, w, 2).mean((1, 3))
    energy = np.log2(deviation**2 + QUIET)
    wanted = STEP_POWER * (energy - energy.mean()) - (0 if finer is None else finer / 8)
    wanted = np.pad(wanted, ((0, h % 2), (0, w % 2)), mode="edge")
    wanted = STEP_OCTAVE * wanted.reshape(-(-h // 2), 2, -(-w // 2), 2).mean((1, 3))
    numbers = (PLAIN_STEP + np.rint(wanted)).clip(0, STEPS - 1).astype(np.int16)
    steps: I16 = numbers.repeat(2, 0).repeat(2, 1)[:h, :w]
    return steps


def encode(original: Planes, step16: int, finer: NDArray[np.float32] | None = None) -> tuple[I16, I16, Planes]:
    """Code a first frame.

    Args:
        original: planes of one frame.
        step16: step of the quantizer, in 1/16 of an 8-bit level.
        finer: as for `steps_of`.

    Returns:
        Levels int16 `[384, h, w]`, modes int16 `[19, h, w]`, and what `reconstruct` makes of them.
    """
    height, width = original.y.shape[1:]
    h, w = height // GRID, width // GRID
    luma, chroma = np.zeros((height, width), np.int32), np.zeros((2, height // 2, width // 2), np.int32)
    levels, modes = np.zeros((DIMENSIONS, h, w), np.int16), np.zeros((ROWS, h, w), np.int16)
    modes[STEP] = steps_of(original.y[0], finer)
    _encode(original.y[0].astype(np.int32), original.c[0].astype(np.int32), step16, luma, chroma, levels, modes)
    return levels, modes, Planes(luma[None].astype(np.uint8), chroma[None].astype(np.uint8))
