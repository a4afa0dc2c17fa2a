"""Ghosts: edges that a decoded frame shows where its original has none. Doubled arms and faces, streaks and specks are.

A mean of errors cannot tell them from blur: of two pictures with the same error a viewer forgives the softer one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LUMA = (54, 183, 19)  # BT.709, of 256
REACH = 2  # pixels: an edge that the original has so near is its own, a little moved or widened
EDGE = 20  # Sobel's magnitude of a step of 5 levels: what is fainter is not seen, and grain
BLOCK = 16
PERCENTILE = 99  # of blocks: a ghost is in one place
SIDE = BLOCK + 2  # pixels: the least that has a block

Picture = NDArray[np.uint8]


def ghosts(true: Picture, seen: Picture) -> float | None:
    """Edges that a picture has and its original has not, in percent of the edges of the original.

    Of each pixel what the gradient (Sobel's, of luma) is stronger than the strongest of the original 2 pixels around,
    and 20; its square, mean over blocks of 16x16 pixels, of which the 99th percentile; over the mean square of the
    original's gradient.

    Args:
        true, seen: the original and the picture, uint8 `[H, W, 3]` RGB.

    Returns:
        0 for none; about 0.5 for x265 at a low rate. None if a side is shorter than 18 pixels.
    """
    if min(true.shape[:2]) < SIDE:
        return None
    own = _gradient(true)
    excess = np.maximum(_gradient(seen) - _strongest(own) - EDGE, 0)
    height, width = (side // BLOCK * BLOCK for side in excess.shape)
    blocks = np.square(excess[:height, :width]).reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((1, 3))
    energy = max(float(np.square(own).mean()), float(EDGE**2))  # of a flat original too
    return 100 * float(np.percentile(blocks, PERCENTILE)) / energy


def _gradient(picture: Picture) -> NDArray[np.float32]:
    """Magnitude of Sobel's gradient of luma, without the outermost pixels: float32 `[H - 2, W - 2]`."""
    luma = (np.tensordot(picture.astype(np.float32), np.array(LUMA, np.float32) / 256, 1) + 0.5).astype(np.int16)
    down = luma[:-2] + 2 * luma[1:-1] + luma[2:]
    across = luma[:, :-2] + 2 * luma[:, 1:-1] + luma[:, 2:]
    magnitude: NDArray[np.float32] = np.hypot(
        down[:, 2:] - down[:, :-2], across[2:] - across[:-2], dtype=np.float32, casting="unsafe"
    )
    return magnitude


def _strongest(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest of each value and those around it, up to `REACH` away."""
    for _ in range(2):  # along the columns, then along the rows
        padded = np.pad(values, ((REACH, REACH), (0, 0)), mode="edge")
        strongest = padded[: len(values)].copy()
        for first in range(1, 2 * REACH + 1):
            np.maximum(strongest, padded[first : first + len(values)], out=strongest)
        values = np.ascontiguousarray(strongest.T)
    return values
