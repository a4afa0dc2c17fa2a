"""What the records of a .tokc stream say: header, chunk and index as values, and as the bytes of FORMAT.md.

`container.py` finds these bytes in a file. Bytes that break the format raise BitstreamError here; a value that
cannot be written raises ValueError. What a chunk's payloads mean is no concern of this file.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from tokcodec.errors import BitstreamError
from tokcodec.stream.profile import Profile, checked, profile_of

MAGIC = b"\x89TKC\r\n\x1a\n"  # as PNG's: no text, and any translation of line ends breaks it
VERSION = 3
HEAD, CHUNK, METADATA, STREAMS, PART, INDEX, TRAILER = b"HEAD", b"CHNK", b"META", b"STRM", b"PART", b"INDX", b"TAIL"

FRAMING = struct.Struct("<4sI")  # type and length; then come the payload and its CRC
CRC = struct.Struct("<I")
FRAMING_BYTES = FRAMING.size + CRC.size

SPACE_STRIDE = 16

MAX_SIDE_PX = 16384
MAX_CHUNK_FRAMES = 4096
MAX_CHUNK_PX = 2**33  # of the padded frames of a full chunk: what a decoder must hold follows from it
MAX_RECORD_BYTES = 2**31
MAX_STEP = 65535
MAX_TICKS = 2**62  # size of a timestamp

_HEAD = struct.Struct("<HHHBB6I4B32s")
_CHUNK = struct.Struct("<HBH")
HEAD_BYTES = _HEAD.size
_TURNS, _MIRRORED = 3, 4  # bits of the orientation


def pack_record(kind: bytes, payload: bytes) -> bytes:
    """A whole record: type, length, payload, CRC-32."""
    framed = FRAMING.pack(kind, len(payload)) + payload
    return framed + CRC.pack(zlib.crc32(framed))


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Size in pixels (of a whole clip, unpadded) to size of its token grid: frames, rows h, columns w."""
    return frames, -(-height // SPACE_STRIDE), -(-width // SPACE_STRIDE)


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, low ones first, the top bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: io.BytesIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = data.read(1)
        if not byte:
            raise BitstreamError("a number is cut short")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise BitstreamError("a number is longer than 10 bytes")


def _zigzag(value: int) -> int:
    """Integers to naturals, small ones to small ones: 0, -1, 1, -2 to 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def _unzigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)


def _pack_times(pts: tuple[int, ...], duration: int) -> bytes:
    """Timestamps as first, span, and what each is off a constant rate, in as many bits as the worst needs."""
    first, count = pts[0], len(pts)
    span = pts[-1] + duration - first
    residuals = [_zigzag(pts[i] - _steady(first, span, i, count)) for i in range(1, count)]
    width = max(residuals, default=0).bit_length()
    packed = sum(residual << i * width for i, residual in enumerate(residuals))
    residual_bytes = packed.to_bytes(-(-width * len(residuals) // 8), "little")
    return _varint(_zigzag(first)) + _varint(span) + bytes([width]) + residual_bytes


def _read_times(data: io.BytesIO, count: int) -> tuple[tuple[int, ...], int]:
    first, span = _unzigzag(_read_varint(data)), _read_varint(data)
    width = data.read(1)
    if not width or width[0] > 64:
        raise BitstreamError("timestamps are damaged")
    size = -(-width[0] * (count - 1) // 8)
    packed = data.read(size)
    if len(packed) != size:
        raise BitstreamError("timestamps are cut short")
    residuals, mask = int.from_bytes(packed, "little"), (1 << width[0]) - 1
    pts = [first]
    for i in range(1, count):
        pts.append(_steady(first, span, i, count) + _unzigzag(residuals >> (i - 1) * width[0] & mask))
    return tuple(pts), first + span - pts[-1]


def _steady(first: int, span: int, i: int, count: int) -> int:
    """Timestamp of frame i if all `count` frames last equally long, rounded half up."""
    return first + (2 * i * span + count) // (2 * count)


@dataclasses.dataclass(frozen=True)
class Header:
    """What holds for a whole stream.

    Raises ValueError if a field is out of range or a full chunk of this size would pass MAX_CHUNK_PX.
    """

    width: int  # pixels, 1 to 16384, unpadded, before mirroring and rotation
    height: int
    chunk_frames: int  # the most frames a chunk has, 1 to 4096
    weights_sha256: bytes  # 32 bytes: the weights that decode the tokens
    time_base: Fraction  # seconds per timestamp tick, above 0
    frame_rate: Fraction = Fraction(0)  # average frames/s of the source; 0 is unknown
    sample_aspect: Fraction = Fraction(0)  # width / height of a pixel; 0 is unknown
    rotation: int = 0  # quarter turns clockwise that a player must make, 0 to 3
    mirrored: bool = False  # left and right are to be swapped, before turning
    primaries: int = 2  # colour of the source, code points of ITU-T H.273; 2 is unspecified
    transfer: int = 2
    matrix: int = 2
    full_range: bool = False
    profile: Profile | None = None  # of its tokens; None is the default one

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE_PX and 1 <= self.height <= MAX_SIDE_PX):
            raise ValueError(f"a frame of {self.width}x{self.height} is outside 1 to {MAX_SIDE_PX} pixels a side")
        if not 1 <= self.chunk_frames <= MAX_CHUNK_FRAMES:
            raise ValueError(f"chunk_frames must be 1 to {MAX_CHUNK_FRAMES}, not {self.chunk_frames}")
        if self.chunk_frames * self.padded_px > MAX_CHUNK_PX:
            raise ValueError(f"chunks of {self.chunk_frames} frames of {self.width}x{self.height} are too large")
        if len(self.weights_sha256) != 32:
            raise ValueError(f"weights_sha256 has {len(self.weights_sha256)} bytes, not 32")
        for name in ("time_base", "frame_rate", "sample_aspect"):
            value = getattr(self, name)
            if not 0 <= value.numerator < 2**31 or value.denominator >= 2**31:
                raise ValueError(f"{name} {value} is not a fraction of 31-bit naturals")
        if not self.time_base:
            raise ValueError("time_base is 0")
        if not 0 <= self.rotation <= 3:
            raise ValueError(f"rotation must be 0 to 3 quarter turns, not {self.rotation}")
        if not all(0 <= code <= 255 for code in (self.primaries, self.transfer, self.matrix)):
            raise ValueError("colour code points must be 0 to 255")
        if self.profile is not None:
            checked(*self.profile)

    @property
    def padded_px(self) -> int:
        """Pixels of a frame whose sides are padded to whole positions of the token grid."""
        _, h, w = latent_size(1, self.height, self.width)
        return h * w * SPACE_STRIDE**2

    def chunk_record_bytes(self, frames: int) -> int:
        """The most bytes that the whole record of a chunk of so many frames may have."""
        return min(MAX_RECORD_BYTES, 1024 + 4 * frames * self.padded_px)

    def pack(self) -> bytes:
        """Payload of the header record."""
        return _HEAD.pack(
            self.width,
            self.height,
            self.chunk_frames,
            self.rotation | _MIRRORED * self.mirrored,
            self.profile.code if self.profile else 0,
            *self.time_base.as_integer_ratio(),
            *self.frame_rate.as_integer_ratio(),
            *self.sample_aspect.as_integer_ratio(),
            self.primaries,
            self.transfer,
            self.matrix,
            self.full_range,
            self.weights_sha256,
        )

    @classmethod
    def unpack(cls, payload: bytes) -> Header:
        """The inverse of `pack`; BitstreamError if a field is out of range."""
        if len(payload) != _HEAD.size:
            raise BitstreamError(f"the header has {len(payload)} bytes, not {_HEAD.size}")
        width, height, chunk_frames, orientation, profile, *rest = _HEAD.unpack(payload)
        numbers, (primaries, transfer, matrix, full_range, sha256) = rest[:6], rest[6:]
        if not all(numbers[1::2]) or full_range > 1 or orientation > (_TURNS | _MIRRORED):
            raise BitstreamError("the header is malformed")
        time_base, frame_rate, sample_aspect = (Fraction(*numbers[i : i + 2]) for i in (0, 2, 4))
        try:
            return cls(
                width=width,
                height=height,
                chunk_frames=chunk_frames,
                weights_sha256=sha256,
                time_base=time_base,
                frame_rate=frame_rate,
                sample_aspect=sample_aspect,
                rotation=orientation & _TURNS,
                mirrored=bool(orientation & _MIRRORED),
                primaries=primaries,
                transfer=transfer,
                matrix=matrix,
                full_range=bool(full_range),
                profile=profile_of(profile),
            )
        except ValueError as error:
            raise BitstreamError(f"the header is malformed: {error}") from error


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Frames coded together; decodes from its own bytes and the header.

    Raises ValueError if a field is out of range.
    """

    frames: int
    coder: int  # how the payloads are coded, 0 to 255
    step: int  # the base step of the quantizer in 1/16 of an 8-bit level, 1 to 65535: it sets the rate
    pts: tuple[int, ...]  # of each frame, in ticks of the header's time base, strictly increasing
    duration: int  # of the last frame, in ticks, at least 1
    motion: bytes  # coded motion fields
    levels: bytes  # coded levels

    def __post_init__(self) -> None:
        if self.frames < 1 or len(self.pts) != self.frames:
            raise ValueError(f"a chunk of {self.frames} frames has {len(self.pts)} timestamps")
        if not 1 <= self.step <= MAX_STEP:
            raise ValueError(f"step must be 1 to {MAX_STEP}, not {self.step}")
        if not 0 <= self.coder <= 255:
            raise ValueError(f"coder must be 0 to 255, not {self.coder}")
        if any(b <= a for a, b in zip(self.pts, self.pts[1:], strict=False)) or self.duration < 1:
            raise ValueError("timestamps do not increase")
        if self.pts[0] < -MAX_TICKS or self.end_pts > MAX_TICKS:
            raise ValueError("timestamps are out of range")

    @property
    def end_pts(self) -> int:
        """Where the last frame ends, in ticks."""
        return self.pts[-1] + self.duration

    def pack(self) -> bytes:
        """Payload of the chunk record."""
        fields = _CHUNK.pack(self.frames, self.coder, self.step)
        times = _pack_times(self.pts, self.duration)
        return fields + times + _varint(len(self.motion)) + self.motion + self.levels

    @classmethod
    def unpack(cls, payload: bytes, header: Header) -> Chunk:
        """The inverse of `pack`; BitstreamError if a field is out of range or does not fit the header."""
        if len(payload) < _CHUNK.size:
            raise BitstreamError("a chunk is cut short")
        frames, coder, step = _CHUNK.unpack_from(payload)
        if not 1 <= frames <= header.chunk_frames:
            raise BitstreamError(f"a chunk has {frames} frames, the header allows 1 to {header.chunk_frames}")
        if FRAMING_BYTES + len(payload) > header.chunk_record_bytes(frames):
            raise BitstreamError(f"a chunk of {frames} frames is larger than it may be")
        data = io.BytesIO(payload[_CHUNK.size :])
        pts, duration = _read_times(data, frames)
        motion_bytes = _read_varint(data)
        if motion_bytes > len(payload) - _CHUNK.size - data.tell():
            raise BitstreamError("the motion of a chunk is cut short")
        try:
            return cls(frames, coder, step, pts, duration, data.read(motion_bytes), data.read())
        except ValueError as error:
            raise BitstreamError(f"a chunk is malformed: {error}") from error


class Entry(NamedTuple):
    """One chunk in the index."""

    offset: int  # of the chunk's record, in bytes from the start of the stream
    bytes: int  # length of that record
    frames: int
    step: int
    first_pts: int  # ticks
    end_pts: int

    @classmethod
    def of(cls, chunk: Chunk, offset: int, size: int) -> Entry:
        """The entry of a chunk whose record stands at `offset`."""
        return cls(offset, size, chunk.frames, chunk.step, chunk.pts[0], chunk.end_pts)


def pack_index(entries: list[Entry], start: int) -> bytes:
    """The index as differences, which are mostly small: `start` is where the first record after the header is."""
    out, position, pts = [_varint(len(entries))], start, 0
    for entry in entries:
        numbers = (
            entry.offset - position,
            entry.bytes,
            entry.frames,
            entry.step,
            _zigzag(entry.first_pts - pts),
            entry.end_pts - entry.first_pts,
        )
        out.extend(map(_varint, numbers))
        position, pts = entry.offset + entry.bytes, entry.end_pts
    return b"".join(out)


def unpack_index(payload: bytes, start: int) -> Iterator[Entry]:
    """The inverse of `pack_index`, one by one; what the entries say is not checked.

    Raises:
        BitstreamError: the payload is not a whole index.
    """
    data, position, pts = io.BytesIO(payload), start, 0
    for _ in range(_read_varint(data)):  # a count that lies meets the end of the payload
        gap, size, frames, step, jump, span = (_read_varint(data) for _ in range(6))
        first = pts + _unzigzag(jump)
        yield Entry(position + gap, size, frames, step, first, first + span)
        position, pts = position + gap + size, first + span
    if data.read(1):
        raise BitstreamError("the index is longer than its entries")
