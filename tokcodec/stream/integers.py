"""Integers of a fixed vocabulary to payload bytes and back, lossless. FORMAT.md, "Integers", is the specification.

A payload is the integers in as many bits as they have, under zstd, or binary decisions under the range coder. One
function walks over the decisions for encoder and decoder, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tokcodec.compiled import njit
from tokcodec.dtypes import I32, Array
from tokcodec.errors import BitstreamError
from tokcodec.stream.entropy import MIXED, ROOM, ZSTD
from tokcodec.stream.plain import PlainReader, PlainWriter
from tokcodec.stream.profile import MOTION_BITS, Profile
from tokcodec.stream.pyramid import Place
from tokcodec.stream.rangecoder import (
    OVERRUN,
    Coder,
    code,
    context,
    decoder,
    encoder,
    finish,
    fresh,
    is_finished,
    log_class,
    with_room,
)
from tokcodec.stream.vocabulary import FrameIntegers, Guesses, digits_of, places, step_of

_SAME, _KIND, _BIT, _USED, _ABOVE, _BELOW = range(6)  # kinds of decisions
KINDS = 5  # of motion: four, and a first frame's colours
MOTION_SLOTS, LAYER_SLOTS = 1 << 12, 1 << 16
_BY_SAME, _BY_BIT, _BY_USED, _BY_DIGIT, _THEN = 0, 16, 112, 128, 640
MIXERS = 720


@njit(cache=True, nogil=True, inner=True)
def _set(coder: Coder, number: int, kind: int, a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
    coder.at[number] = context(kind, a, b, c, d, e)


@njit(cache=True, nogil=True, inner=True)
def _tree_bit(coder: Coder, part: int, node: int, near: int, kind: int, bit: Any) -> Any:
    """Code a bit of a number: its place in the number, and how much the numbers around it differ."""
    _set(coder, 0, _BIT, part, node, 0, 0, 0)
    _set(coder, 1, _BIT, part, node, near, 0, 1)
    _set(coder, 2, _BIT, part, node, kind, 0, 2)
    _set(coder, 3, _BIT, part, node, near, kind, 3)
    _set(coder, 4, _BIT, min(part, 2), node, 0, 0, 4)
    _set(coder, 5, _BIT, min(part, 2), node, min(near, 2), 0, 5)
    _set(coder, 6, _BIT, 0, node, 0, 0, 6)
    _set(coder, 7, _BIT, part, min(node, 16), near > 2, 0, 7)
    return code(coder, _BY_BIT + 16 * part + min(node, 15), _THEN + min(near, 7), bit)


@njit(cache=True, nogil=True, inner=True)
def _number(coder: Coder, part: int, guess: int, width: int, near: int, kind: int, wanted: int) -> int:
    """Code a number of so many bits by its difference from a guess, round the corner.

    Its class, the bits of the difference's size, comes in unary, then the sign, then the bits below the highest.
    """
    half = 1 << (width - 1)
    difference = ((wanted - guess + half) & (2 * half - 1)) - half
    size, length = abs(difference), 0
    while size >> length != 0:
        length += 1
    found = 0
    while found < width and _tree_bit(coder, part, found, near, kind, int(length > found)) != 0:
        found += 1
    if found == 0:
        return guess
    negative = _tree_bit(coder, part, 16 + found, near, kind, int(difference < 0))
    value = 1
    for k in range(found - 2, -1, -1):
        node = 32 + 8 * found + k if value > 3 else 128 + 16 * found + value
        value = value << 1 | _tree_bit(coder, part, node, near, kind, size >> k & 1)
    return (guess - value if negative != 0 else guess + value) & (2 * half - 1)


@njit(cache=True, nogil=True, inline="always")
def _ordinal(code: int) -> int:
    """Eight bits of a vector's component in the order of what they stand for."""
    return 127 - (code & 127) if code & 128 else 128 + (code & 127)


@njit(cache=True, nogil=True, inline="always")
def _median(a: int, b: int, c: int) -> int:
    return max(min(a, b), min(max(a, b), c))


@njit(cache=True, nogil=True, inner=True)
def _vector(coder: Coder, left: int, above: int, near: int, kind: int, wanted: int) -> int:
    """Code the vector of a position that takes over none, as its 16 bits."""
    out, spread = 0, 0
    for k in range(2):
        a, b, c = _ordinal(left >> 8 * k & 255), _ordinal(above >> 8 * k & 255), _ordinal(near >> 8 * k & 255)
        guess = _median(a, b, c)
        apart = min(max(a, b, c) - min(a, b, c) + spread, 31)
        found = _number(coder, k, guess, 8, apart // 2, kind, _ordinal(wanted >> 8 * k & 255))
        spread = abs(found - guess)
        out |= (128 | (127 - found) if found < 128 else found - 128) << 8 * k
    return out


@njit(cache=True, nogil=True, inner=True)
def _colour(coder: Coder, left: int, above: int, corner: int, wanted: int) -> int:
    """Code the colour of a position, as its 16 bits."""
    out, near = 0, 0
    for k in range(3):
        shift, width = (0, 6) if k == 0 else (1 + 5 * k, 5)
        half, mask = 1 << (width - 1), (1 << width) - 1
        a, b, c = ((left >> shift) + half) & mask, ((above >> shift) + half) & mask, ((corner >> shift) + half) & mask
        guess = _median(a, b, min(max(a + b - c, 0), mask))
        found = _number(coder, 2 + k, guess, width, min(abs(a - c) + abs(b - c), 15), near,
                        ((wanted >> shift) + half) & mask)  # fmt: skip
        near = min(abs(found - guess), 15)
        out |= ((found + half) & mask) << shift
    return out


@njit(cache=True, nogil=True, inner=True)
def _kind(coder: Coder, left: int, above: int, near: int, kind: int, wanted: int) -> int:
    """Code the two bits of what a position is predicted from."""
    out, node = 0, 1
    for k in range(2):
        bit = _kind_bit(coder, node, left >> 16, above >> 16, near >> 16, kind, wanted >> (1 - k) & 1)
        out, node = out << 1 | bit, node << 1 | bit
    return out


@njit(cache=True, nogil=True, inner=True)
def _kind_bit(coder: Coder, node: int, a: int, b: int, c: int, kind: int, bit: Any) -> Any:
    _set(coder, 0, _KIND, node, kind, 0, 0, 0)
    _set(coder, 1, _KIND, node, kind, a, 0, 1)
    _set(coder, 2, _KIND, node, kind, b, 0, 2)
    _set(coder, 3, _KIND, node, kind, c, 0, 3)
    _set(coder, 4, _KIND, node, kind, a, b, 4)
    _set(coder, 5, _KIND, node, kind, a * 4 + b, c, 5)
    _set(coder, 6, _KIND, node, 0, a, b, 6)
    _set(coder, 7, _KIND, node, 0, c, 0, 7)
    return code(coder, _BY_SAME + 8 + node, _THEN + 16 + kind, bit)


@njit(cache=True, nogil=True, inner=True)
def _same(coder: Coder, trial: int, left: int, above: int, corner: int, agree: int, kind: int, bit: Any) -> Any:
    """Code whether a position takes over a candidate; `left` to `corner`: the numbers of those that others took."""
    _set(coder, 0, _SAME, trial, kind, 0, 0, 0)
    _set(coder, 1, _SAME, trial, kind, left, 0, 1)
    _set(coder, 2, _SAME, trial, kind, above, 0, 2)
    _set(coder, 3, _SAME, trial, left, above, 0, 3)
    _set(coder, 4, _SAME, trial, left, above, corner, 4)
    _set(coder, 5, _SAME, trial, agree, kind, 0, 5)
    _set(coder, 6, _SAME, trial, agree, left, above, 6)
    _set(coder, 7, _SAME, trial, agree, 0, 0, 7)
    return code(coder, _BY_SAME + trial, _THEN + 24 + agree, bit)


@njit(cache=True, nogil=True)
def code_motion(coder: Coder, now: Array, near: Array, merged: Array, kind: int) -> bool:
    """Code the integers of motion of a frame. With a decoder, `now` is zero and is filled.

    Args:
        now: int32 `[1 + h, w + 2]`, with zeros around.
        near: int32 `[h, w]`, what is known of them from the frame's parent.
        merged: int64 `[1 + h, w + 2]` of 4; is filled with the numbers of the candidates taken, 3 for none.
        kind: of the frame, 0 for a first frame (see `pyramid`): its integers are colours.

    Returns:
        Whether all went well: false where the payload is damaged or the buffer full.
    """
    for i in range(1, near.shape[0] + 1):
        if coder.registers[OVERRUN] != 0:
            return False
        for j in range(1, near.shape[1] + 1):
            wanted, left, above, guess = int(now[i, j]), int(now[i, j - 1]), int(now[i - 1, j]), int(near[i - 1, j - 1])
            corner = int(now[i - 1, j - 1])
            if kind == 0:
                if j == 1:
                    left = corner = above
                if i == 1:
                    above = corner = left
                out = _kind(coder, left, above, 0, kind, wanted >> 16) << 16
                now[i, j] = out | _colour(coder, left & 0xFFFF, above & 0xFFFF, corner & 0xFFFF, wanted)
                continue
            agree = (left == above) + 2 * (left == guess) + 4 * (above == guess)
            taken = 3
            for trial in range(3):
                offer = left if trial == 0 else (above if trial == 1 else guess)
                if (trial == 1 and above == left) or (trial == 2 and guess in (left, above)):
                    continue
                if _same(coder, trial, merged[i, j - 1], merged[i - 1, j], merged[i - 1, j + 1], agree, kind,
                         int(wanted == offer)) != 0:  # fmt: skip
                    taken = trial
                    now[i, j] = offer
                    break
            merged[i, j] = taken
            if taken == 3:
                out = _kind(coder, left, above, guess, kind, wanted >> 16)
                if out == 3:
                    low = _colour(coder, left & 0xFFFF if left >> 16 == 3 else 0, above & 0xFFFF if above >> 16 == 3
                                  else 0, 0, wanted)  # fmt: skip
                else:
                    low = _vector(coder, left, above, guess, kind, wanted)
                now[i, j] = out << 16 | low
    return True


@njit(cache=True, nogil=True, inner=True)
def _used(coder: Coder, layer: int, a: int, b: int, c: int, p: int, q: int, before: int, last: int, under: int,
          kind: int, step: int, bit: Any) -> Any:  # fmt: skip
    """Code whether an integer is above 0."""
    _set(coder, 0, _USED, layer, kind, 0, 0, 0)
    _set(coder, 1, _USED, layer, a, b, c, 1)
    _set(coder, 2, _USED, layer, p, q, kind, 2)
    _set(coder, 3, _USED, layer, a + b + c, before, last, 3)
    _set(coder, 4, _USED, layer, a + b + c + 4 * p, q, before, 4)
    _set(coder, 5, _USED, layer, step, before, kind, 5)
    _set(coder, 6, _USED, layer, under, last, a + b + c, 6)
    _set(coder, 7, _USED, layer, a + b, before, under, 7)
    return code(coder, _BY_USED + layer, _THEN + 32 + min(a + b + c, 7), bit)


@njit(cache=True, nogil=True, inner=True)
def _digit_bit(coder: Coder, is_below: int, place: int, left: int, above: int, past: int, parent: int, far: int,
               so_far: int, before: int, count: int, digit: int, kind: int, step: int, bit: Any) -> Any:  # fmt: skip
    """Code a bit of an integer.

    `left` to `so_far` are levels of the same dimension, in units of the digit; `before` the last digits, `digit` the
    other bit of this one.
    """
    what, so_far = _ABOVE + is_below, so_far * 2 + digit
    _set(coder, 0, what, place, kind, so_far, 0, 0)
    _set(coder, 1, what, place, left, above, so_far, 1)
    _set(coder, 2, what, place, past, parent, kind * 2 + digit, 2)
    _set(coder, 3, what, place, so_far, count, 0, 3)
    _set(coder, 4, what, place, far, so_far, kind, 4)
    _set(coder, 5, what, place, before, so_far, 0, 5)
    _set(coder, 6, what, place, step, so_far, kind, 6)
    _set(coder, 7, what, far, count, so_far, place // 16, 7)
    return code(coder, _BY_DIGIT + 2 * place + is_below, _THEN + 40 + min(far, 7) + 8 * (is_below + digit), bit)


@njit(cache=True, nogil=True, inline="always")
def _in(level: int, weight: int) -> int:
    """A level in so many steps, rounded: -3 to 3, plus 3."""
    size = min((2 * abs(level) + weight - 1) // (2 * weight), 3)
    return 3 - size if level < 0 else 3 + size


@njit(cache=True, nogil=True)
def code_layers(
    coder: Coder, now: Array, levels: Array, past: Array, parent: Array, dimensions: Array, weights: Array,
    under: Array, kind: int, step: int,
) -> bool:  # fmt: skip
    """Code the lookup-free integers of a frame. With a decoder, `now` is zero and is filled.

    Args:
        now: int32 `[1 + h, w + 2, depth]`, with zeros around.
        levels: int32 `[1 + h, w + 2, dimensions]`, zero; is filled with what the integers stand for.
        past, parent: alike, of the frame of this kind and distance that was coded last, and of the parent; zeros where
            there is none.
        dimensions, weights: of the digits, as `vocabulary.Digits` has them.
        under: int64 `[1 + h, w + 2]`, class of the motion of each position, below 16.
        kind: of the frame, 0 for a first frame.
        step: class of its step.

    Returns:
        Whether all went well: false where the payload is damaged or the buffer full.
    """
    depth = now.shape[2]
    digits = dimensions.shape[0] // depth
    for i in range(1, now.shape[0]):
        if coder.registers[OVERRUN] != 0:
            return False
        for j in range(1, now.shape[1] - 1):
            before = last = 0
            for layer in range(depth):
                a, b, c = (int(now[i, j - 1, layer] != 0), int(now[i - 1, j, layer] != 0),
                           int(now[i - 1, j + 1, layer] != 0))  # fmt: skip
                p = q = 0
                for k in range(layer * digits, (layer + 1) * digits):
                    d, weight = dimensions[k], weights[k]
                    p, q = p + (2 * abs(past[i, j, d]) > weight), q + (2 * abs(parent[i, j, d]) > weight)
                is_used = _used(
                    coder, layer, a, b, c, min(p, 3), min(q, 3), before, last, under[i, j], kind, step,
                    int(now[i, j, layer] != 0),
                )  # fmt: skip
                before, last = before + is_used, last << 1 & 3 | is_used
                if is_used != 0:
                    part = slice(layer * digits, (layer + 1) * digits)
                    now[i, j, layer] = _integer(
                        coder, levels, past, parent, i, j, layer, dimensions[part], weights[part], kind, step,
                        now[i, j, layer],
                    )  # fmt: skip
    return True


@njit(cache=True, nogil=True, inner=True)
def _integer(
    coder: Coder, levels: Array, past: Array, parent: Array, i: int, j: int, layer: int, dimensions: Array,
    weights: Array, kind: int, step: int, wanted: int,
) -> int:  # fmt: skip
    """Code an integer that is above 0, and add to the levels what it stands for."""
    own = levels[i, j]
    out = count = before = 0
    for k in range(dimensions.shape[0]):
        d, weight = dimensions[k], weights[k]
        left, above = _in(levels[i, j - 1, d], weight), _in(levels[i - 1, j, d], weight)
        then, under = _in(past[i, j, d], weight), _in(parent[i, j, d], weight)
        far = abs(left - 3) + abs(above - 3) + abs(_in(levels[i - 1, j + 1, d], weight) - 3) + abs(then - 3)
        far, so_far, digit = min(far + abs(under - 3), 15), _in(own[d], weight), 0
        for is_below in range(2):
            bit = _digit_bit(
                coder, is_below, 16 * layer + k, left, above, then, under, far, so_far, before, min(count, 7), digit,
                kind, step, wanted >> (2 * k + is_below) & 1,
            )  # fmt: skip
            out |= bit << (2 * k + is_below)
            digit += bit if is_below == 0 else -bit
            count += bit
        own[d] += digit * weight
        before = before % 9 * 3 + digit + 1
    return out


class _Walk:
    """Goes over the frames of a chunk with two arithmetic coders, the same way for encoder and decoder.

    Args:
        profile: what an integer says.
        step: of the chunk, in 1/16 level.
        h, w: the grid.
        motion, layers: coders.
    """

    def __init__(self, profile: Profile, step: int, h: int, w: int, motion: Coder, layers: Coder) -> None:
        self.motion, self.layers = motion, layers
        self._profile, self._step, self._grid = profile, step, (h, w)
        self._guesses = Guesses(h, w)
        self._digits = digits_of(profile)
        self._blank = np.zeros((1 + h, w + 2, 1 + int(self._digits.dimensions.max())), np.int32)
        self._past: dict[tuple[int, int], Array] = {}  # levels by kind and distance
        self._parents: dict[int, Array] = {}

    def frame(self, place: Place | None, wanted: I32 | None) -> I32 | None:
        """Code the integers of a frame; None if that fails."""
        (h, w), kind = self._grid, place.kind if place else 0
        ints = np.zeros((1 + h, w + 2, self._profile.streams), np.int32)
        if wanted is not None:
            ints[1:, 1:-1] = wanted
        motion, layers = (np.ascontiguousarray(part) for part in (ints[..., -1], ints[..., :-1]))
        near = self._guesses.of(place) if place else np.zeros((h, w), np.int32)
        merged = np.full(motion.shape, 4, np.int64)
        if not code_motion(self.motion, motion, near, merged, kind):
            return None
        key = kind, place.distance if place else 0
        past = self._past.get(key, self._blank)
        parent = self._parents.get(place.parent, self._blank) if place else self._blank
        levels, step = np.zeros_like(self._blank), log_class(step_of(place, self._step, self._profile))
        under = (merged & 3) * 4 + (motion >> 16)
        if not code_layers(self.layers, layers, levels, past, parent, *self._digits, under, kind, step):
            return None
        self._past[key] = levels
        if place:
            self._guesses.add(place, np.ascontiguousarray(motion[1:, 1:-1]))
            if place.depth == 0:
                self._parents.clear()
            self._parents[place.frame] = levels
        return np.concatenate([layers, motion[..., None]], -1)[1:, 1:-1]


class ChunkEncoder:
    """Codes a chunk frame by frame.

    Args:
        profile: what an integer says.
        step: of the chunk, in 1/16 level.
        h, w: the grid.
    """

    def __init__(self, profile: Profile, step: int, h: int, w: int) -> None:
        self._profile, self._grid = profile, (h, w)
        self._walk = _Walk(
            profile, step, h, w, *(encoder(*fresh(slots, MIXERS), 0) for slots in (MOTION_SLOTS, LAYER_SLOTS))
        )
        self._plain = PlainWriter(), PlainWriter()

    def add(self, frame: FrameIntegers) -> None:
        """Code the next frame in the order of coding.

        Raises:
            ValueError: its integers have another shape or type, or one is out of range.
        """
        ints, (h, w) = frame.ints, self._grid
        check_ints(ints[None], self._profile, h, w)
        walk = self._walk
        walk.motion = with_room(walk.motion, ROOM + 96 * h * w)
        walk.layers = with_room(walk.layers, ROOM + 4 * self._profile.bits * self._profile.depth * h * w)
        coded = walk.frame(frame.place, ints)
        assert coded is not None  # there is room
        for part, streams in ((0, ints[..., -1:]), (1, ints[..., :-1])):
            data = packed(streams, MOTION_BITS if part == 0 else self._profile.bits)
            self._plain[part].write(data)

    def payloads(self) -> dict[int, tuple[bytes, bytes]]:
        """What each coder makes of all frames: payloads of motion and of the lookup-free integers."""
        motion, layers = finish(self._walk.motion), finish(self._walk.layers)
        assert motion is not None
        assert layers is not None  # there was room
        return {MIXED: (motion, layers), ZSTD: (self._plain[0].finish(), self._plain[1].finish())}

    def finish(self) -> tuple[int, bytes, bytes]:
        """The smaller one, with its coder id before it."""
        payloads = self.payloads()
        coder = min(payloads, key=lambda coder: sum(map(len, payloads[coder])))
        return coder, *payloads[coder]


def check_ints(ints: Array, profile: Profile, h: int, w: int) -> None:
    """Refuse what are no integers `[t, h, w, depth + 1]` of a profile.

    Raises:
        ValueError: they have another shape or type, or one is out of range.
    """
    if ints.dtype != np.int32 or ints.ndim != 4 or ints.shape[1:] != (h, w, profile.streams):
        raise ValueError(f"tokens are {ints.dtype} {list(ints.shape)}, not int32 [t, {h}, {w}, {profile.streams}]")
    if (ints < 0).any() or (ints >> np.array(profile.widths, np.int32)).any():
        raise ValueError(f"tokens are not below 2^{profile.bits}, or the last of a position not below 2^{MOTION_BITS}")


def packed(ints: I32, bits: int) -> bytes:
    """Integers `[h, w, n]` in so many bits each, one of n after the other; the first bit is a byte's lowest."""
    flat = ints.transpose(2, 0, 1).reshape(-1, 1)
    return np.packbits((flat >> np.arange(bits, dtype=np.int32) & 1).astype(np.uint8), bitorder="little").tobytes()


def unpacked(data: bytes, bits: int, h: int, w: int, n: int) -> I32:
    """The inverse of `packed`, of as many bytes as it makes."""
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=h * w * n * bits, bitorder="little").reshape(-1, bits)
    ints: I32 = (flat.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(1, dtype=np.int32)
    return ints.reshape(n, h, w).transpose(1, 2, 0)


def in_order(ints: I32) -> Iterator[FrameIntegers]:
    """The frames of a chunk, int32 `[F, h, w, depth + 1]` as they are shown, in the order of coding."""
    yield FrameIntegers(None, ints[0])
    for place in places(len(ints)):
        yield FrameIntegers(place, ints[place.frame])


def encode_chunk(ints: I32, step: int, profile: Profile) -> tuple[int, bytes, bytes]:
    """Code a chunk.

    Args:
        ints: int32 `[F, h, w, depth + 1]`, in the order they are shown.
        step: of the quantizer, in 1/16 level.
        profile: what an integer says.

    Returns:
        Coder id, motion payload and payload of the lookup-free integers.

    Raises:
        ValueError: they are no integers of the profile.
    """
    coder = ChunkEncoder(profile, step, *ints.shape[1:3])
    for frame in in_order(ints):
        coder.add(frame)
    return coder.finish()


def decode_frames(
    coder: int, motion: bytes, layers: bytes, frames: int, h: int, w: int, step: int, profile: Profile
) -> Iterator[FrameIntegers]:
    """The inverse of `ChunkEncoder`, for payloads of any origin. Time and memory follow from the sizes alone.

    Args:
        coder: coder id.
        motion, layers: payloads.
        frames, h, w: frames of the chunk, and the grid.
        step: of the quantizer, in 1/16 level.
        profile: what an integer says.

    Yields:
        The frames in the order of coding.

    Raises:
        BitstreamError: the coder is unknown, or a payload is not exactly what codes such a chunk.
    """
    order = (None, *places(frames))
    if coder == ZSTD:
        yield from _from_plain(motion, layers, order, h, w, profile)
        return
    if coder != MIXED:
        raise BitstreamError(f"payload coder {coder} is not known to this version")
    walk = _Walk(
        profile, step, h, w, decoder(*fresh(MOTION_SLOTS, MIXERS), motion), decoder(*fresh(LAYER_SLOTS, MIXERS), layers)
    )
    for place in order:
        ints = walk.frame(place, None)
        if ints is None:
            raise BitstreamError("a payload of integers is damaged")
        yield FrameIntegers(place, ints)
    if not (is_finished(walk.motion) and is_finished(walk.layers)):
        raise BitstreamError("a payload of integers is damaged")


def _from_plain(
    motion: bytes, layers: bytes, order: tuple[Place | None, ...], h: int, w: int, profile: Profile
) -> Iterator[FrameIntegers]:
    """Frames from payloads of zstd."""
    shapes = (MOTION_BITS, 1), (profile.bits, profile.depth)
    sources = PlainReader(motion), PlainReader(layers)
    for place in order:
        parts = [
            unpacked(source.read(-(-h * w * n * bits // 8)), bits, h, w, n)
            for source, (bits, n) in zip(sources, shapes, strict=True)
        ]
        yield FrameIntegers(place, np.concatenate(parts[::-1], -1))
    for source in sources:
        source.finish()


def decode_chunk(
    coder: int, motion: bytes, layers: bytes, frames: int, h: int, w: int, step: int, profile: Profile
) -> I32:
    """`decode_frames`, all of them as one, int32 `[F, h, w, depth + 1]` in the order they are shown."""
    ints = np.zeros((frames, h, w, profile.streams), np.int32)
    for frame in decode_frames(coder, motion, layers, frames, h, w, step, profile):
        ints[frame.place.frame if frame.place else 0] = frame.ints
    return ints
