"""Video files in and out: frames with exact timestamps, colour, shape, and the other streams of the file.

The only file that imports PyAV (FFmpeg's libraries). It gives and takes plain RGB arrays, and knows
nothing of tokens. Three rules:

- Colour: pixels are converted with the matrix and range the stream is tagged with (ITU-T H.273). What is
  not tagged is guessed as players do: BT.709 from 720 lines up, else BT.601; limited range.
- Time: timestamps stay the integers of the source; no frame is dropped or repeated to make a rate regular.
- Audio, subtitles and data are copied packet by packet, never decoded.

What is lost on the way (bit depth, a stream no container takes) is said on the logger "tokcodec".
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import logging
import math
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

import av
import numpy as np
from av.container import Flags as ContainerFlags
from av.container import InputContainer, OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.error import EOFError as EndOfFileError
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from tokcodec import standard
from tokcodec.clock import ticks_of
from tokcodec.errors import VideoError

if TYPE_CHECKING:
    from av.container.core import Chapter

log = logging.getLogger("tokcodec")

Frame = np.ndarray[Any, np.dtype[np.uint8]]  # [H, W, 3], RGB

# H.273 matrix coefficients that swscale converts. 10 is BT.2020 with constant luminance: near enough to 9.
MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
UNSPECIFIED = 2
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
SCALING = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND

SIDE_FORMATS = ("mp4", "mov", "matroska")  # for the other streams; Matroska last, for its timestamps are whole ms
MUXER_OPTIONS = {"movie_timescale": "90000"}  # of mov and mp4: the default rounds the start of a track to 1 ms
INTERLEAVE_S = 10  # how far apart a file may store packets that belong to one time

MATRIX_ONE = 1 << 16  # of a display matrix
ORIENTATIONS = {  # (rotation, mirrored) of VideoInfo to a, b, c, d: a display matrix shows (x, y) at (ax + cy, bx + dy)
    (90 * turns, mirrored): (-a if mirrored else a, -b if mirrored else b, -b, a)
    for turns, (a, b) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)])
    for mirrored in (False, True)
}
OWN_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}  # of a file, not of its video
BARE_MUXERS = ("rawvideo", "image2")  # frames alone: no other streams, orientation or timestamps

TARGETS = {  # format of VideoWriter: FFmpeg's muxer, encoder, pixel format
    "mp4": ("mp4", "libx264", "yuv420p"),
    "m4v": ("mp4", "libx264", "yuv420p"),
    "mov": ("mov", "libx264", "yuv420p"),
    "mkv": ("matroska", "libx264", "yuv420p"),
    "y4m": ("rawvideo", "rawvideo", "yuv420p"),
    "rgb24": ("rawvideo", "rawvideo", "rgb24"),
    "png": ("image2", "png", "rgb24"),
}


@dataclasses.dataclass(frozen=True)
class Colour:
    """How YUV maps to RGB, as code points of ITU-T H.273; 2 is unspecified.

    VideoReader gives one of MATRICES as `matrix`; VideoWriter takes what players would for any other.
    """

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = 1
    full_range: bool = False


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a video is, besides its frames.

    Attributes:
        width, height: of a frame in pixels, as coded: before rotation and sample aspect.
        time_base: seconds of one tick of a timestamp.
        frame_rate: average, frames/s; 0 if unknown.
        sample_aspect: width / height of one pixel.
        rotation: 0, 90, 180 or 270 degrees clockwise, to be done for display.
        mirrored: whether left and right are to be swapped for display, before the rotation.
        tags: what the container says of the whole, such as "title"; not what it says of itself.
        language: of the video, as the container names it; "" if unknown.
        chapters: first tick, tick after the last, title; in `time_base`, on the clock of the frames' timestamps.
        frames: how many there are, an estimate for progress; None if unknown.
        duration_s: likewise.
    """

    width: int
    height: int
    time_base: Fraction
    frame_rate: Fraction = Fraction(0)
    sample_aspect: Fraction = Fraction(1)
    rotation: int = 0
    colour: Colour = Colour()
    frames: int | None = None
    duration_s: float | None = None
    mirrored: bool = False
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    language: str = ""
    chapters: tuple[tuple[int, int, str], ...] = ()


class VideoReader:
    """The frames of a video file, once, in order; the packets of its other streams on the side.

    Iterating yields (frame, pts): uint8 `[H, W, 3]` RGB, C-contiguous, and an int in `info.time_base`,
    strictly increasing. Timestamps are those of the file, but for four cases: with `start_s` the first
    frame becomes 0; a file that starts late, or whose clock has no origin (MPEG-TS), starts at 0; what has no
    timestamps (raw H.264) goes by its frame rate; other missing ones, and backward ones, are mended, with a
    warning. A file that breaks after some frames gives those, with a warning.

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
    ) -> None:
        """Open a file and decode its first frame.

        Args:
            source: a file of any kind FFmpeg reads, a pattern of images (`frames/%05d.png`), "-" for stdin.
            start_s: skip frames before this time, in seconds after the first frame. Frame-exact. A pipe, and a
                file whose clock may jump or is missing (MPEG-TS, raw H.264), is decoded from its beginning.
            duration_s: end before `start_s + duration_s`; None for all.
            threads: to decode with; 0 lets FFmpeg choose.
            side: seekable file that receives audio, subtitle and data streams, remuxed and cut likewise.
            span: only frames from this timestamp on and before that one (None: to the end), in `info.time_base`;
                timestamps stay those of the whole. In place of `start_s` and `duration_s`.
            name: what messages call the source, if not its path.

        Raises:
            VideoError: not a video, or nothing in it decodes. Iterating raises it too, if the frame size changes.
        """
        self.name = name or ("stdin" if source == "-" else str(source))
        self._url: Any = standard.stdin() if source == "-" else _url(source)
        self._threads = threads
        self._scaler = VideoReformatter()
        self._warned: set[str] = set()
        self._open()

        self.side_format: str | None = None
        self._side_format: str | None = None
        self._side: OutputContainer | None = None
        self._copy: _Copy | None = None
        self._held: list[Packet[Stream]] | None = []  # packets that came before the first frame; None after it
        self._begin: int | None = None  # in ticks of the source, as _end; None for no limit
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
            self._limit((None if opening is None else _time(opening)) or 0)
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
        source_range = ColorRange.JPEG if self.info.colour.full_range else ColorRange.MPEG
        for count, (frame, pts) in enumerate(self._frames):
            if (frame.width, frame.height) != (self.info.width, self.info.height):
                raise VideoError(
                    f"{self.name}: frame size changes from {self.info.width}x{self.info.height} "
                    f"to {frame.width}x{frame.height} at frame {count}"
                )
            with _errors(self.name):
                rgb = self._scaler.reformat(
                    frame,
                    format="rgb24",
                    src_colorspace=MATRICES[self.info.colour.matrix],
                    src_color_range=source_range,
                    dst_color_range=ColorRange.JPEG,
                    interpolation=SCALING,
                    threads=self._threads,
                )
            yield np.ascontiguousarray(rgb.to_ndarray(), dtype=np.uint8), pts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; what `side` received so far is not finished."""
        self._container.close()

    def skip(self) -> None:
        """Read to the end without decoding: only `side` is filled, with what iterating would put there."""
        self._past_end = True
        for _ in self._frames:
            pass

    def times(self) -> list[int]:
        """The timestamps that iterating will give, told from the packets alone; the reader is used up.

        Returns:
            In `info.time_base`, increasing; empty where packets do not tell (no or equal timestamps, damage, a
            clock without origin). What does not decode, and the second field of a frame, are counted too.
        """
        self._open()
        try:
            packets = self._container.demux(self._stream)
            times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
        except (FFmpegError, OSError):
            return []
        known = sorted({pts for pts in times if pts is not None})
        shift = round(self._clock_origin_s() / self._time_base)
        return [] if self._clock_jumps or len(known) < len(times) else [pts - shift for pts in known]

    def _open(self) -> None:
        with _errors(self.name, "not a video"):
            self._container: InputContainer = av.open(self._url, "r")
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
        self._time_base = self._stream.time_base or Fraction(1, 1000)
        flags = FormatFlags(self._container.format.flags)
        self._clock_jumps = FormatFlags.ts_discont in flags
        self._is_untimed = FormatFlags.no_timestamps in flags
        self._stream.codec_context.thread_type = "AUTO"
        self._stream.codec_context.thread_count = self._threads

    def _clock_origin_s(self) -> Fraction:
        """Where to put zero: at the earliest stream if all start late, or the container's clock starts anywhere."""
        streams = [s for s in self._container.streams if s.start_time is not None and s.time_base]
        kinds = ("video", "audio", "subtitle")
        streams = [s for s in streams if s.type in kinds and not s.disposition & Disposition.attached_pic]
        starts_s = [Fraction(s.start_time or 0) * (s.time_base or 0) for s in streams]
        earliest_s = min(starts_s, default=Fraction(0))
        return earliest_s if self._clock_jumps else max(earliest_s, Fraction(0))

    def _limit(self, first: int) -> None:
        """Set what is wanted in ticks, now that the timestamp of the first frame is known."""
        if self._wanted_s is None:
            return
        start_s, duration_s = self._wanted_s
        self._wanted_s = None
        if start_s > 0:
            self._begin = first + self._ticks(start_s)
        if duration_s is not None:
            self._end = first + self._ticks(start_s + duration_s)

    def _ticks(self, time_s: float) -> int:
        return ticks_of(time_s, self._time_base)

    def _seek(self, begin: int) -> None:
        """Put the demuxer where decoding reaches the first wanted frame: on a key frame before it."""
        for back_s in (0, 2, 10, 60):  # containers without an index, and open GOPs, can land behind the goal
            goal = begin - self._ticks(back_s)
            if goal <= (self._stream.start_time or 0):
                break
            with contextlib.suppress(FFmpegError):
                self._container.seek(goal, stream=self._stream)
                first = next(self._container.decode(self._stream), None)
                time = None if first is None else _time(first)
                if time is not None and time <= begin:
                    self._open()  # a decoder that was flushed may have forgotten its reordering
                    self._container.seek(goal, stream=self._stream)
                    return
            self._open()

    def _open_side(self, file: BinaryIO) -> None:
        streams = [s for s in self._container.streams if s.index != self._stream.index]
        if self._container.chapters():  # the titles of those in mp4 and mov, a second time
            streams = [s for s in streams if (s.type, _codec(s)) != ("data", "bin_data")]
        kinds = ("audio", "subtitle", "data", "attachment")
        for stream in [s for s in streams if s.type not in kinds or _codec(s) is None]:
            log.warning("%s: %s is left out", self.name, _title(stream))
            streams.remove(stream)
        if not streams:
            return
        muxer = max(SIDE_FORMATS, key=lambda m: sum(_takes(m, s) for s in streams))
        target = av.open(file, "w", format=muxer, container_options=MUXER_OPTIONS)
        self._copy = _Copy(streams, target, self.name)
        if self._copy.outputs:
            with _errors(self.name):
                target.start_encoding()
            self._side, self._side_file, self._side_format = target, file, muxer

    def _read(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Frames of the wanted part and their final timestamps; then finish the side."""
        rate = self._frame_rate()
        step = max(1, round(1 / (rate * self._time_base))) if rate else 1
        previous: int | None = None
        lasts = count = 0
        for frame in self._decode():
            count += 1
            pts = _time(frame)
            if pts is None:
                if not (self._is_untimed or self._flushing):  # the last ones of an AVI are not told either
                    self._warn("some frames have no timestamp; filled in")
                pts = 0 if previous is None else previous + lasts
            self._limit(pts)
            if previous is not None:
                if pts <= previous:
                    self._warn("timestamps run backwards; mended")
                    pts = previous + 1
                step = pts - previous
            if self._end is not None and pts >= self._end:
                if not self._past_end:
                    self._past_end, self.last_duration = True, step
                continue
            previous, lasts = pts, frame.duration or step
            if self._begin is not None and pts < self._begin:
                continue
            if self._shift_s is None:
                self._shift_s, self._begin = pts * self._time_base, pts
            if self._held is not None:
                held, self._held = self._held, None
                for packet in held:
                    self._take(packet)
            self.last_duration = lasts
            yield frame, pts - round(self._shift_s / self._time_base)
        if not self._past_end and previous is not None and self._stream.duration and count < self._stream.frames:
            missing = (self._stream.start_time or 0) + self._stream.duration - previous - self.last_duration
            if missing > 2 * self.last_duration:  # an edit list, too, can hide some of the frames it counts
                self._warn(f"ends {float(missing * self._time_base):.2f} s early; the file is cut off or damaged")
        if self._side is not None:
            with _errors(self.name):
                self._side.close()
                self._side_file.flush()
            self.side_format = self._side_format

    def _decode(self) -> Iterator[av.VideoFrame]:
        """All frames from here on; packets of other streams are taken as they pass."""
        streams = [self._stream] if self._side is None else list(self._container.streams)
        packets = self._container.demux(*streams)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (FFmpegError, OSError) as error:
                self._warn(f"cannot be read any further ({_reason(error)})")
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
        """Let a clock that was set anew (MPEG-TS joined from parts) run on, by the rule of the ffmpeg tool."""
        if packet.dts is None:
            return
        dts_s = packet.dts * packet.time_base + self._jump_s
        late_s = dts_s - self._expected_s.get(packet.stream.index, dts_s)
        if not -0.1 < late_s < 10:
            self._warn("its clock jumps; closed the gap")
            self._jump_s -= late_s
        jump = round(self._jump_s / packet.time_base)
        packet.dts += jump
        packet.pts = None if packet.pts is None else packet.pts + jump
        self._expected_s[packet.stream.index] = (packet.dts + (packet.duration or 0)) * packet.time_base

    def _frames_of(self, packet: Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            frames: list[av.VideoFrame] = self._stream.codec_context.decode(packet)
        except FFmpegError as error:
            self._warn(f"damaged; some frames are missing ({_reason(error)})")
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
            if (self._begin is not None and time < self._begin) or (self._end is not None and time >= self._end):
                return
        if self._held is not None:
            self._held.append(packet)
        elif self._copy is not None and self._shift_s is not None:
            self._copy.mux(packet, self._shift_s)

    def _frame_rate(self) -> Fraction:
        """Average, frames/s; 0 if unknown. Of a raw stream it is what its headers say, FFmpeg's default if nothing."""
        stream = self._stream
        rates = (stream.average_rate, stream.guessed_rate)
        return Fraction(next(filter(None, reversed(rates) if self._is_untimed else rates), 0))

    def _describe(self, frame: av.VideoFrame, start_s: float, duration_s: float | None) -> VideoInfo:
        stream = self._stream
        rate = self._frame_rate()
        whole_s: float | None = None
        if stream.duration is not None:
            whole_s = float(stream.duration * self._time_base)
        elif self._container.duration is not None:
            whole_s = self._container.duration / av.time_base
        part_s = duration_s if whole_s is None else min(max(0.0, whole_s - start_s), duration_s or math.inf)
        frames: int | None = None
        if stream.frames and part_s == whole_s:
            frames = stream.frames
        elif part_s is not None and rate:
            frames = max(1, round(part_s * rate))
        rotation, mirrored = self._orientation(frame)
        return VideoInfo(
            width=frame.width,
            height=frame.height,
            time_base=self._time_base,
            frame_rate=rate,
            sample_aspect=Fraction(stream.sample_aspect_ratio or 1),
            rotation=rotation,
            mirrored=mirrored,
            colour=self._colour(frame),
            frames=frames,
            duration_s=part_s,
            tags={k: v for k, v in self._container.metadata.items() if k.lower() not in OWN_TAGS},
            language="" if (language := stream.metadata.get("language", "")) == "und" else language,
            chapters=self._chapters(),
        )

    def _chapters(self) -> tuple[tuple[int, int, str], ...]:
        shift = round(self._shift_s / self._time_base) if self._shift_s else 0
        chapters = []
        for chapter in self._container.chapters():
            scale = (chapter["time_base"] or Fraction(1, 1000)) / self._time_base
            start, end = (round(chapter[edge] * scale) - shift for edge in ("start", "end"))
            if start <= end:
                chapters.append((start, end, chapter["metadata"].get("title", "")))
        return tuple(chapters)

    def _orientation(self, frame: av.VideoFrame) -> tuple[int, bool]:
        """Rotation and mirroring as in VideoInfo: those of the display matrix, or the nearest, with a warning."""
        data: Any = frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return 0, False
        a, b, u, c, d, v, *_ = (value / MATRIX_ONE for value in struct.unpack("=9i", bytes(data)))
        parts = (a, b, c, d)
        best = max(ORIENTATIONS, key=lambda it: sum(x * y for x, y in zip(ORIENTATIONS[it], parts, strict=True)))
        if u or v or any(abs(x - y) > 1e-3 for x, y in zip(ORIENTATIONS[best], parts, strict=True)):
            mirrored = " mirrored and" if best[1] else ""
            self._warn(
                f"its display matrix [{a:g} {b:g} {c:g} {d:g}] is more than mirroring and quarter turns; "
                f"kept as{mirrored} turned by {best[0]} degrees"
            )
        return best

    def _colour(self, frame: av.VideoFrame) -> Colour:
        """The frame's tags, what is missing guessed; warns of what RGB in 8 bits does not hold."""
        bits = max(component.bits for component in frame.format.components)
        if bits > 8:
            self._warn(f"{bits}-bit video is coded with 8 bits")
        if any(component.is_alpha for component in frame.format.components):
            self._warn("its transparency is left out")
        if frame.color_trc in HDR_TRANSFERS:
            self._warn(f"HDR ({HDR_TRANSFERS[frame.color_trc]}) is kept as tagged, without tone mapping")
        matrix = frame.colorspace
        if matrix not in MATRICES:
            if not frame.format.is_rgb and matrix != UNSPECIFIED:
                self._warn(f"colour matrix {matrix} is not known; guessed")
            matrix = _untagged_matrix(frame.height)
        full_range = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        return Colour(frame.color_primaries, frame.color_trc, matrix, full_range and not frame.format.is_rgb)

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s: %s", self.name, message)


class _Drift:
    """Warns, once, of frames that a target without timestamps will not show at their time."""

    def __init__(self, frames_a_tick: Fraction, name: str) -> None:
        self._frames_a_tick, self._name = frames_a_tick, name
        self._first: int | None = None
        self._count = 0
        self._warned = False

    def see(self, pts: int) -> None:
        """The next frame is to be shown at `pts`."""
        if self._first is None:
            self._first = pts
        if not self._warned and abs((pts - self._first) * self._frames_a_tick - self._count) > 1:
            log.warning("%s: has no room for timestamps, and those of the frames are uneven; they are lost", self._name)
            self._warned = True
        self._count += 1


class VideoWriter:
    """Frames to a video file, each at its own timestamp.

    Formats: mp4, m4v, mov, mkv (H.264 4:2:0 by libx264, tagged with the colour of `info`; an odd size is
    written as 4:4:4, since 4:2:0 needs even ones), mkv with `lossless` (FFV1 in RGB, bit-exact, but no room
    for a sample aspect), y4m (4:2:0), png (a pattern of files: the folder must be there), rgb24 (bare bytes).
    The last three have no room for other streams, nor for an orientation, so the pixels are turned; nor for timestamps,
    of which a warning tells when they stray from the frame rate by more than a frame. Matroska rounds
    timestamps to 1 ms, and moves all streams if the video starts below zero; mp4 and mov keep them exactly.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        info: VideoInfo,
        *,
        format: str | None = None,
        lossless: bool = False,
        crf: float = 12.0,
        side: tuple[BinaryIO, str] | None = None,
        threads: int = 0,
        name: str = "",
    ) -> None:
        """Open the target and write its header.

        Args:
            target: path, "-" for stdout, or a binary file (seekable for mp4 and mov).
            info: size, time base, colour and so on of what comes; frames and duration_s are not used.
            format: one of TARGETS; None takes the suffix of the target.
            lossless: every pixel exactly; only for mkv (y4m and H.264 are not; png and rgb24 always are).
            crf: of libx264, 0 to 51, smaller is better; 12 cannot be told from the input by eye.
            side: what VideoReader put aside (file, format), to be written along; what the target does not
                take is dropped with a warning.
            threads: to encode with; 0 lets FFmpeg choose.
            name: what messages call the target, if not its path.

        Raises:
            VideoError: the target cannot be written. Every other method raises it too.
            ValueError: options that do not fit together.
        """
        path = "" if not isinstance(target, (str, Path)) or target == "-" else str(target)
        self.name = name or path or ("stdout" if target == "-" else str(getattr(target, "name", "output")))
        kind = format or kind_of(Path(path), self.name)
        if lossless and kind != "mkv":
            raise ValueError(f"lossless video is written to mkv, not to {kind}")
        muxer, encoder, pixel_format = TARGETS[kind]
        if lossless:
            encoder, pixel_format = "ffv1", "bgr0"
        bare = muxer in BARE_MUXERS
        self._turns = info.rotation // 90 if bare else 0
        self._mirrored = info.mirrored and bare
        self._size = (info.height, info.width)
        height, width = reversed(self._size) if self._turns % 2 else self._size
        if encoder == "libx264" and (width % 2 or height % 2):
            pixel_format = "yuv444p"
            log.warning("%s: %dx%d is odd; written as 4:4:4, which some players do not play", self.name, width, height)
        if lossless and info.sample_aspect != 1:
            log.warning("%s: the sample aspect %s is lost in lossless video", self.name, info.sample_aspect)

        colour = info.colour
        if kind == "y4m" or colour.matrix not in MATRICES:  # y4m has no tag for it
            colour = dataclasses.replace(colour, matrix=_untagged_matrix(height))
        aspect = 1 / info.sample_aspect if self._turns % 2 else info.sample_aspect
        rate = info.frame_rate or Fraction(25)
        self._marks = _y4m_marks(width, height, rate, aspect, colour.full_range) if kind == "y4m" else None

        self._time_base = info.time_base
        self._drift = _Drift(info.time_base * rate, self.name) if bare else None
        self._matrix = MATRICES[colour.matrix]
        self._pixel_format = pixel_format
        self._scaler = VideoReformatter()
        self._threads = threads
        self._last: tuple[int, int] = (0, 0)  # pts and duration of the newest frame
        with _errors(self.name):
            file: Any = _url(path) if path else (standard.stdout() if target == "-" else target)
            self._container: OutputContainer = av.open(file, "w", format=muxer, container_options=MUXER_OPTIONS)
            stream = self._container.add_stream(
                encoder,
                rate=rate,
                # Without B-frames frames are stored in the order they are shown, and mp4 keeps every duration.
                options={"crf": f"{crf:g}", "preset": "veryfast", "bf": "0"} if encoder == "libx264" else {},
                width=width,
                height=height,
                time_base=info.time_base,
            )
            self._stream = cast(av.VideoStream, stream)
            context = self._stream.codec_context
            context.pix_fmt = pixel_format
            context.thread_count = threads
            context.sample_aspect_ratio = aspect
            is_rgb = not pixel_format.startswith("yuv")
            context.color_primaries = colour.primaries
            context.color_trc = colour.transfer
            context.colorspace = 0 if is_rgb else colour.matrix
            context.color_range = ColorRange.JPEG if is_rgb or colour.full_range else ColorRange.MPEG
            if not bare:
                self._describe(info)
            if not bare and (info.rotation or info.mirrored):
                a, b, c, d = (MATRIX_ONE * value for value in ORIENTATIONS[info.rotation, info.mirrored])
                self._stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
            self._side = _Side(*side, self._container, self.name, kind) if side else None
            self._container.start_encoding()

    def _describe(self, info: VideoInfo) -> None:
        """Tags, language and chapters; what of them a container has no room for is lost."""
        self._container.metadata.update(info.tags)
        if info.language:
            self._stream.metadata["language"] = info.language
        if info.chapters:
            chapters: list[Chapter] = [
                {
                    "id": i + 1,
                    "start": start,
                    "end": end,
                    "time_base": info.time_base,
                    "metadata": {"title": title} if title else {},
                }
                for i, (start, end, title) in enumerate(info.chapters)
            ]
            self._container.set_chapters(chapters)

    def write(self, frame: Frame, pts: int, duration: int = 0) -> None:
        """Write the next frame.

        Args:
            frame: uint8 `[H, W, 3]` RGB, the size of `info`.
            pts: when to show it, in `info.time_base`; larger than the one before.
            duration: ticks it lasts; matters for the last frame only, 0 if unknown.
        """
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, not uint8 {(*self._size, 3)}")
        if self._drift is not None:
            self._drift.see(pts)
        if self._mirrored:
            frame = frame[:, ::-1]
        if self._turns:
            frame = np.rot90(frame, -self._turns)
        with _errors(self.name):
            picture = self._scaler.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
                format=self._pixel_format,
                dst_colorspace=self._matrix,
                src_color_range=ColorRange.JPEG,
                dst_color_range=self._stream.codec_context.color_range,
                interpolation=SCALING,
                threads=self._threads,
            )
            picture.pts = pts
            picture.time_base = self._time_base
            self._last = (pts, duration)
            self._mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write what is still in the encoder, the rest of the other streams, and the file's index."""
        with _errors(self.name), contextlib.ExitStack() as stack:
            stack.callback(self._container.close)
            self._mux(self._stream.encode(None))
            if self._side is not None:
                self._side.mux_until(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self.close()
        else:  # the first error is the one to tell
            with contextlib.suppress(VideoError):
                self.close()

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            if packet.pts == self._last[0] and self._last[1]:
                packet.duration = self._last[1]
            if self._side is not None and packet.dts is not None:
                self._side.mux_until(packet.dts * packet.time_base)
            if self._marks is not None:
                marked: Packet[Any] = Packet(next(self._marks) + bytes(packet))
                marked.stream, marked.time_base, marked.pts, marked.dts = (
                    packet.stream,
                    packet.time_base,
                    packet.pts,
                    packet.dts,
                )
                packet = marked
            self._container.mux_one(packet)


def kind_of(path: Path, name: str = "") -> str:
    """Which of TARGETS a path means, by its suffix.

    Args:
        path: of a file, or a pattern of images.
        name: what the message calls it, if not its path.

    Raises:
        VideoError: none.
    """
    kind = path.suffix[1:].lower()
    if kind not in TARGETS:
        raise VideoError(f"{name or path}: cannot write {kind or 'this'} files, only {', '.join(TARGETS)}")
    if kind == "png" and not is_pattern(path):
        raise VideoError(f"{name or path}: images need a number in their name, such as frame-%05d.png")
    return kind


def is_pattern(path: Path) -> bool:
    """Whether a path stands for numbered images, as frames/%05d.png does."""
    return path.suffix.lower() == ".png" and bool(re.search(r"%0?\d*d", path.name))


def cut_streams(parts: Sequence[tuple[str, BinaryIO, Fraction, Fraction, Fraction]], target: BinaryIO) -> str | None:
    """Cut and join what VideoReader put aside; the packets stay as they are.

    Args:
        parts: format and file, begin and end in seconds, and the seconds by which its packets move. Streams are
            matched to those of the first part by their place; what does not fit is dropped with a warning.
        target: seekable file.

    Returns:
        The format of the target: that of the first part. None if nothing is left.

    Raises:
        VideoError: a part cannot be read.
    """
    name, copied = parts[0][0], 0
    with _errors("other streams"), contextlib.ExitStack() as stack:
        output = stack.enter_context(av.open(target, "w", format=name, container_options=MUXER_OPTIONS))
        copy: _Copy | None = None
        for format, file, begin_s, end_s, shift_s in parts:
            file.seek(0)
            source = stack.enter_context(av.open(file, "r", format=_safe_format(format)))
            if copy is None:
                copy = _Copy(source.streams, output, "other streams")
                kinds = [_kind(stream) for stream in source.streams]
            elif [_kind(stream) for stream in source.streams] != kinds:
                log.warning("other streams: those of a later part differ in codec or layout and are dropped")
                continue
            for packet in source.demux():
                if packet.pts is not None and begin_s <= packet.pts * packet.time_base < end_s:
                    copy.mux(packet, -shift_s)
                    copied += 1
    return name if copied else None


class _Copy:
    """Packets of some streams into a container, their bytes untouched.

    Matroska has no time below zero and would move all streams to make room, the video with them. What an edit list of
    MP4 cuts away in front is therefore left out there, and so are packets across the cut; not the first of a codec
    whose delay Matroska can express (Opus).
    """

    def __init__(self, streams: Iterable[Stream], target: OutputContainer, name: str, kind: str = "") -> None:
        """Add those of the streams to `target` that it takes; messages call it `name` and its format `kind`."""
        self.outputs: dict[int, Stream] = {}
        self._target = target
        self._name = name
        self._refused: set[int] = set()
        self._is_matroska = target.format.name == "matroska"
        self._delayed: set[int] = set()  # streams that may begin below zero even so
        for stream in streams:
            if not _takes(target.format.name, stream):
                log.warning("%s: %s is dropped: %s does not take it", name, _title(stream), kind or target.format.name)
                continue
            output = target.add_stream_from_template(stream)
            output.metadata.update(stream.metadata)
            output.disposition = stream.disposition
            self.outputs[stream.index] = output

    def mux(self, packet: Packet[Any], shift_s: Fraction = Fraction(0)) -> None:
        """Write a packet, `shift_s` earlier than it says."""
        stream = packet.stream
        if stream.index not in self.outputs or not packet.size:
            return
        shift = round(shift_s / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        if self._is_matroska and packet.pts is not None and packet.pts < 0:
            if packet.has_sidedata("skip_samples") and not packet.is_discard:
                self._delayed.add(stream.index)
            if stream.index not in self._delayed:
                return
        packet.stream = self.outputs[stream.index]
        try:
            self._target.mux_one(packet)
        except (ArgumentError, InvalidDataError) as error:  # this packet's own fault; the rest can be kept
            if stream.index not in self._refused:
                self._refused.add(stream.index)
                log.warning("%s: damaged packets of %s are dropped (%s)", self._name, _title(stream), _reason(error))


class _Side:
    """Reads a blob of streams back and copies it, in step with the video."""

    def __init__(self, file: BinaryIO, format: str, target: OutputContainer, name: str, kind: str) -> None:
        file.seek(0)
        self._source = av.open(file, "r", format=_safe_format(format))
        self._copy = _Copy(self._source.streams, target, name, kind)
        self._packets = (packet for packet in self._source.demux() if packet.stream.index in self._copy.outputs)
        self._next = next(self._packets, None)

    def mux_until(self, time_s: Fraction | None) -> None:
        """Copy all packets up to a time; None for the rest."""
        while self._next is not None:
            dts = self._next.dts
            if time_s is not None and dts is not None and dts * self._next.time_base > time_s:
                return
            self._copy.mux(self._next)
            self._next = next(self._packets, None)


def _safe_format(name: str) -> str:
    """A container format from a stream, which may lie: FFmpeg has formats that open other files."""
    if name not in SIDE_FORMATS:
        raise VideoError(f"other streams in unknown format {name!r}")
    return name


def _takes(muxer: str, stream: Stream) -> bool:
    """Whether a container can hold a stream: ask it to write a header with only that."""
    if muxer in BARE_MUXERS or _codec(stream) is None:
        return False  # the latter also of QuickTime's timecode track, whose frame rate PyAV cannot carry over
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def _url(path: str | Path) -> str:
    """A path for FFmpeg: no protocol, and no number to fill in but that of a pattern of images."""
    path = Path(path)
    return f"file:{str(path.parent).replace('%', '%%')}/{path.name}" if is_pattern(path) else f"file:{path}"


def is_pipe(source: str | Path) -> bool:
    """Whether a source can be read only once."""
    if source == "-":
        return True
    with contextlib.suppress(OSError):
        mode = os.stat(source).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
    return False


def _time(frame: av.VideoFrame) -> int | None:
    """When to show a frame: where its packet does not say (AVI), when the packet that brought it out was decoded."""
    return frame.dts if frame.pts is None else frame.pts


def _untagged_matrix(height: int) -> int:
    """What players take for video without a tag: BT.709 for HD, else BT.601."""
    return 1 if height >= 720 else 6


def _y4m_marks(width: int, height: int, rate: Fraction, aspect: Fraction, full_range: bool) -> Iterator[bytes]:
    """What stands before each frame of a YUV4MPEG2 file: the file's header once, and a line."""
    header = f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip "
    header += f"A{aspect.numerator}:{aspect.denominator} C420jpeg XYSCSS=420JPEG "
    header += f"XCOLORRANGE={'FULL' if full_range else 'LIMITED'}\n"
    return itertools.chain([header.encode() + b"FRAME\n"], itertools.repeat(b"FRAME\n"))


def _codec(stream: Stream) -> str | None:
    """FFmpeg's name of a stream's codec; None if it knows none, or has no decoder to tell the parameters by."""
    context: Any = stream.codec_context
    return None if context is None and stream.type not in ("data", "attachment") else stream.name


def _kind(stream: Stream) -> tuple[object, ...]:
    """What must agree for packets of one stream to go on in another."""
    context: Any = stream.codec_context
    if context is None:
        return stream.type, _codec(stream)
    sound = (context.sample_rate, context.layout.name) if stream.type == "audio" else ()
    return stream.type, stream.name, bytes(context.extradata or b""), *sound


def _title(stream: Stream) -> str:
    codec = _codec(stream) or ("timecode" if "timecode" in stream.metadata else "unknown codec")
    return f"{stream.type} stream {stream.index} ({codec})"


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


@contextlib.contextmanager
def _errors(name: str, invalid: str = "") -> Iterator[None]:
    """Turn the errors of PyAV into one line with the file's name."""
    try:
        yield
    except (FFmpegError, OSError) as error:
        prefix = f"{invalid}: " if invalid and isinstance(error, (InvalidDataError, EndOfFileError)) else ""
        raise VideoError(f"{name}: {prefix}{_reason(error)}") from error
