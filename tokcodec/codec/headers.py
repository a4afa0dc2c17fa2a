"""What a stream says of its video, made from what a video file says, and back."""

from __future__ import annotations

import logging
from fractions import Fraction

from tokcodec.codec.chunking import chunk_frames_for
from tokcodec.stream.metadata import Chapter, Metadata
from tokcodec.stream.profile import Profile
from tokcodec.stream.records import Header
from tokcodec.video import Colour, VideoInfo

log = logging.getLogger("tokcodec")


def header_of(info: VideoInfo, weights_sha256: bytes, profile: Profile | None = None) -> Header:
    """The header of a video's stream.

    Raises:
        ValueError: the format has no room for such a video; the message says what is out of range.
    """
    return Header(
        width=info.width,
        height=info.height,
        chunk_frames=chunk_frames_for(info.height, info.width),
        weights_sha256=weights_sha256,
        time_base=info.time_base,
        frame_rate=info.frame_rate,
        sample_aspect=info.sample_aspect,
        rotation=info.rotation // 90,
        mirrored=info.mirrored,
        primaries=info.colour.primaries,
        transfer=info.colour.transfer,
        matrix=info.colour.matrix,
        full_range=info.colour.full_range,
        profile=profile,
    )


def metadata_of(info: VideoInfo) -> Metadata:
    """Tags, language, name and chapters of a video; none, with a warning, where they are more than a stream takes."""
    try:
        chapters = tuple(Chapter(*chapter) for chapter in info.chapters)
        return Metadata(dict(info.tags), info.language, chapters, info.name)
    except ValueError as error:
        log.warning("its metadata is left out: %s", error)
        return Metadata()


def video_info_of(header: Header, metadata: Metadata) -> VideoInfo:
    """The video that a stream says it holds."""
    return VideoInfo(
        width=header.width,
        height=header.height,
        time_base=header.time_base,
        frame_rate=header.frame_rate,
        sample_aspect=header.sample_aspect or Fraction(1),
        rotation=90 * header.rotation,
        mirrored=header.mirrored,
        colour=Colour(header.primaries, header.transfer, header.matrix, header.full_range),
        tags=metadata.tags,
        language=metadata.language,
        name=metadata.name,
        chapters=tuple((c.start, c.end, c.title) for c in metadata.chapters),
    )
