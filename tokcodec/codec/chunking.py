"""A video cut into chunks: where scenes change, and else after so many frames."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.codec.cuts import CUT_MARGIN, cuts, means_of
from tokcodec.coding.planes import GROUP, Planes, blank, put_rgb
from tokcodec.errors import VideoError
from tokcodec.stream.records import MAX_TICKS
from tokcodec.video import VideoReader

CHUNK_FRAMES = 257
SECTION_CHUNKS = 4  # full chunks of a section: a new one begins a chunk whatever lies before, so that pieces can
CHUNK_PX = 1 << 28  # of a chunk's frames: larger frames than 1080p come in shorter chunks


def chunk_frames_for(height: int, width: int) -> int:
    """The most frames of a chunk of frames of this size: the first, and whole groups of the network behind it."""
    return 1 + (min(CHUNK_FRAMES, max(1, CHUNK_PX // (height * width))) - 1) // GROUP * GROUP


class Clip(NamedTuple):
    """The frames of a chunk.

    Attributes:
        planes: what is coded.
        pictures: uint8 `[F, H, W, 3]`, as they were read; None where nobody compares them.
        pts: their timestamps.
        duration: of the last frame.
    """

    planes: Planes
    pictures: NDArray[np.uint8] | None
    pts: tuple[int, ...]
    duration: int


def section_frames_for(height: int, width: int) -> int:
    """The frames of a section: what is cut into chunks without a look at what lies before or behind."""
    return SECTION_CHUNKS * chunk_frames_for(height, width)


def clips_of(reader: VideoReader, chunk_frames: int, keep: bool = False) -> Generator[Clip, None, None]:
    """Cut a video into chunks: where scenes change, and else after `chunk_frames`. Closes it.

    A section starts anew whatever lies between, so that pieces of a video (batch/pieces.py) have the chunks of the
    whole. What is held of a frame are its planes, half of the bytes of its picture.

    Args:
        keep: whether the pictures are kept as well.
    """
    info, times, means = reader.info, list[int](), list[NDArray[np.float64]]()
    section = left = SECTION_CHUNKS * chunk_frames  # frames of the section from the first that is held
    most = chunk_frames + CUT_MARGIN
    held, pictures = blank(most, info.height, info.width), list[NDArray[np.uint8]]()

    def clip(after: int) -> Clip:
        """The first chunk of the frames held; `after` is the timestamp that follows them."""
        nonlocal held, left
        count = next(iter(cuts(means)), min(chunk_frames, len(times)))
        pts, rest = [*times, after], held.part(slice(count, len(times)))
        if pts[0] < -MAX_TICKS or pts[count] > MAX_TICKS:
            raise VideoError(f"{reader.name}: timestamps are out of range")
        kept = np.stack(pictures[:count]) if keep else None
        made = Clip(held.part(slice(count)), kept, tuple(pts[:count]), pts[count] - pts[count - 1])
        held = blank(most, info.height, info.width)  # the clip is a view of the other
        for new, old in zip(held, rest, strict=True):
            new[: len(old)] = old
        del times[:count], means[:count], pictures[:count]
        left = left - count or section
        return made

    with reader:
        for frame, pts in reader:
            while len(times) == min(most, left):
                yield clip(pts)
            put_rgb(frame[None], held.part(slice(len(times), len(times) + 1)))
            if keep:
                pictures.append(frame.copy())
            means.append(means_of(frame))
            times.append(pts)
        while times:
            yield clip(times[-1] + max(1, reader.last_duration))
