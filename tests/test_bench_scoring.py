"""Scores against numbers worked out by hand, and the sync check."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeClip, moving_frames

from benchmarks import scoring
from benchmarks.scoring import SAMPLE, Remembering, Video, rgb_scores, sampled, yuv_scores
from benchmarks.tools import ToolError, Tools
from tokcodec.scoring import vmaf
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.scoring.scores import SyncError
from tokcodec.scoring.stlpips import STLPIPS
from tokcodec.scoring.vmaf import ffmpeg_has, find_ffmpeg

SIZE = (192, 208)


@pytest.fixture
def tools() -> Tools:
    return Tools(find_ffmpeg() or "", "")


@pytest.fixture
def lossless(make_clip: MakeClip):  # type: ignore[no-untyped-def]
    return lambda name, frames: Video(make_clip(name, frames, codec="ffv1", pix_fmt="bgr0"), rgb=True)


def test_identical_clips_are_perfect(tools: Tools, lossless, shared: Path) -> None:  # type: ignore[no-untyped-def]
    clip = lossless("clip.mkv", moving_frames(10, *SIZE))
    scores = rgb_scores(tools, clip, clip, SIZE, {"lpips_alex": load_lpips("alex", shared / "lpips")})
    filters = ffmpeg_has(tools.ffmpeg, "filters")
    scores |= yuv_scores(tools, clip, clip, SIZE, "30", filters, threads=1)
    assert scores["lpips_alex"] == [0] * 10
    assert scores["psnr_rgb_db"] == scores["psnr_y_db"] == [100] * 10
    assert scores["temporal_psnr_db"] == [100] * 9
    if "libvmaf" in filters:
        assert scores["ms_ssim"] == pytest.approx([1] * 10)
        assert min(scores["vmaf"]) > 90
    if "xpsnr" in filters:
        assert scores["xpsnr_y_db"] == [100] * 10


def test_a_constant_error_lowers_psnr_and_not_temporal_psnr(tools: Tools, lossless) -> None:  # type: ignore[no-untyped-def]
    true = [np.full((*SIZE, 3), level, np.uint8) for level in (100, 150, 110)]
    grey = lossless("true.mkv", true)
    brighter = lossless("brighter.mkv", [frame + 10 for frame in true])
    scores = rgb_scores(tools, grey, brighter, SIZE, {})
    assert scores["psnr_rgb_db"] == pytest.approx([28.1308] * 3, abs=1e-4)  # 20 log10(255 / 10)
    assert scores["temporal_psnr_db"] == [100] * 2
    luma = yuv_scores(tools, grey, brighter, SIZE, "30", frozenset(), threads=1)
    assert list(luma) == ["psnr_y_db"]
    assert luma["psnr_y_db"] == pytest.approx([29.4542] * 3, abs=0.7)  # 10 * 219 / 255, to whole steps


def test_flicker_lowers_temporal_psnr(tools: Tools, lossless) -> None:  # type: ignore[no-untyped-def]
    true = [np.full((*SIZE, 3), 100, np.uint8)] * 4
    seen = [frame + 4 * (i % 2) for i, frame in enumerate(true)]
    scores = rgb_scores(tools, lossless("true.mkv", true), lossless("seen.mkv", seen), SIZE, {})
    assert scores["temporal_psnr_db"] == pytest.approx([20 * np.log10(255 / 4)] * 3)


@pytest.mark.parametrize(("first", "word"), [(0, "late"), (2, "early")])
def test_a_shift_by_one_frame_is_an_error(tools: Tools, lossless, first: int, word: str) -> None:  # type: ignore[no-untyped-def]
    frames = moving_frames(12, *SIZE)
    true, seen = lossless("true.mkv", frames[1:11]), lossless("seen.mkv", frames[first : first + 10])
    with pytest.raises(SyncError, match=word):
        rgb_scores(tools, true, seen, SIZE, {})


def test_a_lost_frame_is_an_error(tools: Tools, lossless) -> None:  # type: ignore[no-untyped-def]
    frames = moving_frames(10, *SIZE)
    with pytest.raises(SyncError, match="number of frames"):
        rgb_scores(tools, lossless("true.mkv", frames), lossless("seen.mkv", frames[:9]), SIZE, {})


def test_what_is_no_video_is_told(tools: Tools, lossless, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "not.mkv").write_text("no video")
    with pytest.raises(ToolError, match=r"from ffmpeg\S* .*not\.mkv"):
        rgb_scores(tools, Video(tmp_path / "not.mkv", rgb=True), Video(tmp_path / "not.mkv", rgb=True), SIZE, {})


def test_the_benchmark_and_compare_score_alike(tools: Tools, lossless) -> None:  # type: ignore[no-untyped-def]
    filters = ffmpeg_has(tools.ffmpeg, "filters")
    if "libvmaf" not in filters:
        pytest.skip("this FFmpeg has no libvmaf")
    size = (193, 207)  # odd: no chroma of one picture may be that of the other
    true = moving_frames(4, *size)
    seen = [np.clip(frame * 0.9 + 5 + 3 * i, 0, 255).astype(np.uint8) for i, frame in enumerate(true)]
    by_file = yuv_scores(tools, lossless("a.mkv", true), lossless("b.mkv", seen), size, "60", filters, threads=1)
    by_pipe: dict[str, list[float]] = {}
    passed = list(vmaf.scoring(tools.ffmpeg, zip(true, seen, strict=True), size, by_pipe, Fraction(60)))
    assert len(passed) == 4
    assert set(by_pipe) == {"vmaf", "vmaf_neg", "ms_ssim"} | ({"xpsnr_y_db"} if "xpsnr" in filters else set())
    assert all(by_pipe[name] == by_file[name] for name in by_pipe)
    assert 0.5 < min(by_pipe["ms_ssim"]) < max(by_pipe["ms_ssim"]) < 1


@pytest.mark.parametrize(
    ("frames", "of_lpips", "of_vmaf"), [(24, range(24), range(24)), (64, range(1, 64, 3), range(0, 64, 3))]
)
def test_what_takes_long_is_of_some_frames(frames: int, of_lpips: range, of_vmaf: range) -> None:
    assert sampled("psnr_rgb_db", frames, (360, 640)) == range(frames)
    assert sampled("lpips_alex", frames, (360, 640)) == of_lpips == sampled("ghosts", frames, (360, 640))
    assert sampled("vmaf", frames, (360, 640)) == of_vmaf == sampled("ms_ssim", frames, (360, 640))


def test_the_frames_of_the_slowest_score_are_few_and_in_all_places() -> None:
    assert [*sampled("stlpips_vgg", 64, (360, 640))] == [11, 34, 57]
    assert [*sampled("stlpips_vgg", 300, (360, 640))] == [50, 151, 252]
    assert [*sampled("stlpips_vgg", 150, (720, 1280))] == [37, 112]
    for frames in range(1, 400):
        chosen = sampled("lpips_alex", frames, (360, 640))
        assert 0 < len(chosen) <= SAMPLE
        assert chosen.step % 2 == 1, "no place in a pyramid is favoured"


def test_sampled_scores_are_those_of_their_frames(tools: Tools, lossless) -> None:  # type: ignore[no-untyped-def]
    true = moving_frames(50, *SIZE)
    seen = [np.clip(frame * 0.9 + 3 * (i % 7), 0, 255).astype(np.uint8) for i, frame in enumerate(true)]
    clips = lossless("a.mkv", true), lossless("b.mkv", seen)
    judges = {"lpips_alex": Difference()}
    filters = ffmpeg_has(tools.ffmpeg, "filters")
    found = []
    for frames in (None, 50):
        scores = rgb_scores(tools, *clips, SIZE, judges, frames)
        found.append(scores | yuv_scores(tools, *clips, SIZE, "30", filters, 1, frames))
    whole, some = found
    for name in whole:
        numbers = sampled(name, 50, SIZE)
        assert some[name] == [whole[name][i] for i in numbers if i < len(whole[name])], name
    assert len(some["lpips_alex"]) == 17


class Difference(torch.nn.Module):
    """Stands for LPIPS."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3), keepdim=True)


def test_features_of_an_original_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    inner = STLPIPS().eval()
    for weight in inner.weights:
        torch.nn.init.constant_(weight, 0.1)
    judge, asked = Remembering(inner), []
    features = inner.features
    monkeypatch.setattr(inner, "features", lambda image: asked.append(1) or features(image))  # type: ignore[func-returns-value]
    images = [torch.rand(1, 3, 32, 32) for _ in range(4)]
    with torch.no_grad():
        wanted = [inner(images[0], image) for image in images[1:]]
        asked.clear()
        assert [judge(images[0], image) for image in images[1:]] == wanted
        assert len(asked) == 1 + 3
        monkeypatch.setattr(scoring, "KEPT_BYTES", 1)
        for image in (images[1], images[0], images[1]):
            judge(image, images[2])
        assert len(asked) == 4 + 6
