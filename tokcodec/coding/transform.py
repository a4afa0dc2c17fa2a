"""The transform of an innovation: lapped blocks, then a KLT that was learned from video.

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

SIZE = GRID * GRID * 3 // 2  # numbers a block of one frame has
BASIS_BITS = 14  # fraction of a basis vector's numbers
PIXEL_BITS = 4  # fraction of a reconstructed innovation
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I16 = NDArray[np.int16]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


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
    """Planes of t frames to `[h, w, t * SIZE]`: each frame's 256 luma, 64 Cb, 64 Cr."""
    t, height, width = y.shape
    h, w = height // GRID, width // GRID
    luma = y.reshape(t, h, GRID, w, GRID).transpose(1, 3, 0, 2, 4).reshape(h, w, t, -1)
    half = GRID // 2
    chroma = c.reshape(t, 2, h, half, w, half).transpose(2, 4, 0, 1, 3, 5).reshape(h, w, t, -1)
    return np.concatenate([luma, chroma], -1).reshape(h, w, -1)


def _scatter(blocks: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The inverse of `_gather`."""
    h, w, size = blocks.shape
    t, half = size // SIZE, GRID // 2
    parts = blocks.reshape(h, w, t, SIZE)
    y = parts[..., : GRID * GRID].reshape(h, w, t, GRID, GRID).transpose(2, 0, 3, 1, 4)
    c = parts[..., GRID * GRID :].reshape(h, w, t, 2, half, half).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(t, h * GRID, w * GRID).copy(), c.reshape(t, 2, h * half, w * half).copy()


def blocks_of(original: Planes, prediction: Planes) -> F32:
    """Folded innovation, float32 `[h, w, t * SIZE]`, in 8-bit levels.

    Args:
        original, prediction: planes of t frames.
    """
    y = original.y.astype(np.float32) - prediction.y
    c = original.c.astype(np.float32) - prediction.c
    for i in range(len(y)):
        _fold(y[i], GRID, LUMA_FOLDING)
        for k in range(2):
            _fold(c[i, k], GRID // 2, CHROMA_FOLDING)
    return _gather(y, c)


class Basis:
    """A KLT: `D` basis vectors of t frames.

    Args:
        vectors: int16 `[t * SIZE, D]`, in 2^-14; columns are orthonormal up to the chroma's weight.
    """

    def __init__(self, vectors: I16, chroma_weight: float) -> None:
        self.frames, self.dimensions = vectors.shape[0] // SIZE, vectors.shape[1]
        scale = np.ones((self.frames, SIZE))
        scale[:, GRID * GRID :] = chroma_weight
        weight = scale.reshape(-1, 1)
        exact = vectors / 2.0**BASIS_BITS
        self._forward = np.ascontiguousarray(exact * weight, np.float32)
        self._back = np.ascontiguousarray(np.round(vectors / weight).T, np.float64)

    def latents(self, blocks: F32) -> F32:
        """float32 `[h, w, D]`: the latents of folded innovations, in 8-bit levels."""
        h, w, size = blocks.shape
        out: F32 = (blocks.reshape(-1, size) @ self._forward).reshape(h, w, -1)
        return out

    def add(self, prediction: Planes, values: I64) -> Planes:
        """Prediction plus the innovation that the values stand for.

        Args:
            prediction: planes of t frames.
            values: int64 `[h, w, D]`, dequantized levels in 2^-4 of an 8-bit level.
        """
        h, w, _ = values.shape
        used = np.flatnonzero(values.any(-1).ravel())
        if not len(used):
            return prediction
        blocks = np.zeros((h * w, self.frames * SIZE), np.int32)
        product = values.reshape(h * w, -1)[used].astype(np.float64) @ self._back
        blocks[used] = np.floor(product * 2.0**-BASIS_BITS + 0.5).clip(-32000, 32000).astype(np.int32)
        y, c = _scatter(blocks.reshape(h, w, -1))
        for i in range(len(y)):
            _unfold(y[i], GRID, LUMA_FOLDING)
            for k in range(2):
                _unfold(c[i, k], GRID // 2, CHROMA_FOLDING)
        return Planes(_added(prediction.y, y), _added(prediction.c, c))


def _added(prediction: NDArray[np.uint8], innovation: I32) -> NDArray[np.uint8]:
    half = 1 << (PIXEL_BITS - 1)
    total: NDArray[np.uint8] = (prediction + ((innovation + half) >> PIXEL_BITS)).clip(0, 255).astype(np.uint8)
    return total
