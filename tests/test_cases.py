"""Real files as they come: each case was once a traceback, a wrong picture or a wrong time."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition
from conftest import MakeClip, frames_of, moving_frames, times_of, without_progress

import tokcodec
from tokcodec import edit
from tokcodec.video import Colour, Filters, VideoInfo, VideoReader, VideoWriter, cut_streams
from tokcodec.video.tonemap import mapped

CASES = Path(__file__).parent / "cases"


def read(path: Path | str, **options: object) -> tuple[list[int], VideoReader]:
    """The timestamps of a file's frames, and its reader."""
    with VideoReader(path, **options) as reader:  # type: ignore[arg-type]
        return [pts for _, pts in reader], reader


def run(weights: Path, *arguments: str, stdin: bytes = b"") -> tuple[bytes, str]:
    """What a command that succeeds writes to stdout and to stderr, but for its progress."""
    done = subprocess.run(
        [sys.executable, "-m", "tokcodec", *arguments],
        env=os.environ | {"TOKCODEC_WEIGHTS": str(weights), "OMP_NUM_THREADS": "1"},
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, without_progress(done.stderr)


def messages(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """What was warned of a case, without its name."""
    return [record.getMessage().removeprefix(f"{CASES / name}: ") for record in caplog.records]


# Other streams


@pytest.mark.parametrize(("name", "stream"), [("apac_unknown.mp4", "audio"), ("ttml.mp4", "subtitle")])
def test_streams_of_unknown_codec_are_left_out(name: str, stream: str, caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryFile() as side:
        pts, reader = read(CASES / name, side=side)
    assert len(pts) == 15
    assert reader.side_format is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{CASES / name}: {stream} stream 1 (unknown codec) is left out"
    ]


Y4M_HEADER = b"YUV4MPEG2 W96 H64 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG XCOLORRANGE=LIMITED\n"


def test_a_raw_target_takes_no_other_streams(weights: Path, tmp_path: Path) -> None:
    """Encode | decode | encode through pipes, and files: the sizes are those of the frames alone."""
    coded, _ = run(weights, "encode", str(CASES / "basic.mp4"), "-")
    y4m, warning = run(weights, "decode", "-", "-", stdin=coded)
    assert "tokcodec: warning: stdout: audio stream 0 (aac) is dropped: y4m does not take it\n" in warning
    assert y4m.startswith(Y4M_HEADER)
    assert len(y4m) == len(Y4M_HEADER) + 15 * (len("FRAME\n") + 96 * 64 * 3 // 2)
    with av.open(io.BytesIO(y4m)) as container:
        assert [frame.pts for frame in container.decode(video=0)] == list(range(15))
    again, _ = run(weights, "encode", "-", "-", stdin=y4m)
    (tmp_path / "again.tokc").write_bytes(again)
    facts = edit.describe(tmp_path / "again.tokc")
    assert (facts["frames"], facts["other_streams"]) == (15, None)


def test_other_raw_targets_take_no_other_streams(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokcodec.encode_video(CASES / "subonly.mp4", tmp_path / "a.tokc", weights=weights)
    tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / "a.y4m", weights=weights)
    assert (tmp_path / "a.y4m").stat().st_size == len(Y4M_HEADER) + 10 * (len("FRAME\n") + 96 * 64 * 3 // 2)
    tokcodec.decode_video(tmp_path / "a.tokc", pipe := io.BytesIO(), weights=weights, stdout_format="rgb24")
    assert len(pipe.getvalue()) == 10 * 96 * 64 * 3
    dropped = "subtitle stream 0 (mov_text) is dropped"
    assert [dropped in record.getMessage() for record in caplog.records] == [True, True]


@pytest.mark.parametrize("format", ["y4m", "rgb24", "png"])
def test_a_bare_target_drops_the_other_streams(tmp_path: Path, format: str, caplog: pytest.LogCaptureFixture) -> None:
    """Byte for byte what it is without them."""
    with tempfile.TemporaryFile() as side, VideoReader(CASES / "basic.mp4", side=side) as reader:
        frames, info = list(reader), reader.info
        assert reader.side_format is not None
        for folder, streams in (("with", (side, reader.side_format)), ("without", None)):
            (tmp_path / folder).mkdir()
            target = tmp_path / folder / ("%d.png" if format == "png" else "video")
            with VideoWriter(target, info, format=format, side=streams, name="out") as writer:
                for frame, pts in frames:
                    writer.write(frame, pts)
    written = [{file.name: file.read_bytes() for file in (tmp_path / f).iterdir()} for f in ("with", "without")]
    assert written[0] == written[1]
    assert [record.getMessage() for record in caplog.records] == [
        f"out: audio stream 0 (aac) is dropped: {format} does not take it"
    ]


def test_what_an_edit_list_cuts_away_does_not_play_in_matroska(weights: Path, tmp_path: Path) -> None:
    """The picture starts at 0 and the sound beside it, as in the source and in an mp4."""
    stream = tmp_path / "a.tokc"
    tokcodec.encode_video(CASES / "s_edit.mp4", stream, weights=weights)
    for suffix in ("mp4", "mkv"):
        tokcodec.decode_video(stream, tmp_path / f"a.{suffix}", weights=weights)
        assert times_of(tmp_path / f"a.{suffix}") == [Fraction(i, 25) for i in range(22)]
    played = [time for time in times_of(CASES / "s_edit.mp4", "audio") if time >= 0]
    sound = times_of(tmp_path / "a.mkv", "audio")
    assert len(sound) == len(played) == 38
    assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(sound, played, strict=True))


def sound_of(path: Path) -> list[tuple[Fraction, bytes]]:
    """(seconds, bytes) of the packets of the first sound."""
    with av.open(path) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_a_file_says_of_itself_is_kept(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Tags and chapters, and the names, languages and roles of its sounds and subtitles."""
    with tempfile.TemporaryFile() as side, VideoReader(CASES / "multi.mkv", side=side) as reader:
        frames, info = list(reader), reader.info
        assert reader.side_format == "matroska"
        with VideoWriter(tmp_path / f"a.{suffix}", info, side=(side, reader.side_format), name="out") as writer:
            for frame, pts in frames:
                writer.write(frame, pts, reader.last_duration)
    dropped = ["out: subtitle stream 2 (srt) is dropped: mp4 does not take it"] if suffix == "mp4" else []
    assert [record.getMessage() for record in caplog.records] == dropped
    back = VideoReader(tmp_path / f"a.{suffix}").info
    assert {key.lower(): value for key, value in back.tags.items()} == {
        "title": "My Title",
        "artist": "Me",
        "comment": "hello",
    }
    chapters = [(s * back.time_base, e * back.time_base, title) for s, e, title in back.chapters]
    assert chapters == [(0, Fraction(3, 10), "First"), (Fraction(3, 10), Fraction(3, 5), "Second")]
    with av.open(tmp_path / f"a.{suffix}") as container:
        main, commentary = container.streams.audio
        assert (main.language, commentary.language) == ("eng", "deu")
        assert main.metadata["name" if suffix == "mp4" else "title"] == "Main"
        assert [(s.language, s.disposition & Disposition.forced) for s in container.streams.subtitles] == (
            [] if suffix == "mp4" else [("fra", Disposition.forced)]
        )


def test_sound_after_the_last_frame_is_kept(weights: Path, tmp_path: Path) -> None:
    """Through encode, a trim that cuts nothing off, the concat of one and of two, and decode: 1.5 s beside 0.6 s."""
    source = CASES / "audiolonger.mp4"
    whole, trimmed, joined, cut, late = (tmp_path / f"{name}.tokc" for name in ("a", "b", "c", "d", "e"))
    tokcodec.encode_video(source, whole, weights=weights)
    edit.trim(whole, trimmed)
    edit.concat([trimmed], joined)
    for stream in (whole, trimmed, joined):
        tokcodec.decode_video(stream, tmp_path / "a.mp4", weights=weights, overwrite=True)
        assert sound_of(tmp_path / "a.mp4") == sound_of(source)
    tokcodec.decode_video(whole, tmp_path / "a.mp4", weights=weights, overwrite=True, start_s=0.2)
    assert [data for _, data in sound_of(tmp_path / "a.mp4")] == [
        data for time, data in sound_of(source) if time >= 0.2
    ]
    edit.concat([whole, whole], joined, overwrite=True)
    tokcodec.decode_video(joined, tmp_path / "a.mp4", weights=weights, overwrite=True)
    shift, sound = Fraction(3, 5), sound_of(source)
    first, second = ([packet for packet in sound if packet[0] < shift], [packet for packet in sound if packet[0] >= 0])
    assert sound_of(tmp_path / "a.mp4") == first + [(time + shift, data) for time, data in second]
    edit.trim(whole, cut, duration_s=1.0)
    tokcodec.encode_video(source, late, weights=weights, start_s=0.2, duration_s=0.2)
    for stream, end_s in ((cut, 1.0), (late, 0.2)):
        tokcodec.decode_video(stream, tmp_path / "a.mp4", weights=weights, overwrite=True)
        assert end_s - 0.025 < sound_of(tmp_path / "a.mp4")[-1][0] < end_s


def test_packets_where_a_recording_was_joined_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those of the second part begin before the first one's last has ended: ffmpeg's own times are the reference."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    with (tmp_path / "a.mp4").open("w+b") as side:
        assert len(read(CASES / "s_join.ts", side=side)[0]) == 50
    assert messages(caplog, "s_join.ts") == ["its clock jumps; closed the gap"]
    subprocess.run([ffmpeg, "-v", "quiet", "-i", CASES / "s_join.ts", "-c", "copy", tmp_path / "b.mp4"], check=True)
    assert sound_of(tmp_path / "a.mp4") == sound_of(tmp_path / "b.mp4")
    assert len(sound_of(tmp_path / "a.mp4")) == len(sound_of(CASES / "s_join.ts"))


def heard(path: Path) -> tuple[Fraction, int]:
    """When the first sound of a file is heard, in seconds, and how many samples FFmpeg's libraries play."""
    with av.open(path) as container:
        frames = list(container.decode(audio=0))
    return frames[0].pts * frames[0].time_base, sum(frame.samples for frame in frames)


def copied(source: Path, target: Path, **options: Any) -> Path:
    """A video and its other streams, read and written."""
    with tempfile.TemporaryFile() as side, VideoReader(source, side=side, **options) as reader:
        frames = list(reader)
        streams = (side, reader.side_format) if reader.side_format else None
        with VideoWriter(target, reader.info, side=streams, name="out") as writer:
            for frame, pts in frames:
                writer.write(frame, pts, reader.last_duration)
    return target


def test_sound_that_the_source_hides_stays_hidden(tmp_path: Path) -> None:
    """The codec's delay, here of a part that was cut out, and the padding at the end."""
    source = CASES / "mkv_codecdelay_520ms.mkv"
    assert heard(source) == heard(copied(source, tmp_path / "a.mkv")) == (Fraction(52, 100), 66150)
    first_s, samples = heard(copied(source, tmp_path / "a.mp4"))
    assert abs(first_s - Fraction(52, 100)) <= Fraction(1, 1000)
    # To the millisecond that times in Matroska have. The last packet says its length, but FFmpeg plays all of it.
    assert abs(samples - (66150 + 892)) <= 45
    again_s, again = heard(copied(tmp_path / "a.mp4", tmp_path / "c.mp4"))
    assert abs(again_s - first_s) < Fraction(1, 1000)
    assert abs(again - samples) <= 1
    assert [data for _, data in sound_of(tmp_path / "a.mp4")] == [data for _, data in sound_of(source)[-66:]]
    with av.open(tmp_path / "a.mp4") as container:
        assert [p.duration for p in container.demux(audio=0)][65] == 1024 - 892  # in ticks of a sample, from whole ms
    part_s, _ = heard(copied(source, tmp_path / "b.mkv", start_s=1.0))  # the delay hides what lies before the cut
    assert 0 <= part_s < Fraction(24, 1000)


@pytest.mark.parametrize("codec", ["aac", "libopus"])
@pytest.mark.parametrize("suffixes", ["mp4 mp4", "mp4 mkv", "mkv mp4", "mkv mkv"])
def test_the_edges_of_sound_are_those_of_the_source(
    make_clip: MakeClip, tmp_path: Path, suffixes: str, codec: str
) -> None:
    """As the ffmpeg tool plays it, to the ms that Matroska's timestamps have."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    first, second = suffixes.split()
    picture = make_clip("picture.mp4", moving_frames(30))
    source, rate = tmp_path / f"in.{first}", 48000
    tone = ["-f", "lavfi", "-i", f"sine=d=0.91:r={rate}", "-c:v", "copy", "-c:a", codec]
    subprocess.run([ffmpeg, "-v", "error", "-i", picture, *tone, source], check=True)

    def played(path: Path) -> int:
        raw = [ffmpeg, "-v", "error", "-i", path, "-vn", "-f", "s16le", "-ac", "1", "-"]
        return len(subprocess.run(raw, check=True, capture_output=True).stdout) // 2

    assert abs(played(copied(source, tmp_path / f"out.{second}")) - played(source)) <= 0.004 * rate
    assert abs(heard(tmp_path / f"out.{second}")[0]) <= Fraction(1, 1000)


def test_the_sound_of_another_programme_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryFile() as side:
        pts, reader = read(CASES / "two_programs.ts", side=side)
        assert reader.side_format == "mp4"
        side.seek(0)
        with av.open(side, format="mp4") as others:
            assert [stream.type for stream in others.streams] == ["audio"]
    assert len(pts) == 15
    assert messages(caplog, "two_programs.ts") == [
        "video stream 2 (h264) is left out: it belongs to another programme",
        "audio stream 3 (aac) is left out: it belongs to another programme",
    ]


@pytest.mark.parametrize("command", ["trim", "concat", "decode", "decode from"])
def test_streams_in_an_unknown_format_are_dropped(
    weights: Path, tmp_path: Path, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = CASES / "strm_unknown_format_mpt.tokc", tmp_path / "a.tokc"
    told = "other streams in unknown format 'mpt' are dropped"
    if command == "trim":
        edit.trim(source, target)
    elif command == "concat":
        edit.concat([source], target)
    else:
        frames, info = [np.zeros((64, 96, 3), np.uint8)], VideoInfo(96, 64, Fraction(1, 25))
        side = (io.BytesIO(b"audio"), "mpt")
        if command == "decode":
            with VideoWriter(tmp_path / "a.mkv", info, side=side, name="out") as writer:
                writer.write(frames[0], 0)
            told = f"out: {told}"
        else:
            assert cut_streams([("mpt", side[0], Fraction(0), None, Fraction(0))], io.BytesIO()) is None
    if target.exists():
        assert edit.describe(target)["other_streams"] is None
    assert caplog.messages == [told]


def test_a_timecode_is_written_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a track of its own; one that is none at the frame rate would make the muxer refuse all."""
    copied(CASES / "timecode_false_warning.mkv", tmp_path / "a.mp4")
    with av.open(tmp_path / "a.mp4") as container:
        assert [s.metadata.get("timecode") for s in container.streams] == 2 * ["01:02:03;04"]
    assert caplog.messages == []
    info = VideoInfo(96, 64, Fraction(1, 25), Fraction(25), tags={"timecode": "01:02:03;04", "title": "kept"})
    for kind in ("mp4", "mov"):
        with VideoWriter(tmp_path / f"b.{kind}", info, name="out") as writer:
            writer.write(np.zeros((64, 96, 3), np.uint8), 0)
        assert VideoReader(tmp_path / f"b.{kind}").info.tags["title"] == "kept"
    assert caplog.messages == [f"out: {kind} has no room for its tag timecode" for kind in ("mp4", "mov")]


# Time


def test_raw_dv_has_the_rate_of_its_standard(tmp_path: Path) -> None:
    """FFmpeg's average of it is 60000 frames/s."""
    pts, reader = read(CASES / "dv_raw_1frame_timecode.dv")
    assert (pts, reader.info.frame_rate) == ([0], Fraction(30000, 1001))
    for suffix in ("mp4", "mov"):
        copied(CASES / "dv_raw_1frame_timecode.dv", tmp_path / f"a.{suffix}")
        with av.open(tmp_path / f"a.{suffix}") as container:
            assert [s.metadata.get("timecode") for s in container.streams] == 2 * ["00:00:00:00"]


def test_a_file_that_grows_while_it_is_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = (CASES / "s_join.ts").read_bytes()
    path = tmp_path / "a.ts"
    path.write_bytes(data[: len(data) // 2])
    with VideoReader(path) as reader:
        frames = iter(reader)
        next(frames)
        with path.open("ab") as file:
            file.write(data[len(data) // 2 :])
        assert len(list(frames)) > 0
    assert f"{path}: it grew while it was read; what was written later may be missing" in caplog.messages
    assert reader.damaged >= 1
    caplog.clear()
    read(path)
    assert not any("grew" in message for message in caplog.messages)


def test_a_raw_stream_with_b_frames_is_even(caplog: pytest.LogCaptureFixture) -> None:
    pts, reader = read(CASES / "bf2997.h264")
    assert [p * reader.info.time_base for p in pts] == [Fraction(1001 * i, 30000) for i in range(30)]
    assert caplog.records == []


@pytest.mark.parametrize(("suffix", "codec"), [("h264", "libx264"), ("hevc", "libx265")])
@pytest.mark.parametrize("rate", ["30000/1001", "60", "25"])
def test_a_raw_stream_goes_by_its_own_rate(
    make_clip: MakeClip, suffix: str, codec: str, rate: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = 20

    def at_rate(stream: Any) -> None:
        stream.codec_context.framerate = Fraction(rate)

    options = {"x265-params": "log-level=none"} if suffix == "hevc" else {"bf": "3"}
    path = make_clip(
        f"a.{suffix}", moving_frames(frames), time_base=1 / Fraction(rate), codec=codec, options=options, setup=at_rate
    )
    pts, reader = read(path)
    assert reader.info.frame_rate == Fraction(rate)
    assert [p * reader.info.time_base for p in pts] == [i / Fraction(rate) for i in range(frames)]
    assert reader.last_duration * reader.info.time_base == 1 / Fraction(rate)
    part, reader = read(path, start_s=float(5 / Fraction(rate)), duration_s=float(3 / Fraction(rate)))
    assert part == pts[:3]
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "first", "frames"), [("h264_b.avi", 2, 25), ("xvid_packed.avi", 3, 23), ("xvid_bf.avi", 1, 25)]
)
def test_an_avi_with_b_frames_is_even(name: str, first: int, frames: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its packets say when to decode, not when to show: FFmpeg takes the time a frame comes out of the decoder."""
    pts, reader = read(CASES / name)
    assert pts == list(range(first, first + frames))
    assert reader.info.time_base == Fraction(1, 25)
    assert caplog.records == []


@pytest.mark.parametrize("name", ["h264_b.avi", "xvid_packed.avi", "xvid_bf.avi", "red_then_blue.ts", "start3600.mkv"])
def test_the_start_counts_from_the_first_frame(tmp_path: Path, name: str) -> None:
    """From files, joined ones too, and from pipes, with and without a name."""
    whole = frames_of(CASES / name)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for source in (CASES / name, fifo):
        writer = threading.Thread(target=lambda: fifo.write_bytes((CASES / name).read_bytes()))
        if source == fifo:
            writer.start()
        with VideoReader(source, start_s=0.2, duration_s=0.2) as reader:
            frames, pts = map(list, zip(*reader, strict=True))
        assert np.array_equal(frames, whole[5:10])
        assert [p * reader.info.time_base for p in pts] == [Fraction(i, 25) for i in range(5)]
        if source == fifo:
            writer.join()


def test_a_start_in_the_first_part_of_a_joined_file_is_found_there() -> None:
    with VideoReader(CASES / "red_then_blue.ts", start_s=0.2) as reader:
        means = [frame.mean(axis=(0, 1)) for frame, _ in reader]
    assert [mean.argmax() for mean in means] == 20 * [0] + 25 * [2]


def test_a_recording_that_starts_late_starts_at_zero_in_the_result(weights: Path, tmp_path: Path) -> None:
    coded, _ = run(weights, "encode", str(CASES / "start3600.mkv"), "-")
    run(weights, "decode", "-", str(tmp_path / "a.mp4"), stdin=coded)
    assert times_of(tmp_path / "a.mp4") == [Fraction(i, 25) for i in range(15)]
    assert times_of(tmp_path / "a.mp4", "audio")[0] == Fraction(-1024, 48000)  # where the encoder's delay is


# Pictures


def test_interlaced_video_is_told_and_can_be_deinterlaced(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pts, _ = read(CASES / "interlaced.mp4")
    assert len(pts) == 15
    assert messages(caplog, "interlaced.mp4") == [
        "it is interlaced and coded as it is, with its combs; deinterlacing removes them"
    ]
    _, warnings = run(
        weights, "encode", str(CASES / "interlaced.mp4"), str(tmp_path / "a.tokc"), "--deinterlace", "-q", "8"
    )
    assert warnings == ""
    assert read(CASES / "interlaced.mp4", filters=Filters(deinterlace=True))[0] == pts


def test_damaged_frames_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """FFmpeg as well calls one of them corrupt."""
    assert len(read(CASES / "corrupt_mid.mp4")[0]) == 50
    assert messages(caplog, "corrupt_mid.mp4") == ["1 of its frames is damaged"]
    caplog.clear()
    with VideoReader(CASES / "corrupt_mid.mp4") as reader:
        damaged = next(i for i, (frame, _) in enumerate(reader._frames) if frame.is_corrupt) / 25
    caplog.clear()
    read(CASES / "corrupt_mid.mp4", start_s=damaged + 0.2)
    read(CASES / "corrupt_mid.mp4", duration_s=damaged - 0.2)
    assert messages(caplog, "corrupt_mid.mp4") == []


def test_what_hdr_loses_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(CASES / "hdr_pq.mp4")[0]) == 6
    assert messages(caplog, "hdr_pq.mp4") == [
        "its description of the mastering display is not kept",
        "its light level (MaxCLL) is not kept",
        "10-bit video is coded with 8 bits",
        "HDR (PQ) is kept as tagged, without tone mapping",
    ]


def hdr_patches(path: Path, transfer: int) -> Path:
    """A picture of squares in 10 bits, no two alike, up to 1000 cd/m2, none far from grey."""
    rng = np.random.default_rng(1)
    grey = np.linspace(60, 769, 48)[:, None]
    colours = (grey * (1 - rng.uniform(0, 0.12, (48, 3)))).reshape(6, 8, 3).repeat(8, 0).repeat(8, 1)
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=64, height=48)
        context = stream.codec_context
        context.pix_fmt, context.color_trc, context.color_primaries, context.colorspace = "gbrp10le", transfer, 9, 0
        frame = av.VideoFrame(64, 48, "gbrp10le")
        for plane, channel in zip(frame.planes, (1, 2, 0), strict=True):
            line = plane.line_size // 2
            padded = np.zeros((48, line), np.uint16)
            padded[:, :64] = colours[..., channel].round()
            plane.update(padded.tobytes())
        frame.color_trc, frame.color_primaries, frame.colorspace = transfer, 9, 0
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_tone_mapping_is_that_of_ffmpeg(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    path = hdr_patches(tmp_path / "a.mkv", 16)
    with VideoReader(path, filters=Filters(tonemap=True)) as reader:
        ((frame, _),) = reader
    assert reader.info.colour == Colour(1, 1, 1)
    assert caplog.messages == []
    chain = "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=hable:desat=0:peak=10"
    raw = [ffmpeg, "-v", "error", "-i", path, "-vf", f"{chain},zscale=t=bt709:m=gbr:r=pc,format=gbrp"]
    done = subprocess.run([*raw, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], capture_output=True)
    if b"No such filter" in done.stderr:
        pytest.skip("this ffmpeg has no zscale")
    expected = np.frombuffer(done.stdout, np.uint8).reshape(48, 64, 3)
    assert np.abs(frame.astype(int) - expected).max() <= 2


def test_reference_white_of_hlg_and_pq_is_one(tmp_path: Path) -> None:
    """203 cd/m2 in both (ITU-R BT.2408): 75 % of HLG, 58 % of PQ. What is not HDR passes with a warning."""
    grey = [mapped(np.full(3, value), transfer) for value, transfer in ((0.5807, 16), (0.75, 18))]
    np.testing.assert_allclose(grey[0], grey[1], atol=2e-3)
    np.testing.assert_allclose(mapped(np.array([[0, 0, 0], [1, 1, 1]]), 16), [[0, 0, 0], [1, 1, 1]], atol=1e-3)


def test_tone_mapping_is_told(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(CASES / "hdr_pq.mp4", filters=Filters(tonemap=True))
    assert messages(caplog, "hdr_pq.mp4") == []
    read(CASES / "basic.mp4", filters=Filters(tonemap=True))
    assert messages(caplog, "basic.mp4")[-1] == "it is not tagged as HDR (PQ or HLG); no tones are mapped"
    tokcodec.encode_video(
        CASES / "hdr_pq.mp4", tmp_path / "a.tokc", weights=weights, filters=Filters(tonemap=True, scale=(48, 32))
    )
    assert edit.describe(tmp_path / "a.tokc")["colour"] == "bt709/bt709/bt709"


def test_the_transparency_of_webm_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(CASES / "vp9alpha.webm")[0]) == 6
    assert messages(caplog, "vp9alpha.webm") == ["its transparency is left out"]


@pytest.mark.parametrize("alpha", [255, 0])
def test_an_opaque_gif_loses_nothing(tmp_path: Path, alpha: int, caplog: pytest.LogCaptureFixture) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    picture = f"color=red:s=64x48:d=0.3:r=10,format=rgba,geq=r=255:g=0:b=0:a='if(gt(X,31),255,{alpha})'"
    picture += ",split[a][b];[a]palettegen[p];[b][p]paletteuse"
    path = tmp_path / "a.gif"
    subprocess.run([ffmpeg, "-v", "error", "-f", "lavfi", "-i", picture, path], check=True)
    assert len(read(path)[0]) == 3
    told = [] if alpha else [f"{path}: its transparency is left out"]
    assert [record.getMessage() for record in caplog.records] == told


def test_an_animated_gif_keeps_its_times(weights: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    """Each of its frames says how long it is shown, the last one, too."""
    pts = [0, 10, 15, 35, 45, 55]
    path = make_clip("a.gif", moving_frames(6), pts=pts, time_base=Fraction(1, 100), codec="gif", pix_fmt="rgb8")
    data = bytearray(path.read_bytes())
    delay = data.rindex(b"\x21\xf9\x04") + 4  # of the last graphic control extension
    data[delay : delay + 2] = (30).to_bytes(2, "little")
    path.write_bytes(data)
    _, warnings = run(weights, "encode", str(path), str(tmp_path / "a.tokc"))
    assert warnings == ""
    assert edit.describe(tmp_path / "a.tokc")["duration_s"] == 0.85
    run(weights, "decode", str(tmp_path / "a.tokc"), str(tmp_path / "a.mp4"))
    assert times_of(tmp_path / "a.mp4") == [Fraction(p, 100) for p in pts]


@pytest.mark.parametrize("is_piped", [False, True])
def test_an_animated_webp_is_read_or_refused_in_a_line(
    weights: Path, make_clip: MakeClip, tmp_path: Path, is_piped: bool
) -> None:
    path = make_clip("a.webp", moving_frames(6), codec="libwebp_anim")
    assert path.read_bytes()[12:16] == b"VP8X"
    done = subprocess.run(
        [sys.executable, "-m", "tokcodec", "encode", "-" if is_piped else path, tmp_path / "a.tokc"],
        env=os.environ | {"TOKCODEC_WEIGHTS": str(weights)},
        input=path.read_bytes() if is_piped else b"",
        capture_output=True,
    )
    name = "-" if is_piped else path
    if "webp_anim" in av.formats_available:  # FFmpeg 9, which PyAV 19 has
        assert done.returncode == 0, done.stderr
        with tokcodec.open_stream(tmp_path / "a.tokc") as stream:
            assert sum(chunk.frames for chunk in stream.chunks) == 6
        return
    assert done.returncode == 1
    assert without_progress(done.stderr) == f"tokcodec: {name}: animated WebP, which FFmpeg does not read\n"
    assert not list(tmp_path.glob("*.tokc*"))


def test_frames_after_a_change_of_size_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """As ffmpeg does it: all frames, in the size of the first."""
    pts, reader = read(CASES / "reschange.ts")
    assert (reader.info.width, reader.info.height) == (96, 64)
    assert [p * reader.info.time_base for p in pts] == [Fraction(i, 25) for i in range(20)]
    assert messages(caplog, "reschange.ts") == [
        "its clock jumps; closed the gap",
        "the size of its frames changes from 96x64 to 128x96; they are scaled to the first",
    ]


def test_a_change_of_the_shape_of_pixels_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(CASES / "sar_changes_midstream.ts")[0]) == 16
    assert messages(caplog, "sar_changes_midstream.ts") == [
        "its clock jumps; closed the gap",
        "the shape of its pixels changes from 1:1 to 4:3; that of the first is kept for all",
    ]


# Shape


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("h264_crop_left32.mp4", 32, 48), ("h264_crop_8_8_4_4.mp4", 48, 40), ("clap_48x32_in_64x48.mp4", 48, 32)],
)
def test_the_crop_of_a_codec_or_a_container_is_cut_away(name: str, width: int, height: int, tmp_path: Path) -> None:
    """Pixel for pixel what the ffmpeg tool shows; and in Matroska, by its PixelCrop."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    shown = tmp_path / "shown.mkv"
    subprocess.run([ffmpeg, "-v", "error", "-i", CASES / name, "-an", "-c:v", "ffv1", shown], check=True)
    with av.open(CASES / name) as source, av.open(tmp_path / "a.mkv", "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    for path in (CASES / name, tmp_path / "a.mkv"):
        with VideoReader(path) as reader:
            frames = [frame for frame, _ in reader]
        assert (reader.info.width, reader.info.height) == (width, height)
        np.testing.assert_array_equal(frames, frames_of(shown))
    scaled = VideoReader(CASES / name, filters=Filters(scale=(width // 2, height // 2))).info
    assert (scaled.width, scaled.height, scaled.sample_aspect) == (width // 2, height // 2, 1)


def test_the_left_crop_of_hevc_is_cut_away(make_clip: MakeClip, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none"}
    whole = make_clip("a.mkv", moving_frames(3), codec="libx265", options=options)
    with av.open(whole) as source, av.open(tmp_path / "b.mkv", "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream, opaque=True)
        cut = BitStreamFilterContext("hevc_metadata=crop_left=6", stream, copy)
        for packet in source.demux(stream):
            for changed in cut.filter(packet if packet.size else None):
                changed.stream = copy
                target.mux(changed)
    with VideoReader(tmp_path / "b.mkv") as reader:
        frames = [frame for frame, _ in reader]
    np.testing.assert_array_equal(np.stack(frames)[:, :, 4:], np.stack(frames_of(whole))[:, :, 10:])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_all_orientations_go_there_and_back(
    weights: Path, tmp_path: Path, suffix: str, rotation: int, mirrored: bool
) -> None:
    info = VideoInfo(64, 48, Fraction(1, 30), Fraction(30), rotation=rotation, mirrored=mirrored)
    source, stream, back = (tmp_path / name for name in (f"in.{suffix}", "a.tokc", f"back.{suffix}"))
    with VideoWriter(source, info) as writer:
        writer.write(moving_frames(1)[0], 0)
    tokcodec.encode_video(source, stream, weights=weights)
    assert stream.read_bytes()[9 + 8 + 6] == rotation // 90 + 4 * mirrored  # behind the signature and the framing
    facts = edit.describe(stream)
    assert (facts["rotation"], facts["mirrored"]) == (rotation, mirrored)
    tokcodec.decode_video(stream, back, weights=weights)
    kept = VideoReader(back).info
    assert (kept.rotation, kept.mirrored) == (rotation, mirrored)


def test_a_header_with_a_matrix_without_a_table_decodes(weights: Path, tmp_path: Path) -> None:
    tokcodec.encode_video(CASES / "basic.mp4", tmp_path / "a.tokc", weights=weights)
    data = bytearray((tmp_path / "a.tokc").read_bytes())
    record = slice(9, 9 + 8 + 68)  # type, length and payload of the header
    data[record.start + 8 + 34] = 2
    data[record.stop : record.stop + 4] = zlib.crc32(data[record]).to_bytes(4, "little")
    (tmp_path / "a.tokc").write_bytes(data)
    assert edit.describe(tmp_path / "a.tokc")["colour"].endswith("/unspecified")
    tokcodec.decode_video(tmp_path / "a.tokc", tmp_path / "a.mp4", weights=weights)
    assert VideoReader(tmp_path / "a.mp4").info.colour.matrix == 6
