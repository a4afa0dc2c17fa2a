"""File to file: video -> tokens -> stream, and back.

Reading, coding and writing overlap: chunks are independent, so several are coded at once, each in a thread of its own.
Memory is bounded by the frame size, whatever the length: a few chunks of frames are held, never a film. What needs no
network (trim, concat, verify) is in edit/, tokens as arrays in tokens/.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import logging
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec import video
from tokcodec.arguments import check_choices, check_stream_name
from tokcodec.compute import AUTO, Compute
from tokcodec.cuts import CUT_MARGIN, cuts
from tokcodec.errors import TokcodecError, VideoError
from tokcodec.io import output, standard
from tokcodec.io.files import NamedFile, temporary_file
from tokcodec.pipeline import Helpers, available_cores, blas_limited, in_background, in_parallel
from tokcodec.rate import (
    BISECTIONS,
    CLOSE,
    DEFAULT_RATE,
    NEAR,
    STEP_RANGE,
    STEP_UNITS,
    Rate,
    Try,
    choose,
    coarsest,
    first_step,
    next_step,
    total,
)
from tokcodec.report import Progress, Report, report_of
from tokcodec.scoring.goals import Judge, judge_of
from tokcodec.stream.container import Reader, Rest, Writer, streams_bytes, write_stream
from tokcodec.stream.entropy import Tokens, encode_chunk
from tokcodec.stream.metadata import Chapter, Metadata
from tokcodec.stream.pyramid import SPANS
from tokcodec.stream.records import MAX_TICKS, Chunk, Header
from tokcodec.stream_reader import (
    AHEAD_PX,
    Stream,
    checked_streams,
    overlapping,
    reading,
    span_ticks,
    tokenizer_of,
)
from tokcodec.tokenizer import Tokenizer, load_tokenizer
from tokcodec.weights import Weights

log = logging.getLogger("tokcodec")

Frames = NDArray[np.uint8]

CHUNK_FRAMES = 129
SECTION_CHUNKS = 8  # full chunks of a section: a new one begins a chunk whatever lies before, so that pieces can
CHUNK_PX = 1 << 28  # of a chunk's frames: larger frames than 1080p come in shorter chunks
FLIGHT_PX = 1 << 29  # of the frames of all chunks that are coded at once
MAX_TRIES = 6  # codings of a video for a rate of the whole ...
MAX_HARD_TRIES = 8  # ... and while none of them fits
INDEX_SLACK_BYTES = 3  # that an entry of the index may grow by when a chunk is coded with another step


def chunk_frames_for(height: int, width: int) -> int:
    """The most frames of a chunk of frames of this size: the first, and whole groups of the network behind it."""
    return 1 + (min(CHUNK_FRAMES, max(1, CHUNK_PX // (height * width))) - 1) // 4 * 4


class _Clip(NamedTuple):
    """The frames of a chunk."""

    frames: Frames  # [F, H, W, 3]
    pts: tuple[int, ...]
    duration: int  # of the last frame


def section_frames_for(height: int, width: int) -> int:
    """The frames of a section: what is cut into chunks without a look at what lies before or behind."""
    return SECTION_CHUNKS * chunk_frames_for(height, width)


def _clips(reader: video.VideoReader, chunk_frames: int) -> Generator[_Clip, None, None]:
    """Cut a video into chunks: where scenes change, and else after `chunk_frames`. Closes it.

    A section starts anew whatever lies between, so that pieces of a video (batch/pieces.py) have the chunks of the
    whole.
    """
    info, times = reader.info, list[int]()
    section = left = SECTION_CHUNKS * chunk_frames  # frames of the section from the first that is held
    held = np.empty((chunk_frames + CUT_MARGIN, info.height, info.width, 3), np.uint8)

    def clip(after: int) -> _Clip:
        """The first chunk of the frames held; `after` is the timestamp that follows them."""
        nonlocal held, left
        count = next(iter(cuts(held[: len(times)])), min(chunk_frames, len(times)))
        pts, rest = [*times, after], held[count : len(times)]
        if pts[0] < -MAX_TICKS or pts[count] > MAX_TICKS:
            raise VideoError(f"{reader.name}: timestamps are out of range")
        made = _Clip(held[:count], tuple(pts[:count]), pts[count] - pts[count - 1])
        held = np.empty_like(held)  # the clip is a view of the other
        held[: len(rest)] = rest
        del times[:count]
        left = left - count or section
        return made

    with reader:
        for frame, pts in reader:
            while len(times) == min(len(held), left):
                yield clip(pts)
            held[len(times)] = frame
            times.append(pts)
        while times:
            yield clip(times[-1] + max(1, reader.last_duration))


def _chunk(clip: _Clip, step: float, coder: int, motion: bytes, levels: bytes) -> Chunk:
    return Chunk(len(clip.pts), coder, round(STEP_UNITS * step), clip.pts, clip.duration, motion, levels)


class _Counter:
    """How far a pass over a video is, told to `progress` by several threads, one at a time."""

    def __init__(self, progress: Progress | None, info: video.VideoInfo) -> None:
        self._progress, self._total, self._frame_px = progress, info.frames, info.width * info.height
        self._lock = threading.Lock()
        self._coded = 0.0  # frames
        self._written = 0, 0  # frames and bytes of the chunks that are
        self._tell()

    def coded(self, frames: float) -> None:
        """So many frames more are coded."""
        with self._lock:
            self._coded += frames
            self._tell()

    def written(self, writer: Writer) -> None:
        """A chunk more is written."""
        with self._lock:
            self._written = sum(entry.frames for entry in writer.index), writer.bytes

    def end(self) -> None:
        """All frames are: what was promised of their number is of no matter."""
        with self._lock:
            self._total = int(self._coded + 0.5)
            self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            frames, (written, size) = int(self._coded + 1e-6), self._written
            total = None if self._total is None else max(self._total, frames)
            self._progress(frames, size * frames // written if written else 0, total, self._frame_px)


def _coded(
    clip: _Clip, tokenizer: Tokenizer, helpers: Helpers | None, spans: int | None, counter: _Counter, step: float
) -> Chunk:
    """A chunk coded with a step."""
    return _chunk(clip, step, *tokenizer.pack(clip.frames, step, helpers, spans, counter.coded))


def _judged(
    clip: _Clip, tokenizer: Tokenizer, helpers: Helpers | None, spans: int | None, counter: _Counter, judge: Judge
) -> Chunk:
    """A chunk coded with the coarsest step whose pictures the judge takes.

    An attempt counts as a share of the frames: of what is left, as if the least number of attempts were to come.
    """
    height, width = clip.frames.shape[1:3]
    left, attempts = float(len(clip.pts)), 2 + BISECTIONS

    def attempt(step: float) -> tuple[bool, Tokens]:
        nonlocal left, attempts
        share, attempts = 1 / max(attempts, 2), attempts - 1
        part = share * left / len(clip.pts) / 2  # that a frame counts when it is coded, and again when it is shown
        left *= 1 - share
        coding = tokenizer.encode(clip.frames, step, helpers, spans, lambda frames: counter.coded(part * frames))
        shown = []
        for pictures in tokenizer.pictures(coding, step, height, width):
            shown.append(pictures)
            counter.coded(part * len(pictures))
        return judge(clip.frames, np.concatenate(shown)), coding.tokens

    step, is_good, tokens = coarsest(attempt)
    counter.coded(left)
    if not is_good:
        log.warning("%s is out of reach for %d frames; they have the finest step", judge, len(clip.pts))
    return _chunk(clip, step, *encode_chunk(tokens, round(STEP_UNITS * step), tokenizer.tables))


@contextlib.contextmanager
def _rereadable(source: str | Path, is_needed: bool) -> Iterator[str | Path]:
    """A source that can be read several times: stdin and pipes are copied to a file."""
    if not is_needed or not video.is_pipe(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="tokcodec.") as folder:  # Windows opens no temporary file twice
        copy = Path(folder, "copy")
        with io.BufferedWriter(NamedFile(copy, "wb", copy)) as spool:
            if str(source) == "-":
                shutil.copyfileobj(standard.stdin(), spool)
            else:
                with Path(source).open("rb") as pipe:
                    shutil.copyfileobj(pipe, spool)
        yield str(copy)


def encode_video(
    source: str | Path,
    target: str | Path,
    *,
    rate: Rate = DEFAULT_RATE,
    spans: int | None = None,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    start_s: float = 0.0,
    duration_s: float | None = None,
    span: tuple[int, int | None] | None = None,
    filters: video.Filters = video.UNFILTERED,
    overwrite: bool = False,
    lpips_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Encode a video file to a .tokc stream.

    A rate in bits per second or bytes is met by coding the video again with other steps, as often as it takes (two to
    four times as a rule); a target of quality by coding each chunk again.

    Args:
        source: any file FFmpeg reads; "-" reads stdin.
        target: the stream; "-" writes stdout. A file appears when it is whole.
        rate: what to spend; quality 4 by default.
        spans: frames of all spans (1, 2, 4, 8, 16 or 32), and shorter ones for what is left at the end of a chunk;
            None chooses them by content. A language model of tokens needs 4.
        weights: safetensors file; the released ones if None.
        compute: threads, and the network's device and arithmetic, which only a target of quality needs.
        start_s: where to begin, in seconds from the first frame.
        duration_s: how much to take; None for all.
        span: instead, code the frames with a timestamp in [begin, end) ticks, as they stand in the stream of the
            whole, and neither metadata nor other streams: a piece for batch/pieces.py to join. End None is the end.
        filters: what is done to the frames before they are coded.
        overwrite: replace a target that exists.
        lpips_dir: folder of LPIPS backbones for a target in LPIPS; else $TOKCODEC_LPIPS_DIR; else torchvision's.
        progress: called as frames are coded, in any thread, one call at a time, with frames done, bytes so far (an
            estimate from the chunks that are written), frames in all if known, pixels a frame. The last call has as
            many frames done as there are. A rate of the whole takes several passes, each of which begins with 0 frames.

    Raises:
        VideoError: the source cannot be read.
        ModelError: the weights cannot be used.
        TokcodecError: the target cannot be written, or the rate cannot be met.
        ValueError: an argument is out of range, there are no spans of so many frames, or the target's suffix is that of
            another kind of file.
    """
    if spans is not None and spans not in SPANS:
        raise ValueError(f"spans have {', '.join(map(str, SPANS))} frames, not {spans}")
    check_stream_name(target)
    started, source = time.monotonic(), str(source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(blas_limited(compute.threads))
        file = stack.enter_context(output.writing(target, [Path(source)], overwrite))
        place = stack.enter_context(_rereadable(source, rate.is_of_the_whole))
        side = stack.enter_context(temporary_file())
        open_video = functools.partial(
            video.VideoReader,
            place,
            start_s,
            duration_s,
            threads=compute.threads or 0,
            span=span,
            name=source,
            filters=filters,
            warned=set(),
        )
        reader = open_video(side=side if span is None else None)
        info = reader.info
        tokenizer = load_tokenizer(Weights.find(weights), compute).counted()
        try:
            header = _header(info, tokenizer)
        except ValueError as error:
            raise TokcodecError(f"{source}: {error}") from error
        chunk_px = header.chunk_frames * info.height * info.width
        cores = compute.threads or available_cores()
        workers = min(cores, max(1, FLIGHT_PX // chunk_px))
        helpers = None if cores == 1 else Helpers(cores - 1, "tokcodec helper")
        if helpers:
            stack.callback(helpers.shutdown, cancel_futures=True)

        def chunks_of(opened: video.VideoReader, code: Callable[[_Clip], Chunk]) -> Generator[Chunk, None, None]:
            clips = in_background(_clips(opened, header.chunk_frames), 0)
            with contextlib.closing(clips), contextlib.closing(in_parallel(code, clips, workers)) as chunks:
                yield from chunks

        @functools.cache
        def rest() -> Rest:
            """What stands behind the chunks, once all frames are read."""
            if span is not None:
                return Metadata(), None
            return metadata_of(info), (reader.side_format, side) if reader.side_format else None

        code: Callable[[_Clip], Chunk]
        coded_with = functools.partial(_coded, tokenizer=tokenizer, helpers=helpers, spans=spans)
        if rate.is_of_the_whole:
            tries: list[Try] = []
            coded: list[Reader] = []
            budget = 0
            chosen: list[int] | None = None
            step: float | None = _guess(rate, info)
            while step is not None and len(tries) < (MAX_TRIES if chosen else MAX_HARD_TRIES):
                spool = stack.enter_context(temporary_file())
                counter = _Counter(progress, info)
                code = functools.partial(coded_with, counter=counter, step=step)
                with contextlib.closing(chunks_of(open_video() if tries else reader, code)) as chunks:
                    writer = write_stream(spool, header, chunks, told=counter.written)
                counter.end()
                coded.append(Reader(spool))
                tries.append(Try(step, [entry.bytes for entry in writer.index]))
                budget = budget or _budget(rate, writer, *rest())
                chosen = choose(tries, budget)
                if chosen and total(tries, chosen) >= CLOSE * budget:
                    break
                step = next_step(tries, budget)
            if chosen is None:
                least = min(t.bytes for t in tries)
                room = f"there is room for {budget}" if budget > 0 else "there is no room for them"
                raise TokcodecError(f"{source}: the rate cannot be met: its chunks take {least} bytes, {room}")
            used = total(tries, chosen)
            if used < NEAR * budget:
                is_finest = min(t.step for t in tries) == STEP_RANGE[0]
                why = "the finest step takes no more" if is_finest else "its few chunks come no nearer"
                log.warning("%s: its chunks take %d of %d bytes that there are: %s", source, used, budget, why)
            writer = write_stream(file, header, (coded[t].read_chunk(i) for i, t in enumerate(chosen)), rest)
        else:
            judge, counter = judge_of(rate, lpips_dir), _Counter(progress, info)
            if judge is None:
                assert rate.fixed_step is not None
                code = functools.partial(coded_with, counter=counter, step=rate.fixed_step)
            else:
                code = functools.partial(
                    _judged, tokenizer=tokenizer, helpers=helpers, spans=spans, counter=counter, judge=judge
                )
            with contextlib.closing(chunks_of(reader, code)) as chunks:
                writer = write_stream(file, header, chunks, rest, counter.written)
            counter.end()
    made = report_of(header, writer.index, writer.bytes, writer.video_bytes, started, reader.damaged)
    return _with_network(made, tokenizer)


def _guess(rate: Rate, info: video.VideoInfo) -> float:
    """A step that may meet a rate of the whole."""
    frame_px = info.width * info.height
    if rate.bitrate_kbps is not None:
        return first_step(1000 * rate.bitrate_kbps / float(info.frame_rate) / frame_px if info.frame_rate else None)
    assert rate.target_size_bytes is not None
    return first_step(8 * rate.target_size_bytes / info.frames / frame_px if info.frames else None)


def _budget(rate: Rate, writer: Writer, metadata: Metadata, streams: tuple[str, BinaryIO] | None) -> int:
    """Bytes that all chunk records may have together.

    Args:
        rate: of the whole.
        writer: has written all chunks, coded in some way, and nothing else; it is closed.
        metadata, streams: what else the stream will hold.
    """
    index, spool = writer.index, io.BytesIO()
    sizes = sum(entry.bytes for entry in index)
    other = Writer(spool, writer.header)
    begin = other.bytes
    if metadata != Metadata():
        other.write_metadata(metadata)
    framing = writer.bytes - sizes + other.bytes - begin + INDEX_SLACK_BYTES * len(index)
    if rate.bitrate_kbps is not None:
        duration_s = (index[-1].end_pts - index[0].first_pts) * writer.header.time_base
        return math.floor(Fraction(1000 * rate.bitrate_kbps) * duration_s / 8) - framing
    assert rate.target_size_bytes is not None
    side_bytes = 0
    if streams is not None:
        name, file = streams
        length = file.seek(0, io.SEEK_END)
        side_bytes = streams_bytes(length, name)
    return rate.target_size_bytes - framing - side_bytes


def metadata_of(info: video.VideoInfo) -> Metadata:
    """Tags, language, name and chapters of a video; none, with a warning, where they are more than a stream takes."""
    try:
        chapters = tuple(Chapter(*chapter) for chapter in info.chapters)
        return Metadata(dict(info.tags), info.language, chapters, info.name)
    except ValueError as error:
        log.warning("its metadata is left out: %s", error)
        return Metadata()


def _with_network(made: Report, tokenizer: Tokenizer) -> Report:
    """A report with what the network of a counted tokenizer took."""
    return dataclasses.replace(made, network_s=round(tokenizer.busy_s, 3), peak_vram_bytes=tokenizer.peak_vram_bytes)


def _header(info: video.VideoInfo, tokenizer: Tokenizer) -> Header:
    return Header(
        width=info.width,
        height=info.height,
        chunk_frames=chunk_frames_for(info.height, info.width),
        weights_sha256=tokenizer.weights.sha256,
        time_base=info.time_base,
        frame_rate=info.frame_rate,
        sample_aspect=info.sample_aspect,
        rotation=info.rotation // 90,
        mirrored=info.mirrored,
        primaries=info.colour.primaries,
        transfer=info.colour.transfer,
        matrix=info.colour.matrix,
        full_range=info.colour.full_range,
    )


def _video_info(header: Header, metadata: Metadata) -> video.VideoInfo:
    """What a stream says of its video."""
    return video.VideoInfo(
        width=header.width,
        height=header.height,
        time_base=header.time_base,
        frame_rate=header.frame_rate,
        sample_aspect=header.sample_aspect or Fraction(1),
        rotation=90 * header.rotation,
        mirrored=header.mirrored,
        colour=video.Colour(header.primaries, header.transfer, header.matrix, header.full_range),
        tags=metadata.tags,
        language=metadata.language,
        name=metadata.name,
        chapters=tuple((c.start, c.end, c.title) for c in metadata.chapters),
    )


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
        wanted = overlapping(reader, start_s, duration_s)
        format: str | None = stdout_format
        place: str | Path | BinaryIO = "-"
        label = "stdout"
        if not isinstance(target, (str, Path)):
            place, label = target, "output"
        elif str(target) != "-":
            label = str(target)
            format = video.kind_of(Path(target))
            if video.is_pattern(Path(target)):
                place = stack.enter_context(output.replacing_pattern(Path(target), overwrite))
            else:
                place = stack.enter_context(output.replacing(Path(target), [Path(source)], overwrite))
        tokenizer = tokenizer_of(reader, weights, compute).counted()
        ahead = max(4, AHEAD_PX // (header.height * header.width))
        stream = Stream(Path(source), reader, lambda: tokenizer)
        frames = in_background(stream.frames(start_s, end_s), depth=ahead)
        stack.enter_context(contextlib.closing(frames))
        first = next(frames, None)
        if first is None:
            raise TokcodecError(f"{source}: no frames from {start_s:g} s")
        shift = -first[1] if start_s > 0 else 0
        streams, metadata = checked_streams(reader), reader.metadata
        if start_s > 0 or end_s is not None:
            begin = first[1] if start_s > 0 else None
            end = None if end_s is None else span_ticks(reader, start_s, duration_s)[1]
            metadata = metadata.cut(begin, end, shift)
            if streams is not None:
                begin_s, limit_s = (None if ticks is None else ticks * header.time_base for ticks in (begin, end))
                part = stack.enter_context(temporary_file())
                name = video.cut_streams([(*streams, begin_s, limit_s, shift * header.time_base)], part)
                streams = None if name is None else (name, part)
        writer = stack.enter_context(
            video.VideoWriter(
                place,
                _video_info(header, metadata),
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
        size = video_bytes = sum(entry.bytes for entry in index)
        if len(index) == len(reader.index):
            size, video_bytes = reader.bytes, reader.video_bytes
        total, count = stream.count(start_s, end_s), 0
        for frame, pts, duration in itertools.chain([first], frames):
            writer.write(frame, pts + shift, duration)
            if writer.is_full:
                break
            count += 1
            if progress:
                progress(count, video_bytes * count // total, total, header.width * header.height)
    made = dataclasses.replace(report_of(header, index, size, video_bytes, started, reader.damaged), frames=count)
    return _with_network(made, tokenizer)
