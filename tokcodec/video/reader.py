"""Frames of a video file, with their timestamps, and the packets of its other streams."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Self

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from tokcodec.errors import VideoError
from tokcodec.video.cropping import crop_of
from tokcodec.video.demuxer import Complaints, Demuxer, is_pipe, time_of
from tokcodec.video.ffmpeg import errors, exact
from tokcodec.video.filters import UNFILTERED, Chain, Filters, TimedFrame
from tokcodec.video.info import (
    SCALING,
    SWSCALE_MATRICES,
    Colour,
    Frame,
    VideoInfo,
    colour_of,
    has_alpha,
    orientation_of,
    unkept,
)
from tokcodec.video.recorder import Recorder
from tokcodec.video.timeline import Mender, Wanted

SETTLE_S = 0.2  # before the first wanted frame, for filters that look at the frames around one
INTERLEAVE_S = 10  # how far apart a file may store packets that belong to one time
OWN_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}  # of a file, not of its video


class VideoReader:
    """The frames of a video file, once, in order; the packets of its other streams on the side.

    Iterating yields (frame, pts): uint8 `[H, W, 3]` RGB, C-contiguous, and an int in `info.time_base`,
    strictly increasing. Timestamps are those of the file, but for four cases: with `start_s` the first
    frame becomes 0; a file that starts late, or whose clock has no origin (MPEG-TS), starts at 0; what has no
    timestamps (raw H.264) goes by its frame rate; other missing ones, and backward ones, are mended, with a
    warning. Filters change them as they say. A file that breaks after some frames gives those, with a warning. Frames
    after a change of size are scaled to the first one's, with a warning.

    Attributes:
        info: of the part that will be read.
        last_duration: ticks the newest frame lasts.
        side_format: FFmpeg's name of the container written to `side`; None if no stream went there. Valid
            after the last frame.
    """

    def __init__(
        self,
        source: str | Path,
        start_s: float = 0.0,
        duration_s: float | None = None,
        threads: int = 0,
        side: BinaryIO | None = None,
        span: tuple[int, int | None] | None = None,
        name: str = "",
        filters: Filters = UNFILTERED,
        warned: set[str] | None = None,
    ) -> None:
        """Open a file and decode its first frame.

        Args:
            source: a file of any kind FFmpeg reads, a pattern of images (`frames/%05d.png`, from any number on up to
                the first that is missing), "-" for stdin.
            start_s: skip frames before this time, in seconds after the first frame. Frame-exact. A pipe, and a
                file whose clock may jump or is missing (MPEG-TS, raw H.264), is decoded from its beginning.
            duration_s: end before `start_s + duration_s`; None for all.
            threads: to decode with; 0 lets FFmpeg choose.
            side: seekable file that receives audio, subtitle and data streams, remuxed and cut likewise.
            span: only frames from this timestamp on and before that one (None: to the end), in `info.time_base`;
                timestamps stay those of the whole. In place of `start_s` and `duration_s`.
            name: what messages call the source, if not its path.
            filters: what is done to the frames; parts are cut from what they make of the whole.
            warned: warnings given when the file was read before, which are not repeated; takes the new ones.

        Raises:
            VideoError: not a video, or nothing in it decodes. Iterating raises it too.
        """
        self.name = name or ("stdin" if str(source) == "-" else str(source))
        self._threads, self._filters = threads, filters
        self._complaints = Complaints(self.name, warned)
        self._warn = self._complaints.warn
        self._source = Demuxer(source, self.name, threads, self._complaints)
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)  # if what follows fails
            self._scaler = VideoReformatter()
            self._chain = Chain(filters, self._source.clock, threads, crop_of(self._source.stream))
            self._wanted = Wanted(self._chain.time_base, start_s, duration_s)
            self._is_past_end = False
            self._damaged_frames = 0
            self._first_size: tuple[int, int] | None = None  # of a wanted frame, before the filters
            self._first_aspect: Fraction | None = None  # of the pixels of a wanted frame, by the codec
            self._recorder: Recorder | None = None
            self._begin_at(source, start_s, span)
            if side is not None:
                self._recorder = Recorder.open(self._source, side, self._complaints)
            self.side_format: str | None = None
            self.last_duration = 0
            self._frames = self._read()
            first = next(self._frames, None)
            if first is None:
                where = "" if start_s == 0 and duration_s is None else f" from {start_s:g} s"
                raise VideoError(f"{self.name}: no frame could be decoded{where}")
            self._frames = itertools.chain([first], self._frames)
            self.info = self._describe(first[0], start_s, duration_s)
            stack.pop_all()

    @property
    def damaged(self) -> int:
        """Places that could not be read, and streams of sound or subtitles of which not all is in `side`.

        Valid after the last frame; there was a warning of each.
        """
        return self._complaints.damaged

    def __iter__(self) -> Iterator[tuple[Frame, int]]:
        source: av.VideoFrame | None = None
        colour = self.info.colour
        for frame, pts in self._frames:
            if source is not self._chain.source and self._chain.source is not None:
                source = self._chain.source
                colour = self._colour_of(source)
            see_through = has_alpha(frame.format)
            with errors(self.name):
                converted = self._scaler.reformat(
                    frame,
                    format="rgba" if see_through else "rgb24",
                    src_colorspace=SWSCALE_MATRICES[colour.matrix],
                    src_color_range=ColorRange.JPEG if colour.full_range else ColorRange.MPEG,
                    dst_color_range=ColorRange.JPEG,
                    interpolation=SCALING,
                    threads=self._threads,
                )
            pixels = converted.to_ndarray()
            if see_through and pixels[..., 3].min() < 255:
                self._warn("its transparency is left out")
            yield np.ascontiguousarray(pixels[..., :3], dtype=np.uint8), pts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; what `side` received so far is not finished."""
        self._source.close()

    def skip(self) -> None:
        """Read to the end without decoding: only `side` is filled, with what iterating would put there."""
        self._is_past_end = True
        for _ in self._frames:
            pass

    def times(self) -> list[int]:
        """The timestamps that iterating will give, from the packets alone; the reader is used up.

        Returns:
            In `info.time_base`, increasing; empty where packets do not tell (no or equal timestamps, damage, a
            clock without origin, a new rate). What does not decode, and the second field of a frame, are counted too.
        """
        return self._source.times() if self._filters.fps is None else []

    def _begin_at(self, source: str | Path, start_s: float, span: tuple[int, int | None] | None) -> None:
        """Go to the first wanted frame, where the file can be searched."""
        wanted, early_s = self._wanted, 0.0 if self._filters == UNFILTERED else SETTLE_S
        if span is not None or start_s <= 0:
            wanted.shift_s = self._source.origin_s()
        if span is not None:
            wanted.set_span(*span)
        elif start_s > 0 and not (self._source.jumps or self._source.is_untimed or is_pipe(source)):
            opening = next(self._decode(), None)
            self._source.reopen()
            wanted.set_first(self._source.clock * ((None if opening is None else time_of(opening)) or 0))
        else:
            return
        self._source.seek((wanted.begin or 0) * wanted.time_base, early_s)

    def _read(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames of the wanted part and their final timestamps; then finish the side."""
        wanted, complaints = self._wanted, self._complaints
        rate = self._filters.fps or self._source.frame_rate()
        step = max(1, round(1 / (rate * wanted.time_base))) if rate else 1
        previous: int | None = None
        for frame, pts, duration in self._filtered():
            if previous is not None:
                step = pts - previous
            if wanted.end is not None and pts >= wanted.end:
                if not self._is_past_end:
                    self._is_past_end, self.last_duration = True, step
                continue
            previous = pts
            if wanted.begin is not None and pts < wanted.begin:
                continue
            if wanted.shift_s is None:
                wanted.shift_s, wanted.begin = pts * wanted.time_base, pts
            if self._recorder is not None:
                self._recorder.start(wanted)
            self.last_duration = duration or step
            self._chain.size = self._chain.size or (frame.width, frame.height)
            yield frame, pts - wanted.shift
        if frames := self._damaged_frames:
            self._warn(f"{frames} of its frames {'is' if frames == 1 else 'are'} damaged")
            complaints.damaged += frames
        if self._recorder is not None:
            self.side_format = self._recorder.finish(complaints)

    def _filtered(self) -> Iterator[TimedFrame]:
        """All frames from here on, through the filters, in ticks of the result."""
        turned = False
        with errors(self.name):
            for timed in self._timed():
                if self._chain.source is None and self._filters.scale:
                    turned = orientation_of(timed.frame, self._warn)[0] % 180 != 0
                yield from self._chain.feed(timed, turned)
            yield from self._chain.flush()

    def _timed(self) -> Iterator[TimedFrame]:
        """All frames from here on and their timestamps, mended, in ticks of the source."""
        source, rate = self._source, self._source.frame_rate()
        mender = Mender(max(1, round(1 / (rate * source.clock))) if rate else 1, self._warn)
        count = 0
        for frame in self._decode():
            count += 1
            may_lack = source.is_untimed or source.is_flushing  # the last ones of an AVI have none either
            pts = mender.mend(time_of(frame), frame.duration or 0, may_lack)
            self._wanted.set_first(pts * source.clock)
            if self._wanted.holds(pts * source.clock / self._wanted.time_base):
                self._look(frame)
            yield TimedFrame(frame, pts, mender.lasts)
        stream = source.stream
        if not self._is_past_end and mender.newest is not None and stream.duration and count < stream.frames:
            missing = (stream.start_time or 0) + stream.duration - mender.newest - mender.lasts
            if missing > 2 * mender.lasts:  # an edit list, too, can hide some of the frames it counts
                ends = f"ends {float(missing * source.clock):.2f} s early"
                self._complaints.damage(f"{ends}; the file is cut off or damaged")

    def _look(self, frame: av.VideoFrame) -> None:
        """Count or tell what is wrong with a wanted frame, and what it has that is not kept."""
        self._damaged_frames += frame.is_corrupt
        if frame.interlaced_frame and not self._filters.deinterlace:
            self._warn("it is interlaced and coded as it is, with its combs; deinterlacing removes them")
        size = (frame.width, frame.height)
        if self._first_size is None:
            self._first_size = size
        elif size != self._first_size:
            first, new = (f"{width}x{height}" for width, height in (self._first_size, size))
            self._warn(f"the size of its frames changes from {first} to {new}; they are scaled to the first")
        aspect = exact(self._source.stream.codec_context.sample_aspect_ratio or 1)
        if self._first_aspect is None:
            self._first_aspect = aspect
        elif aspect != self._first_aspect:
            first, new = (f"{shape.numerator}:{shape.denominator}" for shape in (self._first_aspect, aspect))
            self._warn(f"the shape of its pixels changes from {first} to {new}; that of the first is kept for all")
        for name in () if self._chain.is_mapped(frame) else unkept(frame):  # which is no longer true of SDR
            self._warn(f"its {name} is not kept")

    def _decode(self) -> Iterator[av.VideoFrame]:
        """All frames from here on; packets of other streams are taken as they pass."""
        source = self._source
        for packet in source.packets(whole_programme=self._recorder is not None):
            if packet.stream.index == source.stream.index:
                if not self._is_past_end:
                    yield from source.frames_of(packet)
            elif self._recorder is not None:
                self._recorder.take(packet, self._wanted)
            if self._is_past_end:
                end, dts = self._wanted.end, packet.dts
                is_far = (
                    end is not None
                    and dts is not None
                    and (dts * packet.time_base > end * self._wanted.time_base + INTERLEAVE_S)
                )
                if self._recorder is None or is_far:
                    return
        if not self._is_past_end:
            if source.has_grown:
                self._complaints.damage("it grew while it was read; what was written later may be missing")
            yield from source.frames_of(None)

    def _describe(self, frame: av.VideoFrame, start_s: float, duration_s: float | None) -> VideoInfo:
        stream, source, tags = self._source.stream, self._chain.source or frame, self._source.container.metadata
        rate = self._filters.fps or self._source.frame_rate()
        whole_s = self._source.duration_s()
        part_s = duration_s if whole_s is None else min(max(0.0, whole_s - start_s), duration_s or math.inf)
        frames: int | None = None
        if stream.frames and part_s == whole_s and self._filters.fps is None:
            frames = stream.frames
        elif part_s is not None and rate:
            frames = max(1, round(part_s * rate))
        rotation, mirrored = orientation_of(source, self._warn)
        aspect = stream.sample_aspect_ratio
        width, height = self._chain.cropped(source)
        stretch = Fraction(width * frame.height, height * frame.width)  # by scaling
        if stream.metadata.get("alpha_mode") == "1":  # VP8 and VP9, whose transparency is not decoded
            self._warn("its transparency is left out")
        return VideoInfo(
            width=frame.width,
            height=frame.height,
            time_base=self._wanted.time_base,
            frame_rate=rate,
            sample_aspect=exact(aspect) * stretch if aspect else Fraction(1),
            rotation=rotation,
            mirrored=mirrored,
            colour=self._colour_of(source),
            frames=frames,
            duration_s=part_s,
            tags={k: v for k, v in tags.items() if k.lower() not in OWN_TAGS},
            language="" if (language := stream.metadata.get("language", "")) == "und" else language,
            chapters=self._chapters(),
            name=stream.metadata.get("title") or stream.metadata.get("name", ""),  # the latter in mp4 and mov
        )

    def _colour_of(self, source: av.VideoFrame) -> Colour:
        """What the frames made of one of the source have for colour."""
        if self._chain.is_mapped(source):
            return Colour(1, 1, 1)
        if self._filters.tonemap:
            self._warn("it is not tagged as HDR (PQ or HLG); no tones are mapped")
        return colour_of(source, self._warn)

    def _chapters(self) -> tuple[tuple[int, int, str], ...]:
        """Those of the wanted part, on the clock of the result."""
        chapters = []
        for chapter in self._source.container.chapters():
            tick_s = exact(chapter["time_base"] or Fraction(1, 1000))
            span = self._wanted.cut(chapter["start"] * tick_s, chapter["end"] * tick_s)
            if span is not None:
                chapters.append((*span, chapter["metadata"].get("title", "")))
        return tuple(chapters)
