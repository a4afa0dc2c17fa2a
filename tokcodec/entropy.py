"""Token bits to payload bytes and back, lossless.

The bits of a chunk are packed eight to a byte in one of a few layouts and compressed with zstd. The layout that
a quick trial makes smallest wins; it is the coder id that the stream stores. Bits that zstd cannot shrink are
stored packed. Another kind of coder would be another id.

This file knows nothing of chunks or files, and needs no torch.
"""

from __future__ import annotations

import math

import numpy as np
import zstandard
from numpy.typing import NDArray

from tokcodec.errors import BitstreamError

STORED = 0  # packed bit-plane-major, uncompressed
# Coder id to layout under zstd: whether the K bits of a token stand together (token-major) rather than the
# positions of one bit (bit-plane-major), and whether each latent frame is XORed with the one before.
ZSTD_LAYOUTS = {1: (False, False), 2: (True, False), 3: (False, True), 4: (True, True)}

PROBE_LEVEL = 9  # of zstd, to choose the layout by: it ranks them as level 19 does, in a tenth of the time

_TOKEN_MAJOR = (1, 2, 3, 0)  # [K, t, h, w] to [t, h, w, K]
_PLANE_MAJOR = (3, 0, 1, 2)  # and back


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Size in bytes of the packed bits of an array of that shape: what no payload exceeds."""
    return -(-math.prod(shape) // 8)


def _pack(bits: NDArray[np.bool_], token_major: bool, xor: bool) -> bytes:
    if xor:
        bits = np.concatenate([bits[:, :1], bits[:, 1:] ^ bits[:, :-1]], axis=1)
    if token_major:
        bits = bits.transpose(_TOKEN_MAJOR)
    return np.packbits(bits, bitorder="little").tobytes()  # flattens in C order


def _unpack(packed: bytes, shape: tuple[int, int, int, int], token_major: bool, xor: bool) -> NDArray[np.bool_]:
    flat = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").view(np.bool_)
    count = math.prod(shape)
    if flat[count:].any():
        raise BitstreamError("a payload's padding bits are not zero")
    k, t, h, w = shape
    bits = flat[:count].reshape((t, h, w, k) if token_major else shape)
    if token_major:
        bits = bits.transpose(_PLANE_MAJOR)
    return np.ascontiguousarray(np.logical_xor.accumulate(bits, axis=1) if xor else bits)


def encode_bits(bits: NDArray[np.bool_], level: int = 19) -> tuple[int, bytes]:
    """Code the bits of a chunk in as few bytes as the layouts allow.

    Args:
        bits: bool `[K, t, h, w]`, no axis empty.
        level: zstd level, 1 (fast) to 22 (small).

    Returns:
        Coder id and payload, at most `packed_bytes(bits.shape)` bytes. The same bits, level and zstd version
        give the same bytes; every version decodes them.

    Raises:
        ValueError: `bits` is not a four-dimensional, non-empty bool array.
    """
    if bits.dtype != np.bool_ or bits.ndim != 4 or bits.size == 0:
        raise ValueError(f"bits must be a non-empty bool [K, t, h, w], not {bits.dtype} {bits.shape}")
    packed = {coder: _pack(bits, *layout) for coder, layout in ZSTD_LAYOUTS.items()}
    quick = zstandard.ZstdCompressor(level=PROBE_LEVEL)
    coder = min(packed, key=lambda coder: len(quick.compress(packed[coder])))
    # The compressor declares the content size and adds neither checksum nor dictionary.
    payload = zstandard.ZstdCompressor(level=level).compress(packed[coder])[len(zstandard.FRAME_HEADER) :]
    stored = _pack(bits, token_major=False, xor=False)
    return (coder, payload) if len(payload) < len(stored) else (STORED, stored)


def decode_bits(coder: int, payload: bytes, shape: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The inverse of `encode_bits`, for payloads of any origin.

    Args:
        coder: coder id.
        payload: coded bytes.
        shape: `(K, t, h, w)` of the bits, no axis empty; the memory needed follows from it alone.

    Returns:
        bool `[K, t, h, w]`, contiguous.

    Raises:
        BitstreamError: the coder is unknown, or the payload is not exactly what codes this many bits.
    """
    size = packed_bytes(shape)
    if coder == STORED:
        if len(payload) != size:
            raise BitstreamError(f"a stored payload has {len(payload)} bytes where {size} are due")
        return _unpack(payload, shape, token_major=False, xor=False)
    if coder not in ZSTD_LAYOUTS:
        raise BitstreamError(f"payload coder {coder} is not known to this version")
    frame = zstandard.FRAME_HEADER + payload  # every frame starts with these four bytes, so the stream leaves them out
    try:
        # zstd allocates what the frame declares, whatever limit it is given: look before.
        declared = zstandard.frame_content_size(frame)
        if declared != size:
            raise BitstreamError(f"a zstd payload declares {declared} bytes where {size} are due")
        packed = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BitstreamError(f"a zstd payload is damaged: {error}") from error
    return _unpack(packed, shape, *ZSTD_LAYOUTS[coder])
