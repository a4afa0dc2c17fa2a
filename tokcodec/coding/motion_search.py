"""Motion search: how an encoder chooses the field that a decoder follows.

Coarse vectors come from a full search in pictures of a quarter of the size. Then a quad-tree from 64x64 to 8x8 pixels
is chosen by squared error + lambda * bits: every block may take over one of its `candidates` or name a vector of its
own, found from there by moves that halve.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.motion import BLOCK, BORDER, Reference, share
from tokcodec.compiled import njit
from tokcodec.dtypes import I16, I32, U8
from tokcodec.stream.fields import BOTH, FIRST, MAX_CANDIDATES, MAX_VECTOR, SECOND, UNKNOWN, candidates, predicted

CELLS = 8  # cells along a tree's side
DEPTHS = 4
COARSE = 4  # scale of the first search
COARSE_CELL = 4  # a block of it is that many pixels of the small picture: 16 of the large one
COARSE_REACH = 16
CHROMA_WEIGHT = 2  # of squared errors in Cb and Cr, over those in Y: what the transform gives them
MERGE_BITS = np.array([0.6, 2.0, 3.2, 4.2, 4.6, 4.6], np.float32)  # of a leaf that takes over a candidate
SPLIT_BITS = np.array([[0.7, 1.2], [0.6, 1.4], [0.35, 2.2], [0.0, 0.0]], np.float32)  # of a leaf, of a split, by depth


@njit(cache=True, nogil=True)
def _small(plane: U8, out: NDArray[np.int32]) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = 0
            for a in range(COARSE):
                for b in range(COARSE):
                    total += plane[COARSE * i + a, COARSE * j + b]
            out[i, j] = total >> 2


@njit(cache=True, nogil=True)
def _coarse(now: I32, then: I32, reach: int, out: I16, errors: I32) -> None:
    """Full search up to `reach` samples: for every 16x16 block a vector, smooth between neighbours, and its error.

    `then` has `COARSE_REACH` more samples on every side.
    """
    height, width = now.shape
    rows, columns = height // COARSE_CELL, width // COARSE_CELL
    around = 2  # pixels of context around a block
    for i in range(rows):
        for j in range(columns):
            top, bottom = max(i * COARSE_CELL - around, 0), min(i * COARSE_CELL + COARSE_CELL + around, height)
            left, right = max(j * COARSE_CELL - around, 0), min(j * COARSE_CELL + COARSE_CELL + around, width)
            py, px = 0, 0
            if j > 0:
                py, px = out[0, i, j - 1] // 16, out[1, i, j - 1] // 16
            elif i > 0:
                py, px = out[0, i - 1, j] // 16, out[1, i - 1, j] // 16
            best, by, bx = 1 << 30, 0, 0
            least = 0
            for dy in range(-reach, reach + 1):
                if top + dy < -2 or bottom + dy > height + 2:
                    continue
                for dx in range(-reach, reach + 1):
                    if left + dx < -2 or right + dx > width + 2:
                        continue
                    cost = 40 * (min(abs(dy - py) + abs(dx - px), 6)) + 4 * (abs(dy) + abs(dx))
                    if cost >= best:
                        continue
                    row, column = top + dy + COARSE_REACH, left + dx + COARSE_REACH
                    if bottom - top == 8 and right - left == 8:
                        error = int(_difference(now, then, 8, 8, top, left, row, column))
                    else:
                        error = int(_difference(now, then, bottom - top, right - left, top, left, row, column))
                    if cost + error < best:
                        best, by, bx, least = cost + error, dy, dx, error
            errors[i, j] = least * 64 // ((bottom - top) * (right - left))
            out[0, i, j] = min(max(by * 16, -MAX_VECTOR), MAX_VECTOR)
            out[1, i, j] = min(max(bx * 16, -MAX_VECTOR), MAX_VECTOR)


@njit(cache=True, nogil=True, inline="always")
def _difference(
    now: NDArray[np.int32], then: NDArray[np.int32], rows: int, columns: int, top: int, left: int, row: int, column: int
) -> np.int32:
    """Sum of absolute differences; for the arithmetic see `_sum`."""
    t, l, r, q = np.uintp(top), np.uintp(left), np.uintp(row), np.uintp(column)  # noqa: E741
    total = np.int32(0)
    for i in range(np.uintp(rows)):
        for j in range(np.uintp(columns)):
            total = np.int32(total + abs(np.int32(now[t + i, l + j] - then[r + i, q + j])))
    return total


@njit(cache=True, nogil=True, inline="always")
def _sum(
    own: U8, a: U8, b: U8, both: bool, rows: int, columns: int,
    top: int, left: int, a_top: int, a_left: int, b_top: int, b_left: int,
) -> np.int32:  # fmt: skip
    """Sum of squared differences of a block, at most 64x64, and its prediction from `a` or from `a` and `b`.

    All in 32 bits and with indices that cannot be negative: this is what LLVM makes vectors of, and with `rows` and
    `columns` that are constant no loop is left.
    """
    t, l = np.uintp(top), np.uintp(left)  # noqa: E741
    at, al, bt, bl = np.uintp(a_top), np.uintp(a_left), np.uintp(b_top), np.uintp(b_left)
    total = np.int32(0)
    if both:
        for i in range(np.uintp(rows)):
            for j in range(np.uintp(columns)):
                mean = np.int32((np.int32(a[at + i, al + j]) + np.int32(b[bt + i, bl + j]) + 1) >> 1)
                d = np.int32(np.int32(own[t + i, l + j]) - mean)
                total = np.int32(total + np.int32(d * d))
    else:
        for i in range(np.uintp(rows)):
            for j in range(np.uintp(columns)):
                d = np.int32(np.int32(own[t + i, l + j]) - np.int32(a[at + i, al + j]))
                total = np.int32(total + np.int32(d * d))
    return total


@njit(cache=True, nogil=True, inner=True)
def _squares(
    own: U8, a: U8, b: U8, both: bool, rows: int, columns: int,
    top: int, left: int, at: int, al: int, bt: int, bl: int, most: int,
) -> int:  # fmt: skip
    """As `_sum`, for blocks of any size; what is above `most` may be less than the whole."""
    if rows == 8 and columns == 8:
        return int(_sum(own, a, b, both, 8, 8, top, left, at, al, bt, bl))
    if rows == 4 and columns == 4:
        return int(_sum(own, a, b, both, 4, 4, top, left, at, al, bt, bl))
    total = 0
    for i in range(rows):
        if columns == 16:
            total += int(_sum(own, a, b, both, 1, 16, top + i, left, at + i, al, bt + i, bl))
        else:
            total += int(_sum(own, a, b, both, 1, columns, top + i, left, at + i, al, bt + i, bl))
        if total > most:
            break
    return total


@njit(cache=True, nogil=True)
def distance_of(
    y: U8, c: U8, a_luma: U8, a_chroma: U8, b_luma: U8, b_chroma: U8, scale: int,
    top: int, left: int, size: int, vy: int, vx: int, kind: int, most: int,
) -> int:  # fmt: skip
    """Squared error of a block by one vector, without overlap, its chroma at whole samples; may stop above `most`."""
    height, width = y.shape
    rows, columns = min(size, height - top), min(size, width - left)
    ay, ax = vy, vx
    by, bx = share(vy, scale), share(vx, scale)
    if kind == SECOND:
        ay, ax, a_luma, a_chroma = by, bx, b_luma, b_chroma
    a, b, both = a_luma[4 * (ay & 3) + (ax & 3)], b_luma[4 * (by & 3) + (bx & 3)], kind == BOTH
    high, wide = a.shape
    at = min(max(top + (ay >> 2) + BORDER, 0), high - rows)
    al = min(max(left + (ax >> 2) + BORDER, 0), wide - columns)
    bt = min(max(top + (by >> 2) + BORDER, 0), high - rows)
    bl = min(max(left + (bx >> 2) + BORDER, 0), wide - columns)
    total = _squares(y, a, b, both, rows, columns, top, left, at, al, bt, bl, most)
    rows, columns, top, left = rows >> 1, columns >> 1, top >> 1, left >> 1
    high, wide = a_chroma.shape[1:]
    at = min(max(top + ((ay + 4) >> 3) + BORDER // 2, 0), high - rows)
    al = min(max(left + ((ax + 4) >> 3) + BORDER // 2, 0), wide - columns)
    bt = min(max(top + ((by + 4) >> 3) + BORDER // 2, 0), high - rows)
    bl = min(max(left + ((bx + 4) >> 3) + BORDER // 2, 0), wide - columns)
    for k in range(2):
        if total > most:
            break
        total += CHROMA_WEIGHT * _squares(
            c[k], a_chroma[k], b_chroma[k], both, rows, columns, top, left, at, al, bt, bl, most
        )
    return total


@njit(cache=True, nogil=True, inline="always")
def _number_bits(d: int) -> float:
    n = abs(d)
    bits = 1.0
    while n:
        bits += 1.7
        n >>= 1
    return bits


@njit(cache=True, nogil=True, inner=True)
def _leaf(
    y: U8, c: U8, a_luma: U8, a_chroma: U8, b_luma: U8, b_chroma: U8, scale: int, kinds: int,
    coarse: I16, vector: I16, kind: I16,
    near: I16, far: I16, row: int, column: int, size: int, rate: float, spare: I16, starts: I16, best: I16,
) -> float:  # fmt: skip
    """The best way to predict a block as a whole: `best` takes (y, x, kind, merge); its cost."""
    top, left, px = row * BLOCK, column * BLOCK, size * BLOCK
    count = candidates(vector, kind, row, column, size, near, far, spare)
    cost = 1e30
    for i in range(count):
        k = int(spare[i, 2])
        most = min(cost - rate * MERGE_BITS[i], 2e9)
        if most <= 0:
            continue
        distance = distance_of(
            y, c, a_luma, a_chroma, b_luma, b_chroma, scale, top, left, px, spare[i, 0], spare[i, 1], k, int(most)
        )
        total = distance + rate * MERGE_BITS[i]
        if total < cost:
            cost = total
            best[0], best[1], best[2], best[3] = spare[i, 0], spare[i, 1], k, i
    if cost <= rate * 2:
        return cost
    py, px_ = predicted(vector, kind, row, column, size)
    # starts: the best candidate, coarse vectors of the middle and of a corner, all candidates
    starts[0, 0], starts[0, 1] = best[0], best[1]
    middle_row, middle_column = min(row + size // 2, kind.shape[0] - 1), min(column + size // 2, kind.shape[1] - 1)
    starts[1, 0] = coarse[0, middle_row // 2, middle_column // 2]
    starts[1, 1] = coarse[1, middle_row // 2, middle_column // 2]
    seeds = 2
    if size > 2:
        starts[seeds, 0], starts[seeds, 1] = coarse[0, row // 2, column // 2], coarse[1, row // 2, column // 2]
        seeds += 1
    for i in range(count):
        starts[seeds, 0], starts[seeds, 1] = spare[i, 0], spare[i, 1]
        seeds += 1
    own, oy, ox, ok = 1e30, 0, 0, FIRST
    for trial in range(kinds):  # FIRST, then SECOND, then BOTH, each from where the one before ended
        k = trial
        here, hy, hx = 1e30, 0, 0
        for i in range(seeds):
            vy, vx = int(starts[i, 0]), int(starts[i, 1])
            bits = 3.5 + _number_bits(vy - py) + _number_bits(vx - px_)
            most = min(here - rate * bits, 2e9)
            if most <= 0 or (i > 0 and vy == hy and vx == hx):
                continue
            distance = distance_of(y, c, a_luma, a_chroma, b_luma, b_chroma, scale, top, left, px, vy, vx, k, int(most))
            if distance + rate * bits < here:
                here, hy, hx = distance + rate * bits, vy, vx
        step = 16 if trial == 0 else 4
        known, ky, kx = False, 0, 0  # what lies around the last centre has been tried
        while step >= 1:
            moved = False
            cy, cx = hy, hx
            for direction in range(8):
                if direction < 4:
                    dy = step * ((direction == 0) - (direction == 1))
                    dx = step * ((direction == 2) - (direction == 3))
                else:
                    dy = step if direction & 1 else -step
                    dx = step if direction & 2 else -step
                vy, vx = cy + dy, cx + dx
                if abs(vy) > MAX_VECTOR or abs(vx) > MAX_VECTOR:
                    continue
                if known and abs(vy - ky) <= step and abs(vx - kx) <= step:
                    continue
                bits = 3.5 + _number_bits(vy - py) + _number_bits(vx - px_)
                most = min(here - rate * bits, 2e9)
                if most <= 0:
                    continue
                distance = distance_of(
                    y, c, a_luma, a_chroma, b_luma, b_chroma, scale, top, left, px, vy, vx, k, int(most)
                )
                if distance + rate * bits < here:
                    here, hy, hx = distance + rate * bits, vy, vx
                    moved = True
            known, ky, kx = moved, cy, cx
            if not moved:
                step //= 2
        if here < own:
            own, oy, ox, ok = here, hy, hx, k
        starts[0, 0], starts[0, 1] = hy, hx
    if own < cost:
        best[0], best[1], best[2], best[3] = oy, ox, ok, -1
        cost = own
    return cost


@njit(cache=True, nogil=True, inner=True)
def _set(field: I16, row: int, column: int, depth: int, own: I16) -> None:
    size = CELLS >> depth
    for i in range(row, row + size):
        for j in range(column, column + size):
            field[0, i, j], field[1, i, j], field[2, i, j], field[3, i, j], field[4, i, j] = (
                own[0],
                own[1],
                own[2],
                depth,
                own[3],
            )


@njit(cache=True, nogil=True, inner=True)
def _tree(
    y: U8, c: U8, a_luma: U8, a_chroma: U8, b_luma: U8, b_chroma: U8, scale: int, kinds: int,
    coarse: I16, field: I16,
    near: I16, far: I16, root_row: int, root_column: int, rate: float, spare: I16, starts: I16,
) -> float:  # fmt: skip
    """Choose a tree, depth first. A stack instead of recursion, which numba cannot keep compiled on the disk."""
    rows, columns = field.shape[1:]
    row, column = np.zeros(DEPTHS, np.int64), np.zeros(DEPTHS, np.int64)
    part = np.zeros(DEPTHS, np.int64)  # the child that comes next; -1: the block is new
    whole, parts = np.zeros(DEPTHS), np.zeros(DEPTHS)  # costs: of the leaf, and of the children so far
    own = np.zeros((DEPTHS, 4), np.int16)
    depth = 0
    row[0], column[0], part[0] = root_row, root_column, -1
    while True:
        size = CELLS >> depth
        r, q = row[depth], column[depth]
        done, cost = False, 0.0
        if r >= rows or q >= columns:
            done = True
        elif part[depth] < 0:
            part[depth] = 0
            forced = r + size > rows or q + size > columns
            whole[depth], parts[depth] = 1e30, 0.0
            if not forced:
                parts[depth] = rate * SPLIT_BITS[depth, 1]
                cost = _leaf(
                    y, c, a_luma, a_chroma, b_luma, b_chroma, scale, kinds, coarse, field[:2], field[2],
                    near, far, r, q, size, rate, spare, starts, own[depth],
                )  # fmt: skip
                cost += rate * SPLIT_BITS[depth, 0]
                whole[depth] = cost
                if size == 1 or cost <= rate * (SPLIT_BITS[depth, 0] + 0.7):
                    _set(field, r, q, depth, own[depth])
                    done = True
        elif parts[depth] >= whole[depth]:
            _set(field, r, q, depth, own[depth])
            done, cost = True, whole[depth]
        elif part[depth] == 4:
            done, cost = True, parts[depth]
        if done:
            if depth == 0:
                return cost
            depth -= 1
            parts[depth] += cost
        else:
            half = size // 2
            row[depth + 1] = r + half * (part[depth] >> 1)
            column[depth + 1] = q + half * (part[depth] & 1)
            part[depth] += 1
            depth += 1
            part[depth] = -1


@njit(cache=True, nogil=True)
def _search(
    y: U8,
    c: U8,
    a_luma: U8,
    a_chroma: U8,
    b_luma: U8,
    b_chroma: U8,
    scale: int,
    kinds: int,
    coarse: I16,
    near: I16,
    far: I16,
    rate: float,
    field: I16,
) -> float:
    spare, starts = np.zeros((MAX_CANDIDATES, 3), np.int16), np.zeros((4 + MAX_CANDIDATES, 2), np.int16)
    total = 0.0
    for row in range(0, field.shape[1], CELLS):
        for column in range(0, field.shape[2], CELLS):
            # what an abandoned split wrote beyond a leaf is overwritten by the leaf itself
            total += _tree(
                y,
                c,
                a_luma,
                a_chroma,
                b_luma,
                b_chroma,
                scale,
                kinds,
                coarse,
                field,
                near,
                far,
                row,
                column,
                rate,
                spare,
                starts,
            )
    return total


def small(plane: U8) -> NDArray[np.int32]:
    """A plane `[H, W]` at a quarter of its size, in quarter levels."""
    out = np.empty((plane.shape[0] // COARSE, plane.shape[1] // COARSE), np.int32)
    _small(plane, out)
    return out


def coarse_reach(distance: int) -> int:
    """How far `coarse_vectors` of a frame so many frames away are sought."""
    return min(COARSE_REACH, 4 + 2 * distance)


def coarse_vectors(now: I32, then: I32, reach: int = COARSE_REACH) -> tuple[I16, I32]:
    """Vectors of blocks of 16x16 from one small plane to another.

    Args:
        now, then: as of `small`.
        reach: of the search, in samples of the small planes, at most 16.

    Returns:
        Vectors, int16 `[2, H / 16, W / 16]`, in quarter pixels; and errors, int32 `[H / 16, W / 16]`: sums of 64
        absolute differences of the small planes.
    """
    rows, columns = now.shape[0] // COARSE_CELL, now.shape[1] // COARSE_CELL
    out, errors = np.zeros((2, rows, columns), np.int16), np.zeros((rows, columns), np.int32)
    _coarse(now, np.pad(then, COARSE_REACH, mode="edge"), reach, out, errors)
    return out, errors


@njit(cache=True, nogil=True)
def _halfway(now: I32, low: I32, high: I32, vectors: I16, errors: I32) -> None:
    height, width = now.shape
    for i in range(errors.shape[0]):
        for j in range(errors.shape[1]):
            top, left = i * COARSE_CELL, j * COARSE_CELL
            vy, vx = int(vectors[0, i, j]) >> 5, int(vectors[1, i, j]) >> 5  # half of it, in samples
            best = 1 << 30
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    back, ahead, mean = 0, 0, 0
                    for a in range(top, top + COARSE_CELL):
                        for b in range(left, left + COARSE_CELL):
                            y0, x0 = min(max(a + vy + dy, 0), height - 1), min(max(b + vx + dx, 0), width - 1)
                            y1, x1 = min(max(a - vy - dy, 0), height - 1), min(max(b - vx - dx, 0), width - 1)
                            own, p, q = now[a, b], low[y0, x0], high[y1, x1]
                            back += abs(own - p)
                            ahead += abs(own - q)
                            mean += abs(own - ((p + q) >> 1))
                    best = min(best, back, ahead, mean)
            errors[i, j] = 4 * best


def halfway_errors(now: I32, low: I32, high: I32, vectors: I16) -> I32:
    """What is left of a small plane halfway between two others by linear motion, as `coarse_vectors` gives it.

    Args:
        now, low, high: small planes.
        vectors: of `high` to `low`, as `coarse_vectors` gives them.
    """
    errors = np.zeros(vectors.shape[1:], np.int32)
    _halfway(now, low, high, vectors, errors)
    return errors


def search(
    y: U8, c: U8, first: Reference, second: Reference | None, scale: int, coarse: I16, near: I16, far: I16, rate: float
) -> I16:
    """The motion field of a frame.

    Args:
        y, c: uint8 `[H, W]` and `[2, H / 2, W / 2]`, its planes.
        first, second: reference frames; None where there is only one.
        scale: as for `compensate`.
        coarse: int16 `[2, H / 16, W / 16]`, vectors to start from.
        near, far: the temporal fields of `candidates`, int16 `[5, H / 8, W / 8]`.
        rate: lambda, squared levels a bit.

    Returns:
        int16 `[5, H / 8, W / 8]`: y, x, kind, depth, merge.
    """
    field = np.zeros((5, y.shape[0] // BLOCK, y.shape[1] // BLOCK), np.int16)
    field[2] = UNKNOWN
    other = second or first
    _search(
        y, c, first.luma, first.chroma, other.luma, other.chroma, scale, BOTH + 1 if second else 1, coarse, near, far,
        rate, field,
    )  # fmt: skip
    return field
