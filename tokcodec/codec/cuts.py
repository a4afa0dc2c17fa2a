"""Where scenes change: a chunk that ends there spares the next scene the memory of the last one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELLS = 16  # cells on the shorter side, compared by their means: motion moves little between them
SAMPLES = 4  # pixels a cell, along each side
LEAST = 10.0  # mean difference, of 255 levels; still shots have 1 to 4, handheld ones up to 13
CUT_MARGIN = 2  # frames on both sides of a cut that must be known
PEAK = 2.0  # times the difference before and after: motion is like its neighbours in time, a flash comes in twos


def cuts(frames: NDArray[np.uint8]) -> list[int]:
    """The first frames of new scenes.

    Args:
        frames: uint8 `[T, H, W, 3]`, consecutive.

    Returns:
        Indexes from 2 to T - 2, ascending: a change at the first or last frame may be a flash, of which the other
        half is not among these frames. It depends on these frames alone.
    """
    step = max(1, min(frames.shape[1:3]) // (CELLS * SAMPLES))
    points = frames[:, step // 2 :: step, step // 2 :: step]
    height, width = (size // SAMPLES for size in points.shape[1:3])
    if len(frames) < 2 or not height or not width:
        return []
    points = points[:, : height * SAMPLES, : width * SAMPLES]
    cells = points.reshape(-1, height, SAMPLES, width, SAMPLES, 3).mean(axis=(2, 4))
    change = np.abs(np.diff(cells, axis=0)).mean(axis=(1, 2, 3))
    around = np.pad(change, 1, constant_values=np.inf)  # at the edges no change is a peak
    peak = change > PEAK * np.maximum(around[:-2], around[2:])
    return [int(i) + 1 for i in np.flatnonzero(peak & (change > LEAST))]
