"""File to file: video -> network -> entropy coder -> stream, and back.

Reading, coding and writing run in threads of their own (pipeline.py). Memory is bounded by the frame
size, whatever the length: a few chunks of frames are held, never a film. What needs no network (thin, trim,
concat, tokens) is in edit.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokcodec import bitstream, output, video
from tokcodec.bitstream import Chunk, Header
from tokcodec.cuts import cuts
from tokcodec.edit import (
    DEFAULT_RATE,
    Rate,
    Report,
    checked_streams,
    overlapping,
    reading,
    report,
    span_ticks,
    thin_stream,
)
from tokcodec.errors import TokcodecError
from tokcodec.network import Bits, Frames, Network, find_weights, load_network
from tokcodec.pipeline import in_background

Progress = Callable[[int, int, int | None, int], None]  # frames done, bytes, frames in all if known, pixels a frame

CHUNK_FRAMES = 33


class _Group(NamedTuple):
    """Chunks of equal length on their way to the network."""

    frames: Frames  # [B, T, H, W, 3]
    pts: list[tuple[int, ...]]
    durations: list[int]


def _groups(reader: video.VideoReader, group: int) -> Generator[_Group, None, None]:
    """Cut a video into chunks: every CHUNK_FRAMES, and where scenes change. Closes it.

    The first kind stands at the same frames whatever lies between them, so that pieces of a video
    (batch/pieces.py) have the chunks of the whole. Neighbours of equal length come in one group.
    """
    frames: list[Frames] = []
    times: list[int] = []

    def groups(after: int) -> Iterator[_Group]:
        """Of the frames held; `after` is the timestamp that follows them."""
        taken, pts = np.stack(frames), [*times, after]
        frames.clear()
        times.clear()
        starts = range(0, len(taken), CHUNK_FRAMES)
        scenes = [start + cut for start in starts for cut in cuts(taken[start : start + CHUNK_FRAMES])]
        edges = [*sorted([*starts, *scenes]), len(taken)]
        for length, run in itertools.groupby(itertools.pairwise(edges), lambda span: span[1] - span[0]):
            spans = list(run)
            yield _Group(
                taken[spans[0][0] : spans[-1][1]].reshape(len(spans), length, *taken.shape[1:]),
                [tuple(pts[begin:end]) for begin, end in spans],
                [pts[end] - pts[end - 1] for _, end in spans],
            )

    with reader:
        for frame, pts in reader:
            if len(frames) == group * CHUNK_FRAMES:
                yield from groups(pts)
            frames.append(frame)
            times.append(pts)
        yield from groups(times[-1] + max(1, reader.last_duration))


_Coded = tuple[Bits, tuple[int, ...], int]  # of a chunk: bits [K, t, h, w], timestamps, duration of the last frame


def _coded(network: Network, groups: Generator[_Group, None, None]) -> Generator[_Coded, None, None]:
    with contextlib.closing(groups):
        for group in groups:
            yield from zip(network.encode(group.frames), group.pts, group.durations, strict=True)


def encode_video(
    source: str | Path,
    target: str | Path,
    *,
    rate: Rate = DEFAULT_RATE,
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    start_s: float = 0.0,
    duration_s: float | None = None,
    span: tuple[int, int | None] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Encode a video file to a .tokc stream.

    A rate in bits per second or bytes is met by thinning the finished stream (edit.py): the network runs
    once whatever the rate.

    Args:
        source: any file FFmpeg reads; "-" reads stdin.
        target: the stream; "-" writes stdout. A file appears when it is whole.
        rate: bits to spend; half of the 64 bits of each token by default, all of them with `Rate()`.
        weights: safetensors file; the released ones if None.
        device: "auto", "cpu" or "cuda".
        dtype: of the network's arithmetic: "auto", "float32" or "bfloat16".
        start_s: where to begin, in seconds from the first frame.
        duration_s: how much to take; None for all.
        span: instead, code the frames with a timestamp in [begin, end) ticks, as they stand in the stream of the
            whole, and no other streams: a piece for batch/pieces.py to join. End None is the end.
        overwrite: replace a target that exists.
        progress: called after each chunk with frames done, bytes so far, frames in all if known, pixels a frame.

    Raises:
        VideoError: the source cannot be read.
        ModelError: the weights cannot be used.
        TokcodecError: the target cannot be written, or the rate cannot be met.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(output.writing(target, [Path(source)], overwrite))
        side = stack.enter_context(tempfile.TemporaryFile())
        wanted = side if span is None else None
        reader = video.VideoReader(source, start_s, duration_s, side=wanted, span=span)
        network = load_network(find_weights(weights), device, dtype)
        busy_before_s = network.busy_s
        token_bits = min(rate.token_bits or network.token_bits, network.token_bits)
        full = stack.enter_context(tempfile.TemporaryFile()) if rate.is_target else file
        info = reader.info
        try:
            header = _header(info, network)
        except ValueError as error:
            raise TokcodecError(f"{source}: {error}") from error
        writer = bitstream.Writer(full, header)
        groups = _groups(reader, network.group(CHUNK_FRAMES, info.height, info.width))
        coded = in_background(_coded(network, in_background(groups)))
        frames = 0
        with contextlib.closing(coded):
            for bits, pts, duration in coded:
                writer.write_chunk(Chunk.from_bits(bits[:token_bits], pts, duration))
                frames += len(pts)
                if progress:
                    progress(frames, writer.bytes, info.frames, info.width * info.height)
        if reader.side_format:
            side.seek(0)
            writer.write_streams(side, reader.side_format)
        writer.close()
        written = writer.index, writer.bytes, writer.video_bytes
        if rate.is_target:
            written = thin_stream(bitstream.Reader(full), file, rate)
    return _with_network(report(header, *written, started), network, busy_before_s)


def _with_network(made: Report, network: Network, busy_before_s: float) -> Report:
    """A report with what the network took since `busy_before_s` of its `busy_s`."""
    network_s = round(network.busy_s - busy_before_s, 3)
    return dataclasses.replace(made, network_s=network_s, peak_vram_bytes=network.peak_vram_bytes)


def _header(info: video.VideoInfo, network: Network) -> Header:
    return Header(
        width=info.width,
        height=info.height,
        chunk_frames=CHUNK_FRAMES,
        weights_sha256=network.sha256,
        token_bits=network.token_bits,
        time_base=info.time_base,
        frame_rate=info.frame_rate,
        sample_aspect=info.sample_aspect,
        rotation=info.rotation,
        mirrored=info.mirrored,
        primaries=info.colour.primaries,
        transfer=info.colour.transfer,
        matrix=info.colour.matrix,
        full_range=info.colour.full_range,
    )


def _video_info(header: Header) -> video.VideoInfo:
    """What a stream's header says of its video."""
    return video.VideoInfo(
        width=header.width,
        height=header.height,
        time_base=header.time_base,
        frame_rate=header.frame_rate,
        sample_aspect=header.sample_aspect or Fraction(1),
        rotation=header.rotation,
        mirrored=header.mirrored,
        colour=video.Colour(header.primaries, header.transfer, header.matrix, header.full_range),
    )


class Stream:
    """An open stream: its header, its chunks, their bits, and with weights its frames.

    Attributes:
        header: what holds for the whole stream.
        chunks: an entry a chunk: frames, token_bits, first_pts, end_pts, place and size in the file.
    """

    def __init__(self, reader: bitstream.Reader, network: Callable[[], Network]) -> None:
        self.header, self.chunks = reader.header, reader.index
        self._reader, self._network = reader, network

    def bits(self, start_s: float = 0.0, end_s: float | None = None) -> Iterator[Bits]:
        """The bits of every chunk that overlaps [start_s, end_s), in seconds from the first frame. No network.

        Yields:
            bool `[k, t, h, w]`, one array a chunk, most important bit first; k is what the chunk keeps.

        Raises:
            BitstreamError: a chunk is damaged.
        """
        duration_s = None if end_s is None else end_s - start_s
        for i in overlapping(self._reader, start_s, duration_s):
            yield self._reader.read_chunk(i).bits(self.header)

    def frames(
        self, start_s: float = 0.0, end_s: float | None = None
    ) -> Generator[tuple[Frames, int, int], None, None]:
        """The frames in [start_s, end_s), in seconds from the first frame; their chunks alone are decoded.

        Yields:
            Frame uint8 `[H, W, 3]` RGB, its timestamp and its duration in ticks of `header.time_base`.

        Raises:
            BitstreamError: a chunk is damaged.
            ModelError: the weights are not the stream's.
        """
        duration_s = None if end_s is None else end_s - start_s
        begin, end = span_ticks(self._reader, start_s, duration_s)
        wanted = overlapping(self._reader, start_s, duration_s)
        network, header = self._network(), self.header
        for group in self._groups(wanted, network):
            clips = network.decode(
                [chunk.bits(header) for chunk in group], group[0].frames, header.height, header.width
            )
            for clip, chunk in zip(clips, group, strict=True):
                edges = [*chunk.pts, chunk.end_pts]
                for i, frame in enumerate(clip):
                    if begin <= edges[i] < end:
                        yield frame, edges[i], edges[i + 1] - edges[i]

    def _groups(self, wanted: list[int], network: Network) -> Iterator[list[Chunk]]:
        """Chunks to decode side by side: neighbours of equal length."""
        group: list[Chunk] = []
        for i in wanted:
            chunk = self._reader.read_chunk(i)
            room = network.group(chunk.frames, self.header.height, self.header.width)
            if group and (chunk.frames != group[0].frames or len(group) >= room):
                yield group
                group = []
            group.append(chunk)
        if group:
            yield group


@contextlib.contextmanager
def open_stream(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    salvage: bool = False,
) -> Iterator[Stream]:
    """Open a .tokc stream to read its bits and frames.

    Args:
        path: of the stream; "-" is stdin.
        weights: for `frames`: safetensors file; the released ones if None. Loaded on first use.
        device: "auto", "cpu" or "cuda".
        dtype: of the network's arithmetic: "auto", "float32" or "bfloat16".
        salvage: accept a damaged or cut stream and give what is intact.

    Raises:
        BitstreamError: it is no stream, or damaged (without `salvage`).
        TokcodecError: it cannot be opened.
    """
    with reading(Path(path), salvage) as reader:
        sha256 = reader.header.weights_sha256
        yield Stream(reader, lambda: load_network(find_weights(weights, sha256), device, dtype))


def decode_video(
    source: str | Path,
    target: str | Path,
    *,
    crf: float = 12.0,
    lossless: bool = False,
    stdout_format: str = "y4m",
    salvage: bool = False,
    weights: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    start_s: float = 0.0,
    duration_s: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Decode a .tokc stream to a video file.

    Args:
        source: the stream; "-" reads stdin.
        target: .mp4, .mov or .mkv (H.264, the other streams copied in), .y4m, a pattern of images
            (`frames/%05d.png`), or "-" for stdout. It appears when it is whole.
        crf: of libx264, 0 (best) to 51.
        lossless: FFV1 in RGB, for .mkv.
        stdout_format: "y4m" or "rgb24", for "-".
        salvage: decode every intact chunk of a damaged stream.
        weights: safetensors file; the released ones if None. They must be those of the stream.
        device: "auto", "cpu" or "cuda".
        dtype: of the network's arithmetic: "auto", "float32" or "bfloat16".
        start_s: where to begin, in seconds from the first frame; the first frame then becomes time 0.
        duration_s: how much to decode; None for all.
        overwrite: replace a target that exists.
        progress: called once a chunk with frames done, their share of the bytes, frames in all, pixels a frame.

    Returns:
        A report of the chunks that were read; `frames` counts those that were written.

    Raises:
        BitstreamError: the source is no stream, or damaged (without `salvage`).
        ModelError: the weights cannot be used or are not the stream's.
        VideoError: the target cannot be written.
        TokcodecError: source or target cannot be opened.
        ValueError: options that do not fit together.
    """
    started = time.monotonic()
    end_s = None if duration_s is None else start_s + duration_s
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(reading(Path(source), salvage))
        header = reader.header
        wanted = overlapping(reader, start_s, duration_s)
        format: str | None = stdout_format
        place: str | Path = "-"
        if str(target) != "-":
            format = video.kind_of(Path(target))
            if video.is_pattern(Path(target)):
                place = stack.enter_context(output.replacing_pattern(Path(target), overwrite))
            else:
                place = stack.enter_context(output.replacing(Path(target), [Path(source)], overwrite))
        network = load_network(find_weights(weights, header.weights_sha256), device, dtype)
        busy_before_s = network.busy_s
        frames = in_background(Stream(reader, lambda: network).frames(start_s, end_s), depth=CHUNK_FRAMES)
        stack.enter_context(contextlib.closing(frames))
        first = next(frames, None)
        if first is None:
            raise TokcodecError(f"{source}: no frames from {start_s:g} s")
        shift = -first[1] if start_s > 0 else 0
        streams = checked_streams(reader)
        if streams is not None and (start_s > 0 or end_s is not None):
            begin, end = (ticks * header.time_base for ticks in span_ticks(reader, start_s, duration_s))
            part = stack.enter_context(tempfile.TemporaryFile())
            name = video.cut_streams([(*streams, begin, end, shift * header.time_base)], part)
            streams = None if name is None else (name, part)
        writer = stack.enter_context(
            video.VideoWriter(
                place,
                _video_info(header),
                format=format,
                lossless=lossless,
                crf=crf,
                side=None if streams is None else (streams[1], streams[0]),
                name="stdout" if place == "-" else str(target),
            )
        )
        index = [reader.index[i] for i in wanted]
        size = video_bytes = sum(entry.bytes for entry in index)
        if len(index) == len(reader.index):
            size, video_bytes = reader.bytes, reader.video_bytes
        total, count = sum(entry.frames for entry in index), 0
        for frame, pts, duration in itertools.chain([first], frames):
            writer.write(frame, pts + shift, duration)
            count += 1
            if progress and count % CHUNK_FRAMES == 0:
                progress(count, video_bytes * count // total, total, header.width * header.height)
    made = dataclasses.replace(report(header, index, size, video_bytes, started, reader.damaged), frames=count)
    return _with_network(made, network, busy_before_s)
