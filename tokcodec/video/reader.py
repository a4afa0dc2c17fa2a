"""Frames of a video file, with their timestamps, and the packets of its other streams."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Self

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.container import Flags as ContainerFlags
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.reformatter import ColorRange, VideoReformatter

from tokcodec.clock import ticks_of
from tokcodec.errors import VideoError
from tokcodec.io import standard
from tokcodec.video.cropping import crop_of
from tokcodec.video.ffmpeg import PipeFile, errors, exact, numbers_of, reason, url_of
from tokcodec.video.filters import UNFILTERED, Chain, Filters, Shown
from tokcodec.video.info import (
    MATRICES,
    SCALING,
    Colour,
    Frame,
    VideoInfo,
    colour_of,
    has_alpha,
    orientation_of,
    unkept,
)
from tokcodec.video.others import (
    LISTENED,
    SIDE_FORMATS,
    SIDE_OPTIONS,
    Copy,
    codec_of,
    delay_s,
    is_related,
    takes,
    title_of,
)

log = logging.getLogger("tokcodec")

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
        damaged: places that could not be read, and streams of sound or subtitles of which not all is in `side`, so far
            as they were told in a warning. Valid after the last frame.
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
            warned: of what was warned when the file was read before, which is not told again; takes what is told now.

        Raises:
            VideoError: not a video, or nothing in it decodes. Iterating raises it too.
        """
        is_stdin = str(source) == "-"
        self.name = name or ("stdin" if is_stdin else str(source))
        self._threads = threads
        self._scaler = VideoReformatter()
        self._warned: set[str] = set() if warned is None else warned
        numbers = [] if is_stdin else numbers_of(Path(source))
        self._pipe: BinaryIO | None = None  # that is to be closed
        if not is_stdin and is_pipe(source):
            with errors(self.name):
                self._pipe = Path(source).open("rb")  # noqa: SIM115
        file = standard.stdin() if is_stdin else self._pipe
        self._url: Any = url_of(source, bool(numbers)) if file is None else file if file.seekable() else PipeFile(file)
        self._options = {"start_number": str(numbers[0])} if numbers else {}
        for number, following in itertools.pairwise(numbers):
            if following > number + 1:
                self._warn(f"the images end at {number}: {number + 1} is missing")
                break
        self._filters = filters
        self._bytes = _size_of(self._url)
        self._open()
        self.damaged, self._damaged_frames = 0, 0
        self._first_size: tuple[int, int] | None = None  # of a wanted frame, before the filters
        self._first_aspect: Fraction | None = None  # of the pixels of a wanted frame, by the codec
        self._chain = Chain(filters, self._clock, threads, crop_of(self._stream))
        self._time_base = self._chain.time_base

        self.side_format: str | None = None
        self._side_format: str | None = None
        self._side: OutputContainer | None = None
        self._copy: Copy | None = None
        self._held: list[Packet[Stream]] | None = []  # packets that came before the first frame; None after it
        self._begin: int | None = None  # in ticks, as _end; None for no limit
        self._end: int | None = None
        self._wanted_s: tuple[float, float | None] | None = (start_s, duration_s)  # None once it is in ticks
        self._past_end = self._flushing = False
        self._jump_s = Fraction(0)  # added to what the clock says, see _close_jump
        self._expected_s: dict[int, Fraction] = {}  # stream to the end of its newest packet
        self._shift_s: Fraction | None = None  # taken from all timestamps; None until the first frame is known
        if span is not None or start_s <= 0:
            self._shift_s = self._clock_origin_s()
        if span is not None:
            shift = round(self._shift_s / self._time_base) if self._shift_s else 0
            self._begin, self._end = (None if ticks is None else ticks + shift for ticks in span)
            self._wanted_s = None
            self._seek(span[0] + shift)
        elif start_s > 0 and not (self._clock_jumps or self._is_untimed or is_pipe(source)):
            opening = next(self._decode(), None)
            self._open()
            self._limit(self._clock * ((None if opening is None else _time(opening)) or 0))
            self._seek(self._begin or 0)
        if side is not None:
            self._open_side(side)

        self.last_duration = 0
        self._frames = self._read()
        first = next(self._frames, None)
        if first is None:
            self.close()
            where = "" if start_s == 0 and duration_s is None else f" from {start_s:g} s"
            raise VideoError(f"{self.name}: no frame could be decoded{where}")
        self._frames = itertools.chain([first], self._frames)
        self.info = self._describe(first[0], start_s, duration_s)

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
                    src_colorspace=MATRICES[colour.matrix],
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
        self._container.close()
        if self._pipe is not None:
            self._pipe.close()

    def skip(self) -> None:
        """Read to the end without decoding: only `side` is filled, with what iterating would put there."""
        self._past_end = True
        for _ in self._frames:
            pass

    def times(self) -> list[int]:
        """The timestamps that iterating will give, told from the packets alone; the reader is used up.

        Returns:
            In `info.time_base`, increasing; empty where packets do not tell (no or equal timestamps, damage, a
            clock without origin, a new rate). What does not decode, and the second field of a frame, are counted too.
        """
        self._open()
        try:
            packets = self._container.demux(self._stream)
            times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
        except (FFmpegError, OSError):
            return []
        known = sorted({pts for pts in times if pts is not None})
        shift = round(self._clock_origin_s() / self._clock)
        untold = self._clock_jumps or self._filters.fps is not None or len(known) < len(times)
        return [] if untold else [pts - shift for pts in known]

    def _open(self) -> None:
        with errors(self.name, "not a video"):
            self._container: InputContainer = av.open(self._url, "r", options=self._options, metadata_errors="replace")
        # PyAV lets the demuxer make up what is missing, wrongly where frames are reordered (AVI); see _time
        self._container.flags &= ~ContainerFlags.gen_pts.value
        if self._container.format.name == "tty":  # FFmpeg renders text files as video
            raise VideoError(f"{self.name}: not a video: text")
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError(f"{self.name}: no video stream")
        best = self._container.streams.best("video")
        self._stream = next((s for s in streams if s is best), streams[0])
        if self._stream.codec_context is None:
            raise VideoError(f"{self.name}: no decoder for its video stream")
        self._programme = [s for s in self._container.streams if is_related(s, self._stream, self._container)]
        self._clock = exact(self._stream.time_base or Fraction(1, 1000))  # seconds of a tick of the source
        flags = FormatFlags(self._container.format.flags)
        self._clock_jumps = FormatFlags.ts_discont in flags
        self._is_untimed = FormatFlags.no_timestamps in flags
        self._stream.codec_context.flags |= CodecFlags.unaligned  # else a crop on the left is rounded away
        self._stream.codec_context.thread_type = "AUTO"
        self._stream.codec_context.thread_count = self._threads

    def _clock_origin_s(self) -> Fraction:
        """Where to put zero: at the earliest stream if all start late, or the container's clock starts anywhere."""
        streams = [s for s in self._programme if s.start_time is not None and s.time_base]
        kinds = ("video", "audio", "subtitle")
        streams = [s for s in streams if s.type in kinds and not s.disposition & Disposition.attached_pic]
        starts_s = [(s.start_time or 0) * exact(s.time_base or 0) for s in streams]
        earliest_s = min(starts_s, default=Fraction(0))
        return earliest_s if self._clock_jumps else max(earliest_s, Fraction(0))

    def _limit(self, first_s: Fraction) -> None:
        """Set what is wanted in ticks, now that the time of the first frame is known."""
        if self._wanted_s is None:
            return
        start_s, duration_s = self._wanted_s
        self._wanted_s = None
        first = round(first_s / self._time_base)
        if start_s > 0:
            self._begin = first + self._ticks(start_s)
        if duration_s is not None:
            self._end = first + self._ticks(start_s + duration_s)

    def _ticks(self, time_s: float) -> int:
        return ticks_of(time_s, self._time_base)

    def _seek(self, first: int) -> None:
        """Put the demuxer where decoding reaches the first wanted frame: on a key frame before it."""
        begin = math.floor((first * self._time_base - max(map(delay_s, self._programme))) / self._clock)
        if self._filters != UNFILTERED:
            begin -= ticks_of(SETTLE_S, self._clock)
        for back_s in (0, 2, 10, 60):  # containers without an index, and open GOPs, can land behind the goal
            goal = begin - ticks_of(back_s, self._clock)
            if goal <= (self._stream.start_time or 0):
                break
            with contextlib.suppress(FFmpegError):
                self._container.seek(goal, stream=self._stream)
                opening = next(self._container.decode(self._stream), None)
                time = None if opening is None else _time(opening)
                if time is not None and time <= begin:
                    self._open()  # a decoder that was flushed may have forgotten its reordering
                    self._container.seek(goal, stream=self._stream)
                    return
            self._open()

    def _open_side(self, file: BinaryIO) -> None:
        streams = [s for s in self._container.streams if s.index != self._stream.index]
        if self._container.chapters():  # the titles of those in mp4 and mov, a second time
            streams = [s for s in streams if (s.type, codec_of(s)) != ("data", "bin_data")]
        kinds = ("audio", "subtitle", "data", "attachment")
        for stream in [s for s in streams if s not in self._programme]:
            log.warning("%s: %s is left out: it belongs to another programme", self.name, title_of(stream))
            streams.remove(stream)
        for stream in [s for s in streams if s.type not in kinds or codec_of(s) is None]:
            log.warning("%s: %s is left out", self.name, title_of(stream))
            self.damaged += stream.type in LISTENED
            streams.remove(stream)
        if not streams:
            return
        # Matroska keeps to itself: delays and padding of sound, of which MP4 has others
        formats = sorted(SIDE_FORMATS, key=lambda name: name not in self._container.format.name)
        muxer = max(formats, key=lambda m: sum(takes(m, s) for s in streams))
        target = av.open(file, "w", format=muxer, container_options=SIDE_OPTIONS)
        self._copy = Copy(streams, target, self.name)
        if self._copy.outputs:
            with errors(self.name):
                target.start_encoding()
            self._side, self._side_file, self._side_format = target, file, muxer

    def _read(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames of the wanted part and their final timestamps; then finish the side."""
        rate = self._filters.fps or self._frame_rate()
        step = max(1, round(1 / (rate * self._time_base))) if rate else 1
        previous: int | None = None
        for frame, pts, duration in self._filtered():
            if previous is not None:
                step = pts - previous
            if self._end is not None and pts >= self._end:
                if not self._past_end:
                    self._past_end, self.last_duration = True, step
                continue
            previous = pts
            if self._begin is not None and pts < self._begin:
                continue
            if self._shift_s is None:
                self._shift_s, self._begin = pts * self._time_base, pts
            if self._held is not None:
                held, self._held = self._held, None
                for packet in held:
                    self._take(packet)
            self.last_duration = duration or step
            self._chain.size = self._chain.size or (frame.width, frame.height)
            yield frame, pts - round(self._shift_s / self._time_base)
        if frames := self._damaged_frames:
            self._warn(f"{frames} of its frames {'is' if frames == 1 else 'are'} damaged")
            self.damaged += frames
        if self._copy is not None:
            self.damaged += self._copy.lost
        if self._side is not None:
            with errors(self.name):
                self._side.close()
                if self._copy is not None:
                    self._copy.finish(self._side_file)
                self._side_file.flush()
            self.side_format = self._side_format

    def _filtered(self) -> Iterator[Shown]:
        """All frames from here on, through the filters, in ticks of the result."""
        turned = False
        with errors(self.name):
            for shown in self._timed():
                if self._chain.source is None and self._filters.scale:
                    turned = orientation_of(shown.frame, self._warn)[0] % 180 != 0
                yield from self._chain.feed(shown, turned)
            yield from self._chain.flush()

    def _timed(self) -> Iterator[Shown]:
        """All frames from here on and their timestamps, mended, in ticks of the source."""
        step = max(1, round(1 / (rate * self._clock))) if (rate := self._frame_rate()) else 1
        previous: int | None = None
        lasts = count = 0
        for frame in self._decode():
            count += 1
            pts = _time(frame)
            if pts is None:
                if not (self._is_untimed or self._flushing):  # the last ones of an AVI are not told either
                    self._warn("some frames have no timestamp; filled in")
                pts = 0 if previous is None else previous + lasts
            self._limit(pts * self._clock)
            if previous is not None:
                if pts <= previous:
                    self._warn("timestamps run backwards; mended")
                    pts = previous + 1
                step = pts - previous
            previous, lasts = pts, frame.duration or step
            self._look(frame, pts * self._clock / self._time_base)
            yield Shown(frame, pts, lasts)
        if not self._past_end and previous is not None and self._stream.duration and count < self._stream.frames:
            missing = (self._stream.start_time or 0) + self._stream.duration - previous - lasts
            if missing > 2 * lasts:  # an edit list, too, can hide some of the frames it counts
                self._warn(f"ends {float(missing * self._clock):.2f} s early; the file is cut off or damaged")
                self.damaged += 1

    def _look(self, frame: av.VideoFrame, pts: Fraction) -> None:
        """Count or tell what is wrong with a decoded frame, and what it has that is not kept, if it is wanted."""
        if (self._begin is not None and pts < self._begin) or (self._end is not None and pts >= self._end):
            return
        self._damaged_frames += frame.is_corrupt
        if frame.interlaced_frame and not self._filters.deinterlace:
            self._warn("it is interlaced and coded as it is, with its combs; deinterlacing removes them")
        size = (frame.width, frame.height)
        if self._first_size is None:
            self._first_size = size
        elif size != self._first_size:
            first, new = (f"{width}x{height}" for width, height in (self._first_size, size))
            self._warn(f"the size of its frames changes from {first} to {new}; they are scaled to the first")
        aspect = exact(self._stream.codec_context.sample_aspect_ratio or 1)
        if self._first_aspect is None:
            self._first_aspect = aspect
        elif aspect != self._first_aspect:
            first, new = (f"{shape.numerator}:{shape.denominator}" for shape in (self._first_aspect, aspect))
            self._warn(f"the shape of its pixels changes from {first} to {new}; that of the first is kept for all")
        for name in () if self._chain.is_mapped(frame) else unkept(frame):  # which is no longer true of SDR
            self._warn(f"its {name} is not kept")

    def _decode(self) -> Iterator[av.VideoFrame]:
        """All frames from here on; packets of other streams are taken as they pass."""
        streams = [self._stream] if self._side is None else self._programme
        packets = self._container.demux(*streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                if not self._past_end and self._bytes is not None and (_size_of(self._url) or 0) > self._bytes:
                    self._warn("it grew while it was read; what was written later may be missing")
                    self.damaged += 1
                break
            except (FFmpegError, OSError) as error:
                self._warn(f"cannot be read any further ({reason(error)})")
                self.damaged += 1
                break
            if not packet.size:
                continue  # the demuxer's flush packet; a decoder would take an empty one for the end, too
            if self._clock_jumps:
                self._close_jump(packet)
            if packet.stream.index != self._stream.index:
                self._take(packet)
            elif not self._past_end:
                yield from self._frames_of(packet)
            if self._past_end and (self._side is None or self._is_far_past_end(packet)):
                return
        if not self._past_end:
            self._flushing = True
            yield from self._frames_of(None)

    def _close_jump(self, packet: Packet[Any]) -> None:
        """Let a clock that was set anew (MPEG-TS joined from parts) run on, by the rule of the ffmpeg tool.

        Only video and sound tell of it: they have no gaps, as subtitles do.
        """
        if packet.dts is None:
            return
        dts_s = packet.dts * packet.time_base + self._jump_s
        late_s = dts_s - self._expected_s.get(packet.stream.index, dts_s)
        if packet.stream.type in ("video", "audio") and not -0.1 < late_s < 10:
            self._warn("its clock jumps; closed the gap")
            self._jump_s -= late_s
        jump = round(self._jump_s / packet.time_base)
        packet.dts += jump
        packet.pts = None if packet.pts is None else packet.pts + jump
        self._expected_s[packet.stream.index] = (packet.dts + (packet.duration or 0)) * packet.time_base

    def _frames_of(self, packet: Packet[Any] | None) -> list[av.VideoFrame]:
        if packet is not None and self._stream.codec_context.name == "webp" and _is_animated(bytes(packet)):
            raise VideoError(f"{self.name}: animated WebP, which FFmpeg does not read")
        try:
            frames: list[av.VideoFrame] = self._stream.codec_context.decode(packet)
        except FFmpegError as error:
            self._warn(f"damaged; some frames are missing ({reason(error)})")
            self.damaged += 1
            return []
        return frames

    def _is_far_past_end(self, packet: Packet[Any]) -> bool:
        if self._end is None or packet.dts is None:
            return False
        return packet.dts * packet.time_base > self._end * self._time_base + INTERLEAVE_S

    def _take(self, packet: Packet[Any]) -> None:
        """Copy a packet of another stream to the side, unless it lies outside of the wanted part."""
        pts = packet.dts if packet.pts is None else packet.pts
        if pts is not None:
            time = pts * packet.time_base / self._time_base
            begin = None if self._begin is None else self._begin - delay_s(packet.stream) / self._time_base
            if (begin is not None and time < begin) or (self._end is not None and time >= self._end):
                return
        if self._held is not None:
            self._held.append(packet)
        elif self._copy is not None and self._shift_s is not None:
            self._copy.mux(packet, self._shift_s)

    def _frame_rate(self) -> Fraction:
        """Average, frames/s; 0 if unknown. Of a raw stream it is what its headers say, FFmpeg's default if nothing.

        An average above the base rate, of which all timestamps are multiples, is a wrong estimate (raw DV).
        """
        stream = self._stream
        average, base, guessed = (
            exact(rate or 0) for rate in (stream.average_rate, stream.base_rate, stream.guessed_rate)
        )
        is_wrong = self._is_untimed or average > base > 0
        return (guessed or average) if is_wrong else (average or guessed)

    def _describe(self, frame: av.VideoFrame, start_s: float, duration_s: float | None) -> VideoInfo:
        stream, source = self._stream, self._chain.source or frame
        rate = self._filters.fps or self._frame_rate()
        whole_s: float | None = None
        if stream.duration is not None:
            whole_s = float(stream.duration * self._clock)
        elif self._container.duration is not None:
            whole_s = self._container.duration / av.time_base
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
            time_base=self._time_base,
            frame_rate=rate,
            sample_aspect=exact(aspect) * stretch if aspect else Fraction(1),
            rotation=rotation,
            mirrored=mirrored,
            colour=self._colour_of(source),
            frames=frames,
            duration_s=part_s,
            tags={k: v for k, v in self._container.metadata.items() if k.lower() not in OWN_TAGS},
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
        shift = round(self._shift_s / self._time_base) if self._shift_s else 0
        begin = 0 if self._begin is None else self._begin - shift
        end = None if self._end is None else self._end - shift
        chapters = []
        for chapter in self._container.chapters():
            scale = (chapter["time_base"] or Fraction(1, 1000)) / self._time_base
            first, last = (round(chapter[edge] * scale) - shift for edge in ("start", "end"))
            if first <= last and (last > begin or first == begin) and (end is None or first < end):
                last = last if end is None else min(last, end)
                chapters.append((max(first, begin), last, chapter["metadata"].get("title", "")))
        return tuple(chapters)

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s: %s", self.name, message)


def is_pipe(source: str | Path) -> bool:
    """Whether a source can be read only once."""
    if str(source) == "-":
        return True
    with contextlib.suppress(OSError):
        mode = os.stat(source).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
    return False


def _size_of(url: Any) -> int | None:
    """Bytes of a file; None of what is none."""
    with contextlib.suppress(OSError):
        status = os.stat(url.removeprefix("file:")) if isinstance(url, str) else None
        return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None
    return None


def _is_animated(webp: bytes) -> bool:
    """What a WebP file says of itself (RFC 9649, 2.7)."""
    return webp[12:16] == b"VP8X" and len(webp) > 20 and bool(webp[20] & 0x02)


def _time(frame: av.VideoFrame) -> int | None:
    """When to show a frame: where its packet does not say (AVI), when the packet that brought it out was decoded."""
    return frame.dts if frame.pts is None else frame.pts
