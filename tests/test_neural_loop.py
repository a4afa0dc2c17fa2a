"""The loop: what an encoder predicts from is what a decoder has."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tokcodec.errors import ModelError
from tokcodec.neural import transform
from tokcodec.neural.lfq import choose, dequantize
from tokcodec.neural.loop import Loop
from tokcodec.neural.motion import compensate, reference
from tokcodec.neural.planes import Planes, from_rgb, to_rgb
from tokcodec.neural.search import coarse_vectors, search, small
from tokcodec.pipeline import Helpers
from tokcodec.stream.fields import BOTH, FIRST


def cosines(n: int) -> np.ndarray:
    k = np.arange(n)
    matrix = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / (2 * n)) * np.sqrt(2 / n)
    matrix[0] /= np.sqrt(2)
    return matrix


def tables() -> dict[str, np.ndarray]:
    """A transform without training: cosines of every plane."""
    luma, chroma = np.kron(cosines(16), cosines(16)), np.kron(cosines(8), cosines(8))
    one = np.zeros((384, 384))
    one[:256, :256], one[256:320, 256:320], one[320:, 320:] = luma, chroma, chroma
    y, x = np.divmod(np.arange(256), 16)
    v, u = np.divmod(np.arange(64), 8)
    one = one[np.argsort(np.concatenate([y + x, 2 * (v + u), 2 * (v + u)]), kind="stable")].T
    three = np.concatenate([one, one, one]) / np.sqrt(3)
    ints = {"key": one, "between": three}
    return {f"klt.{k}": np.round(v * 2**14).astype(np.int16) for k, v in ints.items()} | {"klt.chroma": np.float32([1])}


def moving(count: int, height: int, width: int, speed: int = 2) -> np.ndarray:
    """A smooth texture that moves to the right, uint8 `[count, height, width, 3]`."""
    y, x = np.mgrid[:height, : width + speed * count]
    wide = np.stack([128 + 60 * np.sin(x * x / 900 + k) + 50 * np.cos(y / 7 + x / 11) for k in range(3)], -1)
    return np.stack([wide[:, speed * (count - i) :][:, :width] for i in range(count)]).astype(np.uint8)


@pytest.mark.parametrize(("count", "height", "width"), [(1, 16, 16), (2, 40, 70), (5, 64, 64), (10, 80, 144)])
def test_a_decoder_has_what_the_encoder_predicted_from(count: int, height: int, width: int) -> None:
    frames = moving(count, height, width)
    loop = Loop(tables())
    coding = loop.encode(frames, 12.5)
    groups = list(loop.decode(coding.tokens, 12.5, count))
    for kind, whole in enumerate([coding.base, coding.prediction]):
        assert np.array_equal(np.concatenate([g[kind].y for g in groups]), whole.y)
        assert np.array_equal(np.concatenate([g[kind].c for g in groups]), whole.c)
    assert [len(g[0].y) for g in groups] == [1] + [4] * ((count - 1) // 4) + [(count - 1) % 4] * ((count - 1) % 4 > 0)


def test_helpers_change_nothing() -> None:
    frames, loop = moving(23, 64, 64, speed=3), Loop(tables())
    alone = loop.encode(frames, 12.5)
    with Helpers(2) as helpers:
        helped = loop.encode(frames, 12.5, helpers)
    pairs = zip(alone, helped, strict=True)
    assert all(np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_work_that_no_helper_has_begun_is_done_by_who_needs_it() -> None:
    """Else threads that wait for each other's work would wait for ever."""
    hold, begun = threading.Event(), threading.Event()
    with Helpers(1) as helpers:
        first = helpers.share(lambda: (begun.set(), hold.wait(), threading.get_ident())[2])
        second = helpers.share(threading.get_ident)
        begun.wait()
        assert second() == threading.get_ident()
        hold.set()
        assert first() != threading.get_ident()


def test_a_chunk_says_nothing_of_frames_that_come_later() -> None:
    """An image is a clip of one frame; a group knows only the groups before it and its own frames."""
    frames = moving(9, 64, 64)
    loop = Loop(tables())
    whole, part, image = (loop.encode(frames[:n], 8).tokens for n in (9, 5, 1))
    assert np.array_equal(whole.levels[:, :2], part.levels)
    assert np.array_equal(whole.motion[:4], part.motion)
    assert np.array_equal(whole.levels[:, :1], image.levels)
    assert len(image.motion) == 0


def test_what_moves_evenly_costs_next_to_nothing_after_the_first_frame() -> None:
    tokens = Loop(tables()).encode(moving(9, 96, 128), 20).tokens
    assert np.count_nonzero(tokens.levels[:, 1:]) < 0.1 * np.count_nonzero(tokens.levels[:, 0])
    assert np.median(tokens.motion[[0, 4], 1]) == -4 * 4 * 2  # two pixels a frame, in quarters, over four frames


def test_finer_steps_are_closer() -> None:
    frames = moving(5, 64, 96)
    loop, errors = Loop(tables()), []
    for step in (64, 16, 4):
        errors.append(np.square(to_rgb(loop.encode(frames, step).base, 64, 96).astype(float) - frames).mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 8


def test_folding_is_orthonormal_and_its_way_back_exact() -> None:
    rng = np.random.default_rng(0)
    original = Planes(
        rng.integers(0, 256, (2, 48, 64)).astype(np.uint8), rng.integers(0, 256, (2, 2, 24, 32)).astype(np.uint8)
    )
    flat = Planes(np.full_like(original.y, 128), np.full_like(original.c, 128))
    blocks = transform.blocks_of(original, flat)
    energy = np.square(original.y - 128.0).sum() + np.square(original.c - 128.0).sum()
    assert np.square(blocks).sum() == pytest.approx(energy, rel=1e-4)
    identity = transform.Basis((np.eye(2 * transform.SIZE) * 2**14).astype(np.int16), 1.0)
    again = identity.add(flat, np.round(identity.latents(blocks) * 16).astype(np.int32))
    assert np.abs(again.y.astype(int) - original.y).max() <= 1
    assert np.abs(again.c.astype(int) - original.c).max() <= 1


def test_no_levels_change_nothing() -> None:
    frames = Planes(np.full((3, 32, 32), 77, np.uint8), np.full((3, 2, 16, 16), 99, np.uint8))
    basis = Loop(tables()).between
    same = basis.add(frames, np.zeros((2, 2, basis.dimensions), np.int32))
    assert np.array_equal(same.y, frames.y)
    assert np.array_equal(same.c, frames.c)


def test_levels_have_a_dead_zone_and_the_sign_of_their_latent() -> None:
    latents = np.zeros((3, 3, 8), np.float32)
    latents[1, 1, :3] = 100.0, -42.0, 3.0
    levels = choose(latents, 10.0)
    assert levels[1, 1].tolist() == [10, -4, 0, 0, 0, 0, 0, 0]
    assert np.count_nonzero(levels) == 2
    assert dequantize(levels, 160)[1, 1, :3].tolist() == [1590, -630, 0]
    most = np.full((1, 1, 1), 32767, np.int16)
    assert dequantize(most, 111410).item() == 32767 * 111410 - (111410 >> 4)


def test_a_finer_step_is_no_worse_however_fine() -> None:
    frames = moving(1, 48, 64)
    frames[:, :, 20:50] = np.where(frames[:, :, 20:50] > 127, 255, 0)  # large latents
    original, errors = from_rgb(frames), []
    for step in (8.0, 2.0, 0.5, 0.25):
        shown = Loop(tables()).encode(frames, step).base
        errors.append(float(np.square(shown.y.astype(float) - original.y).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_a_search_finds_a_shift_and_keeps_to_whole_blocks() -> None:
    frames = moving(5, 128, 192, speed=3)
    planes = from_rgb(frames)
    now, then = planes.part(slice(4, 5)), planes.part(slice(1))
    coarse = coarse_vectors(small(now.y[0]), small(then.y[0]), 4)
    ref = reference(then)
    field = search(now.y[0], now.c[0], ref, ref, (4, 8), False, coarse, None, 4.0)
    predicted = compensate(ref, ref, (4, 8), field)
    assert np.abs(predicted.y[0, :, 16:].astype(int) - now.y[0, :, 16:]).mean() < 1
    assert (field[2] == FIRST).all()
    for depth in range(3):  # a leaf of 64, 32 or 16 pixels is one block
        cells = 8 >> depth
        for row, column in np.argwhere(field[3] == depth):
            top, left = row // cells * cells, column // cells * cells
            block = field[:, top : top + cells, left : left + cells]
            assert (block == block[:, :1, :1]).all()


def test_a_search_tells_colours_of_the_same_brightness_apart() -> None:
    """The right half takes its colour from the left: luma is the same everywhere."""
    grey, red = np.full((1, 2, 32, 64), 128, np.uint8), np.full((1, 2, 32, 64), 128, np.uint8)
    red[:, 1, :, :16] = 200
    grey[:, 1, :, 32:48] = 200  # moved by 64 pixels
    y = np.full((1, 64, 128), 100, np.uint8)
    then, now = reference(Planes(y, red)), Planes(y, grey)
    coarse = np.zeros((2, 4, 8), np.int16)
    coarse[1] = -64 * 4
    field = search(now.y[0], now.c[0], then, then, (4, 8), False, coarse, None, 4.0)
    assert (
        np.abs(compensate(then, then, (4, 8), field).c[:, :, 4:-4, 36:44].astype(int) - now.c[:, :, 4:-4, 36:44]).max()
        <= 2
    )


def test_between_two_references_is_their_mean() -> None:
    dark, bright = (Planes(np.full((1, 32, 32), v, np.uint8), np.full((1, 2, 16, 16), v, np.uint8)) for v in (50, 101))
    field = np.zeros((3, 4, 4), np.int16)
    field[2] = BOTH
    mean = compensate(reference(dark), reference(bright), (2, -2), field)
    assert (mean.y == 76).all()
    assert (mean.c == 76).all()


def test_grey_in_grey_out() -> None:
    frames = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, -1)
    frames = np.broadcast_to(frames, (1, 32, 256, 3))
    assert np.array_equal(to_rgb(from_rgb(frames), 32, 256), frames)


def test_weights_without_a_transform_are_no_tables() -> None:
    with pytest.raises(ModelError, match=r"klt\.between"):
        Loop({"klt.key": np.zeros((384, 8), np.int16)})
