"""What is done to the frames of a source before they are given: one filter graph of FFmpeg."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.error import BlockingIOError as NothingYetError
from av.error import EOFError as EndOfFileError
from av.filter import Graph

from tokcodec.video.info import has_alpha
from tokcodec.video.tonemap import HLG, PQ, table

SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int"


@dataclasses.dataclass(frozen=True)
class Filters:
    """What is done to frames, in this order. Raises ValueError if a number is out of range.

    Attributes:
        deinterlace: fill in each frame what its second field is, from the frames around it (FFmpeg's bwdif); as many
            frames as before.
        fps: frames/s, made even by leaving out and repeating frames; None leaves them as they are.
        scale: width and height in pixels, as shown (after rotation); one of them may be -n, to be a multiple of n that
            keeps the shape. None leaves them as they are.
        tonemap: make SDR in BT.709 of what is tagged as HDR (PQ or HLG), before frames are left out and scaled.
    """

    deinterlace: bool = False
    fps: Fraction | None = None
    scale: tuple[int, int] | None = None
    tonemap: bool = False

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"{self.fps} frames/s are not more than 0 and at most 1000")
        if self.scale is not None and (0 in self.scale or max(self.scale) < 0):
            raise ValueError(f"a size of {self.scale[0]}x{self.scale[1]} says neither width nor height")


UNFILTERED = Filters()


class TimedFrame(NamedTuple):
    """A frame, when to show it and how long, in ticks."""

    frame: av.VideoFrame
    pts: int
    duration: int


class Crop(NamedTuple):
    """Pixels to be taken off the edges of a frame."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


UNCROPPED = Crop()


class Chain:
    """Frames through the filters, whatever their size and format; without filters they pass untouched.

    A change of size or format on the way starts the filters anew. What comes out is scaled to `size` from then on, as
    FFmpeg does it.

    Attributes:
        time_base: seconds of a tick of what comes out.
        source: of the newest frame that came out, one of those it was made from: its size, colour and side data.
        size: width and height of all frames that come out from now on; None at first, for any.
    """

    def __init__(self, filters: Filters, time_base: Fraction, threads: int, crop: Crop = UNCROPPED) -> None:
        """Make a chain for frames with timestamps in `time_base`; `threads` 0 is as many as there are cores.

        What `crop` says is taken off before all else.
        """
        self.time_base = time_base if filters.fps is None else 1 / filters.fps
        self.source: av.VideoFrame | None = None
        self.size: tuple[int, int] | None = None
        self._filters, self._threads, self._source_time_base, self._crop = filters, threads, time_base, crop
        self._graph: Graph | None = None
        self._previous: int | None = None

    def feed(self, timed: TimedFrame, turned: bool) -> Iterator[TimedFrame]:
        """Frames that come out when the next one goes in.

        Args:
            timed: the next frame, its times in ticks of the source.
            turned: whether it is shown turned by a quarter.
        """
        if self.source is None or _layout(timed.frame) != _layout(self.source):
            yield from self.flush()
            self.source = timed.frame
            steps = self._steps(timed.frame, turned)
            self._graph = self._connected(timed.frame, steps) if steps else None
        if self._graph is None:
            yield timed
            return
        frame = timed.frame
        frame.pts, frame.time_base, frame.duration = timed.pts, self._source_time_base, timed.duration
        self._graph.vpush(frame)
        yield from self._pulled()

    def flush(self) -> Iterator[TimedFrame]:
        """The frames that are still inside."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pulled()
            self._graph = None

    def is_mapped(self, frame: av.VideoFrame) -> bool:
        """Whether a frame of the source is HDR and becomes SDR."""
        return self._filters.tonemap and frame.color_trc in (PQ, HLG)

    def cropped(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height of what is left of a frame of the source when its edges are off."""
        width = frame.width - self._crop.left - self._crop.right
        return width, frame.height - self._crop.top - self._crop.bottom

    def _pulled(self) -> Iterator[TimedFrame]:
        while self._graph is not None:
            try:
                frame = self._graph.vpull()
            except (NothingYetError, EndOfFileError):
                return
            assert frame.pts is not None
            ratio = (frame.time_base or self.time_base) / self.time_base
            pts = round(frame.pts * ratio)
            if self._previous is None or pts > self._previous:  # else two graphs made a frame of one time
                self._previous = pts
                yield TimedFrame(frame, pts, round((frame.duration or 0) * ratio))

    def _steps(self, frame: av.VideoFrame, turned: bool) -> list[tuple[str, str]]:
        """Filters and their arguments."""
        steps = []
        width, height = self.cropped(frame)
        if self._crop != UNCROPPED:
            steps.append(("crop", f"w={width}:h={height}:x={self._crop.left}:y={self._crop.top}"))
        if self._filters.deinterlace:
            if frame.format.is_rgb:
                steps.append(("format", "gbrap" if has_alpha(frame.format) else "gbrp"))
            steps.append(("bwdif", "mode=send_frame"))
        if self.is_mapped(frame):
            steps += [("scale", f"flags={SCALE_FLAGS}"), ("format", "gbrp16le"), ("lut3d", "")]
        if self._filters.fps is not None:
            steps.append(("fps", f"fps={self._filters.fps}"))
        if self.size is not None and (self.size != (width, height) or self._filters.scale is not None):
            size = self.size
        elif self._filters.scale is not None:
            size = self._filters.scale[::-1] if turned else self._filters.scale
        else:
            return steps
        return [*steps, ("scale", f"w={size[0]}:h={size[1]}:flags={SCALE_FLAGS}")]

    def _connected(self, frame: av.VideoFrame, steps: list[tuple[str, str]]) -> Graph:
        graph = Graph()
        graph.threads = self._threads
        source = graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(self._source_time_base),
            colorspace=str(int(frame.colorspace)),
            range=str(int(frame.color_range)),
        )
        with table(frame.color_trc) if self.is_mapped(frame) else contextlib.nullcontext("") as path:
            steps = [(name, f"file={path}" if name == "lut3d" else args) for name, args in steps]
            filters = [graph.add(name, args) for name, args in steps]
            graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
        return graph


def _layout(frame: av.VideoFrame) -> tuple[object, ...]:
    """What a filter graph is made for."""
    return frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, frame.color_trc
