"""Video to stream to video: what must survive does, and every way to fail leaves nothing behind."""

import dataclasses
import functools
import io
import itertools
import os
import re
import resource
import shutil
import threading
from collections.abc import Generator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import MakeClip, frames_of, moving_frames, times_of, with_sound

import tokcodec
from tokcodec import BitstreamError, ModelError, Rate, TokcodecError, TruncatedError, VideoError, edit
from tokcodec.codec import encoding
from tokcodec.codec.chunking import chunk_frames_for
from tokcodec.compute import Compute
from tokcodec.pipeline import in_background, in_parallel
from tokcodec.rate import STEP_RANGE
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.scoring.scores import lpips_distance, mean_psnr_db
from tokcodec.stream.container import Reader
from tokcodec.tokenizer import load_tokenizer
from tokcodec.video import VideoInfo, VideoReader, VideoWriter
from tokcodec.weights import Weights, find_weights, save_weights

FAST = {"compute": Compute("cpu", "float32")}
FINE = {"rate": Rate(step=10), **FAST}


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


def lossless(path: Path, frames: list[np.ndarray], pts: list[int] | None = None, **info: object) -> Path:
    """Write frames exactly, to an .mkv."""
    height, width = frames[0].shape[:2]
    facts = VideoInfo(width, height, Fraction(1, 1000), Fraction(30), **info)  # type: ignore[arg-type]
    with VideoWriter(path, facts, lossless=True) as writer:
        for i, frame in enumerate(frames):
            writer.write(frame, pts[i] if pts else 40 * i, 40)
    return path


@pytest.mark.parametrize("count", [1, 2, 5, 17, 33, 34, 70])
def test_stream_holds_exactly_what_the_tokenizer_says(
    tmp_path: Path, weights: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    frames = moving_frames(count, 33, 50)
    stream, back = tmp_path / "a.tokc", tmp_path / "b.mkv"
    report = tokcodec.encode_video(lossless(tmp_path / "a.mkv", frames), stream, **FINE)
    assert (report.frames, report.chunks, report.bytes) == (count, -(-count // 33), stream.stat().st_size)
    assert report.bpp == pytest.approx(8 * stream.stat().st_size / (50 * 33 * count), abs=1e-6)
    assert report.step == (10, 10)

    tokenizer = load_tokenizer(Weights.load(weights), Compute("cpu", "float32"))
    chunks = [np.stack(frames[i : i + 33]) for i in range(0, count, 33)]
    codings = [tokenizer.encode(chunk, 10) for chunk in chunks]
    with tokcodec.open_stream(stream, **FAST) as opened:
        for tokens, coding in zip(opened.tokens(), codings, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(tokens, coding.tokens, strict=True))
    assert tokcodec.decode_video(stream, back, lossless=True, **FAST).frames == count
    pictures = [p for coding in codings for p in tokenizer.pictures(coding, 10, 33, 50)]
    assert np.array_equal(np.concatenate(pictures), np.stack(frames_of(back)))


@pytest.mark.parametrize(
    ("cores", "section", "edges"),
    [
        (1, 8, [0, 33, 40, 55, 80]),  # after a cut the count begins anew
        (3, 8, [0, 33, 40, 55, 80]),
        (3, 1, [0, 33, 40, 55, 66, 80]),  # and at a section, whatever lies before
    ],
)
def test_a_chunk_ends_with_its_scene_however_many_are_coded_at_once(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, cores: int, section: int, edges: list[int]
) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    monkeypatch.setattr("tokcodec.codec.chunking.SECTION_CHUNKS", section)
    one, two = moving_frames(80, 33, 50), [255 - frame for frame in moving_frames(80, 33, 50)]
    frames = [*one[:40], *two[40:55], *one[55:]]
    tokcodec.encode_video(
        lossless(tmp_path / "a.mkv", frames),
        tmp_path / "a.tokc",
        **(FINE | {"compute": Compute("cpu", "float32", threads=cores)}),
    )
    tokenizer = load_tokenizer(Weights.load(weights), Compute("cpu", "float32"))
    with tokcodec.open_stream(tmp_path / "a.tokc", **FAST) as stream:
        assert [entry.first_pts for entry in stream.chunks] == [40 * begin for begin in edges[:-1]]
        for tokens, (begin, end) in zip(stream.tokens(), itertools.pairwise(edges), strict=True):
            alone = tokenizer.encode(np.stack(frames[begin:end]), 10).tokens
            assert np.array_equal(tokens.levels, alone.levels)
        assert len(list(stream.frames())) == 80


def test_a_source_that_is_not_coded_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, closed = lossless(tmp_path / "a.mkv", moving_frames(1)), []
    monkeypatch.setattr(VideoReader, "close", lambda reader: closed.append(reader))
    with pytest.raises(ModelError):
        tokcodec.encode_video(source, tmp_path / "a.tokc", weights=tmp_path / "none.safetensors")
    assert len(closed) == 1


def test_timestamps_beyond_the_clock_are_told_in_a_line(tmp_path: Path, weights: Path) -> None:
    source = tmp_path / "b.mkv"
    with av.open(lossless(tmp_path / "a.mkv", moving_frames(3))) as file, av.open(source, "w") as wild:
        copy = wild.add_stream_from_template(file.streams.video[0])
        for packet, ticks in zip(file.demux(file.streams.video[0]), (0, 40, 1 << 62), strict=False):
            packet.stream, packet.pts, packet.dts = copy, ticks, ticks
            wild.mux(packet)
    with pytest.raises(VideoError, match=r"b\.mkv: timestamps are out of range"):
        tokcodec.encode_video(source, tmp_path / "a.tokc", **FINE)
    assert not (tmp_path / "a.tokc").exists()


@pytest.mark.parametrize("place", [31, 32, 33, 34, 35])
def test_a_cut_beside_the_longest_chunk_is_seen(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    frames = moving_frames(50, 33, 50)
    frames[place:] = [255 - frame for frame in frames[place:]]
    tokcodec.encode_video(lossless(tmp_path / "a.mkv", frames), tmp_path / "a.tokc", **FINE)
    with tokcodec.open_stream(tmp_path / "a.tokc", **FAST) as stream:
        lengths = [chunk.frames for chunk in stream.chunks]
    # a scene of one frame behind the longest chunk may be a flash
    assert lengths == {34: [33, 17], 35: [33, 2, 15]}.get(place, [place, 50 - place])


def test_large_frames_come_in_shorter_chunks() -> None:
    assert chunk_frames_for(360, 640) == chunk_frames_for(720, 1280) == 257
    assert chunk_frames_for(1080, 1920) == 129
    assert chunk_frames_for(2160, 3840) == 29
    assert chunk_frames_for(16384, 16384) == 1


TAGS = {"title": "A Title", "creation_time": "2020-01-02T03:04:05.000000Z", "location": "+37.1234-122.4321/"}


def plain(tags: Mapping[str, str]) -> dict[str, str]:
    """Those of TAGS, whose names containers write their own way."""
    return {key.lower(): value for key, value in tags.items() if key.lower() in TAGS}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_tags_language_and_chapters_go_there_and_back(tmp_path: Path, suffix: str) -> None:
    source, back = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    chapters = ((0, 1000, "One"), (1000, 2000, "Two"))
    info = VideoInfo(64, 48, Fraction(1, 1000), tags=TAGS, language="fra", chapters=chapters, name="Left")
    with VideoWriter(source, info) as writer:
        for i, frame in enumerate(moving_frames(50)):
            writer.write(frame, 40 * i, 40)
    tokcodec.encode_video(source, tmp_path / "a.tokc", **FINE)
    with tokcodec.open_stream(tmp_path / "a.tokc") as stream:
        kept, base = stream.metadata, stream.header.time_base
    assert (plain(kept.tags), kept.language, kept.name) == (TAGS, "fra", "Left")
    assert [(c.start * base, c.end * base, c.title) for c in kept.chapters] == [(0, 1, "One"), (1, 2, "Two")]
    tokcodec.decode_video(tmp_path / "a.tokc", back, **FAST)
    with VideoReader(back) as reader:
        known = reader.info
    assert (plain(known.tags), known.language, known.name) == (TAGS, "fra", "Left")
    seconds = [(start * known.time_base, end * known.time_base, title) for start, end, title in known.chapters]
    assert seconds == [(0, 1, "One"), (1, 2, "Two")]
    tokcodec.encode_video(source, tmp_path / "late.tokc", start_s=1.2, **FINE)
    edit.trim(tmp_path / "a.tokc", tmp_path / "all.tokc")
    for name, spans in (("late", [(0, 0.8, "Two")]), ("all", [(0, 1, "One"), (1, 2, "Two")])):
        with tokcodec.open_stream(tmp_path / f"{name}.tokc") as stream:
            found = [(float(c.start * base), float(c.end * base), c.title) for c in stream.metadata.chapters]
        assert found == spans
    tokcodec.decode_video(tmp_path / "a.tokc", back, start_s=0.5, overwrite=True, **FAST)  # between two frames
    with VideoReader(back) as reader:
        base, known = reader.info.time_base, reader.info.chapters
    assert [(float(start * base), float(end * base)) for start, end, _ in known] == [(0, 0.48), (0.48, 1.48)]


def test_variable_frame_rate_sound_rotation_and_aspect_survive(make_clip: MakeClip, tmp_path: Path) -> None:
    pts = [0, 1, 3, 4, 9, 10, 11, 20, 21, 25, *range(30, 65)]
    silent = make_clip("v.mp4", moving_frames(45), pts=pts)
    source = with_sound(silent, tmp_path / "s.mp4")
    stream, back = tmp_path / "s.tokc", tmp_path / "back.mp4"
    tokcodec.encode_video(source, stream, **FINE)
    tokcodec.decode_video(stream, back, **FAST)
    assert times_of(back) == times_of(source) == [Fraction(t, 30) for t in pts]
    assert times_of(back, "audio") == times_of(source, "audio")

    turned = VideoInfo(50, 34, Fraction(1, 25), Fraction(25), Fraction(4, 3), 90)
    with VideoWriter(tmp_path / "t.mp4", turned) as writer:
        for i, frame in enumerate(moving_frames(5, 34, 50)):
            writer.write(frame, i)
    tokcodec.encode_video(tmp_path / "t.mp4", tmp_path / "t.tokc", **FINE)
    facts = edit.describe(tmp_path / "t.tokc")
    assert (facts["rotation"], facts["sample_aspect"], facts["frame_rate"]) == (90, "4/3", 25)


def test_the_rate_is_that_of_the_video_without_the_sound(make_clip: MakeClip, tmp_path: Path) -> None:
    """The same frames, with sound and without: one rate, whoever reports it."""
    silent = make_clip("v.mp4", moving_frames(70))
    sounded = with_sound(silent, tmp_path / "s.mp4")
    a, b = tmp_path / "a.tokc", tmp_path / "b.tokc"
    plain = tokcodec.encode_video(silent, a, **FINE)
    assert (plain.bytes, plain.video_bytes, plain.other_bytes) == (a.stat().st_size, a.stat().st_size, 0)
    made = tokcodec.encode_video(sounded, b, **FINE)
    with b.open("rb") as file:
        reader = Reader(file)
        name, streams = reader.streams() or ("", io.BytesIO())
        records_bytes = 12 + 8 + len(name) + 12 + len(streams.read())  # STRM and one PART
    assert made.bytes == b.stat().st_size
    assert made.other_bytes == records_bytes > 5000
    assert made.video_bytes == made.bytes - made.other_bytes
    assert abs(made.video_bytes - plain.bytes) <= 4  # of the index' varints
    assert made.bpp == round(8 * made.video_bytes / (64 * 48 * 70), 6)
    assert made.kbps == round(8 * made.video_bytes / (70 / 30) / 1000, 3)
    read = [
        edit.verify(b),
        *(tokcodec.decode_video(b, tmp_path / f"{x}.mp4", salvage=x, **FAST) for x in (False, True)),
    ]
    written = [edit.trim(b, tmp_path / "t.tokc")]
    for report in map(dataclasses.asdict, [*read, *written]):
        assert (report["video_bytes"], report["bpp"], report["kbps"]) == (made.video_bytes, made.bpp, made.kbps)
    facts = edit.describe(b)
    assert (facts["video_bytes"], facts["other_bytes"], facts["bpp"]) == (made.video_bytes, records_bytes, made.bpp)


def test_span_of_the_source_and_of_the_stream_agree(make_clip: MakeClip, tmp_path: Path) -> None:
    """--start and --duration pick the same frames in encode and decode, and both begin at 0."""
    source = with_sound(make_clip("v.mp4", moving_frames(80)), tmp_path / "s.mp4")
    cut, whole = tmp_path / "cut.tokc", tmp_path / "whole.tokc"
    tokcodec.encode_video(source, cut, start_s=1.0, duration_s=0.5, **FINE)
    tokcodec.encode_video(source, whole, **FINE)
    assert edit.describe(cut)["frames"] == 15
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    tokcodec.decode_video(cut, a, **FAST)
    assert tokcodec.decode_video(whole, b, start_s=1.0, duration_s=0.5, **FAST).frames == 15
    assert times_of(a) == times_of(b) == [Fraction(i, 30) for i in range(15)]
    sound = times_of(b, "audio")
    assert abs(sound[0]) < 0.03
    assert 0.4 < sound[-1] < 0.55
    edit.trim(whole, tmp_path / "part.tokc", start_s=1.0, duration_s=0.5)
    tokcodec.decode_video(tmp_path / "part.tokc", tmp_path / "part.mp4", **FAST)
    assert all(map(np.array_equal, frames_of(tmp_path / "part.mp4"), frames_of(b)))
    for kind in ("video", "audio"):
        assert times_of(tmp_path / "part.mp4", kind) == times_of(b, kind)
    with pytest.raises(TokcodecError, match="no frames from 9"):
        tokcodec.decode_video(whole, tmp_path / "c.mp4", start_s=9, **FAST)
    assert not (tmp_path / "c.mp4").exists()


def test_open_stream_gives_the_frames_of_a_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    source = lossless(tmp_path / "a.mkv", moving_frames(70))
    tokcodec.encode_video(source, tmp_path / "a.tokc", **FINE)
    with tokcodec.open_stream(tmp_path / "a.tokc", **FAST) as stream:
        assert [entry.frames for entry in stream.chunks] == [33, 33, 4]
        everything = list(stream.frames())
        part = list(stream.frames(1.0, 1.5))
        assert [pts for _, pts, _ in part] == [pts for _, pts, _ in everything if 1000 <= pts < 1500]
        assert all(any(np.array_equal(f, g) for g, _, _ in everything) for f, _, _ in part)
        assert len(list(stream.tokens(1.0, 1.5))) == 2  # frame 32 is at 1.28 s


def noise(count: int) -> list[np.ndarray]:
    """Frames without anything to predict, coarse ones, the first half calmer than the second."""
    rng = np.random.default_rng(0)
    tiles = [rng.integers(0, 100 + 155 * (2 * i > count), (16, 24, 3), np.uint8) for i in range(count)]
    return [tile.repeat(4, 0).repeat(4, 1) for tile in tiles]


@pytest.mark.parametrize("share", [0.95, 0.7, 0.5])
def test_targets_are_met_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 17)
    source = lossless(tmp_path / "a.mkv", noise(150))
    whole = tokcodec.encode_video(source, tmp_path / "whole.tokc", rate=Rate(step=4), **FAST)
    target = int(share * whole.bytes)
    report = tokcodec.encode_video(source, tmp_path / "sized.tokc", rate=Rate(target_size_bytes=target), **FAST)
    assert 0.97 * target <= report.bytes == (tmp_path / "sized.tokc").stat().st_size <= target
    wanted_kbps = share * whole.kbps
    report = tokcodec.encode_video(source, tmp_path / "timed.tokc", rate=Rate(bitrate_kbps=wanted_kbps), **FAST)
    assert 0.97 * wanted_kbps <= report.kbps <= wanted_kbps
    assert tokcodec.verify(tmp_path / "timed.tokc").frames == 150


def test_a_target_counts_sound_and_metadata(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 17)
    source = with_sound(make_clip("v.mp4", noise(120)), tmp_path / "s.mp4")
    whole = tokcodec.encode_video(source, tmp_path / "whole.tokc", rate=Rate(step=10), **FAST)
    target = whole.other_bytes + whole.video_bytes // 2
    made = tokcodec.encode_video(source, tmp_path / "a.tokc", rate=Rate(target_size_bytes=target), **FAST)
    assert made.other_bytes == whole.other_bytes
    assert 0.97 * (target - whole.other_bytes) <= made.video_bytes <= target - whole.other_bytes


def test_metadata_that_is_left_out_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tokcodec.stream.metadata.MAX_METADATA_BYTES", 30)
    source = lossless(tmp_path / "a.mkv", moving_frames(9), tags={"title": 40 * "x"})
    tokcodec.encode_video(source, tmp_path / "a.tokc", rate=Rate(target_size_bytes=1500), **FAST)
    assert [message for message in caplog.messages if "left out" in message] == [
        "its metadata is left out: metadata takes more than 30 bytes"
    ]


def test_a_rate_that_the_finest_step_does_not_use_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = lossless(tmp_path / "a.mkv", moving_frames(9))
    made = tokcodec.encode_video(source, tmp_path / "a.tokc", rate=Rate(bitrate_kbps=10**6), **FAST)
    assert made.step == (1 / 16, 1 / 16)
    (message,) = caplog.messages
    assert re.fullmatch(
        r".*a\.mkv: its chunks take \d+ of \d+ bytes that there are: the finest step takes no more", message
    )


def test_the_network_s_time_is_that_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of others at the same time, nor what it takes to load it."""
    source = lossless(tmp_path / "a.mkv", moving_frames(3))
    tokcodec.encode_video(source, tmp_path / "a.tokc", **FINE)
    load_tokenizer.cache_clear()
    shared, clock, restorer = load_tokenizer(Weights.find(), Compute("cpu", "float32")), [0], Weights.restorer

    def tick(ticks: int) -> int:
        clock[0] += ticks
        return clock[0]

    monkeypatch.setattr("tokcodec.tokenizer.time.perf_counter", lambda: tick(1))
    monkeypatch.setattr(Weights, "restorer", lambda weights, tier: (tick(1000), restorer(weights, tier))[1])
    for name in ("a.mkv", "b.mkv"):
        made = tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / f"out-{name}", **FAST)
        assert made.network_s == 2  # the first frame, and the group behind it
    assert clock[0] > 1000
    assert shared.busy_s == 0


def test_targets_out_of_reach(tmp_path: Path) -> None:
    source = lossless(tmp_path / "a.mkv", moving_frames(34))
    for rate in (Rate(target_size_bytes=100), Rate(bitrate_kbps=0.01)):
        with pytest.raises(TokcodecError, match=r"a\.mkv: the rate cannot be met"):
            tokcodec.encode_video(source, tmp_path / "a.tokc", rate=rate, **FAST)
        assert not (tmp_path / "a.tokc").exists()
    whole = tokcodec.encode_video(source, tmp_path / "a.tokc", rate=Rate(target_size_bytes=10**9), **FAST)
    assert whole.step == (STEP_RANGE[0], STEP_RANGE[0])


def test_a_target_of_quality_holds_for_every_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 17)
    flat = [np.full((32, 32, 3), 40 + 5 * (i % 9), np.uint8) for i in range(17)]
    source = lossless(tmp_path / "a.mkv", [*flat, *moving_frames(17, 32, 32)])
    frames = np.stack(frames_of(source))
    scores = []
    for goal in (18.0, 24.0):
        made = tokcodec.encode_video(
            source, tmp_path / "a.tokc", rate=Rate(target_psnr_db=goal), overwrite=True, **FAST
        )
        with tokcodec.open_stream(tmp_path / "a.tokc", **FAST) as stream:
            shown = np.stack([frame for frame, _, _ in stream.frames()])
            steps, counts = zip(*((entry.step / 16, entry.frames) for entry in stream.chunks), strict=True)
        assert made.step == (min(steps), max(steps))
        assert len(set(steps)) > 1  # one scene is easier than the other
        edges = itertools.pairwise(itertools.accumulate(counts, initial=0))
        for step, (begin, end) in zip(steps, edges, strict=True):
            scores.append((goal, mean_psnr_db(frames[begin:end], shown[begin:end]), step))
    reached = [db >= goal for goal, db, step in scores if step > STEP_RANGE[0]]
    assert len(reached) >= 2
    assert all(reached)


@pytest.mark.parametrize("rate", [Rate(quality=3), Rate(target_size_bytes=3000)])
def test_a_pipe_gives_the_stream_of_the_file(make_clip: MakeClip, tmp_path: Path, rate: Rate) -> None:
    """Also where the source is read several times."""
    source, fifo = make_clip("a.mkv", moving_frames(40)), tmp_path / "fifo"
    os.mkfifo(fifo)
    tokcodec.encode_video(source, tmp_path / "a.tokc", rate=rate, **FAST)
    writer = threading.Thread(target=lambda: fifo.write_bytes(source.read_bytes()))
    writer.start()
    tokcodec.encode_video(fifo, tmp_path / "b.tokc", rate=rate, **FAST)
    writer.join()
    assert (tmp_path / "a.tokc").read_bytes() == (tmp_path / "b.tokc").read_bytes()


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.y4m", "png/%04d.png"])
def test_every_output_has_every_frame(tmp_path: Path, name: str) -> None:
    tokcodec.encode_video(lossless(tmp_path / "s.mkv", moving_frames(36)), tmp_path / "a.tokc", **FINE)
    tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / name, **FAST)
    assert len(frames_of(tmp_path / name)) == 36
    with pytest.raises(TokcodecError, match="already"):
        tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / name, **FAST)
    tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / name, overwrite=True, **FAST)


def test_a_shorter_set_of_images_replaces_a_longer_one(tmp_path: Path) -> None:
    """Old pictures behind the new ones would be taken for theirs; what else is there stays."""
    for count in (12, 3):
        source = lossless(tmp_path / f"{count}.mkv", moving_frames(count))
        tokcodec.encode_video(source, tmp_path / f"{count}.tokc", **FINE)
    folder = tmp_path / "100% d"
    tokcodec.decode_video(tmp_path / "12.tokc", folder / "f%02d.png", **FAST)
    others = ["f001.png", "f1.png", "g04.png", "f04.jpg", "f04.png.txt", "f-4.png"]
    for name in others:
        (folder / name).touch()
    tokcodec.decode_video(tmp_path / "3.tokc", folder / "f%02d.png", overwrite=True, **FAST)
    assert sorted(file.name for file in folder.iterdir()) == sorted(["f01.png", "f02.png", "f03.png", *others])
    assert len(frames_of(folder / "f%02d.png")) == 3


def test_weights_trained_on_in_place_are_other_weights(tmp_path: Path, weights: Path) -> None:
    """A process that lives long takes the file as it is now, not as it was at its first stream."""
    source, own = lossless(tmp_path / "s.mkv", moving_frames(2)), tmp_path / "own.safetensors"
    own.write_bytes(weights.read_bytes())
    tokcodec.encode_video(source, tmp_path / "a.tokc", weights=own, **FINE)
    before = Weights.load(own)
    save_weights(own, None, before.arrays, {"note": "trained on"})
    tokcodec.encode_video(source, tmp_path / "b.tokc", weights=own, **FINE)
    with tokcodec.open_stream(tmp_path / "b.tokc", weights=own) as stream:
        assert stream.header.weights_sha256 == Weights.load(own).sha256 != before.sha256
    with pytest.raises(ModelError, match="other weights"):
        tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / "b.mkv", weights=own, **FAST)


def test_other_weights_are_named(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokcodec.encode_video(lossless(tmp_path / "s.mkv", moving_frames(2)), tmp_path / "a.tokc", **FINE)
    other, own = tmp_path / "other.safetensors", Weights.load(weights)
    save_weights(other, None, own.arrays, {"note": "other"})
    with pytest.raises(ModelError, match=f"{own.sha256.hex()[:16]}.*other.safetensors; give those"):
        tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / "b.mkv", weights=other, **FAST)
    monkeypatch.delenv("TOKCODEC_WEIGHTS")
    monkeypatch.setattr("tokcodec.weights.RELEASED", tmp_path / "nothing")
    with pytest.raises(ModelError, match="no weights are installed"):
        find_weights()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tokc", "other.safetensors", "s.mkv"]


def test_salvage_plays_what_is_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    stream = tmp_path / "a.tokc"
    tokcodec.encode_video(lossless(tmp_path / "s.mkv", moving_frames(99)), stream, **FINE)
    with tokcodec.open_stream(stream) as opened:
        middle = opened.chunks[1]
    data = bytearray(stream.read_bytes())
    data[middle.offset + middle.bytes // 2] ^= 1
    damaged, cut = tmp_path / "damaged.tokc", tmp_path / "cut.tokc"
    damaged.write_bytes(data)
    cut.write_bytes(data[: middle.offset + 9])
    for path, error, frames in ((damaged, BitstreamError, 66), (cut, TruncatedError, 33)):
        with pytest.raises(error, match=path.name):
            tokcodec.decode_video(path, tmp_path / "b.mkv", **FAST)
        assert not (tmp_path / "b.mkv").exists()
        report = tokcodec.decode_video(path, tmp_path / f"{path.stem}.mkv", salvage=True, **FAST)
        assert report.frames == len(frames_of(tmp_path / f"{path.stem}.mkv")) == frames
        assert report.damaged == 1


def test_bad_sources_leave_nothing(tmp_path: Path, make_clip: MakeClip) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    good = make_clip("good.mp4", moving_frames(3))
    (tmp_path / "headless.mp4").write_bytes(good.read_bytes()[:200])
    bare = Path(shutil.copy(good, tmp_path / "bare"))
    before = set(tmp_path.iterdir())
    for source in ("text.mp4", "empty.mp4", "headless.mp4", "absent.mp4"):
        with pytest.raises(VideoError, match=source) as caught:
            tokcodec.encode_video(tmp_path / source, tmp_path / "out.tokc", **FINE)
        assert "\n" not in str(caught.value)
    with pytest.raises(TokcodecError, match="same file"):
        tokcodec.encode_video(bare, bare, overwrite=True, **FINE)
    with pytest.raises(TokcodecError, match="no folder"):
        tokcodec.encode_video(good, tmp_path / "no" / "out.tokc", **FINE)
    with pytest.raises(TokcodecError, match="is a folder"):
        tokcodec.encode_video(good, tmp_path, overwrite=True, **FINE)
    with pytest.raises(BitstreamError, match=r"good\.mp4.*not a \.tokc"):
        tokcodec.decode_video(good, tmp_path / "out.mkv", **FAST)
    assert set(tmp_path.iterdir()) == before


def test_frames_too_large_for_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_clip: MakeClip) -> None:
    clip = make_clip("a.mp4", moving_frames(2))
    real = encoding.header_of
    huge = functools.partial(dataclasses.replace, width=20000)
    monkeypatch.setattr(encoding, "header_of", lambda info, *rest: real(huge(info), *rest))
    with pytest.raises(TokcodecError, match="20000"):
        tokcodec.encode_video(clip, tmp_path / "a.tokc", **FINE)


def test_full_disk_is_one_line_and_no_file(tmp_path: Path, make_clip: MakeClip) -> None:
    """A disk that fills up in mid-stream, as a limit to the size of a file does."""
    clip = make_clip("a.mp4", moving_frames(40))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    try:
        with pytest.raises(TokcodecError, match=r"a\.tokc: cannot write: File too large"):
            tokcodec.encode_video(clip, tmp_path / "a.tokc", **FINE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_background_iteration_keeps_order_errors_and_cleanup() -> None:
    closed = threading.Event()

    def numbers(stop_at: int | None = None) -> Generator[int, None, None]:
        try:
            for i in itertools.count():
                if i == stop_at:
                    raise KeyError(i)
                yield i
        finally:
            closed.set()

    assert list(itertools.islice(in_background(numbers()), 100)) == list(range(100))
    items = in_background(numbers())
    next(items)
    closed.clear()
    items.close()
    assert closed.is_set()
    failing = in_background(numbers(stop_at=3), depth=2)
    assert [next(failing) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(failing)
    assert not [t for t in threading.enumerate() if t.name.startswith("tokcodec") and t.is_alive()]


def test_parallel_work_keeps_order_and_holds_few_items() -> None:
    state = {"taken": 0, "most": 0}

    def items() -> Generator[int, None, None]:
        for i in range(40):
            state["taken"] += 1
            yield i

    results = []
    for result in in_parallel(lambda i: i * i, items(), 3):
        results.append(result)
        state["most"] = max(state["most"], state["taken"] - len(results))
    assert results == [i * i for i in range(40)]
    assert state["most"] <= 3

    def fails(i: int) -> int:
        if i == 5:
            raise KeyError(i)
        return i

    failing = in_parallel(fails, range(100), 2)
    assert [next(failing) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        next(failing)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_target_in_lpips_is_measured_on_the_decoded_picture(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKCODEC_LPIPS_DIR", str(tmp_path))
    source = lossless(tmp_path / "a.mkv", moving_frames(9, 96, 128))
    lpips = load_lpips("alex", shared / "lpips")
    tokcodec.encode_video(source, tmp_path / "b.tokc", rate=Rate(step=20), **FAST)
    with tokcodec.open_stream(tmp_path / "b.tokc", **FAST) as stream:
        shown = np.stack([frame for frame, _, _ in stream.frames()])
    goal = lpips_distance(lpips, np.stack(frames_of(source)), shown)
    made = tokcodec.encode_video(
        source, tmp_path / "a.tokc", rate=Rate(target_lpips=goal), lpips_dir=shared / "lpips", **FAST
    )
    assert made.step[0] > STEP_RANGE[0]
    with tokcodec.open_stream(tmp_path / "a.tokc", **FAST) as stream:
        shown = np.stack([frame for frame, _, _ in stream.frames()])
    assert lpips_distance(lpips, np.stack(frames_of(source)), shown) <= goal
