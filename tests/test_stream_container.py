"""stream/ and FORMAT.md: what is written is read, and nothing else is believed."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tokcodec.errors import BitstreamError, TruncatedError
from tokcodec.stream.container import Reader, Writer, write_stream
from tokcodec.stream.metadata import MAX_METADATA_BYTES, Chapter, Metadata
from tokcodec.stream.records import MAX_TICKS, Chunk, Entry, Header, latent_size, pack_index

ROOT = Path(__file__).parent.parent
HEADER = Header(
    width=20,
    height=18,
    chunk_frames=5,
    weights_sha256=bytes(range(32)),
    time_base=Fraction(1, 1000),
    frame_rate=Fraction(30),
    sample_aspect=Fraction(1),
    rotation=1,
    mirrored=True,
    primaries=1,
    transfer=1,
    matrix=1,
)
START = 89  # of the first record after the header
EXAMPLE = [
    Chunk(5, 1, 40, (0, 33, 67, 100, 133), 34, b"\x12\x34", b"levels"),
    Chunk(1, 1, 48, (167,), 33, b"", b"\x29"),
]
TAGS = Metadata({"title": "Été"}, "fra", (Chapter(0, 100, "A"),))


def write(
    chunks: list[Chunk], streams: bytes | None = b"audio", header: Header = HEADER, metadata: Metadata | None = TAGS
) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, header)
    for chunk in chunks:
        writer.write_chunk(chunk)
    if streams is not None:
        writer.write_streams(io.BytesIO(streams), "nut")
    if metadata is not None:
        writer.write_metadata(metadata)
    writer.close()
    assert writer.bytes == len(file.getvalue())
    return file.getvalue()


def steady_chunks(count: int) -> list[Chunk]:
    """Chunks of 5 frames with random payloads, one after another."""
    rng = np.random.default_rng(1)
    times = [tuple(range(i * 100, i * 100 + 100, 20)) for i in range(count)]
    return [Chunk(5, 1, i + 1, pts, 20, rng.bytes(5), rng.bytes(20)) for i, pts in enumerate(times)]


def contents(data: bytes, salvage: bool = False) -> tuple[Header, list[Chunk], tuple[str, bytes] | None, Metadata]:
    """Everything a stream says."""
    reader = Reader(io.BytesIO(data), salvage)
    chunks = [reader.read_chunk(i) for i in range(len(reader.index))]
    streams = reader.streams()
    return reader.header, chunks, streams and (streams[0], streams[1].read()), reader.metadata


def record(kind: bytes, payload: bytes) -> bytes:
    framed = kind + struct.pack("<I", len(payload)) + payload
    return framed + struct.pack("<I", zlib.crc32(framed))


def signed(records: list[bytes], index: bytes | None = None) -> bytes:
    """A stream of these records, with the index they should have (or the one given) and a trailer."""
    body, entries = write([], None)[:START], list[Entry]()
    for item in records:
        if item[:4] == b"CHNK":
            entries.append(Entry.of(Chunk.unpack(item[8:-4], HEADER), len(body), len(item)))
        body += item
    index_record = record(b"INDX", pack_index(entries, START) if index is None else index)
    return body + index_record + record(b"TAIL", struct.pack("<Q", len(body)))


TINY = write(EXAMPLE)


# --- the format ---


def test_example_of_the_format_page_is_what_the_code_writes() -> None:
    page = (ROOT / "FORMAT.md").read_text()
    (block,) = re.findall(r"```hex\n(.*?)```", page, re.DOTALL)
    example = b"".join(bytes.fromhex(line.split("   ")[0]) for line in block.splitlines())
    assert TINY.hex(" ") == example.hex(" ")
    assert contents(example) == (HEADER, EXAMPLE, ("nut", b"audio"), TAGS)


def test_a_stream_is_written_as_its_chunks_come() -> None:
    """The rest is asked for behind the last chunk: it may not be known before."""
    happened: list[str] = []

    def chunks() -> Iterator[Chunk]:
        for chunk in EXAMPLE:
            happened.append("chunk")
            yield chunk

    def rest() -> tuple[Metadata, tuple[str, BinaryIO]]:
        happened.append("rest")
        return TAGS, ("nut", io.BytesIO(b"audio"))

    file, bare = io.BytesIO(), io.BytesIO()
    made = write_stream(file, HEADER, chunks(), rest, lambda writer: happened.append(f"{len(writer.index)} told"))
    assert happened == ["chunk", "1 told", "chunk", "2 told", "rest"]
    reader = Reader(file)
    assert (reader.metadata, reader.index) == (TAGS, made.index)
    assert (reader.bytes, reader.video_bytes) == (made.bytes, made.video_bytes)
    write_stream(bare, HEADER, EXAMPLE)
    assert bare.getvalue() == write(EXAMPLE, None, metadata=None)


@pytest.mark.parametrize(
    ("frames", "height", "width", "grid"),
    [(1, 1, 1, (1, 1, 1)), (2, 16, 17, (2, 1, 2)), (5, 33, 16, (5, 3, 1)), (33, 360, 640, (33, 23, 40))],
)
def test_latent_size(frames: int, height: int, width: int, grid: tuple[int, int, int]) -> None:
    assert latent_size(frames, height, width) == grid


def test_importing_the_reader_imports_neither_torch_nor_av_nor_numba() -> None:
    code = "import sys, tokcodec.stream.container; sys.exit(bool({'torch', 'av', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- round trips ---

fractions = st.builds(Fraction, st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
headers = st.builds(
    Header,
    width=st.integers(1, 8192),
    height=st.integers(1, 8192),
    chunk_frames=st.integers(1, 100),
    weights_sha256=st.binary(min_size=32, max_size=32),
    time_base=fractions.filter(bool),
    frame_rate=fractions,
    sample_aspect=fractions,
    rotation=st.integers(0, 3),
    mirrored=st.booleans(),
    primaries=st.integers(0, 255),
    transfer=st.integers(0, 255),
    matrix=st.integers(0, 255),
    full_range=st.booleans(),
)


@given(headers)
def test_header_round_trip(header: Header) -> None:
    assert Header.unpack(header.pack()) == header


@given(
    st.integers(-(2**61), 2**61),
    st.lists(st.one_of(st.integers(1, 40), st.integers(1, 2**54)), min_size=1, max_size=50),
)
def test_timestamps_round_trip(first: int, gaps: list[int]) -> None:
    pts = tuple(first + sum(gaps[:i]) for i in range(len(gaps)))
    chunk = Chunk(len(pts), 1, 1, pts, gaps[-1], b"", b"")
    header = dataclasses.replace(HEADER, chunk_frames=50)
    assert Chunk.unpack(chunk.pack(), header) == chunk


@pytest.mark.parametrize(
    ("times_bytes", "pts", "duration"),
    [
        (5, range(0, 33 * 512, 512), 512),  # constant rate
        (4 + 4, [round(1000 * i / 30) for i in range(33)], 33),  # milliseconds at 30 frames/s: a bit each
        (2 * 10 + 1, (-MAX_TICKS,), 2 * MAX_TICKS),
        (4 + 4, (7, 8, 1000), 1),  # 2 numbers of 11 bits
    ],
)
def test_timestamps_are_small(times_bytes: int, pts: tuple[int, ...], duration: int) -> None:
    chunk = Chunk(len(pts), 1, 1, tuple(pts), duration, b"", b"")
    assert len(chunk.pack()) - 6 <= times_bytes


texts = st.text(max_size=20)  # of all characters but surrogates
metadatas = st.builds(
    Metadata,
    st.dictionaries(texts, texts, max_size=4),
    texts,
    st.lists(st.builds(Chapter, st.integers(-MAX_TICKS, 0), st.integers(0, MAX_TICKS), texts), max_size=4).map(tuple),
)


@given(metadatas)
def test_metadata_round_trip(metadata: Metadata) -> None:
    assert Metadata.unpack(metadata.pack()) == metadata


@settings(max_examples=50)
@given(st.data())
def test_stream_round_trip(data: st.DataObject) -> None:
    header = dataclasses.replace(HEADER, width=data.draw(st.integers(1, 70)), chunk_frames=9)
    rng, chunks, pts = np.random.default_rng(data.draw(st.integers(0, 99))), [], data.draw(st.integers(-999, 999))
    for frames in data.draw(st.lists(st.integers(1, 9), max_size=5)):
        times = pts + np.cumsum(rng.integers(1, 50, frames + 1))
        payloads = data.draw(st.tuples(st.binary(max_size=300), st.binary(max_size=300)))
        step, coder = data.draw(st.tuples(st.integers(1, 65535), st.integers(0, 255)))
        duration = int(times[-1] - times[-2])
        chunks.append(Chunk(frames, coder, step, tuple(times[:-1].tolist()), duration, *payloads))
        pts = int(times[-1]) + data.draw(st.integers(0, 2**40))
    streams, metadata = data.draw(st.none() | st.binary(max_size=99)), data.draw(st.none() | metadatas)
    stream = write(chunks, streams, header, metadata)
    for salvage in (False, True):
        found = contents(stream, salvage)
        assert found == (header, chunks, None if streams is None else ("nut", streams), metadata or Metadata())


def test_writes_to_a_pipe() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: object) -> int:
            raise io.UnsupportedOperation("seek")

        tell = seek  # type: ignore[assignment]

    pipe = Pipe()
    writer = Writer(pipe, HEADER)
    for chunk in EXAMPLE:
        writer.write_chunk(chunk)
    writer.write_streams(io.BytesIO(b"audio"), "nut")
    writer.write_metadata(TAGS)
    writer.close()
    assert pipe.getvalue() == TINY


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_streams_of_any_length_before_after_and_between_chunks(size: int) -> None:
    audio = np.random.default_rng(0).bytes(size)
    for place in range(3):
        file = io.BytesIO()
        writer = Writer(file, HEADER)
        for i in range(3):
            if i == place:
                writer.write_streams(io.BytesIO(audio), "matroska")
            if i < 2:
                writer.write_chunk(EXAMPLE[i])
        writer.close()
        for salvage in (False, True):
            reader = Reader(file, salvage)
            assert len(reader.index) == 2
            others = 20 + len("matroska") + size + 12 * -(-size // 2**20)
            assert reader.video_bytes == writer.video_bytes == writer.bytes - others
            streams = reader.streams()
            assert streams is not None
            assert streams[0] == "matroska"
            assert streams[1].read() == audio


def test_video_bytes_are_all_but_the_other_streams() -> None:
    reader = Reader(io.BytesIO(TINY))
    assert reader.bytes == len(TINY)
    assert reader.video_bytes == len(write(EXAMPLE, None))
    assert [entry.bytes for entry in reader.index] == [12 + len(chunk.pack()) for chunk in EXAMPLE]


def test_metadata_before_the_first_chunk_or_after_the_last() -> None:
    for place in (0, 2):
        file = io.BytesIO()
        writer = Writer(file, HEADER)
        for i in range(3):
            if i == place:
                writer.write_metadata(TAGS)
            if i < 2:
                writer.write_chunk(EXAMPLE[i])
        writer.close()
        for salvage in (False, True):
            assert contents(file.getvalue(), salvage) == (HEADER, EXAMPLE, None, TAGS)


def test_streams_can_be_read_from_anywhere() -> None:
    audio = np.random.default_rng(0).bytes(2**21 + 12345)
    streams = Reader(io.BytesIO(write([], audio))).streams()
    assert streams is not None
    file, reference = streams[1], io.BytesIO(audio)
    for offset, whence, size in [(2**20 - 3, 0, 7), (5, 1, 2**20), (-9, 2, 100), (0, 2, 1), (-(2**20), 1, 3)]:
        assert file.seek(offset, whence) == reference.seek(offset, whence)
        assert file.read(size) == reference.read(size)


def test_streams_cost_bounded_memory(tmp_path: Path) -> None:
    side = tmp_path / "side"
    with side.open("wb") as file:
        file.truncate(40 * 2**20)
    tracemalloc.start()
    with side.open("rb") as source, (tmp_path / "out").open("wb") as target:
        writer = Writer(target, HEADER)
        writer.write_streams(source, "nut")
        writer.close()
    with (tmp_path / "out").open("rb") as file:
        streams = Reader(file).streams()
        assert streams is not None
        while streams[1].read(2**16):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


# --- the caller's mistakes ---


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"width": 0}, "0x18 is outside"),
        ({"height": 16385}, "20x16385 is outside"),
        ({"chunk_frames": 0}, "chunk_frames"),
        ({"chunk_frames": 4097}, "chunk_frames"),
        ({"weights_sha256": bytes(31)}, "31 bytes"),
        ({"time_base": Fraction(0)}, "time_base"),
        ({"frame_rate": Fraction(-1)}, "frame_rate"),
        ({"sample_aspect": Fraction(1, 2**31)}, "sample_aspect"),
        ({"rotation": 4}, "rotation"),
        ({"matrix": 256}, "colour"),
        ({"width": 16384, "height": 16384, "chunk_frames": 33}, "too large"),
    ],
)
def test_header_fields_are_bounded(field: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HEADER, **field)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"frames": 4}, "4 frames has 5 timestamps"),
        ({"frames": 0, "pts": ()}, "0 frames"),
        ({"step": 0}, "step"),
        ({"step": 65536}, "step"),
        ({"coder": 256}, "coder"),
        ({"pts": (0, 1, 2, 2, 3)}, "do not increase"),
        ({"duration": 0}, "do not increase"),
        ({"duration": 2**62}, "out of range"),
    ],
)
def test_chunk_fields_are_bounded(field: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(EXAMPLE[0], **field)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Chapter(2, 1),
        lambda: Chapter(-MAX_TICKS - 1, 1),
        lambda: Chapter(0, MAX_TICKS + 1),
        lambda: Chapter(0.5, 1),  # type: ignore[arg-type]
        lambda: Metadata({"a": 1}),  # type: ignore[dict-item]
        lambda: Metadata(language=None),  # type: ignore[arg-type]
        lambda: Metadata({"a": "\ud800"}),
        lambda: Metadata({"a": "x" * MAX_METADATA_BYTES}),
    ],
)
def test_metadata_is_bounded(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"chapter|text|surrogates|takes more"):
        make()


def test_writer_refuses_what_the_reader_would_refuse() -> None:
    writer = Writer(io.BytesIO(), HEADER)
    writer.write_chunk(EXAMPLE[0])
    with pytest.raises(ValueError, match="starts at 166, the one before ends at 167"):
        writer.write_chunk(dataclasses.replace(EXAMPLE[1], pts=(166,)))
    with pytest.raises(ValueError, match="6 frames passes the header's 5"):
        writer.write_chunk(Chunk(6, 1, 1, tuple(range(200, 206)), 1, b"", b""))
    most = 1024 + 4 * 32 * 32  # bytes of the record of a frame
    largest = Chunk(1, 1, 1, (200,), 1, b"12", bytes(most - 12 - 5 - 4 - 3))
    with pytest.raises(ValueError, match=f"larger than {most} bytes"):
        writer.write_chunk(dataclasses.replace(largest, motion=b"123"))
    writer.write_chunk(largest)
    assert writer.index[-1].bytes == most
    writer.write_metadata(TAGS)
    with pytest.raises(ValueError, match="metadata once"):
        writer.write_metadata(TAGS)
    with pytest.raises(ValueError, match="before the first chunk or after the last"):
        writer.write_chunk(dataclasses.replace(largest, pts=(300,)))
    with pytest.raises(ValueError, match="cannot hold"):
        writer.write_streams(io.BytesIO(), "../mp4")
    writer.write_streams(io.BytesIO(), "mp4")
    with pytest.raises(ValueError, match="cannot hold"):
        writer.write_streams(io.BytesIO(), "mp4")


# --- hostile input ---


def test_every_flipped_byte_is_found() -> None:
    for place in range(len(TINY)):
        for flip in (1, 0x20, 0x80, 0xFF):
            damaged = bytearray(TINY)
            damaged[place] ^= flip
            with pytest.raises(BitstreamError):
                contents(bytes(damaged))


def test_every_truncation_is_found_and_salvaged() -> None:
    ends = [
        START,
        *(entry.offset + entry.bytes for entry in Reader(io.BytesIO(TINY)).index),
    ]  # of the header and the two chunks
    for size in range(len(TINY)):
        with pytest.raises(TruncatedError, match=f"cut off at byte {size}"):
            contents(TINY[:size])
        if size < START:
            with pytest.raises(TruncatedError):
                Reader(io.BytesIO(TINY[:size]), salvage=True)
            continue
        reader = Reader(io.BytesIO(TINY[:size]), salvage=True)
        chunks = [reader.read_chunk(i) for i in range(len(reader.index))]
        assert chunks == EXAMPLE[: sum(size >= end for end in ends[1:])]
        assert not reader.complete
        assert reader.damaged <= 1
        assert (reader.streams() is not None) == (size >= TINY.index(b"META"))
        assert (reader.metadata == TAGS) == (size >= TINY.index(b"INDX"))


def test_rebuilt_index_is_the_written_one() -> None:
    stream = io.BytesIO(write(steady_chunks(50)))
    written, rebuilt = Reader(stream), Reader(stream, salvage=True)
    assert len(written.index) == 50
    assert rebuilt.index == written.index
    assert (rebuilt.complete, rebuilt.damaged) == (True, 0)


@settings(max_examples=200)
@given(st.data())
def test_salvage_takes_every_chunk_that_is_intact(data: st.DataObject) -> None:
    chunks = steady_chunks(8)
    stream = write(chunks)
    index = Reader(io.BytesIO(stream)).index
    # Without the last byte of such a CRC it would be the next chunk that lacks one.
    assert not any(stream[entry.offset + entry.bytes - 1 :].startswith(b"CC") for entry in index)
    hit = data.draw(st.sets(st.integers(0, 7), min_size=1, max_size=4))
    places = [index[i].offset + data.draw(st.integers(0, index[i].bytes - 1)) for i in hit]
    damage = data.draw(st.sampled_from(["flip", "insert", "delete"]))
    for place in sorted(places, reverse=True):
        new = {"flip": bytes([stream[place] ^ 0xFF]), "insert": b"\0" + stream[place : place + 1], "delete": b""}[
            damage
        ]
        stream = stream[:place] + new + stream[place + 1 :]
    reader = Reader(io.BytesIO(stream), salvage=True)
    found = [reader.read_chunk(i) for i in range(len(reader.index))]
    kept = [chunk for i, chunk in enumerate(chunks) if i not in hit]
    # more may be found: an insertion in front of a chunk does it no harm
    assert [chunk for chunk in found if chunk in kept] == kept
    assert all(chunk in chunks for chunk in found)
    assert reader.damaged >= 1
    assert reader.streams() is not None


def test_salvage_gives_up_streams_with_a_damaged_piece() -> None:
    stream = bytearray(write(EXAMPLE, bytes(2**20 + 1)))
    stream[stream.index(b"PART") + 100] ^= 1  # in the first piece
    stream[len(stream) // 2] ^= 1
    reader = Reader(io.BytesIO(bytes(stream)), salvage=True)
    assert len(reader.index) == 2
    assert reader.streams() is None
    assert reader.damaged == 1
    strict = Reader(io.BytesIO(bytes(stream))).streams()
    assert strict is not None
    with pytest.raises(BitstreamError, match="checksum"):
        strict[1].read()


def test_salvage_of_what_only_looks_like_records_is_no_endless_work() -> None:
    class Counted(io.BytesIO):
        bytes_read = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.bytes_read += len(data)
            return data

    file = Counted(TINY[:START] + b"INDX\0\x40\0\0" * 20_000 + TINY[START:])
    reader = Reader(file, salvage=True)
    assert reader.index == []
    assert file.bytes_read < 65 * len(file.getvalue())
    assert reader.damage == [(START, len(file.getvalue()))], "what was not looked at is not intact"


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" + bytes(80), b"\0\0\0\x20ftypisom" + bytes(80), b"x"])
def test_other_files(data: bytes) -> None:
    for salvage in (False, True):
        with pytest.raises(BitstreamError, match="this is not a"):
            Reader(io.BytesIO(data), salvage)


def test_text_mode_damage_is_no_stream() -> None:
    with pytest.raises(BitstreamError, match="this is not a"):
        Reader(io.BytesIO(TINY.replace(b"\r\n", b"\n")))


def test_another_version_names_both() -> None:
    with pytest.raises(BitstreamError, match="version 1, this program reads version 3"):
        Reader(io.BytesIO(TINY[:8] + b"\x01" + TINY[9:]), salvage=True)


def test_two_streams_end_to_end_are_not_one() -> None:
    with pytest.raises(BitstreamError):
        Reader(io.BytesIO(TINY + TINY))
    with pytest.raises(BitstreamError, match="goes on after its trailer"):
        Reader(io.BytesIO(TINY + record(b"note", b"")))


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"\0\0"),
        (2, b"\xff\xff"),
        (4, b"\0\0"),
        (6, b"\x08"),
        (6, b"\x80"),
        (7, b"\x10"),  # integers of no bits
        (8, bytes(4)),
        (12, bytes(4)),
        (28, b"\0\0\0\x80"),
        (35, b"\x02"),
        (0, struct.pack("<HHH", 16384, 16384, 4096)),
    ],
)
def test_absurd_headers_with_a_right_checksum(offset: int, value: bytes) -> None:
    payload = bytearray(HEADER.pack())
    payload[offset : offset + len(value)] = value
    with pytest.raises(BitstreamError, match="header is malformed"):
        Reader(io.BytesIO(TINY[:9] + record(b"HEAD", bytes(payload)) + TINY[START:]))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes.fromhex("0500 01 01"),
        bytes.fromhex("0000 01 0100 00 05 00 00"),  # no frames
        bytes.fromhex("0600 01 0100 00 06 00 00"),  # more than the header allows
        bytes.fromhex("0100 01 0000 00 05 00 00"),  # no step
        bytes.fromhex("0100 01 0100 00 00 00 00"),  # lasts no time
        bytes.fromhex("0500 01 0100 00 04 00 00"),  # five frames in four ticks
        bytes.fromhex("0500 01 0100 00 05"),
        bytes.fromhex("0500 01 0100 00 05 41") + bytes(99),  # 65 bits a timestamp
        bytes.fromhex("0500 01 0100 00 05 40") + bytes(31),
        bytes.fromhex("0500 01 0100 00 05 40") + b"\xff" * 32 + b"\0",
        bytes.fromhex("0100 01 0100") + b"\xff" * 10 + bytes.fromhex("01 05 00 00"),
        bytes.fromhex("0100 01 0100") + b"\xff" * 9 + bytes.fromhex("01 05 00 00"),  # beyond the last tick
        bytes.fromhex("0100 01 0100 00 05 00"),  # no motion
        bytes.fromhex("0100 01 0100 00 05 00 04") + b"mot",  # less than it promises
        bytes.fromhex("0100 01 0100 00 05 00") + b"\xff" * 9 + b"\x01mot",
        bytes.fromhex("0100 01 0100 00 05 00") + b"\xff" * 10 + b"\x01mot",
        bytes.fromhex("0100 01 0100 00 05 00 00") + bytes(5120 - 12 - 8 + 1),  # larger than a frame may be
    ],
)
def test_absurd_chunks_with_a_right_checksum(payload: bytes) -> None:
    with pytest.raises(BitstreamError):
        Chunk.unpack(payload, HEADER)
    stream = TINY[:START] + record(b"CHNK", payload) + TINY[START:]
    reader = Reader(io.BytesIO(stream), salvage=True)
    assert [reader.read_chunk(i) for i in range(len(reader.index))] == EXAMPLE
    assert reader.damaged == 1


def test_salvage_leaves_out_chunks_that_go_back_in_time() -> None:
    first, second = (record(b"CHNK", chunk.pack()) for chunk in EXAMPLE)
    reader = Reader(io.BytesIO(signed([first, first, second])), salvage=True)
    assert [entry.first_pts for entry in reader.index] == [0, 167]
    assert reader.damaged == 1


def entry_bytes(*numbers: int) -> bytes:
    assert all(0 <= number < 128 for number in numbers)
    return bytes(numbers)


FIRST, SECOND = (0, 31, 5, 40, 0), (0, 23, 1, 48, 0, 33)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"\x00",  # leaves out both chunks
        b"\x01" + entry_bytes(*FIRST) + b"\xa7\x01",  # leaves out the second
        b"\x01" + entry_bytes(31, *SECOND[1:4]) + b"\xce\x02\x21",  # leaves out the first
        b"\x03" + entry_bytes(*FIRST) + b"\xa7\x01" + entry_bytes(*SECOND),  # promises more
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + entry_bytes(*FIRST) + b"\xa7\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(*FIRST) + b"\xa7\x01" + entry_bytes(*SECOND) + b"\0",  # goes on
        b"\x02" + entry_bytes(1, *FIRST[1:]) + b"\xa7\x01" + entry_bytes(*SECOND),  # not aligned
        b"\x02" + entry_bytes(0, 30, *FIRST[2:]) + b"\xa7\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(0, 0, *FIRST[2:]) + b"\xa7\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(0, 54, *FIRST[2:]) + b"\xa7\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(0, 31, 4, 40, 0) + b"\xa7\x01" + entry_bytes(*SECOND),  # other frames
        b"\x02" + entry_bytes(0, 31, 6, 40, 0) + b"\xa7\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(0, 31, 5, 39, 0) + b"\xa7\x01" + entry_bytes(*SECOND),  # another step
        b"\x02" + entry_bytes(0, 31, 5, 0, 0) + b"\xa7\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(0, 31, 5) + b"\x80\x80\x04\0\xa7\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(0, 31, 5, 40, 2) + b"\xa7\x01" + entry_bytes(*SECOND),  # other times
        b"\x02" + entry_bytes(*FIRST) + b"\xa6\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(*FIRST) + b"\xa7\x01" + entry_bytes(0, 23, 1, 48, 1, 33),  # back in time
        b"\x02" + entry_bytes(*FIRST, 0) + entry_bytes(*SECOND),  # lasts no time
        b"\x02" + entry_bytes(*FIRST) + b"\xff" * 9 + b"\x01" + entry_bytes(*SECOND),
        b"\x02" + entry_bytes(0) + b"\xff" * 9 + b"\x01" + entry_bytes(*FIRST[2:], 9) + entry_bytes(*SECOND),
    ],
)
def test_lying_index(index: bytes) -> None:
    records = [record(b"CHNK", chunk.pack()) for chunk in EXAMPLE]
    assert contents(signed(records))[1] == EXAMPLE
    with pytest.raises(BitstreamError):
        contents(signed(records, index))
    assert contents(signed(records, index), salvage=True)[1] == EXAMPLE


def test_a_trailer_of_another_size() -> None:
    with pytest.raises(BitstreamError, match="its trailer is damaged"):
        Reader(io.BytesIO(TINY[:-20] + record(b"TAIL", b"") + bytes(8)))


@pytest.mark.parametrize("offset", [0, 80, START, 200, 10**6, 2**64 - 1])
def test_lying_trailer(offset: int) -> None:
    with pytest.raises(BitstreamError):
        Reader(io.BytesIO(TINY[:-20] + record(b"TAIL", struct.pack("<Q", offset))))


@pytest.mark.parametrize(
    "description",
    [b"", bytes(8), struct.pack("<Q", 5) + b"NUT", struct.pack("<Q", 2**63) + b"nut", bytes(8) + b"a" * 33],
)
def test_lying_description_of_the_streams(description: bytes) -> None:
    stream = signed([record(b"STRM", description), record(b"PART", b"audio")])
    with pytest.raises(BitstreamError):
        Reader(io.BytesIO(stream))
    assert Reader(io.BytesIO(stream), salvage=True).streams() is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"{}x",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b'{"language":"\xff"}',
        b'{"language":"\\ud800"}',
        b'{"language":1}',
        b'{"language":null}',
        b'{"language":"a","language":"b"}',
        b'{"tags":[]}',
        b'{"tags":{"a":1}}',
        b'{"tags":{"a":"b","a":"c"}}',
        b'{"chapters":{}}',
        b'{"chapters":[1]}',
        b'{"chapters":[{"start":0,"end":1}]}',
        b'{"chapters":[{"start":2,"end":1,"title":""}]}',
        b'{"chapters":[{"start":false,"end":1,"title":""}]}',
        b'{"chapters":[{"start":0,"end":1.0,"title":""}]}',
        b'{"chapters":[{"start":0,"end":NaN,"title":""}]}',
        b'{"chapters":[{"start":0,"end":9223372036854775808,"title":""}]}',
        b'{"chapters":[{"start":0,"end":' + b"9" * 5000 + b',"title":""}]}',
        b'{"chapters":[{"start":0,"end":1,"title":0}]}',
        b'{"x":Infinity}',
        b"[" * 2**20,
        b'{"x":' * 2**17,
    ],
    ids=lambda payload: repr(payload[:40]),
)
def test_absurd_metadata_with_a_right_checksum(payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    stream = signed([record(b"META", payload), *(record(b"CHNK", chunk.pack()) for chunk in EXAMPLE)])
    with pytest.raises(BitstreamError, match="metadata is malformed"):
        Reader(io.BytesIO(stream))
    reader = Reader(io.BytesIO(stream), salvage=True)
    assert [reader.read_chunk(i) for i in range(len(reader.index))] == EXAMPLE
    assert reader.metadata == Metadata()
    assert reader.damaged == 1
    assert [message.split(":")[0] for message in caplog.messages] == ["metadata is left out"]


def test_metadata_of_a_part() -> None:
    ends = [(0, 10), (5, 25), (10, 10), (10, 20), (20, 20), (20, 30)]
    whole = Metadata({"title": "x"}, "eng", tuple(Chapter(*pair, title=str(pair)) for pair in ends))
    part = whole.cut(10, 20, -7)
    assert (part.tags, part.language) == (whole.tags, whole.language)
    assert part.chapters == (Chapter(3, 13, "(5, 25)"), Chapter(3, 3, "(10, 10)"), Chapter(3, 13, "(10, 20)"))


def test_metadata_may_say_more_than_is_known() -> None:
    assert Metadata.unpack(b' {"mood": [1.5, {}], "chapters": [{"start": 1, "end": 2, "title": "", "x": 0}]}') == (
        Metadata(chapters=(Chapter(1, 2),))
    )


def test_metadata_twice_between_chunks_or_too_long() -> None:
    first, second = (record(b"CHNK", chunk.pack()) for chunk in EXAMPLE)
    meta, other = record(b"META", TAGS.pack()), record(b"META", b"{}")
    for records, message in [
        ([meta, other, first, second], "metadata twice"),
        ([meta, first, second, other], "metadata twice"),
        ([first, meta, second], "between chunks"),
        ([meta, first, second, record(b"META", b" " * 2**20 + b"{}")], "impossible length"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            Reader(io.BytesIO(signed(records)))
        found = contents(signed(records), salvage=True)
        assert (found[1], found[3]) == (EXAMPLE, TAGS)


def test_pieces_must_have_their_length() -> None:
    strm = record(b"STRM", struct.pack("<Q", 17) + b"nut")
    streams = Reader(io.BytesIO(signed([strm, record(b"PART", b"12"), record(b"PART", b"345")]))).streams()
    assert streams is not None
    with pytest.raises(BitstreamError, match="wrong length"):
        streams[1].read()


def test_unknown_records_are_skipped_if_they_allow_it() -> None:
    chunks = [record(b"CHNK", chunk.pack()) for chunk in EXAMPLE]
    extra = record(b"note", b"CHNK in passing")
    stream = signed([extra, extra, chunks[0], extra, chunks[1], extra])
    for salvage in (False, True):
        reader = Reader(io.BytesIO(stream), salvage)
        assert [reader.read_chunk(i) for i in range(len(reader.index))] == EXAMPLE
        assert reader.damaged == 0
    for bad in (record(b"Note", b""), record(b"no1e", b""), record(b"note", bytes(2**20 + 1))):
        stream = signed([chunks[0], bad, chunks[1]])
        with pytest.raises(BitstreamError, match=r"unknown type|impossible length"):
            Reader(io.BytesIO(stream))
        reader = Reader(io.BytesIO(stream), salvage=True)
        assert [reader.read_chunk(i) for i in range(len(reader.index))] == EXAMPLE
        assert reader.damaged == 1


def test_a_chunk_is_held_against_its_frames_before_it_is_read() -> None:
    """One frame of 20x18 has 1 KiB and 4 bytes for each of 32x32 pixels; the header's five would have more."""
    most = 1024 + 4 * 32 * 32
    fields = bytes.fromhex("0100 01 0100 00 05 00 00")
    fits, longer = (record(b"CHNK", fields + bytes(most - 12 - len(fields) + extra)) for extra in (0, 1))
    assert len(contents(signed([fits]))[1]) == 1
    stream = TINY[:START] + longer + TINY[START:]
    with pytest.raises(BitstreamError, match="impossible length"):
        Reader(io.BytesIO(TINY[:START] + longer))
    assert contents(stream, salvage=True)[1] == EXAMPLE


def test_huge_lengths_allocate_nothing() -> None:
    tracemalloc.start()
    for kind in (b"CHNK", b"META", b"STRM", b"PART", b"INDX", b"TAIL", b"note"):
        stream = TINY[:START] + kind + b"\xff\xff\xff\xff" + TINY[START:]
        with pytest.raises(BitstreamError):
            Reader(io.BytesIO(stream))
        assert len(Reader(io.BytesIO(stream), salvage=True).index) == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@settings(max_examples=300)
@given(st.binary(max_size=200), st.booleans(), st.sampled_from([0, 8, 9, START]))
def test_random_bytes(data: bytes, salvage: bool, kept: int) -> None:
    try:
        contents(TINY[:kept] + data, salvage)
    except BitstreamError:
        return
    assert salvage  # a stream without damage cannot come out of this


@settings(max_examples=300)
@given(st.data())
def test_mutated_streams(data: st.DataObject) -> None:
    stream = bytearray(TINY)
    for _ in range(data.draw(st.integers(1, 4))):
        a, b = sorted((data.draw(st.integers(0, len(stream))), data.draw(st.integers(0, len(stream)))))
        stream[a:b] = data.draw(st.one_of(st.just(b""), st.binary(max_size=9), st.just(bytes(stream[a:b]) * 2)))
    for salvage in (False, True):
        try:
            found = contents(bytes(stream), salvage)
        except BitstreamError:
            continue
        assert found[0] == HEADER
        assert all(chunk in EXAMPLE for chunk in found[1])
        assert found[3] in (TAGS, Metadata())
        assert salvage or bytes(stream) == TINY


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from([b"CHNK", b"META", b"STRM", b"PART", b"note", b"INDX"]), st.binary(max_size=40)))
)
def test_random_records_with_right_checksums(records: list[tuple[bytes, bytes]]) -> None:
    body = TINY[:START] + b"".join(record(*item) for item in records)
    index = record(b"INDX", records[-1][1] if records else b"\0")
    stream = body + index + record(b"TAIL", struct.pack("<Q", len(body)))
    for salvage in (False, True):
        try:
            contents(stream, salvage)
        except BitstreamError:
            continue
