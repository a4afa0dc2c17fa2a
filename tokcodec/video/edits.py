"""The edit lists of MP4 and MOV, in which FFmpeg's muxer cannot say that a late track begins within its first packet.

It writes an empty edit up to the first packet, then all of the track. To hide the first samples of that packet, as the
delay of a codec asks for, both edits are changed in the finished file; no byte moves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import BinaryIO, NamedTuple

_INSIDE = {b"moov", b"trak", b"edts", b"mdia"}


class _Box(NamedTuple):
    path: bytes  # the kinds of boxes that it lies in, and its own
    begin: int  # of its contents
    end: int


def _boxes(file: BinaryIO, begin: int, end: int, path: bytes = b"") -> Iterator[_Box]:
    """The boxes of a part of a file, those within others behind them."""
    while begin + 8 <= end:
        file.seek(begin)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", file.read(8)), 16
        size = size or end - begin
        if size < head or begin + size > end:
            return
        box = _Box(path + kind, begin + head, begin + size)
        yield box
        if kind in _INSIDE:
            yield from _boxes(file, box.begin, box.end, box.path)
        begin += size


def _timescale(file: BinaryIO, box: _Box) -> int:
    """Of `mvhd` or `mdhd`: ticks a second."""
    file.seek(box.begin)
    file.seek(box.begin + (20 if file.read(1) == b"\1" else 12))
    return int.from_bytes(file.read(4), "big")


def hide(file: BinaryIO, hidden_s: Mapping[int, Fraction]) -> None:
    """Hide the beginning of tracks of sound that start late; what has another edit list is left as it is.

    Args:
        file: MP4 or MOV, to be read and written.
        hidden_s: number of a track among those of sound, from 0, to seconds.
    """
    movie, scale, sound, late = 1, 1, -1, None
    for box in _boxes(file, 0, file.seek(0, 2)):
        kind = box.path[-4:]
        if kind == b"mvhd":
            movie = _timescale(file, box)
        elif kind == b"trak":
            late = None
        elif kind == b"elst":
            late = box
        elif kind == b"mdhd":
            scale = _timescale(file, box)
        elif box.path == b"moovtrakmdiahdlr":
            file.seek(box.begin + 8)
            if file.read(4) == b"soun":
                sound += 1
                if late is not None and sound in hidden_s:
                    _shorten(file, late, round(hidden_s[sound] * movie), round(hidden_s[sound] * scale))


def _shorten(file: BinaryIO, box: _Box, by: int, by_own: int) -> None:
    """Move an edit that follows an empty one: by so many ticks of the movie, which are so many of the track."""
    file.seek(box.begin)
    version, _, _, _, count = struct.unpack(">4BI", file.read(8))
    form = ">QqHHQqHH" if version == 1 else ">IiHHIiHH"
    data = file.read(struct.calcsize(form))
    if count != 2 or len(data) < struct.calcsize(form):
        return
    empty, none, *rate, length, start, rate_2, part_2 = struct.unpack(form, data)
    if none == -1 and length > by:
        file.seek(box.begin + 8)
        file.write(struct.pack(form, empty + by, none, *rate, length - by, start + by_own, rate_2, part_2))
