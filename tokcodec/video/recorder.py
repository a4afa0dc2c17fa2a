"""The other streams of a video that is read, copied to a file in step with its frames."""

from __future__ import annotations

from typing import Any, BinaryIO, Self

import av
from av.container import OutputContainer
from av.packet import Packet

from tokcodec.video.demuxer import Complaints, Demuxer, log
from tokcodec.video.ffmpeg import errors
from tokcodec.video.others import (
    LISTENED,
    SIDE_FORMATS,
    SIDE_OPTIONS,
    Copy,
    codec_of,
    delay_s,
    takes,
    title_of,
)
from tokcodec.video.timeline import Wanted

COPIED = ("audio", "subtitle", "data", "attachment")


class Recorder:
    """Copies the packets of the wanted part; they wait until the first frame is known."""

    def __init__(self, copy: Copy, target: OutputContainer, format: str, file: BinaryIO, name: str) -> None:
        self._copy, self._target, self._format, self._file, self._name = copy, target, format, file, name
        self._held: list[Packet[Any]] | None = []  # packets that came before the first frame; None after it

    @classmethod
    def open(cls, source: Demuxer, file: BinaryIO, complaints: Complaints) -> Self | None:
        """Choose streams and a format for them.

        Args:
            source: the file that is read.
            file: seekable; receives the streams.
            complaints: counts the streams of sound and subtitles that are left out.

        Returns:
            None where no stream is copied.
        """
        streams = [s for s in source.container.streams if s.index != source.stream.index]
        if source.container.chapters():  # the titles of those in mp4 and mov, a second time
            streams = [s for s in streams if (s.type, codec_of(s)) != ("data", "bin_data")]
        for stream in [s for s in streams if s not in source.programme]:
            log.warning("%s: %s is left out: it belongs to another programme", source.name, title_of(stream))
            streams.remove(stream)
        for stream in [s for s in streams if s.type not in COPIED or codec_of(s) is None]:
            log.warning("%s: %s is left out", source.name, title_of(stream))
            complaints.damaged += stream.type in LISTENED
            streams.remove(stream)
        if not streams:
            return None
        # Matroska keeps to itself: delays and padding of sound, of which MP4 has others
        formats = sorted(SIDE_FORMATS, key=lambda name: name not in source.container.format.name)
        muxer = max(formats, key=lambda m: sum(takes(m, s) for s in streams))
        target = av.open(file, "w", format=muxer, container_options=SIDE_OPTIONS)
        copy = Copy(streams, target, source.name)
        if not copy.outputs:
            complaints.damaged += copy.lost
            return None
        with errors(source.name):
            target.start_encoding()
        return cls(copy, target, muxer, file, source.name)

    def take(self, packet: Packet[Any], wanted: Wanted) -> None:
        """Copy a packet, unless it lies outside of the wanted part."""
        pts = packet.dts if packet.pts is None else packet.pts
        early = delay_s(packet.stream) / wanted.time_base
        if pts is not None and not wanted.holds(pts * packet.time_base / wanted.time_base, early):
            return
        if self._held is not None:
            self._held.append(packet)
        elif wanted.shift_s is not None:
            self._copy.mux(packet, wanted.shift_s)

    def start(self, wanted: Wanted) -> None:
        """Copy what waited: the first frame is known, and with it the wanted part. Later calls do nothing."""
        held, self._held = self._held or [], None
        for packet in held:
            self.take(packet, wanted)

    def finish(self, complaints: Complaints) -> str:
        """Complete the file; `complaints` counts what could not be copied. FFmpeg's name of the format is returned."""
        complaints.damaged += self._copy.lost
        with errors(self._name):
            self._target.close()
            self._copy.finish(self._file)
            self._file.flush()
        return self._format
