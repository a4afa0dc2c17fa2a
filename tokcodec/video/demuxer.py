"""The packets of a video file, and the frames that its decoder makes of them."""

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
from typing import Any, BinaryIO

import av
from av.codec.context import Flags as CodecFlags
from av.container import Flags as ContainerFlags
from av.container import InputContainer
from av.error import FFmpegError
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Disposition

from tokcodec.clock import ticks_of
from tokcodec.errors import VideoError
from tokcodec.io import standard
from tokcodec.video.ffmpeg import PipeFile, errors, exact, numbers_of, reason, url_of
from tokcodec.video.others import delay_s, is_related
from tokcodec.video.timeline import JumpingClock

log = logging.getLogger("tokcodec")


class Complaints:
    """What is wrong with a file: warnings, each once, and a count of places that could not be read.

    Attributes:
        damaged: such places so far.
    """

    def __init__(self, name: str, warned: set[str] | None = None) -> None:
        """Warn of the file `name`; `warned` has the messages that came before and takes the new ones."""
        self.damaged = 0
        self._name = name
        self._warned = set() if warned is None else warned

    def warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s: %s", self._name, message)

    def damage(self, message: str) -> None:
        """Warn, and count one more damaged place, warned of or not."""
        self.warn(message)
        self.damaged += 1


class Demuxer:
    """A video file of any kind FFmpeg reads.

    Attributes:
        name: what messages call the file.
        container: the open file.
        stream: of the video that is read.
        programme: the streams that belong to it, itself among them.
        clock: seconds of a tick of the video's stream.
        jumps: whether the file's clock may start anywhere and jump (MPEG-TS).
        is_untimed: whether the format has no timestamps (raw H.264).
        is_flushing: whether the decoder gives its last frames.
        has_grown: whether the file became longer while it was read; valid after the last packet.
    """

    def __init__(self, source: str | Path, name: str, threads: int, complaints: Complaints) -> None:
        """Open a file.

        Args:
            source: path, a pattern of images, or "-" for stdin.
            name: what messages call it.
            threads: of the decoder; 0 lets FFmpeg choose.
            complaints: takes what is wrong.

        Raises:
            VideoError: not a video.
        """
        self.name = name
        self.is_flushing = self.has_grown = False
        self._threads, self._complaints = threads, complaints
        is_stdin = str(source) == "-"
        numbers = [] if is_stdin else numbers_of(Path(source))
        self._pipe: BinaryIO | None = None  # that is to be closed
        if not is_stdin and is_pipe(source):
            with errors(name):
                self._pipe = Path(source).open("rb")  # noqa: SIM115
        file = standard.stdin() if is_stdin else self._pipe
        self._url: Any = url_of(source, bool(numbers)) if file is None else file if file.seekable() else PipeFile(file)
        self._options = {"start_number": str(numbers[0])} if numbers else {}
        for number, following in itertools.pairwise(numbers):
            if following > number + 1:
                complaints.warn(f"the images end at {number}: {number + 1} is missing")
                break
        self._bytes = _size_of(self._url)
        self._steady = JumpingClock(complaints.warn)
        self._opened = contextlib.ExitStack()  # closes the container
        try:
            self.reopen()
        except BaseException:
            self.close()
            raise

    def reopen(self) -> None:
        """Go back to the beginning, with a fresh decoder."""
        self._opened.close()
        with errors(self.name, "not a video"):
            self.container: InputContainer = av.open(self._url, "r", options=self._options, metadata_errors="replace")
        self._opened.callback(self.container.close)
        # PyAV lets the demuxer make up what is missing, wrongly where frames are reordered (AVI); see `time_of`
        self.container.flags &= ~ContainerFlags.gen_pts.value
        if self.container.format.name == "tty":  # FFmpeg renders text files as video
            raise VideoError(f"{self.name}: not a video: text")
        streams = [s for s in self.container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError(f"{self.name}: no video stream")
        best = self.container.streams.best("video")
        self.stream = next((s for s in streams if s is best), streams[0])
        if self.stream.codec_context is None:
            raise VideoError(f"{self.name}: no decoder for its video stream")
        self.programme = [s for s in self.container.streams if is_related(s, self.stream, self.container)]
        self.clock = exact(self.stream.time_base or Fraction(1, 1000))
        flags = FormatFlags(self.container.format.flags)
        self.jumps = FormatFlags.ts_discont in flags
        self.is_untimed = FormatFlags.no_timestamps in flags
        self.stream.codec_context.flags |= CodecFlags.unaligned  # else a crop on the left is rounded away
        self.stream.codec_context.thread_type = "AUTO"
        self.stream.codec_context.thread_count = self._threads

    def close(self) -> None:
        self._opened.close()
        if self._pipe is not None:
            self._pipe.close()

    def origin_s(self) -> Fraction:
        """Where to put zero: at the earliest stream if all start late, or the container's clock starts anywhere."""
        streams = [s for s in self.programme if s.start_time is not None and s.time_base]
        kinds = ("video", "audio", "subtitle")
        streams = [s for s in streams if s.type in kinds and not s.disposition & Disposition.attached_pic]
        starts_s = [(s.start_time or 0) * exact(s.time_base or 0) for s in streams]
        earliest_s = min(starts_s, default=Fraction(0))
        return earliest_s if self.jumps else max(earliest_s, Fraction(0))

    def frame_rate(self) -> Fraction:
        """Average, frames/s; 0 if unknown. Of a raw stream it is what its headers say, FFmpeg's default if nothing.

        An average above the base rate, of which all timestamps are multiples, is a wrong estimate (raw DV).
        """
        stream = self.stream
        average, base, guessed = (
            exact(rate or 0) for rate in (stream.average_rate, stream.base_rate, stream.guessed_rate)
        )
        is_wrong = self.is_untimed or average > base > 0
        return (guessed or average) if is_wrong else (average or guessed)

    def duration_s(self) -> float | None:
        """Of the video's stream, or of the file; None if neither says."""
        if self.stream.duration is not None:
            return float(self.stream.duration * self.clock)
        return None if self.container.duration is None else self.container.duration / av.time_base

    def times(self) -> list[int]:
        """The timestamps of all frames, from `origin_s` on, as the packets alone say; the file is opened anew.

        Returns:
            In ticks of `clock`, increasing; empty where packets do not tell (no or equal timestamps, damage, a clock
            that may jump). What does not decode, and the second field of a frame, are counted too.
        """
        self.reopen()
        try:
            packets = self.container.demux(self.stream)
            times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
        except (FFmpegError, OSError):
            return []
        known = sorted({pts for pts in times if pts is not None})
        shift = round(self.origin_s() / self.clock)
        return [] if self.jumps or len(known) < len(times) else [pts - shift for pts in known]

    def seek(self, first_s: Fraction, early_s: float) -> None:
        """Go where decoding reaches the frame of a time: to a key frame before it, and `early_s` before that."""
        begin = math.floor((first_s - max(map(delay_s, self.programme))) / self.clock) - ticks_of(early_s, self.clock)
        for back_s in (0, 2, 10, 60):  # containers without an index, and open GOPs, can land behind the goal
            goal = begin - ticks_of(back_s, self.clock)
            if goal <= (self.stream.start_time or 0):
                break
            with contextlib.suppress(FFmpegError):
                self.container.seek(goal, stream=self.stream)
                opening = next(self.container.decode(self.stream), None)
                time = None if opening is None else time_of(opening)
                if time is not None and time <= begin:
                    self.reopen()  # a decoder that was flushed may have forgotten its reordering
                    self.container.seek(goal, stream=self.stream)
                    return
            self.reopen()

    def packets(self, whole_programme: bool) -> Iterator[Packet[Any]]:
        """The packets from here on, of the video alone or of all its programme, on a clock without jumps."""
        packets = self.container.demux(*(self.programme if whole_programme else [self.stream]))
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                self.has_grown = self._bytes is not None and (_size_of(self._url) or 0) > self._bytes
                return
            except (FFmpegError, OSError) as error:
                self._complaints.damage(f"cannot be read any further ({reason(error)})")
                return
            if not packet.size:
                continue  # the demuxer's flush packet; a decoder would take an empty one for the end, too
            if self.jumps and packet.dts is not None:
                is_even = packet.stream.type in ("video", "audio")
                jump = self._steady.correction(
                    packet.stream.index, packet.dts, packet.duration or 0, packet.time_base, is_even
                )
                packet.dts += jump
                packet.pts = None if packet.pts is None else packet.pts + jump
            yield packet

    def frames_of(self, packet: Packet[Any] | None) -> list[av.VideoFrame]:
        """What the decoder gives for a packet of the video; None stands for the end, and brings the last frames."""
        if packet is None:
            self.is_flushing = True
        elif self.stream.codec_context.name == "webp" and _is_animated(bytes(packet)):
            raise VideoError(f"{self.name}: animated WebP, which FFmpeg does not read")
        try:
            frames: list[av.VideoFrame] = self.stream.codec_context.decode(packet)
        except FFmpegError as error:
            self._complaints.damage(f"damaged; some frames are missing ({reason(error)})")
            return []
        return frames


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


def time_of(frame: av.VideoFrame) -> int | None:
    """When to show a frame: where its packet does not say (AVI), when the packet that brought it out was decoded."""
    return frame.dts if frame.pts is None else frame.pts
