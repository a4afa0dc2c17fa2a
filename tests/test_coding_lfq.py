"""The loop of integers: what the encoder has is what a decoder has, and any integers decode."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import loop_arrays, moving_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from tokcodec.coding.lfq import LfqLoop, bilinear
from tokcodec.coding.loop import Loop
from tokcodec.coding.planes import from_rgb
from tokcodec.stream.integers import check_ints, in_order
from tokcodec.stream.profile import Profile
from tokcodec.stream.vocabulary import COLOUR

LOOP = Loop(loop_arrays())


def ripples(count: int) -> np.ndarray:
    """Frames uint8 `[count, 48, 64, 3]` of smooth waves that move."""
    t, y, x = np.ogrid[:count, :48, :64]
    wave = 128 + 60 * np.sin((x + 2 * t) / 9) + 40 * np.cos((y - t) / 7)
    return np.repeat(wave[..., None], 3, 3).astype(np.uint8)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("frames", [1, 2, 4, 10])
@pytest.mark.parametrize("profile", [Profile(), Profile(6, 1), Profile(30, 3)])
def test_a_decoder_has_the_planes_of_the_encoder(frames: int, profile: Profile) -> None:
    loop = LfqLoop(LOOP, profile)
    coding = loop.encode(np.stack(moving_frames(frames, 40, 60)), 8.0)
    check_ints(coding.tokens, profile, 3, 4)
    shown = list(loop.decode(in_order(coding.tokens), 8.0))
    assert len(shown) == frames
    for i, frame in enumerate(shown):
        for mine, wanted in ((frame.base, coding.base), (frame.prediction, coding.prediction)):
            assert np.array_equal(mine.y[0], wanted.y[i])
            assert np.array_equal(mine.c[0], wanted.c[i])
        assert (frame.step, frame.kind) == (coding.steps[i], coding.kinds[i])


def test_more_integers_and_finer_steps_are_better() -> None:
    frames = ripples(6)
    original = from_rgb(frames).y

    def quality(step: float, profile: Profile) -> float:
        return psnr_db(LfqLoop(LOOP, profile).encode(frames, step).base.y, original)

    by_depth = [quality(4.0, Profile(6, depth)) for depth in (1, 2, 4)]
    assert by_depth == sorted(by_depth)
    by_step = [quality(step, Profile()) for step in (64.0, 16.0, 4.0)]
    assert by_step == sorted(by_step)
    assert by_step[-1] > 30
    assert quality(1 / 16, Profile()) == quality(1.0, Profile())  # finer ones are the least


def test_a_still_hardly_changes() -> None:
    frames = np.repeat(ripples(1), 9, 0)
    tokens = LfqLoop(LOOP, Profile()).encode(frames, 64.0).tokens
    assert tokens[0].any()
    assert (tokens[1:, ..., :-1] != 0).mean() < 0.05


def test_what_comes_into_view_may_be_one_colour() -> None:
    frames = np.stack([*moving_frames(4), np.full((48, 64, 3), (10, 200, 90), np.uint8)])
    tokens = LfqLoop(LOOP, Profile()).encode(frames, 16.0).tokens
    assert (tokens[-1, ..., -1] >> 16 == COLOUR).any()


def test_progress_is_told() -> None:
    counts: list[int] = []
    LfqLoop(LOOP, Profile()).encode(np.stack(moving_frames(6)), 32.0, counts.append)
    assert counts == [1] * 6


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 15), st.integers(1, 16), st.integers(1, 9), st.floats(1 / 16, 4095))
def test_any_integers_decode(seed: int, half: int, depth: int, frames: int, step: float) -> None:
    profile = Profile(2 * half, depth)
    rng = np.random.default_rng(seed)
    ints = rng.integers(0, 2 ** np.array(profile.widths), (frames, 2, 3, profile.streams)).astype(np.int32)
    shown = list(LfqLoop(LOOP, profile).decode(in_order(ints), round(16 * step) / 16))
    assert [frame.base.y.shape for frame in shown] == [(1, 32, 48)] * frames


def test_blends_are_linear_between_centres() -> None:
    values = np.array([[0, 160]], np.int32)
    assert bilinear(values, 16)[0].tolist() == [0] * 8 + [5 + 10 * k for k in range(16)] + [160] * 8
    assert (bilinear(np.full((2, 3), 77, np.int32), 8) == 77).all()
