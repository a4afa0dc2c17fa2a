"""The other streams of a file: sound, subtitles and data, copied packet by packet and never decoded."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

import av
from av.container import OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Stream

from tokcodec.errors import VideoError
from tokcodec.video.ffmpeg import errors, exact, reason

log = logging.getLogger("tokcodec")

SIDE_FORMATS = ("mp4", "mov", "matroska")  # for the other streams; Matroska last, for its timestamps are whole ms
MUXER_OPTIONS = {"movie_timescale": "90000"}  # of mov and mp4: the default rounds the start of a track to 1 ms
LISTENED = ("audio", "subtitle")  # kinds whose loss is a loss of what people hear and read
BARE_MUXERS = ("rawvideo", "image2")  # frames alone: no other streams, orientation or timestamps


def cut_streams(
    parts: Sequence[tuple[str, BinaryIO, Fraction | None, Fraction | None, Fraction]], target: BinaryIO
) -> str | None:
    """Cut and join what VideoReader put aside; the packets stay as they are.

    Args:
        parts: format and file, begin and end in seconds (None for no limit), and the seconds by which its packets
            move. Streams are matched to those of the first part by their place; what does not fit is dropped with a
            warning.
        target: seekable file.

    Returns:
        The format of the target: that of the first part. None if nothing is left.

    Raises:
        VideoError: a part cannot be read.
    """
    name = parts[0][0]
    with errors("other streams"), contextlib.ExitStack() as stack:
        output = stack.enter_context(av.open(target, "w", format=name, container_options=MUXER_OPTIONS))
        copy: Copy | None = None
        for format, file, begin_s, end_s, shift_s in parts:
            file.seek(0)
            source = stack.enter_context(av.open(file, "r", format=_safe_format(format), metadata_errors="replace"))
            if copy is None:
                copy = Copy(source.streams, output, "other streams")
                if copy.outputs:
                    output.start_encoding()
                kinds = [_kind(stream) for stream in source.streams]
            elif [_kind(stream) for stream in source.streams] != kinds:
                log.warning("other streams: those of a later part differ in codec or layout and are dropped")
                continue
            for packet in source.demux():
                if packet.pts is None:
                    continue
                time_s = packet.pts * packet.time_base
                if (begin_s is None or begin_s <= time_s) and (end_s is None or time_s < end_s):
                    copy.mux(packet, -shift_s)
        return name if copy is not None and copy.written else None


def describe_streams(format: str, file: BinaryIO) -> list[dict[str, Any]]:
    """What VideoReader put aside, for people: kind, codec, language, and of sound its rate in Hz and its channels.

    Raises:
        VideoError: it cannot be read.
    """
    file.seek(0)
    found: list[dict[str, Any]] = []
    with errors("other streams"), av.open(file, "r", format=_safe_format(format), metadata_errors="replace") as source:
        for stream in source.streams:
            about: dict[str, Any] = {"kind": stream.type, "codec": codec_of(stream)}
            if (language := stream.metadata.get("language", "und")) != "und":
                about["language"] = language
            if isinstance(stream, av.AudioStream) and codec_of(stream) is not None:
                about |= {"rate_hz": stream.codec_context.sample_rate, "channels": stream.codec_context.layout.name}
            found.append(about)
    return found


class Copy:
    """Packets of some streams into a container, their bytes untouched.

    Matroska has no time below zero and would move all streams to make room, the video with them. What an edit list of
    MP4 cuts away in front is therefore left out there, and so are packets across the cut; not the first of a codec
    whose delay Matroska can express (Opus).

    Attributes:
        written: packets so far.
        lost: packets so far that the target refused, and streams of sound or subtitles that it does not take.
    """

    def __init__(self, streams: Iterable[Stream], target: OutputContainer, name: str, kind: str = "") -> None:
        """Add those of the streams to `target` that it takes; messages call it `name` and its format `kind`."""
        self.outputs: dict[int, Stream] = {}
        self.written = self.lost = 0
        self._target = target
        self._name = name
        self._refused: set[int] = set()
        self._is_matroska = target.format.name == "matroska"
        self._delayed: set[int] = set()  # streams that may begin below zero even so
        self._newest: dict[int, int] = {}  # stream to the time (dts) of its newest packet, in ticks of the output
        for stream in streams:
            if not takes(target.format.name, stream):
                refuser = kind or target.format.name
                log.warning("%s: %s is dropped: %s does not take it", name, title_of(stream), refuser)
                self.lost += stream.type in LISTENED
                continue
            output = target.add_stream_from_template(stream)
            output.metadata.update(stream.metadata)
            if name_of_it := output.metadata.pop("name", ""):  # as mp4 and mov give back what they take as a title
                output.metadata.setdefault("title", name_of_it)
            output.disposition = stream.disposition
            self.outputs[stream.index] = output

    def mux(self, packet: Packet[Any], shift_s: Fraction = Fraction(0)) -> None:
        """Write a packet, `shift_s` earlier than it says."""
        stream = packet.stream
        if stream.index not in self.outputs or not packet.size:
            return
        shift = round(shift_s / packet.time_base)
        try:
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        except OverflowError:  # beyond FFmpeg's clock
            self._refuse(stream, "its time is out of range")
            return
        if self._is_matroska and packet.pts is not None and packet.pts < 0:
            if packet.has_sidedata("skip_samples") and not packet.is_discard:
                self._delayed.add(stream.index)
            if stream.index not in self._delayed:
                return
        packet.stream = self.outputs[stream.index]
        self._keep_order(packet)
        try:
            self._target.mux_one(packet)
            self.written += 1
        except (ArgumentError, InvalidDataError) as error:  # this packet's own fault; the rest can be kept
            self._refuse(stream, reason(error))

    def _refuse(self, stream: Stream, why: str) -> None:
        """Count a packet that is not kept, and tell of the first one."""
        self.lost += 1
        if stream.index not in self._refused:
            self._refused.add(stream.index)
            log.warning("%s: damaged packets of %s are dropped (%s)", self._name, title_of(stream), why)

    def _keep_order(self, packet: Packet[Any]) -> None:
        """Move a packet that is not later than the one before it to the tick after that, as the ffmpeg tool does.

        Parts of a recording that were joined overlap by less than a packet. Subtitles may have one time, and in
        Matroska all packets.
        """
        if packet.dts is None or not packet.stream.time_base:
            return
        ratio = exact(packet.time_base) / exact(packet.stream.time_base)
        dts, index = math.floor(packet.dts * ratio + Fraction(1, 2)), packet.stream.index
        apart = int(packet.stream.type == "audio" and not self._is_matroska)
        least = self._newest.get(index, dts - apart) + apart
        if dts < least:
            packet.pts = None if packet.pts is None else max(math.floor(packet.pts * ratio + Fraction(1, 2)), least)
            packet.dts, packet.duration = least, round((packet.duration or 0) * ratio)
            packet.time_base = packet.stream.time_base
        self._newest[index] = max(dts, least)


class Side:
    """Reads a blob of streams back and copies it, in step with the video."""

    def __init__(self, file: BinaryIO, format: str, target: OutputContainer, name: str, kind: str) -> None:
        file.seek(0)
        self._source = av.open(file, "r", format=_safe_format(format), metadata_errors="replace")
        self._copy = Copy(self._source.streams, target, name, kind)
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


def takes(muxer: str, stream: Stream) -> bool:
    """Whether a container can hold a stream: ask it to write a header with only that."""
    if muxer in BARE_MUXERS or codec_of(stream) is None:
        return False  # the latter also of QuickTime's timecode track, whose frame rate PyAV cannot carry over
    try:
        with av.open(io.BytesIO(), "w", format=muxer) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        return False
    return True


def codec_of(stream: Stream) -> str | None:
    """FFmpeg's name of a stream's codec; None if it knows none, or has no decoder to tell the parameters by."""
    context: Any = stream.codec_context
    return None if context is None and stream.type not in ("data", "attachment") else stream.name


def _kind(stream: Stream) -> tuple[object, ...]:
    """What must agree for packets of one stream to go on in another."""
    context: Any = stream.codec_context
    if context is None:
        return stream.type, codec_of(stream)
    sound = (context.sample_rate, context.layout.name) if stream.type == "audio" else ()
    return stream.type, stream.name, bytes(context.extradata or b""), *sound


def title_of(stream: Stream) -> str:
    """What messages call a stream: its kind, number and codec."""
    codec = codec_of(stream) or ("timecode" if "timecode" in stream.metadata else "unknown codec")
    return f"{stream.type} stream {stream.index} ({codec})"
