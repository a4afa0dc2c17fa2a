"""Motion search within a fixed vocabulary: one vector and kind, or one colour, for every 16x16 pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tokcodec.coding.motion import Reference
from tokcodec.coding.motion_search import CHROMA_WEIGHT, distance_of
from tokcodec.coding.planes import GRID, Planes
from tokcodec.compiled import njit
from tokcodec.dtypes import I16, I32, U8, Array
from tokcodec.stream.fields import BOTH
from tokcodec.stream.vocabulary import COLOUR, code_of, colour_codes, colours_of, component_of

MERGE_BITS = np.array([0.7, 2.2, 3.2, 3.7, 4.0], np.float32)  # of the motion of a neighbour, by its number
OWN_BITS, COLOUR_BITS = 4.0, 14.0  # of a position that takes over none
OFFERS = 5  # left, above, above right, the guess, none


@njit(cache=True, nogil=True, inline="always")
def _packed(y: int, x: int, kind: int) -> int:
    return code_of(y) | code_of(x) << 8 | kind << 16


@njit(cache=True, nogil=True, inner=True)
def _offers(motion: I32, near: I32, row: int, column: int, offers: I32) -> int:
    """The motions that a position may take over, each once; their number."""
    columns = motion.shape[1]
    count = 0
    for source in range(5):
        offer = 0
        if source == 0 and column > 0:
            offer = motion[row, column - 1]
        elif source == 1 and row > 0:
            offer = motion[row - 1, column]
        elif source == 2 and row > 0 and column + 1 < columns:
            offer = motion[row - 1, column + 1]
        elif source == 3:
            offer = near[row, column]
        elif source < 3:
            continue
        is_new = True
        for i in range(count):
            is_new = is_new and offers[i] != offer
        if is_new and offer >> 16 != COLOUR:
            offers[count] = offer
            count += 1
    return count


@njit(cache=True, nogil=True, inline="always")
def _own_bits(y: int, x: int, guess_y: int, guess_x: int) -> float:
    return float(OWN_BITS + 1.7 * (np.log2(1.0 + abs(y - guess_y)) + np.log2(1.0 + abs(x - guess_x))))


class _Scene(NamedTuple):
    """What a frame is predicted from: its planes, those of both references, and the scale of `compensate`."""

    y: U8
    c: U8
    a_luma: U8
    a_chroma: U8
    b_luma: U8
    b_chroma: U8
    scale: int


@njit(cache=True, nogil=True, inner=True)
def _cost(scene: _Scene, row: int, column: int, y: int, x: int, kind: int, price: float, below: float) -> float:
    """Squared error of a position by one vector, and its price; something from `below` on if it is not less."""
    most = min(below - price, 2e9)
    if most <= 0:
        return below
    error = distance_of(
        scene.y, scene.c, scene.a_luma, scene.a_chroma, scene.b_luma, scene.b_chroma, scene.scale,
        row * GRID, column * GRID, GRID, y, x, kind, int(most),
    )  # fmt: skip
    return float(error + price)


@njit(cache=True, nogil=True, inner=True)
def _own(
    scene: _Scene, row: int, column: int, kind: int, starts: Array, count: int, rate: float
) -> tuple[float, int, int]:
    """The best vector of a kind, from the best of some starts on, by moves that halve: its cost, y and x.

    It is coded against the first start.
    """
    cost, y, x = 1e30, 0, 0
    guess_y, guess_x = starts[0, 0], starts[0, 1]
    for i in range(count):
        vy, vx = component_of(code_of(starts[i, 0])), component_of(code_of(starts[i, 1]))
        found = _cost(scene, row, column, vy, vx, kind, rate * _own_bits(vy, vx, guess_y, guess_x), cost)
        if found < cost:
            cost, y, x = found, vy, vx
    step = 16 if kind == 0 else 4
    while step >= 1:
        from_y, from_x = y, x
        for direction in range(9):
            vy = component_of(code_of(from_y + step * (direction // 3 - 1)))
            vx = component_of(code_of(from_x + step * (direction % 3 - 1)))
            if direction == 4:
                continue
            found = _cost(scene, row, column, vy, vx, kind, rate * _own_bits(vy, vx, guess_y, guess_x), cost)
            if found < cost:
                cost, y, x = found, vy, vx
        if y == from_y and x == from_x:
            step //= 2
    return cost, y, x


@njit(cache=True, nogil=True)
def _search(
    scene: _Scene, kinds: int, coarse: I16, near: I32, flat: I32, colours: I32, rate: float, motion: I32
) -> None:
    """Fill `motion`; `flat` and `colours` are the squared error of each position as one colour, and its integer."""
    offers, starts = np.zeros(OFFERS, np.int32), np.zeros((OFFERS + 2, 2), np.int64)
    for row in range(motion.shape[0]):
        for column in range(motion.shape[1]):
            count = _offers(motion, near, row, column, offers)
            best, cost = 0, 1e30
            for i in range(count):
                vy, vx, kind = component_of(offers[i] & 255), component_of(offers[i] >> 8 & 255), offers[i] >> 16
                starts[i, 0], starts[i, 1] = vy, vx
                kind = kind if kind < kinds else 0
                found = _cost(scene, row, column, vy, vx, kind, rate * MERGE_BITS[i], cost)
                if found < cost:
                    best, cost = _packed(vy, vx, kind), found
            if cost > 2 * rate:
                starts[count, 0], starts[count, 1] = coarse[0, row, column], coarse[1, row, column]
                for kind in range(kinds):  # those after the first begin where that ended, too
                    own, vy, vx = _own(scene, row, column, kind, starts, count + 1 + (kind > 0), rate)
                    if own < cost:
                        best, cost = _packed(vy, vx, kind), own
                    if kind == 0:
                        starts[count + 1, 0], starts[count + 1, 1] = vy, vx
            if flat[row, column] + rate * COLOUR_BITS < cost:
                best = colours[row, column] | COLOUR << 16
            motion[row, column] = best


def search(
    wanted: Planes, first: Reference, second: Reference | None, scale: int, coarse: I16, near: I32, rate: float
) -> I32:
    """The integers of motion of a frame.

    Args:
        wanted: its planes.
        first, second: reference frames; None where there is only one.
        scale: as for `compensate`.
        coarse: int16 `[2, h, w]`, vectors to start from, in quarter pixels.
        near: integers of motion to start from, int32 `[h, w]`.
        rate: lambda, squared levels a bit.

    Returns:
        int32 `[h, w]`.
    """
    motion = np.zeros(near.shape, np.int32)
    other = second or first
    flat, colours = as_colours(wanted)
    scene = _Scene(wanted.y[0], wanted.c[0], first.luma, first.chroma, other.luma, other.chroma, scale)
    _search(scene, BOTH + 1 if second else 1, coarse, near, flat, colours, rate, motion)
    return motion


def as_colours(wanted: Planes) -> tuple[I32, I32]:
    """Every position as one colour: squared error, as `distance_of` counts it, and integer; int32 `[h, w]` each."""
    h, w = (side // GRID for side in wanted.y.shape[1:])
    parts = [plane.reshape(h, -1, w, len(plane) // h).astype(np.int64) for plane in (wanted.y[0], *wanted.c[0])]
    codes = colour_codes(np.stack([part.mean((1, 3)) for part in parts]))
    errors = np.zeros((h, w), np.int64)
    for part, colour, weight in zip(parts, colours_of(codes), (1, CHROMA_WEIGHT, CHROMA_WEIGHT), strict=True):
        errors += weight * np.square(part - colour[:, None, :, None]).sum((1, 3))
    return errors.astype(np.int32), codes
