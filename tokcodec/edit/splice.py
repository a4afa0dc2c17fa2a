"""Streams cut and joined, whole chunks at a time: they decode alone."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from tokcodec import output
from tokcodec.errors import BitstreamError, TokcodecError
from tokcodec.files import temporary_file
from tokcodec.opening import checked_streams, named, overlapping, reading, span_ticks
from tokcodec.report import Report, report_of
from tokcodec.stream.container import Reader, Rest, Writer, write_stream
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.records import Chunk, Header


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

    With a start, time begins at 0 in the result. Chapters are cut likewise, and the other streams to whole packets;
    without a duration, what they have after the last frame stays.

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
        made = _join(file, reader.header, [part])
        return report_of(reader.header, made.index, made.bytes, made.video_bytes, started, reader.damaged)


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
            try:
                yield dataclasses.replace(chunk, pts=tuple(pts + self.shift for pts in chunk.pts))
            except ValueError as error:  # beyond what a stream's clock counts
                raise TokcodecError(f"{self.source}: {error}") from error

    def metadata(self) -> Metadata:
        return self.reader.metadata.cut(self.begin, self.end, self.shift)

    def span(self) -> tuple[Fraction | None, Fraction | None, Fraction]:
        """Begin, end and shift in seconds, for the packets of the other streams."""
        time_base = self.reader.header.time_base
        begin, end = (None if ticks is None else ticks * time_base for ticks in (self.begin, self.end))
        return begin, end, self.shift * time_base


def _join(file: BinaryIO, header: Header, parts: list[_Part]) -> Writer:
    """Write the parts one after another, their chapters and other streams with them."""
    try:
        chapters = [chapter for part in parts for chapter in part.metadata().chapters]
        metadata = dataclasses.replace(parts[0].reader.metadata, chapters=tuple(chapters))
    except ValueError as error:
        raise TokcodecError(f"the chapters of all streams do not fit one: {error}") from error
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
        return write_stream(file, header, chunks, lambda: (metadata, None))
    from tokcodec.video import cut_streams  # FFmpeg is needed only where there are other streams

    with temporary_file() as joined:
        name = cut_streams(cuts, joined)
        rest: Rest = (metadata, None if name is None else (name, joined))
        return write_stream(file, header, chunks, lambda: rest)


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
        end, parts = readers[0].index[0].first_pts, []
        for source, reader in zip(sources, readers, strict=True):
            for field in dataclasses.fields(Header):
                ours, first = getattr(reader.header, field.name), getattr(headers[0], field.name)
                if field.name not in ("chunk_frames", "frame_rate") and ours != first:
                    raise TokcodecError(f"{source}: its {field.name} is not that of {sources[0]}")
            first, last = reader.index[0].first_pts, reader.index[-1].end_pts
            is_first, is_last = reader is readers[0], reader is readers[-1]
            edges = (None if is_first else first, None if is_last else last)
            parts.append(_Part(source, reader, list(range(len(reader.index))), end - first, *edges))
            end += last - first
        widest = dataclasses.replace(headers[0], chunk_frames=max(h.chunk_frames for h in headers))
        file = stack.enter_context(output.writing(target, list(sources), overwrite))
        made = _join(file, widest, parts)
    return report_of(widest, made.index, made.bytes, made.video_bytes, started)
