"""What a stream says of itself, and whether all of it is in order."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from pathlib import Path
from typing import Any

from tokcodec.colour import colour_name
from tokcodec.errors import BitstreamError, VideoError
from tokcodec.report import Progress, Report, report_of
from tokcodec.stream.container import Reader
from tokcodec.stream.profile import name_of
from tokcodec.stream.records import VERSION
from tokcodec.stream_reader import (
    checked_streams,
    chunks_of,
    framed,
    frames_of,
    named,
    opened,
    reading,
    shown_of,
    tokenizer_of,
)

log = logging.getLogger("tokcodec")


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
        known = set(shown)
        for entry in reader.promised:
            if (entry.first_pts, entry.end_pts) in known:
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
    """What `describe` says of a stream that is open."""
    header = reader.header
    if not reader.index:
        raise BitstreamError("no frames" if reader.complete else "no intact chunk")
    now, shown = time.monotonic(), shown_of(reader)
    frames = framed(reader, shown.spans)[1]
    length = frames, shown.end - shown.begin
    facts = dataclasses.asdict(
        report_of(header, reader.index, reader.bytes, reader.video_bytes, now, shown=length if frames else None)
    )
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

        try:
            found = describe_streams(*streams)
        except VideoError as error:
            log.warning("%s: %s", source, error)
            found = []
        described = {"format": streams[0], "streams": found}
    return {
        "file": str(source),
        "format_version": VERSION,
        "profile": name_of(header.profile),
        "bits": header.profile.bits if header.profile else None,
        "depth": header.profile.depth if header.profile else None,
        **facts,
        "hidden_frames": sum(entry.frames for entry in reader.index) - frames,
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


def verify(source: str | Path, *, weights: str | Path | None = None, progress: Progress | None = None) -> Report:
    """Read every byte of a stream: checksums, and that all tokens decode.

    Args:
        source: a stream.
        weights: its weights, for their coder tables; the released ones if None.
        progress: called after each chunk with frames read, bytes read, frames in all, pixels a frame.

    Raises:
        BitstreamError: something is wrong with it.
        ModelError: the weights are not the stream's.
        TokcodecError: it cannot be read.
    """
    started = time.monotonic()
    with reading(Path(source)) as reader:
        header = reader.header
        tables = tokenizer_of(reader, weights).tables
        total, done, size = sum(entry.frames for entry in reader.index), 0, 0
        for chunk, entry in zip(chunks_of(reader), reader.index, strict=True):
            for i, _ in enumerate(frames_of(chunk, header, tables), 1):
                if progress:
                    progress(done + i, size + entry.bytes * i // chunk.frames, total, header.height * header.width)
            done, size = done + chunk.frames, size + entry.bytes
        checked_streams(reader)
        return report_of(header, reader.index, reader.bytes, reader.video_bytes, started)
