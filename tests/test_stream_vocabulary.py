"""The vocabulary of the profile lfq: every integer means something, and what it means can be said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokcodec.stream import vocabulary
from tokcodec.stream.profile import MOTION_BITS, Profile, checked, profile_of
from tokcodec.stream.pyramid import Place

PROFILES = st.builds(lambda half, depth: Profile(2 * half, depth), st.integers(1, 15), st.integers(1, 16))


def test_every_profile_is_one_byte() -> None:
    profiles = [Profile(bits, depth) for bits in range(2, 31, 2) for depth in range(1, 17)]
    codes = [profile.code for profile in profiles]
    assert [profile_of(code) for code in codes] == profiles
    assert len({*codes}) == len(codes)
    assert min(codes) > 0
    assert max(codes) < 256
    assert profile_of(0) is None


@pytest.mark.parametrize(("bits", "depth"), [(0, 8), (32, 8), (17, 8), (18, 0), (18, 17)])
def test_other_profiles_are_refused(bits: int, depth: int) -> None:
    with pytest.raises(ValueError, match=r"an integer has|a position has"):
        checked(bits, depth)


@given(PROFILES, st.integers(0, 2**32 - 1))
def test_levels_in_range_are_said_exactly(profile: Profile, seed: int) -> None:
    most = vocabulary.digits_of(profile).most
    rng = np.random.default_rng(seed)
    levels = rng.integers(-most, most, (2, 3, len(most)), endpoint=True).astype(np.int16)
    ints = vocabulary.ints_of(levels, profile)
    assert ints.min() >= 0
    assert ints.max() < 2**profile.bits
    assert np.array_equal(vocabulary.levels_of(ints, profile), levels)


@given(PROFILES, st.integers(0, 2**32 - 1))
def test_every_integer_stands_for_levels_in_range(profile: Profile, seed: int) -> None:
    ints = np.random.default_rng(seed).integers(0, 2**profile.bits, (2, 3, profile.depth)).astype(np.int32)
    levels = vocabulary.levels_of(ints, profile)
    assert (np.abs(levels) <= vocabulary.digits_of(profile).most).all()


def test_the_bits_of_a_small_profile() -> None:
    digits = vocabulary.digits_of(Profile(6, 2))
    assert digits.dimensions.tolist() == [0, 0, 1, 2, 3, 4]
    assert digits.weights.tolist() == [3, 1, 1, 1, 1, 1]
    ints = np.array([[[0b010110, 0b110001]]], np.int32)  # -3, 1 and 1; then 1, 0 and both bits
    assert vocabulary.levels_of(ints, Profile(6, 2)).tolist() == [[[-2, 1, 1, 0, 0]]]


def test_a_position_without_bits_adds_and_moves_nothing() -> None:
    zeros = np.zeros((2, 3, 8), np.int32)
    assert not vocabulary.levels_of(zeros, Profile()).any()
    assert not vocabulary.field_of(zeros[..., 0]).any()
    assert vocabulary.colours_of(np.zeros((1, 1), np.int32)).ravel().tolist() == [130, 128, 128]


def test_components_have_the_nearest_code() -> None:
    sizes = vocabulary.MAGNITUDES.tolist()
    assert sizes == [*range(65), *range(66, 129, 2), *range(132, 253, 4)]
    for component in range(-300, 301):
        found = vocabulary.component_of(vocabulary.code_of(component))
        nearest = min(sizes, key=lambda size: abs(size - abs(component)))
        assert abs(abs(found) - abs(component)) == abs(nearest - abs(component))
        assert found * component >= 0
    assert [vocabulary.component_of(code) for code in (0, 128, 1, 129, 127, 255)] == [0, 0, 1, -1, 252, -252]


def test_colours_have_the_nearest_code() -> None:
    colours = np.random.default_rng(0).uniform(0, 255, (3, 9, 9))
    codes = vocabulary.colour_codes(colours)
    assert codes.min() >= 0
    assert codes.max() < 2**16
    error = np.abs(vocabulary.colours_of(codes) - colours)
    assert error[0].max() <= 3
    assert error[1:].max() <= 7
    every = np.arange(2**16, dtype=np.int32).reshape(256, 256)
    assert np.array_equal(vocabulary.colour_codes(vocabulary.colours_of(every)), every)


def test_guesses_scale_with_the_distance() -> None:
    guesses, anchor = vocabulary.Guesses(1, 2), Place(4, 0, -1, 0, 0)
    assert not guesses.of(anchor).any()
    vector = vocabulary.code_of(-40) | vocabulary.code_of(8) << 8
    guesses.add(anchor, np.array([[vector, 3 << MOTION_BITS - 2 | 77]], np.int32))
    half = guesses.of(Place(2, 0, 4, 1, 4))
    assert half.tolist() == [[vocabulary.code_of(-20) | vocabulary.code_of(4) << 8 | 2 << 16, 3 << 16 | 77]]
    assert guesses.of(Place(8, 4, 0, 0, 4)).tolist() == [[vector, 3 << 16 | 77]]


def test_finer_steps_end_where_integers_do() -> None:
    place = Place(1, 0, -1, 0, 0)
    steps = [vocabulary.step_of(place, step, Profile()) for step in (1, 16, 320, 640)]
    assert steps == [160, 160, 226, 453]
    assert vocabulary.step_of(None, 1, Profile()) == 600
