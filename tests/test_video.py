"""Video in and out: what goes in comes out, exact where the container allows; bad files give one clear line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import logging
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import MakeClip, moving_frames

from tokcodec.errors import VideoError
from tokcodec.video import Colour, Filters, VideoInfo, VideoReader, VideoWriter
from tokcodec.video.ffmpeg import exact

INFO = VideoInfo(64, 48, Fraction(1, 30), Fraction(30))
VFR = [0, 512, 1500, 1501, 4000, 9000, 9001, 20000]


def write(
    path: object, frames: list[np.ndarray], info: VideoInfo = INFO, pts: list[int] | None = None, **options
) -> None:
    with VideoWriter(path, info, **options) as writer:
        for frame, time in zip(frames, pts or itertools.count(), strict=False):
            writer.write(frame, time)


def read(path: Path, **options) -> tuple[list[np.ndarray], list[int], VideoReader]:
    with VideoReader(path, **options) as reader:
        pairs = list(reader)
    return [frame for frame, _ in pairs], [pts for _, pts in pairs], reader


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


class Rational:
    """What PyAV 19 has for a fraction: as_integer_ratio, round and str of one are not there."""

    numerator, denominator = 30000, 1001


def test_numbers_of_pyav_become_fractions() -> None:
    for given in (Rational(), Fraction(30000, 1001)):
        found = exact(given)
        assert type(found) is Fraction
        assert found == Fraction(30000, 1001)
    assert exact(0) == 0


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """(seconds, bytes) of the packets of the first stream of a kind."""
    with av.open(path) as container:
        stream = next(s for s in container.streams if s.type == kind)
        found = [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]
    return [(time, data) for time, data in found if data != bytes(2)]  # mov_text fills gaps with these


def add_streams(
    video: Path, name: str, audio: str | None = "aac", subtitle: str | None = None, offset_s: int = 0
) -> Path:
    """A copy of a video file with a 0.5 s tone and two subtitles, both `offset_s` later, beside the picture."""
    path = video.with_name(name)
    with av.open(video) as source, av.open(path, "w") as target:
        picture = target.add_stream_from_template(source.streams.video[0])
        tone = target.add_stream(audio, rate=48000) if audio else None
        text = None
        if subtitle:
            text = target.add_mux_stream(subtitle, time_base=Fraction(1, 1000))
            text.metadata["language"] = "deu"
        if tone is not None:
            tone.metadata["title"] = "Main"
        target.start_encoding()
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = picture
                target.mux(packet)
        if tone is not None:
            size = tone.codec_context.frame_size or 1024
            fmt = tone.codec_context.format.name
            for start in range(0, 24000, size):
                wave = np.sin(np.arange(start, start + size) / 20).astype(np.float32)
                data = (
                    np.stack([wave, wave])
                    if fmt == "fltp"
                    else (np.stack([wave, wave], 1).reshape(1, -1) * 9000).astype("i2")
                )
                frame = av.AudioFrame.from_ndarray(data, format=fmt, layout="stereo")
                frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
                frame.pts = start + 48000 * offset_s
                target.mux(tone.encode(frame))
            target.mux(tone.encode(None))
        for index in range(2 if text else 0):
            line = f"line {index}".encode()
            packet = av.Packet(len(line).to_bytes(2, "big") + line if subtitle == "mov_text" else line)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 1000 * offset_s + 300 * index
            packet.duration = 300
            target.mux(packet)
    return path


# Pixels


@pytest.mark.parametrize("size", [(48, 64), (47, 61), (1, 1)])
def test_lossless_is_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8))
    write(tmp_path / "a.mkv", frames, VideoInfo(size[1], size[0], Fraction(1, 1000)), [0, 40, 90], lossless=True)
    back, pts, _ = read(tmp_path / "a.mkv")
    assert pts == [0, 40, 90]
    assert all(frame.flags.c_contiguous and frame.dtype == np.uint8 for frame in back)
    np.testing.assert_array_equal(back, frames)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 61), (47, 64)])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_default_quality_cannot_be_told_from_the_input(tmp_path: Path, suffix: str, height: int, width: int) -> None:
    frames = moving_frames(5, height, width)
    write(tmp_path / f"a.{suffix}", frames, VideoInfo(width, height, Fraction(1, 30), Fraction(30)))
    back, _, _ = read(tmp_path / f"a.{suffix}")
    assert len(back) == 5
    assert min(map(psnr_db, back, frames)) > 32  # most of the error is in the chroma of the small square


def test_one_frame(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", moving_frames(1), pts=[7])
    frames, _, reader = read(tmp_path / "a.mp4")
    assert len(frames) == 1
    assert reader.info.frames == 1


# Colour. The reference is the definition in ITU-T H.273 / BT.601, 709, 2020: luma weights of red and blue.

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}


def yuv_of(rgb: np.ndarray, matrix: int, full_range: bool) -> np.ndarray:
    """RGB `[..., 3]` to YUV levels `[..., 3]`, float."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    scale, offset = ((255, 255, 255), (0, 128, 128)) if full_range else ((219, 224, 224), (16, 128, 128))
    return np.stack([y, u, v], -1) * scale + offset


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_colour_is_read_with_the_tagged_matrix_and_range(make_clip: MakeClip, matrix: int, full_range: bool) -> None:
    rgb = np.random.default_rng(matrix).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    levels = np.moveaxis(yuv_of(rgb, matrix, full_range).round().clip(0, 255).astype(np.uint8), -1, 0)
    path = make_clip("empty.mkv", [rgb], codec="ffv1", pix_fmt="yuv444p")
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=30, width=16, height=16)
        stream.codec_context.pix_fmt = "yuv444p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full_range else 1
        container.mux(stream.encode(av.VideoFrame.from_ndarray(levels, format="yuv444p")))
        container.mux(stream.encode(None))
    frames, _, reader = read(path)
    assert (reader.info.colour.matrix, reader.info.colour.full_range) == (matrix, full_range)
    assert np.abs(frames[0].astype(int) - rgb).max() <= 2  # the rounding of YUV to 8 bits


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_colour_is_written_with_the_matrix_and_range_of_the_info(tmp_path: Path, matrix: int, full_range: bool) -> None:
    rgb = np.array([[255, 0, 0], [0, 255, 0], [20, 60, 255], [128, 128, 128]], dtype=np.uint8)
    colour = Colour(primaries=1, transfer=1, matrix=matrix, full_range=full_range)
    for index, value in enumerate(rgb):
        path = tmp_path / f"{index}.mp4"
        write(path, [np.broadcast_to(value, (48, 64, 3))], VideoInfo(64, 48, Fraction(1, 30), colour=colour), crf=1)
        with av.open(path) as container:
            frame = next(container.decode(video=0))
        expected = yuv_of(value, matrix, full_range)
        levels = [np.frombuffer(plane, np.uint8)[8 * plane.line_size + 8] for plane in frame.planes]
        np.testing.assert_allclose(levels, expected.clip(0, 255), atol=2)
        assert read(path)[2].info.colour == colour


@pytest.mark.parametrize(("height", "matrix"), [(48, 6), (720, 1)])
def test_untagged_colour_is_guessed_by_height(make_clip: MakeClip, height: int, matrix: int) -> None:
    path = make_clip("a.mkv", moving_frames(1, height, 64), codec="mpeg4")
    assert VideoReader(path).info.colour == Colour(2, 2, matrix, False)


def test_jpeg_pixel_formats_are_full_range(make_clip: MakeClip) -> None:
    grey = np.full((48, 64, 3), 251, np.uint8)
    path = make_clip("a.mkv", [grey], codec="mjpeg", pix_fmt="yuvj420p", setup=lambda s: setattr(s, "color_range", 2))
    frames, _, reader = read(path)
    assert reader.info.colour.full_range
    assert np.abs(frames[0].astype(int) - 251).max() <= 2


def test_ten_bits_are_read_with_a_warning(make_clip: MakeClip, caplog: pytest.LogCaptureFixture) -> None:
    frames = moving_frames(2)
    path = make_clip("a.mkv", frames, codec="ffv1", pix_fmt="yuv444p10le", setup=lambda s: setattr(s, "colorspace", 5))
    back, _, _ = read(path)
    assert np.abs(back[1].astype(int) - frames[1]).max() <= 1
    assert [record.getMessage() for record in caplog.records] == [f"{path}: 10-bit video is coded with 8 bits"]


@pytest.mark.parametrize("alpha", [255, 254])
def test_transparency_is_told_where_there_is_any(
    make_clip: MakeClip, alpha: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_clip("a.mkv", moving_frames(1), codec="ffv1", pix_fmt="bgra")
    levels = [np.dstack([frame, np.full((48, 64), 255, np.uint8)]) for frame in moving_frames(3)]
    levels[1][47, 63, 3] = alpha
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=30, width=64, height=48)
        stream.codec_context.pix_fmt = "bgra"
        for frame in levels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="bgra")))
        container.mux(stream.encode(None))
    np.testing.assert_array_equal(read(path)[0], moving_frames(3))
    told = [f"{path}: its transparency is left out"] if alpha < 255 else []
    assert [record.getMessage() for record in caplog.records] == told


# Time


@pytest.mark.parametrize(
    ("suffix", "time_base"), [("mp4", "1/15360"), ("mov", "1001/30000"), ("mp4", "1/90000"), ("mkv", "1/1000")]
)
def test_variable_frame_rate_is_kept_tick_by_tick(tmp_path: Path, suffix: str, time_base: str) -> None:
    base = Fraction(time_base)
    with VideoWriter(tmp_path / f"a.{suffix}", VideoInfo(64, 48, base, Fraction(30))) as writer:
        for frame, pts in zip(moving_frames(8), VFR, strict=True):
            writer.write(frame, pts, duration=333)
    _, pts, reader = read(tmp_path / f"a.{suffix}")
    assert [p * reader.info.time_base for p in pts] == [p * base for p in VFR]
    if suffix != "mkv":  # which stores no duration of the last frame
        assert reader.last_duration * reader.info.time_base == 333 * base


@pytest.mark.parametrize("name", ["a.mp4", "fragmented.mp4", "a.mov", "a.mkv", "a.flv", "a.ts"])
def test_what_starts_late_starts_at_zero(make_clip: MakeClip, name: str) -> None:
    """As FFmpeg does it: recordings and segments whose clock runs on since an hour."""
    options = {"movflags": "empty_moov+frag_keyframe", "use_editlist": "0"} if name == "fragmented.mp4" else {}
    late = [108000 + i for i in range(40)]
    path = make_clip(name, moving_frames(40), pts=late, options={"bf": "0"}, container_options=options)
    frames, pts, reader = read(path)
    seconds = [p * reader.info.time_base for p in pts]
    assert len(frames) == 40
    assert all(abs(time - Fraction(i, 30)) <= Fraction(1, 2000) for i, time in enumerate(seconds))
    part, part_pts, _ = read(path, start_s=1, duration_s=0.1)
    np.testing.assert_array_equal(part, frames[30:33])
    assert part_pts == [p - pts[30] for p in pts[30:33]]
    with VideoReader(path) as whole:
        times = whole.times()
    if name != "a.ts":
        assert times == pts
        span, span_pts, _ = read(path, span=(times[10], times[20]))
        np.testing.assert_array_equal(span, frames[10:20])
        assert span_pts == pts[10:20]


def test_a_picture_that_starts_after_the_sound_stays_there(make_clip: MakeClip) -> None:
    source = add_streams(make_clip("v.mp4", moving_frames(3), pts=[15, 16, 17]), "a.mp4")
    _, pts, reader = read(source)
    assert [p * reader.info.time_base for p in pts] == [Fraction(p, 30) for p in (15, 16, 17)]


def test_clock_without_origin_starts_at_zero(make_clip: MakeClip) -> None:
    path = make_clip("a.ts", moving_frames(40), pts=list(range(3000, 3040)))
    _, pts, reader = read(path)
    assert [p * reader.info.time_base for p in pts] == [Fraction(p, 30) for p in range(40)]


def test_clock_set_anew_runs_on(make_clip: MakeClip, tmp_path: Path) -> None:
    part = make_clip("a.ts", moving_frames(40)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    frames, pts, reader = read(tmp_path / "joined.ts")
    assert len(frames) == 80
    assert [p * reader.info.time_base for p in pts] == [Fraction(p, 30) for p in range(80)]


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {"bf": "3", "g": "10"}), ("a.mkv", {"bf": "2", "g": "7"}), ("a.ts", {"g": "8"})]
)
def test_trimming_is_frame_exact(make_clip: MakeClip, name: str, options: dict[str, str]) -> None:
    path = make_clip(name, moving_frames(30), options=options)
    whole, whole_pts, _ = read(path)
    for start, end in [(1, 2), (9, 21), (10, 30), (17, 18), (29, 30)]:
        frames, pts, reader = read(path, start_s=start / 30, duration_s=(end - start) / 30)
        np.testing.assert_array_equal(frames, whole[start:end])
        assert pts == [p - whole_pts[start] for p in whole_pts[start:end]]
        assert reader.last_duration * reader.info.time_base == pytest.approx(1 / 30, abs=0.001)
        assert reader.info.duration_s == pytest.approx((end - start) / 30)


def test_trimming_beyond_the_end(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", moving_frames(3))
    with pytest.raises(VideoError, match=r"a\.mp4: no frame could be decoded from 5 s"):
        VideoReader(path, start_s=5)


# Shape


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize(("suffix", "lossless"), [("mp4", False), ("mov", False), ("mkv", False), ("mkv", True)])
def test_orientation_and_sample_aspect_are_kept(
    tmp_path: Path, suffix: str, lossless: bool, rotation: int, mirrored: bool
) -> None:
    info = VideoInfo(
        64, 48, Fraction(1, 30), Fraction(30), sample_aspect=Fraction(4, 3), rotation=rotation, mirrored=mirrored
    )
    write(tmp_path / f"a.{suffix}", moving_frames(2), info, lossless=lossless)
    back = VideoReader(tmp_path / f"a.{suffix}").info
    assert (back.width, back.height, back.rotation, back.mirrored) == (64, 48, rotation, mirrored)
    assert back.sample_aspect == (1 if lossless else Fraction(4, 3))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_formats_without_orientation_get_the_pixels_turned(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    """FFmpeg's own player-side rotation of an mp4 is the reference for which way is clockwise."""
    frame = moving_frames(1)[0]
    info = VideoInfo(64, 48, Fraction(1, 30), Fraction(30), Fraction(4, 3), rotation, mirrored=mirrored)
    write(tmp_path / "%d.png", [frame], info)
    write(tmp_path / "a.y4m", [frame], info)
    turned = np.rot90(frame[:, ::-1] if mirrored else frame, -rotation // 90)
    np.testing.assert_array_equal(read(tmp_path / "1.png")[0][0], turned)
    assert VideoReader(tmp_path / "a.y4m").info.sample_aspect == (Fraction(3, 4) if rotation % 180 else Fraction(4, 3))

    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    write(tmp_path / "a.mp4", [frame], info)
    subprocess.run([ffmpeg, "-v", "error", "-i", tmp_path / "a.mp4", tmp_path / "reference.png"], check=True)
    assert psnr_db(read(tmp_path / "reference.png")[0][0], turned) > 32


@pytest.mark.parametrize(
    ("matrix", "kept"),
    [
        ([46341, -46341, 0, 46341, 46341, 0], (0, False)),  # 45 degrees
        ([60000, 20000, 0, -20000, 60000, 0], (0, False)),
        ([2000, 65000, 0, 65000, -2000, 0], (270, True)),
        ([131072, 0, 0, 0, 65536, 0], (0, False)),  # stretched
        ([65536, 0, 100, 0, 65536, 0], (0, False)),  # in perspective
        ([0, 0, 0, 0, 0, 0], (0, False)),
    ],
)
def test_another_display_matrix_is_told(
    make_clip: MakeClip, matrix: list[int], kept: tuple[int, bool], caplog: pytest.LogCaptureFixture
) -> None:
    path = make_clip("a.mp4", moving_frames(1), setup=lambda s: s.set_display_matrix([*matrix, 0, 0, 1 << 30]))
    info = VideoReader(path).info
    assert (info.rotation, info.mirrored) == kept
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: its display matrix [{matrix[0] / 65536:g} ")
    assert record.getMessage().endswith(f"turned by {kept[0]} degrees")


# Filters. The reference is what ffmpeg itself makes of them, losslessly.


def filtered_by_ffmpeg(source: Path, chain: str) -> tuple[list[np.ndarray], list[int], VideoReader]:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    target = source.with_name("reference.mkv")
    options = ["-vf", chain, "-fps_mode", "passthrough", "-c:v", "ffv1"]
    subprocess.run([ffmpeg, "-v", "error", "-y", "-i", source, *options, target], check=True)
    return read(target)


def field_clip(make_clip: MakeClip, count: int = 12) -> Path:
    """Frames whose lines are of two moments by turns, marked as such."""
    moments = moving_frames(2 * count)
    frames = [top.copy() for top in moments[::2]]
    for frame, bottom in zip(frames, moments[1::2], strict=True):
        frame[1::2] = bottom[1::2]
    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "10"}
    return make_clip("fields.mkv", frames, options=options | {"g": "6"})


@pytest.mark.parametrize(
    ("filters", "chain"),
    [
        (Filters(deinterlace=True), "bwdif=mode=send_frame"),
        (Filters(fps=Fraction(12)), "fps=12"),
        (Filters(fps=Fraction(60000, 1001)), "fps=60000/1001"),
        (Filters(scale=(50, -2)), "scale=50:-2:flags=bicubic+accurate_rnd+full_chroma_int"),
        (
            Filters(True, Fraction(10), (-4, 20)),
            "bwdif=0,fps=10,scale=-4:20:flags=bicubic+accurate_rnd+full_chroma_int",
        ),
    ],
)
def test_filters_are_those_of_ffmpeg(make_clip: MakeClip, filters: Filters, chain: str) -> None:
    path = field_clip(make_clip)
    frames, pts, reader = read(path, filters=filters)
    wanted, wanted_pts, reference = filtered_by_ffmpeg(path, chain)
    np.testing.assert_array_equal(frames[1:], wanted[1:])  # versions of bwdif differ in what has no frame before it
    assert np.abs(frames[0] - wanted[0].astype(int)).mean() < 3
    times, wanted_times = ([p * r.info.time_base for p in ps] for ps, r in ((pts, reader), (wanted_pts, reference)))
    assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(times, wanted_times, strict=True))
    info, other = reader.info, reference.info
    assert (info.width, info.height, info.sample_aspect) == (other.width, other.height, other.sample_aspect)
    if filters.fps:
        assert (info.frame_rate, info.time_base) == (filters.fps, 1 / filters.fps)
        assert times == [i / filters.fps for i in range(len(times))]
        assert reader.last_duration == 1


@pytest.mark.parametrize("filters", [Filters(deinterlace=True), Filters(True, Fraction(10), (32, 24))])
def test_a_part_is_cut_from_what_filters_make_of_the_whole(make_clip: MakeClip, filters: Filters) -> None:
    path = field_clip(make_clip, 40)
    whole, pts, reader = read(path, filters=filters)
    for start_s, duration_s in ((0.2, 0.3), (0.5, 0.4), (0.9, None)):
        part, part_pts, _ = read(path, filters=filters, start_s=start_s, duration_s=duration_s)
        times = [float(p * reader.info.time_base) for p in pts]
        end_s = np.inf if duration_s is None else start_s + duration_s
        wanted = [i for i, time in enumerate(times) if start_s - 0.0006 <= time < end_s - 0.0006]
        np.testing.assert_array_equal(part, [whole[i] for i in wanted])
        assert part_pts == [pts[i] - pts[wanted[0]] for i in wanted]


def test_scaling_means_the_picture_as_shown(tmp_path: Path) -> None:
    """A portrait of a phone is a landscape that is turned."""
    write(tmp_path / "a.mp4", moving_frames(2), VideoInfo(64, 48, Fraction(1, 30), Fraction(30), rotation=90))
    info = VideoReader(tmp_path / "a.mp4", filters=Filters(scale=(24, -2))).info
    assert (info.width, info.height, info.rotation) == (32, 24, 90)


def test_untagged_hd_stays_hd_when_it_is_scaled(make_clip: MakeClip) -> None:
    path = make_clip("a.mkv", moving_frames(1, 720, 64), codec="mpeg4")
    assert VideoReader(path, filters=Filters(scale=(-2, 72))).info.colour.matrix == 1


@pytest.mark.parametrize("options", [{"fps": 0}, {"fps": 2000}, {"scale": (0, 4)}, {"scale": (-1, -1)}])
def test_filters_that_make_no_sense(options: dict) -> None:
    with pytest.raises(ValueError, match=r"frames/s|size"):
        Filters(**options)


# Tags

TAGS = {
    "title": "A title",
    "artist": "Somebody",
    "comment": "Été",
    "date": "2020",
    "creation_time": "2020-01-02T03:04:05.000000Z",
    "location": "+37.1234-122.4321/",
}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_tags_are_kept(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Read by ffmpeg as well, with the time and place of the recording, and a language and name of the video."""
    chapters = ((0, 30, "One"), (30, 75, "Two"))
    info = dataclasses.replace(INFO, tags=TAGS, language="fra", name="Left eye", chapters=chapters)
    write(tmp_path / f"a.{suffix}", moving_frames(3), info)
    assert caplog.records == []
    back = VideoReader(tmp_path / f"a.{suffix}").info
    assert {key.lower(): value for key, value in back.tags.items()} == TAGS | (
        {"location-eng": TAGS["location"]} if suffix == "mp4" else {}
    )
    assert (back.language, back.name) == ("fra", "Left eye")
    assert [(s * back.time_base, e * back.time_base, title) for s, e, title in back.chapters] == [
        (0, 1, "One"),
        (1, Fraction(5, 2), "Two"),
    ]
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    shown = subprocess.run([ffmpeg, "-i", tmp_path / f"a.{suffix}"], capture_output=True, check=False).stderr.decode()
    for value in (*TAGS.values(), "fra", "Left eye", "One", "Two"):
        assert value in shown


@pytest.mark.parametrize(
    ("target", "lost"),
    [
        ("a.mp4", "mp4 has no room for its tag mine, language fr-CA"),
        ("a.mov", "mov has no room for its tag mine, language fr-CA"),
        ("a.mkv", None),
        ("a.y4m", "y4m has no room for its tags, language, name, chapters"),
        ("%d.png", "png has no room for its tags, language, name, chapters"),
    ],
)
def test_tags_without_room_are_told_once(
    tmp_path: Path, target: str, lost: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    info = dataclasses.replace(INFO, tags=TAGS | {"mine": "x"}, language="fr-CA", name="L", chapters=((0, 1, ""),))
    write(tmp_path / target, moving_frames(1), info)
    assert [record.getMessage() for record in caplog.records] == ([f"{tmp_path / target}: {lost}"] if lost else [])
    if target == "a.mkv":
        back = VideoReader(tmp_path / target).info
        assert (back.tags["MINE"], back.language) == ("x", "fr-CA")


def test_tags_of_a_telephone_are_kept_in_mov(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = {
        "com.apple.quicktime.make": "Maker",
        "com.apple.quicktime.location.ISO6709": "+48.1+011.5+500/",
        "title": "T",
    }
    write(tmp_path / "a.mov", moving_frames(1), dataclasses.replace(INFO, tags=tags))
    assert caplog.records == []
    assert VideoReader(tmp_path / "a.mov").info.tags.items() >= tags.items()


# Other targets


@pytest.mark.parametrize("matrix", [0, 2, 3, 8, 14, 255])
@pytest.mark.parametrize(("height", "guess"), [(48, 6), (720, 1)])
def test_a_matrix_without_a_table_is_guessed_as_players_do(
    tmp_path: Path, matrix: int, height: int, guess: int
) -> None:
    frame = moving_frames(1, height)[0]
    for target in ("a.mp4", "a.mkv", "%d.png"):
        write(tmp_path / target, [frame], VideoInfo(64, height, Fraction(1, 30), colour=Colour(matrix=matrix)))
    for target in ("a.mp4", "a.mkv"):
        back, _, reader = read(tmp_path / target)
        assert reader.info.colour.matrix == guess
        assert psnr_db(back[0], frame) > 32
    np.testing.assert_array_equal(read(tmp_path / "%d.png")[0][0], frame)


def test_png_pattern(tmp_path: Path) -> None:
    frames = moving_frames(3)
    write(tmp_path / "f-%03d.png", frames)
    np.testing.assert_array_equal(read(tmp_path / "f-%03d.png")[0], frames)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f-001.png", "f-002.png", "f-003.png"]


@pytest.mark.parametrize("first", [0, 7, 1001, 99998])
@pytest.mark.parametrize("name", ["f-%04d.png", "%d.png", "%04d.jpg"])
def test_images_are_read_from_any_number_on(
    tmp_path: Path, name: str, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "50% %02d"
    folder.mkdir()
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    write(tmp_path / "a.mkv", moving_frames(5), lossless=True)
    options = ["-i", tmp_path / "a.mkv", "-q:v", "1", "-start_number", str(first)]
    subprocess.run([ffmpeg, "-v", "quiet", *options, f"{tmp_path}/50%% %%02d/{name}"], check=True)
    assert len(list(folder.iterdir())) == 5
    frames, pts, _ = read(folder / name)
    assert pts == list(range(5))
    assert min(np.abs(a - b.astype(int)).mean() for a, b in zip(frames, moving_frames(5), strict=True)) < 5
    assert caplog.records == []
    (folder / (name % (first + 3))).unlink()
    assert len(read(folder / name)[0]) == 3
    assert caplog.records[0].getMessage().endswith(f": the images end at {first + 2}: {first + 3} is missing")


def test_raw_frames_to_a_binary_file() -> None:
    frames, file = moving_frames(3), io.BytesIO()
    write(file, frames, format="rgb24")
    assert file.getvalue() == b"".join(frame.tobytes() for frame in frames)


@pytest.mark.parametrize(
    ("pts", "told"), [([0, 17, 33, 50, 67], 0), ([5, 22, 38, 88, 89], 1), ([0, 17, 20, 21, 22], 1)]
)
def test_uneven_timestamps_that_are_lost_are_told_once(
    pts: list[int], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    info = VideoInfo(64, 48, Fraction(1, 1000), Fraction(60))
    for format in ("rgb24", "y4m", "mkv"):
        with VideoWriter(io.BytesIO(), info, format=format, name=format) as writer:
            for frame, time in zip(moving_frames(5), pts, strict=True):
                writer.write(frame, time)
    lost = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lost] == ["rgb24", "y4m"][: 2 * told]
    assert all("uneven" in line for line in lost)


def test_y4m_from_stdout_to_stdin(tmp_path: Path) -> None:
    """A pipe of two processes: one writes y4m to stdout, the other reads it from stdin."""
    frames = moving_frames(4)
    np.save(tmp_path / "frames.npy", frames)
    preamble = "import numpy as np; from fractions import Fraction; from tokcodec.video import *; "
    write_it = preamble + (
        "w = VideoWriter('-', VideoInfo(64, 48, Fraction(1, 30), Fraction(30000, 1001)), format='y4m'); "
        f"[w.write(f, i) for i, f in enumerate(np.load(r'{tmp_path / 'frames.npy'}'))]; w.close()"
    )
    stream = subprocess.run([sys.executable, "-c", write_it], capture_output=True, check=True).stdout
    assert stream.startswith(b"YUV4MPEG2 W64 H48 F30000:1001 Ip A1:1 C420")
    read_it = (
        preamble
        + f"r = VideoReader('-'); np.save(r'{tmp_path / 'back.npy'}', [f for f, _ in r]); print(r.info.frame_rate)"
    )
    assert (
        subprocess.run([sys.executable, "-c", read_it], input=stream, capture_output=True, check=True).stdout
        == b"30000/1001\n"
    )
    assert min(map(psnr_db, np.load(tmp_path / "back.npy"), frames)) > 32


# Other streams


@pytest.mark.parametrize(
    ("name", "audio", "subtitle", "target"),
    [
        ("a.mp4", "aac", "mov_text", "mp4"),
        ("a.mp4", "aac", None, "mkv"),
        ("a.mov", "pcm_s16le", None, "mov"),
        ("a.mkv", "libopus", "srt", "mkv"),
        ("a.mkv", "libopus", None, "mp4"),
        ("a.mkv", None, "srt", "mkv"),
    ],
)
@pytest.mark.parametrize("offset_s", [0, 1])
def test_other_streams_are_copied_in_sync(
    make_clip: MakeClip, tmp_path: Path, name: str, audio: str | None, subtitle: str | None, target: str, offset_s: int
) -> None:
    source = add_streams(make_clip(f"v{name}", moving_frames(30)), name, audio, subtitle, offset_s)
    result = tmp_path / f"result.{target}"
    with tempfile.TemporaryFile() as side:
        frames, pts, reader = read(source, side=side)
        write(result, frames, reader.info, pts, side=(side, reader.side_format))
    starts = [packets(path, "video")[0][0] for path in (source, result)]
    assert starts == [0, 0]
    for kind in (["audio"] if audio else []) + (["subtitle"] if subtitle else []):
        before, after = packets(source, kind), packets(result, kind)
        if name == "a.mp4" and target == "mkv":  # which has no room for what the edit list cuts away
            before = [packet for packet in before if packet[0] >= 0]
        assert len(before) >= 2
        assert [data for _, data in before] == [data for _, data in after][: len(before)]
        for (time, _), (copied, _) in zip(before, after, strict=False):
            assert abs((time - starts[0]) - (copied - starts[1])) <= Fraction(1, 1000)
    with av.open(result) as container:
        if subtitle:
            assert container.streams.subtitles[0].language == "deu"
        if audio:
            assert container.streams.audio[0].metadata["title" if target == "mkv" else "name"] == "Main"


def test_trimming_cuts_the_other_streams(make_clip: MakeClip) -> None:
    source = add_streams(make_clip("v.mp4", moving_frames(30)), "a.mp4")
    with tempfile.NamedTemporaryFile(suffix=".mov") as side:
        read(source, start_s=0.1, duration_s=0.2, side=side)
        kept = packets(Path(side.name), "audio")
    expected = [(time - Fraction(1, 10), data) for time, data in packets(source, "audio") if 0.1 <= time < 0.3]
    assert len(expected) == 10
    assert kept == expected


def test_streams_the_target_does_not_take_are_named(
    make_clip: MakeClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = add_streams(make_clip("v.mkv", moving_frames(3)), "a.mkv", "aac", "srt")
    with tempfile.TemporaryFile() as side:
        frames, pts, reader = read(source, side=side)
        write(tmp_path / "b.mp4", frames, reader.info, pts, side=(side, reader.side_format))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'b.mp4'}: subtitle stream 1 (srt) is dropped: mp4 does not take it"
    ]
    assert packets(tmp_path / "b.mp4", "audio")


def test_no_other_streams(make_clip: MakeClip) -> None:
    with tempfile.TemporaryFile() as side:
        _, _, reader = read(make_clip("a.mp4", moving_frames(2)), side=side)
        assert reader.side_format is None
        assert side.read() == b""


# Bad input, bad targets


def test_what_is_not_a_video(make_clip: MakeClip, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(1).bytes(5000))
    (tmp_path / "text.txt").write_text("These are words, and no video.\n" * 40)
    with av.open(tmp_path / "sound.wav", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    clip = make_clip("whole.mp4", moving_frames(20)).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(clip[: len(clip) // 2])  # its index stood at the end
    for name, reason in {
        "missing.mp4": "No such file or directory",
        "none/%03d.png": "No such file or directory",
        "text.txt/%03d.jpg": "No such file or directory",
        ".": "Is a directory",
        "empty.mp4": "not a video: ",
        "noise.mp4": "not a video: ",
        "text.txt": "not a video: ",
        "headless.mp4": "not a video: ",
        "sound.wav": "no video stream",
    }.items():
        with pytest.raises(VideoError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {reason}")
        assert "\n" not in str(caught.value)


def test_tags_that_are_not_utf_8_cost_their_odd_letters_only(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip("a.mp4", moving_frames(3))
    with av.open(clip) as source, av.open(tmp_path / "b.mkv", "w") as target:
        target.metadata["title"] = "Caf#"
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    path = tmp_path / "b.mkv"
    path.write_bytes(path.read_bytes().replace(b"Caf#", b"Caf\xe9"))
    with VideoReader(path) as reader:
        assert reader.info.tags["title"] == "Caf\N{REPLACEMENT CHARACTER}"


def test_a_pause_between_subtitles_is_no_jump_of_the_clock(
    make_clip: MakeClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip, path = make_clip("a.mp4", moving_frames(30)), tmp_path / "a.ts"
    with av.open(clip) as source, av.open(path, "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        text = target.add_mux_stream("dvb_subtitle", time_base=Fraction(1, 90000))
        for packet in source.demux():
            if packet.size:
                at_s = packet.dts * packet.time_base * 30  # a frame a second
                packet.stream, packet.time_base = copy, Fraction(1, 90000)
                packet.pts, packet.dts = (
                    round(90000 * 30 * t * Fraction(1, 30 * 512)) for t in (packet.pts, packet.dts)
                )
                target.mux(packet)
                if round(at_s) in (2, 20, 26):
                    line = av.Packet(bytes(8))
                    line.stream, line.time_base, line.pts = text, Fraction(1, 90000), 90000 * round(at_s)
                    line.dts = line.pts
                    target.mux(line)
    side = io.BytesIO()
    with VideoReader(path, side=side) as reader:
        assert len(list(reader)) == 30
    assert not caplog.records
    side.seek(0)
    with av.open(side, format=reader.side_format) as other:
        times = [float(p.pts * p.time_base) for p in other.demux() if p.pts is not None]
    assert np.diff(times) == pytest.approx([18, 6], abs=0.1)


def test_a_file_cut_off_plays_up_to_the_cut(make_clip: MakeClip, caplog: pytest.LogCaptureFixture) -> None:
    frames = list(np.random.default_rng(2).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8))
    path = make_clip("a.mp4", frames, options={"g": "5", "bf": "0"}, container_options={"movflags": "faststart"})
    data = path.read_bytes()
    whole = read(path)[0]
    assert not caplog.records
    path.write_bytes(data[: len(data) * 2 // 3])
    part, _, _ = read(path)
    assert 8 < len(part) < 16
    np.testing.assert_array_equal(part[:8], whole[:8])
    assert any("the file is cut off or damaged" in record.getMessage() for record in caplog.records)
    with VideoReader(path) as reader:
        assert len(list(reader)) == len(part)
        assert reader.damaged >= 1


def test_damage_in_the_middle_costs_frames_not_the_file(make_clip: MakeClip, caplog: pytest.LogCaptureFixture) -> None:
    path = make_clip("a.mkv", moving_frames(10), codec="ffv1", pix_fmt="bgr0", options={"g": "1", "slicecrc": "1"})
    with av.open(path) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][5]
    data = bytearray(path.read_bytes())
    data[place + 10 : place + 200] = bytes(190)
    path.write_bytes(data)
    frames, _, _ = read(path)
    assert len(frames) >= 9
    np.testing.assert_array_equal(frames[-1], moving_frames(10)[-1])


@pytest.mark.parametrize("start_s", [0.0, 0.5, 9.0])
def test_no_container_stays_open(make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, start_s: float) -> None:
    opened, real = [], av.open

    def remembered(*arguments: Any, **options: Any) -> Any:
        opened.append(real(*arguments, **options))
        return opened[-1]

    source = make_clip("a.mp4", moving_frames(30))
    monkeypatch.setattr(av, "open", remembered)
    with contextlib.suppress(VideoError), VideoReader(source, start_s) as reader:
        list(reader)
    for container in filter(lambda c: isinstance(c, av.container.InputContainer), opened):
        with pytest.raises(AssertionError, match="not open"):
            container.seek(0)


def test_no_frame_decodes(make_clip: MakeClip) -> None:
    path = make_clip("a.mov", moving_frames(1), codec="png", pix_fmt="rgb24")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"IHDR", b"XXXX").replace(b"IDAT", b"XXXX"))
    with pytest.raises(VideoError, match=r"a\.mov: no frame could be decoded"):
        VideoReader(path)


def test_frames_of_another_size_are_scaled_to_the_first(
    make_clip: MakeClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small, large = (
        make_clip(name, moving_frames(10, *size)) for name, size in [("a.ts", (48, 64)), ("b.ts", (96, 128))]
    )
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes() + small.read_bytes())
    frames, pts, reader = read(path)
    assert [p * reader.info.time_base for p in pts] == [Fraction(i, 30) for i in range(30)]
    np.testing.assert_array_equal(frames[:10], read(small)[0])
    np.testing.assert_array_equal(frames[20:], frames[:10])
    np.testing.assert_array_equal(frames[10:20], read(large, filters=Filters(scale=(64, 48)))[0])
    assert [record.getMessage().removeprefix(f"{path}: ") for record in caplog.records] == [
        "its clock jumps; closed the gap",
        "the size of its frames changes from 64x48 to 128x96; they are scaled to the first",
    ]
    part, _, reader = read(path, start_s=0.5, duration_s=0.1)  # the first frame of a part sets its size
    assert [frame.shape for frame in part] == 3 * [(96, 128, 3)]


def test_each_part_of_a_joined_file_has_its_own_colour(make_clip: MakeClip, tmp_path: Path) -> None:
    """The first part's tags are those of the result."""

    def tagged(matrix: int, full_range: bool) -> Path:
        def tag(stream: Any) -> None:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = 2 if full_range else 1

        return make_clip(f"{matrix}.ts", moving_frames(10), setup=tag)

    parts = [tagged(1, False), tagged(5, True)]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _, reader = read(tmp_path / "both.ts")
    np.testing.assert_array_equal(frames, [frame for part in parts for frame in read(part)[0]])
    assert np.abs(frames[0].astype(int) - frames[10]).mean() > 3
    assert (reader.info.colour.matrix, reader.info.colour.full_range) == (1, False)


def seconds(pts: list[int], reader: VideoReader) -> list[Fraction]:
    return [p * reader.info.time_base for p in pts]


@pytest.mark.parametrize(
    ("name", "chosen", "codec", "is_close"),
    [
        ("a.webm", None, "vp9", 4),
        ("a.gif", None, "gif", 8),
        ("a-%d.jpg", None, "mjpeg", 4),
        ("a.mkv", "libx265", "hevc", 4),
        ("a.mp4", "libx265", "hevc", 4),
        ("a.mp4", "libsvtav1", "libdav1d", 4),
        ("a.mkv", "ffv1", "ffv1", 2),
        ("a.mov", "prores_ks", "prores", 2),
        ("a.mkv", "mjpeg", "mjpeg", 4),
    ],
)
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_other_codecs_and_containers(
    tmp_path: Path, size: tuple[int, int], name: str, chosen: str | None, codec: str, is_close: int
) -> None:
    """The frames at their times; the mean error is in levels."""
    frames, pts = [frame[: size[0], : size[1]] for frame in moving_frames(6)], [0, 10, 20, 40, 50, 70]
    info = VideoInfo(size[1], size[0], Fraction(1, 100), Fraction(10), colour=Colour(matrix=1))
    with VideoWriter(tmp_path / name, info, codec=chosen) as writer:
        for frame, time in zip(frames, pts, strict=True):
            writer.write(frame, time, 30)
    back, times, reader = read(tmp_path / name)
    assert reader._source.stream.codec_context.name == codec
    assert np.abs(np.stack(back).astype(int) - frames).mean() < is_close
    if "%" not in name:
        assert seconds(times, reader) == [Fraction(p, 100) for p in pts]
        assert reader.last_duration * reader.info.time_base == Fraction(30, 100)


def test_webp_is_animated_where_there_are_several_frames(tmp_path: Path) -> None:
    """As RFC 9649 says: a header with the flag of animation, and a chunk ANMF with the ms of each frame."""
    info = VideoInfo(64, 48, Fraction(1, 1000), Fraction(10))
    for count in (1, 3):
        with VideoWriter(tmp_path / "a.webp", info) as writer:
            for i, frame in enumerate(moving_frames(count)):
                writer.write(frame, 100 * i + 7 * (i > 1), 250)
        data = (tmp_path / "a.webp").read_bytes()
        starts = [i for i in range(len(data)) if data[i : i + 4] == b"ANMF"]
        durations = [int.from_bytes(data[i + 20 : i + 23], "little") for i in starts]
        assert durations[:2] == ([] if count == 1 else [100, 107])  # the last is as libwebp guesses
    with VideoWriter(tmp_path / "b.webp", info) as writer:
        writer.write(moving_frames(1)[0], 0)
    still, _, _ = read(tmp_path / "b.webp")
    assert np.abs(still[0].astype(int) - moving_frames(1)[0]).mean() < 4


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_still_is_the_first_frame(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    path, frames = tmp_path / f"a.{suffix}", moving_frames(3)
    with VideoWriter(path, INFO) as writer:
        writer.write(frames[0], 0)
        assert (writer.is_full, caplog.messages) == (False, [])
        writer.write(frames[1], 1)
        assert writer.is_full
        writer.write(frames[2], 2)
    assert caplog.messages == [f"{path}: takes the first frame only; {tmp_path}/a-%05d.{suffix} would take all"]
    (back,), _, _ = read(path)
    assert np.abs(back.astype(int) - frames[0]).mean() <= (0 if suffix == "png" else 4)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_gif_of_more_than_100_frames_a_second_leaves_some_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    info = VideoInfo(64, 48, Fraction(1, 200), Fraction(200))
    with VideoWriter(tmp_path / "a.gif", info, name="out") as writer:
        for i, frame in enumerate(moving_frames(6)):
            writer.write(frame, i)
    times = seconds(*read(tmp_path / "a.gif")[1:])
    assert times == [0, Fraction(1, 100), Fraction(2, 100)]
    assert caplog.messages == ["out: more than 100 frames/s; some are left out"]


@pytest.mark.parametrize(("codec", "is_kept"), [("aac", False), ("libopus", True), ("libvorbis", True)])
def test_webm_takes_opus_and_vorbis_only(
    tmp_path: Path, codec: str, is_kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    made = ["-f", "lavfi", "-i", "sine=d=0.5:r=48000", "-c:a", codec, tmp_path / "sound.mkv"]
    subprocess.run([ffmpeg, "-v", "error", *made], check=True)
    side = io.BytesIO((tmp_path / "sound.mkv").read_bytes())
    with VideoWriter(tmp_path / "a.webm", INFO, side=(side, "matroska"), name="out") as writer:
        writer.write(moving_frames(1)[0], 0)
    with av.open(tmp_path / "a.webm") as container:
        assert len(container.streams.audio) == is_kept
        if is_kept:
            packets = [bytes(p) for p in container.demux(audio=0) if p.size]
            with av.open(tmp_path / "sound.mkv") as sound:
                assert packets == [bytes(p) for p in sound.demux() if p.size]
    told = ["out: audio stream 0 (aac) is dropped: webm does not take it, only Opus and Vorbis; mkv takes it"]
    assert caplog.messages == ([] if is_kept else told)


def test_bad_targets(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"a\.bmp: cannot write bmp files, only mp4, "):
        VideoWriter(tmp_path / "a.bmp", INFO)
    for codec in ("nonsense", "aac"):
        with pytest.raises(VideoError, match=rf"a\.mkv: this FFmpeg has no video encoder {codec}"):
            VideoWriter(tmp_path / "a.mkv", INFO, codec=codec)
    with pytest.raises(VideoError, match=r"a\.webm: webm does not take the codec of libx264"):
        VideoWriter(tmp_path / "a.webm", INFO, codec="libx264")
    with pytest.raises(ValueError, match="a codec is chosen for mp4, "):
        VideoWriter(tmp_path / "a.gif", INFO, codec="gif")
    with pytest.raises(VideoError, match=r"a\.mp4: No such file or directory"):
        VideoWriter(tmp_path / "none" / "a.mp4", INFO)
    with pytest.raises(ValueError, match="lossless video is written to mkv, not to mp4"):
        VideoWriter(tmp_path / "a.mp4", INFO, lossless=True)
    with VideoWriter(tmp_path / "a.mkv", INFO) as writer, pytest.raises(ValueError, match="frame is uint8"):
        writer.write(np.zeros((48, 48, 3), np.uint8), 0)


class FullDisk(io.BytesIO):
    """Room for 3000 bytes."""

    def write(self, data: object) -> int:
        if self.tell() + len(data) > 3000:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("format", ["mp4", "mkv", "rgb24"])
def test_full_disk(format: str) -> None:
    frames = list(np.random.default_rng(3).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8))
    with pytest.raises(VideoError, match="output: No space left on device"):
        write(FullDisk(), frames, format=format)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("format", ["mkv", "y4m"])
def test_full_device(format: str) -> None:
    with pytest.raises(VideoError, match="/dev/full: No space left on device"):
        write("/dev/full", moving_frames(5), format=format)


# Real files


@pytest.mark.parametrize("name", ["max-heromode.mp4", "flower.mp4", "01_dog.mp4"])
def test_real_clips(shared: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A second of camera footage with AAC and data tracks: same times, same sound, same telemetry."""
    source = shared / "data" / "eval" / name
    if not source.exists():
        pytest.skip(f"{source} is not there")
    result = tmp_path / "result.mp4"
    with caplog.at_level(logging.ERROR), tempfile.TemporaryFile() as side:
        frames, pts, reader = read(source, duration_s=0.5, side=side)
        with VideoWriter(result, reader.info, side=(side, reader.side_format)) as writer:
            for frame, time in zip(frames, pts, strict=True):
                writer.write(frame, time, reader.last_duration)
    assert len(frames) == 15
    _, copied_pts, copy = read(result)
    times, copied_times = ([p * r.info.time_base for p in ps] for ps, r in ((pts, reader), (copied_pts, copy)))
    assert copied_times == times
    copied = packets(result, "audio")
    assert len(copied) >= 23
    assert copied == packets(source, "audio")[: len(copied)]
