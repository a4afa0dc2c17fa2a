"""Rate control: three ways to choose the quantizer step of each chunk.

Each takes its goal, the passes over the video, and the file that the stream goes to.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokcodec.codec.chunking import Clip
from tokcodec.codec.passes import Counter, Passes
from tokcodec.codec.search import BISECTIONS, Try, coarsest, first_step, next_step, pick_tries, total
from tokcodec.coding.lfq import IntegerCoding
from tokcodec.coding.loop import Coding
from tokcodec.errors import TokcodecError
from tokcodec.io.files import temporary_file
from tokcodec.rate import STEP_RANGE, STEP_UNITS, Rate
from tokcodec.scoring.goals import QualityGoal, quality_goal
from tokcodec.stream.container import Reader, Rest, Writer, streams_bytes, write_stream
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.records import Chunk
from tokcodec.video import VideoInfo

log = logging.getLogger("tokcodec")

MAX_TRIES = 6  # passes over a video for a rate of the whole ...
MAX_HARD_TRIES = 8  # ... and while none of them fits
CLOSE = 0.975  # share of a budget that is close enough
NEAR = 0.9  # ... and below which a warning says that no more is used
INDEX_SLACK_BYTES = 3  # that an entry of the index may grow by when a chunk is coded with another step

Control = Callable[[Passes, BinaryIO], Writer]


def control_of(rate: Rate, lpips_dir: str | Path | None) -> Control:
    """The rate control that meets a rate. `lpips_dir` is as for `load_lpips`.

    Raises:
        ModelError: LPIPS is asked for and cannot be had.
    """
    if rate.is_of_the_whole:
        return functools.partial(to_size, rate)
    goal = quality_goal(rate, lpips_dir)
    if goal is not None:
        return functools.partial(to_quality, goal)
    assert rate.fixed_step is not None
    return functools.partial(at_step, rate.fixed_step)


def at_step(step: float, passes: Passes, target: BinaryIO) -> Writer:
    """Code all chunks with one step, in levels."""
    return passes.run(target, functools.partial(_packed, passes, step), passes.rest)


def to_quality(goal: QualityGoal, passes: Passes, target: BinaryIO) -> Writer:
    """Code each chunk with the coarsest step whose pictures meet a goal."""
    return passes.run(target, functools.partial(_tried, passes, goal), passes.rest)


def to_size(rate: Rate, passes: Passes, target: BinaryIO) -> Writer:
    """Code the video with one step after another, and take each chunk from the pass that suits the budget.

    Raises:
        TokcodecError: even the coarsest step takes more than the budget.
    """
    tries: list[Try] = []
    coded: list[Reader] = []
    budget = 0
    chosen: list[int] | None = None
    step: float | None = _guess(rate, passes.info)
    with contextlib.ExitStack() as stack:
        while step is not None and len(tries) < (MAX_TRIES if chosen else MAX_HARD_TRIES):
            spool = stack.enter_context(temporary_file())
            writer = passes.run(spool, functools.partial(_packed, passes, step))
            coded.append(Reader(spool))
            tries.append(Try(step, [entry.bytes for entry in writer.index]))
            budget = budget or _budget(rate, writer, passes.rest())
            chosen = pick_tries(tries, budget)
            if chosen and total(tries, chosen) >= CLOSE * budget:
                break
            step = next_step(tries, budget)
        if chosen is None:
            least = min(t.bytes for t in tries)
            room = f"there is room for {budget}" if budget > 0 else "there is no room for them"
            raise TokcodecError(f"{passes.name}: the rate cannot be met: its chunks take {least} bytes, {room}")
        used = total(tries, chosen)
        if used < NEAR * budget:
            is_finest = min(t.step for t in tries) == STEP_RANGE[0]
            why = "the finest step takes no more" if is_finest else "its few chunks come no nearer"
            log.warning("%s: its chunks take %d of %d bytes that there are: %s", passes.name, used, budget, why)
        chunks = (coded[t].read_chunk(i) for i, t in enumerate(chosen))
        return write_stream(target, passes.header, chunks, passes.rest)


def _packed(passes: Passes, step: float, clip: Clip, counter: Counter) -> Chunk:
    """A chunk coded with a step."""
    coded = passes.tokenizer.pack(clip.planes, step, helpers=passes.helpers, spans=passes.spans, on_frame=counter.coded)
    return _chunk(clip, step, *coded)


def _tried(passes: Passes, goal: QualityGoal, clip: Clip, counter: Counter) -> Chunk:
    """A chunk coded with the coarsest step whose pictures meet a goal.

    An attempt counts as a share of the frames: of what is left, as if the least number of attempts were to come.
    """
    tokenizer, original = passes.tokenizer, clip.pictures
    assert original is not None
    left, attempts = float(len(clip.pts)), 2 + BISECTIONS

    def attempt(step: float) -> tuple[bool, Coding | IntegerCoding]:
        nonlocal left, attempts
        share, attempts = 1 / max(attempts, 2), attempts - 1
        part = share * left / len(clip.pts) / 2  # that a frame counts when it is coded, and again when it is shown
        left *= 1 - share
        coding = tokenizer.code(
            clip.planes,
            step,
            helpers=passes.helpers,
            spans=passes.spans,
            on_frame=lambda frames: counter.coded(part * frames),
        )
        shown = []
        for pictures in tokenizer.pictures(coding, step, *original.shape[1:3]):
            shown.append(pictures)
            counter.coded(part * len(pictures))
        return goal(original, np.concatenate(shown)), coding

    step, is_good, coding = coarsest(attempt)
    counter.coded(left)
    if not is_good:
        log.warning("%s is out of reach for %d frames; they have the finest step", goal, len(clip.pts))
    return _chunk(clip, step, *tokenizer.packed(coding, step))


def _chunk(clip: Clip, step: float, coder: int, motion: bytes, levels: bytes) -> Chunk:
    return Chunk(len(clip.pts), coder, round(STEP_UNITS * step), clip.pts, clip.duration, motion, levels)


def _guess(rate: Rate, info: VideoInfo) -> float:
    """A step that may meet a rate of the whole."""
    frame_px = info.width * info.height
    if rate.bitrate_kbps is not None:
        return first_step(1000 * rate.bitrate_kbps / float(info.frame_rate) / frame_px if info.frame_rate else None)
    assert rate.target_size_bytes is not None
    return first_step(8 * rate.target_size_bytes / info.frames / frame_px if info.frames else None)


def _budget(rate: Rate, writer: Writer, rest: Rest) -> int:
    """Bytes that all chunk records may have together.

    Args:
        rate: of the whole.
        writer: has written all chunks, coded in some way, and nothing else; it is closed.
        rest: what else the stream will hold.
    """
    (metadata, streams), index, spool = rest, writer.index, io.BytesIO()
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
