"""A binary arithmetic coder whose probabilities are mixed from several contexts, in integers.

In the line of PAQ (M. Mahoney, "Adaptive weighing of context models for lossless data compression", 2005): each
context of a decision has a slot, a probability that follows the decisions met there. The slots' probabilities are
mixed in the logistic domain, by weights that are trained as it goes. All of it is integers, so that the decoder's
probabilities are the encoder's on every machine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.compiled import njit
from tokcodec.dtypes import I32, I64

INPUTS = 8  # contexts of a decision
ONE = 1 << 16  # probability 1
UNIT = 256  # of the logistic domain
LIMIT = 12 * UNIT
SLOT_COUNT = 1023  # the low bits of a slot: decisions met; the high 22 are the probability of a 1
MIXING = 8  # rate of the mixers, in 2^-20
FRESH_SLOT = 1 << 31  # probability 1/2, nothing met
HASH = 0x9E3779B97F4A7C15
FRESH_WEIGHT = 9830  # of one of the two mixers: 0.15
MAX_WEIGHT = 1 << 24

U32 = NDArray[np.uint32]

# ln(p / (1 - p)) and its inverse. No value is near a half, so that every libm rounds them alike.
_p = np.arange(1, ONE) / ONE
_STRETCH = np.concatenate([[-LIMIT], np.rint(np.log(_p / (1 - _p)) * UNIT)]).astype(np.int32)
_SQUASH = np.clip(np.rint(ONE / (1 + np.exp(-np.arange(-LIMIT, LIMIT + 1) / UNIT))), 1, ONE - 1).astype(np.int32)
_RATES = np.array([ONE * 2 // (2 * n + 3) for n in range(SLOT_COUNT + 1)], np.int32)

# Registers
LOW, HIGH, WINDOW, POSITION, DECODING, OVERRUN = range(6)


class Coder(NamedTuple):
    """An encoder or decoder with its models; see `encoder` and `decoder`."""

    registers: I64
    buffer: NDArray[np.uint8]
    slots: U32  # [INPUTS, 2^n], n up to 16
    weights: I32  # [mixers, INPUTS + 1]
    at: I64  # [INPUTS], the contexts of the next decision; the low bits are their slots
    inputs: I64  # [INPUTS + 1]
    stretch: I32
    squash: I32
    rates: I32


def fresh(slots: int, mixers: int) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    """Slots `[INPUTS, slots]` and weights of mixers `[mixers, INPUTS + 1]` that know nothing."""
    weights = np.full((mixers, INPUTS + 1), FRESH_WEIGHT, np.int32)
    weights[:, INPUTS] = 0
    return np.full((INPUTS, slots), FRESH_SLOT, np.uint32), weights


def encoder(slots: U32, weights: I32, capacity: int) -> Coder:
    """A coder that writes to a buffer of that many bytes. It changes `slots` and `weights`."""
    registers = np.array([0, 0xFFFFFFFF, 0, 0, 0, 0], np.int64)
    at, inputs = np.zeros(INPUTS, np.int64), np.full(INPUTS + 1, UNIT, np.int64)
    buffer = np.zeros(capacity, np.uint8)
    return Coder(registers, buffer, slots, weights, at, inputs, _STRETCH, _SQUASH, _RATES)


def with_room(coder: Coder, count: int) -> Coder:
    """An encoder that goes on with room for at least `count` more bytes in its buffer."""
    used = int(coder.registers[POSITION])
    if coder.registers[OVERRUN] or coder.buffer.size - used >= count:  # what does not fit stays lost
        return coder
    buffer = np.zeros(max(2 * coder.buffer.size, used + count), np.uint8)
    buffer[:used] = coder.buffer[:used]
    return coder._replace(buffer=buffer)


def decoder(slots: U32, weights: I32, payload: bytes) -> Coder:
    """A coder that reads a payload of any origin. It changes `slots` and `weights`."""
    coder = encoder(slots, weights, 0)._replace(buffer=np.frombuffer(bytearray(payload) + b"\0", np.uint8)[:-1])
    coder.registers[WINDOW] = int.from_bytes(payload[:4].ljust(4, b"\0"), "big")
    coder.registers[DECODING] = 1
    return coder


def finish(coder: Coder) -> bytes | None:
    """The payload of an encoder; None if the buffer was too small."""
    low, position = (int(coder.registers[r]) for r in (LOW, POSITION))
    tail = bytes([(low >> 24) + 1]) if low else b""
    return None if coder.registers[OVERRUN] else coder.buffer[:position].tobytes() + tail


def is_finished(coder: Coder) -> bool:
    """Whether a decoder has met what `finish` writes, just at the end of its payload."""
    low, window, position = (int(coder.registers[r]) for r in (LOW, WINDOW, POSITION))
    tail = (low >> 24) + 1 if low else 0
    return window == tail << 24 and position + (tail > 0) == coder.buffer.size and not coder.registers[OVERRUN]


@njit(cache=True, nogil=True, inner=True)
def _narrow(coder: Coder, p: int, bit: Any) -> Any:
    """Code a decision that is 1 with probability p / ONE, 0 < p < ONE."""
    registers, buffer = coder.registers, coder.buffer
    low, high = registers[LOW], registers[HIGH]
    spread = high - low
    middle = low + (spread >> 16) * p + (((spread & 0xFFFF) * p) >> 16)
    if registers[DECODING] != 0:
        bit = 1 if registers[WINDOW] <= middle else 0
    if bit != 0:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) & 0xFF000000 == 0:
        position = registers[POSITION]
        registers[POSITION] = position + 1
        if registers[DECODING] != 0:
            fresh = np.int64(buffer[position + 4]) if position + 4 < buffer.size else np.int64(0)
            registers[WINDOW] = ((registers[WINDOW] << 8) & 0xFFFFFFFF) | fresh
            if position >= buffer.size:
                registers[OVERRUN] = 1
        elif position < buffer.size:
            buffer[position] = high >> 24
        else:
            registers[OVERRUN] = 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
    registers[LOW], registers[HIGH] = low, high
    return bit


@njit(cache=True, nogil=True, inner=True)
def code_raw(coder: Coder, bit: Any) -> Any:
    """Code a decision without a model. A decoder ignores `bit`; both return the decision, 0 or 1."""
    return _narrow(coder, ONE // 2, bit)


@njit(cache=True, nogil=True, inner=True)
def context(kind: int, a: Any = 0, b: Any = 0, c: Any = 0, d: Any = 0, e: Any = 0) -> np.int64:
    """A context of a decision, to be put in the coder's `at`: a kind and up to five integers, each from 0 to 1023."""
    value = ((((kind << 10 | a) << 10 | b) << 10 | c) << 10 | d) << 10 | e
    return np.int64((np.uint64(value) * np.uint64(HASH)) >> np.uint64(48))


@njit(cache=True, nogil=True)
def log_class(n: int) -> int:
    """The class of a number from 0 to 2^62: itself up to 3, then half octaves."""
    if n < 4:
        return n
    bits = 2
    while n >> (bits + 1) != 0:
        bits += 1
    return 2 * bits + ((n >> (bits - 1)) & 1)


@njit(cache=True, nogil=True, inner=True)
def sign_class(n: int) -> int:
    """0 for 0, 1 for a positive number, 2 for a negative one."""
    return 1 if n > 0 else (2 if n < 0 else 0)


@njit(cache=True, nogil=True, inner=True)
def code(coder: Coder, first: int, second: int, bit: Any) -> Any:
    """Code a decision by its contexts and two mixers. A decoder ignores `bit`; both return the decision, 0 or 1."""
    slots, at, inputs = coder.slots, coder.at, coder.inputs
    a, b = coder.weights[first], coder.weights[second]
    dot = np.int64(0)
    for k in range(INPUTS):
        at[k] &= slots.shape[1] - 1
        stretched = np.int64(coder.stretch[slots[k, at[k]] >> np.uint32(16)])
        inputs[k] = stretched
        dot += stretched * (np.int64(a[k]) + np.int64(b[k]))
    dot += UNIT * (np.int64(a[INPUTS]) + np.int64(b[INPUTS]))
    mixed = int(dot >> 16)
    p = int(coder.squash[min(max(mixed, -LIMIT), LIMIT) + LIMIT])
    bit = _narrow(coder, p, bit)
    error = ((bit << 16) - p) * MIXING
    for k in range(INPUTS + 1):
        step = (inputs[k] * error + (1 << 19)) >> 20
        a[k] = min(max(a[k] + step, -MAX_WEIGHT), MAX_WEIGHT)
        b[k] = min(max(b[k] + step, -MAX_WEIGHT), MAX_WEIGHT)
    for k in range(INPUTS):
        slot = np.int64(slots[k, at[k]])
        count = slot & SLOT_COUNT
        chance = slot >> 10
        chance += (((bit << 22) - bit - chance) * coder.rates[count]) >> 16
        slots[k, at[k]] = np.uint32((chance << 10) | min(count + 1, SLOT_COUNT))
    return bit
