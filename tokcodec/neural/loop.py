"""PROVISIONAL: a toy closed loop (no motion, means of 4x4 pixels); the real one replaces this file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.neural.planes import GRID, Planes, from_rgb
from tokcodec.neural.transform import Basis
from tokcodec.stream.entropy import Tokens

GROUP = 4
U8 = NDArray[np.uint8]


class Coding(NamedTuple):
    """A chunk as the encoder left it: its tokens, and what a decoder will have, planes of F frames each."""

    tokens: Tokens
    base: Planes
    prediction: Planes


def _joined(parts: list[Planes]) -> Planes:
    return Planes(np.concatenate([p.y for p in parts]), np.concatenate([p.c for p in parts]))


class Loop:
    """The coding loop with the tables of some weights; ModelError where one is missing."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        if missing := {"klt.intra", "klt.key", "klt.between", "klt.chroma"} - set(arrays):
            raise ModelError(f"these weights hold no {min(missing)}")
        weight = float(arrays["klt.chroma"])
        self.intra, self.key, self.between = (Basis(arrays[f"klt.{n}"], weight) for n in ("intra", "key", "between"))

    def encode(self, frames: U8, step: float) -> Coding:
        """uint8 `[F, H, W, 3]`; step in levels, a multiple of 1/16."""
        planes = from_rgb(frames)
        count, rows, columns = planes.y.shape
        h, w = rows // GRID, columns // GRID
        groups = [planes[:1], *(planes[i : i + GROUP] for i in range(1, count, GROUP))]
        levels, bases, predictions = [], [], []
        reference: Planes | None = None
        for group in groups:
            size = len(group.y)
            prediction = _predicted(reference, size, rows, columns)
            y = (group.y.astype(np.float64) - prediction.y).mean(0)
            c = (group.c.astype(np.float64) - prediction.c).mean(0)
            cells = y.reshape(h, 4, 4, w, 4, 4).mean((2, 5)).transpose(1, 3, 0, 2).reshape(16, h, w)
            chroma = c.reshape(2, h, 2, 4, w, 2, 4).mean((3, 6)).transpose(0, 2, 4, 1, 3).reshape(8, h, w)
            q = np.trunc(np.concatenate([cells, chroma]) / step + 0.33 * np.sign(np.concatenate([cells, chroma])))
            levels.append(q.astype(np.int16))
            base = _added(prediction, levels[-1], step)
            bases.append(base)
            predictions.append(prediction)
            reference = base[-1:]
        motion = np.zeros((GROUP * (len(groups) - 1), 5, 2 * h, 2 * w), np.int16)
        motion[:, 3] = _depths(2 * h, 2 * w)
        return Coding(Tokens(np.stack(levels, 1), motion), _joined(bases), _joined(predictions))

    def decode(self, tokens: Tokens, step: float, frames: int) -> Iterator[tuple[Planes, Planes]]:
        """Base and prediction of each group."""
        reference: Planes | None = None
        rows, columns = (GRID * size for size in tokens.levels.shape[2:])
        for i in range(tokens.levels.shape[1]):
            size = 1 if i == 0 else min(GROUP, frames - 1 - GROUP * (i - 1))
            prediction = _predicted(reference, size, rows, columns)
            base = _added(prediction, tokens.levels[:, i], step)
            reference = base[-1:]
            yield base, prediction


def _depths(rows: int, columns: int) -> NDArray[np.int16]:
    """Of the largest blocks of a quad-tree that lie within the field."""
    i, j = np.mgrid[:rows, :columns]
    depth = np.full((rows, columns), 3, np.int16)
    for d in (2, 1, 0):
        size = 8 >> d
        depth[(i // size * size + size <= rows) & (j // size * size + size <= columns)] = d
    return depth


def _predicted(reference: Planes | None, size: int, rows: int, columns: int) -> Planes:
    if reference is None:
        return Planes(
            np.full((size, rows, columns), 128, np.uint8), np.full((size, 2, rows // 2, columns // 2), 128, np.uint8)
        )
    return Planes(np.repeat(reference.y, size, 0), np.repeat(reference.c, size, 0))


def _added(prediction: Planes, levels: NDArray[np.int16], step: float) -> Planes:
    h, w = levels.shape[1:]
    values = (levels.astype(np.int64) * round(16 * step) + 8) >> 4
    y = values[:16].reshape(4, 4, h, w).transpose(2, 0, 3, 1).reshape(4 * h, 4 * w).repeat(4, 0).repeat(4, 1)
    c = values[16:].reshape(2, 2, 2, h, w).transpose(0, 3, 1, 4, 2).reshape(2, 2 * h, 2 * w).repeat(4, 1).repeat(4, 2)
    return Planes((prediction.y + y).clip(0, 255).astype(np.uint8), (prediction.c + c).clip(0, 255).astype(np.uint8))
