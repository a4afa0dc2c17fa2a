"""Tokens to payload bytes and back, lossless. FORMAT.md, "Coded payloads", is the specification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray

from tokcodec.errors import BitstreamError, ModelError
from tokcodec.stream import levels as level_model
from tokcodec.stream import modes, trees
from tokcodec.stream.fields import MAX_CANDIDATES, MAX_VECTOR, UNKNOWN
from tokcodec.stream.rangecoder import (
    FRESH_SLOT,
    FRESH_WEIGHT,
    INPUTS,
    SLOT_COUNT,
    Coder,
    decoder,
    encoder,
    finish,
    is_finished,
    log_class,
)

ZSTD, MIXED = 0, 1  # coder ids
GROUP_FRAMES = 4
LEVEL_SLOTS, MOTION_SLOTS = 1 << 16, 1 << 12

Array = NDArray[Any]
I16 = NDArray[np.int16]
I64 = NDArray[np.int64]


class Tokens(NamedTuple):
    """A chunk of 1 + n groups (the first frame, then four frames each), on 16x16 pixels a position.

    Attributes:
        levels: int16 `[D, 1 + n, h, w]`, quantized coefficients. In the first group the intra block fills the first
            dimensions, and behind it stand the 19 modes (see `modes`); in the others the key frame's block does, and
            behind it stands that of the frames between.
        motion: int16 `[4 n, 5, 2 h, 2 w]`, per group of the key frame and then the three between. Channels: vector y,
            vector x (-1023 to 1023), kind (0 to 2), depth (0 is a block of 64 pixels, 3 of 8), merge (number of the
            candidate, -1 if the vector is explicit).
    """

    levels: I16
    motion: I16


class Tables(NamedTuple):
    """What a coder knows at the start of a chunk.

    Attributes:
        blocks: dimensions of the blocks: intra, key, between.
        arrays: `coder.levels.slots` and `coder.motion.slots`, uint32 `[INPUTS, slots]`; `coder.levels.weights` and
            `coder.motion.weights` of the mixers, int32 `[mixers, INPUTS + 1]`.
    """

    blocks: tuple[int, int, int]
    arrays: dict[str, Array]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], blocks: tuple[int, int, int]) -> Tables:
        """Tables from the `coder.*` of a weights file; those that are missing know nothing.

        Raises:
            ModelError: a table has another shape or type, or a block is too large.
        """
        if not all(0 < size <= level_model.MAX_SIZE for size in blocks):
            raise ModelError(f"blocks of {blocks} dimensions cannot be coded")
        found = {}
        for name, fresh in _fresh().items():
            table = arrays.get(name, fresh)
            if table.shape != fresh.shape or table.dtype != fresh.dtype:
                raise ModelError(f"{name} is {table.dtype} {table.shape}, not {fresh.dtype} {fresh.shape}")
            found[name] = table
        return cls(blocks, found)

    @property
    def dims(self) -> int:
        """D of the levels."""
        return max(self.blocks[0] + modes.ROWS, self.blocks[1] + self.blocks[2])

    def start(self, part: str) -> tuple[Array, Array]:
        """Copies of slots and weights for a chunk."""
        return self.arrays[f"coder.{part}.slots"].copy(), self.arrays[f"coder.{part}.weights"].copy()


def _fresh() -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    sizes = {"levels": (LEVEL_SLOTS, modes.MIXERS), "motion": (MOTION_SLOTS, trees.MIXERS)}
    for part, (slots, mixers) in sizes.items():
        arrays[f"coder.{part}.slots"] = np.full((INPUTS, slots), FRESH_SLOT, np.uint32)
        arrays[f"coder.{part}.weights"] = np.full((mixers, INPUTS + 1), FRESH_WEIGHT, np.int32)
        arrays[f"coder.{part}.weights"][:, INPUTS] = 0
    return arrays


def _code_motion(coder: Coder, wanted: I16 | None, motion: I16) -> bool:
    """Code the fields; `motion` is filled."""
    motion[:, 2] = UNKNOWN
    for f in range(len(motion)):
        role = f % GROUP_FRAMES
        key, last = (f - role, f - 1) if role else (f - GROUP_FRAMES, f - GROUP_FRAMES)
        field = motion[f] if wanted is None else wanted[f]
        if not trees.code_field(coder, field, motion[f], motion[key], motion[last], f > 0, role):
            return False
    return True


def _places(motion: I16, group: int, h: int, w: int) -> I64:
    """Classes of the motion of a group's positions, int64 `[2, h, w]`: under the key frame, under those between."""
    places = np.zeros((2, h, w), np.int64)
    fields = motion[GROUP_FRAMES * (group - 1) : GROUP_FRAMES * group].astype(np.int64)
    cells = fields.reshape(GROUP_FRAMES, 5, h, 2, w, 2)[:, :, :, 0, :, 0]
    for block, part in enumerate((cells[:1], cells[1:])):
        depth, merged = part[:, 3].max(0), (part[:, 4] >= 0).sum(0)
        moves = np.minimum(np.abs(part[:, :2]).sum(1).max(0), 5) > 4
        places[block] = ((depth * 4 + merged) * 2 + moves) * 3 + part[len(part) // 2, 2]
    return places


def _code_levels(coder: Coder, wanted: I16 | None, levels: I16, motion: I16, tables: Tables, step: int) -> bool:
    """Code the modes and the levels; with a decoder, `levels` is filled."""
    dims, groups, h, w = levels.shape
    step_class, intra = log_class(step), slice(tables.blocks[0], tables.blocks[0] + modes.ROWS)
    found = np.zeros((modes.ROWS, h, w), np.int16)
    if not modes.code_modes(coder, found if wanted is None else wanted[intra, 0], found, step_class):
        return False
    now, before = np.zeros((2, 1 + h, w + 2, dims), np.int32)  # int16 would overflow in compiled code
    info, info_before = np.zeros((2, 2, 1 + h, w + 2, 1 + level_model.MAX_RUNS), np.int64)
    for t in range(groups):
        now[:], info[:] = 0, 0
        if t == 1:
            before[:], info_before[:] = 0, 0  # another block
        inner = now[1:, 1:-1]
        if wanted is not None:
            inner[:] = wanted[:, t].transpose(1, 2, 0)
        places = _places(motion, t, h, w) if t else modes.places(found)
        if not level_model.code_group(
            coder, now, before, info, info_before, places, t == 0, tables.blocks, step_class
        ):  # fmt: skip
            return False
        levels[:, t] = inner.transpose(2, 0, 1)
        now, before, info, info_before = before, now, info_before, info
    levels[intra, 0] = found
    return True


def shapes(frames: int, height: int, width: int, dims: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of levels and motion of a chunk, whose frames have `height` x `width` pixels."""
    n, h, w = -(-(frames - 1) // GROUP_FRAMES), -(-height // 16), -(-width // 16)
    return (dims, 1 + n, h, w), (GROUP_FRAMES * n, 5, 2 * h, 2 * w)


def _check(tokens: Tokens, tables: Tables) -> None:
    levels, motion = tokens
    if levels.dtype != np.int16 or motion.dtype != np.int16 or levels.ndim != 4:
        raise ValueError("tokens must be int16 levels [D, t, h, w] and motion [4 (t - 1), 5, 2 h, 2 w]")
    d, t, h, w = levels.shape
    if motion.shape != (GROUP_FRAMES * (t - 1), 5, 2 * h, 2 * w) or d != tables.dims or 0 in (t, h, w):
        raise ValueError(f"levels {levels.shape} and motion {motion.shape} do not fit blocks {tables.blocks}")
    behind = tables.blocks[0] + modes.ROWS
    if levels[behind:, 0].any() or levels[tables.blocks[1] + tables.blocks[2] :, 1:].any():
        raise ValueError("levels stand outside of their block")
    if not modes.are_modes(levels[tables.blocks[0] : behind, 0]):
        raise ValueError("the modes of the first frame are none, or differ within a square")


def _encode(part: str, tokens: Tokens, step: int, tables: Tables) -> bytes:
    capacity = 4096 + (tokens.levels.size // 16 if part == "levels" else tokens.motion.size)
    while (payload := _run(part, encoder(*tables.start(part), capacity), tokens, step, tables)) is None:
        capacity *= 4
    return payload


def _run(part: str, coder: Coder, tokens: Tokens, step: int, tables: Tables) -> bytes | None:
    """The payload of a part of the tokens; None if the encoder's buffer is too small."""
    if part == "levels":
        is_sound = _code_levels(coder, tokens.levels, np.empty_like(tokens.levels), tokens.motion, tables, step)
    else:
        coded = np.zeros_like(tokens.motion)
        is_sound = _code_motion(coder, tokens.motion, coded)
        if is_sound and not np.array_equal(coded, tokens.motion):
            raise ValueError("the motion is no quad-tree of blocks and their candidates")
    payload = finish(coder)
    if payload is not None and not is_sound:
        raise ValueError("the motion has vectors out of range")
    return payload


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
    _check(tokens, tables)
    motion, levels = (_encode(part, tokens, step, tables) for part in ("motion", "levels"))
    plain_motion, plain_levels = _plain(tokens.motion), _plain(tokens.levels)
    if len(motion) + len(levels) <= len(plain_motion) + len(plain_levels):
        return MIXED, motion, levels
    return ZSTD, plain_motion, plain_levels


def decode_chunk(
    coder: int, motion: bytes, levels: bytes, frames: int, height: int, width: int, step: int, tables: Tables
) -> Tokens:
    """The inverse of `encode_chunk`, for payloads of any origin. Time and memory follow from the sizes alone.

    Args:
        coder: coder id.
        motion, levels: payloads.
        frames, height, width: of the chunk, in pixels, without padding.
        step: of the quantizer, in 1/16 level.
        tables: those of the encoder.

    Raises:
        BitstreamError: the coder is unknown, or a payload is not exactly what codes such a chunk.
    """
    of_levels, of_motion = shapes(frames, height, width, tables.dims)
    if coder == ZSTD:
        tokens = Tokens(_from_plain(levels, of_levels), _from_plain(motion, of_motion))
        try:
            _check(tokens, tables)
        except ValueError as error:
            raise BitstreamError(f"a payload is damaged: {error}") from error
        low, high = (np.array(bound, np.int16)[:, None, None] for bound in _BOUNDS)
        if ((tokens.motion < low) | (tokens.motion > high)).any():
            raise BitstreamError("a motion payload is damaged")
        return tokens
    if coder != MIXED:
        raise BitstreamError(f"payload coder {coder} is not known to this version")
    tokens = Tokens(np.zeros(of_levels, np.int16), np.zeros(of_motion, np.int16))
    state = decoder(*tables.start("motion"), motion)
    if not (_code_motion(state, None, tokens.motion) and is_finished(state)):
        raise BitstreamError("a motion payload is damaged")
    state = decoder(*tables.start("levels"), levels)
    if not (_code_levels(state, None, tokens.levels, tokens.motion, tables, step) and is_finished(state)):
        raise BitstreamError("a levels payload is damaged")
    return tokens


_BOUNDS = ((-MAX_VECTOR, -MAX_VECTOR, 0, 0, -1), (MAX_VECTOR, MAX_VECTOR, 2, 3, MAX_CANDIDATES - 1))


def _plain(array: I16) -> bytes:
    """Low bytes, then high bytes, of the zigzag forms, as one zstd frame."""
    zigzag = ((array << 1) ^ (array >> 15)).view(np.uint16)
    planes = (zigzag & 255).astype(np.uint8).tobytes() + (zigzag >> 8).astype(np.uint8).tobytes()
    return zstandard.ZstdCompressor(3).compress(planes)


def _from_plain(payload: bytes, shape: tuple[int, ...]) -> I16:
    size = 2 * int(np.prod(shape))
    try:
        # zstd allocates what the frame declares: look before.
        declared = zstandard.frame_content_size(payload)
        if declared != size:
            raise BitstreamError(f"a zstd payload declares {declared} bytes where {size} are due")
        data = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BitstreamError(f"a zstd payload is damaged: {error}") from error
    low, high = np.frombuffer(data, np.uint8).reshape(2, *shape).astype(np.uint16)
    zigzag = low | high << 8
    array: I16 = ((zigzag >> 1) ^ -(zigzag & 1)).view(np.int16)
    return array


TRAINED_COUNT = 24  # what a slot of the tables counts at most, so that a chunk can change it soon


def train_tables(chunks: Iterable[tuple[Tokens, int]], blocks: tuple[int, int, int]) -> dict[str, Array]:
    """The tables that chunks of real video leave behind, as `coder.*` arrays.

    Args:
        chunks: tokens and step of each, in random order.
        blocks: dimensions of the blocks: intra, key, between.

    Raises:
        ValueError: the tokens are malformed.
    """
    arrays = _fresh()
    tables = Tables(blocks, arrays)
    for tokens, step in chunks:
        _check(tokens, tables)
        for part in ("motion", "levels"):
            slots, weights = arrays[f"coder.{part}.slots"], arrays[f"coder.{part}.weights"]
            _run(part, encoder(slots, weights, 2 * tokens.levels.size + 4096), tokens, step, tables)
    for part in ("motion", "levels"):
        slots = arrays[f"coder.{part}.slots"]
        # The low bits of a probability go too: the file becomes smaller.
        slots[:] = slots & ~np.uint32(0xFFFF) | np.minimum(slots & SLOT_COUNT, TRAINED_COUNT)
    return arrays
