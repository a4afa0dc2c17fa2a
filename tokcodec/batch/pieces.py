"""A long video coded in pieces by several workers, joined to the stream that one worker would write.

A piece is a run of whole chunks, found by the timestamps of its first and next frame; every piece is decoded
from the key frame before it. The other streams (audio, subtitles) are taken from the source once, by `join`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tokcodec import bitstream, output, video
from tokcodec.codec import CHUNK_FRAMES, encode_video
from tokcodec.edit import Rate, Report, chunks_of, reading, report, thin_stream
from tokcodec.errors import TokcodecError
from tokcodec.network import Network


@dataclasses.dataclass(frozen=True)
class Piece:
    """Frames with a timestamp in [begin, end) ticks of the source's clock; end None is its end."""

    begin: int
    end: int | None
    frames: int


def plan(source: Path, network: Network, chunks: int) -> list[Piece]:
    """Where to cut a video.

    Args:
        source: a video file.
        network: that will code it; chunks it codes side by side stay together.
        chunks: of a piece, at least; the last piece has up to twice as many.

    Returns:
        Pieces in order; none if the video is too short, or its packets do not tell the timestamps of its frames.

    Raises:
        VideoError: the source cannot be read.
    """
    with video.VideoReader(source) as reader:
        group = network.group(CHUNK_FRAMES, reader.info.height, reader.info.width)
        length = -(-chunks // group) * group * CHUNK_FRAMES
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
    source: Path, target: Path, piece: Piece, *, rate: Rate, weights: Path, device: str, dtype: str
) -> Report:
    """Encode one piece to a stream without other streams; a rate in bytes or bits/s is left to `join`.

    Raises:
        TokcodecError: as `encode_video`; also if the piece has not the frames that were planned.
    """
    made = encode_video(
        source,
        target,
        rate=Rate() if rate.is_target else rate,
        weights=weights,
        device=device,
        dtype=dtype,
        span=(piece.begin, piece.end),
        overwrite=True,
    )
    if made.frames != piece.frames:
        raise TokcodecError(f"{source}: {made.frames} frames where its packets promise {piece.frames}")
    return made


def join(source: Path, pieces: Sequence[Path], target: Path, *, rate: Rate) -> Report:
    """Make the stream of the whole: byte for byte what `encode_video` makes of the source.

    Args:
        source: the video; its other streams are copied.
        pieces: streams of all its pieces, in order.
        target: the stream.
        rate: of the whole.

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
        side = stack.enter_context(tempfile.TemporaryFile())
        full = stack.enter_context(tempfile.TemporaryFile()) if rate.is_target else file
        writer = bitstream.Writer(full, header)
        for reader in readers:
            for chunk in chunks_of(reader):
                writer.write_chunk(chunk)
        with video.VideoReader(source, side=side) as whole:
            whole.skip()
            if whole.side_format:
                writer.write_streams(side, whole.side_format)
        writer.close()
        written = writer.index, writer.bytes, writer.video_bytes
        if rate.is_target:
            written = thin_stream(bitstream.Reader(full), file, rate)
    return report(header, *written, started)
