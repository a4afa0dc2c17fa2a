"""Scene changes are found, and nothing else is taken for one."""

import numpy as np
import pytest
from conftest import moving_frames

from tokcodec.codec.cuts import cuts


def pan(count: int, speed_px: int, height: int = 120, width: int = 160) -> np.ndarray:
    """A camera that moves over a picture of coarse blobs."""
    blobs = np.random.default_rng(3).integers(0, 256, (height // 20, (width + count * speed_px) // 20 + 1, 3))
    wide = blobs.repeat(20, axis=0).repeat(20, axis=1).astype(np.uint8)
    return np.stack([wide[:, i * speed_px : i * speed_px + width] for i in range(count)])


@pytest.mark.parametrize(("height", "width"), [(30, 40), (48, 64), (120, 160), (300, 200), (720, 1280)])
def test_a_new_scene_begins_at_its_first_frame(height: int, width: int) -> None:
    frames = moving_frames(20, height, width)
    assert cuts(np.stack([*frames[:7], *(255 - frame for frame in frames[7:11]), *frames[11:]])) == [7, 11]


def test_motion_light_and_flashes_are_no_scenes() -> None:
    still = np.stack(moving_frames(33, 120, 160))
    fade = (pan(30, 2) * np.linspace(1, 0, 30)[:, None, None, None]).astype(np.uint8)
    for clip in (still, pan(30, 2), pan(30, 9), fade, still[:1], still[:, :2, :2]):
        assert cuts(clip) == []
    for place in (0, 1, 12, 31, 32):
        flash = still.copy()
        flash[place] = 255
        assert cuts(flash) == []
    assert cuts(np.stack([still[0], 255 - still[0]])) == []


def test_a_pan_that_is_cut_shows_the_cut() -> None:
    other = pan(12, 4)[:, ::-1, ::-1]
    assert cuts(np.concatenate([pan(12, 4), other])) == [12]


@pytest.mark.parametrize("place", [2, 17, 31])
def test_a_cut_is_found_up_to_two_frames_from_the_edges(place: int) -> None:
    frames = np.stack(moving_frames(33, 120, 160))
    frames[place:] = 255 - frames[place:]
    assert cuts(frames) == [place]
