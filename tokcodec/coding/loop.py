"""The reference loop: a chunk as motion and levels, and back.

The first frame is coded by itself. Every other one is predicted from two frames that are coded before it, by its place
in a pyramid (`stream.pyramid`); the residual is transformed and quantized. Whatever is predicted from is what a decoder
has, bit for bit: everything behind the levels is in integers.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding import intra, intra_search
from tokcodec.coding.lookahead import Lookahead
from tokcodec.coding.motion import Reference, compensate, reference
from tokcodec.coding.motion_search import search, small
from tokcodec.coding.planes import Planes, from_rgb
from tokcodec.coding.quantizer import choose, dequantize
from tokcodec.coding.transform import Basis, blocks_of
from tokcodec.dtypes import I16, U8
from tokcodec.errors import ModelError
from tokcodec.pipeline import Helpers
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.entropy import FrameTokens, Guesses, Tokens, frame_step, gathered
from tokcodec.stream.modes import ROWS
from tokcodec.stream.pyramid import Place, pyramid

LEVELS, MODES = slice(intra.DIMENSIONS), slice(intra.DIMENSIONS, intra.DIMENSIONS + ROWS)  # of a first frame
MOTION_RATE = 0.21  # squared levels a bit of motion, over the squared step of the frame
OFFERED = 2  # spans whose frames between others may do, at most: each holds its references


class Coded(NamedTuple):
    """A frame: what goes into the stream, and its planes with and without what the levels add."""

    tokens: FrameTokens
    base: Planes
    prediction: Planes


class Coding(NamedTuple):
    """A coded chunk of F frames.

    Attributes:
        tokens: what goes into the stream.
        base, prediction: planes of the F frames, with and without what the levels add.
    """

    tokens: Tokens
    base: Planes
    prediction: Planes


class Shown(NamedTuple):
    """A decoded frame.

    Attributes:
        base, prediction: its planes, with and without what its levels add.
        step: of its quantizer, in 8-bit levels.
        kind: as `stream.pyramid` counts them.
    """

    base: Planes
    prediction: Planes
    step: float
    kind: int


def as_shown(frames: Iterable[tuple[int, Shown]]) -> Iterator[Shown]:
    """Frames with their numbers, in any order, in the order they are shown, each as soon as its turn comes."""
    ready: dict[int, Shown] = {}
    turn = 0
    for number, frame in frames:
        ready[number] = frame
        while turn in ready:
            yield ready.pop(turn)
            turn += 1


def grey(height: int, width: int) -> Planes:
    return Planes(
        np.full((1, height, width), intra.GREY, np.uint8),
        np.full((1, 2, height // 2, width // 2), intra.GREY, np.uint8),
    )


def joined(parts: Sequence[Planes]) -> Planes:
    return Planes(np.concatenate([p.y for p in parts]), np.concatenate([p.c for p in parts]))


def scale_of(place: Place) -> int:
    """The distance to the second reference over that to the first, in 1/16; without a second one 2."""
    if place.second < 0:
        return 32
    return (16 * (place.frame - place.second) + place.distance // 2) // place.distance


class _Anchor(NamedTuple):
    """What the frames between two anchors need of one of them."""

    place: Place | None
    field: I16 | None
    reference: Reference


class Loop:
    """The loop with the tables of some weights.

    Args:
        arrays: `klt` int16 `[384, D]` and `klt.chroma` float32 `[1]`.

    Attributes:
        blocks: dimensions of a first frame's blocks and of others.
        dimensions: of a position's levels.

    Raises:
        ModelError: some of them are missing.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        missing = {"klt", "klt.chroma"} - set(arrays)
        if missing:
            raise ModelError(f"these weights hold no {min(missing)}")
        self.basis = Basis(arrays["klt"], arrays["klt.chroma"].item())
        self.blocks = intra.DIMENSIONS, self.basis.dimensions
        self.dimensions = max(MODES.stop, self.basis.dimensions)

    def encode(
        self,
        frames: U8 | Planes,
        step: float,
        helpers: Helpers | None = None,
        spans: Sequence[int] | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> Coding:
        """`code`, all frames as one, in the order they are shown; `on_frame` is called with 1 when a frame is coded."""
        coded = []
        for frame in self.code(frames, step, helpers, spans):
            coded.append(frame)
            if on_frame:
                on_frame(1)
        tokens = gathered((c.tokens for c in coded), len(coded))
        shown = sorted(coded, key=lambda c: c.tokens.place.frame if c.tokens.place else 0)
        return Coding(tokens, joined([c.base for c in shown]), joined([c.prediction for c in shown]))

    def code(
        self, frames: U8 | Planes, step: float, helpers: Helpers | None = None, spans: Sequence[int] | None = None
    ) -> Iterator[Coded]:
        """Code a chunk frame by frame, in the order of coding.

        Args:
            frames: uint8 `[F, H, W, 3]`, or their planes.
            step: of the quantizer, in 8-bit levels, a multiple of 1/16.
            helpers: code the frames between anchors while the next anchors are coded here; the result is the same.
            spans: lengths of the pyramids; chosen by content if None.
        """
        original = from_rgb(frames)
        height, width = original.y.shape[1:]
        step16 = round(step * STEP_UNITS)
        plan = Lookahead([small(y) for y in original.y], step, spans, helpers)
        number = int(plan.numbers[0])
        levels = np.zeros((self.dimensions, height // 16, width // 16), np.int16)
        levels[LEVELS], levels[MODES], base = intra_search.encode(
            original.part(slice(1)), frame_step(step16, number), plan.weight
        )
        yield Coded(FrameTokens(None, number, levels, None), base, grey(height, width))
        guesses = Guesses(height // 8, width // 8)
        last, older = _Anchor(None, None, reference(base)), None
        offered: collections.deque[Callable[[], list[Coded]]] = collections.deque()
        waiting: collections.deque[Coded] = collections.deque()
        begin, before = 0, -1
        for span in plan.spans():
            places = pyramid(begin, span, before)
            place = places[0]
            anchor, field = self._predicted(
                original, place, plan, step16, last.reference, older, plan.vectors(place), guesses
            )
            guesses.add(place, field)
            now = _Anchor(place, field, reference(anchor.base))
            work = functools.partial(self._between, original, places[1:], plan, step16, last, now)
            offered.append(helpers.share(work) if helpers else work)
            waiting.append(anchor)
            while len(offered) > (OFFERED if helpers else 0):
                yield waiting.popleft()
                yield from offered.popleft()()
            begin, before = begin + span, begin
            last, older = now, last.reference
        while offered:
            yield waiting.popleft()
            yield from offered.popleft()()

    def _between(
        self, original: Planes, places: Sequence[Place], plan: Lookahead, step16: int, low: _Anchor, high: _Anchor
    ) -> list[Coded]:
        """Code the frames between two anchors."""
        if not places:
            return []
        assert high.place is not None
        references = {high.place.first: low.reference, high.place.frame: high.reference}
        guesses = Guesses(original.y.shape[1] // 8, original.y.shape[2] // 8)
        for anchor in (low, high):
            if anchor.place is not None and anchor.field is not None:
                guesses.add(anchor.place, anchor.field)
        coded = []
        for place in places:
            near, _ = guesses.of(place)
            coarse = np.ascontiguousarray(near[:2, ::2, ::2])
            made, field = self._predicted(
                original, place, plan, step16, references[place.first], references[place.second],
                coarse, guesses,
            )  # fmt: skip
            guesses.add(place, field)
            if place.distance > 1:
                references[place.frame] = reference(made.base)
            coded.append(made)
        return coded

    def _predicted(
        self, original: Planes, place: Place, plan: Lookahead, step16: int, first: Reference, second: Reference | None,
        coarse: I16, guesses: Guesses,
    ) -> tuple[Coded, I16]:  # fmt: skip
        """Code a predicted frame; also its motion."""
        number = int(plan.numbers[place.frame])
        own16 = frame_step(step16, number)
        wanted = original.part(slice(place.frame, place.frame + 1))
        scale = scale_of(place)
        rate = MOTION_RATE * (own16 / STEP_UNITS) ** 2
        field = search(wanted.y[0], wanted.c[0], first, second, scale, coarse, *guesses.of(place), rate)
        prediction = compensate(first, second or first, scale, field)
        levels = np.zeros((self.dimensions, *(side // 16 for side in wanted.y.shape[1:])), np.int16)
        part = self._coded(wanted, prediction, own16)
        levels[: len(part)] = part
        base = self._added(prediction, part, own16)
        return Coded(FrameTokens(place, number, levels, field), base, prediction), field

    def decode(self, frames: Iterable[FrameTokens], step: float) -> Iterator[Shown]:
        """The inverse: one frame after another, in the order they are shown.

        Args:
            frames: of a chunk, in the order of coding.
            step: as it was coded with.
        """
        return as_shown(self._decoded(frames, round(step * STEP_UNITS)))

    def _decoded(self, frames: Iterable[FrameTokens], step16: int) -> Iterator[tuple[int, Shown]]:
        """The frames with their numbers, in the order of coding."""
        references: dict[int, Reference] = {}
        for number, levels, field, place in ((f.number, f.levels, f.motion, f.place) for f in frames):
            own16 = frame_step(step16, number)
            if place is None or field is None:
                base = intra.reconstruct(levels[LEVELS], levels[MODES], own16)
                references[0] = reference(base)
                yield 0, Shown(base, grey(*base.y.shape[1:]), own16 / STEP_UNITS, 0)
            else:
                first = references[place.first]
                second = references[place.second] if place.second >= 0 else first
                prediction = compensate(first, second, scale_of(place), field)
                base = self._added(prediction, levels[: self.basis.dimensions], own16)
                if place.depth == 0:
                    references = {i: r for i, r in references.items() if i == place.first}
                if place.depth == 0 or place.distance > 1:
                    references[place.frame] = reference(base)
                yield place.frame, Shown(base, prediction, own16 / STEP_UNITS, place.kind)

    def _coded(self, original: Planes, prediction: Planes, step16: int) -> I16:
        """Levels `[D, h, w]` of a residual."""
        latents = self.basis.latents(blocks_of(original, prediction))
        return choose(latents, step16 / STEP_UNITS).transpose(2, 0, 1)

    def _added(self, prediction: Planes, levels: I16, step16: int) -> Planes:
        used = np.flatnonzero(levels.reshape(len(levels), -1).any(1))
        if not len(used):
            return prediction
        return self.basis.add(prediction, dequantize(levels[: used[-1] + 1].transpose(1, 2, 0), step16))
