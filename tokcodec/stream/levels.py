"""The decisions that levels are coded as. FORMAT.md, "Levels", is the specification.

One function walks over them for encoder and decoder, so that the two cannot differ.
"""

from __future__ import annotations

import numpy as np

from tokcodec.compiled import njit
from tokcodec.dtypes import Array
from tokcodec.stream.rangecoder import (
    DECODING,
    INPUTS,
    OVERRUN,
    Coder,
    code,
    code_raw,
    context,
    log_class,
    sign_class,
)

# Bounds of the runs of dimensions of a block that are coded as empty or not.
RUNS = np.array(
    [0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048], np.int64
)  # fmt: skip
MAX_RUNS = 20
MAX_SIZE = 2048  # dimensions of a block
SIGNED = 80  # dimensions whose signs have contexts
UNARY = 14  # magnitudes above are escaped
MIXERS = 768

_USED, _RUN, _SIGNIFICANT, _MORE, _SIGN, _ESCAPE = range(6)  # kinds of decisions
# Where the mixers of each kind start: those that are chosen by the place in the block, then the second ones.
_BY_USED, _BY_RUN, _BY_SIGNIFICANT, _BY_MORE, _BY_SIGN, _BY_ESCAPE = 0, 84, 168, 252, 336, 740
_THEN_USED, _THEN_RUN, _THEN_SIGNIFICANT, _THEN_MORE, _THEN_SIGN = 588, 420, 504, 676, 700


@njit(cache=True, nogil=True)
def code_frame(
    coder: Coder, now: Array, past: Array, parent: Array, info: Array, info_past: Array, info_parent: Array,
    under: Array, kind: int, step: int,
) -> bool:  # fmt: skip
    """Code the levels of a frame. With a decoder, `now` is zero and is filled.

    Args:
        now: int32 `[1 + h, w + 2, D]`, levels with zeros around.
        past: alike, of the frame of this kind and distance that was coded last; zeros without one.
        parent: alike, of the frame that this one follows in the pyramid; zeros for anchors.
        info, info_past, info_parent: int64 `[1 + h, w + 2, 1 + MAX_RUNS]`: of each block the runs in use, then the sum
            of magnitudes of each run. `info` is zero and is filled.
        under: int64 `[h, w]`, class of the motion under each block, below 1024; of the modes in a first frame.
        kind: of the frame, 0 for a first frame (see `pyramid`).
        step: class of the frame's step.

    Returns:
        Whether all went well: false where the payload is damaged or the buffer full.
    """
    rows, columns = under.shape
    for i in range(1, rows + 1):
        if coder.registers[OVERRUN] != 0:
            return False
        for j in range(1, columns + 1):
            if not _block(
                coder, now, past, parent, info, info_past, info_parent, i, j, kind, step, under[i - 1, j - 1]
            ):
                return False
    return True


@njit(cache=True, nogil=True, inner=True)
def _block(
    coder: Coder, now: Array, before: Array, parent: Array, info: Array, info_before: Array, info_parent: Array,
    i: int, j: int, kind: int, step: int, motion: int,
) -> bool:  # fmt: skip
    """Code a block of a position; see `code_frame`."""
    at = coder.at
    decoding = coder.registers[DECODING] != 0
    x, key = now[i, j], parent[i, j]
    size = x.size
    left, up, past = now[i, j - 1], now[i - 1, j], before[i, j]
    corner, right = now[i - 1, j - 1], now[i - 1, j + 1]
    own, own_past = info[i, j], info_before[i, j]
    own_left, own_up = info[i, j - 1], info[i - 1, j]
    own_corner, own_right = info[i - 1, j - 1], info[i - 1, j + 1]

    used = 0
    for d in range(0 if decoding else size):
        if x[d] != 0:
            while RUNS[used] <= d:
                used += 1
    in_left, in_up, in_corner, in_right = own_left[0], own_up[0], own_corner[0], own_right[0]
    in_past, in_key = own_past[0], info_parent[i, j, 0]
    around = in_left + in_up + in_corner + in_right
    mass = 0
    for g in range(1, MAX_RUNS + 1):
        mass += 2 * (own_left[g] + own_up[g] + own_past[g]) + own_corner[g] + own_right[g]
    g = 0
    while RUNS[g] < size:
        at[0] = context(_USED, kind, g, step)
        at[1] = context(_USED, kind, g, in_left, in_up)
        at[2] = context(_USED, kind, g, in_past, max(in_left, in_up), in_key)
        at[3] = context(_USED, kind, g, log_class(mass), in_key)
        at[4] = context(_USED, kind, g, motion, in_past > g, in_key > 0)
        at[5] = context(_USED, kind, g, in_past, in_key)
        at[6] = context(_USED, kind, g, around, in_past)
        at[7] = context(_USED, kind, g, in_right, in_corner, 2 * (in_up > g) + (in_left > g))
        if code(coder, _BY_USED + 20 * kind + g, _THEN_USED + around, used > g) == 0:
            break
        g += 1
    used = g
    own[0] = used

    # Of the block so far: sum and largest of the magnitudes, two means that forget, which runs are empty.
    total, largest, fast, slow, history = 0, 0, 0, 0, 0
    expected = 0  # what the neighbours' magnitudes up to here sum up to
    for g in range(used):
        begin, end = RUNS[g], min(RUNS[g + 1], size)
        near_left, near_up, near_past = own_left[1 + g], own_up[1 + g], own_past[1 + g]
        beside = 2 * (near_left + near_up) + own_corner[1 + g] + own_right[1 + g]
        place = 4 * g + kind
        if g < used - 1:
            is_used = False
            for d in range(begin, end):
                is_used = is_used or x[d] != 0
            at[0] = context(_RUN, place, used, step)
            at[1] = context(_RUN, place, history)
            at[2] = context(_RUN, place, min(near_left, 15), min(near_up, 15))
            at[3] = context(_RUN, place, log_class(beside), log_class(near_past))
            at[4] = context(_RUN, place, used, log_class(total), min(largest, 7))
            at[5] = context(_RUN, place, log_class(near_past), used)
            at[6] = context(_RUN, place, log_class(beside), used)
            at[7] = context(_RUN, place, motion, min(beside, 2))
            bit = code(coder, _BY_RUN + 20 * kind + g, _THEN_RUN + 20 * kind + used, is_used)
            history = (2 * history + bit) & 15
            if bit == 0:
                expected += beside + 2 * near_past
                continue
        # The run's magnitudes if it is to its neighbours' as the block was to its neighbours' up to here.
        due = log_class(64 * (beside + 2 * near_past) * (total + 1) // (expected + 8))
        expected += beside + 2 * near_past
        found = 0
        for d in range(begin, end):
            l, u, c, r, p = int(left[d]), int(up[d]), int(corner[d]), int(right[d]), int(past[d])  # noqa: E741
            al, au, ap = abs(l), abs(u), abs(p)
            near = 2 * (al + au) + abs(c) + abs(r)
            l1, u1, s1, s2, wide = 0, 0, 0, 0, 0
            if d > 0:
                l1, u1, s1 = int(left[d - 1]), int(up[d - 1]), int(x[d - 1])
                wide = abs(l1) + abs(u1) + abs(int(past[d - 1]))
            if d > 1:
                s2 = int(x[d - 2])
            if d + 1 < size:
                wide += abs(int(left[d + 1])) + abs(int(up[d + 1])) + abs(int(past[d + 1]))
            k = int(key[d])
            here = 4 * min(d, 255) + kind
            value = int(x[d])
            magnitude = abs(value)

            if found > 0 or d < end - 1:  # else it is certain
                at[0] = context(_SIGNIFICANT, here, step)
                at[1] = context(_SIGNIFICANT, here, min(al, 2), min(au, 2), min(ap, 2))
                at[2] = context(_SIGNIFICANT, here, log_class(near), log_class(ap))
                at[3] = context(_SIGNIFICANT, place, log_class(near), log_class(wide), log_class(ap))
                at[4] = context(_SIGNIFICANT, place, log_class(slow), log_class(fast))
                at[5] = context(_SIGNIFICANT, here, min(abs(s1), 2), min(abs(s2), 2), min(abs(k), 2))
                at[6] = context(_SIGNIFICANT, place, due, log_class(near))
                at[7] = context(_SIGNIFICANT, here, used, log_class(slow))
                second = _THEN_SIGNIFICANT + 20 * min(found, 3) + used
                bit = code(coder, _BY_SIGNIFICANT + place, second, magnitude != 0)
                fast, slow = fast - (fast >> 2), slow - (slow >> 4)
                if bit == 0:
                    continue
            found += 1

            near_class = log_class(near + 2 * ap)
            m = 1
            while m <= UNARY:
                at[0] = context(_MORE, here, m, step)
                at[1] = context(_MORE, place, m, min(al, 15), min(au, 15), min(ap, 15))
                at[2] = context(_MORE, here, m, near_class)
                at[3] = context(_MORE, place, m, near_class, log_class(wide))
                at[4] = context(_MORE, place, m, log_class(total), min(largest, 15))
                at[5] = context(_MORE, place, m, log_class(slow), log_class(fast))
                at[6] = context(_MORE, place, m, used, min(abs(k), 7))
                at[7] = context(_MORE, here, m, min(ap, 15), min(abs(k), 3))
                if code(coder, _BY_MORE + place, _THEN_MORE + m, magnitude > m) == 0:
                    break
                m += 1
            if m > UNARY:
                m += _escaped(coder, kind, magnitude - m)

            negative = value < 0
            if d < SIGNED:
                at[0] = context(_SIGN, here)
                at[1] = context(_SIGN, here, sign_class(l), sign_class(u))
                at[2] = context(_SIGN, here, sign_class(p))
                at[3] = context(_SIGN, here, sign_class(l), sign_class(u), sign_class(c), sign_class(r))
                at[4] = context(_SIGN, here, sign_class(s1), sign_class(s2))
                at[5] = context(_SIGN, here, sign_class(k))
                at[6] = context(_SIGN, here, min(max(l, -3), 3) + 3, min(max(u, -3), 3) + 3, min(m, 2))
                at[7] = context(_SIGN, here, sign_class(l1), sign_class(u1), sign_class(s1))
                bit = code(coder, _BY_SIGN + place, _THEN_SIGN + min(m, 3), negative)
            else:
                bit = code_raw(coder, negative)
            if m > 32767 + bit:
                return False
            if decoding:
                x[d] = -m if bit != 0 else m
            own[1 + g] += m
            total, largest = total + m, max(largest, m)
            fast, slow = fast + 16 * min(m, 15), slow + 16 * min(m, 15)
    return True


@njit(cache=True, nogil=True, inner=True)
def _escaped(coder: Coder, kind: int, value: int) -> int:
    """Code a number in Exp-Golomb form of order 0: from 0 to 2^16 - 2, or what is damaged, to 2^17."""
    at = coder.at
    value += 1
    bits = 0
    while bits < 16:
        for k in range(INPUTS):
            at[k] = context(_ESCAPE, kind, bits)
        if code(coder, _BY_ESCAPE, _BY_ESCAPE + 1, value >> (bits + 1) != 0) == 0:
            break
        bits += 1
    result = 1
    for k in range(bits - 1, -1, -1):
        result = 2 * result + code_raw(coder, (value >> k) & 1)
    return result - 1
