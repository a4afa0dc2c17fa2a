"""A video cut into chunks: where scenes change, and else after so many frames."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.codec.cuts import CUT_MARGIN, cuts
from tokcodec.coding.planes import GROUP
from tokcodec.errors import VideoError
from tokcodec.stream.records import MAX_TICKS
from tokcodec.video import VideoReader

CHUNK_FRAMES = 129
SECTION_CHUNKS = 8  # full chunks of a section: a new one begins a chunk whatever lies before, so that pieces can
CHUNK_PX = 1 << 28  # of a chunk's frames: larger frames than 1080p come in shorter chunks


def chunk_frames_for(height: int, width: int) -> int:
    """The most frames of a chunk of frames of this size: the first, and whole groups of the network behind it."""
    return 1 + (min(CHUNK_FRAMES, max(1, CHUNK_PX // (height * width))) - 1) // GROUP * GROUP


class Clip(NamedTuple):
    """The frames of a chunk."""

    frames: NDArray[np.uint8]  # [F, H, W, 3]
    pts: tuple[int, ...]
    duration: int  # of the last frame


def section_frames_for(height: int, width: int) -> int:
    """The frames of a section: what is cut into chunks without a look at what lies before or behind."""
    return SECTION_CHUNKS * chunk_frames_for(height, width)


def clips_of(reader: VideoReader, chunk_frames: int) -> Generator[Clip, None, None]:
    """Cut a video into chunks: where scenes change, and else after `chunk_frames`. Closes it.

    A section starts anew whatever lies between, so that pieces of a video (batch/pieces.py) have the chunks of the
    whole.
    """
    info, times = reader.info, list[int]()
    section = left = SECTION_CHUNKS * chunk_frames  # frames of the section from the first that is held
    held = np.empty((chunk_frames + CUT_MARGIN, info.height, info.width, 3), np.uint8)

    def clip(after: int) -> Clip:
        """The first chunk of the frames held; `after` is the timestamp that follows them."""
        nonlocal held, left
        count = next(iter(cuts(held[: len(times)])), min(chunk_frames, len(times)))
        pts, rest = [*times, after], held[count : len(times)]
        if pts[0] < -MAX_TICKS or pts[count] > MAX_TICKS:
            raise VideoError(f"{reader.name}: timestamps are out of range")
        made = Clip(held[:count], tuple(pts[:count]), pts[count] - pts[count - 1])
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
