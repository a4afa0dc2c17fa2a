"""Lookup-free quantization: every latent dimension by itself, in uniform steps with a dead zone.

Each threshold that a latent is compared with is one lookup-free bit (Yu et al. 2024, MAGVIT-v2). Which levels an
encoder chooses is its own affair: here those with the least squared error + lambda * bits.
"""

from __future__ import annotations

import numpy as np

from tokcodec.compiled import njit
from tokcodec.dtypes import F32, I16, I64

ROUNDING = 0.40  # a latent of (m + 1 - ROUNDING) steps may become level m + 1
LEVEL_RATE = 0.16  # squared steps a bit
MAX_LEVEL = 32767  # what a stream holds
BIAS_SHIFT = 4  # a level is rebuilt 1/16 of a step nearer to zero


@njit(cache=True, nogil=True)
def _round(latents: F32, step: float, rounding: float, out: I16) -> None:
    for i in range(latents.shape[0]):
        for d in range(latents.shape[1]):
            m = min(int(abs(latents[i, d]) / step + rounding), MAX_LEVEL)
            out[i, d] = m if latents[i, d] > 0 else -m


@njit(cache=True, nogil=True, inner=True)
def level_bits(level: int, some: float) -> float:
    """About what a level from 1 costs, its sign included, where being no zero costs `some` bits."""
    return some + 1.0 + (1.2 * level - 0.8 if level < 4 else 3.2 + 2 * np.log2(level / 4.0))


@njit(cache=True, nogil=True)
def _choose(latents: F32, step: float, rate: float, zero: F32, some: F32, flag: float, empty: float, out: I16) -> None:
    """Levels of least cost; `zero` and `some` are the bits of a zero and of a non-zero of each dimension."""
    positions, dimensions = latents.shape
    for i in range(positions):
        total = flag * rate  # cost of the block so far, relative to all of it zero
        best, last = empty * rate, -1
        for d in range(dimensions):
            z = abs(latents[i, d]) / step
            m = abs(int(out[i, d]))
            if m > 0:
                chosen, cost = 0, rate * zero[d]
                low = m - 1 if m > 1 else 1
                for level in range(low, m + 1):
                    error = z - level + (0.0625 if level else 0.0)
                    price = error * error - z * z + rate * level_bits(level, some[d])
                    if price < cost:
                        chosen, cost = level, price
                total += cost
                out[i, d] = chosen if latents[i, d] > 0 else -chosen
                if chosen and total < best:
                    best, last = total, d
            else:
                total += rate * zero[d]
        for d in range(last + 1, dimensions):
            out[i, d] = 0


def choose(latents: F32, step: float) -> I16:
    """Levels of latents.

    Args:
        latents: float32 `[h, w, D]`, in 8-bit levels.
        step: in 8-bit levels.

    Returns:
        int16 `[h, w, D]`.
    """
    h, w, dimensions = latents.shape
    flat = np.ascontiguousarray(latents.reshape(h * w, dimensions))
    out = np.zeros(flat.shape, np.int16)
    _round(flat, step, ROUNDING, out)
    for _ in range(2):  # the bits that the first choice costs on average decide the second
        used = out != 0
        coded = used.any(1)
        blocks = int(coded.sum())
        if not blocks:
            break
        share = (used[coded].sum(0) + 0.4) / (blocks + 0.8)
        share = np.convolve(np.pad(share, 2, mode="edge"), np.full(5, 0.2), "valid")
        part = (blocks + 0.5) / (len(flat) + 1)
        _choose(
            flat, step, LEVEL_RATE, -np.log2(1 - share).astype(np.float32), -np.log2(share).astype(np.float32),
            float(-np.log2(part)) + 3.0, float(-np.log2(1 - part)), out,
        )  # fmt: skip
    return out.reshape(h, w, dimensions)


@njit(cache=True, nogil=True)
def _dequantize(levels: I16, step16: int, out: I64) -> None:
    bias = step16 >> BIAS_SHIFT
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for d in range(out.shape[2]):
                level = np.int64(levels[i, j, d])
                out[i, j, d] = level * step16 - (level > 0) * bias + (level < 0) * bias


def dequantize(levels: I16, step16: int) -> I64:
    """Values in 2^-4 of an 8-bit level, int64 `[h, w, D]`, of levels alike and a step in 1/16 of an 8-bit level."""
    out = np.empty(levels.shape, np.int64)
    _dequantize(np.ascontiguousarray(levels), step16, out)
    return out
