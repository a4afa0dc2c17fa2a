"""A long video coded in pieces by several workers, joined to the stream that one worker would write.

A piece is a run of whole sections (codec/chunking.py), found by the timestamps of its first and next frame; every
piece is decoded from the key frame before it. The other streams (audio, subtitles) are taken from the source once, by
`join`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from tokcodec import video
from tokcodec.codec import encode_video
from tokcodec.codec.chunking import chunk_frames_for, section_frames_for
from tokcodec.codec.headers import metadata_of
from tokcodec.compute import Compute
from tokcodec.errors import TokcodecError
from tokcodec.io import output
from tokcodec.io.files import temporary_file
from tokcodec.rate import Rate
from tokcodec.report import Progress, Report, report_of
from tokcodec.stream.container import Rest, write_stream
from tokcodec.stream.profile import Profile
from tokcodec.stream_reader import chunks_of, reading


@dataclasses.dataclass(frozen=True)
class Piece:
    """Frames with a timestamp in [begin, end) ticks of the source's clock; end None is its end."""

    begin: int
    end: int | None
    frames: int


def plan(source: Path, chunks: int, filters: video.Filters = video.UNFILTERED) -> list[Piece]:
    """Where to cut a video.

    Args:
        source: a video file.
        chunks: of a piece, at least, made up to whole sections; the last piece has up to twice as many.
        filters: what is done to the frames; the same for all that is done with the pieces.

    Returns:
        Pieces in order; none if the video is too short, or its packets do not tell the timestamps of its frames.

    Raises:
        VideoError: the source cannot be read.
    """
    with video.VideoReader(source, filters=filters) as reader:
        size = reader.info.height, reader.info.width
        section = section_frames_for(*size)
        length = -(-chunks * chunk_frames_for(*size) // section) * section
        if (reader.info.frames or 0) < 2 * length:
            return []
        times = reader.times()
    starts = list(range(0, len(times) - length + 1, length))
    if len(starts) < 2:
        return []
    edges = [*starts[1:], len(times)]
    ends: list[int | None] = [*(times[edge] for edge in starts[1:]), None]
    return [Piece(times[start], end, edge - start) for start, edge, end in zip(starts, edges, ends, strict=True)]


def encode_piece(
    source: Path,
    target: Path,
    piece: Piece,
    *,
    rate: Rate,
    profile: Profile | None = None,
    weights: Path,
    compute: Compute,
    filters: video.Filters = video.UNFILTERED,
    progress: Progress | None = None,
) -> Report:
    """Encode one piece to a stream without metadata and other streams.

    Raises:
        TokcodecError: as `encode_video`; also if the piece has not the frames that were planned, or is damaged.
        ValueError: the rate is of the whole.
    """
    if rate.is_of_the_whole:
        raise ValueError("a rate of the whole cannot be met in pieces")
    made = encode_video(
        source,
        target,
        rate=rate,
        profile=profile,
        weights=weights,
        compute=compute,
        span=(piece.begin, piece.end),
        filters=filters,
        overwrite=True,
        progress=progress,
    )
    if made.frames != piece.frames:
        raise TokcodecError(f"{source}: {made.frames} frames where its packets promise {piece.frames}")
    if made.damaged:  # the whole is to report it, which this piece's stream could not
        raise TokcodecError(f"{source}: damaged")
    return made


def join(source: Path, pieces: Sequence[Path], target: Path, filters: video.Filters = video.UNFILTERED) -> Report:
    """Make the stream of the whole: byte for byte what `encode_video` makes of the source.

    Args:
        source: the video; its metadata and other streams are copied.
        pieces: streams of all its pieces, in order.
        target: the stream.
        filters: as the pieces were made with.

    Raises:
        TokcodecError: the pieces do not fit each other, or as `encode_video`.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reading(piece)) for piece in pieces]
        header = readers[0].header
        if any(reader.header != header for reader in readers):
            raise TokcodecError(f"{source}: its size or colour changes on the way")
        file = stack.enter_context(output.writing(target, [source]))
        side = stack.enter_context(temporary_file())
        with video.VideoReader(source, side=side, filters=filters) as whole:
            whole.skip()
        chunks = (chunk for reader in readers for chunk in chunks_of(reader))
        rest: Rest = (metadata_of(whole.info), (whole.side_format, side) if whole.side_format else None)
        writer = write_stream(file, header, chunks, lambda: rest)
    return report_of(header, writer.index, writer.bytes, writer.video_bytes, started, whole.damaged)
