"""The decisions that motion is coded as. FORMAT.md, "Motion", is the specification."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokcodec.compiled import njit
from tokcodec.dtypes import Array
from tokcodec.stream.fields import BOTH, MAX_CANDIDATES, MAX_VECTOR, SECOND, candidates, predicted
from tokcodec.stream.rangecoder import INPUTS, OVERRUN, Coder, code, context, log_class, sign_class

TREE = 8  # cells across the tree of a 64x64 block
MIXERS = 160
MOST_BITS = 12  # of a difference of vectors

_SPLIT, _MERGE, _CANDIDATE, _KIND, _SIZE, _BIT, _NEGATIVE, _SPAN, _STEP = range(9)  # kinds of decisions
_BY_SPLIT, _BY_MERGE, _BY_CANDIDATE, _BY_KIND, _BY_SIZE, _BY_BIT, _BY_NEGATIVE = 0, 20, 144, 36, 40, 112, 48
_BY_STEP, _BY_SPAN = 128, 136
_THEN_SPLIT, _THEN_MERGE, _THEN_CANDIDATE, _THEN_KIND, _THEN_SIZE, _THEN_BIT, _THEN_NEGATIVE = (
    12, 24, 32, 100, 50, 70, 84,
)  # fmt: skip


@njit(cache=True, nogil=True)
def code_span(coder: Coder, wanted: int, before: int, most: int) -> int:
    """Code the length of a span, as its logarithm of base 2.

    Args:
        wanted: what to code; a decoder does not look at it.
        before: that of the span before; 6 without one.
        most: the largest that there is room for, 0 to 5.
    """
    at = coder.at
    n = 0
    while n < most:
        at[0] = context(_SPAN, n)
        at[1] = context(_SPAN, n, before)
        at[2] = context(_SPAN, n, most)
        at[3] = context(_SPAN, n, before, most)
        at[4] = context(_SPAN, n, before > n)
        at[5] = context(_SPAN, n, before > n, before == n)
        at[6] = context(_SPAN, n, before == 6)
        at[7] = context(_SPAN, before == n)
        if code(coder, _BY_SPAN, _BY_SPAN + 1 + n, wanted > n) == 0:
            break
        n += 1
    return n


@njit(cache=True, nogil=True)
def code_step(coder: Coder, wanted: int, guess: int, most: int, role: int) -> int:
    """Code the number of a frame's step, from 0 to `most`.

    Args:
        wanted: what to code; a decoder does not look at it.
        guess: the number of a frame like this one.
        role: 0 for an anchor, 1 to 3 for the distance of a frame between, 4 for a first frame.
    """
    at = coder.at
    number, way, asked = guess, 1, 0  # asked: whether it is another; whether it is larger; whether it goes on
    while True:
        for i in range(INPUTS):
            at[i] = context(
                _STEP, asked + (way > 0) * (asked > 1), role if i & 1 else 0, number if i & 2 else 0,
                guess if i & 4 else 0,
            )  # fmt: skip
        if asked == 0:
            if code(coder, _BY_STEP, _BY_STEP + 3 + role, wanted != guess) == 0:
                return guess
            if guess == 0 or guess == most:
                way, asked = 1 if guess == 0 else -1, 2
            else:
                asked = 1
                continue
        elif asked == 1:
            way = 1 if code(coder, _BY_STEP + 1, _BY_STEP + 3 + role, wanted > guess) != 0 else -1
            asked = 2
        elif code(coder, _BY_STEP + 2, _BY_STEP + 3 + role, wanted != number) == 0:
            return number
        number += way
        if number == 0 or number == most:
            return number


@njit(cache=True, nogil=True, inner=True)
def node(z: int) -> tuple[int, int, int, int]:
    """The largest block of a tree that begins at a cell, by its number in z-order: row, column, cells a side, depth."""
    row, column = (z >> 1 & 1) | (z >> 2 & 2) | (z >> 3 & 4), (z & 1) | (z >> 1 & 2) | (z >> 2 & 4)
    size, depth = TREE, 0
    while z & (size * size - 1) != 0:
        size, depth = size >> 1, depth + 1
    return row, column, size, depth


@njit(cache=True, nogil=True)
def code_field(coder: Coder, wanted: Array, field: Array, near: Array, far: Array, role: int) -> bool:
    """Code the motion of a frame.

    Args:
        wanted: int16 `[5, h8, w8]`, the field to code; a decoder does not look at it.
        field: is filled; its kinds are -1.
        near, far: the temporal fields, as for `candidates`; depth and merge are -1 or more.
        role: 0 for an anchor, else 1 to 3: distance 1, 2, or more.

    Returns:
        Whether all went well: false where the payload is damaged, vectors are out of range or the buffer is full.
    """
    rows, columns = field.shape[1:]
    offers = np.zeros((MAX_CANDIDATES, 3), np.int16)
    for top in range(0, rows, TREE):
        for left in range(0, columns, TREE):
            if coder.registers[OVERRUN] != 0:
                return False
            z = 0  # number of a cell in z-order
            while z < TREE * TREE:
                row, column, size, depth = node(z)
                i, j = top + row, left + column
                if i < rows and j < columns:
                    while size > 1 and _is_split(coder, wanted, field, near, far, role, i, j, size, depth):
                        size, depth = size >> 1, depth + 1
                    if not _leaf(coder, wanted, field, near, far, role, i, j, size, depth, offers):
                        return False
                z += size * size
    return True


@njit(cache=True, nogil=True, inner=True)
def _is_split(
    coder: Coder, wanted: Array, field: Array, near: Array, far: Array, role: int,
    i: int, j: int, size: int, depth: int,
) -> bool:  # fmt: skip
    at = coder.at
    if i + size > field.shape[1] or j + size > field.shape[2]:
        return True
    left = field[3, i, j - 1] + 1 if j > 0 else 0
    up = field[3, i - 1, j] + 1 if i > 0 else 0
    of_far, most, least = 0, 0, 4
    for a in range(i, i + size):
        for b in range(j, j + size):
            of_far = max(of_far, far[3, a, b] + 1)
            most, least = max(most, near[3, a, b] + 1), min(least, near[3, a, b] + 1)
    at[0] = context(_SPLIT, role, depth)
    at[1] = context(_SPLIT, role, depth, left > depth + 1, up > depth + 1)
    at[2] = context(_SPLIT, depth, left, up)
    at[3] = context(_SPLIT, role, depth, of_far, left > depth + 1)
    at[4] = context(_SPLIT, role, depth, most, least)
    at[5] = context(_SPLIT, depth, most, of_far, role > 1)
    at[6] = context(_SPLIT, depth, most, left, up)
    at[7] = context(_SPLIT, role, depth, of_far, up)
    return bool(code(coder, _BY_SPLIT + 3 * role + depth, _THEN_SPLIT + left, wanted[3, i, j] > depth) != 0)


@njit(cache=True, nogil=True, inner=True)
def _leaf(
    coder: Coder, wanted: Array, field: Array, near: Array, far: Array, role: int,
    i: int, j: int, size: int, depth: int, offers: Array,
) -> bool:  # fmt: skip
    at = coder.at
    vector, kinds, merges = field[:2], field[2], field[4]
    count = candidates(vector, kinds, i, j, size, near, far, offers)
    # Of the cells left, above, and in the middle of the temporal fields: kind + 1 and merge + 2, or 0.
    kind_left, merge_left = (kinds[i, j - 1] + 1, merges[i, j - 1] + 2) if j > 0 else (0, 0)
    kind_up, merge_up = (kinds[i - 1, j] + 1, merges[i - 1, j] + 2) if i > 0 else (0, 0)
    at_left, at_up = min(merge_left, 2), min(merge_up, 2)
    ci, cj = i + size // 2, j + size // 2
    near_y, near_x, near_kind = int(near[0, ci, cj]), int(near[1, ci, cj]), near[2, ci, cj] + 1
    far_y, far_x, far_kind = int(far[0, ci, cj]), int(far[1, ci, cj]), far[2, ci, cj] + 1
    near_merge = near[4, ci, cj] + 2 if near_kind > 0 else 0
    match, other = 0, 0  # the candidates that are the temporal fields' motion, + 1
    for k in range(count - 1, -1, -1):
        if offers[k, 0] == near_y and offers[k, 1] == near_x and offers[k, 2] == near_kind - 1:
            match = k + 1
        if offers[k, 0] == far_y and offers[k, 1] == far_x and offers[k, 2] == far_kind - 1:
            other = k + 1
    spread = log_class(abs(int(offers[0, 0]) - offers[1, 0]) + abs(int(offers[0, 1]) - offers[1, 1]))
    merge = int(wanted[4, i, j])
    at[0] = context(_MERGE, role, depth, count)
    at[1] = context(_MERGE, at_left, at_up, depth)
    at[2] = context(_MERGE, role, near_merge, depth)
    at[3] = context(_MERGE, role, match, near_merge > 1, at_left)
    at[4] = context(_MERGE, depth, spread, count, role)
    at[5] = context(_MERGE, role, depth, kind_left, kind_up)
    at[6] = context(_MERGE, match, role, depth, other)
    at[7] = context(_MERGE, depth, at_left, at_up, near_merge > 1, match)
    if code(coder, _BY_MERGE + role, _THEN_MERGE + depth, merge >= 0) != 0:
        k = 0
        while k < count - 1:
            kind_k = offers[k, 2]
            is_still = offers[k, 0] == 0 and offers[k, 1] == 0
            off = log_class(abs(offers[k, 0] - near_y) + abs(offers[k, 1] - near_x))
            at[0] = context(_CANDIDATE, role, k, count)
            at[1] = context(_CANDIDATE, k, depth, kind_k, offers[k + 1, 2])
            at[2] = context(_CANDIDATE, k, role, kind_k, depth)
            at[3] = context(_CANDIDATE, k, match, role, other)
            at[4] = context(_CANDIDATE, k, merge_left, merge_up, role > 0)
            at[5] = context(_CANDIDATE, k, near_merge, role, match)
            at[6] = context(_CANDIDATE, k, depth, is_still, count)
            at[7] = context(_CANDIDATE, k, off, near_kind, kind_k)
            if code(coder, _BY_CANDIDATE + k, _THEN_CANDIDATE + role, merge > k) == 0:
                break
            k += 1
        merge, y, x, kind = k, int(offers[k, 0]), int(offers[k, 1]), int(offers[k, 2])
    else:
        merge, kind = -1, int(wanted[2, i, j])
        for k in range(2):
            at[0] = context(_KIND, k, role)
            at[1] = context(_KIND, k, kind_left, kind_up)
            at[2] = context(_KIND, k, near_kind, role)
            at[3] = context(_KIND, k, far_kind, role)
            at[4] = context(_KIND, k, depth, role)
            at[5] = context(_KIND, k, near_kind, far_kind, kind_left)
            at[6] = context(_KIND, k, kind_left, role)
            at[7] = context(_KIND, k, kind_up, role)
            bit = code(coder, _BY_KIND + k, _THEN_KIND + role, kind == (BOTH if k == 0 else SECOND))
            if k == 1:
                kind = bit
            elif bit != 0:
                kind = BOTH
                break
        guess_y, guess_x = predicted(vector, kinds, i, j, size)
        left_y, left_x, up_y, up_x = guess_y, guess_x, guess_y, guess_x
        if near_kind == 0:
            near_y, near_x = guess_y, guess_x
        if far_kind == 0:
            far_y, far_x = guess_y, guess_x
        if j > 0:
            left_y, left_x = int(vector[0, i, j - 1]), int(vector[1, i, j - 1])
        if i > 0:
            up_y, up_x = int(vector[0, i - 1, j]), int(vector[1, i - 1, j])
        hints = left_y - guess_y, up_y - guess_y, far_y - guess_y, near_y - guess_y
        y = _difference(coder, wanted[0, i, j] - guess_y, 0, role, depth, 0, hints)
        hints = left_x - guess_x, up_x - guess_x, far_x - guess_x, near_x - guess_x
        x = _difference(coder, wanted[1, i, j] - guess_x, 1, role, depth, y, hints)
        y, x = y + guess_y, x + guess_x
        if max(abs(y), abs(x)) > MAX_VECTOR:
            return False
    for a in range(i, i + size):
        for b in range(j, j + size):
            field[0, a, b], field[1, a, b], field[2, a, b], field[3, a, b], field[4, a, b] = y, x, kind, depth, merge
    return True


@njit(cache=True, nogil=True, inner=True)
def _difference(
    coder: Coder, value: Any, axis: int, role: int, depth: int, other: int, hints: tuple[int, int, int, int]
) -> int:
    """Code a component of a vector less its prediction, from -(2^13 - 2) to 2^13 - 2.

    Args:
        axis: 0 for y, 1 for x.
        other: the component before; 0 for y.
        hints: that component of the vectors left, above, and of the far and the near field, less the prediction.
    """
    at = coder.at
    of_left, of_up, of_far, of_near = hints
    number = abs(value) + 1
    is_between = role > 0
    apart = log_class(abs(of_left - of_up))
    o, k, l = log_class(abs(other)), log_class(abs(of_far)), log_class(abs(of_near))  # noqa: E741
    bits = 0
    while bits < MOST_BITS:
        at[0] = context(_SIZE, axis, bits, role, depth)
        at[1] = context(_SIZE, axis, bits, o)
        at[2] = context(_SIZE, axis, bits, apart, is_between)
        at[3] = context(_SIZE, axis, bits, k, is_between)
        at[4] = context(_SIZE, axis, bits, l, is_between)
        at[5] = context(_SIZE, axis, bits, l, k)
        at[6] = context(_SIZE, axis, bits, o, apart)
        at[7] = context(_SIZE, axis, bits, log_class(abs(of_left)), log_class(abs(of_up)))
        if code(coder, _BY_SIZE + 2 * is_between + axis, _THEN_SIZE + bits, number >> (bits + 1) != 0) == 0:
            break
        bits += 1
    if bits == 0:
        return 0
    at[0] = context(_NEGATIVE, axis, sign_class(of_left), sign_class(of_up))
    at[1] = context(_NEGATIVE, axis, sign_class(of_far), bits)
    at[2] = context(_NEGATIVE, axis, sign_class(of_near), bits)
    at[3] = context(_NEGATIVE, axis, sign_class(of_far), sign_class(of_near))
    at[4] = context(_NEGATIVE, axis, sign_class(of_far), k, bits)
    at[5] = context(_NEGATIVE, axis, sign_class(of_near), l, bits)
    at[6] = context(_NEGATIVE, axis, role, sign_class(other))
    at[7] = context(_NEGATIVE, axis, sign_class(of_up), sign_class(of_left), bits, sign_class(of_near))
    negative = code(coder, _BY_NEGATIVE + axis, _THEN_NEGATIVE + min(bits, 11), value < 0)
    side = -1 if negative != 0 else 1
    result = 1
    for n in range(bits - 1, -1, -1):
        by_far, by_near = _next_bit(side * of_far + 1, result, n), _next_bit(side * of_near + 1, result, n)
        by_left, by_up = _next_bit(side * of_left + 1, result, n), _next_bit(side * of_up + 1, result, n)
        at[0] = context(_BIT, n, bits, axis)
        at[1] = context(_BIT, n, by_far, bits)
        at[2] = context(_BIT, n, by_near, bits)
        at[3] = context(_BIT, n, by_left, by_up)
        at[4] = context(_BIT, n, by_far, by_near, by_left, by_up)
        at[5] = context(_BIT, n, by_near, by_far, role)
        at[6] = context(_BIT, n, depth, bits)
        at[7] = context(_BIT, n, result & 7, bits)
        second = _THEN_BIT + (by_far > 0) + 2 * (by_near > 0) + 4 * (by_left + by_up > 0)
        result = 2 * result + code(coder, _BY_BIT + n, second, number >> n & 1)
    return side * (result - 1)


@njit(cache=True, nogil=True, inner=True)
def _next_bit(guess: int, known: int, n: int) -> int:
    """What a guess says of bit n of a number whose higher bits are known: 1 + that bit; 0 if its higher bits differ."""
    return 1 + (guess >> n & 1) if guess >> (n + 1) == known else 0
