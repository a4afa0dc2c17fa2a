"""Frames that were never filmed: a stream goes on, or a gap in it is filled, by a language model of its tokens."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NotRequired, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from tokcodec.arguments import check_stream_name
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.io import output
from tokcodec.rate import STEP_UNITS
from tokcodec.report import Progress, Report, report_of
from tokcodec.stream.container import Reader, Rest, write_stream
from tokcodec.stream.records import MAX_TICKS, Chunk, Header
from tokcodec.stream_reader import checked_streams, reading, shown_of, span_ticks, tokenizer_of, tokens_of

if TYPE_CHECKING:
    from tokcodec.language.model import LanguageModel
    from tokcodec.language.sampler import Speech
    from tokcodec.stream.entropy import Tokens
    from tokcodec.tokenizer import Tokenizer


class GenerateOptions(TypedDict):
    """By what frames are made, and where they go.

    Attributes:
        model: a language model, or the folder of the run it was learned in.
        speech: how it draws; `Speech()` if None.
        weights: those of the stream; the released ones if None.
        compute: device of the model.
        overwrite: replace a target that exists.
        progress: called with frames written, 0, frames to write, pixels a frame, as they are.
    """

    model: Path
    speech: NotRequired[Speech | None]
    weights: NotRequired[str | Path | None]
    compute: NotRequired[Compute]
    overwrite: NotRequired[bool]
    progress: NotRequired[Progress | None]


def predict(source: Path, target: str | Path, seconds: float, **options: Unpack[GenerateOptions]) -> Report:
    """Let a stream go on: its last chunk becomes longer, all else is as it was. What is hidden at its end is dropped.

    Frames come in spans of four. Frames of the last chunk that stand behind its last whole one are replaced.

    Args:
        source: a stream of spans of four frames.
        target: a stream; "-" is stdout.
        seconds: of frames to come, at the stream's frame rate, and as many more as a whole span needs.
        options: see `GenerateOptions`.

    Raises:
        ModelError: the weights are not the stream's, or the model is none of their tokens.
        TokcodecError: the source is damaged or of other spans, the chunk would be too long or end beyond what a
            stream's clock counts, or the target cannot be written.
    """
    from tokcodec.language.sampler import Speech, longer, spoken
    from tokcodec.language.words import SPAN

    started = time.monotonic()
    with _opened(source, target, **options) as (reader, file, tokenizer, speaker):
        header, shown = reader.header, shown_of(reader)
        first_pts, end_pts = shown.spans[-1]
        number = max(i for i, entry in enumerate(reader.index) if entry.first_pts < end_pts)
        last = reader.read_chunk(number)
        tokens = tokens_of(last, header, tokenizer.tables)
        kept, edges = sum(pts < end_pts for pts in last.pts), (*last.pts, last.end_pts)
        if kept < last.frames:
            whole = min((kept - 1) // SPAN, spans_of_four(tokens, source))
            behind = 1 + SPAN * whole
            tokens = type(tokens)(
                tokens.levels[:, :behind], tokens.motion[: behind - 1], tokens.spans[:whole], tokens.numbers[:behind]
            )
            last = dataclasses.replace(last, frames=kept, pts=last.pts[:kept], duration=edges[kept] - edges[kept - 1])
        ticks = max(Fraction(1), _frame_ticks(header, last))
        wanted = last.frames + max(1, round(seconds / float(ticks * header.time_base)))
        end = -(-(wanted - 1) // SPAN)
        frames = 1 + SPAN * end
        header = _holding(source, header, frames)
        pts = tuple(last.end_pts + round(i * ticks) for i in range(frames - last.frames + 1))
        if pts[-1] > MAX_TICKS:
            raise TokcodecError(f"{source}: its last timestamps would be out of range")
        metadata = reader.metadata
        if metadata.shown:
            metadata = dataclasses.replace(metadata, shown=(*shown.spans[:-1], (first_pts, pts[-1])))
        begin, step = spans_of_four(tokens, source), last.step / STEP_UNITS
        on_frame = _counted(options.get("progress"), SPAN * (end - begin), header)
        tokens = spoken(
            speaker, longer(tokens, end - begin), step, begin, end, options.get("speech") or Speech(), on_frame
        )
        chunk = _coded(tokens, last.step, (*last.pts, *pts[:-1]), pts[-1] - pts[-2], tokenizer)
        before = (reader.read_chunk(i) for i in range(number))
        others: Rest = (metadata, checked_streams(reader))
        writer = write_stream(file, header, itertools.chain(before, [chunk]), lambda: others)
    return report_of(header, writer.index, writer.bytes, writer.video_bytes, started)


def fill(
    source: Path, target: str | Path, start_s: float, duration_s: float, **options: Unpack[GenerateOptions]
) -> Report:
    """Replace a gap in a stream by frames that a language model thinks of between its two ends.

    Whole spans of four are replaced, within one chunk and behind its first frame. What follows in the chunk was
    predicted from the frames replaced: it is coded again, from its decoded frames, as a chunk of its own.

    Args:
        source: a stream of spans of four frames.
        target: a stream; "-" is stdout.
        start_s, duration_s: the gap, in seconds after the first frame.
        options: see `GenerateOptions`; frames that are coded again count for `progress`, too.

    Raises:
        ModelError: the weights are not the stream's, or the model is none of their tokens.
        TokcodecError: the source is damaged or of other spans, the gap is not inside a chunk, or the target cannot be
            written.
    """
    from tokcodec.language.sampler import Speech, longer, spoken
    from tokcodec.language.words import SPAN

    started = time.monotonic()
    with _opened(source, target, **options) as (reader, file, tokenizer, speaker):
        wanted = span_ticks(reader, start_s, start_s + duration_s)
        begin, end = next(iter(shown_of(reader).part(*wanted)), wanted)
        number = max((i for i, entry in enumerate(reader.index) if entry.first_pts < begin), default=0)
        chunk = reader.read_chunk(number)
        gap = [i for i, pts in enumerate(chunk.pts) if begin <= pts < end]
        is_whole = end - begin == wanted[1] - wanted[0]  # else the stream ends in it, or something hidden lies in it
        if not gap or not is_whole or not chunk.pts[0] < begin < end <= chunk.end_pts:
            at, to = (_seconds(reader, ticks) for ticks in (chunk.pts[0], chunk.end_pts))
            raise TokcodecError(
                f"{source}: a gap has frames of one chunk, and not its first; the chunk here is from {at} to {to} s"
            )
        header, step = reader.header, chunk.step / STEP_UNITS
        tokens = tokens_of(chunk, header, tokenizer.tables)
        there, first, behind = spans_of_four(tokens, source), (gap[0] - 1) // SPAN, (gap[-1] - 1) // SPAN + 1
        grown = longer(tokens, max(0, behind - there))  # frames behind the last whole span are made one
        kept = 1 + SPAN * min(behind, there)
        on_frame = _counted(options.get("progress"), SPAN * (behind - first) + max(0, chunk.frames - kept), header)
        made = spoken(speaker, grown, step, first, behind, options.get("speech") or Speech(), on_frame)
        edges_ticks = (*chunk.pts, chunk.end_pts)
        part = type(made)(
            made.levels[:, :kept], made.motion[: kept - 1], made.spans[: kept // SPAN], made.numbers[:kept]
        )
        chunks = [_coded(part, chunk.step, chunk.pts[:kept], edges_ticks[kept] - edges_ticks[kept - 1], tokenizer)]
        if kept < chunk.frames:
            seen = _decoded(tokenizer, tokens if behind <= there else made, step, header)[kept : chunk.frames]
            rest = tokenizer.encode(seen, step, spans=SPAN, on_frame=on_frame).tokens
            chunks.append(_coded(rest, chunk.step, chunk.pts[kept:], chunk.duration, tokenizer))
        whole = itertools.chain(
            (reader.read_chunk(i) for i in range(len(reader.index)) if i < number),
            chunks,
            (reader.read_chunk(i) for i in range(len(reader.index)) if i > number),
        )
        others: Rest = (reader.metadata, checked_streams(reader))
        writer = write_stream(file, header, whole, lambda: others)
    return report_of(header, writer.index, writer.bytes, writer.video_bytes, started)


@contextlib.contextmanager
def _opened(
    source: Path,
    target: str | Path,
    *,
    model: Path,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    overwrite: bool = False,
    **_: object,
) -> Iterator[tuple[Reader, BinaryIO, Tokenizer, LanguageModel]]:
    from tokcodec.language.model import load_model
    from tokcodec.restorer.device import pick_device

    check_stream_name(target)
    with reading(source) as reader, output.writing(target, [source], overwrite) as file:
        tokenizer = tokenizer_of(reader, weights, compute)
        speaker = load_model(model).to(pick_device(compute.device))
        check(speaker, tokenizer, model)
        yield reader, file, tokenizer, speaker


def check(speaker: LanguageModel, tokenizer: Tokenizer, name: Path) -> None:
    """Refuse a model of other tokens than a tokenizer's.

    Raises:
        ModelError: it is one; the message names it.
    """
    from tokcodec.language.words import basis_sha256

    if speaker.config.basis_sha256 != basis_sha256(tokenizer.weights.arrays):
        raise ModelError(f"{name}: this language model speaks of other weights' tokens than {tokenizer.weights.name}'s")


def spans_of_four(tokens: Tokens, name: Path) -> int:
    """How many spans of four frames a chunk has; up to three frames behind them are left out.

    Raises:
        TokcodecError: it has others before; the message names the stream and what to do.
    """
    from tokcodec.language.words import whole_spans

    try:
        return whole_spans(tokens)
    except ValueError as error:
        raise TokcodecError(f"{name}: its spans are not of four frames: encode it with --spans 4") from error


def _counted(progress: Progress | None, total: int, header: Header) -> Callable[[int], None]:
    """A callback for frames newly made, that tells `progress` of all so far."""
    made = 0

    def on_frame(frames: int) -> None:
        nonlocal made
        made += frames
        if progress is not None:
            progress(made, 0, total, header.width * header.height)

    on_frame(0)
    return on_frame


def _holding(source: Path, header: Header, frames: int) -> Header:
    """A header for chunks of so many frames."""
    try:
        return dataclasses.replace(header, chunk_frames=max(header.chunk_frames, frames))
    except ValueError as error:
        raise TokcodecError(f"{source}: {error}") from error


def _frame_ticks(header: Header, chunk: Chunk) -> Fraction:
    """How long a frame lasts, in ticks: by the frame rate, or without one by the chunk."""
    if header.frame_rate:
        return 1 / (header.frame_rate * header.time_base)
    return Fraction(chunk.end_pts - chunk.pts[0], chunk.frames)


def _seconds(reader: Reader, ticks: int) -> str:
    return f"{float((ticks - reader.index[0].first_pts) * reader.header.time_base):.2f}"


def _coded(tokens: Tokens, step: int, pts: tuple[int, ...], duration: int, tokenizer: Tokenizer) -> Chunk:
    from tokcodec.stream.entropy import encode_chunk

    coder, motion, levels = encode_chunk(tokens, step, tokenizer.tables)
    return Chunk(len(pts), coder, step, pts, duration, motion, levels)


def _decoded(tokenizer: Tokenizer, tokens: Tokens, step: float, header: Header) -> NDArray[np.uint8]:
    """The frames of a chunk as the loop has them, uint8 `[F, H, W, 3]`: without the network."""
    from tokcodec.coding.planes import to_rgb

    frames = tokenizer.loop.decode(tokens.in_order(), step)
    return np.concatenate([to_rgb(frame.base, header.height, header.width) for frame in frames])
