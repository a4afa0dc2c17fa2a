"""Streams cut and joined: whole chunks are kept, and frames of them that are not wanted are hidden."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from tokcodec.arguments import check_stream_name
from tokcodec.clock import Spans, merged
from tokcodec.errors import BitstreamError, TokcodecError
from tokcodec.io import output
from tokcodec.io.files import temporary_file
from tokcodec.report import Report, report_of
from tokcodec.stream.container import Reader, Rest, Writer, write_stream
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.records import Chunk, Header
from tokcodec.stream_reader import checked_streams, framed, holding, named, reading, shown_of, span_ticks


def trim(
    source: str | Path,
    target: str | Path,
    start_s: float = 0.0,
    duration_s: float | None = None,
    *,
    salvage: bool = False,
    overwrite: bool = False,
) -> Report:
    """Cut a stream to the frames of a span: those that `decode_video` gives of it.

    Nothing is coded again: chunks that overlap the span are kept whole, and what they have besides is hidden
    (`Metadata.shown`). With a start, time begins at 0 in the result. Chapters are cut likewise, and the other streams
    to whole packets; without a duration, what they have after the last frame stays.

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
        ValueError: the target's suffix is that of another kind of file.
    """
    check_stream_name(target)
    started, source = time.monotonic(), Path(source)
    with reading(source, salvage) as reader, output.writing(target, [source], overwrite) as file:
        end_s = None if duration_s is None else start_s + duration_s
        shown, (begin, end) = shown_of(reader), span_ticks(reader, start_s, end_s)
        spans, frames = framed(reader, shown.part(begin, end))
        first = shown.place(spans[0][0]) if spans else None
        if first is None:
            raise TokcodecError(f"{source}: no frames in the span")
        shift = -first[0] if start_s > 0 else 0
        edges = None if start_s <= 0 else -shift, None if end_s is None else end
        moved = first[0] + shift - spans[0][0]
        part = _Part(source, reader, holding(reader, spans), merged(spans), moved, shift, *edges)
        made = _join(file, reader.header, [part])
        length = frames, sum(end - begin for begin, end in spans)
        return report_of(reader.header, made.index, made.bytes, made.video_bytes, started, reader.damaged, shown=length)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Consecutive chunks of a stream, and what of its chapters and other streams goes with them."""

    source: Path
    reader: Reader
    chunks: list[int]
    spans: Spans  # of their ticks, what is shown
    moved_by: int  # ticks by which they move
    shift: int  # ticks by which what goes with them moves, on the clock of what is shown
    begin: int | None  # of that, in ticks, as end; None for all before or after
    end: int | None

    def moved(self) -> Iterator[Chunk]:
        for i in self.chunks:
            try:
                chunk = self.reader.read_chunk(i)
            except BitstreamError as error:
                raise named(self.source, error) from error
            try:
                yield dataclasses.replace(chunk, pts=tuple(pts + self.moved_by for pts in chunk.pts))
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
        shown = merged((begin + part.moved_by, end + part.moved_by) for part in parts for begin, end in part.spans)
        first, last = (part.reader.index[part.chunks[i]] for part, i in ((parts[0], 0), (parts[-1], -1)))
        if shown == ((first.first_pts + parts[0].moved_by, last.end_pts + parts[-1].moved_by),):
            shown = ()
        metadata = dataclasses.replace(parts[0].reader.metadata, chapters=tuple(chapters), shown=shown)
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


def concat(sources: Sequence[str | Path], target: str | Path, *, overwrite: bool = False) -> Report:
    """Join streams: each begins where the one before it ends. Tags and language are those of the first.

    What other streams and chapters have beyond the first and the last frame is kept at the two ends of the whole.

    Args:
        sources: streams that agree in weights, frame size, time base, aspect, rotation and colour.
        target: a stream; "-" is stdout.
        overwrite: replace a target that exists.

    Raises:
        ValueError: there is no source, or the target's suffix is that of another kind of file.
        TokcodecError: a source is damaged or does not fit the first, or the target cannot be written.
    """
    started, paths = time.monotonic(), [Path(source) for source in sources]
    check_stream_name(target)
    if not paths:
        raise ValueError("there is no stream to join")
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reading(source)) for source in paths]
        headers = [reader.header for reader in readers]
        parts, frames = list[_Part](), 0
        coded_end, end = readers[0].index[0].first_pts, shown_of(readers[0]).begin  # of what is joined so far
        for source, reader in zip(paths, readers, strict=True):
            for field in dataclasses.fields(Header):
                ours, theirs = getattr(reader.header, field.name), getattr(headers[0], field.name)
                if field.name not in ("chunk_frames", "frame_rate") and ours != theirs:
                    raise TokcodecError(f"{source}: its {field.name} is not that of {paths[0]}")
            shown, first, last = shown_of(reader), reader.index[0].first_pts, reader.index[-1].end_pts
            is_first, is_last = reader is readers[0], reader is readers[-1]
            edges = (None if is_first else shown.begin, None if is_last else shown.end)
            whole = list(range(len(reader.index)))
            parts.append(_Part(source, reader, whole, shown.spans, coded_end - first, end - shown.begin, *edges))
            frames += framed(reader, shown.spans)[1]
            coded_end, end = coded_end + last - first, end + shown.end - shown.begin
        widest = dataclasses.replace(headers[0], chunk_frames=max(h.chunk_frames for h in headers))
        file = stack.enter_context(output.writing(target, paths, overwrite))
        made = _join(file, widest, parts)
    length = frames, sum(end - begin for part in parts for begin, end in part.spans)
    return report_of(widest, made.index, made.bytes, made.video_bytes, started, shown=length)
