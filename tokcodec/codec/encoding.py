"""Video file to stream. Reading, coding and writing overlap."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokcodec import video
from tokcodec.arguments import check_stream_name
from tokcodec.codec.headers import header_of, metadata_of
from tokcodec.codec.passes import Passes
from tokcodec.codec.rate_control import control_of
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import TokcodecError
from tokcodec.io import output, standard
from tokcodec.io.files import NamedFile, temporary_file
from tokcodec.pipeline import Helpers, available_cores, blas_limited
from tokcodec.rate import DEFAULT_RATE, Rate
from tokcodec.report import Progress, Report, report_of
from tokcodec.stream.container import Rest, no_rest
from tokcodec.stream.profile import Profile
from tokcodec.stream.pyramid import SPANS
from tokcodec.stream.records import Header
from tokcodec.stream.vocabulary import SPAN
from tokcodec.tokenizer import Tokenizer, load_tokenizer
from tokcodec.weights import Weights

FLIGHT_PX = 3 << 27  # of the frames of all chunks that are coded at once


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


def _check_spans(spans: int | None, profile: Profile | None) -> None:
    if spans is not None and spans not in SPANS:
        raise ValueError(f"spans have {', '.join(map(str, SPANS))} frames, not {spans}")
    if profile is not None and spans not in (None, SPAN):
        raise ValueError(f"the profile lfq has spans of {SPAN} frames, not {spans}")


def _header(source: str, info: video.VideoInfo, tokenizer: Tokenizer, profile: Profile | None) -> Header:
    try:
        return header_of(info, tokenizer.weights.sha256, profile)
    except ValueError as error:
        raise TokcodecError(f"{source}: {error}") from error


def _rest_of(reader: video.VideoReader, side: BinaryIO) -> Rest:
    """Metadata and other streams, once all frames are read."""
    return metadata_of(reader.info), (reader.side_format, side) if reader.side_format else None


@contextlib.contextmanager
def _helping(threads: int) -> Iterator[Helpers | None]:
    """So many threads for parts of a chunk's work, which ends with the block; None for none."""
    if threads == 0:
        yield None
        return
    helpers = Helpers(threads, "tokcodec helper")
    try:
        yield helpers
    finally:
        helpers.shutdown(cancel_futures=True)


def encode_video(
    source: str | Path,
    target: str | Path,
    *,
    rate: Rate = DEFAULT_RATE,
    spans: int | None = None,
    profile: Profile | None = None,
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
        profile: of the tokens; None is the default one. `Profile()` is "lfq", whose spans have 4 frames.
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
    _check_spans(spans, profile)
    check_stream_name(target)
    started, source = time.monotonic(), str(source)
    with contextlib.ExitStack() as stack:
        stack.enter_context(blas_limited(1))  # its products are small, and the threads here have work for all cores
        file = stack.enter_context(output.writing(target, [Path(source)], overwrite))
        open_video = functools.partial(
            video.VideoReader,
            stack.enter_context(_rereadable(source, rate.is_of_the_whole)),
            start_s,
            duration_s,
            threads=compute.threads or 0,
            span=span,
            name=source,
            filters=filters,
            warned=set(),
        )
        side = stack.enter_context(temporary_file())
        with contextlib.ExitStack() as unread:  # closes a source that cannot be coded; later who reads it does
            reader = unread.enter_context(open_video(side=side if span is None else None))
            tokenizer = load_tokenizer(Weights.find(weights), compute).of(profile).counted()
            header = _header(source, reader.info, tokenizer, profile)
            control = control_of(rate, lpips_dir)
            unread.pop_all()

        cores = compute.threads or available_cores()
        passes = Passes(
            name=source,
            readers=itertools.chain([reader], iter(open_video, None)),
            info=reader.info,
            header=header,
            tokenizer=tokenizer,
            spans=spans,
            workers=min(cores, max(1, FLIGHT_PX // (header.chunk_frames * header.height * header.width))),
            helpers=stack.enter_context(_helping(cores - 1)),
            rest=no_rest if span is not None else functools.cache(functools.partial(_rest_of, reader, side)),
            keep=rate.is_of_quality,
            progress=progress,
        )
        writer = control(passes, file)
    made = report_of(header, writer.index, writer.bytes, writer.video_bytes, started, reader.damaged)
    return dataclasses.replace(made, **tokenizer.usage())
