"""The fixed vocabulary of the profile "lfq": what each integer of a position means. FORMAT.md is the specification.

A position, 16x16 pixels of a frame, is a few lookup-free integers (Yu et al. 2024, MAGVIT-v2) and one integer of
motion. There is no codebook: an integer is the sum of 2^i bit_i, and every bit has a meaning of its own. Every integer
in range is legal, and so is every sequence of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.compiled import njit
from tokcodec.dtypes import I16, I32, Array
from tokcodec.stream.entropy import frame_step
from tokcodec.stream.fields import BOTH, FIRST
from tokcodec.stream.profile import Profile
from tokcodec.stream.pyramid import Place, order, uniform

SPAN = 4  # frames of a pyramid; what is left at the end of a chunk has shorter ones
NUMBERS = (12, 20, 25, 27)  # step numbers of first frames, anchors, frames halfway and single frames
MAX_POWER = 6
MAGNITUDE_BITS = 7  # of a component of a vector; then comes the sign
COLOUR = 3  # kind of a position that is predicted as one colour; the others are those of `fields`
LEAST_STEPS = (4800, 1280)  # see `step_of`: of first frames, of others


def _magnitudes() -> I16:
    """The sizes of components, int16 `[128]`: quarter pixels up to 16 pixels, then halves to 32, then whole ones."""
    steps = [1] * 64 + [2] * 32 + [4] * 31
    return np.concatenate([[0], np.cumsum(steps)]).astype(np.int16)


MAGNITUDES = _magnitudes()


class FrameIntegers(NamedTuple):
    """A frame of a chunk.

    Attributes:
        place: where it stands; None for the first frame.
        ints: int32 `[h, w, depth + 1]`: the lookup-free integers, then motion.
    """

    place: Place | None
    ints: I32


def places(frames: int) -> Iterator[Place]:
    """The predicted frames of a chunk in the order of coding: its pyramids follow from its length."""
    return order(uniform(frames, SPAN))


def step_of(place: Place | None, step: int, profile: Profile) -> int:
    """The step of a frame in 1/16 level: of its kind, and not so fine that its integers could not say what is large.

    Args:
        place: of the frame; None stands for the first one.
        step: of the chunk, in 1/16 level.
        profile: what an integer says.
    """
    least = LEAST_STEPS[0 if place is None else 1] // math.isqrt(profile.depth * profile.digits)
    return max(frame_step(step, NUMBERS[place.kind if place else 0]), least)


class Digits(NamedTuple):
    """What the digits of a position's lookup-free integers mean, each in its place from the first integer's lowest on.

    A level is a sum of digits, each -1, 0 or 1, over its dimension: the digit of a power p counts 3^p. There are those
    digits of which (d + 1) * 3^p is least, for dimension d. They stand in order of weight, the heaviest first, and
    those of a weight in order of dimension.

    Attributes:
        dimensions: int64 `[depth * digits]`.
        weights: powers of 3, int64 `[depth * digits]`.
    """

    dimensions: NDArray[np.int64]
    weights: NDArray[np.int64]

    @property
    def most(self) -> I16:
        """The largest level of each dimension, int16 `[dimensions]`."""
        most = np.zeros(1 + self.dimensions.max(), np.int16)
        np.add.at(most, self.dimensions, self.weights.astype(np.int16))
        return most


@functools.cache
def digits_of(profile: Profile) -> Digits:
    """The digits of a profile."""
    count = profile.depth * profile.digits
    keyed = sorted(((d + 1) * 3**p, d, p) for d in range(count) for p in range(MAX_POWER + 1))
    chosen = sorted((-p, d) for _, d, p in keyed[:count])
    return Digits(np.array([d for _, d in chosen]), np.array([3**-p for p, _ in chosen]))


def levels_of(ints: I32, profile: Profile) -> I16:
    """The levels that lookup-free integers stand for.

    Args:
        ints: int32 `[h, w, >= depth]`.
        profile: what an integer says.

    Returns:
        int16 `[h, w, dimensions]`.
    """
    digits = digits_of(profile)
    pairs = ints[..., : profile.depth, None] >> 2 * np.arange(profile.digits, dtype=np.int32) & 3
    values = ((pairs & 1) - (pairs >> 1)).reshape(*ints.shape[:2], -1)
    matrix = np.zeros((len(digits.weights), 1 + digits.dimensions.max()), np.int64)
    matrix[np.arange(len(matrix)), digits.dimensions] = digits.weights
    levels: I16 = (values @ matrix).astype(np.int16)
    return levels


def ints_of(levels: I16, profile: Profile) -> I32:
    """The inverse of `levels_of`, for levels within `Digits.most`: int32 `[h, w, depth]`."""
    digits = digits_of(profile)
    half = (digits.weights - 1) // 2
    rounded = (levels[..., digits.dimensions] + half) // digits.weights  # without the digits below
    values = ((rounded + 1) % 3 - 1).reshape(*levels.shape[:2], profile.depth, profile.digits)
    bits = 4 ** np.arange(profile.digits, dtype=np.int64)
    ints: I32 = ((values > 0) * bits + (values < 0) * 2 * bits).sum(-1).astype(np.int32)
    return ints


@njit(cache=True, nogil=True)
def code_of(component: int) -> int:
    """The eight bits of a vector's component, of the nearest size."""
    size = min(abs(component), 252)
    code = size if size <= 64 else (64 + (size - 63) // 2 if size <= 128 else 96 + (size - 126) // 4)
    return code | (128 if component < 0 and code > 0 else 0)


@njit(cache=True, nogil=True)
def component_of(code: int) -> int:
    """The component of a vector, in quarter pixels, that eight bits stand for."""
    size = int(MAGNITUDES[code & 127])
    return -size if code & 128 else size


def field_of(motion: I32) -> I16:
    """The motion that `motion.compensate` takes, int16 `[3, 2 h, 2 w]`, of integers int32 `[h, w]`."""
    y, x, kind = motion & 255, motion >> 8 & 255, motion >> 16
    still = kind == COLOUR
    parts = [np.where(code & 128, -1, 1) * MAGNITUDES[code & 127] * ~still for code in (y, x)]
    field = np.stack([*parts, np.where(still, FIRST, kind)]).astype(np.int16)
    return np.ascontiguousarray(field.repeat(2, 1).repeat(2, 2))


def colours_of(motion: I32) -> Array:
    """Y, Cb and Cr that integers of motion stand for, int32 `[3, h, w]`."""
    y, cb, cr = (motion + 32) & 63, ((motion >> 6) + 16) & 31, ((motion >> 11) + 16) & 31
    return np.stack([4 * y + 2, 8 * cb, 8 * cr]).astype(np.int32)


def colour_codes(colours: Array) -> I32:
    """The nearest of `colours_of`, as integers of 16 bits; any numbers `[3, h, w]`."""
    y = np.rint((colours[0] - 2) / 4).clip(0, 63).astype(np.int32)
    cb, cr = (np.rint(part / 8).clip(0, 31).astype(np.int32) for part in colours[1:])
    codes: I32 = (y + 32 & 63) | (cb + 16 & 31) << 6 | (cr + 16 & 31) << 11
    return codes


class Guesses:
    """What is known of the motion of a chunk's frames from frames coded before.

    Args:
        h, w: the grid.
    """

    def __init__(self, h: int, w: int) -> None:
        self._none = np.zeros((h, w), np.int32)
        self._known: dict[int, tuple[Place, I32]] = {}

    def of(self, place: Place) -> I32:
        """Integers of motion, int32 `[h, w]`: those of the parent over the distance of this frame.

        Colours stay. A frame between two anchors takes the mean of both where its anchor has a vector, and an anchor
        the first reference.
        """
        if place.parent not in self._known:
            return self._none
        source, motion = self._known[place.parent]
        kind, out = motion >> 16, np.empty_like(motion)
        _rescale(motion, source.distance, place.distance, out)
        if (source.depth == 0) != (place.depth == 0):
            kind = np.full_like(kind, BOTH if source.depth == 0 else FIRST)
        return np.where(motion >> 16 == COLOUR, motion, out | kind << 16).astype(np.int32)

    def add(self, place: Place, motion: I32) -> None:
        """Keep the motion of a frame, and forget what nothing follows any more."""
        if place.depth == 0:
            self._known.clear()
        self._known[place.frame] = place, motion


@njit(cache=True, nogil=True)
def _rescale(motion: I32, distance: int, wanted: int, out: I32) -> None:
    for i in range(motion.shape[0]):
        for j in range(motion.shape[1]):
            parts = 0
            for k in range(2):
                component = component_of(motion[i, j] >> 8 * k & 255)
                parts |= code_of((2 * component * wanted + distance) // (2 * distance)) << 8 * k
            out[i, j] = parts
