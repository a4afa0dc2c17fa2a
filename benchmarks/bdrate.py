"""Bjontegaard's measure of two rate-distortion curves, with the refusals that keep it honest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import bjontegaard
import numpy as np
from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

MIN_POINTS = 4
MIN_OVERLAP = 0.5


class BDRate(NamedTuple):
    """`percent` more (or, below 0, fewer) bits than the anchor at equal quality; None if refused, `why` says why."""

    percent: float | None
    overlap: float
    why: str


Curve = Sequence[tuple[float, float]]  # (bits per pixel, quality), quality rising with the rate


def _clean(curve: Curve) -> np.ndarray | None:
    """Sorted by rate, `[N, 2]`; None unless quality rises at every step, as an interpolation over quality needs."""
    points = np.array(sorted(curve), dtype=float).reshape(-1, 2)
    return points if (np.diff(points, axis=0) > 0).all() else None


def bd_rate(anchor: Curve, test: Curve) -> BDRate:
    """BD-rate by piecewise cubic (PCHIP) interpolation of log rate over quality.

    The overlap is the shared part of the two quality ranges, which the figure is of, over the shorter of them, 0 to 1.
    Negate a metric that is better when low.
    """
    a, t = _clean(anchor), _clean(test)
    if a is None or t is None:
        return BDRate(None, 0.0, "quality does not rise with the rate")
    if min(len(a), len(t)) < MIN_POINTS:
        return BDRate(None, 0.0, f"fewer than {MIN_POINTS} points")
    shared = min(a[-1, 1], t[-1, 1]) - max(a[0, 1], t[0, 1])
    overlap = max(0.0, float(shared / min(a[-1, 1] - a[0, 1], t[-1, 1] - t[0, 1])))
    if overlap < MIN_OVERLAP:
        return BDRate(None, overlap, f"{overlap:.0%} overlap, below {MIN_OVERLAP:.0%}")
    percent = bjontegaard.bd_rate(
        a[:, 0], a[:, 1], t[:, 0], t[:, 1], method="pchip", require_matching_points=False, min_overlap=0
    )
    return BDRate(float(percent), overlap, "")


def at_rate(curve: Curve, bpp: float) -> float | None:
    """A curve's value at a rate, by PCHIP over log rate; None outside its rates, for nothing is extrapolated."""
    points = np.array(sorted(curve), dtype=float).reshape(-1, 2)
    if len(points) < 2 or (np.diff(points[:, 0]) <= 0).any() or not points[0, 0] <= bpp <= points[-1, 0]:
        return None
    return float(PchipInterpolator(np.log(points[:, 0]), points[:, 1])(np.log(bpp)))
