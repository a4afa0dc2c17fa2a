"""Pixels on two scales: levels of 8 bits, 0 to 255, and what networks take, -1 to 1."""

from __future__ import annotations

from torch import Tensor


def to_unit(levels: Tensor) -> Tensor:
    """Levels of any dtype to float32, 0 to -1 and 255 to 1; a float32 tensor is changed in place."""
    return levels.float().div_(127.5).sub_(1)


def to_levels(unit: Tensor) -> Tensor:
    """Floats in [-1, 1] to the nearest levels, uint8; what is outside becomes 0 or 255."""
    return (unit.float() * 127.5).add_(128).clamp_(0, 255).byte()  # + 127.5, and .5 for the conversion to round
