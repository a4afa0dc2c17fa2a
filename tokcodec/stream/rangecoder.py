"""A binary arithmetic coder whose probabilities are mixed from several contexts, in integers.

In the line of PAQ (M. Mahoney, "Adaptive weighing of context models for lossless data compression", 2005): each
context of a decision has a slot, a probability that follows the decisions met there. The slots' probabilities are
mixed in the logistic domain, by weights that are trained as it goes. All of it is integers, so that the decoder's
probabilities are the encoder's on every machine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

INPUTS = 8  # contexts of a decision
SLOT_BITS = 16  # log2 of the slots of an input
ONE = 1 << 16  # probability 1
UNIT = 256  # of the logistic domain
LIMIT = 12 * UNIT
SLOT_COUNT = 1023  # the low bits of a slot: decisions met; the high 22 are the probability of a 1
SLOWEST = 255  # count from which on a slot's rate stays
FRESH_SLOT = 1 << 31
FRESH_WEIGHT = ONE * 3 // 20  # of one of the two mixers

U32 = NDArray[np.uint32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

# ln(p / (1 - p)) and its inverse. No value is near a half, so that every libm rounds them alike.
_p = np.arange(1, ONE) / ONE
_STRETCH = np.concatenate([[-LIMIT], np.rint(np.log(_p / (1 - _p)) * UNIT)]).astype(np.int32)
_SQUASH = np.clip(np.rint(ONE / (1 + np.exp(-np.arange(-LIMIT, LIMIT + 1) / UNIT))), 1, ONE - 1).astype(np.int32)
_RATES = np.array([ONE * 2 // (2 * n + 3) for n in range(SLOT_COUNT + 1)], np.int32)

# Registers
LOW, HIGH, WINDOW, POSITION, DECODING, OVERRUN, SLOWEST_AT, MIXER_RATE = range(8)


class Coder(NamedTuple):
    """An encoder or decoder with its models; see `encoder` and `decoder`."""

    registers: I64
    buffer: NDArray[np.uint8]
    slots: U32  # [INPUTS, 2 ** SLOT_BITS]
    weights: I32  # [mixers, INPUTS + 1]
    at: I64  # [INPUTS], slot of each context of the next decision
    inputs: I64  # [INPUTS + 1]
    stretch: I32
    squash: I32
    rates: I32


def encoder(slots: U32, weights: I32, capacity: int, slowest: int = SLOWEST) -> Coder:
    """A coder that writes to a buffer of that many bytes. It changes `slots` and `weights`."""
    registers = np.array([0, 0xFFFFFFFF, 0, 0, 0, 0, slowest, 6], np.int64)
    at, inputs = np.zeros(INPUTS, np.int64), np.full(INPUTS + 1, UNIT, np.int64)
    buffer = np.zeros(capacity, np.uint8)
    return Coder(registers, buffer, slots, weights, at, inputs, _STRETCH, _SQUASH, _RATES)


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


@njit(cache=True, nogil=True)
def _narrow(coder: Coder, p: int, bit: int) -> int:
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


@njit(cache=True, nogil=True)
def code_raw(coder: Coder, bit: int) -> int:
    """Code a decision without a model. A decoder ignores `bit`; both return the decision, 0 or 1."""
    return _narrow(coder, ONE // 2, bit)


@njit(cache=True, nogil=True, inline="always")
def context(coder: Coder, number: int, value: int) -> None:
    """Give the next decision its context `number`, an integer from 0 to 2^63 - 1."""
    coder.at[number] = (np.uint64(value) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - SLOT_BITS)


@njit(cache=True, nogil=True)
def code(coder: Coder, first: int, second: int, bit: int) -> int:
    """Code a decision by its contexts and two mixers. A decoder ignores `bit`; both return the decision, 0 or 1."""
    slots, at, inputs = coder.slots, coder.at, coder.inputs
    a, b = coder.weights[first], coder.weights[second]
    dot = np.int64(0)
    for k in range(INPUTS):
        stretched = np.int64(coder.stretch[slots[k, at[k]] >> np.uint32(16)])
        inputs[k] = stretched
        dot += stretched * (np.int64(a[k]) + np.int64(b[k]))
    dot += UNIT * (np.int64(a[INPUTS]) + np.int64(b[INPUTS]))
    p = np.int64(coder.squash[min(max(dot >> 16, -LIMIT), LIMIT) + LIMIT])
    bit = _narrow(coder, p, bit)
    error = ((bit << 16) - p) * coder.registers[MIXER_RATE]
    for k in range(INPUTS + 1):
        step = (inputs[k] * error + (1 << 17)) >> 18
        a[k] = min(max(a[k] + step, -(1 << 24)), 1 << 24)
        b[k] = min(max(b[k] + step, -(1 << 24)), 1 << 24)
    slowest = coder.registers[SLOWEST_AT]
    for k in range(INPUTS):
        slot = np.int64(slots[k, at[k]])
        count = slot & SLOT_COUNT
        chance = slot >> 10
        chance += (((bit << 22) - bit - chance) * coder.rates[count]) >> 16
        slots[k, at[k]] = np.uint32((chance << 10) | min(count + 1, slowest))
    return bit
