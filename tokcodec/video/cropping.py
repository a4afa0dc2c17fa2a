"""The crop that a container asks for, in addition to that of the codec."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
from av.error import FFmpegError

from tokcodec.video.filters import UNCROPPED, Crop

HOLDERS = {0x18538067: "Segment", 0x1654AE6B: "Tracks", 0xAE: "TrackEntry", 0xE0: "Video"}  # by Matroska's ids
EDGES = {0x54AA: "bottom", 0x54BB: "top", 0x54CC: "left", 0x54DD: "right"}  # PixelCropBottom and so on


def crop_of(stream: av.VideoStream) -> Crop:
    """What the `clap` of MP4 and the PixelCrop of Matroska take off the decoded frames.

    PyAV does not show it, but hands it on: a Matroska header made of the stream tells it.
    """
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as probe:
            probe.add_stream_from_template(stream, opaque=True)
            probe.start_encoding()
    except (FFmpegError, ValueError):  # a codec that Matroska does not take, from a container without crops
        return UNCROPPED
    crop = Crop(**dict(_edges(header.getvalue())))
    is_left = crop.left + crop.right < stream.width and crop.top + crop.bottom < stream.height
    return crop if is_left else UNCROPPED


def _edges(data: bytes) -> Iterator[tuple[str, int]]:
    """The edges in the elements of a Matroska file (RFC 8794): id, size, value."""
    place = 0
    while place < len(data):
        length = 9 - data[place].bit_length()
        name = int.from_bytes(data[place : place + length])
        place += length
        length = 9 - data[place].bit_length()
        size = int.from_bytes(data[place : place + length]) - (1 << 7 * length)
        place += length
        if name in HOLDERS:
            yield from _edges(data[place : place + size])
        elif name in EDGES:
            yield EDGES[name], int.from_bytes(data[place : place + size])
        place += size
