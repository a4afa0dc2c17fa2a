"""The motion search, in addition to what test_coding_loop.py says of its fields."""

from __future__ import annotations

import numpy as np
import pytest

from tokcodec.coding.motion import BORDER, reference
from tokcodec.coding.motion_search import CHROMA_WEIGHT, distance_of
from tokcodec.coding.planes import Planes
from tokcodec.stream.fields import BOTH, FIRST, SECOND


def noise(seed: int, height: int = 80, width: int = 112) -> Planes:
    rng = np.random.default_rng(seed)
    return Planes(
        rng.integers(0, 256, (1, height, width)).astype(np.uint8),
        rng.integers(0, 256, (1, 2, height // 2, width // 2)).astype(np.uint8),
    )


def seen(plane: np.ndarray, top: int, left: int, border: int, rows: int, columns: int) -> np.ndarray:
    row = min(max(top + border, 0), plane.shape[0] - rows)
    column = min(max(left + border, 0), plane.shape[1] - columns)
    return plane[row : row + rows, column : column + columns].astype(np.int64)


@pytest.mark.parametrize("kind", [FIRST, SECOND, BOTH])
@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_the_error_of_a_block_is_that_of_numpy(size: int, kind: int) -> None:
    now = noise(0)
    references, scales = [reference(noise(1)), reference(noise(2))], (16, -12)
    rng = np.random.default_rng(3)
    args = now.y[0], now.c[0], *references[0], *references[1], scales[1]
    for _ in range(60):
        top, left = size * rng.integers(-(-80 // size)), size * rng.integers(-(-112 // size))
        vector = rng.integers(-600, 600, 2)
        rows, columns = min(size, 80 - top), min(size, 112 - left)
        luma, chroma = [], []
        for r, scale in zip(references, scales, strict=True):
            y, x = ((v * scale + 8) >> 4 for v in vector)
            luma.append(seen(r.luma[4 * (y & 3) + (x & 3)], top + (y >> 2), left + (x >> 2), BORDER, rows, columns))
            at = top // 2 + ((y + 4) >> 3), left // 2 + ((x + 4) >> 3)
            chroma.append(np.stack([seen(p, *at, BORDER // 2, rows // 2, columns // 2) for p in r.chroma]))
        total = 0
        for own, weight, both in ((now.y[0], 1, luma), (now.c[0], CHROMA_WEIGHT, chroma)):
            part = 2 if own.ndim == 3 else 1
            block = own[..., top // part : (top + rows) // part, left // part : (left + columns) // part]
            guess = (both[0] + both[1] + 1) >> 1 if kind == BOTH else both[kind == SECOND]
            total += weight * np.square(block - guess).sum()
        assert distance_of(*args, top, left, size, *vector, kind, 2**40) == total
        assert distance_of(*args, top, left, size, *vector, kind, total // 3) > total // 3
