"""The reference loop: a chunk as motion and levels, and back.

The first frame is coded by itself. Then come groups of four: their last frame, the key, is predicted from the key
before it (and the one before that); the three between are predicted from the keys on both sides. What a prediction
lacks is transformed and quantized. Whatever is predicted from is what a decoder has, bit for bit: everything
behind the levels is in integers.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.errors import ModelError
from tokcodec.neural import intra, intra_search
from tokcodec.neural.lfq import choose, dequantize
from tokcodec.neural.motion import Reference, compensate, reference
from tokcodec.neural.planes import Planes, from_rgb
from tokcodec.neural.search import coarse_vectors, search, small
from tokcodec.neural.transform import Basis, blocks_of
from tokcodec.pipeline import Helpers
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.entropy import Tokens
from tokcodec.stream.modes import ROWS

GROUP = 4
SPANS = ((4, 8), (1, -3), (2, -2), (3, -1))  # of the key and of the frames between
LEVELS, MODES = slice(intra.DIMENSIONS), slice(intra.DIMENSIONS, intra.DIMENSIONS + ROWS)  # of a first frame
KEY_MOTION_RATE = 0.16  # squared levels a bit of motion, over the squared step
BETWEEN_MOTION_RATE = 0.6  # nothing is predicted from the frames between
FIRST_STEP = 0.32  # step of the first frame, of the key and of the frames between, over the chunk's
KEY_STEP = 0.85
BETWEEN_STEP = 1.7
OFFERED = 2  # groups whose frames between others may do, at most: each holds its references
U8 = NDArray[np.uint8]
I16 = NDArray[np.int16]


class Coding(NamedTuple):
    """A coded chunk of F frames.

    Attributes:
        tokens: what goes into the stream.
        base, prediction: planes of the F frames, with and without what the levels add.
    """

    tokens: Tokens
    base: Planes
    prediction: Planes


def steps_of(step: float) -> tuple[int, int, int]:
    """Steps, in 1/16 level, of the first frame, a key and the frames between, in a chunk of a base step in levels."""
    return tuple(max(round(step * STEP_UNITS * part), 1) for part in (FIRST_STEP, KEY_STEP, BETWEEN_STEP))  # type: ignore[return-value]


def grey(height: int, width: int) -> Planes:
    return Planes(
        np.full((1, height, width), intra.GREY, np.uint8),
        np.full((1, 2, height // 2, width // 2), intra.GREY, np.uint8),
    )


def joined(parts: list[Planes]) -> Planes:
    return Planes(np.concatenate([p.y for p in parts]), np.concatenate([p.c for p in parts]))


class Loop:
    """The loop with the tables of some weights.

    Args:
        arrays: `klt.key` int16 `[384, D]`, `klt.between` `[1152, D]`, `klt.chroma` float32 `[1]`.

    Attributes:
        blocks: dimensions of intra, key and between.
        dimensions: of a token.

    Raises:
        ModelError: some of them are missing.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        missing = {f"klt.{name}" for name in ("key", "between", "chroma")} - set(arrays)
        if missing:
            raise ModelError(f"these weights hold no {min(missing)}")
        weight = arrays["klt.chroma"].item()
        self.key, self.between = (Basis(arrays[f"klt.{name}"], weight) for name in ("key", "between"))
        self.blocks = intra.DIMENSIONS, self.key.dimensions, self.between.dimensions
        self.dimensions = max(MODES.stop, self.key.dimensions + self.between.dimensions)

    def encode(
        self, frames: U8, step: float, helpers: Helpers | None = None, told: Callable[[int], None] | None = None
    ) -> Coding:
        """Code a chunk.

        Args:
            frames: uint8 `[F, H, W, 3]`.
            step: of the quantizer, in 8-bit levels, a multiple of 1/16.
            helpers: code frames between while the next keys are coded here; the result is the same.
            told: called with the number of frames that are newly coded: 1, then 4 or what is left.
        """
        count = len(frames)
        original = from_rgb(frames)
        height, width = original.y.shape[1:]
        groups = -(-(count - 1) // GROUP)
        levels = np.zeros((self.dimensions, 1 + groups, height // 16, width // 16), np.int16)
        motion = np.zeros((GROUP * groups, 5, height // 8, width // 8), np.int16)
        steps = steps_of(step)
        prediction = grey(height, width)
        levels[LEVELS, 0], levels[MODES, 0], base = intra_search.encode(original.part(slice(1)), steps[0])
        bases, predictions = [base], [prediction]
        if told:
            told(1)
        last, older = reference(base), None
        before = None
        before_small = small(original.y[0])
        key_rate, between_rate = KEY_MOTION_RATE * step * step, BETWEEN_MOTION_RATE * step * step
        between_levels = levels[self.key.dimensions : self.key.dimensions + self.between.dimensions]
        offered: collections.deque[tuple[Callable[[], tuple[Planes, Planes]], Planes, Planes]] = collections.deque()

        def take() -> None:
            between, base, prediction = offered.popleft()
            middle, three = between()
            bases.extend([middle, base])
            predictions.extend([three, prediction])
            if told:
                told(min(GROUP, count - 1 - GROUP * (len(bases) // 2 - 1)))

        for group in range(groups):
            places = [min(1 + GROUP * group + i, count - 1) for i in range(GROUP)]
            now_small = small(original.y[places[3]])
            coarse = coarse_vectors(now_small, before_small, GROUP)
            field = search(
                original.y[places[3]],
                original.c[places[3]],
                last,
                older or last,
                SPANS[0],
                older is not None,
                coarse,
                before,
                key_rate,
            )
            prediction = compensate(last, older or last, SPANS[0], field)
            wanted = Planes(original.y[places[3]][None], original.c[places[3]][None])
            part = levels[: self.key.dimensions, 1 + group]
            part[:] = self._coded(self.key, wanted, prediction, steps[1])
            base = self._added(self.key, prediction, part, steps[1])
            motion[GROUP * group] = before = field
            key = reference(base)
            work = functools.partial(
                self._between, Planes(original.y[places[:3]], original.c[places[:3]]), last, key, field, between_rate,
                steps[2], motion[GROUP * group + 1 : GROUP * group + GROUP], between_levels[:, 1 + group],
            )  # fmt: skip
            offered.append((helpers.share(work) if helpers else work, base, prediction))
            while len(offered) > (OFFERED if helpers else 0):
                take()
            older, last, before_small = last, key, now_small
        while offered:
            take()
        return Coding(Tokens(levels, motion), joined(bases).part(slice(count)), joined(predictions).part(slice(count)))

    def _between(
        self, original: Planes, last: Reference, key: Reference, field: I16, rate: float, step16: int,
        motion: I16, levels: I16,
    ) -> tuple[Planes, Planes]:  # fmt: skip
        """Code the three frames between two keys into `motion` and `levels`; their base and prediction."""
        between = []
        for i in range(GROUP - 1):
            motion[i] = search(original.y[i], original.c[i], last, key, SPANS[1 + i], True, _middle(field), field, rate)
            between.append(compensate(last, key, SPANS[1 + i], motion[i]))
        three = joined(between)
        levels[:] = self._coded(self.between, original, three, step16)
        return self._added(self.between, three, levels, step16), three

    def decode(self, tokens: Tokens, step: float, frames: int) -> Iterator[tuple[Planes, Planes]]:
        """The inverse: base and prediction of the first frame, then of four at a time.

        Args:
            tokens: of a chunk.
            step: as it was coded with.
            frames: of the chunk.
        """
        levels, motion = tokens
        height, width = 16 * levels.shape[2], 16 * levels.shape[3]
        steps = steps_of(step)
        prediction = grey(height, width)
        base = intra.reconstruct(levels[LEVELS, 0], levels[MODES, 0], steps[0])
        yield base, prediction
        last, older = reference(base), None
        for group in range(levels.shape[1] - 1):
            fields = motion[GROUP * group : GROUP * group + GROUP]
            prediction = compensate(last, older or last, SPANS[0], fields[0])
            base = self._added(self.key, prediction, levels[: self.key.dimensions, 1 + group], steps[1])
            key = reference(base)
            three = joined([compensate(last, key, SPANS[1 + i], fields[1 + i]) for i in range(GROUP - 1)])
            part = levels[self.key.dimensions : self.key.dimensions + self.between.dimensions, 1 + group]
            middle = self._added(self.between, three, part, steps[2])
            left = frames - 1 - GROUP * group
            yield joined([middle, base]).part(slice(left)), joined([three, prediction]).part(slice(left))
            older, last = last, key

    def _coded(self, basis: Basis, original: Planes, prediction: Planes, step16: int) -> I16:
        """Levels `[D, h, w]` of an innovation."""
        latents = basis.latents(blocks_of(original, prediction))
        return choose(latents, step16 / STEP_UNITS).transpose(2, 0, 1)

    def _added(self, basis: Basis, prediction: Planes, levels: I16, step16: int) -> Planes:
        return basis.add(prediction, dequantize(np.ascontiguousarray(levels.transpose(1, 2, 0)), step16))


def _middle(field: I16) -> I16:
    """A field's vectors for blocks of 16x16."""
    return np.ascontiguousarray(field[:2, ::2, ::2])
