"""The planes a clip is coded as: 4:2:0 in full-range BT.709, padded to the grid.

RGB in, RGB out, whatever the source was: the planes are the codec's own. Most sources are 4:2:0 already.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.compiled import njit
from tokcodec.dtypes import U8

CELL = 4  # samples a side
GRID = 16  # pixels a position of the token grid, and what planes are padded to
GROUP = 4  # frames that the network restores at once; a chunk's first frame is a group of its own
KR, KB = 0.2126, 0.0722  # of BT.709
KG = 1 - KR - KB


class Planes(NamedTuple):
    """Frames as luma and chroma.

    Attributes:
        y: uint8 `[T, H, W]`, H and W multiples of 16.
        c: uint8 `[T, 2, H / 2, W / 2]`, Cb and Cr, 128 is neutral, a sample in the middle of four pixels.
    """

    y: U8
    c: U8

    def part(self, frames: slice) -> Planes:
        return Planes(self.y[frames], self.c[frames])


def cell_means(planes: Planes) -> NDArray[np.float32]:
    """Means of the last frame's 4x4 samples by positions, float32 `[24, h, w]`: 16 of Y, 4 of Cb, 4 of Cr."""
    h, w = (size // GRID for size in planes.y.shape[1:])
    parts = []
    for plane in (planes.y[-1], *planes.c[-1]):
        n = plane.shape[0] // h // CELL
        means = plane.reshape(h, n, CELL, w, n, CELL).mean((2, 5), dtype=np.float32)
        parts.append(means.transpose(1, 3, 0, 2).reshape(n * n, h, w))
    return np.concatenate(parts)


def padded(size: int) -> int:
    """The next multiple of the grid."""
    return -(-size // GRID) * GRID


def blank(count: int, height: int, width: int) -> Planes:
    """Planes for frames of a size; what is in them is random."""
    y = np.empty((count, padded(height), padded(width)), np.uint8)
    return Planes(y, np.empty((count, 2, y.shape[1] // 2, y.shape[2] // 2), np.uint8))


def put_rgb(frames: U8, planes: Planes) -> None:
    """Write uint8 `[T, H, W, 3]` into planes of T frames; the last row and column are repeated up to the grid."""
    _from_rgb(np.ascontiguousarray(frames), planes.y, planes.c)


def from_rgb(frames: U8 | Planes) -> Planes:
    """uint8 `[T, H, W, 3]` to planes; planes stay what they are."""
    if isinstance(frames, Planes):
        return frames
    planes = blank(*frames.shape[:3])
    put_rgb(frames, planes)
    return planes


def to_rgb(planes: Planes, height: int, width: int) -> U8:
    """Planes to uint8 `[T, height, width, 3]`: chroma upsampled bilinearly, padding cut off."""
    out = np.empty((len(planes.y), height, width, 3), np.uint8)
    _to_rgb(planes.y, planes.c, out)
    return out


@njit(cache=True, nogil=True)
def _from_rgb(frames: U8, y: U8, c: U8) -> None:
    t, height, width = frames.shape[:3]
    for i in range(t):
        for row in range(0, y.shape[1], 2):
            for column in range(0, y.shape[2], 2):
                r = g = b = 0
                for dy in range(2):
                    for dx in range(2):
                        pixel = frames[i, min(row + dy, height - 1), min(column + dx, width - 1)]
                        y[i, row + dy, column + dx] = np.uint8(KR * pixel[0] + KG * pixel[1] + KB * pixel[2] + 0.5)
                        r += pixel[0]
                        g += pixel[1]
                        b += pixel[2]
                luma = KR * r + KG * g + KB * b
                cb = 128.5 + (b - luma) / (8 * (1 - KB))
                cr = 128.5 + (r - luma) / (8 * (1 - KR))
                c[i, 0, row // 2, column // 2] = np.uint8(min(255.0, cb))
                c[i, 1, row // 2, column // 2] = np.uint8(min(255.0, cr))


@njit(cache=True, nogil=True, inner=True)
def chroma_at(plane: U8, row: int, column: int) -> int:
    """A sample of chroma, `[H/2, W/2]`, at a pixel of luma: bilinear, in sixteenths of a level."""
    near_row, near = row >> 1, column >> 1
    far_row = min(max(near_row + 2 * (row & 1) - 1, 0), plane.shape[0] - 1)
    far = min(max(near + 2 * (column & 1) - 1, 0), plane.shape[1] - 1)
    top = 3 * int(plane[near_row, near]) + int(plane[near_row, far])
    bottom = 3 * int(plane[far_row, near]) + int(plane[far_row, far])
    return 3 * top + bottom


@njit(cache=True, nogil=True)
def _to_rgb(y: U8, c: U8, out: U8) -> None:
    t, height, width = out.shape[:3]
    for i in range(t):
        for row in range(height):
            for column in range(width):
                luma = float(y[i, row, column])
                cb = chroma_at(c[i, 0], row, column) / 16 - 128
                cr = chroma_at(c[i, 1], row, column) / 16 - 128
                red = luma + 2 * (1 - KR) * cr
                blue = luma + 2 * (1 - KB) * cb
                green = luma - 2 * (1 - KR) * KR / KG * cr - 2 * (1 - KB) * KB / KG * cb
                out[i, row, column, 0] = np.uint8(min(max(red + 0.5, 0), 255))
                out[i, row, column, 1] = np.uint8(min(max(green + 0.5, 0), 255))
                out[i, row, column, 2] = np.uint8(min(max(blue + 0.5, 0), 255))
