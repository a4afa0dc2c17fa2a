"""What the records of a .tokc stream say: header, chunk and index as values, and as the bytes of FORMAT.md.

`bitstream.py` frames these bytes and finds them in a file. Bytes that break the format raise BitstreamError
here; a value that cannot be written raises ValueError.
"""

from __future__ import annotations

import dataclasses
import io
import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec import entropy
from tokcodec.errors import BitstreamError

TIME_STRIDE = 4
SPACE_STRIDE = 16

MAX_SIDE_PX = 16384
MAX_CHUNK_FRAMES = 4096
MAX_TOKEN_BITS = 64
MAX_CHUNK_BYTES = 2**28  # of packed bits, before compression
MAX_TICKS = 2**62  # size of a timestamp

_HEAD = struct.Struct("<HHHBB6I4B32s")
_CHUNK = struct.Struct("<HBB")
_MIRRORED = 4  # bit of the header's orientation, over the quarter turns
HEAD_BYTES = _HEAD.size


def ticks_of(time_s: float, time_base: Fraction) -> int:
    """Seconds to the first tick not before them, give or take the rounding of timestamps to 1 ms; .1 is 1/10."""
    ticks = Fraction(time_s).limit_denominator(1_000_000) / time_base
    return math.ceil(ticks - min(Fraction(1, 2), Fraction(1, 2000) / time_base))


def latent_size(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Size in pixels (of a whole clip, unpadded) to size of its token grid (t, h, w)."""
    return -(-(frames - 1) // TIME_STRIDE) + 1, -(-height // SPACE_STRIDE), -(-width // SPACE_STRIDE)


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

    Raises ValueError if a field is out of range or a full chunk of this size would pass MAX_CHUNK_BYTES.
    """

    width: int  # pixels, 1 to 16384, unpadded, before rotation
    height: int
    chunk_frames: int  # the most frames a chunk has, 1 to 4096
    weights_sha256: bytes  # 32 bytes: the weights that decode the tokens
    token_bits: int  # K of those weights, 1 to 64: the most bits a chunk keeps of a token
    time_base: Fraction  # seconds per timestamp tick, above 0
    frame_rate: Fraction = Fraction(0)  # average frames/s of the source; 0 is unknown
    sample_aspect: Fraction = Fraction(0)  # width / height of a pixel; 0 is unknown
    rotation: int = 0  # degrees clockwise that a player must turn the picture: 0, 90, 180 or 270
    mirrored: bool = False  # whether it must swap left and right before
    primaries: int = 2  # colour of the source, code points of ITU-T H.273; 2 is unspecified
    transfer: int = 2
    matrix: int = 2
    full_range: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.width <= MAX_SIDE_PX and 1 <= self.height <= MAX_SIDE_PX):
            raise ValueError(f"a frame of {self.width}x{self.height} is outside 1 to {MAX_SIDE_PX} pixels a side")
        if not 1 <= self.chunk_frames <= MAX_CHUNK_FRAMES:
            raise ValueError(f"chunk_frames must be 1 to {MAX_CHUNK_FRAMES}, not {self.chunk_frames}")
        if not 1 <= self.token_bits <= MAX_TOKEN_BITS:
            raise ValueError(f"token_bits must be 1 to {MAX_TOKEN_BITS}, not {self.token_bits}")
        if self.packed_bytes(self.chunk_frames, self.token_bits) > MAX_CHUNK_BYTES:
            raise ValueError(f"chunks of {self.chunk_frames} frames of {self.width}x{self.height} are too large")
        if len(self.weights_sha256) != 32:
            raise ValueError(f"weights_sha256 has {len(self.weights_sha256)} bytes, not 32")
        for name in ("time_base", "frame_rate", "sample_aspect"):
            value = getattr(self, name)
            if not 0 <= value.numerator < 2**31 or value.denominator >= 2**31:
                raise ValueError(f"{name} {value} is not a fraction of 31-bit naturals")
        if not self.time_base:
            raise ValueError("time_base is 0")
        if self.rotation not in (0, 90, 180, 270):
            raise ValueError(f"rotation must be 0, 90, 180 or 270 degrees, not {self.rotation}")
        if not all(0 <= code <= 255 for code in (self.primaries, self.transfer, self.matrix)):
            raise ValueError("colour code points must be 0 to 255")

    def bits_shape(self, frames: int, token_bits: int) -> tuple[int, int, int, int]:
        """Shape (k, t, h, w) of the bits of a chunk."""
        return token_bits, *latent_size(frames, self.height, self.width)

    def packed_bytes(self, frames: int, token_bits: int) -> int:
        """What the payload of a chunk takes at most."""
        return entropy.packed_bytes(self.bits_shape(frames, token_bits))

    def pack(self) -> bytes:
        """Payload of the header record."""
        return _HEAD.pack(
            self.width,
            self.height,
            self.chunk_frames,
            self.token_bits,
            self.rotation // 90 | _MIRRORED * self.mirrored,
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
        width, height, chunk_frames, token_bits, orientation, *rest = _HEAD.unpack(payload)
        numbers, (primaries, transfer, matrix, full_range, sha256) = rest[:6], rest[6:]
        if not all(numbers[1::2]) or full_range > 1 or orientation > _MIRRORED + 3:
            raise BitstreamError("the header is malformed")
        time_base, frame_rate, sample_aspect = (Fraction(*numbers[i : i + 2]) for i in (0, 2, 4))
        try:
            return cls(
                width=width,
                height=height,
                chunk_frames=chunk_frames,
                weights_sha256=sha256,
                token_bits=token_bits,
                time_base=time_base,
                frame_rate=frame_rate,
                sample_aspect=sample_aspect,
                rotation=90 * (orientation & 3),
                mirrored=bool(orientation & _MIRRORED),
                primaries=primaries,
                transfer=transfer,
                matrix=matrix,
                full_range=bool(full_range),
            )
        except ValueError as error:
            raise BitstreamError(f"the header is malformed: {error}") from error


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Frames coded together; decodes from its own bytes and the header.

    Raises ValueError if a field is out of range.
    """

    frames: int
    token_bits: int  # k, the bits kept of each token: the first ones in bit order
    coder: int  # how the payload is coded (entropy.py)
    payload: bytes
    pts: tuple[int, ...]  # of each frame, in ticks of the header's time base, strictly increasing
    duration: int  # of the last frame, in ticks, at least 1

    def __post_init__(self) -> None:
        if self.frames < 1 or len(self.pts) != self.frames:
            raise ValueError(f"a chunk of {self.frames} frames has {len(self.pts)} timestamps")
        if not 1 <= self.token_bits <= MAX_TOKEN_BITS:
            raise ValueError(f"token_bits must be 1 to {MAX_TOKEN_BITS}, not {self.token_bits}")
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

    @classmethod
    def from_bits(cls, bits: NDArray[np.bool_], pts: tuple[int, ...], duration: int, level: int = 19) -> Chunk:
        """Code the bits of a chunk.

        Args:
            bits: bool `[k, t, h, w]`.
            pts: timestamp of each frame, in ticks.
            duration: of the last frame, in ticks.
            level: zstd level, 1 to 22.

        Raises:
            ValueError: there are not as many latent frames as that many frames have.
        """
        if bits.shape[1] != latent_size(len(pts), 1, 1)[0]:
            raise ValueError(f"{bits.shape[1]} latent frames do not code {len(pts)} frames")
        coder, payload = entropy.encode_bits(bits, level)
        return cls(len(pts), len(bits), coder, payload, pts, duration)

    def bits(self, header: Header) -> NDArray[np.bool_]:
        """The bits, bool `[k, t, h, w]`; BitstreamError if the payload does not code them."""
        return entropy.decode_bits(self.coder, self.payload, header.bits_shape(self.frames, self.token_bits))

    def pack(self) -> bytes:
        """Payload of the chunk record."""
        fields = _CHUNK.pack(self.frames, self.token_bits, self.coder)
        return fields + _pack_times(self.pts, self.duration) + self.payload

    @classmethod
    def unpack(cls, payload: bytes, header: Header) -> Chunk:
        """The inverse of `pack`; BitstreamError if a field is out of range or does not fit the header."""
        if len(payload) < _CHUNK.size:
            raise BitstreamError("a chunk is cut short")
        frames, token_bits, coder = _CHUNK.unpack_from(payload)
        if not 1 <= frames <= header.chunk_frames:
            raise BitstreamError(f"a chunk has {frames} frames, the header allows 1 to {header.chunk_frames}")
        data = io.BytesIO(payload[_CHUNK.size :])
        pts, duration = _read_times(data, frames)
        try:
            chunk = cls(frames, token_bits, coder, data.read(), pts, duration)
            chunk.check(header)
        except ValueError as error:
            raise BitstreamError(f"a chunk is malformed: {error}") from error
        return chunk

    def check(self, header: Header) -> None:
        """Raises ValueError if the chunk cannot belong to a stream of that header."""
        if self.frames > header.chunk_frames or self.token_bits > header.token_bits:
            raise ValueError(
                f"a chunk of {self.frames} frames with {self.token_bits} bits passes the header's "
                f"{header.chunk_frames} frames with {header.token_bits} bits"
            )
        if len(self.payload) > header.packed_bytes(self.frames, self.token_bits):
            raise ValueError(f"a payload of {len(self.payload)} bytes is larger than the bits it codes")


class Entry(NamedTuple):
    """One chunk in the index."""

    offset: int  # of the chunk's record, in bytes from the start of the stream
    bytes: int  # length of that record
    frames: int
    token_bits: int
    first_pts: int  # ticks
    end_pts: int

    @classmethod
    def of(cls, chunk: Chunk, offset: int, size: int) -> Entry:
        """The entry of a chunk whose record stands at `offset`."""
        return cls(offset, size, chunk.frames, chunk.token_bits, chunk.pts[0], chunk.end_pts)


def pack_index(entries: list[Entry], start: int) -> bytes:
    """The index as differences, which are mostly small: `start` is where the first record after the header is."""
    out, position, pts = [_varint(len(entries))], start, 0
    for entry in entries:
        numbers = (
            entry.offset - position,
            entry.bytes,
            entry.frames,
            entry.token_bits,
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
        gap, size, frames, token_bits, jump, span = (_read_varint(data) for _ in range(6))
        first = pts + _unzigzag(jump)
        yield Entry(position + gap, size, frames, token_bits, first, first + span)
        position, pts = position + gap + size, first + span
    if data.read(1):
        raise BitstreamError("the index is longer than its entries")
