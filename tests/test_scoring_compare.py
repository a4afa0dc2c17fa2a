"""compare: videos and streams scored against each other, by the command and from Python."""

from __future__ import annotations

import json
import logging
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import MakeClip, frames_of, moving_frames, times_of

import tokcodec
from tokcodec.cli import cli
from tokcodec.compute import Compute
from tokcodec.errors import BitstreamError, ExistsError, ModelError, TokcodecError
from tokcodec.scoring import compare as comparing
from tokcodec.scoring import stlpips
from tokcodec.scoring.compare import compare, doubled, heat, joined_view
from tokcodec.scoring.goals import QualityGoal
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.scoring.scores import METRICS, SyncCheck, SyncError, frame_scores, mse_of
from tokcodec.scoring.stability import stability
from tokcodec.scoring.stlpips import STLPIPS
from tokcodec.scoring.vmaf import ffmpeg_has, find_ffmpeg
from tokcodec.video import VideoInfo


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No FFmpeg and no LPIPS, unless a test asks for them."""
    monkeypatch.setattr(comparing, "find_ffmpeg", lambda: None)
    monkeypatch.setenv("TOKCODEC_LPIPS_DIR", str(tmp_path))


@pytest.fixture
def pair(make_clip: MakeClip) -> tuple[Path, Path]:
    """A clip and the same somewhat brighter, lossless."""
    frames = moving_frames(9)
    brighter = [np.minimum(frame, 245) + np.uint8(10) for frame in frames]
    lossless = {"codec": "ffv1", "pix_fmt": "bgr0"}
    return make_clip("a.mkv", frames, **lossless), make_clip("b.mkv", brighter, **lossless)


def test_the_scores_are_those_of_the_frames(pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = compare(*pair)
    frames = zip(*map(frames_of, pair), strict=True)
    expected = frame_scores(frames, {}, SyncCheck())
    assert (found.frames, found.width, found.height, found.shift) == (9, 64, 48, None)
    assert set(found.scores) == set(expected) <= set(METRICS)
    for name, values in expected.items():
        assert found.scores[name]["frames"] == pytest.approx(values, rel=1e-5)
        assert found.scores[name]["mean"] == pytest.approx(np.mean(values), rel=1e-5)
    left_out = [record.message.split(":")[0] for record in caplog.records]
    assert left_out == ["left out"] * 2  # LPIPS; VMAF and MS-SSIM


def test_one_line_brings_what_is_missing(
    pair: tuple[Path, Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing.importlib.util, "find_spec", lambda name: None)
    compare(*pair)
    assert caplog.messages == ["left out: VMAF, MS-SSIM, XPSNR, LPIPS; pip install imageio-ffmpeg lpips"]


def test_the_command_prints_a_table_or_json(pair: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(cli, ["compare", *map(str, pair)])
    assert result.exit_code == 0
    first, header, *rows = result.stdout.splitlines()
    assert first == f"{pair[1]}: 9 frames of 64x48 against {pair[0]}"
    assert header.split() == ["mean", "worst", "5", "%", "best", "5", "%"]
    labels = ["PSNR-RGB, dB", "temporal PSNR, dB", "ghosts, %", "pop", "pulse of 2, dB"]
    assert [row[:20].strip() for row in rows] == labels
    stored = json.loads(CliRunner().invoke(cli, ["compare", *map(str, pair), "--json"]).stdout)
    assert (stored["reference"], stored["video"], stored["frames"]) == (*map(str, pair), 9)
    assert rows[0].split()[2:] == [f"{stored['scores']['psnr_rgb_db'][part]:.5g}" for part in ("mean", "p5", "p95")]
    assert len(stored["scores"]["temporal_psnr_db"]["frames"]) == 8
    even = stored["stability"]
    assert (even["fade_db"], even["period"]) == (None, 2)  # too short for a fade
    assert [row.split()[-1] for row in rows[3:]] == [f"{even[name]:.3g}" for name in ("pop", "pulse_db")]


def test_ffmpeg_and_lpips_add_their_scores(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    ffmpeg = find_ffmpeg()
    if ffmpeg is None or "libvmaf" not in ffmpeg_has(ffmpeg, "filters"):
        pytest.skip("no FFmpeg with libvmaf")
    monkeypatch.setattr(comparing, "find_ffmpeg", lambda: ffmpeg)
    clip = make_clip("a.mkv", moving_frames(3, 192, 208), codec="ffv1", pix_fmt="bgr0")
    scores = compare(clip, clip, lpips_dir=shared / "lpips").scores
    wanted = {"psnr_rgb_db", "temporal_psnr_db", "ghosts", "lpips_alex", "vmaf", "vmaf_neg", "ms_ssim"}
    assert set(scores) - {"xpsnr_y_db"} == wanted  # an older FFmpeg has no XPSNR
    assert scores["vmaf_neg"]["p5"] > 90
    assert scores["lpips_alex"]["frames"] == [0] * 3
    assert scores["ms_ssim"]["frames"] == pytest.approx([1] * 3)
    assert scores["vmaf"]["p5"] > 90


def test_st_lpips_is_of_every_fifth_frame_where_its_package_is(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stlpips, "load_stlpips", lambda directory: STLPIPS())
    found = compare(*pair, st_lpips=True).scores["stlpips_vgg"]
    assert found["frames"] == [0, 0]  # frames 0 and 5, by weights that are zero

    def missing(directory: Path | None) -> STLPIPS:
        raise ModelError("ST-LPIPS needs the package stlpips-pytorch")

    monkeypatch.setattr(stlpips, "load_stlpips", missing)
    with caplog.at_level(logging.WARNING):
        assert "stlpips_vgg" not in compare(*pair, st_lpips=True).scores
    assert "left out: ST-LPIPS needs the package stlpips-pytorch" in [record.message for record in caplog.records]


def test_a_stream_is_what_it_decodes_to(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    source, stream, decoded = make_clip("in.mp4", moving_frames(10)), tmp_path / "a.tokc", tmp_path / "a.mkv"
    same = {"weights": weights, "compute": Compute("cpu", "float32")}
    tokcodec.encode_video(source, stream, **same)
    tokcodec.decode_video(stream, decoded, lossless=True, **same)
    assert compare(source, stream, **same) == compare(source, decoded)
    assert compare(stream, decoded, **same).scores["psnr_rgb_db"]["mean"] == 100


def test_the_pop_of_a_stream_is_that_where_its_chunks_begin(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    source, stream, twice = make_clip("in.mp4", moving_frames(9)), tmp_path / "a.tokc", tmp_path / "b.tokc"
    same = {"weights": weights, "compute": Compute("cpu", "float32")}
    tokcodec.encode_video(source, stream, weights=weights)
    tokcodec.concat([stream, stream], twice)
    reference = make_clip("ref.mkv", 2 * frames_of(source), codec="ffv1", pix_fmt="bgr0")
    found = compare(reference, twice, **same)
    errors = [mse_of(psnr) for psnr in found.scores["psnr_rgb_db"]["frames"]]
    assert found.stability.pop == pytest.approx(stability(errors, [9]).pop, rel=1e-2)
    assert stability(errors, [9]) != stability(errors)


def test_videos_of_both_and_of_their_difference(pair: tuple[Path, Path], tmp_path: Path) -> None:
    both, where = tmp_path / "both.mp4", tmp_path / "where.mkv"
    compare(*pair, side_by_side=both, heatmap=where)
    seen = frames_of(both)
    assert (len(seen), seen[0].shape) == (9, (48, 128, 3))
    true = frames_of(pair[0])[4].astype(int)
    assert np.abs(seen[4][:, :64] - true).mean() < 6
    assert np.abs(seen[4][:, 64:] - true).mean() == pytest.approx(10, abs=4)
    assert times_of(both) == times_of(pair[0])
    assert frames_of(where)[0].shape == (48, 64, 3)
    with pytest.raises(TokcodecError, match="exists already"):
        compare(*pair, heatmap=where)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_the_reference_is_shown_on_the_left_whichever_way_the_video_is_turned(rotation: int, mirrored: bool) -> None:
    shown = VideoInfo(6, 4, Fraction(1, 25), Fraction(25), rotation=rotation, mirrored=mirrored)
    left, right = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)

    def display(frame: np.ndarray) -> np.ndarray:
        return np.rot90(frame[:, ::-1] if mirrored else frame, -rotation // 90)

    both = joined_view(shown, left, right)
    assert both.shape == (doubled(shown).height, doubled(shown).width, 3)
    assert np.array_equal(display(both), np.concatenate([display(left), display(right)], 1))


def test_images_of_the_difference(pair: tuple[Path, Path], tmp_path: Path) -> None:
    compared = compare(*pair, heatmap=tmp_path / "heat" / "%03d.png")
    names = [path.name for path in sorted((tmp_path / "heat").iterdir())]
    assert names == [f"{i:03d}.png" for i in range(1, 1 + compared.frames)]
    with pytest.raises(ExistsError):
        compare(*pair, heatmap=tmp_path / "heat" / "%03d.png")


def test_damage_is_that_of_the_stream_that_has_it(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    names = [tmp_path / "a.tokc", tmp_path / "b.tokc"]
    for name in names:
        tokcodec.encode_video(make_clip("a.mp4", moving_frames(9)), name, weights=weights)
    data = bytearray(names[0].read_bytes())
    data[data.index(b"CHNK") + 40] ^= 1
    names[0].write_bytes(data)
    with pytest.raises(BitstreamError, match=r"a\.tokc: the CHNK record .* is damaged"):
        compare(*names, weights=weights, compute=Compute("cpu"))


def test_heat_is_black_for_none_and_white_for_much() -> None:
    true = np.zeros((1, 4, 3), np.uint8)
    seen = np.array([[[0] * 3, [64] * 3, [255] * 3, [1] * 3]], np.uint8)
    picture = heat(true, seen)[0]
    assert picture[0].tolist() == [0, 0, 0]
    assert picture[1].tolist() == picture[2].tolist() == [255] * 3
    assert picture[3].tolist() == [95, 0, 0]  # 3 * 255 / sqrt(64)


def test_frames_too_small_for_some_scores_have_the_others(make_clip: MakeClip, shared: Path) -> None:
    for size in ((4, 16), (24, 40)):
        clip = make_clip(f"{size[0]}.mkv", moving_frames(3, *size), codec="ffv1", pix_fmt="bgr0")
        result = compare(clip, clip, lpips_dir=shared / "lpips")
        assert set(result.scores) == {"psnr_rgb_db", "temporal_psnr_db"} | ({"ghosts"} if size[0] > 18 else set())
        assert result.shift is None
    goal = QualityGoal(0.1, load_lpips("alex", shared / "lpips"))
    with pytest.raises(TokcodecError, match="LPIPS needs 31 pixels a side"):
        goal(*np.zeros((2, 1, 30, 64, 3), np.uint8))
    assert goal(*np.zeros((2, 1, 31, 64, 3), np.uint8))


def test_what_cannot_be_compared_is_told(make_clip: MakeClip, pair: tuple[Path, Path], tmp_path: Path) -> None:
    small = make_clip("small.mp4", moving_frames(9, 32, 32))
    with pytest.raises(TokcodecError, match=r"small.mp4: 32x32 cannot be compared with 64x48 of .*a.mkv"):
        compare(pair[0], small)
    short = make_clip("short.mp4", moving_frames(5))
    with pytest.raises(SyncError, match=r"short.mp4: has 5 frames, fewer than the other"):
        compare(pair[0], short, side_by_side=tmp_path / "both.mp4")
    with pytest.raises(SyncError, match=r"short.mp4: has 5 frames"):
        compare(short, pair[0])
    assert not (tmp_path / "both.mp4").exists()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(TokcodecError, match=r"text.mp4"):
        compare(pair[0], tmp_path / "text.mp4")


def test_a_video_may_come_from_stdin(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = compare(*pair)
    with pair[1].open("rb") as file:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file))
        assert compare(pair[0], "-") == wanted


def test_a_shift_by_a_frame_is_a_warning(make_clip: MakeClip) -> None:
    frames = moving_frames(10)
    names = [str(make_clip(f"{i}.mkv", frames[i : i + 9], codec="ffv1", pix_fmt="bgr0")) for i in range(2)]
    assert "1.mkv is a frame early" in CliRunner().invoke(cli, ["compare", *names]).stderr
