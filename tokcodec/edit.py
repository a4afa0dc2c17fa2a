"""Stream to stream without the network: describe, verify, trim, concat.

Chunks decode alone, so whole ones can be cut and joined. Pixels are never touched, and torch is never imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from tokcodec import output
from tokcodec.colour import colour_name
from tokcodec.errors import BitstreamError, TokcodecError
from tokcodec.opening import (
    checked_streams,
    chunks_of,
    named,
    opened,
    overlapping,
    reading,
    span_ticks,
    tokenizer_of,
    tokens_of,
)
from tokcodec.report import Report, report
from tokcodec.stream.container import Reader, Writer
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.records import VERSION, Chunk, Entry, Header


def describe(source: Path, *, salvage: bool = False) -> dict[str, Any]:
    """What a stream says of itself, as plain values in a fixed order. Reads all of it.

    Args:
        source: a stream.
        salvage: describe what is intact of a damaged stream. The last values are then `fault`, what is wrong first;
            `damage`, lists of the first byte and the one after the last of what cannot be read; `missing_s`, lists of
            begin and end of what cannot be shown, in seconds on the clock of the stream, None where that is not
            known; and `promised_chunks`, how many there were, None where that is not known.

    Raises:
        BitstreamError: it is damaged, with `salvage` so much that nothing can be shown.
        TokcodecError: it cannot be read.
    """
    with opened(source) as file:
        try:
            try:
                return _facts(source, Reader(file))
            except BitstreamError as error:
                if not salvage:
                    raise
                fault = error
            reader = Reader(file, salvage=True)
            return _facts(source, reader) | {
                "fault": str(fault),
                "damage": [list(place) for place in reader.damage],
                "missing_s": [
                    [None if ticks is None else round(float(ticks * reader.header.time_base), 6) for ticks in span]
                    for span in _missing(reader)
                ],
                "promised_chunks": None if reader.promised is None else len(reader.promised),
            }
        except BitstreamError as error:
            raise named(source, error) from error


def _missing(reader: Reader) -> list[tuple[int | None, int | None]]:
    """Begin and end in ticks of what a damaged stream does not show; None for an end that is not known."""
    shown = [(entry.first_pts, entry.end_pts) for entry in reader.index]
    if reader.promised is not None:
        spans: list[tuple[int | None, int | None]] = []
        for entry in reader.promised:
            if (entry.first_pts, entry.end_pts) in shown:
                continue
            if spans and spans[-1][1] == entry.first_pts:
                spans[-1] = (spans[-1][0], entry.end_pts)
            else:
                spans.append((entry.first_pts, entry.end_pts))
        return spans
    first = reader.index[0].offset
    begin = [(None, shown[0][0])] if any(place < first for place, _ in reader.damage) else []
    between = [(a[1], b[0]) for a, b in itertools.pairwise(shown) if a[1] < b[0]]
    return [*begin, *between, (shown[-1][1], None)]


def _facts(source: Path, reader: Reader) -> dict[str, Any]:
    """What `describe` tells of a stream that is open."""
    header = reader.header
    if not reader.index:
        raise BitstreamError("no frames" if reader.complete else "no intact chunk")
    facts = dataclasses.asdict(report(header, reader.index, reader.bytes, reader.video_bytes, time.monotonic()))
    for of_a_run in ("seconds", "network_s", "peak_vram_bytes", "damaged"):
        del facts[of_a_run]
    motion_bytes = levels_bytes = 0
    for chunk in chunks_of(reader):
        motion_bytes += len(chunk.motion)
        levels_bytes += len(chunk.levels)
    streams = checked_streams(reader)
    described = None
    if streams is not None:
        from tokcodec.video import describe_streams  # FFmpeg is needed only where there are other streams

        described = {"format": streams[0], "streams": describe_streams(*streams)}
    return {
        "file": str(source),
        "format_version": VERSION,
        **facts,
        "motion_bytes": motion_bytes,
        "levels_bytes": levels_bytes,
        "frame_rate": round(float(header.frame_rate), 6),
        "time_base": str(header.time_base),
        "sample_aspect": str(header.sample_aspect),
        "rotation": 90 * header.rotation,
        "mirrored": header.mirrored,
        "colour": colour_name(header.primaries, header.transfer, header.matrix),
        "full_range": header.full_range,
        "chunk_frames": header.chunk_frames,
        "weights_sha256": header.weights_sha256.hex(),
        "other_streams": described,
        "language": reader.metadata.language,
        "tags": reader.metadata.tags,
        "chapters": len(reader.metadata.chapters),
    }


def verify(source: Path, *, weights: str | Path | None = None) -> Report:
    """Read every byte of a stream: checksums, and that all tokens decode.

    Args:
        source: a stream.
        weights: its weights, for their coder tables; the released ones if None.

    Raises:
        BitstreamError: something is wrong with it.
        ModelError: the weights are not the stream's.
        TokcodecError: it cannot be read.
    """
    started = time.monotonic()
    with reading(source) as reader:
        height, width = reader.header.height, reader.header.width
        tables = tokenizer_of(reader, weights).tables
        for chunk in chunks_of(reader):
            tokens_of(chunk, height, width, tables)
        checked_streams(reader)
        return report(reader.header, reader.index, reader.bytes, reader.video_bytes, started)


def write(
    file: BinaryIO,
    header: Header,
    chunks: Iterable[Chunk],
    metadata: Metadata,
    streams: tuple[str, BinaryIO] | None,
) -> tuple[list[Entry], int, int]:
    """Write a whole stream; returns its index, its bytes, and those without the other streams."""
    writer = Writer(file, header)
    for chunk in chunks:
        writer.write_chunk(chunk)
    return finish(writer, metadata, streams)


def finish(writer: Writer, metadata: Metadata, streams: tuple[str, BinaryIO] | None) -> tuple[list[Entry], int, int]:
    """Write what stands behind the chunks; returns what `write` does."""
    if metadata != Metadata():
        writer.write_metadata(metadata)
    if streams is not None:
        writer.write_streams(streams[1], streams[0])
    writer.close()
    return writer.index, writer.bytes, writer.video_bytes


def trim(
    source: Path,
    target: str | Path,
    start_s: float = 0.0,
    duration_s: float | None = None,
    *,
    salvage: bool = False,
    overwrite: bool = False,
) -> Report:
    """Cut a stream at the edges of its chunks: every chunk that overlaps the span is kept.

    Time starts at 0 in the result, unless nothing is cut in front. Chapters are cut likewise, and the other streams to
    whole packets; where nothing is cut off the end, what they have after the last frame stays.

    Args:
        source: a stream.
        target: a stream; "-" is stdout.
        start_s: of the span, in seconds after the first frame.
        duration_s: of the span; None for all that follows.
        salvage: take every intact chunk of a damaged stream, each at its time, and leave the rest out.
        overwrite: replace a target that exists.

    Raises:
        TokcodecError: the source is damaged (with `salvage` wholly), has no frame in the span, or the target cannot
            be written.
    """
    started = time.monotonic()
    with reading(source, salvage) as reader, output.writing(target, [source], overwrite) as file:
        wanted = overlapping(reader, start_s, duration_s)
        if not wanted:
            raise TokcodecError(f"{source}: no frames in the span")
        shift = -reader.index[wanted[0]].first_pts if start_s > 0 else 0
        end = (
            None
            if duration_s is None
            else max(span_ticks(reader, start_s, duration_s)[1], reader.index[wanted[-1]].end_pts)
        )
        part = _Part(source, reader, wanted, shift, None if start_s <= 0 else -shift, end)
        return report(reader.header, *_join(file, reader.header, [part]), started, reader.damaged)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Consecutive chunks of a stream, and what of its chapters and other streams goes with them."""

    source: Path
    reader: Reader
    chunks: list[int]
    shift: int  # ticks by which they move
    begin: int | None  # in ticks, as end; None for all before or after
    end: int | None

    def moved(self) -> Iterator[Chunk]:
        for i in self.chunks:
            try:
                chunk = self.reader.read_chunk(i)
            except BitstreamError as error:
                raise named(self.source, error) from error
            yield dataclasses.replace(chunk, pts=tuple(pts + self.shift for pts in chunk.pts))

    def metadata(self) -> Metadata:
        return self.reader.metadata.cut(self.begin, self.end, self.shift)

    def span(self) -> tuple[Fraction | None, Fraction | None, Fraction]:
        """Begin, end and shift in seconds, for the packets of the other streams."""
        time_base = self.reader.header.time_base
        begin, end = (None if ticks is None else ticks * time_base for ticks in (self.begin, self.end))
        return begin, end, self.shift * time_base


def _join(file: BinaryIO, header: Header, parts: list[_Part]) -> tuple[list[Entry], int, int]:
    """Write the parts one after another, their chapters and other streams with them; returns what `write` does."""
    metadata = parts[0].reader.metadata
    chapters = [chapter for part in parts for chapter in part.metadata().chapters]
    try:
        metadata = dataclasses.replace(metadata, chapters=tuple(chapters))
    except ValueError as error:
        raise TokcodecError(f"the chapters of all streams are too many: {error}") from error
    chunks = (chunk for part in parts for chunk in part.moved())
    cuts = []
    for part in parts:
        try:
            streams = checked_streams(part.reader)
        except BitstreamError as error:
            raise named(part.source, error) from error
        if streams is not None:
            cuts.append((*streams, *part.span()))
    if not cuts:
        return write(file, header, chunks, metadata, None)
    from tokcodec.video import cut_streams  # FFmpeg is needed only where there are other streams

    with tempfile.TemporaryFile() as joined:
        name = cut_streams(cuts, joined)
        return write(file, header, chunks, metadata, None if name is None else (name, joined))


def concat(sources: Sequence[Path], target: str | Path, *, overwrite: bool = False) -> Report:
    """Join streams: each begins where the one before it ends. Tags and language are those of the first.

    What other streams and chapters have beyond the first and the last frame is kept at the two ends of the whole.

    Args:
        sources: streams that agree in weights, frame size, time base, aspect, rotation and colour.
        target: a stream; "-" is stdout.
        overwrite: replace a target that exists.

    Raises:
        TokcodecError: a source is damaged or does not fit the first, or the target cannot be written.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reading(source)) for source in sources]
        headers = [reader.header for reader in readers]
        widest = dataclasses.replace(headers[0], chunk_frames=max(h.chunk_frames for h in headers))
        end, parts = readers[0].index[0].first_pts, []
        for source, reader in zip(sources, readers, strict=True):
            for field in dataclasses.fields(Header):
                ours, first = getattr(reader.header, field.name), getattr(widest, field.name)
                if field.name not in ("chunk_frames", "frame_rate") and ours != first:
                    raise TokcodecError(f"{source}: its {field.name} is not that of {sources[0]}")
            first, last = reader.index[0].first_pts, reader.index[-1].end_pts
            is_first, is_last = reader is readers[0], reader is readers[-1]
            edges = (None if is_first else first, None if is_last else last)
            parts.append(_Part(source, reader, list(range(len(reader.index))), end - first, *edges))
            end += last - first
        file = stack.enter_context(output.writing(target, list(sources), overwrite))
        written = _join(file, widest, parts)
    return report(widest, *written, started)
