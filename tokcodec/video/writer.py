"""Frames to a video file, each at its own timestamp, together with the other streams."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.video.reformatter import ColorRange, VideoReformatter

from tokcodec.errors import VideoError
from tokcodec.io import standard
from tokcodec.video.ffmpeg import errors, is_pattern, url_of
from tokcodec.video.info import (
    MATRIX_ONE,
    ORIENTATIONS,
    SCALING,
    SWSCALE_MATRICES,
    Colour,
    Frame,
    VideoInfo,
    untagged_matrix,
)
from tokcodec.video.others import BARE_MUXERS, MATROSKA, MUXER_OPTIONS, TIMELESS_MUXERS, Side, is_known

if TYPE_CHECKING:
    from av.container.core import Chapter

log = logging.getLogger("tokcodec")

TARGETS = {  # format of VideoWriter: FFmpeg's muxer, encoders of which the first that is there is taken, pixel format
    "mp4": ("mp4", ("libx264",), "yuv420p"),
    "m4v": ("mp4", ("libx264",), "yuv420p"),
    "mov": ("mov", ("libx264",), "yuv420p"),
    "mkv": ("matroska", ("libx264",), "yuv420p"),
    "webm": ("webm", ("libvpx-vp9", "libsvtav1", "libaom-av1"), "yuv420p"),
    "y4m": ("rawvideo", ("rawvideo",), "yuv420p"),
    "rgb24": ("rawvideo", ("rawvideo",), "rgb24"),
    "png": ("image2", ("png",), "rgb24"),
    "jpg": ("image2", ("mjpeg",), "yuvj420p"),
    "jpeg": ("image2", ("mjpeg",), "yuvj420p"),
    "gif": ("gif", ("gif",), "pal8"),
    "webp": ("webp", ("libwebp_anim",), "bgra"),
}
CODED = ("mp4", "m4v", "mov", "mkv", "webm")  # containers of any video codec
# The options of encoders. Without B-frames frames are stored in the order they are shown, and mp4 keeps every duration.
OPTIONS = {
    "libx264": {"preset": "veryfast", "bf": "0"},
    "libx265": {"preset": "fast", "x265-params": "log-level=error:bframes=0"},
    "libvpx-vp9": {"b": "0", "cpu-used": "4", "row-mt": "1"},
    "libsvtav1": {"preset": "8"},
    "libwebp_anim": {"quality": "90", "loop": "0"},
    "mjpeg": {"qmin": "2", "qmax": "2"},
}
CRF = {"libx264": 12.0, "libx265": 14.0, "libvpx-vp9": 18.0, "libsvtav1": 18.0, "libaom-av1": 18.0}  # if none is given
# The pixels of an encoder are the first of these that it takes.
PIXELS = ("yuv420p", "yuvj420p", "yuv422p", "yuv422p10le", "yuv444p", "bgr0", "rgb24", "gbrp")
PALETTE = (("palettegen", "stats_mode=single"), ("paletteuse", "new=1"))  # of each frame its own


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

    Formats: mp4, m4v, mov, mkv (H.264 4:2:0 by libx264, or another `codec`, tagged with the colour of `info`; an odd
    size is written as 4:4:4, since 4:2:0 needs even ones), webm (VP9, or AV1 where FFmpeg lacks that), mkv with
    `lossless` (FFV1 in RGB, bit-exact, but no room for a sample aspect), y4m (4:2:0), png and jpg (a pattern of files:
    the folder must be there; or a single one, which takes the first frame, with a warning if there are more), gif,
    webp, rgb24 (bare bytes). From y4m on they have no room for other streams, nor for an orientation, so the pixels are
    turned; nor, but for gif and webp, for timestamps, of which a warning tells when they stray from the frame rate by
    more than a frame. Matroska and webp round timestamps to 1 ms, gif to 10 ms; Matroska moves all streams if the video
    starts below zero; mp4 and mov keep them exactly.

    Attributes:
        is_full: a single picture has been written, and another frame was offered.
    """

    def __init__(
        self,
        target: str | Path | BinaryIO,
        info: VideoInfo,
        *,
        format: str | None = None,
        lossless: bool = False,
        codec: str | None = None,
        crf: float | None = None,
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
            codec: FFmpeg's name of an encoder, for mp4, mov, mkv and webm; None takes libx264, in webm VP9 or AV1.
            crf: of the encoder, 0 to 51, smaller is better; None takes what the eye cannot tell from the input, 12 of
                libx264. Encoders without it have their own default.
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
        _check_options(kind, lossless, codec)
        muxer = TARGETS[kind][0]
        encoder, pixel_format = self._coding(kind, lossless, codec)
        self._is_single = muxer == "image2" and path != "" and not is_pattern(Path(path))
        self.is_full, self._count = False, 0
        bare = muxer in BARE_MUXERS
        self._turns = info.rotation // 90 if bare else 0
        self._mirrored = info.mirrored and bare
        self._size = (info.height, info.width)
        height, width = reversed(self._size) if self._turns % 2 else self._size
        if encoder in ("libx264", "libx265") and (width % 2 or height % 2):
            pixel_format = "yuv444p"
            log.warning("%s: %dx%d is odd; written as 4:4:4, which some players do not play", self.name, width, height)
        colour = _colour_in(kind, pixel_format, info.colour, height)
        aspect = 1 / info.sample_aspect if self._turns % 2 else info.sample_aspect
        rate = info.frame_rate or Fraction(25)
        self._marks = _y4m_marks(width, height, rate, aspect, colour.full_range) if kind == "y4m" else None

        self._time_base = info.time_base
        self._drift = _Drift(info.time_base * rate, self.name) if muxer in TIMELESS_MUXERS else None
        self._tick = 1 if kind != "gif" else Fraction(1, 100) / info.time_base  # of the container, in those of `info`
        self._matrix = SWSCALE_MATRICES[colour.matrix]
        self._pixel_format = pixel_format
        self._scaler = VideoReformatter()
        self._threads = threads
        self._is_denser = False
        self._last: tuple[int, int] = (0, 0)  # pts and duration of the newest frame
        with errors(self.name):
            options = self._muxer_options(kind, encoder, info)
            file: Any = standard.stdout() if target == "-" else target
            file = url_of(path, is_pattern(Path(path))) if path else file
            self._path = path if muxer in ("mp4", "mov") else ""
            self._container: OutputContainer = av.open(file, "w", format=muxer, container_options=options)
            self._stream = self._add_stream(kind, encoder, self._options_of(encoder, crf), info.time_base, rate)
            context = self._stream.codec_context
            context.width, context.height, context.sample_aspect_ratio = width, height, aspect
            context.pix_fmt, context.thread_count = pixel_format, threads
            self._tag(colour, is_rgb=not pixel_format.startswith("yuv"))
            lost, tags = _kept(info, rate, muxer, options)
            self._warn_of_loss(kind, lossless, info.sample_aspect, lost)
            if not bare:
                self._describe(dataclasses.replace(info, tags=tags))
            is_kept = side is not None and is_known(side[1], self.name)
            self._side = Side(*side, self._container, self.name, kind) if side and is_kept else None
            self._palette = _palette(width, height, info.time_base) if kind == "gif" else None
            self._container.start_encoding()

    def _warn_of_loss(self, kind: str, lossless: bool, sample_aspect: Fraction, lost: Sequence[str]) -> None:
        if lossless and sample_aspect != 1:
            log.warning("%s: the sample aspect %s is lost in lossless video", self.name, sample_aspect)
        if kind in ("gif", "webp") and sample_aspect != 1:
            log.warning("%s: %s has no room for its sample aspect %s", self.name, kind, sample_aspect)
        if lost:
            log.warning("%s: %s has no room for its %s", self.name, kind, ", ".join(lost))

    def _add_stream(
        self, kind: str, encoder: str, options: dict[str, str], time_base: Fraction, rate: Fraction
    ) -> av.VideoStream:
        try:
            stream = self._container.add_stream(encoder, rate=rate, options=options, time_base=time_base)
        except ValueError as error:
            raise VideoError(f"{self.name}: {kind} does not take the codec of {encoder}") from error
        return cast(av.VideoStream, stream)

    def _coding(self, kind: str, lossless: bool, codec: str | None) -> tuple[str, str]:
        """FFmpeg's names of an encoder and of the pixels that it is given."""
        _, encoders, pixel_format = TARGETS[kind]
        encoder = self._encoder(encoders if codec is None else (codec,))
        if lossless:
            return "ffv1", "bgr0"
        if codec is not None:
            taken = [pixels.name for pixels in av.Codec(encoder, "w").video_formats or []]
            if "yuvj420p" in taken[:1]:  # of JPEG: in 4:2:0 it takes full range only
                return encoder, "yuvj420p"
            pixel_format = next((name for name in PIXELS if name in taken), taken[0] if taken else pixel_format)
        return encoder, pixel_format

    def _encoder(self, names: Sequence[str]) -> str:
        """The first of some encoders that FFmpeg has."""
        for name in names:
            with contextlib.suppress(UnknownCodecError):
                if av.Codec(name, "w").type == "video":
                    if name == "libsvtav1":
                        os.environ.setdefault("SVT_LOG", "1")  # it tells of its settings on stderr
                    return name
        raise VideoError(f"{self.name}: this FFmpeg has no video encoder {' or '.join(names)}")

    def _muxer_options(self, kind: str, encoder: str, info: VideoInfo) -> dict[str, str]:
        options = MUXER_OPTIONS | ({"update": "1"} if self._is_single else {})
        if encoder == "rawvideo":  # sound that ends early holds raw frames back, up to so many us
            options = options | {"max_interleave_delta": "500000"}
        if kind == "mov" and any(key.startswith("com.apple.") for key in info.tags):
            options = options | {"movflags": "use_metadata_tags"}  # what reads such files knows these
        return options

    def _options_of(self, encoder: str, crf: float | None) -> dict[str, str]:
        """The options of an encoder."""
        options = dict(OPTIONS.get(encoder, {}))
        if encoder in CRF:
            options["crf"] = f"{CRF[encoder] if crf is None else crf:g}"
        elif crf is not None:
            log.warning("%s: %s has no crf; that is left aside", self.name, encoder)
        return options

    def _tag(self, colour: Colour, is_rgb: bool) -> None:
        context = self._stream.codec_context
        context.color_primaries = colour.primaries
        context.color_trc = colour.transfer
        context.colorspace = 0 if is_rgb else colour.matrix
        context.color_range = ColorRange.JPEG if is_rgb or colour.full_range else ColorRange.MPEG

    def _describe(self, info: VideoInfo) -> None:
        """Write tags, language, name, chapters and orientation."""
        self._container.metadata.update(info.tags)
        self._stream.metadata.update(_of_stream(info))
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
        if info.rotation or info.mirrored:
            a, b, c, d = (MATRIX_ONE * value for value in ORIENTATIONS[info.rotation, info.mirrored])
            self._stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])

    def write(self, frame: Frame, pts: int, duration: int = 0) -> None:
        """Write the next frame.

        Args:
            frame: uint8 `[H, W, 3]` RGB, the size of `info`.
            pts: when to show it, in `info.time_base`; larger than the one before.
            duration: ticks it lasts; matters for the last frame only, 0 if unknown.
        """
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            raise ValueError(f"frame is {frame.dtype} {frame.shape}, not uint8 {(*self._size, 3)}")
        if self._is_single and self._count:
            if not self.is_full:
                pattern = "-%05d".join(os.path.splitext(self.name))
                log.warning("%s: takes the first frame only; %s would take all", self.name, pattern)
            self.is_full = True
            return
        self._count += 1
        if self._count > 1 and pts - self._last[0] < self._tick:  # GIF counts in 1/100 s
            if not self._is_denser:
                log.warning("%s: more than 100 frames/s; some are left out", self.name)
            self._is_denser = True
            return
        if self._drift is not None:
            self._drift.see(pts)
        if self._mirrored:
            frame = frame[:, ::-1]
        if self._turns:
            frame = np.rot90(frame, -self._turns)
        with errors(self.name):
            picture = self._scaler.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"),
                format="bgra" if self._palette is not None else self._pixel_format,
                dst_colorspace=self._matrix,
                src_color_range=ColorRange.JPEG,
                dst_color_range=self._stream.codec_context.color_range,
                interpolation=SCALING,
                threads=self._threads,
            )
            picture.pts = pts
            picture.time_base = self._time_base
            picture.duration = duration
            if self._palette is not None:
                self._palette.vpush(picture)
                picture = self._palette.vpull()
            self._last = (pts, duration)
            self._mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write what is still in the encoder, the rest of the other streams, and the file's index."""
        with errors(self.name):
            with contextlib.ExitStack() as stack:
                stack.callback(self._container.close)
                self._mux(self._stream.encode(None))
                if self._side is not None:
                    self._side.mux_until(None)
            if self._side is not None and self._path:
                with open(self._path, "r+b") as file:
                    self._side.finish(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self.close()
        else:  # the first error is the one to tell
            with contextlib.suppress(VideoError, BrokenPipeError):
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


def _check_options(kind: str, lossless: bool, codec: str | None) -> None:
    if lossless and kind != "mkv":
        raise ValueError(f"lossless video is written to mkv, not to {kind}")
    if codec is not None and (lossless or kind not in CODED):
        raise ValueError(f"a codec is chosen for {', '.join(CODED)}, and not for lossless video")


def _colour_in(kind: str, pixel_format: str, colour: Colour, height: int) -> Colour:
    """How frames are converted for a file: as `colour` says, as far as the file can say it."""
    if kind == "y4m" or colour.matrix not in SWSCALE_MATRICES:  # y4m has no tag for it
        colour = dataclasses.replace(colour, matrix=untagged_matrix(height))
    if pixel_format == "yuvj420p":  # JPEG has no tags: JFIF says what it is
        colour = dataclasses.replace(colour, matrix=5, full_range=True)
    return colour


def _palette(width: int, height: int, time_base: Fraction) -> Graph:
    """Filters from BGRA to the colours of a GIF: 256 of each frame's own."""
    graph = Graph()
    source = graph.add("buffer", video_size=f"{width}x{height}", pix_fmt="bgra", time_base=str(time_base))
    both, sink = graph.add("split"), graph.add("buffersink")
    made, used = (graph.add(name, arguments) for name, arguments in PALETTE)
    source.link_to(both)
    both.link_to(used, 0, 0)
    both.link_to(made, 1, 0)
    made.link_to(used, 0, 1)
    used.link_to(sink)
    graph.configure()
    return graph


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
        what = f"{kind} files" if kind else "a file without a suffix"
        raise VideoError(f"{name or path}: cannot write {what}, only {', '.join(TARGETS)}")
    return kind


def _of_stream(info: VideoInfo) -> dict[str, str]:
    """The tags of the video stream."""
    return {key: value for key, value in (("language", info.language), ("title", info.name)) if value}


def _kept(info: VideoInfo, rate: Fraction, muxer: str, options: dict[str, str]) -> tuple[list[str], Mapping[str, str]]:
    """What of tags, language, name and chapters a container has no room for, and the tags to write.

    mp4 and mov are asked. A time code that is none at the frame rate would make them refuse all.
    """
    if muxer in BARE_MUXERS:
        about = {"tags": info.tags, "language": info.language, "name": info.name, "chapters": info.chapters}
        return [key for key, value in about.items() if value], info.tags
    if muxer in MATROSKA:
        return [], info.tags
    tags = dict(info.tags)
    try:
        kept, language = _asked(info, tags, rate, muxer, options)
    except FFmpegError:
        tags = {key: value for key, value in tags.items() if _plain(key) != "timecode"}
        kept, language = _asked(info, tags, rate, muxer, options)
    lost = [f"tag {key}" for key, value in info.tags.items() if value and _plain(key) not in kept]
    if info.language and not language:
        lost.append(f"language {info.language}")
    return lost, tags


def _asked(
    info: VideoInfo, tags: Mapping[str, str], rate: Fraction, muxer: str, options: dict[str, str]
) -> tuple[set[str], bool]:
    """Which tags a file of a frame holds, and whether it holds the language. Raises FFmpegError if it cannot be."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer, container_options=options) as trial:
        trial.metadata.update(tags)
        stream = trial.add_mux_stream("mpeg4", rate=rate, width=16, height=16)
        stream.metadata.update(_of_stream(info))
        packet: Packet[Any] = Packet(b"frame")  # a track without any is left out
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 25)
        trial.mux_one(packet)
    file.seek(0)
    with av.open(file, "r") as written:
        stream = written.streams[0]
        kept = {_plain(key) for key in (*written.metadata, *({"timecode"} & stream.metadata.keys()))}
        return kept, "language" in stream.metadata


def _plain(key: str) -> str:
    """A tag without case and language, which containers change: LOCATION-eng is location."""
    return re.sub(r"-[a-z]{3}$", "", key.lower())


def _y4m_marks(width: int, height: int, rate: Fraction, aspect: Fraction, full_range: bool) -> Iterator[bytes]:
    """What stands before each frame of a YUV4MPEG2 file: the file's header once, and a line."""
    header = f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip "
    header += f"A{aspect.numerator}:{aspect.denominator} C420jpeg XYSCSS=420JPEG "
    header += f"XCOLORRANGE={'FULL' if full_range else 'LIMITED'}\n"
    return itertools.chain([header.encode() + b"FRAME\n"], itertools.repeat(b"FRAME\n"))
