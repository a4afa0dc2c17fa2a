"""entropy.py: bits come back as they were; payloads that lie are refused before they cost memory."""

from __future__ import annotations

import contextlib

import hypothesis.strategies as st
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings

from tokcodec.entropy import STORED, ZSTD_LAYOUTS, decode_bits, encode_bits, packed_bytes
from tokcodec.errors import BitstreamError

SHAPE = (3, 2, 5, 7)  # 210 bits, so 6 bits of padding
MAGIC = zstandard.FRAME_HEADER
shapes = st.tuples(st.integers(1, 64), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def random_bits(shape: tuple[int, ...], seed: int = 0, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def frame(size: int, fill: bytes = b"\0", **options: object) -> bytes:
    """A payload: the zstd frame of that many bytes, without its magic."""
    return zstandard.ZstdCompressor(**options).compress(fill * size)[len(MAGIC) :]


@given(shapes, st.integers(0, 99), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.sampled_from([1, 19]))
def test_round_trip(shape: tuple[int, int, int, int], seed: int, share: float, level: int) -> None:
    bits = random_bits(shape, seed, share)
    coder, payload = encode_bits(bits, level)
    assert len(payload) <= packed_bytes(shape)
    decoded = decode_bits(coder, payload, shape)
    assert decoded.dtype == np.bool_
    assert np.array_equal(decoded, bits)


def test_random_bits_are_stored_packed_little_endian() -> None:
    bits = random_bits(SHAPE)
    coder, payload = encode_bits(bits)
    assert coder == STORED
    number = sum(int(bit) << i for i, bit in enumerate(bits.ravel()))
    assert payload == number.to_bytes(27, "little")


@pytest.mark.parametrize("coder", ZSTD_LAYOUTS)
def test_each_layout_wins_where_the_redundancy_is_its_own(coder: int) -> None:
    token_major, xor = ZSTD_LAYOUTS[coder]
    k, t, h, w = 16, 4, 16, 16
    rng = np.random.default_rng(1)
    if token_major:  # tokens are of a few kinds, planes are noise
        kinds = rng.random((4, k)) < 0.5
        bits = kinds[rng.integers(0, 4, (t, h, w))].transpose(3, 0, 1, 2)
    else:  # half of the planes are nearly constant, the others noise
        bits = rng.random((k, t, h, w)) < np.repeat([0.05, 0.5], k // 2)[:, None, None, None]
    if xor:  # the same, as the difference between frames
        first = rng.random((k, 1, h, w)) < 0.5
        bits = np.logical_xor.accumulate(np.concatenate([first, bits[:, 1:]], axis=1), axis=1)
    chosen, payload = encode_bits(np.ascontiguousarray(bits))
    assert chosen == coder
    assert np.array_equal(decode_bits(chosen, payload, bits.shape), bits)


@pytest.mark.parametrize(("coder", "packed"), [(1, "cd01"), (2, "5350"), (3, "1d11"), (4, "5303")])
def test_layouts_by_hand(coder: int, packed: str) -> None:
    planes = [["1011", "0011"], ["1000", "0000"]]  # [k][t], the positions as digits
    bits = np.array([[[*map(int, frame)] for frame in plane] for plane in planes], np.bool_).reshape(2, 2, 2, 2)
    payload = zstandard.compress(bytes.fromhex(packed))[len(MAGIC) :]
    assert np.array_equal(decode_bits(coder, payload, (2, 2, 2, 2)), bits)


def test_bomb_is_refused_by_its_declared_size() -> None:
    with pytest.raises(BitstreamError, match="declares 1073741824 bytes where 27"):
        # frame header of one segment with an 8-byte content size of 1 GiB, then an RLE block
        decode_bits(1, bytes.fromhex("e0 0000004000000000 030000 00"), SHAPE)


@pytest.mark.parametrize("held", [26, 28, 200])
def test_frame_that_lies_about_its_size(held: int) -> None:
    payload = frame(held)
    assert payload[:2] == bytes([0x20, held])  # descriptor and content size
    with pytest.raises(BitstreamError, match="damaged"):
        decode_bits(1, bytes([0x20, 27]) + payload[2:], SHAPE)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        frame(26),
        frame(28),
        frame(27, write_content_size=False),
        frame(27, b"\xff"),  # padding bits set
        frame(27) + b"\0",
        frame(27) + MAGIC + frame(27),
        frame(27)[:-1],
        MAGIC + frame(27),
    ],
)
def test_broken_zstd_payloads(payload: bytes) -> None:
    with pytest.raises(BitstreamError):
        decode_bits(1, payload, SHAPE)


@pytest.mark.parametrize("payload", [b"", bytes(26), bytes(28), bytes(26) + b"\x80"])
def test_broken_stored_payloads(payload: bytes) -> None:
    with pytest.raises(BitstreamError):
        decode_bits(STORED, payload, SHAPE)


def test_unknown_coder_says_so() -> None:
    with pytest.raises(BitstreamError, match="coder 5 is not known"):
        decode_bits(5, bytes(27), SHAPE)


@settings(max_examples=300)
@given(st.integers(0, 255), st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(coder: int, payload: bytes) -> None:
    try:
        bits = decode_bits(coder, payload, SHAPE)
    except BitstreamError:
        return
    assert bits.shape == SHAPE


@settings(max_examples=300)
@given(st.sampled_from(sorted(ZSTD_LAYOUTS)), st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_decodes_or_is_refused(coder: int, place: int, flip: int) -> None:
    shape = (8, 3, 8, 8)
    packed = np.packbits(random_bits(shape, share=0.1))
    payload = bytearray(zstandard.ZstdCompressor(level=19).compress(packed.tobytes())[len(MAGIC) :])
    payload[place % len(payload)] ^= flip
    with contextlib.suppress(BitstreamError):
        assert decode_bits(coder, bytes(payload), shape).shape == shape


@pytest.mark.parametrize("bits", [np.zeros((1, 1, 1), bool), np.zeros((0, 1, 1, 1), bool), np.zeros((1, 1, 1, 1))])
def test_wrong_arrays_are_the_callers_mistake(bits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="bits must be"):
        encode_bits(bits)
