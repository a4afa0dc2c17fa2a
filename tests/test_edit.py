"""Streams described, verified, cut and joined, without the network."""

import dataclasses
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import MakeClip, moving_frames, times_of, with_sound

import tokcodec
from tokcodec import BitstreamError, ModelError, TokcodecError, edit
from tokcodec.compute import Compute
from tokcodec.stream import records
from tokcodec.stream.container import Writer, write_stream
from tokcodec.stream.entropy import encode_chunk
from tokcodec.stream.metadata import Chapter, Metadata
from tokcodec.stream.records import Chunk, Header
from tokcodec.stream_reader import chunks_of, overlapping, reading, span_ticks
from tokcodec.tokenizer import load_tokenizer
from tokcodec.video.others import cut_streams, describe_streams
from tokcodec.weights import Weights, find_weights, save_weights


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


def make_stream(
    path: Path,
    lengths: list[int],
    first_pts: int = 7,
    seed: int = 0,
    width: int = 40,
    metadata: Metadata | None = None,
    chunk_frames: int = 9,
    streams: bytes | None = None,
    spans: int | None = None,
) -> Path:
    """A stream of noise, two ticks a frame, chunks of different steps."""
    tokenizer = load_tokenizer(Weights.find(), Compute("cpu", "float32"))
    header = Header(width, 24, chunk_frames, tokenizer.weights.sha256, Fraction(1, 50))
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        writer, pts = Writer(file, header), first_pts
        for i, frames in enumerate(lengths):
            step = 20 + i
            tokens = tokenizer.encode(rng.integers(0, 255, (frames, 24, width, 3), np.uint8), step, spans=spans).tokens
            coder, motion, levels = encode_chunk(tokens, 16 * step, tokenizer.tables)
            times = tuple(range(pts, pts + 2 * frames, 2))
            writer.write_chunk(Chunk(frames, coder, 16 * step, times, 2, motion, levels))
            pts += 2 * frames
        if metadata is not None:
            writer.write_metadata(metadata)
        if streams is not None:
            writer.write_streams(io.BytesIO(streams), "nut")
        writer.close()
    return path


def chunks(path: Path) -> list[Chunk]:
    with reading(path) as reader:
        return list(chunks_of(reader))


def payloads(path: Path) -> list[tuple[bytes, bytes]]:
    return [(chunk.motion, chunk.levels) for chunk in chunks(path)]


def test_describe_is_what_was_written(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 4])
    facts = edit.describe(path)
    assert (facts["frames"], facts["chunks"], facts["width"], facts["height"]) == (22, 3, 40, 24)
    assert facts["duration_s"] == 44 / 50
    assert facts["bytes"] == path.stat().st_size
    assert facts["bpp"] == pytest.approx(8 * path.stat().st_size / (40 * 24 * 22), abs=1e-6)
    assert facts["weights_sha256"] == Weights.load(find_weights()).sha256.hex()
    assert (facts["format_version"], facts["step"]) == (3, (20, 22))
    coded = payloads(path)
    assert facts["motion_bytes"] == sum(len(motion) for motion, _ in coded)
    assert facts["levels_bytes"] == sum(len(levels) for _, levels in coded)


def shown(path: Path) -> tuple[tuple[int, int], ...]:
    with reading(path) as reader:
        return reader.metadata.shown


def test_trim_keeps_whole_chunks_and_hides_what_is_not_wanted(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 9, 4])
    report = edit.trim(path, tmp_path / "b.tokc", start_s=0.4, duration_s=0.4)  # ticks 20 to 40, chunks of 18
    assert (report.frames, report.duration_s) == (10, 0.4)
    kept = chunks(tmp_path / "b.tokc")
    assert [c.pts[0] for c in kept] == [-2, 16]
    assert payloads(tmp_path / "b.tokc") == payloads(path)[1:3]
    assert shown(tmp_path / "b.tokc") == ((0, 20),)
    facts = edit.describe(tmp_path / "b.tokc")
    assert (facts["frames"], facts["hidden_frames"], facts["duration_s"]) == (10, 8, 0.4)
    assert facts["bpp"] == report.bpp == pytest.approx(8 * facts["bytes"] / (40 * 24 * 10), abs=1e-6)
    assert edit.trim(path, tmp_path / "d.tokc", start_s=0.36, duration_s=0.36).frames == 9
    assert shown(tmp_path / "d.tokc") == ()  # whole chunks
    with pytest.raises(TokcodecError, match="no frames"):
        edit.trim(path, tmp_path / "c.tokc", start_s=60)
    assert not (tmp_path / "c.tokc").exists()


def test_concat_of_the_parts_is_the_whole(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 9, 4], first_pts=0)
    edit.trim(path, tmp_path / "b.tokc", duration_s=0.36)
    edit.trim(path, tmp_path / "c.tokc", start_s=0.36)
    edit.concat([tmp_path / "b.tokc", tmp_path / "c.tokc"], tmp_path / "d.tokc")
    assert (tmp_path / "d.tokc").read_bytes() == path.read_bytes()


def test_edits_of_edits_are_edits_of_what_is_shown(tmp_path: Path) -> None:
    """Times are those of what is shown, and what is hidden takes none."""
    path = make_stream(tmp_path / "a.tokc", [9, 9, 9, 4], first_pts=0)  # 62 ticks
    b, c, d, e = (tmp_path / f"{name}.tokc" for name in "bcde")
    edit.trim(path, b, start_s=0.2, duration_s=0.3)  # ticks 10 to 25, 26 with the last frame, of two chunks of 18
    edit.trim(path, c, start_s=0.9)  # ticks 46 to 62, of chunks from 36 on
    edit.concat([b, c], d)
    assert [chunk.pts[0] for chunk in chunks(d)] == [-10, 8, 26, 44]
    assert shown(d) == ((0, 16), (36, 52))
    with tokcodec.open_stream(d, compute=Compute("cpu")) as stream:
        assert [(pts, duration) for _, pts, duration in stream.frames()] == [(pts, 2) for pts in range(0, 32, 2)]
        assert stream.count(0.2, 0.4) == 5
    report = edit.trim(d, e, start_s=0.2, duration_s=0.2)  # 10 to 20 of what is shown
    assert (report.frames, report.duration_s) == (5, 0.2)
    assert shown(e) == ((0, 6), (26, 30))
    assert payloads(e) == payloads(path)[1:3]
    edit.trim(d, e, duration_s=0.1, overwrite=True)
    assert shown(e) == ((0, 6),)
    assert payloads(e) == payloads(path)[:1]


def test_spans_beyond_the_chunks_show_nothing(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9], metadata=Metadata(shown=((0, 11), (30, 40))), first_pts=0)
    assert edit.describe(path)["frames"] == 6
    path = make_stream(tmp_path / "b.tokc", [9], metadata=Metadata(shown=((30, 40),)), first_pts=0)
    with pytest.raises(BitstreamError, match=r"b\.tokc: no frame is shown"):
        edit.describe(path)


def test_concat_refuses_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make_stream(tmp_path / "a.tokc", [9])
    b = make_stream(tmp_path / "b.tokc", [9], width=48)
    with pytest.raises(TokcodecError, match=r"b\.tokc: its width is not that of .*a\.tokc"):
        edit.concat([a, b], tmp_path / "c.tokc")
    monkeypatch.setattr(records, "MAX_CHUNK_PX", 9 * 48 * 32)
    large = make_stream(tmp_path / "large.tokc", [1], width=80, chunk_frames=1)  # of whose size are no chunks of 9
    with pytest.raises(TokcodecError, match=r"a\.tokc: its width is not that of .*large\.tokc"):
        edit.concat([large, a], tmp_path / "c.tokc")
    assert not (tmp_path / "c.tokc").exists()


def test_chapters_are_cut_and_joined(tmp_path: Path) -> None:
    metadata = Metadata({"title": "T"}, "fra", (Chapter(0, 20, "A"), Chapter(20, 62, "B")))
    path = make_stream(tmp_path / "a.tokc", [9, 9, 9, 4], first_pts=0, metadata=metadata)
    edit.trim(path, tmp_path / "b.tokc", start_s=0.36)  # from tick 18
    with reading(tmp_path / "b.tokc") as reader:
        assert reader.metadata == Metadata({"title": "T"}, "fra", (Chapter(0, 2, "A"), Chapter(2, 44, "B")))
    edit.concat([tmp_path / "b.tokc", path], tmp_path / "c.tokc")
    with reading(tmp_path / "c.tokc") as reader:
        joined = reader.metadata
    assert (joined.tags, joined.language) == ({"title": "T"}, "fra")
    assert joined.chapters == (Chapter(0, 2, "A"), Chapter(2, 44, "B"), Chapter(44, 64, "A"), Chapter(64, 106, "B"))


def test_chapters_after_the_last_frame_are_kept(tmp_path: Path) -> None:
    """As the sound is that they may belong to."""
    metadata = Metadata({}, "", (Chapter(0, 20, "A"), Chapter(20, 90, "B"), Chapter(90, 99, "C")))
    path = make_stream(tmp_path / "a.tokc", [9, 9], first_pts=0, metadata=metadata)
    edit.trim(path, tmp_path / "b.tokc")
    edit.concat([path], tmp_path / "c.tokc")
    assert (tmp_path / "b.tokc").read_bytes() == (tmp_path / "c.tokc").read_bytes() == path.read_bytes()
    edit.trim(path, tmp_path / "d.tokc", start_s=0.36)
    edit.concat([tmp_path / "b.tokc", tmp_path / "d.tokc"], tmp_path / "e.tokc")
    with reading(tmp_path / "e.tokc") as reader:
        assert reader.metadata.chapters == (
            *(Chapter(0, 20, "A"), Chapter(20, 36, "B")),
            *(Chapter(36, 38, "A"), Chapter(38, 108, "B"), Chapter(108, 117, "C")),
        )


def test_what_lies_beyond_the_clock_is_told_in_a_line(tmp_path: Path) -> None:
    late = make_stream(tmp_path / "late.tokc", [9], metadata=Metadata({}, "", (Chapter(0, 1 << 62, "A"),)))
    a = make_stream(tmp_path / "a.tokc", [9])
    edit.concat([a, late], tmp_path / "whole.tokc")
    with reading(tmp_path / "whole.tokc") as reader:
        (chapter,) = reader.metadata.chapters
    assert chapter.end == 1 << 62, "it ends with the clock"
    assert chapter.start > 0
    last = make_stream(tmp_path / "last.tokc", [9], first_pts=(1 << 62) - 20)
    with pytest.raises(TokcodecError, match=r"a\.tokc: "):
        edit.concat([last, a], tmp_path / "b.tokc")
    assert not (tmp_path / "b.tokc").exists()


def test_chapters_that_are_too_many_for_one_stream_are_told_in_a_line(tmp_path: Path) -> None:
    metadata = Metadata({}, "", (Chapter(0, 9, "A" * (1 << 19)),))
    paths = [make_stream(tmp_path / name, [9], metadata=metadata) for name in ("a.tokc", "b.tokc")]
    with pytest.raises(TokcodecError, match="chapters of all streams do not fit one"):
        edit.concat(paths, tmp_path / "c.tokc")
    assert not (tmp_path / "c.tokc").exists()


def test_sound_beyond_ffmpeg_s_clock_is_dropped_with_a_warning(
    make_clip: MakeClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = with_sound(make_clip("v.mp4", moving_frames(9)), tmp_path / "s.mkv")
    data = io.BytesIO(source.read_bytes())
    assert cut_streams([("matroska", data, None, None, Fraction(1 << 63))], io.BytesIO()) is None
    assert ["its time is out of range" in message for message in caplog.messages] == [True, True], "one a stream"


def test_streams_of_a_format_of_others_are_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_stream(tmp_path / "a.tokc", [9], streams=b"audio")
    assert edit.describe(path)["other_streams"] == {"format": "nut", "streams": []}
    assert caplog.messages == [f"{path}: other streams in unknown format 'nut'"]


def test_sound_of_an_unknown_codec_is_described(make_clip: MakeClip, tmp_path: Path) -> None:
    source, target = with_sound(make_clip("v.mp4", moving_frames(9)), tmp_path / "s.mkv"), io.BytesIO()
    with av.open(source) as file, av.open(target, "w", "matroska") as alone:
        copy = alone.add_stream_from_template(file.streams.audio[0])
        for packet in file.demux(file.streams.audio[0]):
            if packet.size:
                packet.stream = copy
                alone.mux(packet)
    data = target.getvalue()
    assert describe_streams("matroska", io.BytesIO(data))[0]["rate_hz"] == 48000
    assert data.count(b"A_AAC") == 1
    data = data.replace(b"A_AAC", b"A_FOO")
    assert describe_streams("matroska", io.BytesIO(data)) == [{"kind": "audio", "codec": None}]
    assert cut_streams([("matroska", io.BytesIO(data), None, None, Fraction(0))], io.BytesIO()) is None


def test_sound_is_cut_and_joined_with_its_stream(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    source = with_sound(make_clip("v.mp4", moving_frames(66)), tmp_path / "s.mp4")
    whole, a, b, both = (tmp_path / f"{name}.tokc" for name in ("whole", "a", "b", "both"))
    tokcodec.encode_video(source, whole, compute=Compute("cpu"))
    edit.trim(whole, a, duration_s=0.8)
    edit.trim(whole, b, start_s=1.2)
    edit.concat([a, b], both)
    for stream, expected_s in ((whole, 2.2), (a, 0.8), (b, 1.0), (both, 1.8)):
        tokcodec.decode_video(stream, tmp_path / "out.mp4", overwrite=True, compute=Compute("cpu"))
        assert times_of(tmp_path / "out.mp4") == [Fraction(i, 30) for i in range(round(30 * expected_s))]
        sound = times_of(tmp_path / "out.mp4", "audio")
        assert abs(sound[0]) < 0.03
        assert sound[-1] == pytest.approx(expected_s, abs=0.05)


def test_damage_is_found_by_verify(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 4])
    assert edit.verify(path).frames == 22
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 7):
        data[place] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(BitstreamError, match=r"a\.tokc: "):
            edit.verify(path)
        data[place] ^= 0x10


def test_payloads_that_no_coder_made_are_found_by_verify(tmp_path: Path) -> None:
    """Each record is in order, what it holds is not."""
    path = make_stream(tmp_path / "a.tokc", [9, 4])
    with reading(path) as reader:
        header, kept = reader.header, list(chunks_of(reader))
    spoilt = dataclasses.replace(kept[1], levels=kept[1].levels[:-1] + b"\0\0\0")
    with (tmp_path / "b.tokc").open("wb") as file:
        write_stream(file, header, [kept[0], spoilt])
    with pytest.raises(BitstreamError, match=r"b\.tokc: a .*payload"):
        edit.verify(tmp_path / "b.tokc")


def test_verify_wants_the_weights_of_the_stream(tmp_path: Path) -> None:
    path, other = make_stream(tmp_path / "a.tokc", [9]), tmp_path / "other.safetensors"
    save_weights(other, None, Weights.load(find_weights()).arrays, {"note": "other"})
    with pytest.raises(ModelError, match=r"other\.safetensors"):
        edit.verify(path, weights=other)


def test_spans_are_exact_in_decimal_seconds(tmp_path: Path) -> None:
    """0.1 s is no whole float: a chunk that ends there must not count as beyond it."""
    path = make_stream(tmp_path / "a.tokc", [5, 5, 5], first_pts=0)  # 10 ticks a chunk, 0.2 s
    with reading(path) as reader:
        assert span_ticks(reader, 0.1, 0.3) == (5, 15)
        assert overlapping(reader, 0.0, 0.2) == [0]
        assert overlapping(reader, 0.2, 0.4) == [1]
        assert overlapping(reader, 0.1, 0.1 + (0.1 + 0.2)) == [0, 1]


def test_damaged_sound_is_one_error(make_clip: MakeClip, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stream = tmp_path / "a.tokc"
    tokcodec.encode_video(
        with_sound(make_clip("v.mp4", moving_frames(34)), tmp_path / "s.mp4"), stream, compute=Compute("cpu")
    )
    data = bytearray(stream.read_bytes())
    data[data.index(b"PART") + 100] ^= 1
    stream.write_bytes(data)
    for work in (
        lambda: tokcodec.decode_video(stream, tmp_path / "b.mp4", compute=Compute("cpu")),
        lambda: edit.trim(stream, tmp_path / "b.tokc", duration_s=1.0),
        lambda: edit.verify(stream),
    ):
        with pytest.raises(BitstreamError, match=r"a\.tokc: the PART record"):
            work()
    assert capfd.readouterr().err == ""
    report = tokcodec.decode_video(stream, tmp_path / "b.mp4", salvage=True, compute=Compute("cpu"))
    assert (report.frames, report.damaged) == (34, 1)
