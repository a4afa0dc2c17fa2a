"""Stream to video file. Reading, the coding loop, the network and writing overlap, a few groups of frames ahead."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokcodec import video
from tokcodec.arguments import check_choices
from tokcodec.codec.headers import video_info_of
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import TokcodecError
from tokcodec.io import output
from tokcodec.io.files import temporary_file
from tokcodec.pipeline import blas_limited, in_background
from tokcodec.report import Progress, Report, report_of
from tokcodec.stream.container import Reader, Rest
from tokcodec.stream.records import Entry
from tokcodec.stream_reader import AHEAD_PX, Stream, checked_streams, overlapping, reading, span_ticks, tokenizer_of


def decode_video(
    source: str | Path,
    target: str | Path | BinaryIO,
    *,
    codec: str | None = None,
    crf: float | None = None,
    lossless: bool = False,
    stdout_format: str = "y4m",
    salvage: bool = False,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    start_s: float = 0.0,
    duration_s: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Decode a .tokc stream to a video file.

    Args:
        source: the stream; "-" reads stdin.
        target: .mp4, .mov or .mkv (H.264, the other streams copied in), .webm (VP9 or AV1, with Opus or Vorbis), .gif,
            .webp, .y4m, a pattern of images (`frames/%05d.png`, .jpg), a single .png or .jpg for the first frame, or
            "-" for stdout. It appears when it is whole. Or a binary file, such as a pipe.
        codec: FFmpeg's name of an encoder, for .mp4, .mov, .mkv and .webm; None takes libx264, for .webm VP9 or AV1.
        crf: of the encoder, 0 (best) to 51; None takes 12 for libx264 and the like of it for others.
        lossless: FFV1 in RGB, for .mkv.
        stdout_format: "y4m" or "rgb24", for "-" and for a binary file; for the latter also "mkv".
        salvage: decode every intact chunk of a damaged stream.
        weights: safetensors file; the released ones if None. They must be those of the stream.
        compute: device, arithmetic, restorer and threads.
        start_s: where to begin, in seconds from the first frame; the first frame then becomes time 0.
        duration_s: how much to decode; None for all.
        overwrite: replace a target that exists.
        progress: called after each frame with frames done, their share of the bytes, frames in all, pixels a frame.

    Returns:
        A report of the chunks that were read; `frames` counts those that were written.

    Raises:
        BitstreamError: the source is no stream, or damaged (without `salvage`).
        ModelError: the weights cannot be used or are not the stream's.
        VideoError: the target cannot be written.
        TokcodecError: source or target cannot be opened.
        ValueError: an argument is out of range, or options do not fit together.
    """
    check_choices(crf=crf)
    if stdout_format not in ("y4m", "rgb24", "mkv"):
        raise ValueError(f"stdout_format must be y4m, rgb24 or mkv, not {stdout_format!r}")
    started = time.monotonic()
    end_s = None if duration_s is None else start_s + duration_s
    with contextlib.ExitStack() as stack:
        stack.enter_context(blas_limited(compute.threads))
        reader = stack.enter_context(reading(Path(source), salvage))
        header = reader.header
        wanted = overlapping(reader, start_s, end_s)
        place, format, label = stack.enter_context(_placed(target, Path(source), stdout_format, overwrite))
        tokenizer = tokenizer_of(reader, weights, compute).counted()
        stream = Stream(Path(source), reader, lambda: tokenizer)
        ahead = max(4, AHEAD_PX // (header.height * header.width))
        frames = in_background(stream.frames(start_s, end_s), depth=ahead)
        stack.enter_context(contextlib.closing(frames))
        first = next(frames, None)
        if first is None:
            raise TokcodecError(f"{source}: no frames from {start_s:g} s")
        begin = first[1] if start_s > 0 else None
        end = None if end_s is None else span_ticks(reader, start_s, end_s)[1]
        shift = -(begin or 0)
        metadata, streams = stack.enter_context(_rest_of(reader, begin, end, shift))
        writer = stack.enter_context(
            video.VideoWriter(
                place,
                video_info_of(header, metadata),
                format=format,
                lossless=lossless,
                codec=codec,
                crf=crf,
                side=None if streams is None else (streams[1], streams[0]),
                threads=compute.threads or 0,
                name=label,
            )
        )
        index = [reader.index[i] for i in wanted]
        size, video_bytes = _bytes_of(reader, index)
        total, count = stream.count(start_s, end_s), 0
        for frame, pts, duration in itertools.chain([first], frames):
            writer.write(frame, pts + shift, duration)
            if writer.is_full:
                break
            count += 1
            if progress:
                progress(count, video_bytes * count // total, total, header.width * header.height)
    made = report_of(header, index, size, video_bytes, started, reader.damaged)
    return dataclasses.replace(made, frames=count, **tokenizer.usage())


def _bytes_of(reader: Reader, index: list[Entry]) -> tuple[int, int]:
    """Of some chunks, and of the video in them; of all chunks those of the whole file."""
    if len(index) == len(reader.index):
        return reader.bytes, reader.video_bytes
    size = sum(entry.bytes for entry in index)
    return size, size


@contextlib.contextmanager
def _placed(
    target: str | Path | BinaryIO, source: Path, stdout_format: str, overwrite: bool
) -> Iterator[tuple[str | Path | BinaryIO, str | None, str]]:
    """Where a video is written, its format (None: by its name) and what messages call it; a file appears at the end."""
    if not isinstance(target, (str, Path)):
        yield target, stdout_format, "output"
    elif str(target) == "-":
        yield "-", stdout_format, "stdout"
    else:
        path = Path(target)
        format = video.kind_of(path)
        is_pattern = video.is_pattern(path)
        with (
            output.replacing_pattern(path, overwrite)
            if is_pattern
            else output.replacing(path, [source], overwrite) as place
        ):
            yield place, format, str(target)


@contextlib.contextmanager
def _rest_of(reader: Reader, begin: int | None, end: int | None, shift: int) -> Iterator[Rest]:
    """Metadata and other streams, those of [begin, end) ticks (None: no limit), moved by `shift` ticks."""
    metadata, streams = reader.metadata, checked_streams(reader)
    if begin is None and end is None:
        yield metadata, streams
        return
    metadata = metadata.cut(begin, end, shift)
    if streams is None:
        yield metadata, None
        return
    tick_s = reader.header.time_base
    begin_s, end_s = (None if ticks is None else ticks * tick_s for ticks in (begin, end))
    with temporary_file() as part:
        name = video.cut_streams([(*streams, begin_s, end_s, shift * tick_s)], part)
        yield metadata, None if name is None else (name, part)
