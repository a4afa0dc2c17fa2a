"""Tokens to payload bytes and back, lossless. FORMAT.md, "Coded payloads", is the specification."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.dtypes import I16, I64, Array
from tokcodec.errors import BitstreamError, ModelError
from tokcodec.stream import levels as level_model
from tokcodec.stream import modes, trees
from tokcodec.stream.fields import BOTH, FIRST, MAX_CANDIDATES, MAX_VECTOR, UNKNOWN, scaled, unknown
from tokcodec.stream.plain import PlainReader, PlainWriter
from tokcodec.stream.pyramid import SPANS, Place, order
from tokcodec.stream.rangecoder import (
    SLOT_COUNT,
    Coder,
    decoder,
    encoder,
    finish,
    fresh,
    is_finished,
    log_class,
    with_room,
)

ZSTD, MIXED = 0, 1  # coder ids
LEVEL_SLOTS, MOTION_SLOTS = 1 << 16, 1 << 12
STEP_NUMBERS = 49  # of a frame's step over the chunk's
PLAIN = 24  # the number of the chunk's own step; eight numbers are a factor of 2
STEP_RATIOS = np.rint(4096 * 2.0 ** ((np.arange(STEP_NUMBERS) - PLAIN) / 8)).astype(np.int64)  # none is near a half
FIRST_GUESS = 11  # of the number of a first frame
NO_SPAN = 6  # what stands for the span before the first
ROOM = 4096  # bytes of a coder's buffer beyond those that the tokens take as plain numbers


def frame_step(step: int, number: int) -> int:
    """The step of a frame in 1/16 level, from 1: of the chunk's, in 1/16 level, and the number of the frame."""
    return max(1, int((step * STEP_RATIOS[number] + 2048) >> 12))


class FrameTokens(NamedTuple):
    """A frame of a chunk.

    Attributes:
        place: where it stands; None for the first frame.
        number: of its step, 0 to 48 (see `frame_step`).
        levels: int16 `[D, h, w]`, quantized coefficients. In a first frame the intra block fills the first dimensions,
            and behind it stand the 19 modes (see `modes`).
        motion: int16 `[5, 2 h, 2 w]`; None for a first frame. Channels: vector y, vector x (-1023 to 1023), kind
            (0 to 2), depth (0 is a block of 64 pixels, 3 of 8), merge (number of the candidate, -1 if the vector is
            explicit).
    """

    place: Place | None
    number: int
    levels: I16
    motion: I16 | None


class Tokens(NamedTuple):
    """A chunk of F frames, on 16x16 pixels a position, its frames in the order they are shown.

    Attributes:
        levels: int16 `[D, F, h, w]`, as in `FrameTokens`.
        motion: int16 `[F - 1, 5, 2 h, 2 w]`, of all frames but the first.
        spans: uint8 `[n]`, the lengths of the pyramids in frames: 1, 2, 4, 8, 16 or 32.
        numbers: uint8 `[F]`, of the frames' steps.
    """

    levels: I16
    motion: I16
    spans: NDArray[np.uint8]
    numbers: NDArray[np.uint8]

    def in_order(self) -> Iterator[FrameTokens]:
        """The frames in the order of coding."""
        yield FrameTokens(None, int(self.numbers[0]), self.levels[:, 0], None)
        for place in order(self.spans):
            i = place.frame
            yield FrameTokens(place, int(self.numbers[i]), self.levels[:, i], self.motion[i - 1])


def gathered(frames: Iterable[FrameTokens], count: int) -> Tokens:
    """All frames of a chunk, given in the order of coding, as one."""
    levels = motion = None
    spans, numbers = [], np.zeros(count, np.uint8)
    for frame in frames:
        i = 0 if frame.place is None else frame.place.frame
        if levels is None or motion is None:
            dims, h, w = frame.levels.shape
            levels, motion = np.zeros((dims, count, h, w), np.int16), np.zeros((count - 1, 5, 2 * h, 2 * w), np.int16)
        levels[:, i], numbers[i] = frame.levels, frame.number
        if frame.place is not None and frame.motion is not None:
            motion[i - 1] = frame.motion
            if frame.place.depth == 0:
                spans.append(frame.place.distance)
    if levels is None or motion is None:
        raise ValueError("a chunk has a frame")
    return Tokens(levels, motion, np.array(spans, np.uint8), numbers)


class Tables(NamedTuple):
    """What a coder knows at the start of a chunk.

    Attributes:
        blocks: dimensions of the blocks: of first frames and of others.
        arrays: `coder.levels.slots` and `coder.motion.slots`, uint32 `[INPUTS, slots]`; `coder.levels.weights` and
            `coder.motion.weights` of the mixers, int32 `[mixers, INPUTS + 1]`.
    """

    blocks: tuple[int, int]
    arrays: dict[str, Array]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], blocks: tuple[int, int]) -> Tables:
        """Tables from the `coder.*` of a weights file; those that are missing know nothing.

        Raises:
            ModelError: a table has another shape or type, or a block is too large.
        """
        if not all(0 < size <= level_model.MAX_SIZE for size in blocks):
            raise ModelError(f"blocks of {blocks} dimensions cannot be coded")
        found = {}
        for name, blank in _fresh().items():
            table = arrays.get(name, blank)
            if table.shape != blank.shape or table.dtype != blank.dtype:
                raise ModelError(f"{name} is {table.dtype} {table.shape}, not {blank.dtype} {blank.shape}")
            found[name] = table
        return cls(blocks, found)

    @property
    def dims(self) -> int:
        """D of the levels."""
        return max(self.blocks[0] + modes.ROWS, self.blocks[1])

    def start(self, part: str) -> tuple[Array, Array]:
        """Copies of slots and weights for a chunk."""
        return self.arrays[f"coder.{part}.slots"].copy(), self.arrays[f"coder.{part}.weights"].copy()


def _fresh() -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    sizes = {"levels": (LEVEL_SLOTS, modes.MIXERS), "motion": (MOTION_SLOTS, trees.MIXERS)}
    for part, (slots, mixers) in sizes.items():
        arrays[f"coder.{part}.slots"], arrays[f"coder.{part}.weights"] = fresh(slots, mixers)
    return arrays


class Guesses:
    """The temporal fields of a chunk's frames: what is known of their motion from frames coded before.

    Args:
        rows, columns: of a field: 2 h and 2 w.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._none = unknown(rows, columns)
        self._fields: dict[int, tuple[I16, Place]] = {}

    def of(self, place: Place) -> tuple[I16, I16]:
        """The near and the far field of a frame, int16 `[5, 2 h, 2 w]` each.

        Near is the motion of the parent, far that of the other reference frame.
        """
        other = place.first + place.second - place.parent
        return self._scaled(place.parent, place), self._scaled(other, place)

    def add(self, place: Place, field: I16) -> None:
        """Keep the motion of a frame, and forget what nothing follows any more."""
        if place.depth == 0:
            for frame in [f for f in self._fields if f < place.first]:
                del self._fields[frame]
        self._fields[place.frame] = field, place

    def _scaled(self, frame: int, place: Place) -> I16:
        if frame not in self._fields:
            return self._none
        field, source = self._fields[frame]
        kind = UNKNOWN
        if (source.depth == 0) != (place.depth == 0):
            kind = BOTH if source.depth == 0 else FIRST
        return scaled(field, source.distance, place.distance, kind)


def role_of(place: Place | None) -> int:
    """What motion and step are coded as: 0 for anchors, else 1 to 3 for a distance of 1, 2 or more; 4: first frame."""
    if place is None:
        return 4
    return 0 if place.depth == 0 else min(place.distance.bit_length(), 3)


class _Walk:
    """Goes over the frames of a chunk with two arithmetic coders, the same way for encoder and decoder.

    Args:
        tables: to start from.
        step: of the chunk, in 1/16 level.
        h, w: the grid.
        motion, levels: coders.
    """

    def __init__(self, tables: Tables, step: int, h: int, w: int, motion: Coder, levels: Coder) -> None:
        self.motion, self.levels = motion, levels
        self._tables, self._step, self._grid = tables, step, (h, w)
        self._guesses = Guesses(2 * h, 2 * w)
        self._numbers = {4: FIRST_GUESS}
        self._span = NO_SPAN
        blank = np.zeros((1 + h, w + 2, tables.blocks[1]), np.int32)  # int16 would overflow in compiled code
        self._blank = blank, np.zeros((1 + h, w + 2, 1 + level_model.MAX_RUNS), np.int64)
        self._past: dict[tuple[int, int], tuple[Array, Array]] = {}  # by kind and distance
        self._parents: dict[int, tuple[Array, Array]] = {}

    def span(self, wanted: int, left: int) -> int:
        """Code the length of a span, of at most `left` frames."""
        most = min(left.bit_length() - 1, len(SPANS) - 1)
        self._span = int(trees.code_span(self.motion, max(wanted.bit_length() - 1, 0), self._span, most))
        return 1 << self._span

    def number(self, wanted: int, place: Place | None) -> int:
        """Code the number of a frame's step."""
        role = role_of(place)
        guess = self._numbers.get(role, PLAIN)
        self._numbers[role] = int(trees.code_step(self.motion, wanted, guess, STEP_NUMBERS - 1, role))
        return self._numbers[role]

    def field(self, wanted: I16 | None, place: Place) -> I16 | None:
        """Code the motion of a frame; None if that fails."""
        field = np.zeros((5, 2 * self._grid[0], 2 * self._grid[1]), np.int16)
        field[2] = UNKNOWN
        near, far = self._guesses.of(place)
        if not trees.code_field(self.motion, field if wanted is None else wanted, field, near, far, role_of(place)):
            return None
        self._guesses.add(place, field)
        return field

    def first(self, wanted: I16 | None, number: int) -> I16 | None:
        """Code modes and levels of the first frame; None if that fails."""
        size, (h, w) = self._tables.blocks[0], self._grid
        step = log_class(frame_step(self._step, number))
        found = np.zeros((modes.ROWS, h, w), np.int16)
        # Not a slice: a function is compiled once more for arrays with gaps.
        asked = found if wanted is None else np.ascontiguousarray(wanted[size : size + modes.ROWS])
        if not modes.code_modes(self.levels, asked, found, step):
            return None
        now = np.zeros((1 + h, w + 2, size), np.int32)
        if wanted is not None:
            now[1:, 1:-1] = wanted[:size].transpose(1, 2, 0)
        blank, blank_info = np.zeros_like(now), self._blank[1]
        if not level_model.code_frame(
            self.levels, now, blank, blank, blank_info.copy(), blank_info, blank_info, modes.places(found)[0], 0, step
        ):
            return None
        levels = np.zeros((self._tables.dims, h, w), np.int16)
        levels[:size], levels[size : size + modes.ROWS] = now[1:, 1:-1].transpose(2, 0, 1), found
        return levels

    def other(self, wanted: I16 | None, place: Place, number: int, motion: I16) -> I16 | None:
        """Code the levels of another frame; None if that fails."""
        size = self._tables.blocks[1]
        now, info = np.zeros_like(self._blank[0]), np.zeros_like(self._blank[1])
        if wanted is not None:
            now[1:, 1:-1] = wanted[:size].transpose(1, 2, 0)
        past, past_info = self._past.get((place.kind, place.distance), self._blank)
        parent, parent_info = self._parents[place.parent] if place.depth else self._blank
        step = log_class(frame_step(self._step, number))
        if not level_model.code_frame(
            self.levels, now, past, parent, info, past_info, parent_info, _under(motion), place.kind, step
        ):
            return None
        self._past[place.kind, place.distance] = now, info
        if place.depth == 0:
            self._parents.clear()
        if place.distance > 1:
            self._parents[place.frame] = now, info
        levels = np.zeros((self._tables.dims, *self._grid), np.int16)
        levels[:size] = now[1:, 1:-1].transpose(2, 0, 1)
        return levels


def _under(motion: I16) -> I64:
    """Classes of the motion under positions, int64 `[h, w]`, below 1024."""
    cells = motion[:, ::2, ::2].astype(np.int64)
    moves = np.abs(cells[:2]).sum(0) > 4
    under: I64 = ((cells[3] * 2 + (cells[4] >= 0)) * 2 + moves) * 3 + cells[2]
    return under


class ChunkEncoder:
    """Codes a chunk frame by frame; memory is that of a few frames.

    Args:
        tables: to start from.
        step: of the chunk, in 1/16 level.
        frames: of the chunk.
        h, w: the grid.
    """

    def __init__(self, tables: Tables, step: int, frames: int, h: int, w: int) -> None:
        coders = (encoder(*tables.start(part), 0) for part in ("motion", "levels"))
        self._walk = _Walk(tables, step, h, w, *coders)
        self._tables, self._left, self._grid = tables, frames - 1, (h, w)
        self._plain = PlainWriter(), PlainWriter()
        self._is_mixed = True  # as long as the arithmetic coders' buffers suffice

    def learn_into(self, arrays: dict[str, Array]) -> None:
        """Go on from these tables, and leave in them what the chunk teaches."""
        walk = self._walk
        walk.motion, walk.levels = (
            coder._replace(slots=arrays[f"coder.{part}.slots"], weights=arrays[f"coder.{part}.weights"])
            for part, coder in (("motion", walk.motion), ("levels", walk.levels))
        )

    def add(self, frame: FrameTokens) -> None:
        """Code the next frame in the order of coding.

        Raises:
            ValueError: the tokens are malformed.
        """
        _check(frame, self._tables, self._grid)
        place, walk, h, w = frame.place, self._walk, *self._grid
        walk.motion = with_room(walk.motion, ROOM + 64 * h * w)
        walk.levels = with_room(walk.levels, ROOM + 2 * self._tables.dims * h * w)
        if place is not None and place.depth == 0:
            if place.distance not in SPANS or walk.span(place.distance, self._left) != place.distance:
                raise ValueError(f"a span of {place.distance} frames cannot be coded")
            self._left -= place.distance
            self._plain[0].write(bytes([place.distance]))
        walk.number(frame.number, place)
        self._plain[0].write(bytes([frame.number]))
        if place is None:
            self._is_mixed = walk.first(frame.levels, frame.number) is not None
        else:
            assert frame.motion is not None
            field = walk.field(frame.motion, place)
            if field is None:
                raise ValueError("the motion has vectors out of range")
            if not np.array_equal(field, frame.motion):
                raise ValueError("the motion is no quad-tree of blocks and their candidates")
            if self._is_mixed:  # what follows from levels that were lost cannot be coded
                self._is_mixed = walk.other(frame.levels, place, frame.number, field) is not None
            self._plain[0].write(_plain(frame.motion))
        self._plain[1].write(_plain(frame.levels))

    def finish(self) -> tuple[int, bytes, bytes]:
        """Coder id, motion payload and levels payload, when all frames are coded."""
        assert self._left == 0
        plain = [part.finish() for part in self._plain]
        motion, levels = finish(self._walk.motion), finish(self._walk.levels)
        if not self._is_mixed or motion is None or levels is None:
            return ZSTD, plain[0], plain[1]
        if len(motion) + len(levels) > len(plain[0]) + len(plain[1]):
            return ZSTD, plain[0], plain[1]
        return MIXED, motion, levels


def encode_chunk(tokens: Tokens, step: int, tables: Tables) -> tuple[int, bytes, bytes]:
    """Code a chunk.

    Args:
        tokens: of a chunk.
        step: of the quantizer, in 1/16 level.
        tables: to start from.

    Returns:
        Coder id, motion payload and levels payload.

    Raises:
        ValueError: the tokens are malformed.
    """
    levels, motion, spans, numbers = tokens
    if levels.ndim != 4 or motion.ndim != 4:
        raise ValueError("tokens must be int16 levels [D, F, h, w] and motion [F - 1, 5, 2 h, 2 w]")
    frames, h, w = levels.shape[1:]
    if 0 in levels.shape or len(motion) != frames - 1 or len(numbers) != frames or sum(spans.tolist()) != frames - 1:
        raise ValueError(f"levels {levels.shape}, motion {motion.shape} and spans {spans.tolist()} do not fit")
    if not set(spans.tolist()) <= set(SPANS):
        raise ValueError(f"spans are {SPANS} frames, not {spans.tolist()}")
    coder = ChunkEncoder(tables, step, frames, h, w)
    for frame in tokens.in_order():
        coder.add(frame)
    return coder.finish()


def _check(frame: FrameTokens, tables: Tables, grid: tuple[int, int]) -> None:
    levels, motion = frame.levels, frame.motion
    if levels.dtype != np.int16 or (motion is not None and motion.dtype != np.int16):
        raise ValueError("tokens must be int16 levels [D, h, w] and motion [5, 2 h, 2 w]")
    if levels.shape != (tables.dims, *grid) or (motion is not None and motion.shape != (5, 2 * grid[0], 2 * grid[1])):
        raise ValueError(f"levels {levels.shape} do not fit blocks {tables.blocks} on {grid}")
    if not 0 <= frame.number < STEP_NUMBERS:
        raise ValueError(f"a step number is 0 to {STEP_NUMBERS - 1}, not {frame.number}")
    behind = tables.blocks[1] if frame.place else tables.blocks[0] + modes.ROWS
    if levels[behind:].any():
        raise ValueError("levels stand outside of their block")
    if frame.place is None and not modes.are_modes(levels[tables.blocks[0] : behind]):
        raise ValueError("the modes of the first frame are none, or differ within a square")


def shapes(frames: int, height: int, width: int, dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of levels and motion of a chunk, whose frames have `height` x `width` pixels."""
    h, w = -(-height // 16), -(-width // 16)
    return (dims, frames, h, w), (frames - 1, 5, 2 * h, 2 * w)


def decode_frames(
    coder: int, motion: bytes, levels: bytes, frames: int, height: int, width: int, step: int, tables: Tables
) -> Iterator[FrameTokens]:
    """The inverse of `ChunkEncoder`, for payloads of any origin. Time and memory follow from the sizes alone.

    Args:
        coder: coder id.
        motion, levels: payloads.
        frames, height, width: of the chunk, in pixels, without padding.
        step: of the quantizer, in 1/16 level.
        tables: those of the encoder.

    Yields:
        The frames in the order of coding.

    Raises:
        BitstreamError: the coder is unknown, or a payload is not exactly what codes such a chunk.
    """
    h, w = -(-height // 16), -(-width // 16)
    if coder == ZSTD:
        yield from _from_plain(motion, levels, frames, (h, w), tables)
        return
    if coder != MIXED:
        raise BitstreamError(f"payload coder {coder} is not known to this version")
    walk = _Walk(tables, step, h, w, decoder(*tables.start("motion"), motion), decoder(*tables.start("levels"), levels))
    number = walk.number(0, None)
    yield FrameTokens(None, number, _sound(walk.first(None, number), "levels"), None)
    left = frames - 1

    def spans() -> Iterator[int]:
        nonlocal left
        while left:
            span = walk.span(1, left)
            left -= span
            yield span

    for place in order(spans()):
        number = walk.number(0, place)
        field = _sound(walk.field(None, place), "motion")
        yield FrameTokens(place, number, _sound(walk.other(None, place, number, field), "levels"), field)
    for part, state in (("motion", walk.motion), ("levels", walk.levels)):
        if not is_finished(state):
            raise BitstreamError(f"a {part} payload is damaged")


def _sound(tokens: I16 | None, part: str) -> I16:
    if tokens is None:
        raise BitstreamError(f"a {part} payload is damaged")
    return tokens


def decode_chunk(
    coder: int, motion: bytes, levels: bytes, frames: int, height: int, width: int, step: int, tables: Tables
) -> Tokens:
    """`decode_frames`, all of them as one."""
    return gathered(decode_frames(coder, motion, levels, frames, height, width, step, tables), frames)


_BOUNDS = ((-MAX_VECTOR, -MAX_VECTOR, 0, 0, -1), (MAX_VECTOR, MAX_VECTOR, 2, 3, MAX_CANDIDATES - 1))


def _plain(array: I16) -> bytes:
    """Low bytes, then high bytes, of the zigzag forms."""
    zigzag = ((array << 1) ^ (array >> 15)).view(np.uint16)
    return (zigzag & 255).astype(np.uint8).tobytes() + (zigzag >> 8).astype(np.uint8).tobytes()


def _numbers(data: bytes, shape: tuple[int, ...]) -> I16:
    """The inverse of `_plain`."""
    low, high = np.frombuffer(data, np.uint8).reshape(2, *shape).astype(np.uint16)
    zigzag = low | high << 8
    array: I16 = ((zigzag >> 1) ^ -(zigzag & 1)).view(np.int16)
    return array


def _from_plain(
    motion: bytes, levels: bytes, frames: int, grid: tuple[int, int], tables: Tables
) -> Iterator[FrameTokens]:
    """Frames from payloads of zstd."""
    of_levels, of_motion = (tables.dims, *grid), (5, 2 * grid[0], 2 * grid[1])
    low, high = (np.array(bound, np.int16)[:, None, None] for bound in _BOUNDS)
    of_motion_bytes, of_levels_bytes = (2 * math.prod(shape) for shape in (of_motion, of_levels))
    sources = [PlainReader(part) for part in (motion, levels)]
    left = frames - 1

    def spans() -> Iterator[int]:
        nonlocal left
        while left:
            span = sources[0].read(1)[0]
            if span not in SPANS or span > left:
                raise BitstreamError(f"a payload is damaged: a span of {span} frames")
            left -= span
            yield span

    def places() -> Iterator[Place | None]:
        yield None
        yield from order(spans())

    for place in places():
        number, field = sources[0].read(1)[0], None
        if place is not None:
            field = _numbers(sources[0].read(of_motion_bytes), of_motion)
            if ((field < low) | (field > high)).any():
                raise BitstreamError("a motion payload is damaged")
        frame = FrameTokens(place, number, _numbers(sources[1].read(of_levels_bytes), of_levels), field)
        try:
            _check(frame, tables, grid)
        except ValueError as error:
            raise BitstreamError(f"a payload is damaged: {error}") from error
        yield frame
    for source in sources:
        source.finish()


TRAINED_COUNT = 24  # what a slot of the tables counts at most, so that a chunk can change it soon


def train_tables(chunks: Iterable[tuple[Tokens, int]], blocks: tuple[int, int]) -> dict[str, Array]:
    """The tables that chunks of real video leave behind, as `coder.*` arrays.

    Args:
        chunks: tokens and step of each, in random order.
        blocks: dimensions of the blocks: of first frames and of others.

    Raises:
        ValueError: the tokens are malformed.
    """
    arrays = _fresh()
    tables = Tables(blocks, arrays)
    for tokens, step in chunks:
        coder = ChunkEncoder(tables, step, tokens.levels.shape[1], *tokens.levels.shape[2:])
        coder.learn_into(arrays)
        for frame in tokens.in_order():
            coder.add(frame)
    for part in ("motion", "levels"):
        slots = arrays[f"coder.{part}.slots"]
        # The low bits of a probability go too: the file becomes smaller.
        slots[:] = slots & ~np.uint32(0xFFFF) | np.minimum(slots & SLOT_COUNT, TRAINED_COUNT)
    return arrays
