"""The loop: what an encoder predicts from is what a decoder has."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tokcodec.coding import transform
from tokcodec.coding.lookahead import FINEST, MOST
from tokcodec.coding.loop import Coded, Loop, joined, scale_of
from tokcodec.coding.motion import compensate, reference
from tokcodec.coding.motion_search import coarse_vectors, search, small
from tokcodec.coding.planes import Planes, from_rgb, to_rgb
from tokcodec.coding.quantizer import choose, dequantize
from tokcodec.errors import ModelError
from tokcodec.pipeline import Helpers
from tokcodec.stream.entropy import FrameTokens, Tables, Tokens, decode_chunk, encode_chunk, frame_step, gathered
from tokcodec.stream.fields import BOTH, FIRST, SECOND, unknown
from tokcodec.stream.pyramid import Place, order, uniform


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
    return {"klt": np.round(one * 2**14).astype(np.int16), "klt.chroma": np.float32([1])}


def moving(count: int, height: int, width: int, speed: int = 2) -> np.ndarray:
    """A smooth texture that moves to the right, uint8 `[count, height, width, 3]`."""
    y, x = np.mgrid[:height, : width + speed * count]
    wide = np.stack([128 + 60 * np.sin(x * x / 900 + k) + 50 * np.cos(y / 7 + x / 11) for k in range(3)], -1)
    return np.stack([wide[:, speed * (count - i) :][:, :width] for i in range(count)]).astype(np.uint8)


def assert_decodes(loop: Loop, coded: list[Coded], step: float) -> Tokens:
    """A decoder has what the encoder had of every frame, in the order they are shown; returns the tokens."""
    tokens = gathered((c.tokens for c in coded), len(coded))
    shown = sorted(coded, key=lambda c: c.tokens.place.frame if c.tokens.place else 0)
    decoded = list(loop.decode(tokens.in_order(), step))
    for one, other in zip(shown, decoded, strict=True):
        for mine, theirs in ((one.base, other.base), (one.prediction, other.prediction)):
            assert np.array_equal(mine.y, theirs.y)
            assert np.array_equal(mine.c, theirs.c)
        number, place = one.tokens.number, one.tokens.place
        assert (other.step, other.kind) == (frame_step(round(16 * step), number) / 16, place.kind if place else 0)
    return tokens


@pytest.mark.parametrize(("count", "height", "width"), [(1, 16, 16), (2, 40, 70), (6, 64, 64), (10, 80, 144)])
def test_a_decoder_has_what_the_encoder_predicted_from(count: int, height: int, width: int) -> None:
    frames, loop = moving(count, height, width), Loop(tables())
    tokens = assert_decodes(loop, list(loop.code(frames, 12.5)), 12.5)
    whole = loop.encode(frames, 12.5)
    assert all(np.array_equal(a, b) for a, b in zip(whole.tokens, tokens, strict=True))
    bases, predictions, *_ = zip(*loop.decode(tokens.in_order(), 12.5), strict=True)
    for mine, theirs in ((whole.base, joined(bases)), (whole.prediction, joined(predictions))):
        assert np.array_equal(mine.y, theirs.y)
        assert np.array_equal(mine.c, theirs.c)


@pytest.mark.parametrize("spans", [[1, 2, 4, 8, 16, 32], [32, 16, 1], [4, 4, 4], [2, 8, 2]])
def test_spans_of_every_length_go_there_and_back(spans: list[int]) -> None:
    frames, loop = moving(1 + sum(spans), 48, 64, speed=1), Loop(tables())
    coded = list(loop.code(frames, 10, spans=spans))
    assert [c.tokens.place for c in coded] == [None, *order(spans)]
    tokens = assert_decodes(loop, coded, 10)
    assert tokens.spans.tolist() == spans
    assert all(FINEST <= tokens.numbers[place.frame] <= MOST[place.kind] for place in order(spans))
    own = Tables.of({}, loop.blocks)
    size = len(frames), 48, 64
    back = decode_chunk(*encode_chunk(tokens, 160, own), *size, 160, own)
    assert all(np.array_equal(a, b) for a, b in zip(back, tokens, strict=True))


def test_frames_are_shown_as_soon_as_those_before_them() -> None:
    """A decoder holds no more than it must: the frames of a span are shown before the next span is read."""
    loop, read = Loop(tables()), []
    tokens = [c.tokens for c in loop.code(moving(8, 32, 32), 10, spans=[4, 2, 1])]

    def source() -> Iterator[FrameTokens]:
        for frame in tokens:
            read.append(frame.place.frame if frame.place else 0)
            yield frame

    reads = [len(read) for _ in loop.decode(source(), 10)]
    assert read == [0, 4, 2, 1, 3, 6, 5, 7]
    assert reads == [1, 4, 4, 5, 5, 7, 7, 8]


@pytest.mark.parametrize("spans", [None, [4, 8, 1, 1, 2, 4]])
def test_helpers_change_nothing(spans: list[int] | None) -> None:
    frames, loop = moving(21, 64, 64, speed=3), Loop(tables())
    alone = list(loop.code(frames, 12.5, spans=spans))
    with Helpers(2) as helpers:
        helped = list(loop.code(frames, 12.5, helpers, spans))
    for one, other in zip(alone, helped, strict=True):
        assert one.tokens.place == other.tokens.place
        assert one.tokens.number == other.tokens.number
        assert np.array_equal(one.tokens.levels, other.tokens.levels)
        assert np.array_equal(one.base.y, other.base.y)
        if one.tokens.motion is not None:
            assert np.array_equal(one.tokens.motion, other.tokens.motion)


def test_a_still_picture_has_the_longest_spans() -> None:
    frames = np.repeat(moving(1, 48, 64), 36, 0)
    tokens = Loop(tables()).encode(frames, 20).tokens
    assert tokens.spans.tolist() == [32, 2, 1]
    assert not tokens.motion[:, :2].any()


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
    """An image is a clip of one frame; a span knows only the spans before it and its own frames."""
    frames = moving(9, 64, 64)
    loop = Loop(tables())
    whole, part, image = (
        gathered((c.tokens for c in loop.code(frames[:n], 8, spans=uniform(n, 4))), n) for n in (9, 5, 1)
    )
    assert np.array_equal(whole.levels[:, :5], part.levels)
    assert np.array_equal(whole.motion[:4], part.motion)
    assert np.array_equal(whole.numbers[:5], part.numbers)
    assert np.array_equal(whole.levels[:, :1], image.levels)
    assert len(image.motion) == 0


def test_what_moves_evenly_costs_next_to_nothing_after_the_first_frame() -> None:
    tokens = Loop(tables()).encode(moving(9, 96, 128), 20).tokens
    assert np.count_nonzero(tokens.levels[:, 1:]) < 0.1 * np.count_nonzero(tokens.levels[:, 0])
    for place in order(tokens.spans):  # two pixels a frame, in quarters, over the frame's distance
        if place.depth == 0:
            assert np.median(tokens.motion[place.frame - 1, 1]) == -4 * 2 * place.distance


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
        rng.integers(0, 256, (1, 48, 64)).astype(np.uint8), rng.integers(0, 256, (1, 2, 24, 32)).astype(np.uint8)
    )
    flat = Planes(np.full_like(original.y, 128), np.full_like(original.c, 128))
    blocks = transform.blocks_of(original, flat)
    energy = np.square(original.y - 128.0).sum() + np.square(original.c - 128.0).sum()
    assert np.square(blocks).sum() == pytest.approx(energy, rel=1e-4)
    identity = transform.Basis((np.eye(transform.SIZE) * 2**14).astype(np.int16), 1.0)
    again = identity.add(flat, np.round(identity.latents(blocks) * 16).astype(np.int32))
    assert np.abs(again.y.astype(int) - original.y).max() <= 1
    assert np.abs(again.c.astype(int) - original.c).max() <= 1


def test_no_levels_change_nothing() -> None:
    frames = Planes(np.full((1, 32, 32), 77, np.uint8), np.full((1, 2, 16, 16), 99, np.uint8))
    basis = Loop(tables()).basis
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
    coarse, errors = coarse_vectors(small(now.y[0]), small(then.y[0]))
    assert (errors[:, 2:] < 64 * 4).all()  # less than a level, in quarter levels
    ref = reference(then)
    field = search(now.y[0], now.c[0], ref, None, 32, coarse, unknown(16, 24), unknown(16, 24), 4.0)
    predicted = compensate(ref, ref, 32, field)
    assert np.median(field[1]) == -4 * 3 * 4
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
    field = search(now.y[0], now.c[0], then, None, 32, coarse, unknown(8, 16), unknown(8, 16), 4.0)
    assert (
        np.abs(compensate(then, then, 32, field).c[:, :, 4:-4, 36:44].astype(int) - now.c[:, :, 4:-4, 36:44]).max() <= 2
    )


def test_between_two_references_is_their_mean() -> None:
    dark, bright = (Planes(np.full((1, 32, 32), v, np.uint8), np.full((1, 2, 16, 16), v, np.uint8)) for v in (50, 101))
    field = np.zeros((3, 4, 4), np.int16)
    field[2] = BOTH
    mean = compensate(reference(dark), reference(bright), -16, field)
    assert (mean.y == 76).all()
    assert (mean.c == 76).all()


def test_a_vector_reaches_into_the_second_reference_by_the_scale() -> None:
    """The same square, 16 pixels further to the right in the second reference: half of it back, half of it on."""
    planes = [Planes(np.full((1, 64, 96), 20, np.uint8), np.full((1, 2, 32, 48), 128, np.uint8)) for _ in range(3)]
    for plane, left in zip(planes, (24, 40, 32), strict=True):
        plane.y[0, 24:40, left : left + 16] = 200
    first, second, between = planes
    field = np.zeros((5, 8, 12), np.int16)
    field[1] = -8 * 4
    for kind in (FIRST, SECOND, BOTH):
        field[2] = kind
        made = compensate(reference(first), reference(second), -16, field)
        assert np.array_equal(made.y[:, 16:48, 16:64], between.y[:, 16:48, 16:64])
    field[2] = SECOND
    assert np.array_equal(
        compensate(reference(first), reference(first), 16, field).y[:, 16:48, 16:64], between.y[:, 16:48, 16:64]
    )


@pytest.mark.parametrize(
    ("place", "scale"),
    [
        (Place(2, 0, 4, 1, 4), -16),
        (Place(4, 0, -1, 0, 0), 32),
        (Place(8, 4, 0, 0, 4), 32),
        (Place(5, 4, 0, 0, 4), 80),
        (Place(12, 4, 3, 0, 4), 18),
        (Place(36, 4, 3, 0, 4), 17),
    ],
)
def test_scales_are_distances_over_distances_in_sixteenths(place: Place, scale: int) -> None:
    assert scale_of(place) == scale


def test_grey_in_grey_out() -> None:
    frames = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, -1)
    frames = np.broadcast_to(frames, (1, 32, 256, 3))
    assert np.array_equal(to_rgb(from_rgb(frames), 32, 256), frames)


def test_weights_without_a_transform_are_no_tables() -> None:
    with pytest.raises(ModelError, match=r"hold no klt$"):
        Loop({"klt.key": np.zeros((384, 8), np.int16), "klt.chroma": np.float32([1])})
    with pytest.raises(ModelError, match=r"hold no klt\.chroma"):
        Loop({"klt": np.zeros((384, 8), np.int16)})
