"""How even a video is in time, from the error of each frame: fade, pop and pulse. Means over a clip cannot tell them.

A viewer sees first what changes from frame to frame: a picture that wears away in a chunk (fade), jumps where the next
one begins (pop), or is better in every fourth frame than in those between (pulse).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tokcodec.scoring.scores import psnr_db

FADE_FRAMES = 16  # at either end of a chunk, the first frame left out: it is better than all others in every codec
PERIODS = (2, 4, 8, 16)  # of the frames that a pyramid, or a chain of keys, favours
LEAST_KEYS = 3  # frames that a pulse is the mean of: fewer are chance
LEAST_CHANGE = 0.01  # of MSE, in levels squared: the frames of a still picture do not make a pop infinite


@dataclass(frozen=True)
class Stability:
    """How even a video is in time. None stands for what the clip is too short for.

    Attributes:
        fade_db: mean PSNR of frames 2 to 17 of a chunk less that of its last 16, mean of the chunks of 33 frames or
            more, in dB: above 0 where pictures wear away.
        pop: the largest change of MSE between neighbouring frames at a border, over the median change in the clip.
            Without a border it is that of all neighbours.
        pulse_db: PSNR of every n-th frame less that of the frames around it, in dB, for the `period` that has most.
        period: n of the pulse: 2, 4, 8 or 16.
    """

    fade_db: float | None
    pop: float | None
    pulse_db: float | None
    period: int | None


def stability(mse: ArrayLike, borders: Sequence[int] = ()) -> Stability:
    """Fade, pop and pulse of a clip.

    Args:
        mse: of every frame, in 8-bit levels squared: of luma, or of all channels.
        borders: numbers of the frames that begin a chunk, besides the first: ascending, from 1 to the last frame.

    Raises:
        ValueError: there is no frame, or the borders are none.
    """
    errors = np.asarray(mse, np.float64)
    edges = [0, *borders, len(errors)]
    if any(end <= begin for begin, end in itertools.pairwise(edges)):
        raise ValueError(f"{len(errors)} frames have no borders at {list(borders)}")
    quality = np.array([psnr_db(float(error)) for error in errors])
    chunks = [quality[begin:end] for begin, end in itertools.pairwise(edges)]
    pulses = {period: pulse for period in PERIODS if (pulse := _pulse_db(chunks, period)) is not None}
    period = max(pulses, key=pulses.__getitem__, default=None)
    return Stability(_fade_db(chunks), _pop(errors, borders), None if period is None else pulses[period], period)


def _fade_db(chunks: Sequence[NDArray[np.float64]]) -> float | None:
    fades = [
        float(chunk[1 : 1 + FADE_FRAMES].mean() - chunk[-FADE_FRAMES:].mean())
        for chunk in chunks
        if len(chunk) > 2 * FADE_FRAMES
    ]
    return float(np.mean(fades)) if fades else None


def _pop(errors: NDArray[np.float64], borders: Sequence[int]) -> float | None:
    if len(errors) < 2:
        return None
    changes = np.abs(np.diff(errors))
    largest = changes[np.array(borders) - 1].max() if len(borders) else changes.max()
    return float(largest / max(float(np.median(changes)), LEAST_CHANGE))


def _pulse_db(chunks: Sequence[NDArray[np.float64]], period: int) -> float | None:
    """Mean of frames `period` apart in a chunk less those on both sides, so that a steady rise or fall is none."""
    around = period - 1
    found = [
        chunk[key] - (chunk[key - around : key].mean() + chunk[key + 1 : key + 1 + around].mean()) / 2
        for chunk in chunks
        for key in range(period, len(chunk) - around, period)
    ]
    return float(np.mean(found)) if len(found) >= LEAST_KEYS else None
