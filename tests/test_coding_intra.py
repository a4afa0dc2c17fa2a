"""The first frame: predictions against the formulas of H.265, and what an encoder shows is what a decoder makes."""

from __future__ import annotations

import numpy as np
import pytest

from tokcodec.coding import intra, intra_search
from tokcodec.coding.planes import Planes, from_rgb
from tokcodec.stream.modes import DC, HORIZONTAL, PLANAR, STEP, VERTICAL, are_modes


def picture(height: int = 48, width: int = 80) -> Planes:
    """Stripes of several directions, an edge and noise."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.default_rng(0)
    plane = 128 + 60 * np.sin((x + 2 * y) / 5) * (x < width // 2) + 50 * (y > height // 2)
    return from_rgb((plane[None, ..., None] + rng.normal(0, 4, (1, height, width, 3))).clip(0, 255).astype(np.uint8))


def samples_around(size: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, 4 * intra.GRID + 1).astype(np.int32)


def predicted(samples: np.ndarray, size: int, mode: int, is_luma: bool = True) -> np.ndarray:
    smooth, out = np.zeros_like(samples), np.zeros((16, 16), np.int32)
    intra.smoothed(samples, size, smooth)
    intra.predict(samples, smooth, size, mode, is_luma, out)
    return out[:size, :size]


def by_formula(samples: np.ndarray, size: int, mode: int, is_luma: bool) -> np.ndarray:
    """H.265 8.4.4.2.3 to 8.4.4.2.6, written as there: p(x, y) with x or y = -1."""
    angles = [32, 26, 21, 17, 13, 9, 5, 2, 0, -2, -5, -9, -13, -17, -21, -26]
    angle = dict(zip(range(2, 18), angles, strict=True)) | dict(
        zip(range(18, 35), [-32, *angles[:0:-1], 32], strict=True)
    )
    flat = {10: 0, 26: 0}
    values = samples.astype(int)
    if is_luma and size > 4 and mode != DC:
        distance = min(abs(mode - 26), abs(mode - 10))
        if mode == PLANAR or distance > {8: 7, 16: 1}[size]:
            last = 4 * size
            values = np.array([values[k] if k in (0, last) else (values[k - 1] + 2 * values[k] + values[k + 1] + 2) >> 2
                               for k in range(last + 1)])  # fmt: skip

    def p(x: int, y: int) -> int:
        return (
            int(values[2 * size - 1 - y] if x < 0 else values[2 * size + 1 + x])
            if (x, y) != (-1, -1)
            else int(values[2 * size])
        )

    out = np.zeros((size, size), int)
    log = size.bit_length() - 1
    if mode == PLANAR:
        for y in range(size):
            for x in range(size):
                out[y, x] = ((size - 1 - x) * p(-1, y) + (x + 1) * p(size, -1) + (size - 1 - y) * p(x, -1)
                             + (y + 1) * p(-1, size) + size) >> (log + 1)  # fmt: skip
        return out
    if mode == DC:
        mean = (sum(p(k, -1) + p(-1, k) for k in range(size)) + size) >> (log + 1)
        out[:] = mean
        if is_luma:
            out[0, 0] = (p(-1, 0) + 2 * mean + p(0, -1) + 2) >> 2
            for k in range(1, size):
                out[0, k], out[k, 0] = (p(k, -1) + 3 * mean + 2) >> 2, (p(-1, k) + 3 * mean + 2) >> 2
        return out
    a = flat.get(mode, angle[mode])
    inverse = round(8192 / a) if a < 0 else 0
    main = (lambda k: p(k - 1, -1)) if mode >= 18 else (lambda k: p(-1, k - 1))
    side = (lambda k: p(-1, k)) if mode >= 18 else (lambda k: p(k, -1))
    ref = {k: main(k) for k in range(size + 1)}
    if a < 0:
        for k in range((size * a) >> 5, 0):
            ref[k] = side(-1 + ((k * inverse + 128) >> 8))
    else:
        for k in range(size + 1, 2 * size + 1):
            ref[k] = main(k)
    for y in range(size):
        for x in range(size):
            along, across = (y, x) if mode >= 18 else (x, y)
            whole, part = ((along + 1) * a) >> 5, ((along + 1) * a) & 31
            k = across + whole + 1
            out[y, x] = ((32 - part) * ref[k] + part * ref[k + 1] + 16) >> 5 if part else ref[k]
    if a == 0 and is_luma:
        for k in range(size):
            if mode == VERTICAL:
                out[k, 0] = min(max(p(0, -1) + ((p(-1, k) - p(-1, -1)) >> 1), 0), 255)
            else:
                out[0, k] = min(max(p(-1, 0) + ((p(k, -1) - p(-1, -1)) >> 1), 0), 255)
    return out


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("is_luma", [True, False])
def test_predictions_are_those_of_hevc(size: int, is_luma: bool) -> None:
    samples = samples_around(size)
    for mode in range(35):
        assert np.array_equal(predicted(samples, size, mode, is_luma), by_formula(samples, size, mode, is_luma)), mode


def test_what_is_not_decoded_is_as_its_neighbour() -> None:
    plane = np.arange(32 * 32, dtype=np.int32).reshape(32, 32) % 251
    out = np.zeros(65, np.int32)
    done = np.zeros((8, 8), np.uint8)
    intra.around(plane, done, 4, 8, 8, 8, out)
    assert (out[:33] == intra.GREY).all()
    done[1, 2:4] = 1  # above
    intra.around(plane, done, 4, 8, 8, 8, out)
    assert np.array_equal(out[17:25], plane[7, 8:16])
    assert (out[:17] == plane[7, 8]).all()
    assert (out[25:33] == plane[7, 15]).all()
    done[2:4, 1] = 1  # left
    intra.around(plane, done, 4, 8, 8, 8, out)
    assert np.array_equal(out[8:16], plane[8:16, 7][::-1])
    assert (out[:8] == plane[15, 7]).all()
    assert out[16] == plane[8, 7]  # the corner


@pytest.mark.parametrize("step16", [1, 40, 256, 2000])
def test_a_decoder_has_what_the_encoder_saw(step16: int) -> None:
    original = picture()
    levels, modes, shown = intra_search.encode(original, step16)
    assert (levels.shape, modes.shape) == ((384, 3, 5), (19, 3, 5))
    assert are_modes(modes)
    again = intra.reconstruct(levels, modes, step16)
    for a, b in zip(again, shown, strict=True):
        assert np.array_equal(a, b)
    error = np.sqrt(np.square(shown.y.astype(float) - original.y).mean())
    assert error < 0.7 + step16 / 16 * 0.5


def test_modes_follow_the_picture() -> None:
    """Stripes across come from the left, stripes down from above, a flat picture needs one square and no level."""
    stripes = np.where(np.arange(64) // 3 % 2, 60, 190).astype(np.uint8)
    for plane, mode in ((np.repeat(stripes[:, None], 64, 1), HORIZONTAL), (np.repeat(stripes[None], 64, 0), VERTICAL)):
        original = Planes(plane[None], np.full((1, 2, 32, 32), 128, np.uint8))
        _, modes, _ = intra_search.encode(original, 160)
        assert (modes[:16, 1:, 1:] == mode).mean() > 0.9
    flat = Planes(np.full((1, 64, 64), 128, np.uint8), np.full((1, 2, 32, 32), 128, np.uint8))
    levels, modes, shown = intra_search.encode(flat, 16)
    assert not levels.any()
    assert not modes[16].any()
    assert (shown.y == 128).all()


def test_steps_are_finer_where_little_happens() -> None:
    """Quiet noise on the left, loud noise on the right: levels apart, one number a square of 32x32."""
    rng = np.random.default_rng(3)
    luma = (128 + rng.normal(0, np.repeat([3.0, 30.0], 64), (80, 128))).clip(0, 255).astype(np.uint8)
    steps = intra_search.steps_of(luma)
    assert steps.shape == (5, 8)
    assert (steps[:, :4] < 4).all()
    assert (steps[:, 4:] > 4).all()
    assert (intra_search.steps_of(np.full((16, 16), 7, np.uint8)) == 4).all()
    original = Planes(luma[None], np.full((1, 2, 40, 64), 128, np.uint8))
    _, modes, shown = intra_search.encode(original, 320)
    assert np.array_equal(modes[STEP], steps)
    error = np.abs(shown.y[0].astype(int) - luma)
    assert error[:, :64].mean() < 0.5 * error[:, 64:].mean()


def test_the_scales_of_steps_are_thirds_of_octaves() -> None:
    for number, scale in enumerate(intra.SCALES):
        assert abs(scale / 64 - 2 ** ((number - 4) / 3)) < 1 / 128
    assert [intra.step_of(1, n) for n in range(9)] == [1, 1, 1, 1, 1, 1, 2, 2, 3]


def test_any_levels_and_modes_give_a_picture() -> None:
    rng = np.random.default_rng(2)
    levels = rng.integers(-32768, 32768, (384, 2, 2)).astype(np.int16)
    modes = np.zeros((19, 2, 2), np.int16)
    modes[:16], modes[16], modes[17], modes[STEP] = 34, 16, 4, 8
    shown = intra.reconstruct(levels, modes, 16383)
    assert (shown.y.shape, shown.c.shape) == ((1, 32, 32), (1, 2, 16, 16))
