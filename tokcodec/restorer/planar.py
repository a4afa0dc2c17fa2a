"""Planes to a network's input, and its output to pictures, on a CPU: one pass over the samples each, without torch."""

from __future__ import annotations

import numpy as np

from tokcodec.coding.planes import KB, KG, KR, chroma_at
from tokcodec.compiled import njit
from tokcodec.dtypes import F32, U8


@njit(cache=True, nogil=True)
def put_squares(y: U8, c: U8, side: int, out: F32, first: int) -> None:
    """Squares of samples as channels, as `network.unshuffle` and `Restorer.scaled` make them.

    Args:
        y: `[H, W]`.
        c: `[2, H/2, W/2]`.
        side: of a square, in samples of luma.
        out: `[H/side, W/side, channels]`, written from channel `first` on: side² of luma, then of Cb and of Cr.
        first: that channel.
    """
    half = side // 2
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            at = first
            for dy in range(side):
                for dx in range(side):
                    out[row, column, at] = (np.float32(y[row * side + dy, column * side + dx]) - np.float32(128)) / (
                        np.float32(128)
                    )
                    at += 1
            for plane in range(2):
                for dy in range(half):
                    for dx in range(half):
                        sample = np.float32(c[plane, row * half + dy, column * half + dx])
                        out[row, column, at] = (sample - np.float32(128)) / np.float32(128)
                        at += 1


@njit(cache=True, nogil=True)
def put_picture(y: U8, c: U8, correction: F32, out: U8) -> None:
    """The base in RGB plus a correction, as levels; as `network.to_rgb`, the sum and `pixels.to_levels` make it.

    Args:
        y: `[H, W]`.
        c: `[2, H/2, W/2]`.
        correction: `[H/4, W/4, 48]`, RGB of 4x4 pixels as 3x4x4, in units of 127.5 levels.
        out: `[height, width, 3]`, written; at most as large as y.
    """
    height, width = out.shape[:2]
    for row in range(height):
        for column in range(width):
            cb = np.float32(chroma_at(c[0], row, column)) / np.float32(16) - np.float32(128)
            cr = np.float32(chroma_at(c[1], row, column)) / np.float32(16) - np.float32(128)
            luma = np.float32(y[row, column])
            red = luma + np.float32(2 * (1 - KR)) * cr
            green = luma - np.float32(2 * (1 - KR) * KR / KG) * cr - np.float32(2 * (1 - KB) * KB / KG) * cb
            blue = luma + np.float32(2 * (1 - KB)) * cb
            at = 4 * (row & 3) + (column & 3)
            block = correction[row >> 2, column >> 2]
            half, scale, most = np.float32(0.5), np.float32(127.5), np.float32(255)
            red += scale * block[at] + half
            green += scale * block[16 + at] + half
            blue += scale * block[32 + at] + half
            out[row, column, 0] = np.uint8(min(max(red, np.float32(0)), most))
            out[row, column, 1] = np.uint8(min(max(green, np.float32(0)), most))
            out[row, column, 2] = np.uint8(min(max(blue, np.float32(0)), most))
