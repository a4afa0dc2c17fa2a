"""What a run made or read, in numbers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from tokcodec.rate import STEP_UNITS
from tokcodec.stream.records import Entry, Header

Progress = Callable[[int, int, int | None, int], None]  # frames done, bytes, frames in all if known, pixels a frame


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run made or read.

    Attributes:
        width: in pixels, as coded; also height.
        damaged: places of the source that could not be read; of a stream, with salvage only.
        bytes: of the stream, all of it.
        video_bytes: of them without the other streams (sound, subtitles).
        other_bytes: of them for the other streams.
        bpp: 8 * video_bytes / (width * height * frames).
        kbps: 8 * video_bytes / duration / 1000.
        step: finest and coarsest of its chunks, in levels of 255.
        seconds: wall time.
        network_s: of them inside the network, transfers of frames to and from its device included.
        peak_vram_bytes: most memory the process has held on a GPU; 0 on a CPU.
    """

    width: int
    height: int
    frames: int
    chunks: int
    duration_s: float
    damaged: int
    bytes: int
    video_bytes: int
    other_bytes: int
    bpp: float
    kbps: float
    step: tuple[float, float]
    seconds: float
    network_s: float = 0.0
    peak_vram_bytes: int = 0


def report_of(
    header: Header,
    index: Sequence[Entry],
    size_bytes: int,
    video_bytes: int,
    started: float,
    damaged: int = 0,
    shown: tuple[int, int] | None = None,
) -> Report:
    """Sum up a stream.

    Args:
        header: of the stream.
        index: its chunks.
        size_bytes: of the whole stream.
        video_bytes: of it without the other streams.
        started: `time.monotonic()` when the work began.
        damaged: places that could not be read.
        shown: how many frames are, and for how many ticks; None for all.
    """
    frames, ticks = shown or (sum(entry.frames for entry in index), index[-1].end_pts - index[0].first_pts)
    duration_s = float(ticks * header.time_base)
    return Report(
        width=header.width,
        height=header.height,
        frames=frames,
        chunks=len(index),
        duration_s=round(duration_s, 6),
        damaged=damaged,
        bytes=size_bytes,
        video_bytes=video_bytes,
        other_bytes=size_bytes - video_bytes,
        bpp=round(8 * video_bytes / (header.width * header.height * frames), 6),
        kbps=round(8 * video_bytes / duration_s / 1000, 3),
        step=(min(e.step for e in index) / STEP_UNITS, max(e.step for e in index) / STEP_UNITS),
        seconds=round(time.monotonic() - started, 3),
    )
