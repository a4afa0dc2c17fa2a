"""Scores against numbers worked out by hand; the clip's scores are means of its frames' scores."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_frames
from torch import Tensor, nn

from tokcodec.errors import TokcodecError
from tokcodec.scoring.ghosts import ghosts
from tokcodec.scoring.scores import (
    SyncCheck,
    SyncError,
    frame_scores,
    lpips_distance,
    mean_psnr_db,
    mean_temporal_psnr_db,
    psnr_db,
    summary,
)
from tokcodec.scoring.vmaf import ffmpeg_has, find_ffmpeg, scoring


class Distance(nn.Module):
    """In LPIPS's place: the mean absolute difference."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean((1, 2, 3), keepdim=True)


def noisy(frames: list[np.ndarray]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [np.clip(f + random.integers(-9, 10, f.shape), 0, 255).astype(np.uint8) for f in frames]


def test_psnr_and_summary_by_hand() -> None:
    assert psnr_db(0) == 100
    assert psnr_db(255**2) == 0
    assert summary([float(x) for x in range(101)]) | {"frames": None} == {
        "mean": 50,
        "p5": 5,
        "p95": 95,
        "frames": None,
    }


def test_scores_of_a_clip_are_the_means_of_its_frames() -> None:
    true = moving_frames(11)
    seen = noisy(true)
    scores = frame_scores(zip(true, seen, strict=True), {"lpips_alex": Distance()}, SyncCheck())
    assert {name: len(frames) for name, frames in scores.items()} == {
        "psnr_rgb_db": 11,
        "temporal_psnr_db": 10,
        "ghosts": 11,
        "lpips_alex": 11,
    }
    assert scores["ghosts"] == [ghosts(*pair) for pair in zip(true, seen, strict=True)]
    a, b = np.stack(true), np.stack(seen)
    assert mean_psnr_db(a, b) == pytest.approx(np.mean(scores["psnr_rgb_db"]))
    assert mean_temporal_psnr_db(a, b) == pytest.approx(np.mean(scores["temporal_psnr_db"]))
    assert lpips_distance(Distance(), a, b, every=1) == pytest.approx(np.mean(scores["lpips_alex"]))
    assert lpips_distance(Distance(), a, b) == pytest.approx(np.mean(scores["lpips_alex"][::3]))


def test_a_slow_judge_sees_every_fifth_frame_across_batches() -> None:
    true = moving_frames(23)
    seen = noisy(true)
    judges = {"lpips_alex": Distance(), "stlpips_vgg": Distance()}
    scores = frame_scores(zip(true, seen, strict=True), judges, SyncCheck())
    assert scores["stlpips_vgg"] == pytest.approx(scores["lpips_alex"][::5])


def test_lpips_is_in_float32_inside_autocast() -> None:
    true = np.stack(moving_frames(3))
    seen = np.stack(noisy(list(true)))
    outside = lpips_distance(Distance(), true, seen)
    with torch.autocast("cpu", torch.bfloat16):
        assert lpips_distance(Distance(), true, seen) == outside


def test_a_shift_is_seen_and_a_still_is_none() -> None:
    frames = moving_frames(8)
    for true, seen, way in (
        (frames[1:], frames[:-1], "late"),
        (frames[:-1], frames[1:], "early"),
        (frames, noisy(frames), None),
        (frames[:1] * 5, noisy(frames[:1] * 5), None),
    ):
        sync = SyncCheck()
        frame_scores(zip(true, seen, strict=True), {}, sync)
        assert sync.shift() == way


def test_a_video_that_ends_early_is_an_error() -> None:
    (frame,) = moving_frames(1)
    with pytest.raises(SyncError, match="number of frames"):
        frame_scores([(frame, frame), (frame, None)], {}, SyncCheck())


def test_an_ffmpeg_that_fails_is_told(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho no such filter >&2\nexit 1\n")
    program.chmod(0o755)
    pairs = [(frame, frame) for frame in moving_frames(40, 192, 256)]  # more than a pipe holds
    with pytest.raises(TokcodecError, match="FFmpeg cannot score: no such filter"):
        list(scoring(str(program), pairs, (192, 256), {}))
    assert ffmpeg_has(str(tmp_path / "none"), "filters") == frozenset()


def test_ffmpeg_is_found_where_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKCODEC_FFMPEG", "/opt/ffmpeg")
    assert find_ffmpeg() == "/opt/ffmpeg"
    monkeypatch.delenv("TOKCODEC_FFMPEG")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert find_ffmpeg() is None
