"""Tokens to payload bytes and back, lossless. FORMAT.md, "Coded payloads", is the specification.

Each decision is coded under contexts from what is coded already: the neighbours in picture and time, the dimensions
before, the motion of the place. One function walks over the decisions for encoder and decoder, so that they cannot
differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import zstandard
from numba import njit
from numpy.typing import NDArray

from tokcodec.errors import BitstreamError, ModelError
from tokcodec.stream.fields import BOTH, MAX_CANDIDATES, MAX_VECTOR, SECOND, UNKNOWN, candidates, predicted
from tokcodec.stream.rangecoder import (
    DECODING,
    FRESH_SLOT,
    FRESH_WEIGHT,
    INPUTS,
    OVERRUN,
    SLOT_BITS,
    SLOT_COUNT,
    Coder,
    code,
    code_raw,
    context,
    decoder,
    encoder,
    finish,
    is_finished,
)

ZSTD, MIXED = 0, 1  # coder ids
GROUP_FRAMES = 4
CELLS = 8  # across a coding tree of 64 pixels

Array = NDArray[Any]
I16 = NDArray[np.int16]
I64 = NDArray[np.int64]


class Tokens(NamedTuple):
    """A chunk of 1 + n groups (the first frame, then four frames each), on 16x16 pixels a position.

    Attributes:
        levels: int16 `[D, 1 + n, h, w]`, quantized coefficients. In the first group the intra block fills the first
            dimensions; in the others the key frame's block does, and behind it stands that of the frames between.
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
        arrays: slots uint32 `[INPUTS, 2 ** SLOT_BITS]` and mixer weights int32 `[mixers, INPUTS + 1]`, of the levels
            and of the motion.
    """

    blocks: tuple[int, int, int]
    arrays: dict[str, Array]

    @classmethod
    def of(cls, arrays: Mapping[str, Array], blocks: tuple[int, int, int]) -> Tables:
        """Tables from the `coder.*` of a weights file; those that are missing know nothing.

        Raises:
            ModelError: a table has another shape or type.
        """
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
        return max(self.blocks[0], self.blocks[1] + self.blocks[2])

    def start(self, part: str) -> tuple[Array, Array]:
        """Copies of slots and weights for a chunk."""
        return self.arrays[f"coder.{part}.slots"].copy(), self.arrays[f"coder.{part}.weights"].copy()


# Bounds of the runs of dimensions that are empty or not as a whole; the last one ends with the block.
RUNS = np.array([0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1 << 20], np.int64)
MAX_RUNS = 20
SIGNED = 32  # dimensions below it have signs with contexts
UNARY = 14  # magnitudes above are escaped

# Kinds of decisions of levels and the first mixer of each.
_USED, _RUN, _SIGNIFICANT, _MORE, _SIGN, _ESCAPE = range(6)
_LEVEL_MIXERS = 768
_MOTION_MIXERS = 128


def _fresh() -> dict[str, Array]:
    def slots() -> Array:
        return np.full((INPUTS, 1 << SLOT_BITS), FRESH_SLOT, np.uint32)

    def weights(mixers: int) -> Array:
        return np.full((mixers, INPUTS + 1), FRESH_WEIGHT, np.int32) * (np.arange(INPUTS + 1) < INPUTS).astype(np.int32)

    return {
        "coder.levels.slots": slots(),
        "coder.levels.weights": weights(_LEVEL_MIXERS),
        "coder.motion.slots": slots(),
        "coder.motion.weights": weights(_MOTION_MIXERS),
    }


@njit(cache=True, nogil=True, inline="always")
def _log(n: int) -> int:
    """0, 1, 2, 3, then in steps of a half octave: the class of a count."""
    if n < 4:
        return n
    bits = 2
    while n >> (bits + 1) != 0:
        bits += 1
    return 2 * bits + ((n >> (bits - 1)) & 1)


@njit(cache=True, nogil=True, inline="always")
def _mix(a: int, b: int, c: int, d: int, e: int, f: int) -> int:
    """A number of up to six small ones, a below 2^10, the others below 2^10."""
    return ((((a << 10 | b) << 10 | c) << 10 | d) << 10 | e) << 10 | f


@njit(cache=True, nogil=True)
def _level_group(
    coder: Coder, now: I16, before: I16, info: I64, info_before: I64, place: I64,
    is_first: bool, sizes: tuple[int, int, int], step: int,
) -> bool:  # fmt: skip
    """Code the levels of a group. With a decoder, `now` is zero and filled.

    Args:
        now, before: `[1 + h, w + 2, D]`, levels of this group and the one before, bordered by zeros above and beside.
        info, info_before: `[2, 1 + h, w + 2, 1 + MAX_RUNS]`, of each block: runs used, and then magnitudes per run.
        place: `[2, h, w]`, of each block, class of the motion, below 1024.
        is_first: the group is the first, of an intra block.
        sizes: dimensions of intra, key and between.
        step: class of the step.

    Returns:
        Whether all values are within bounds.
    """
    rows, columns = place.shape[1:]
    for i in range(1, rows + 1):
        if coder.registers[OVERRUN] != 0:
            return False
        for j in range(1, columns + 1):
            for part in range(1 if is_first else 2):
                block = 0 if is_first else 1 + part
                offset = sizes[1] if block == 2 else 0
                motion = place[part, i - 1, j - 1]
                if not _block(coder, now, before, info, info_before, i, j, block, offset, sizes[block], step, motion):
                    return False
    return True


@njit(cache=True, nogil=True)
def _block(
    coder: Coder, now: I16, before: I16, info: I64, info_before: I64,
    i: int, j: int, block: int, offset: int, size: int, step: int, motion: int,
) -> bool:  # fmt: skip
    """Code a block of a position; see `_level_group`."""
    decoding = coder.registers[DECODING] != 0
    part = 1 if block == 2 else 0
    x, key = now[i, j, offset : offset + size], now[i, j, :offset]
    left, up = now[i, j - 1, offset : offset + size], now[i - 1, j, offset : offset + size]
    corner, right = now[i - 1, j - 1, offset : offset + size], now[i - 1, j + 1, offset : offset + size]
    past = before[i, j, offset : offset + size]
    own, ikey, ipast = info[part, i, j], info[0, i, j], info_before[part, i, j]
    ileft, iup, icorner, iright = (
        info[part, i, j - 1],
        info[part, i - 1, j],
        info[part, i - 1, j - 1],
        info[part, i - 1, j + 1],
    )
    runs = 0
    while RUNS[runs] < size:
        runs += 1
    used = 0
    if not decoding:
        for d in range(size - 1, -1, -1):
            if x[d] != 0:
                while RUNS[used] <= d:
                    used += 1
                break
    # How many runs are used.
    around = ileft[0] + iup[0] + iright[0] + icorner[0]
    mass = 0
    for g in range(1, MAX_RUNS):
        mass += 2 * (ileft[g] + iup[g]) + iright[g] + icorner[g] + 2 * ipast[g]
    mass = _log(mass)
    keyed = ikey[0] if block == 2 else 0
    g = 0
    while g < runs:
        context(coder, 0, _mix(0, block, g, step, 0, 0))
        context(coder, 1, _mix(0, block, g, ileft[0], iup[0], 0))
        context(coder, 2, _mix(0, block, g, ipast[0], max(ileft[0], iup[0]), keyed))
        context(coder, 3, _mix(0, block, g, mass, keyed, 0))
        context(coder, 4, _mix(0, block, g, motion, ipast[0] > g, keyed > 0))
        context(coder, 5, _mix(0, block, g, ipast[0], keyed, 1))
        context(coder, 6, _mix(0, block, g, around, ipast[0], 2))
        context(coder, 7, _mix(0, block, g, iright[0], icorner[0], (iup[0] > g) * 2 + (ileft[0] > g)))
        if code(coder, block * 20 + g, 640 + around, used > g) == 0:
            break
        g += 1
    used = g
    own[0] = used
    count, largest, history = 0, 0, 0
    for g in range(used):
        begin, end = RUNS[g], min(RUNS[g + 1], size)
        run_mass = 2 * (ileft[1 + g] + iup[1 + g]) + iright[1 + g] + icorner[1 + g]
        if g < used - 1:
            bit = 0
            if not decoding:
                for d in range(begin, end):
                    if x[d] != 0:
                        bit = 1
                        break
            b = 3 * g + block
            context(coder, 0, _mix(1, b, used, step, 0, 0))
            context(coder, 1, _mix(1, b, history & 15, 0, 0, 0))
            context(coder, 2, _mix(1, b, min(ileft[1 + g], 15), min(iup[1 + g], 15), 0, 0))
            context(coder, 3, _mix(1, b, _log(run_mass), _log(ipast[1 + g]), 0, 0))
            context(coder, 4, _mix(1, b, used, _log(count), min(largest, 7), 0))
            context(coder, 5, _mix(1, b, _log(ipast[1 + g]), used, 1, 0))
            context(coder, 6, _mix(1, b, _log(run_mass), used, 0, 0))
            context(coder, 7, _mix(1, b, motion, min(run_mass, 2), 0, 0))
            bit = code(coder, 60 + block * 20 + g, 400 + block * 20 + used, bit)
            history = history << 1 | bit
            if bit == 0:
                continue
        run_count = 0
        for d in range(begin, end):
            value = np.int64(x[d])
            magnitude = abs(value)
            l, u, c, r, p = (
                np.int64(left[d]),
                np.int64(up[d]),
                np.int64(corner[d]),
                np.int64(right[d]),
                np.int64(past[d]),
            )
            al, au, ac, ar, ap = abs(l), abs(u), abs(c), abs(r), abs(p)
            near = 2 * (al + au) + ac + ar
            if d + 1 < size:
                wide = abs(np.int64(left[d + 1])) + abs(np.int64(up[d + 1])) + abs(np.int64(past[d + 1]))
            else:
                wide = np.int64(0)
            s1 = np.int64(0)
            s2 = np.int64(0)
            if d > 0:
                s1 = np.int64(x[d - 1])
                wide += abs(np.int64(left[d - 1])) + abs(np.int64(up[d - 1])) + abs(np.int64(past[d - 1]))
            if d > 1:
                s2 = np.int64(x[d - 2])
            a1, a2 = abs(s1), abs(s2)
            kk = np.int64(key[d]) if d < key.size else np.int64(0)
            ak = abs(kk)
            b = 3 * min(d, 300) + block
            gb = 3 * g + block
            near_class, wide_class = _log(near), _log(wide)
            if d < end - 1 or run_count > 0:
                context(coder, 0, _mix(2, b, step, 0, 0, 0))
                context(coder, 1, _mix(2, b, min(al, 2), min(au, 2), min(ap, 2), 0))
                context(coder, 2, _mix(2, b, near_class, _log(ap), 1, 0))
                context(coder, 3, _mix(2, gb, near_class, wide_class, _log(ap), 0))
                context(coder, 4, _mix(2, gb, used, _log(count), min(largest, 7), 0))
                context(coder, 5, _mix(2, b, min(a1, 2), min(a2, 2), min(ak, 2), 1))
                context(
                    coder,
                    6,
                    _mix(2, gb, _log(run_mass + 2 * ipast[1 + g]), used, end - d if end - d < 4 else 4, run_count),
                )
                context(coder, 7, _mix(2, b, used, min(near, 2), 0, 0))
                significant = code(coder, 120 + gb, 480 + min(run_count, 3) * 20 + used, magnitude != 0)
            else:
                significant = 1
            if significant == 0:
                continue
            run_count += 1
            near_class = _log(near + 2 * ap)
            k = 1
            while k <= UNARY:
                context(coder, 0, _mix(3, b, k, step, 0, 0))
                context(coder, 1, _mix(3, gb, k, min(al, 15), min(au, 15), min(ap, 15)))
                context(coder, 2, _mix(3, b, k, near_class, 0, 0))
                context(coder, 3, _mix(3, gb, k, near_class, wide_class, 0))
                context(coder, 4, _mix(3, gb, k, _log(count), min(largest, 15), 0))
                context(coder, 5, _mix(3, b, k, min(a1, 7), min(a2, 7), 1))
                context(coder, 6, _mix(3, gb, k, used, min(ak, 7), 0))
                context(coder, 7, _mix(3, b, k, min(ap, 15), min(ak, 3), 0))
                if code(coder, 180 + gb, 600 + k, magnitude > k) == 0:
                    break
                k += 1
            if k > UNARY:
                rest = _escape(coder, _mix(4, block, 0, 0, 0, 0), 740, magnitude - UNARY - 1)
                if rest < 0 or rest > 32768 - UNARY - 1:
                    return False
                magnitude = rest + UNARY + 1
            else:
                magnitude = k
            negative = value < 0
            if d < SIGNED:
                context(coder, 0, _mix(5, b, 0, 0, 0, 0))
                context(coder, 1, _mix(5, b, _sign(l), _sign(u), 0, 0))
                context(coder, 2, _mix(5, b, _sign(p), 0, 1, 0))
                context(coder, 3, _mix(5, b, _sign(l), _sign(u), _sign(c), _sign(r)))
                context(coder, 4, _mix(5, b, _sign(s1), _sign(s2), 2, 0))
                context(coder, 5, _mix(5, b, _sign(kk), 3, 0, 0))
                context(coder, 6, _mix(5, b, min(max(l, -3), 3) + 3, min(max(u, -3), 3) + 3, min(magnitude, 2), 4))
                context(
                    coder,
                    7,
                    _mix(
                        5,
                        b,
                        _sign(np.int64(left[d - 1])) if d > 0 else 0,
                        _sign(np.int64(up[d - 1])) if d > 0 else 0,
                        _sign(s1),
                        5,
                    ),
                )
                negative = code(coder, 240 + b, 620 + min(magnitude, 3), negative) != 0
            else:
                negative = code_raw(coder, negative) != 0
            if magnitude > 32767 and not negative:
                return False
            if decoding:
                x[d] = -magnitude if negative else magnitude
            count += magnitude
            largest = max(largest, magnitude)
            own[1 + g] += magnitude
    return True


@njit(cache=True, nogil=True, inline="always")
def _sign(n: int) -> int:
    return 1 if n > 0 else (2 if n < 0 else 0)


@njit(cache=True, nogil=True)
def _escape(coder: Coder, base: int, mixer: int, value: int) -> int:
    """Code a number from 0 to 2^16 - 2, Exp-Golomb of order 0; -1 if what is decoded is longer."""
    value += 1
    bits = 0
    while True:
        for k in range(INPUTS):
            context(coder, k, base + bits)
        if code(coder, mixer, mixer + 1, value >> (bits + 1) != 0) == 0:
            break
        bits += 1
        if bits == 16:
            return -1
    result = 1
    for k in range(bits - 1, -1, -1):
        result = result << 1 | code_raw(coder, (value >> k) & 1)
    return result - 1


@njit(cache=True, nogil=True)
def _difference(
    coder: Coder, role: int, depth: int, axis: int, value: int, other: int, apart: int, hint: int, hint2: int
) -> int:
    """Code a component of an explicit vector less its prediction; above MAX_VECTOR * 2 + 1 in size if damaged."""
    size = abs(value) + 1
    bits = 0
    ho, ha, hh, h2 = min(_log(abs(other)), 31), min(_log(apart), 31), _log(abs(hint)), _log(abs(hint2))
    first = (role > 0) * 2 + axis
    while bits < 12:
        context(coder, 0, _mix(20, axis, bits, role, depth, 0))
        context(coder, 1, _mix(20, axis, bits, ho, 1, 0))
        context(coder, 2, _mix(20, axis, bits, ha, 2, role > 0))
        context(coder, 3, _mix(20, axis, bits, hh, 3, role > 0))
        context(coder, 4, _mix(20, axis, bits, h2, 4, role > 0))
        context(coder, 5, _mix(20, axis, bits, h2, hh, 5))
        context(coder, 6, _mix(20, axis, bits, ho, ha, 6))
        context(coder, 7, _mix(20, axis, bits, depth, ha, 7))
        if code(coder, 40 + first, 50 + bits, size >> (bits + 1) != 0) == 0:
            break
        bits += 1
    result = 1
    for k in range(bits - 1, -1, -1):
        bit = (size >> k) & 1
        if k == bits - 1:
            context(coder, 0, _mix(21, axis, bits, 0, 0, 0))
            context(coder, 1, _mix(21, axis, bits, ho, 1, 0))
            context(coder, 2, _mix(21, axis, bits, ha, 2, 0))
            context(coder, 3, _mix(21, axis, bits, hh, 3, 0))
            context(coder, 4, _mix(21, axis, bits, h2, 4, 0))
            context(coder, 5, _mix(21, axis, bits, role, 5, 0))
            context(coder, 6, _mix(21, axis, bits, depth, 6, 0))
            context(coder, 7, _mix(21, axis, bits, min(abs(hint), 63), 7, 0))
            bit = code(coder, 44 + first, 70 + bits, bit)
        else:
            bit = code_raw(coder, bit)
        result = result << 1 | bit
    if result == 1:
        return 0
    context(coder, 0, _mix(22, axis, _sign(other), 0, 0, 0))
    context(coder, 1, _mix(22, axis, _sign(hint), bits, 1, 0))
    context(coder, 2, _mix(22, axis, _sign(hint2), bits, 2, 0))
    context(coder, 3, _mix(22, axis, _sign(hint), _sign(hint2), 3, 0))
    context(coder, 4, _mix(22, axis, _sign(hint), hh, 4, 0))
    context(coder, 5, _mix(22, axis, _sign(hint2), h2, 5, 0))
    context(coder, 6, _mix(22, axis, role, 6, 0, 0))
    context(coder, 7, _mix(22, axis, _sign(other), bits, 7, 0))
    negative = code(coder, 48 + axis, 84 + min(bits, 11), value < 0)
    return 1 - result if negative != 0 else result - 1


@njit(cache=True, nogil=True)
def _motion_field(
    coder: Coder, wanted: I16, field: I16, temporal: I16, recent: I16, has_temporal: bool, role: int
) -> bool:
    """Code a field of motion.

    Args:
        wanted: int16 `[5, h8, w8]` to code, anything for a decoder.
        field: is filled; its kinds are -1.
        temporal, recent: fields that may be used: key of this or the last group, and the last similar one.
        has_temporal: they are there.
        role: 0 for a key frame, 1 to 3 for those between.

    Returns:
        Whether all values are within bounds.
    """
    rows, columns = field.shape[1:]
    offers = np.zeros((MAX_CANDIDATES, 3), np.int16)
    vector, kinds = field[:2], field[2]
    for top in range(0, rows, CELLS):
        if coder.registers[OVERRUN] != 0:
            return False
        for left in range(0, columns, CELLS):
            z = 0
            while z < CELLS * CELLS:
                i = top + ((z >> 1 & 1) | (z >> 3 & 1) << 1 | (z >> 5 & 1) << 2)
                j = left + ((z & 1) | (z >> 2 & 1) << 1 | (z >> 4 & 1) << 2)
                size, depth = CELLS, 0
                while z & (size * size - 1) != 0:
                    size, depth = size >> 1, depth + 1
                if i >= rows or j >= columns:
                    z += size * size
                    continue
                known_left = j > 0 and kinds[i, j - 1] >= 0
                known_up = i > 0 and kinds[i - 1, j] >= 0
                dl = field[3, i, j - 1] + 1 if known_left else 0
                du = field[3, i - 1, j] + 1 if known_up else 0
                while size > 1:
                    if i + size <= rows and j + size <= columns:
                        tmax, rmax, rmin = 0, 0, 4
                        if has_temporal:
                            for a in range(i, i + size):
                                for c in range(j, j + size):
                                    tmax = max(tmax, temporal[3, a, c] + 1)
                                    rmax = max(rmax, recent[3, a, c] + 1)
                                    rmin = min(rmin, recent[3, a, c] + 1)
                        context(coder, 0, _mix(10, role, depth, 0, 0, 0))
                        context(coder, 1, _mix(10, role, depth, dl > depth + 1, du > depth + 1, 1))
                        context(coder, 2, _mix(10, depth, dl, du, 2, 0))
                        context(coder, 3, _mix(10, role, depth, tmax, 3, dl > depth + 1))
                        context(coder, 4, _mix(10, role, depth, rmax, rmin, 4))
                        context(coder, 5, _mix(10, depth, rmax, tmax, 5, role > 1))
                        context(coder, 6, _mix(10, depth, rmax, dl, du, 6))
                        context(coder, 7, _mix(10, role, depth, tmax, du, 7))
                        if code(coder, role * 3 + depth, 12 + dl, wanted[3, i, j] > depth) == 0:
                            break
                    size, depth = size >> 1, depth + 1
                # A leaf.
                count = candidates(vector, kinds, i, j, size, temporal[:2], temporal[2], has_temporal, offers)
                ci, cj = i + size // 2, j + size // 2
                ml = (2 if field[4, i, j - 1] >= 0 else 1) if known_left else 0
                mu = (2 if field[4, i - 1, j] >= 0 else 1) if known_up else 0
                kl = kinds[i, j - 1] + 1 if known_left else 0
                ku = kinds[i - 1, j] + 1 if known_up else 0
                jl = field[4, i, j - 1] + 2 if known_left else 0
                ju = field[4, i - 1, j] + 2 if known_up else 0
                ry, rx, rk, rm, tk = 0, 0, 0, 0, 0
                if has_temporal:
                    ry, rx, rk = int(recent[0, ci, cj]), int(recent[1, ci, cj]), recent[2, ci, cj] + 1
                    rm, tk = recent[4, ci, cj] + 2, temporal[2, ci, cj] + 1
                match = 0
                for k in range(count):
                    if (
                        has_temporal
                        and match == 0
                        and offers[k, 0] == ry
                        and offers[k, 1] == rx
                        and offers[k, 2] == rk - 1
                    ):
                        match = k + 1
                spread = _log(abs(int(offers[0, 0]) - offers[1, 0]) + abs(int(offers[0, 1]) - offers[1, 1]))
                merge = int(wanted[4, i, j])
                context(coder, 0, _mix(11, role, depth, count, 0, 0))
                context(coder, 1, _mix(11, ml, mu, depth, 1, 0))
                context(coder, 2, _mix(11, role, rm, depth, 2, 0))
                context(coder, 3, _mix(11, role, match, rm > 1, 3, ml))
                context(coder, 4, _mix(11, depth, spread, count, 4, role > 0))
                context(coder, 5, _mix(11, role, depth, kl, ku, 5))
                context(coder, 6, _mix(11, match, role, depth, 6, 0))
                context(coder, 7, _mix(11, depth, ml, mu, rm > 1, 7 + match))
                if code(coder, 20 + role, 24 + depth, merge >= 0) != 0:
                    k = 0
                    while k < count - 1:
                        mk, mn = offers[k, 2], offers[k + 1, 2]
                        far = _log(abs(offers[k, 0] - ry) + abs(offers[k, 1] - rx))
                        context(coder, 0, _mix(12, role, k, count, 0, 0))
                        context(coder, 1, _mix(12, k, depth, mk, mn, 1))
                        context(coder, 2, _mix(12, k, role, mk, depth, 2))
                        context(coder, 3, _mix(12, k, match, role, 3, 0))
                        context(coder, 4, _mix(12, k, jl, ju, 4, role > 0))
                        context(coder, 5, _mix(12, k, rm, role, 5, match))
                        context(coder, 6, _mix(12, k, depth, offers[k, 0] == 0 and offers[k, 1] == 0, count, 6))
                        context(coder, 7, _mix(12, k, far, rk, 7, mk))
                        if code(coder, 28 + k, 32 + role, merge > k) == 0:
                            break
                        k += 1
                    merge = k
                    y, x, kind = int(offers[k, 0]), int(offers[k, 1]), int(offers[k, 2])
                else:
                    merge = -1
                    kind = int(wanted[2, i, j])
                    for k in range(2):
                        context(coder, 0, _mix(13, k, role, 0, 0, 0))
                        context(coder, 1, _mix(13, k, kl, ku, 1, 0))
                        context(coder, 2, _mix(13, k, rk, role, 2, 0))
                        context(coder, 3, _mix(13, k, tk, role, 3, 0))
                        context(coder, 4, _mix(13, k, depth, role, 4, 0))
                        context(coder, 5, _mix(13, k, rk, tk, kl, 5))
                        context(coder, 6, _mix(13, k, kl, role, 6, 0))
                        context(coder, 7, _mix(13, k, ku, role, 7, 0))
                        bit = code(coder, 36 + k, 100 + role, kind == (BOTH if k == 0 else SECOND))
                        if k == 1:
                            kind = bit
                        elif bit != 0:
                            kind = BOTH
                            break
                    py, px = predicted(vector, kinds, i, j, size)
                    ty, tx, sy, sx = py, px, 0, 0
                    if has_temporal:
                        ty, tx = int(temporal[0, ci, cj]), int(temporal[1, ci, cj])
                    else:
                        ry, rx = py, px
                    if known_left and known_up:
                        sy = abs(int(vector[0, i, j - 1]) - vector[0, i - 1, j])
                        sx = abs(int(vector[1, i, j - 1]) - vector[1, i - 1, j])
                    y = _difference(coder, role, depth, 0, wanted[0, i, j] - py, 0, sy, ty - py, ry - py)
                    x = _difference(coder, role, depth, 1, wanted[1, i, j] - px, y, sx, tx - px, rx - px)
                    y, x = y + py, x + px
                    if max(abs(y), abs(x)) > MAX_VECTOR:
                        return False
                for a in range(i, i + size):
                    for c in range(j, j + size):
                        field[0, a, c], field[1, a, c], field[2, a, c] = y, x, kind
                        field[3, a, c], field[4, a, c] = depth, merge
                z += size * size
    return True


def _code_motion(coder: Coder, wanted: I16 | None, motion: I16) -> bool:
    """Code the fields; `motion` is filled."""
    motion[:, 2] = UNKNOWN
    for f in range(len(motion)):
        role = f % GROUP_FRAMES
        temporal, recent = (f - role, f - 1) if role else (f - GROUP_FRAMES, f - GROUP_FRAMES)
        field = motion[f] if wanted is None else wanted[f]
        if not _motion_field(coder, field, motion[f], motion[temporal], motion[recent], f > 0, role):
            return False
    return True


def _places(motion: I16, group: int, h: int, w: int) -> I64:
    """Classes of the motion of a group's positions, int64 `[2, h, w]`, below 192: under the key, under those between."""
    places = np.zeros((2, h, w), np.int64)
    if group:
        fields = motion[GROUP_FRAMES * (group - 1) : GROUP_FRAMES * group].astype(np.int64)
        cells = fields.reshape(GROUP_FRAMES, 5, h, 2, w, 2)[:, :, :, 0, :, 0]
        for block, part in enumerate((cells[:1], cells[1:])):
            depth, merged = part[:, 3].max(0), (part[:, 4] >= 0).sum(0)
            moves = np.minimum(np.abs(part[:, :2]).sum(1).max(0), 5) > 4
            places[block] = ((depth * 4 + merged) * 2 + moves) * 3 + part[len(part) // 2, 2]
    return places


def _step_class(step: int) -> int:
    """The class of a step, in half octaves."""
    bits = max(step, 1).bit_length()
    return min(2 * bits + (step >> max(bits - 2, 0) & 1), 63)


def _code_levels(coder: Coder, wanted: I16 | None, levels: I16, motion: I16, tables: Tables, step: int) -> bool:
    """Code the levels; with a decoder, `levels` is filled."""
    dims, groups, h, w = levels.shape
    now, before = np.zeros((2, 1 + h, w + 2, dims), np.int16)
    info, info_before = np.zeros((2, 2, 1 + h, w + 2, 1 + MAX_RUNS), np.int64)
    for t in range(groups):
        now[:], info[:] = 0, 0
        if t < 2:
            before[:], info_before[:] = 0, 0
        inner = now[1:, 1:-1]
        if wanted is not None:
            inner[:] = wanted[:, t].transpose(1, 2, 0)
        places = _places(motion, t, h, w)
        if not _level_group(coder, now, before, info, info_before, places, t == 0, tables.blocks, _step_class(step)):
            return False
        levels[:, t] = inner.transpose(2, 0, 1)
        now, before, info, info_before = before, now, info_before, info
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
    if levels[tables.blocks[0] :, 0].any() or levels[tables.blocks[1] + tables.blocks[2] :, 1:].any():
        raise ValueError("levels stand outside of their block")


def _encode(part: str, tokens: Tokens, step: int, tables: Tables) -> bytes:
    capacity = 4096 + (tokens.levels.size // 16 if part == "levels" else tokens.motion.size)
    while True:
        coder = encoder(*tables.start(part), capacity)
        if _run(part, coder, tokens, step, tables):
            payload = finish(coder)
            assert payload is not None
            return payload
        capacity *= 4


def _run(part: str, coder: Coder, tokens: Tokens, step: int, tables: Tables) -> bool:
    """Code a part of the tokens with an encoder; whether the buffer was large enough."""
    if part == "levels":
        is_sound = _code_levels(coder, tokens.levels, np.empty_like(tokens.levels), tokens.motion, tables, step)
    else:
        coded = np.zeros_like(tokens.motion)
        is_sound = _code_motion(coder, tokens.motion, coded)
        if is_sound and not np.array_equal(coded, tokens.motion):
            raise ValueError("the motion is no quad-tree of blocks and their candidates")
    if not is_sound and finish(coder) is not None:
        raise ValueError("the motion is out of range")
    return is_sound and finish(coder) is not None


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
    mixed = tuple(_encode(part, tokens, step, tables) for part in ("motion", "levels"))
    plain = tuple(_plain(array) for array in (tokens.motion, tokens.levels))
    if sum(map(len, mixed)) <= sum(map(len, plain)):
        return MIXED, *mixed
    return ZSTD, *plain


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
    return ((zigzag >> 1) ^ -(zigzag & 1)).view(np.int16)


TRAINED_COUNT = 24  # what a slot of the tables counts at most, so that a chunk can change it soon


def train_tables(chunks: Iterable[tuple[Tokens, int]], blocks: tuple[int, int, int]) -> dict[str, Array]:
    """The tables that chunks of real video leave behind, as `coder.*` arrays.

    Args:
        chunks: tokens and step of each.
        blocks: dimensions of the blocks: intra, key, between.
    """
    arrays = _fresh()
    for tokens, step in chunks:
        _check(tokens, Tables(blocks, arrays))
        for part in ("motion", "levels"):
            slots, weights = arrays[f"coder.{part}.slots"], arrays[f"coder.{part}.weights"]
            _run(
                part,
                encoder(slots, weights, 2 * tokens.levels.size + 4096, SLOT_COUNT),
                tokens,
                step,
                Tables(blocks, arrays),
            )
    for part in ("motion", "levels"):
        slots = arrays[f"coder.{part}.slots"]
        slots[:] = slots & ~np.uint32(0xFFFF) | np.minimum(slots & SLOT_COUNT, TRAINED_COUNT)
    return arrays
