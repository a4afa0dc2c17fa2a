"""The .tokc stream in a file: header, chunks, metadata, the other streams, index, trailer.

FORMAT.md describes it byte by byte. A stream is a signature and then records, each framed with type, length
and CRC-32; it is written front to back, so a pipe will do. `Reader` trusts nothing: every length is held
against a bound and against what is left of the file before it is used.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NoReturn, cast

from tokcodec.errors import BitstreamError, TruncatedError
from tokcodec.stream.metadata import MAX_METADATA_BYTES, Metadata
from tokcodec.stream.records import (
    CHUNK,
    CRC,
    FRAMING,
    FRAMING_BYTES,
    HEAD,
    HEAD_BYTES,
    INDEX,
    MAGIC,
    MAX_STEP,
    MAX_TICKS,
    METADATA,
    PART,
    STREAMS,
    TRAILER,
    VERSION,
    Chunk,
    Entry,
    Header,
    pack_index,
    pack_record,
    unpack_index,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger("tokcodec")

MAX_STREAMS_BYTES = 2**40
PART_BYTES = 2**20  # every piece of the other streams but the last is this long
MAX_EXTRA_BYTES = 2**20  # of a record that this version does not know and may skip

_U64 = struct.Struct("<Q")  # length of the other streams; offset of the index in the trailer
_TRAILER_BYTES = FRAMING_BYTES + _U64.size
_FORMAT_NAME = re.compile(r"[a-z0-9_]{1,32}")
_RECORD_START = re.compile(b"|".join([CHUNK, METADATA, STREAMS, PART, INDEX, TRAILER]))
_SCAN_BYTES = 4096  # read at a time in search of a record


def streams_bytes(length: int, name: str) -> int:
    """Bytes that `length` bytes of other streams take in a stream, records and all."""
    return length + FRAMING_BYTES * -(-length // PART_BYTES) + FRAMING_BYTES + _U64.size + len(name)


class Writer:
    """Writes a stream front to back; the file need not be seekable.

    Args:
        file: at the place where the stream begins. It stays open. Its OSErrors pass through.
        header: what holds for the stream.

    Attributes:
        bytes: written so far.
        video_bytes: of them without the other streams: all but STRM and PART records.
        index: an entry for each chunk so far.
    """

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self.header = header
        self.index: list[Entry] = []
        self.bytes = 0
        self.video_bytes = 0
        self._file = file
        self._has_streams = False
        self._metadata_after: int | None = None  # chunks before the metadata
        self._write(MAGIC + bytes([VERSION]))
        self._record(HEAD, header.pack())
        self._start = self.bytes

    def _write(self, data: bytes, is_video: bool = True) -> None:
        self._file.write(data)
        self.bytes += len(data)
        self.video_bytes += len(data) if is_video else 0

    def _record(self, kind: bytes, payload: bytes) -> None:
        self._write(pack_record(kind, payload))

    def write_chunk(self, chunk: Chunk) -> None:
        """Append a chunk.

        Raises:
            ValueError: it does not fit the header, starts before the last one ends, or follows metadata that
                stands behind other chunks.
        """
        if chunk.frames > self.header.chunk_frames:
            raise ValueError(f"a chunk of {chunk.frames} frames passes the header's {self.header.chunk_frames}")
        if self._metadata_after:
            raise ValueError("metadata stands before the first chunk or after the last")
        if self.index and chunk.pts[0] < self.index[-1].end_pts:
            raise ValueError(f"a chunk starts at {chunk.pts[0]}, the one before ends at {self.index[-1].end_pts}")
        payload, most = chunk.pack(), self.header.chunk_record_bytes(chunk.frames)
        if FRAMING_BYTES + len(payload) > most:
            raise ValueError(f"a chunk of {chunk.frames} frames is larger than {most} bytes")
        offset = self.bytes
        self._record(CHUNK, payload)
        self.index.append(Entry.of(chunk, offset, self.bytes - offset))

    def write_metadata(self, metadata: Metadata) -> None:
        """Append tags and chapters, once in a stream, before the first chunk or after the last.

        Raises:
            ValueError: it is the second call.
        """
        if self._metadata_after is not None:
            raise ValueError("a stream has metadata once")
        self._metadata_after = len(self.index)
        self._record(METADATA, metadata.pack())

    def write_streams(self, source: BinaryIO, name: str) -> None:
        """Append the other streams (audio, subtitles), once in a stream, before or after any chunk.

        Args:
            source: seekable; copied from its start to its end in bounded memory.
            name: FFmpeg's name of the container format they are in, such as "matroska".

        Raises:
            ValueError: the name or the length is out of range, or it is the second call.
        """
        length = source.seek(0, io.SEEK_END)
        source.seek(0)
        if self._has_streams or length > MAX_STREAMS_BYTES or not _FORMAT_NAME.fullmatch(name):
            raise ValueError(f"cannot hold {length} bytes of streams in {name!r} format")
        self._has_streams = True
        self._write(pack_record(STREAMS, _U64.pack(length) + name.encode()), is_video=False)
        while length:
            part = source.read(min(length, PART_BYTES))
            if len(part) != min(length, PART_BYTES):
                raise ValueError("the streams became shorter while they were read")
            self._write(pack_record(PART, part), is_video=False)
            length -= len(part)

    def close(self) -> None:
        """Write index and trailer; nothing may be written after. A stream without them is truncated."""
        index_offset = self.bytes
        self._record(INDEX, pack_index(self.index, self._start))
        self._record(TRAILER, _U64.pack(index_offset))


Rest = tuple[Metadata, tuple[str, BinaryIO] | None]  # what stands behind the chunks; format and file of other streams


def no_rest() -> Rest:
    """Neither metadata nor other streams."""
    return Metadata(), None


def write_stream(
    file: BinaryIO,
    header: Header,
    chunks: Iterable[Chunk],
    rest: Callable[[], Rest] = no_rest,
    on_chunk: Callable[[Writer], None] | None = None,
) -> Writer:
    """Write a whole stream.

    Args:
        file: at the place where the stream begins. It stays open. Its OSErrors pass through.
        header: what holds for the stream.
        chunks: are written as they come.
        rest: is asked for metadata and other streams when all chunks are written.
        on_chunk: called after each chunk.

    Returns:
        The writer, closed: index and sizes of the stream.

    Raises:
        ValueError: as the methods of `Writer`.
    """
    writer = Writer(file, header)
    for chunk in chunks:
        writer.write_chunk(chunk)
        if on_chunk is not None:
            on_chunk(writer)
    metadata, streams = rest()
    if metadata != Metadata():
        writer.write_metadata(metadata)
    if streams is not None:
        writer.write_streams(streams[1], streams[0])
    writer.close()
    return writer


class Reader:
    """Reads a stream.

    Opening reads header and index; each chunk is checked when it is read. A stream that is cut or damaged is
    refused, when it is opened or when the damaged place is read. With `salvage` the index is rebuilt instead
    from every chunk that is intact, which reads the whole file once.

    Chunks and the other streams may be read from different threads.

    Args:
        file: seekable, the stream from its first byte to its last. It stays open. Its OSErrors pass through.
        salvage: take what is intact.

    Attributes:
        header: what holds for the stream.
        index: an entry for each chunk, in order of time.
        metadata: tags and chapters; empty without them.
        bytes: size of the whole stream.
        video_bytes: of it without the other streams: all but STRM and PART records.
        complete: index and trailer are there; false only with `salvage`.
        damage: first byte and the one after the last of each place that was skipped; only with `salvage`.
        promised: an entry for each chunk that an intact index names, intact or not; None without such an index, or
            without `salvage`.

    Raises:
        TruncatedError: the stream ends too early (with `salvage` only if it ends in the header).
        BitstreamError: it is no stream, one of another version, or damaged (with `salvage` only in the header).
    """

    def __init__(self, file: BinaryIO, salvage: bool = False) -> None:
        self.complete = not salvage
        self.damage: list[tuple[int, int]] = []
        self.promised: list[Entry] | None = None
        self._file = file
        self._lock = threading.Lock()
        self.bytes = file.seek(0, io.SEEK_END)
        self.video_bytes = self.bytes
        self.metadata = Metadata()
        self._has_metadata = False
        self._bytes_read = 0
        self._streams: tuple[str, int, int] | None = None  # format, bytes, offset of the first piece
        signature = self._read(0, len(MAGIC) + 1)
        if not MAGIC.startswith(signature[: len(MAGIC)]):
            raise BitstreamError("this is not a .tokc stream")
        if len(signature) <= len(MAGIC):
            raise self._truncated()
        if signature[-1] != VERSION:
            raise BitstreamError(f"the stream has format version {signature[-1]}, this program reads version {VERSION}")
        self.header = Header.unpack(self._record(len(signature), HEAD)[1])
        self._start = len(signature) + FRAMING_BYTES + HEAD_BYTES
        self.index = self._salvage() if salvage else self._read_index()

    @property
    def damaged(self) -> int:
        """Number of places that were skipped."""
        return len(self.damage)

    def _read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            self._bytes_read += size
            return self._file.read(size)

    def _truncated(self) -> TruncatedError:
        return TruncatedError(f"the stream is cut off at byte {self.bytes}")

    def _bound(self, kind: bytes, chunk_frames: int) -> int:
        """The most bytes a record's payload may have; a chunk's depends on its frames."""
        if kind == CHUNK:
            return self.header.chunk_record_bytes(min(chunk_frames, self.header.chunk_frames)) - FRAMING_BYTES
        if kind == INDEX:
            return self.bytes
        fixed = {
            HEAD: HEAD_BYTES,
            METADATA: MAX_METADATA_BYTES,
            STREAMS: _U64.size + 32,
            PART: PART_BYTES,
            TRAILER: _U64.size,
        }
        if kind in fixed:
            return fixed[kind]
        if kind.isalpha() and kind[:1].islower():  # as in PNG: a small first letter means that it may be skipped
            return MAX_EXTRA_BYTES
        raise BitstreamError(f"a record of unknown type {kind!r} is in the stream")

    def _framing(self, offset: int, expected: bytes | None = None) -> tuple[bytes, int]:
        """Type and payload length of the record there, which is within bounds and file; payload and CRC unseen."""
        framing = self._read(offset, FRAMING_BYTES)  # with the first bytes of the payload; no record is shorter
        if len(framing) < FRAMING_BYTES:
            raise self._truncated()
        kind, length = FRAMING.unpack_from(framing)
        if expected is not None and kind != expected:
            raise BitstreamError(f"a {expected.decode()} record should be at byte {offset}")
        chunk_frames = int.from_bytes(framing[FRAMING.size : FRAMING.size + 2], "little")
        if length > self._bound(kind, chunk_frames):
            raise BitstreamError(f"a record at byte {offset} has an impossible length of {length} bytes")
        if offset + FRAMING_BYTES + length > self.bytes:
            raise self._truncated()
        return kind, length

    def _record(self, offset: int, expected: bytes | None = None) -> tuple[bytes, bytes]:
        """Type and payload of the record there, checked."""
        kind, length = self._framing(offset, expected)
        record = self._read(offset, FRAMING_BYTES + length)
        if zlib.crc32(record[: -CRC.size]) != int.from_bytes(record[-CRC.size :], "little"):
            raise BitstreamError(f"the {kind.decode()} record at byte {offset} is damaged (checksum)")
        return kind, record[FRAMING.size : -CRC.size]

    def _read_index(self) -> list[Entry]:
        """The index as the trailer names it, held against bounds and against what lies between the chunks."""
        trailer_offset = self.bytes - _TRAILER_BYTES
        try:
            _, trailer = self._record(max(trailer_offset, self._start), TRAILER)
        except BitstreamError:
            self._find_fault()
        if len(trailer) != _U64.size:
            raise BitstreamError("its trailer is damaged")
        (index_offset,) = _U64.unpack(trailer)
        if not self._start <= index_offset < trailer_offset:
            raise BitstreamError("the trailer names an index that is not there")
        _, payload = self._record(index_offset, INDEX)
        if index_offset + FRAMING_BYTES + len(payload) != trailer_offset:
            raise BitstreamError("index and trailer do not belong together")
        entries: list[Entry] = []
        position, pts = self._start, -MAX_TICKS
        for entry in unpack_index(payload, self._start):
            if not (
                entry.bytes > FRAMING_BYTES
                and entry.offset + entry.bytes <= index_offset
                and 1 <= entry.frames <= self.header.chunk_frames
                and 1 <= entry.step <= MAX_STEP
                and pts <= entry.first_pts < entry.end_pts <= MAX_TICKS
            ):
                raise BitstreamError("the index is malformed")
            self._check_gap(position, entry.offset, is_between=bool(entries))
            entries.append(entry)
            position, pts = entry.offset + entry.bytes, entry.end_pts
        self._check_gap(position, index_offset)
        return entries

    def _find_fault(self) -> NoReturn:
        """Say what is wrong with a stream that does not end in a trailer."""
        for _, kind, _ in self._walk():
            if kind == TRAILER:
                raise BitstreamError("the stream goes on after its trailer")
        raise self._truncated()

    def _check_gap(self, position: int, end: int, is_between: bool = False) -> None:
        """What is around chunks (or between two) must be the other streams, metadata, or may be skipped."""
        while position < end:
            kind, length = self._framing(position)
            if kind == STREAMS:
                begin, position = position, self._open_streams(position)
                self.video_bytes -= position - begin
                continue
            if kind == METADATA:
                if is_between:
                    raise BitstreamError(f"the metadata at byte {position} stands between chunks")
                self._open_metadata(self._record(position)[1])
                position += FRAMING_BYTES + length
                continue
            if kind in (HEAD, CHUNK, PART, INDEX, TRAILER):
                raise BitstreamError(f"the index leaves out a {kind.decode()} record at byte {position}")
            self._record(position)  # skipped, but not if it is damaged
            position += FRAMING_BYTES + length
        if position != end:
            raise BitstreamError("the index is not aligned with the records")

    def _open_metadata(self, payload: bytes) -> None:
        if self._has_metadata:
            raise BitstreamError("the stream has metadata twice")
        self.metadata = Metadata.unpack(payload)
        self._has_metadata = True

    def _open_streams(self, offset: int) -> int:
        """Take note of the other streams whose record is there; returns the offset behind their last piece."""
        _, payload = self._record(offset, STREAMS)
        name = payload[_U64.size :].decode("latin-1")
        if self._streams is not None or not _FORMAT_NAME.fullmatch(name):
            raise BitstreamError("the description of the other streams is malformed")
        length: int = _U64.unpack_from(payload)[0]
        first = offset + FRAMING_BYTES + len(payload)
        end = first + length + FRAMING_BYTES * -(-length // PART_BYTES)
        if end > self.bytes:
            raise self._truncated()
        self._streams = name, length, first
        return end

    def streams(self) -> tuple[str, BinaryIO] | None:
        """The other streams: name of their container format, and a seekable file. None without them.

        Do not hand the name to FFmpeg unchecked: among its formats are some that open further files. Reading
        a damaged piece raises BitstreamError.
        """
        if self._streams is None:
            return None
        name, length, offset = self._streams
        return name, cast(BinaryIO, io.BufferedReader(_Parts(self._part, length, offset)))

    def _part(self, offset: int) -> bytes:
        return self._record(offset, PART)[1]

    def read_chunk(self, i: int) -> Chunk:
        """Chunk `i` of the index.

        Raises:
            BitstreamError: it is damaged, or is not what the index says.
            IndexError: there is none.
        """
        entry = self.index[i]
        _, payload = self._record(entry.offset, CHUNK)
        chunk = Chunk.unpack(payload, self.header)
        if Entry.of(chunk, entry.offset, FRAMING_BYTES + len(payload)) != entry:
            raise BitstreamError(f"the chunk at byte {entry.offset} is not what the index says")
        return chunk

    def _walk(self, salvage: bool = False) -> Iterator[tuple[int, bytes, bytes]]:
        """Offset, type and payload of every record, front to back; with `salvage` of those that are intact."""
        position, in_damage = self._start, False
        # What looks like a record in damaged bytes is read to check it: a file made of nothing else must not
        # take forever.
        read_limit = self._bytes_read + 64 * self.bytes
        while position < self.bytes and self._bytes_read < read_limit:
            try:
                kind, payload = self._record(position)
            except BitstreamError:
                if not salvage:
                    raise
                begin = self.damage.pop()[0] if in_damage else position
                in_damage, position = True, self._find_record(position + 1)
                self.damage.append((begin, position))
                continue
            in_damage = False
            yield position, kind, payload
            position += FRAMING_BYTES + len(payload)
        if position < self.bytes:  # nobody knows what the rest is
            begin = self.damage.pop()[0] if in_damage else position
            self.damage.append((begin, self.bytes))

    def _find_record(self, position: int) -> int:
        """Where the next bytes that may start a record are, from `position` on."""
        while position < self.bytes:
            if match := _RECORD_START.search(self._read(position, _SCAN_BYTES)):
                return position + match.start()
            position += _SCAN_BYTES - 3  # a type may stand across the edge
        return self.bytes

    def _salvage(self) -> list[Entry]:
        """The index rebuilt from the chunks that are intact, and metadata; the other streams if all of them are."""
        entries: list[Entry] = []
        before = b""
        for offset, kind, payload in self._walk(salvage=True):
            self.complete = (before, kind) == (INDEX, TRAILER)
            before, end = kind, offset + FRAMING_BYTES + len(payload)
            if kind in (STREAMS, PART):
                self.video_bytes -= FRAMING_BYTES + len(payload)
            if kind == CHUNK:
                try:
                    chunk = Chunk.unpack(payload, self.header)
                except BitstreamError:
                    self.damage.append((offset, end))
                    continue
                if entries and chunk.pts[0] < entries[-1].end_pts:
                    self.damage.append((offset, end))
                    continue
                entries.append(Entry.of(chunk, offset, FRAMING_BYTES + len(payload)))
            elif kind == METADATA:
                try:
                    self._open_metadata(payload)
                except BitstreamError as error:
                    self.damage.append((offset, end))
                    log.warning("metadata is left out: %s", error)
            elif kind == INDEX:
                with contextlib.suppress(BitstreamError):
                    self.promised = list(unpack_index(payload, self._start))
            elif kind == STREAMS:
                try:
                    self._open_streams(offset)
                except BitstreamError:
                    log.warning("the other streams (sound, subtitles) are cut off and left out")
        streams = self.streams()
        if streams is not None:
            try:
                while streams[1].read(PART_BYTES):
                    pass
            except BitstreamError:  # the walk has counted the damage
                log.warning("the other streams (sound, subtitles) are damaged and left out")
                self._streams = None
        return entries


class _Parts(io.RawIOBase):
    """The pieces of the other streams as one file."""

    def __init__(self, read_part: Callable[[int], bytes], length: int, offset: int) -> None:
        self._read_part = read_part
        self._length = length
        self._offset = offset
        self._position = 0
        self._held: tuple[int, bytes] = -1, b""  # the last piece read, by number

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        number, start = divmod(self._position, PART_BYTES)
        if self._position >= self._length or not view:
            return 0
        if self._held[0] != number:
            offset = self._offset + number * (PART_BYTES + FRAMING_BYTES)
            part = self._read_part(offset)
            if len(part) != min(PART_BYTES, self._length - number * PART_BYTES):
                raise BitstreamError(f"a piece of the other streams at byte {offset} has a wrong length")
            self._held = number, part
        piece = self._held[1][start : start + len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
