"""The other streams of a file: sound, subtitles and data, copied packet by packet and never decoded."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, BinaryIO, get_args

import av
from av.container import InputContainer, OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.packet import Packet, PacketSideData, PktSideDataT
from av.stream import Disposition, Stream

from tokcodec.errors import VideoError
from tokcodec.video import edits
from tokcodec.video.ffmpeg import errors, exact, reason

log = logging.getLogger("tokcodec")

SIDE_FORMATS = ("mp4", "mov", "matroska")  # for the other streams; Matroska last, for its timestamps are whole ms
MUXER_OPTIONS = {"movie_timescale": "90000"}  # of mov and mp4: the default rounds the start of a track to 1 ms
SIDE_OPTIONS = MUXER_OPTIONS | {"fflags": "+bitexact"}  # Matroska has random numbers else
LISTENED = ("audio", "subtitle")  # kinds whose loss is a loss of what people hear and read
ROUNDING_S = Fraction(3, 2000)  # that timestamps in whole ms may be off
MATROSKA = ("matroska", "webm")
TIMELESS_MUXERS = ("rawvideo", "image2")
BARE_MUXERS = (*TIMELESS_MUXERS, "gif", "webp")  # frames alone: no other streams, orientation or tags


def cut_streams(
    parts: Sequence[tuple[str, BinaryIO, Fraction | None, Fraction | None, Fraction]], target: BinaryIO
) -> str | None:
    """Cut and join what VideoReader put aside; the packets stay as they are.

    Args:
        parts: format and file, begin and end in seconds (None for no limit), and the seconds by which its packets
            move. Streams are matched to those of the first part by their place; what does not fit is dropped with a
            warning, and so are those in a format that is not known.
        target: seekable file.

    Returns:
        The format of the target: that of the first part. None if nothing is left.

    Raises:
        VideoError: a part cannot be read.
    """
    parts = [part for part in parts if is_known(part[0])]
    if not parts:
        return None
    name = parts[0][0]
    with errors("other streams"), contextlib.ExitStack() as stack:
        output = stack.enter_context(av.open(target, "w", format=name, container_options=SIDE_OPTIONS))
        copy: Copy | None = None
        for format, file, begin_s, end_s, shift_s in parts:
            file.seek(0)
            source = stack.enter_context(av.open(file, "r", format=format, metadata_errors="replace"))
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
                first_s = None if begin_s is None else begin_s - delay_s(packet.stream)
                if (first_s is None or first_s <= time_s) and (end_s is None or time_s < end_s):
                    copy.mux(packet, -shift_s)
    if copy is None or not copy.written:
        return None
    copy.finish(target)
    return name


def describe_streams(format: str, file: BinaryIO) -> list[dict[str, Any]]:
    """What VideoReader put aside, for people: kind, codec, language, and of sound its rate in Hz and its channels.

    Raises:
        VideoError: it cannot be read.
    """
    if format not in SIDE_FORMATS:
        raise VideoError(f"other streams in unknown format {format!r}")
    file.seek(0)
    found: list[dict[str, Any]] = []
    with errors("other streams"), av.open(file, "r", format=format, metadata_errors="replace") as source:
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

    Matroska has no time below zero but for the delay of a codec, and would move all streams to make room, the video
    too. What an edit list of MP4 cuts away in front is therefore left out there, and so are packets across the cut.
    Where a packet of MP4 is shorter than its sound, Matroska says how much of its end is not heard. MP4 hides what lies
    below zero; of a delay that reaches beyond it (a part that was cut out, in Matroska) whole packets are left out, and
    of the first one that is heard in part `finish` hides the beginning.

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
        self._is_matroska = target.format.name in MATROSKA
        self._whole: dict[int, int] = {}  # stream of sound to the samples of a packet
        self._heard_s: dict[int, Fraction] = {}  # stream of sound to when it is heard first
        self._hidden_s: dict[int, Fraction] = {}  # stream of sound to what of its first packet is not to be heard
        self._newest: dict[int, int] = {}  # stream to the time (dts) of its newest packet, in ticks of the output
        for stream in streams:
            if not takes(target.format.name, stream):
                refuser = kind or target.format.name
                hint = ", only Opus and Vorbis; mkv takes it" if refuser == "webm" and stream.type == "audio" else ""
                log.warning("%s: %s is dropped: %s does not take it%s", name, title_of(stream), refuser, hint)
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
        if packet.pts is not None and self._is_hidden(packet, stream):
            return
        if isinstance(stream, av.AudioStream):
            self._pad(packet, stream)
        packet.stream = self.outputs[stream.index]
        self._keep_order(packet)
        try:
            self._target.mux_one(packet)
            self.written += 1
        except (ArgumentError, InvalidDataError) as error:  # this packet's own fault; the rest can be kept
            self._refuse(stream, reason(error))

    def _is_hidden(self, packet: Packet[Any], stream: Stream) -> bool:
        """Whether nothing of a packet is to be heard or seen, and the target has no other way to say it."""
        time_s = (packet.pts or 0) * exact(packet.time_base)
        if self._is_matroska:
            return time_s < 0 and time_s < -delay_s(stream) - ROUNDING_S
        if not isinstance(stream, av.AudioStream):
            return False
        if stream.index not in self._heard_s:
            skipped = Fraction(_skipped(packet)[0], stream.codec_context.sample_rate or 1)
            heard_s = self._heard_s[stream.index] = time_s + skipped
            if skipped and abs(heard_s) <= ROUNDING_S:  # then to the sample
                self._heard_s[stream.index] = Fraction(0)
                packet.time_base = 1 / Fraction(stream.codec_context.sample_rate)
                packet.pts = packet.dts = -_skipped(packet)[0]
        heard_s = self._heard_s[stream.index]
        if heard_s > 0 and time_s + (packet.duration or 0) * exact(packet.time_base) <= heard_s:
            return True
        if heard_s > 0:
            self._hidden_s.setdefault(stream.index, max(heard_s - time_s, Fraction(0)))
        return False

    def finish(self, file: BinaryIO) -> None:
        """Hide what is not to be heard of first packets, when the target is closed; `file` is what it has written."""
        if not self._is_matroska and any(self._hidden_s.values()):
            sound = (i for i, stream in sorted(self.outputs.items()) if stream.type == "audio")
            heard = [i for i in sound if self.outputs[i].index in self._newest]  # without a packet there is no track
            edits.hide(file, {n: self._hidden_s[i] for n, i in enumerate(heard) if self._hidden_s.get(i)})

    def _pad(self, packet: Packet[Any], stream: av.AudioStream) -> None:
        """Say in the way of the target how many samples at the end of a packet are not to be heard."""
        rate = stream.codec_context.sample_rate
        if not rate or not packet.duration:
            return
        first, last = _skipped(packet)
        samples = round(packet.duration * exact(packet.time_base) * rate)
        whole = stream.codec_context.frame_size or max(samples, self._whole.get(stream.index, 0))
        self._whole[stream.index] = whole
        if not self._is_matroska:
            if 0 < last < whole:
                packet.duration = round((whole - last) / (rate * exact(packet.time_base)))
        elif not last and exact(packet.time_base) * rate == 1:  # else the duration is rounded
            lacking = whole - samples
            if lacking > 0:
                trimming = PacketSideData(get_args(PktSideDataT).index("skip_samples"), 10)  # type: ignore[call-arg]
                trimming.update(struct.pack("<IIBB", first, lacking, 0, 0))
                packet.set_sidedata(trimming)

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
        self._source = av.open(file, "r", format=format, metadata_errors="replace")
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

    def finish(self, file: BinaryIO) -> None:
        """See `Copy.finish`."""
        self._copy.finish(file)


def is_known(format: str, name: str = "") -> bool:
    """Whether other streams are in a container of ours; if not, a warning says that they are dropped from `name`.

    The name is a stream's, which may lie: FFmpeg has formats that open other files.
    """
    if format not in SIDE_FORMATS:
        log.warning("%sother streams in unknown format %r are dropped", name and f"{name}: ", format)
    return format in SIDE_FORMATS


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


def delay_s(stream: Stream) -> Fraction:
    """Seconds of sound in front that only warm the decoder up; 0 of what is no sound."""
    if not isinstance(stream, av.AudioStream) or codec_of(stream) is None or not stream.codec_context.sample_rate:
        return Fraction(0)
    return Fraction(stream.codec_context.delay, stream.codec_context.sample_rate)


def _skipped(packet: Packet[Any]) -> tuple[int, int]:
    """Samples at the beginning and at the end of a packet that are not to be heard."""
    trimming = bytes(packet.get_sidedata("skip_samples"))
    return struct.unpack_from("<II", trimming) if len(trimming) >= 8 else (0, 0)


def is_related(stream: Stream, video: Stream, container: InputContainer) -> bool:
    """Whether a stream belongs to the programme of the video (MPEG-TS); where there are none, all do.

    PyAV does not show the programmes, but keeps to them where it looks for the best of related streams; so each of the
    two is made the best of its kind.
    """

    def wins(preferred: Stream, other: Stream) -> bool:
        for one in container.streams:
            one.disposition = Disposition.default if one is preferred else Disposition.hearing_impaired
        return container.streams.best(preferred.type, related=other) is preferred  # type: ignore[arg-type]

    before = [one.disposition for one in container.streams]
    try:
        return wins(stream, video) and wins(video, stream)
    finally:
        for one, disposition in zip(container.streams, before, strict=True):
            one.disposition = disposition


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
