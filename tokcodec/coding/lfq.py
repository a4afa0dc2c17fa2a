"""The coding loop of the profile "lfq": a chunk as integers of a fixed vocabulary, and back.

It is the reference loop (`loop`) within what such integers can say: vectors of blocks of 16x16 pixels, levels of the
first dimensions, fixed pyramids and steps. The encoder sees what a decoder sees, so what an integer cannot say the
frames after it mend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.lfq_search import search
from tokcodec.coding.loop import MOTION_RATE, Loop, Shown, as_shown, grey, joined, scale_of
from tokcodec.coding.motion import Reference, compensate, reference
from tokcodec.coding.motion_search import coarse_reach, coarse_vectors, small
from tokcodec.coding.planes import GRID, Planes, from_rgb
from tokcodec.coding.quantizer import choose, dequantize
from tokcodec.coding.transform import blocks_of
from tokcodec.dtypes import I32, U8
from tokcodec.rate import STEP_UNITS
from tokcodec.stream import vocabulary
from tokcodec.stream.profile import Profile
from tokcodec.stream.pyramid import Place
from tokcodec.stream.vocabulary import COLOUR, FrameIntegers, Guesses, digits_of, step_of


class Coded(NamedTuple):
    """A frame: what goes into the stream, and its planes with and without what the levels add.

    The prediction of a first frame is grey, as in the default profile: the restorer knows no other.
    """

    tokens: FrameIntegers
    base: Planes
    prediction: Planes


class IntegerCoding(NamedTuple):
    """A coded chunk of F frames, in the order they are shown.

    Attributes:
        tokens: int32 `[F, h, w, depth + 1]`.
        base, prediction: planes of the F frames, with and without what the levels add.
        steps: of the frames' quantizers, in levels, float32 `[F]`.
        kinds: of the frames, uint8 `[F]`, as `stream.pyramid` counts them.
    """

    tokens: I32
    base: Planes
    prediction: Planes
    steps: NDArray[np.float32]
    kinds: NDArray[np.uint8]


def bilinear(values: I32, size: int) -> U8:
    """A plane of squares of `size` samples, uint8 `[size h, size w]`: values `[h, w]` stand in their centres."""
    lines = values.astype(np.int32)
    for axis in (0, 1):
        count = lines.shape[axis]
        at = 2 * np.arange(size * count) - (size - 1)  # of each sample, from the first centre, in 1 / (2 size)
        low, part = at // (2 * size), (at % (2 * size)).astype(np.int32)
        before, after = (lines.take((low + k).clip(0, count - 1), axis) for k in (0, 1))
        part = part.reshape(-1, 1) if axis == 0 else part
        lines = before * (2 * size - part) + after * part
    scale = 4 * size * size
    plane: U8 = ((lines + scale // 2) // scale).astype(np.uint8)
    return plane


def smooth(motion: I32) -> Planes:
    """The prediction of a first frame: the colours of its positions, and blends of them between."""
    y, cb, cr = vocabulary.colours_of(motion)
    return Planes(bilinear(y, GRID)[None], np.stack([bilinear(c, GRID // 2) for c in (cb, cr)])[None])


def means(planes: Planes) -> NDArray[np.float64]:
    """Mean Y, Cb and Cr of the positions of a frame, `[3, h, w]`."""
    h, w = (side // GRID for side in planes.y.shape[1:])
    return np.stack([plane.reshape(h, -1, w, len(plane) // h).mean((1, 3)) for plane in (planes.y[0], *planes.c[0])])


def predict(motion: I32, first: Reference, second: Reference, scale: int) -> Planes:
    """The prediction of another frame.

    Args:
        motion: integers, int32 `[h, w]`.
        first, second, scale: as for `compensate`.
    """
    planes = compensate(first, second, scale, vocabulary.field_of(motion))
    is_colour = motion >> 16 == COLOUR
    if is_colour.any():
        colours = vocabulary.colours_of(motion)
        for plane, colour, size in zip((planes.y[0], *planes.c[0]), colours, (GRID, GRID // 2, GRID // 2), strict=True):
            mask = is_colour.repeat(size, 0).repeat(size, 1)
            plane[mask] = colour.repeat(size, 0).repeat(size, 1)[mask]
    return planes


def kind_of(place: Place | None) -> int:
    """As `stream.pyramid` counts them; None is the first frame."""
    return place.kind if place else 0


class LfqLoop:
    """The loop of a profile with the tables of some weights.

    Args:
        loop: with their transform.
        profile: what an integer says.
    """

    def __init__(self, loop: Loop, profile: Profile) -> None:
        self.profile, self._basis = profile, loop.basis

    def encode(self, frames: U8 | Planes, step: float, on_frame: Callable[[int], None] | None = None) -> IntegerCoding:
        """`code`, all frames as one, in the order they are shown; `on_frame` is called with 1 when a frame is coded."""
        coded = []
        for frame in self.code(frames, step):
            coded.append(frame)
            if on_frame:
                on_frame(1)
        coded.sort(key=lambda c: c.tokens.place.frame if c.tokens.place else 0)
        places, step16 = [c.tokens.place for c in coded], round(step * STEP_UNITS)
        return IntegerCoding(
            np.stack([c.tokens.ints for c in coded]),
            joined([c.base for c in coded]),
            joined([c.prediction for c in coded]),
            np.array([step_of(place, step16, self.profile) / STEP_UNITS for place in places], np.float32),
            np.array([kind_of(place) for place in places], np.uint8),
        )

    def code(self, frames: U8 | Planes, step: float) -> Iterator[Coded]:
        """Code a chunk frame by frame, in the order of coding.

        Args:
            frames: uint8 `[F, H, W, 3]`, or their planes.
            step: of the quantizer, in 8-bit levels, a multiple of 1/16.
        """
        original = from_rgb(frames)
        step16 = round(step * STEP_UNITS)
        motion = vocabulary.colour_codes(means(original.part(slice(1))))
        first = self._coded(original.part(slice(1)), None, motion, smooth(motion), step16)
        yield first
        references, guesses = {0: reference(first.base)}, Guesses(*motion.shape)
        smalls: dict[int, I32] = {0: small(original.y[0])}
        for place in vocabulary.places(len(original.y)):
            if place.depth == 0:
                references = {i: r for i, r in references.items() if i in (place.first, place.second)}
            wanted = original.part(slice(place.frame, place.frame + 1))
            pair = references[place.first], references[place.second] if place.second >= 0 else None
            near = guesses.of(place)
            if place.depth == 0:
                smalls[place.frame] = small(original.y[place.frame])
                then = smalls.pop(place.first)
                coarse = coarse_vectors(smalls[place.frame], then, coarse_reach(place.distance))[0]
            else:
                coarse = np.ascontiguousarray(vocabulary.field_of(near)[:2, ::2, ::2])
            rate = MOTION_RATE * (step_of(place, step16, self.profile) / STEP_UNITS) ** 2
            motion = search(wanted, *pair, scale_of(place), coarse, near, rate)
            prediction = predict(motion, pair[0], pair[1] or pair[0], scale_of(place))
            coded = self._coded(wanted, place, motion, prediction, step16)
            guesses.add(place, motion)
            if place.depth == 0 or place.distance > 1:
                references[place.frame] = reference(coded.base)
            yield coded

    def _coded(self, original: Planes, place: Place | None, motion: I32, prediction: Planes, step16: int) -> Coded:
        own16, most = step_of(place, step16, self.profile), digits_of(self.profile).most
        latents = self._basis.latents(blocks_of(original, prediction))[..., : len(most)]
        levels = np.zeros((*latents.shape[:2], len(most)), np.int16)
        levels[..., : latents.shape[-1]] = choose(np.ascontiguousarray(latents), own16 / STEP_UNITS)
        levels = levels.clip(-most, most)
        ints = np.concatenate([vocabulary.ints_of(levels, self.profile), motion[..., None]], -1)
        frame = FrameIntegers(place, ints)
        base = self._added(prediction, frame, step16)
        return Coded(frame, base, prediction if place else grey(*base.y.shape[1:]))

    def decode(self, frames: Iterable[FrameIntegers], step: float) -> Iterator[Shown]:
        """The inverse: one frame after another, in the order they are shown.

        Args:
            frames: of a chunk, in the order of coding.
            step: as it was coded with.
        """
        return as_shown(self._decoded(frames, round(step * STEP_UNITS)))

    def _decoded(self, frames: Iterable[FrameIntegers], step16: int) -> Iterator[tuple[int, Shown]]:
        """The frames with their numbers, in the order of coding."""
        references: dict[int, Reference] = {}
        for frame in frames:
            place, motion = frame.place, frame.ints[..., -1]
            number = place.frame if place else 0
            if place is None:
                prediction = smooth(motion)
            else:
                first = references[place.first]
                second = references[place.second] if place.second >= 0 else first
                prediction = predict(motion, first, second, scale_of(place))
            base = self._added(prediction, frame, step16)
            prediction = prediction if place else grey(*base.y.shape[1:])
            if place and place.depth == 0:
                references = {place.first: references[place.first]}
            if place is None or place.depth == 0 or place.distance > 1:
                references[number] = reference(base)
            own16 = step_of(place, step16, self.profile)
            yield number, Shown(base, prediction, own16 / STEP_UNITS, kind_of(place))

    def _added(self, prediction: Planes, frame: FrameIntegers, step16: int) -> Planes:
        """A prediction and what the integers of its frame add."""
        levels = vocabulary.levels_of(frame.ints, self.profile)[..., : self._basis.dimensions]
        return self._basis.add(prediction, dequantize(levels, step_of(frame.place, step16, self.profile)))
