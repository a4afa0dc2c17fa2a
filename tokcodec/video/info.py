"""What a video is, besides its frames: shape, orientation, colour (ITU-T H.273), tags and chapters."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

Frame = np.ndarray[Any, np.dtype[np.uint8]]  # [H, W, 3], RGB

# H.273 matrix coefficients that swscale converts. 10 is BT.2020 with constant luminance: near enough to 9.
SWSCALE_MATRICES = {
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
UNKEPT = {  # PyAV's names of what a frame may have besides its pixels
    "MASTERING_DISPLAY_METADATA": "description of the mastering display",
    "CONTENT_LIGHT_LEVEL": "light level (MaxCLL)",
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "A53_CC": "closed captioning",
    "SPHERICAL": "spherical projection",
    "ICC_PROFILE": "ICC profile",
}
SCALING = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND

MATRIX_ONE = 1 << 16  # of a display matrix
ORIENTATIONS = {  # (rotation, mirrored) of VideoInfo to a, b, c, d: a display matrix shows (x, y) at (ax + cy, bx + dy)
    (90 * turns, mirrored): (-a if mirrored else a, -b if mirrored else b, -b, a)
    for turns, (a, b) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)])
    for mirrored in (False, True)
}


@dataclasses.dataclass(frozen=True)
class Colour:
    """How YUV maps to RGB, as code points of ITU-T H.273; 2 is unspecified.

    VideoReader gives one of SWSCALE_MATRICES as `matrix`; VideoWriter takes what players would for any other.
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
        name: of the video among the streams; "" if it has none.
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
    name: str = ""


def untagged_matrix(height: int) -> int:
    """What players take for video without a tag: BT.709 for HD, else BT.601."""
    return 1 if height >= 720 else 6


def orientation_of(frame: av.VideoFrame, warn: Callable[[str], None]) -> tuple[int, bool]:
    """Rotation and mirroring as in VideoInfo: those of the display matrix, or the nearest, with a warning."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 0, False
    a, b, u, c, d, v, *_ = (value / MATRIX_ONE for value in struct.unpack("=9i", bytes(data)))
    parts = (a, b, c, d)
    best = max(ORIENTATIONS, key=lambda it: sum(x * y for x, y in zip(ORIENTATIONS[it], parts, strict=True)))
    if u or v or any(abs(x - y) > 1e-3 for x, y in zip(ORIENTATIONS[best], parts, strict=True)):
        mirrored = " mirrored and" if best[1] else ""
        warn(
            f"its display matrix [{a:g} {b:g} {c:g} {d:g}] is more than mirroring and quarter turns; "
            f"kept as{mirrored} turned by {best[0]} degrees"
        )
    return best


def unkept(frame: av.VideoFrame) -> Iterator[str]:
    """What a frame has besides its pixels that the result will not have."""
    return (what for name, what in UNKEPT.items() if frame.side_data.get(name) is not None)


def has_alpha(format: av.VideoFormat) -> bool:
    """Whether pixels of this format can be transparent."""
    return format.name == "pal8" or any(component.is_alpha for component in format.components)


def colour_of(frame: av.VideoFrame, warn: Callable[[str], None]) -> Colour:
    """The frame's tags, what is missing guessed; warns of what RGB in 8 bits does not hold."""
    bits = max(component.bits for component in frame.format.components)
    if bits > 8:
        warn(f"{bits}-bit video is coded with 8 bits")
    if frame.color_trc in HDR_TRANSFERS:
        warn(f"HDR ({HDR_TRANSFERS[frame.color_trc]}) is kept as tagged, without tone mapping")
    matrix = frame.colorspace
    if matrix not in SWSCALE_MATRICES:
        if not frame.format.is_rgb and matrix != UNSPECIFIED:
            warn(f"colour matrix {matrix} is not known; guessed")
        matrix = untagged_matrix(frame.height)
    full_range = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return Colour(frame.color_primaries, frame.color_trc, matrix, full_range and not frame.format.is_rgb)
