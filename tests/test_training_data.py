"""training/data.py and what the loop makes of it: the cache, and what is held out of training."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import MakeClip, moving_frames
from test_training import coarse

from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.training.coded import CodedClip, WindowSampler
from tokcodec.training.data import build_cache, square
from tokcodec.training.evaluate import load_clips
from tokcodec.training.train import code_clips, open_data
from tokcodec.training.trainer import TrainSettings


def write_image(path: Path, frame: np.ndarray) -> None:
    with av.open(path, "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", width=frame.shape[1], height=frame.shape[0])
        stream.codec_context.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def source(make_clip: MakeClip, tmp_path: Path) -> Path:
    """A folder with a video of two segments and a tail, one too short, an image of the same name, a broken file."""
    frames = moving_frames(70)
    lossless = {"codec": "ffv1", "pix_fmt": "bgr0"}
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    make_clip("a.mkv", frames, **lossless).rename(folder / "a.mkv")
    make_clip("short.mkv", frames[:20], **lossless).rename(folder / "short.mkv")
    make_clip("image-00.mkv", frames[:3], **lossless).rename(folder / "image-00.mkv")
    write_image(folder / "a.png", frames[0])
    write_image(folder / "sub" / "a.png", np.full((300, 400, 3), 90, np.uint8))
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_the_cache_holds_what_decodes(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        arrays = build_cache(source, tmp_path / "cache")
    assert list(arrays) == ["a.mkv", "a.png", "image-00.mkv", "sub/a.png"]
    assert len(set(arrays.values())) == 4
    left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert [message.count(name) for message, name in zip(left_out, ("broken.mp4", "short.mkv"), strict=True)] == [1, 1]
    loaded = {name: np.load(path, mmap_mode="r") for name, path in arrays.items()}
    assert {name: array.shape for name, array in loaded.items()} == {
        "a.mkv": (2, 33, 48, 48, 3),
        "a.png": (1, 1, 48, 48, 3),
        "image-00.mkv": (3, 1, 48, 48, 3),
        "sub/a.png": (1, 1, 256, 256, 3),
    }
    frames = [square(frame, 256) for frame in moving_frames(70)]
    assert np.array_equal(loaded["a.mkv"].reshape(66, 48, 48, 3), frames[:66])
    assert np.array_equal(loaded["a.png"][0, 0], frames[0])
    assert (loaded["sub/a.png"] == 90).all()
    assert not list((tmp_path / "cache").rglob("*partial*"))


def test_a_cache_is_built_once(source: Path, tmp_path: Path) -> None:
    first = build_cache(source, tmp_path / "cache")
    times = {path: path.stat().st_mtime_ns for path in first.values()}
    assert build_cache(source, tmp_path / "cache") == first
    assert {path: path.stat().st_mtime_ns for path in first.values()} == times


def test_pictures_of_a_run_are_not_trained_on(source: Path, tmp_path: Path) -> None:
    (source / "run").mkdir()
    write_image(source / "run" / "val.png", moving_frames(1)[0])
    assert "run/val.png" in build_cache(source, tmp_path / "one")
    (source / "run" / "checkpoint.pt").touch()
    assert "run/val.png" not in build_cache(source, tmp_path / "two")


def test_a_folder_without_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokcodecError, match="no video or image"):
        build_cache(tmp_path, tmp_path / "cache")
    with pytest.raises(TokcodecError, match="no video to evaluate"):
        load_clips(tmp_path)


def test_what_is_held_out_is_never_drawn(tmp_path: Path) -> None:
    """The held-out file is the only bright one."""
    source, cache = tmp_path / "source", tmp_path / "cache"
    source.mkdir()
    cache.mkdir()
    for name, count, value in (("x-0", 2, 10), ("x-1", 3, 20), ("x-8", 19, 200)):
        (source / f"{name}.mkv").touch()
        np.save(cache / f"{name}.npy", np.full((count, 33, 16, 16, 3), value, np.uint8))
    settings = TrainSettings(crop_px=16, passes=2)
    arrays, clips = open_data(source, cache, coarse, settings, ("x-8*",))
    assert list(clips) == ["x-8.mkv-000", "x-8.mkv-009", "x-8.mkv-018"]
    for clip in clips.values():
        assert clip["planes"].shape == (3, 17, 24, 16)
        assert (clip["planes"][0, :, :16] == 200).all()
    assert [len(array) for array in arrays] == [2, 3, 2, 3]
    steps = {float(step) for array in arrays for step in array["step"]}
    assert len(steps) == 10, "each has its own"
    drawn = WindowSampler(arrays, 16, 0).batch(0, range(100), 9, True)
    assert set(drawn.planes[:, 0, :, :16].unique().tolist()) == {10, 20}
    assert set(drawn.step.tolist()) == steps
    with pytest.raises(TokcodecError, match=r"no file matches the holdout pattern x-9\*"):
        open_data(source, cache, coarse, settings, ("x-8*", "x-9*"))
    with pytest.raises(TokcodecError, match="none is left"):
        open_data(source, cache, coarse, settings, ("x-*",))


def test_clips_to_evaluate_on_are_scaled_down_only(make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("long.mkv", moving_frames(20, 90, 160), codec="ffv1", pix_fmt="bgr0")
    make_clip("short.mp4", moving_frames(3, 32, 64))
    clips = load_clips(tmp_path, height_px=45)
    assert {name: clip.shape for name, clip in clips.items()} == {
        "long.mkv": (17, 45, 80, 3),
        "short.mp4": (1, 32, 64, 3),
    }


def test_clips_to_evaluate_on_are_coded_once_for_each_step(make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("a.mkv", moving_frames(6, 40, 64), codec="ffv1", pix_fmt="bgr0")
    steps = []

    def code(frames: Frames, step: float) -> CodedClip:
        steps.append(step)
        return coarse(frames, step)

    for _ in range(2):
        coded = code_clips(tmp_path, tmp_path / "cache", code, (2, 4.5))
        assert steps == [2, 4.5]
        assert {name: float(clip["step"]) for name, clip in coded.items()} == {"a.mkv 2": 2, "a.mkv 4.5": 4.5}
        assert all(clip["planes"].shape == (3, 5, 72, 64) for clip in coded.values())
