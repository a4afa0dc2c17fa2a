"""Fade, pop and pulse of curves whose values are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tokcodec.scoring.stability import Stability, stability


def mse(psnr_db: np.ndarray) -> np.ndarray:
    return 255**2 / 10 ** (psnr_db / 10)


def test_fade_is_of_the_first_and_the_last_frames_of_a_chunk() -> None:
    chunk = np.repeat([0.5, 1.0, 2.0, 4.0], [1, 16, 7, 16])
    assert stability(chunk).fade_db == pytest.approx(6.0206, abs=1e-4)  # 10 log10(4): the first frame is no part
    assert stability(chunk[:32]).fade_db is None  # its ends would have frames in common
    even = np.ones(33)
    both = stability([*chunk, *even, *even[:5]], borders=[40, 73])
    assert both.fade_db == pytest.approx(3.0103, abs=1e-4)  # the mean of two chunks; the third is short


def test_pop_is_the_change_at_a_border_over_the_median_change() -> None:
    errors = np.tile([10.0, 12.0], 20)  # 2 from frame to frame
    errors[21:] -= 9  # 12 in frame 19, 10 in 20, then 3
    assert stability(errors, borders=[21]).pop == 3.5
    assert stability(errors, borders=[9, 21]).pop == 3.5
    assert stability(errors, borders=[9]).pop == 1
    assert stability(errors).pop == 3.5  # no border is known: the largest of all
    still = np.zeros(8)
    assert stability(still).pop == 0
    still[4:] = 3
    assert stability(still).pop == 300  # of .01, the least that counts


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_pulse_is_how_much_better_every_nth_frame_is(period: int) -> None:
    quality = np.full(97, 30.0)
    quality[::period] += 1
    found = stability(mse(quality))
    assert (found.period, found.pulse_db) == (period, pytest.approx(1))
    moved = stability(mse(np.concatenate([quality[:50], quality])), borders=[50])
    assert (moved.period, moved.pulse_db) == (period, pytest.approx(1))  # it is counted from the border


def test_a_pyramid_has_the_pulse_of_the_frames_that_it_favours_most() -> None:
    quality = np.full(129, 30.0)
    for period, gain in ((2, 0.1), (4, 0.2), (8, 0.4)):
        quality[::period] += gain
    found = stability(mse(quality))
    # every 8th is .7 above 30; of the 7 on either side four are at it, two .1 above, one .3
    assert (found.period, found.pulse_db) == (8, pytest.approx(0.7 - 0.5 / 7))


def test_a_steady_fall_has_no_pulse_and_a_bad_first_frame_none_either() -> None:
    falling = 40 - 0.05 * np.arange(129)
    falling[0] = 20
    assert stability(mse(falling)).pulse_db == pytest.approx(0)


def test_what_a_clip_is_too_short_for_is_none() -> None:
    assert stability([5.0]) == Stability(None, None, None, None)
    assert stability(np.ones(8)).pulse_db == pytest.approx(0)  # frames 2, 4 and 6
    assert stability(np.ones(7)).pulse_db is None
    assert stability(np.zeros(16)).pulse_db == 0  # 100 dB, not infinite


@pytest.mark.parametrize("borders", [[0], [10], [5, 5], [7, 3], [11]])
def test_borders_that_are_none_are_a_caller_s_mistake(borders: list[int]) -> None:
    with pytest.raises(ValueError, match="10 frames have no borders at"):
        stability(np.ones(10), borders)
    with pytest.raises(ValueError, match="0 frames"):
        stability([])
