"""The lookup-free bits of levels (Yu et al. 2024, MAGVIT-v2), and the integer that a few of them make."""

from __future__ import annotations

import numpy as np

from tokcodec.dtypes import I16, I64, U8


def bits_of(levels: I16, thresholds: int) -> U8:
    """The lookup-free bits of levels: whether they passed each of the thresholds nearest to zero.

    Args:
        levels: int16 `[D, ...]`.
        thresholds: on either side, from 1.

    Returns:
        uint8 `[2 * thresholds * D, ...]` of 0 and 1, in the fixed order: dimension by dimension, threshold by
        threshold away from zero, above it before below it. Bit 2 (thresholds d + m) is levels[d] > m, the next one
        levels[d] < -m.
    """
    m = np.arange(thresholds, dtype=np.int16).reshape(-1, *[1] * (levels.ndim - 1))
    passed = np.stack([levels[:, None] > m, levels[:, None] < -m], 2)
    return passed.astype(np.uint8).reshape(-1, *levels.shape[1:])


def levels_of(bits: U8, thresholds: int) -> I16:
    """The levels of `bits_of`, cut to +-thresholds."""
    pairs = bits.reshape(-1, thresholds, 2, *bits.shape[1:]).astype(np.int16)
    levels: I16 = (pairs[:, :, 0] - pairs[:, :, 1]).sum(1, dtype=np.int16)
    return levels


def index_of(bits: U8) -> I64:
    """The token index of MAGVIT-v2, int64 `[...]`: the sum of 2^i bits[i] over bits uint8 `[k, ...]`, k at most 62."""
    if len(bits) > 62:
        raise ValueError(f"an index holds at most 62 bits, not {len(bits)}")
    index: I64 = np.tensordot(1 << np.arange(len(bits), dtype=np.int64), bits.astype(np.int64), 1)
    return index
