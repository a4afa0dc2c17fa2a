"""Integers as payloads: exact there and back, and any bytes are decoded or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokcodec.errors import BitstreamError
from tokcodec.stream.entropy import MIXED, ZSTD
from tokcodec.stream.integers import ChunkEncoder, decode_chunk, encode_chunk, in_order, packed, unpacked
from tokcodec.stream.profile import Profile

STEP = 1022
MOTION = bytes.fromhex("46 fa a1 64 29 64 f0 e5 d9 2c 16 fc f0 9a 89 59 71 b0 da")
LOOKUP_FREE = bytes.fromhex("76 b0 72 b9 8c 85 fc fd 40")
SMALL = Profile(6, 2)


def random_ints(seed: int, profile: Profile, frames: int, h: int, w: int, share: float = 1.0) -> np.ndarray:
    """Any integers in range, of which a share is not 0."""
    rng = np.random.default_rng(seed)
    ints = rng.integers(0, 2 ** np.array(profile.widths), (frames, h, w, profile.streams))
    return (ints * (rng.random(ints.shape) < share)).astype(np.int32)


def moving_ints(profile: Profile, frames: int, h: int, w: int) -> np.ndarray:
    """Integers as video has them: motion like that of the neighbours, few lookup-free bits, more of them in front."""
    rng = np.random.default_rng(1)
    ints = np.zeros((frames, h, w, profile.streams), np.int32)
    ints[..., -1] = np.where(
        rng.random((frames, h, w)) < 0.8, 5 | 9 << 8 | 2 << 16, random_ints(2, profile, frames, h, w)[..., -1]
    )
    for n in range(profile.depth):
        ints[..., n] = 1 << rng.integers(0, profile.bits, (frames, h, w))
        ints[..., n] *= rng.random((frames, h, w)) < 0.3 / (1 + n)
    return ints


def golden_ints() -> np.ndarray:
    return moving_ints(SMALL, 6, 1, 2)


def test_golden_bytes() -> None:
    """A decoder of every later version reads these."""
    coder, motion, layers = encode_chunk(golden_ints(), STEP, SMALL)
    assert coder == MIXED
    assert motion.hex(" ") == MOTION.hex(" ")
    assert layers.hex(" ") == LOOKUP_FREE.hex(" ")


@given(st.integers(0, 2**32 - 1), st.integers(1, 15), st.integers(1, 16), st.integers(1, 11), st.floats(0, 1))
@example(0, 9, 8, 11, 1.0)
@example(0, 15, 16, 3, 1.0)
@example(0, 1, 1, 1, 0.0)
def test_any_integers_come_back(seed: int, half: int, depth: int, frames: int, share: float) -> None:
    profile = Profile(2 * half, depth)
    ints = random_ints(seed, profile, frames, 2, 3, share)
    coded = encode_chunk(ints, STEP, profile)
    assert np.array_equal(decode_chunk(*coded, frames, 2, 3, STEP, profile), ints)


@pytest.mark.parametrize("coder", [ZSTD, MIXED])
def test_both_coders_give_the_same_integers(coder: int) -> None:
    ints = moving_ints(Profile(), 9, 3, 5)
    payloads = payloads_of(coder, ints, Profile())
    assert np.array_equal(decode_chunk(coder, *payloads, 9, 3, 5, STEP, Profile()), ints)


def payloads_of(coder: int, ints: np.ndarray, profile: Profile) -> tuple[bytes, bytes]:
    """What a coder makes of integers, whether it is the smaller one or not."""
    encoder = ChunkEncoder(profile, STEP, *ints.shape[1:3])
    for frame in in_order(ints):
        encoder.add(frame)
    return encoder.payloads()[coder]


def test_the_smaller_coder_is_chosen() -> None:
    assert encode_chunk(moving_ints(Profile(), 9, 3, 5), STEP, Profile())[0] == MIXED
    noise = np.broadcast_to(random_ints(0, SMALL, 1, 8, 8), (33, 8, 8, 3)).copy()  # random, but for zstd all alike
    assert encode_chunk(noise, STEP, SMALL)[0] == ZSTD


@given(st.data(), st.sampled_from([ZSTD, MIXED]))
def test_damaged_payloads_are_decoded_or_refused(data: st.DataObject, coder: int) -> None:
    ints = moving_ints(SMALL, 6, 2, 2)
    parts = [bytearray(part) for part in payloads_of(coder, ints, SMALL)]
    part = data.draw(st.sampled_from(parts))
    for _ in range(data.draw(st.integers(1, 3))):
        if part:
            part[data.draw(st.integers(0, len(part) - 1))] = data.draw(st.integers(0, 255))
    del part[data.draw(st.integers(max(0, len(part) - 3), len(part))) :]
    part += data.draw(st.binary(max_size=2))
    try:
        found = decode_chunk(coder, bytes(parts[0]), bytes(parts[1]), 6, 2, 2, STEP, SMALL)
    except BitstreamError:
        return
    assert found.min() >= 0
    assert not (found >> np.array(SMALL.widths)).any()


@given(st.binary(max_size=40), st.binary(max_size=40), st.sampled_from([ZSTD, MIXED]))
def test_any_bytes_are_decoded_or_refused(motion: bytes, layers: bytes, coder: int) -> None:
    try:
        found = decode_chunk(coder, motion, layers, 5, 1, 2, STEP, SMALL)
    except BitstreamError:
        return
    assert found.min() >= 0
    assert not (found >> np.array(SMALL.widths)).any()


def test_an_unknown_coder_is_refused() -> None:
    with pytest.raises(BitstreamError, match="payload coder 2 is not known"):
        decode_chunk(2, b"", b"", 1, 1, 1, STEP, SMALL)


@pytest.mark.parametrize("part", [0, 1])
def test_a_payload_that_goes_on_is_refused(part: int) -> None:
    for coder in (ZSTD, MIXED):
        payloads = [*payloads_of(coder, golden_ints(), SMALL)]
        payloads[part] += b"x"
        with pytest.raises(BitstreamError):
            decode_chunk(coder, *payloads, 6, 1, 2, STEP, SMALL)


@pytest.mark.parametrize(("place", "value"), [((0, 0, 0, 0), 64), ((5, 0, 1, 1), -1), ((2, 0, 0, 2), 2**18)])
def test_integers_out_of_range_are_refused(place: tuple[int, ...], value: int) -> None:
    ints = golden_ints()
    ints[place] = value
    with pytest.raises(ValueError, match=r"not below 2\^6"):
        encode_chunk(ints, STEP, SMALL)


@pytest.mark.parametrize("bad", [golden_ints().astype(np.int64), golden_ints()[..., :2]])
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"not int32 \[t, 1, 2, 3\]"):
        encode_chunk(bad, STEP, SMALL)


def test_bits_stand_from_the_lowest_on() -> None:
    ints = np.array([[[1, 2], [5, 0]]], np.int32)  # planes: 1 5, then 2 0
    assert packed(ints, 3) == bytes([0b10_101_001, 0b0000])
    assert np.array_equal(unpacked(packed(ints, 3), 3, 1, 2, 2), ints)
