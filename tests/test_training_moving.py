"""training/moving.py: clips made of photographs and of smaller footage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import coarse

from tokcodec.errors import TokcodecError
from tokcodec.training.moving import MovingPhotographs, SmallerSegments, Track, blob, film, out_of_focus
from tokcodec.training.train import open_data
from tokcodec.training.trainer import TrainSettings


def still() -> Track:
    return Track(np.zeros((33, 2)), np.zeros(33), np.zeros(33), np.zeros((2, 5)))


def photograph(side: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((3, side, side))).float()


def test_a_camera_at_rest_sees_the_middle_of_the_photograph() -> None:
    frames, xs, ys = film(photograph(), still(), 1.0, 32)
    assert torch.allclose(frames, photograph()[None, :, 16:48, 16:48].expand(33, -1, -1, -1), atol=1e-5)
    assert (xs[0, 0, 0], ys[0, -1, 0]) == (-15.5, 15.5)


def test_an_offset_moves_the_view_by_as_many_pixels() -> None:
    track = still()
    track.offset[5], track.offset[6] = (3, 0), (0, -2)
    frames, _, _ = film(photograph(), track, 1.0, 32)
    assert torch.allclose(frames[5], photograph()[:, 16:48, 19:51], atol=1e-5)
    assert torch.allclose(frames[6], photograph()[:, 14:46, 16:48], atol=1e-5)


def test_a_photograph_need_not_be_square() -> None:
    frames, _, _ = film(photograph()[:, :48], still(), 1.0, 32)
    assert torch.allclose(frames[0], photograph()[:, 8:40, 16:48], atol=1e-5)


def test_a_quarter_turn_and_a_zoom() -> None:
    track = still()
    track.angle[1], track.zoom[2] = np.pi / 2, np.log(2)
    frames, xs, _ = film(photograph(), track, 1.0, 32)
    assert torch.allclose(frames[1], torch.rot90(frames[0], 1, (1, 2)), atol=1e-4)
    assert np.allclose(xs[2], 2 * xs[0])


def test_a_bend_shifts_by_a_wave_that_travels() -> None:
    track = still()
    track.bend[0] = 2, 0, 1 / 16, 1 / 8, 0.25  # along y, a quarter later where it begins
    _, xs, ys = film(photograph(), track, 1.0, 32)
    _, flat, same = film(photograph(), still(), 1.0, 32)
    assert np.array_equal(ys, same)
    y = np.arange(32) - 15.5
    for t in (0, 1, 9):
        expected = 2 * np.cos(2 * np.pi * (y / 16 + t / 8))
        assert np.allclose((xs - flat)[t], expected[:, None].repeat(32, 1))


def test_a_piece_has_an_inside_and_an_outside() -> None:
    _, xs, ys = film(photograph(), still(), 1.0, 64)
    for seed in range(20):
        opacity = blob(np.random.default_rng(seed), xs, ys)
        assert opacity.shape == (33, 1, 64, 64)
        assert opacity.min() == 0
        assert opacity.max() == 1
        assert 0.01 < opacity.mean() < 0.6


def test_clips_are_pure_functions_of_their_index_and_move() -> None:
    rng = np.random.default_rng(0)
    photographs = [rng.integers(0, 256, (4, 1, 64, 64, 3), np.uint8), rng.integers(0, 256, (1, 1, 48, 48, 3), np.uint8)]
    clips = MovingPhotographs(photographs, 3, 32)
    assert len(clips) == 3
    assert clips.shape == (3, 65, 32, 32, 3)
    first, second = clips[0], clips[1]
    assert first.shape == (65, 32, 32, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, clips[0])
    assert not np.array_equal(first, second)
    assert not np.array_equal(first[0], first[-1])
    grey = MovingPhotographs([np.full((1, 1, 64, 64, 3), 77, np.uint8)], 2, 32)
    assert all((grey[i] == 77).all() for i in range(2)), "nothing but the photographs is in a clip"


def test_what_is_out_of_focus_is_a_disk_for_each_point() -> None:
    point = torch.zeros(3, 21, 21)
    point[:, 10, 10] = 1
    y, x = np.mgrid[:21, :21] - 10
    for radius in (1.0, 3.5, 6.25):
        seen = out_of_focus(point, radius)
        assert torch.allclose(seen.sum((1, 2)), torch.ones(3))
        assert seen.shape == point.shape
        inside, outside = (
            seen[0].numpy()[where] for where in (np.hypot(y, x) < radius - 0.5, np.hypot(y, x) > radius + 0.5)
        )
        assert np.allclose(inside, inside[0])
        assert (outside == 0).all()
    flat = torch.full((3, 16, 24), 0.3)
    assert torch.allclose(out_of_focus(flat, 4.2), flat)


def test_smaller_segments_are_scaled_down_and_mirrored() -> None:
    y, x = np.mgrid[:48, :48]
    ramp = np.stack([5 * x, 5 * y, 0 * x], 2).astype(np.uint8)
    segments = [np.broadcast_to(ramp, (2, 33, *ramp.shape)), np.zeros((1, 33, 48, 48, 3), np.uint8)]
    clips = SmallerSegments(segments, 9, 64)
    assert (len(clips), clips.shape) == (9, (9, 65, 64, 64, 3))
    black = [index for index in range(9) if not clips[index].any()]
    assert len(black) == 3, "each segment in its turn"
    assert {black[0] + 3, black[0] + 6} == set(black[1:])
    ramps = sorted(set(range(9)) - set(black))
    assert np.array_equal(clips[ramps[0]], clips[ramps[0]])
    assert not np.array_equal(clips[ramps[0]], clips[ramps[0] + 3]), "the same segment at another scale"
    for index in ramps:
        clip = clips[index]
        assert (clip.shape, clip.dtype) == ((65, 64, 64, 3), np.uint8)
        across, down = clip[0, 0, :, 0].astype(int), clip[0, :, 0, 1].astype(int)
        for row in (across, down):
            slopes = np.abs(np.diff(row))
            assert 5 / 0.75 < np.median(slopes) < 5 / 0.45, "a smaller ramp is steeper"
            assert (slopes < 2 * np.median(slopes)).all(), "no seam"
            assert set(np.sign(np.diff(row))) >= {-1, 1}, "64 pixels are more than it has: it is mirrored"
        assert (clip[0, :, :, 0] == across).all()
        assert (clip == clip[0]).all()


def test_smaller_segments_go_there_and_back() -> None:
    brighter = np.arange(33, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3)
    clip = SmallerSegments([brighter[None]], 1, 32)[0]
    assert clip[:, 0, 0, 0].tolist() == [*range(33), *reversed(range(32))]


def add(source: Path, cache: Path, name: str, count: int, frames: int, level: int) -> None:
    """A source, empty, and what it was decoded to: `count` segments of one grey."""
    for folder in (source, cache):
        folder.mkdir(exist_ok=True)
    (source / name).touch()
    np.save((cache / name).with_suffix(".npy"), np.full((count, frames, 48, 48, 3), level, np.uint8))


def test_moving_photographs_are_coded_beside_the_segments(tmp_path: Path) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    add(source, cache, "a.mkv", 2, 33, 0)
    settings = TrainSettings(crop_px=32, moving=3)
    with pytest.raises(TokcodecError, match="no photograph"):
        open_data(source, cache, coarse, settings)
    add(source, cache, "b.png", 1, 1, 90)
    arrays, _ = open_data(source, cache, coarse, settings)
    assert [array["planes"].shape[:3] for array in arrays] == [(2, 3, 33), (1, 3, 1), (3, 3, 65)]
    assert (arrays[2]["planes"][:, 0, :, :32] == 90).all()
    assert len(set(arrays[2]["step"].tolist())) == 3
    (path,) = (cache / "coded").glob("moving-3x65x32-*.npy")
    written = path.stat().st_mtime_ns
    open_data(source, cache, coarse, settings)
    assert path.stat().st_mtime_ns == written, "made once"
    arrays, _ = open_data(source, cache, coarse, TrainSettings(crop_px=32))
    assert len(arrays) == 2


def test_smaller_segments_are_coded_beside_the_others(tmp_path: Path) -> None:
    source, cache = tmp_path / "source", tmp_path / "cache"
    add(source, cache, "a.png", 1, 1, 0)
    settings = TrainSettings(crop_px=32, smaller=3)
    with pytest.raises(TokcodecError, match="no video that could be scaled down"):
        open_data(source, cache, coarse, settings)
    add(source, cache, "b.mkv", 2, 33, 90)
    arrays, _ = open_data(source, cache, coarse, settings)
    assert [array["planes"].shape[:3] for array in arrays] == [(1, 3, 1), (2, 3, 33), (3, 3, 65)]
    assert (arrays[2]["planes"][:, 0, :, :32] == 90).all()
    add(source, cache, "c.mkv", 2, 33, 10)
    arrays, _ = open_data(source, cache, coarse, settings)
    assert (arrays[3]["planes"][:, 0, :, :32] == 10).any(), "of other sources other clips are made"
    arrays, _ = open_data(source, cache, coarse, settings, ("c*",))
    assert (arrays[2]["planes"][:, 0, :, :32] == 90).all(), "none is made of what is held out"
