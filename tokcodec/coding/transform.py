"""The transform of a residual: lapped blocks, then a KLT that was learned from video.

Blocks of 16x16 luma and twice 8x8 chroma overlap: before the KLT the pixels on both sides of every border are folded
into each other (the orthogonal folding of local cosine bases, Coifman and Meyer 1991; Malvar's modulated lapped
transform), so that a coded block fades into its neighbours. The KLT is then an orthonormal basis of the folded
blocks. The way back is in integers and the same on every machine: products of integers stay below 2^53, where
float64 matrix products are exact in any order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.planes import GRID, Planes
from tokcodec.compiled import njit
from tokcodec.dtypes import F32, F64, I16, I32, I64, U8

SIZE = GRID * GRID * 3 // 2  # numbers a block of one frame has
BASIS_BITS = 14  # fraction of a basis vector's numbers
MAX_RESIDUAL = 32000  # of a folded block, in 2^-4 of a level
PIXEL_BITS = 4  # fraction of a reconstructed residual


def _folding(reach: int) -> I32:
    """Cosine and sine, in 2^-14, of the rotation of pixels d + 1/2 left and right of a border, `[reach, 2]`."""
    angles = []
    for d in range(reach):
        t = math.sin(math.pi / 4 * (1 + (d + 0.5) / reach))
        angles.append(math.pi / 2 * t * t)  # from pi/4 at the border to pi/2 far from it
    return np.array([[round(2**14 * math.sin(a)), round(2**14 * math.cos(a))] for a in angles], np.int32)


LUMA_FOLDING, CHROMA_FOLDING = _folding(GRID // 2), _folding(GRID // 4)


@njit(cache=True, nogil=True)
def _fold(plane: F32, size: int, folding: I32) -> None:
    """Fold the borders between blocks, in place: first the columns, then the rows."""
    height, width = plane.shape
    reach = folding.shape[0]
    for border in range(size, width, size):
        for d in range(reach):
            c, s = folding[d, 0] / np.float32(16384), folding[d, 1] / np.float32(16384)
            for i in range(height):
                a, b = plane[i, border - 1 - d], plane[i, border + d]
                plane[i, border - 1 - d] = c * a + s * b
                plane[i, border + d] = c * b - s * a
    for border in range(size, height, size):
        for d in range(reach):
            c, s = folding[d, 0] / np.float32(16384), folding[d, 1] / np.float32(16384)
            for j in range(width):
                a, b = plane[border - 1 - d, j], plane[border + d, j]
                plane[border - 1 - d, j] = c * a + s * b
                plane[border + d, j] = c * b - s * a


@njit(cache=True, nogil=True)
def _unfold(plane: I32, size: int, folding: I32) -> None:
    """The way back, in integers."""
    height, width = plane.shape
    reach = folding.shape[0]
    half = np.int32(8192)
    for border in range(size, height, size):
        for d in range(reach):
            c, s = folding[d, 0], folding[d, 1]
            for j in range(width):
                a, b = plane[border - 1 - d, j], plane[border + d, j]
                plane[border - 1 - d, j] = np.int32(np.int32(c * a) - np.int32(s * b) + half) >> 14
                plane[border + d, j] = np.int32(np.int32(s * a) + np.int32(c * b) + half) >> 14
    for border in range(size, width, size):
        for d in range(reach):
            c, s = folding[d, 0], folding[d, 1]
            for i in range(height):
                a, b = plane[i, border - 1 - d], plane[i, border + d]
                plane[i, border - 1 - d] = np.int32(np.int32(c * a) - np.int32(s * b) + half) >> 14
                plane[i, border + d] = np.int32(np.int32(s * a) + np.int32(c * b) + half) >> 14


def _gather(y: NDArray[Any], c: NDArray[Any]) -> NDArray[Any]:
    """Planes of one frame to `[h, w, SIZE]`: 256 luma, 64 Cb, 64 Cr."""
    h, w, half = y.shape[0] // GRID, y.shape[1] // GRID, GRID // 2
    luma = y.reshape(h, GRID, w, GRID).transpose(0, 2, 1, 3).reshape(h, w, -1)
    chroma = c.reshape(2, h, half, w, half).transpose(1, 3, 0, 2, 4).reshape(h, w, -1)
    return np.concatenate([luma, chroma], -1)


@njit(cache=True, nogil=True)
def _residual(values: I64, back: F64, y: I32, c: I32) -> None:
    """Folded blocks of one frame, in 2^-4 of a level, into planes; where a position is all zero they stay as they are.

    Sums of products of integers below 2^53: float64 has them exactly, in any order.
    """
    block = np.empty(SIZE, np.float64)
    half = GRID // 2
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            is_empty = True
            for d in range(values.shape[2]):
                value = values[i, j, d]
                if value != 0:
                    if is_empty:
                        block[:] = 0
                        is_empty = False
                    for k in range(SIZE):
                        block[k] += value * back[d, k]
            if is_empty:
                continue
            for k in range(SIZE):
                block[k] = min(max(np.floor(block[k] * 2.0**-BASIS_BITS + 0.5), -MAX_RESIDUAL), MAX_RESIDUAL)
            for a in range(GRID):
                for b in range(GRID):
                    y[GRID * i + a, GRID * j + b] = int(block[GRID * a + b])
            for k in range(2):
                for a in range(half):
                    for b in range(half):
                        place = GRID * GRID + half * (half * k + a) + b
                        c[k, half * i + a, half * j + b] = int(block[place])


@njit(cache=True, nogil=True)
def _add(prediction: U8, residual: I32, out: U8) -> None:
    half = np.int32(1 << (PIXEL_BITS - 1))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = np.int32(prediction[i, j]) + ((residual[i, j] + half) >> PIXEL_BITS)
            out[i, j] = np.uint8(min(max(total, np.int32(0)), np.int32(255)))


def blocks_of(original: Planes, prediction: Planes) -> F32:
    """Folded residual, float32 `[h, w, SIZE]`, in 8-bit levels.

    Args:
        original, prediction: planes of one frame.
    """
    y = original.y[0].astype(np.float32) - prediction.y[0]
    c = original.c[0].astype(np.float32) - prediction.c[0]
    _fold(y, GRID, LUMA_FOLDING)
    for k in range(2):
        _fold(c[k], GRID // 2, CHROMA_FOLDING)
    return _gather(y, c)


class Basis:
    """A KLT: `D` basis vectors.

    Args:
        vectors: int16 `[SIZE, D]`, in 2^-14; columns are orthonormal up to the chroma's weight.
        chroma_weight: what chroma is multiplied by before the transform.
    """

    def __init__(self, vectors: I16, chroma_weight: float) -> None:
        self.dimensions = vectors.shape[1]
        weight = np.ones((SIZE, 1))
        weight[GRID * GRID :] = chroma_weight
        self._forward = np.ascontiguousarray(vectors / 2.0**BASIS_BITS * weight, np.float32)
        self._back = np.ascontiguousarray(np.round(vectors / weight).T, np.float64)

    def latents(self, blocks: F32) -> F32:
        """float32 `[h, w, D]`: the latents of folded residuals, in 8-bit levels."""
        h, w, size = blocks.shape
        out: F32 = (blocks.reshape(-1, size) @ self._forward).reshape(h, w, -1)
        return out

    def add(self, prediction: Planes, values: I64) -> Planes:
        """Prediction plus the residual that the values stand for.

        Args:
            prediction: planes of one frame.
            values: int64 `[h, w, n]`, dequantized levels of the first n of D dimensions in 2^-4 of an 8-bit level.
        """
        if not values.any():
            return prediction
        y, c = np.zeros(prediction.y.shape[1:], np.int32), np.zeros(prediction.c.shape[1:], np.int32)
        _residual(values, self._back, y, c)
        made = Planes(np.empty_like(prediction.y), np.empty_like(prediction.c))
        _unfold(y, GRID, LUMA_FOLDING)
        _add(prediction.y[0], y, made.y[0])
        for k in range(2):
            _unfold(c[k], GRID // 2, CHROMA_FOLDING)
            _add(prediction.c[0, k], c[k], made.c[0, k])
        return made
