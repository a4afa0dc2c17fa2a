"""The coder of tokens: what is decoded is what was coded, and any bytes are decoded or refused."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tokcodec.errors import BitstreamError, ModelError
from tokcodec.stream import entropy
from tokcodec.stream.entropy import Tables, Tokens, decode_chunk, encode_chunk, shapes, train_tables
from tokcodec.stream.fields import candidates

BLOCKS = (24, 12, 20)
MODES = slice(BLOCKS[0], BLOCKS[0] + 19)  # in the first group
TABLES = Tables.of({}, BLOCKS)
SIZES = [(1, 16, 16), (1, 50, 37), (2, 20, 18), (5, 64, 64), (9, 100, 130), (7, 17, 200)]
STEP = 40


def random_levels(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Levels int16, sparse, with variances that fall with the dimension and differ between places."""
    levels = np.zeros(shape, np.int16)
    for first, size, groups in (
        (0, BLOCKS[0], slice(0, 1)),
        (0, BLOCKS[1], slice(1, None)),
        (BLOCKS[1], BLOCKS[2], slice(1, None)),
    ):
        block = levels[first : first + size, groups]
        activity = rng.exponential(size=block.shape[1:])
        block[:] = rng.laplace(size=block.shape) * scale * activity / np.arange(1, size + 1)[:, None, None, None]
    levels[MODES, 0] = random_modes(rng, *shape[2:])
    return levels


def random_modes(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Modes int16 `[19, h, w]` of random squares."""
    modes = np.empty((19, h, w), np.int16)
    modes[16], modes[17] = rng.integers(0, 17, (h, w)), rng.integers(0, 5, (h, w))
    for i in range(h):
        for j in range(w):
            cells = rng.integers(0, 35, (4, 4))
            partition = modes[16, i, j]
            for s in range(4):
                y, x = 2 * (s // 2), 2 * (s % 2)
                if not (partition - 1) >> s & 1:
                    cells[y : y + 2, x : x + 2] = cells[y, x]
            modes[:16, i, j] = cells.ravel() if partition else cells[0, 0]
    modes[18] = rng.integers(0, 9, (-(-h // 2), -(-w // 2))).repeat(2, 0).repeat(2, 1)[:h, :w]
    return modes


def random_motion(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Motion int16 of random quad-trees, candidates and vectors."""
    motion = np.zeros(shape, np.int16)
    motion[:, 2] = -1
    out = np.empty((5, 3), np.int16)

    def block(f: int, i: int, j: int, size: int) -> None:
        field, temporal = motion[f], motion[f - f % 4 if f % 4 else f - 4]
        rows, columns = field.shape[1:]
        if i >= rows or j >= columns:
            return
        if size > 1 and (i + size > rows or j + size > columns or rng.random() < 0.4):
            for k in range(4):
                block(f, i + k // 2 * size // 2, j + k % 2 * size // 2, size // 2)
            return
        count = candidates(field[:2], field[2], i, j, size, temporal[:2], temporal[2], f > 0, out)
        merge = int(rng.integers(-1, count))
        motions = [*out[:count], np.array([*rng.integers(-1023, 1024, 2), rng.integers(3)])]
        numbers = [*motions[merge], 3 - size.bit_length() + 1, merge]
        field[:, i : i + size, j : j + size] = np.array(numbers)[:, None, None]

    for f in range(shape[0]):
        for i in range(0, shape[2], 8):
            for j in range(0, shape[3], 8):
                block(f, i, j, 8)
    return motion


def random_tokens(seed: int, frames: int, height: int, width: int, scale: float = 2) -> Tokens:
    rng = np.random.default_rng(seed)
    of_levels, of_motion = shapes(frames, height, width, TABLES.dims)
    return Tokens(random_levels(rng, of_levels, scale), random_motion(rng, of_motion))


def assert_same(a: Tokens, b: Tokens) -> None:
    for one, other in zip(a, b, strict=True):
        assert one.dtype == other.dtype == np.int16
        np.testing.assert_array_equal(one, other)


def assert_comes_back(tokens: Tokens, frames: int, height: int, width: int, tables: Tables = TABLES) -> int:
    """Code and decode; returns the number of bytes."""
    coder, motion, levels = encode_chunk(tokens, STEP, tables)
    assert_same(decode_chunk(coder, motion, levels, frames, height, width, STEP, tables), tokens)
    return len(motion) + len(levels)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.3, 3, 300, 20000])
def test_tokens_come_back(size: tuple[int, int, int], scale: float) -> None:
    assert_comes_back(random_tokens(1, *size, scale), *size)


def golden_tokens() -> Tokens:
    """5 frames of 20 x 16 pixels, written by hand: an escape, signs of all kinds, merged and explicit motion."""
    levels = np.zeros((43, 2, 1, 2), np.int16)
    levels[MODES, 0, 0, 0] = [7, 7, 0, 1, 7, 7, 26, 26, 10, 10, 34, 34, 10, 10, 34, 34, 3, 4, 2]
    levels[MODES, 0, 0, 1] = [1] * 16 + [0, 0, 2]
    levels[[0, 1, 2, 9, 23], 0, 0, 0] = [-70, 3, -1, 1, 1]
    levels[0, 0, 0, 1] = -66
    levels[[0, 11, 12, 31], 1, 0, 1] = [2, -1, 1, -32768]
    motion = np.zeros((4, 5, 2, 4), np.int16)
    motion[0] = np.array([5, -300, 0, 2, -1])[:, None, None]
    motion[0, :, :, 2:] = np.array([5, -300, 0, 2, 0])[:, None, None]
    motion[1] = np.array([0, 0, 2, 2, 2])[:, None, None]
    motion[1, 4, :, 2:] = 0
    motion[2] = np.array([1023, -1023, 1, 2, -1])[:, None, None]
    motion[3] = np.array([5, -300, 0, 2, 0])[:, None, None]
    return Tokens(levels, motion)


def test_golden_bytes() -> None:
    coder, motion, levels = encode_chunk(golden_tokens(), STEP, TABLES)
    assert (coder, motion.hex(" "), levels.hex(" ")) == (
        1,
        "f3 39 cd b6 31 80 f1 8f a1 8e 39",
        "54 51 cf 05 44 a8 47 66 b7 ac 79 a9 41 f8 5a 9b 3b 17 9b 00 15 ca d0 08 d8 02 d9 ad",
    )
    assert_same(decode_chunk(coder, motion, levels, 5, 16, 20, STEP, TABLES), golden_tokens())


def test_nothing_costs_next_to_nothing() -> None:
    of_levels, of_motion = shapes(129, 256, 256, TABLES.dims)
    motion = np.zeros(of_motion, np.int16)
    assert assert_comes_back(Tokens(np.zeros(of_levels, np.int16), motion), 129, 256, 256) < 100


@pytest.mark.parametrize("values", [(-32768, 32767), (32767, 32767), (-32768, -32768), (14, 15), (-16, 16)])
def test_extreme_levels_come_back(values: tuple[int, int]) -> None:
    tokens = random_tokens(2, 5, 40, 40)
    tokens.levels[:, 0] = np.resize(values, tokens.levels[:, 0].shape)
    tokens.levels[BLOCKS[0] :, 0] = 0  # planar, in one square
    tokens.levels[: sum(BLOCKS[1:]), 1:] = np.resize(values, tokens.levels[: sum(BLOCKS[1:]), 1:].shape)
    assert_comes_back(tokens, 5, 40, 40)
    assert_same(entropy_round_trip(tokens, 5, 40, 40), tokens)


def entropy_round_trip(tokens: Tokens, frames: int, height: int, width: int) -> Tokens:
    """As `assert_comes_back`, without the fall-back."""
    motion, levels = (entropy._encode(part, tokens, STEP, TABLES) for part in ("motion", "levels"))
    return decode_chunk(entropy.MIXED, motion, levels, frames, height, width, STEP, TABLES)


def test_noise_falls_back_to_zstd() -> None:
    rng = np.random.default_rng(3)
    levels = np.zeros(shapes(1, 64, 64, TABLES.dims)[0], np.int16)
    levels[: BLOCKS[0]] = rng.integers(-32768, 32768, levels[: BLOCKS[0]].shape)
    tokens = Tokens(levels, np.zeros((0, 5, 8, 8), np.int16))
    assert encode_chunk(tokens, STEP, TABLES)[0] == entropy.ZSTD
    assert_comes_back(tokens, 1, 64, 64)
    assert_same(entropy_round_trip(tokens, 1, 64, 64), tokens)


def damaged(good: bytes) -> Iterator[bytes]:
    """Payloads that are cut off, continued, changed in a bit, or noise."""
    rng = np.random.default_rng(5)
    yield from (good[:n] for n in rng.integers(0, len(good), 40))
    yield from (good + tail for tail in (b"\0", b"\1", b"\0\0\0\0\0"))
    yield from (rng.bytes(n) for n in (0, 1, 10, 100, 10000))
    for bit in rng.integers(0, 8 * len(good), 60):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


@pytest.mark.parametrize("part", ["motion", "levels"])
def test_a_damaged_payload_is_refused_or_codes_other_tokens(part: str) -> None:
    size = (9, 40, 70)
    tokens = random_tokens(4, *size)
    good = {name: entropy._encode(name, tokens, STEP, TABLES) for name in ("motion", "levels")}
    refused = 0
    for payload in damaged(good[part]):
        try:
            other = decode_chunk(entropy.MIXED, *(good | {part: payload}).values(), *size, STEP, TABLES)
        except BitstreamError:
            refused += 1
        else:
            assert entropy._encode(part, other, STEP, TABLES) == payload
    assert refused > 95


def test_a_damaged_zstd_payload_is_refused_or_codes_other_tokens() -> None:
    size = (9, 40, 70)
    tokens = random_tokens(4, *size)
    motion, levels = [entropy._plain(array) for array in tokens][::-1]
    for payload in damaged(levels):
        with contextlib.suppress(BitstreamError):
            other = decode_chunk(entropy.ZSTD, motion, payload, *size, STEP, TABLES)
            assert other.levels.shape == tokens.levels.shape
    for payload in damaged(motion):
        with contextlib.suppress(BitstreamError):
            other = decode_chunk(entropy.ZSTD, payload, levels, *size, STEP, TABLES)
            assert (abs(other.motion[:, :2]) <= 1023).all()
            assert (
                (other.motion[:, 2:] >= [[[0]], [[0]], [[-1]]]) & (other.motion[:, 2:] <= [[[2]], [[3]], [[4]]])
            ).all()


def test_an_unknown_coder_is_refused() -> None:
    with pytest.raises(BitstreamError, match="coder 2"):
        decode_chunk(2, b"", b"", 1, 16, 16, STEP, TABLES)


def test_malformed_tokens_are_the_callers_mistake() -> None:
    levels, motion = random_tokens(6, 5, 32, 32)
    outside = levels.copy()
    outside[sum(BLOCKS[1:]), 1] = 1
    no_mode, mixed, no_part = levels.copy(), levels.copy(), levels.copy()
    no_mode[BLOCKS[0] : MODES.stop - 2, 0] = 35
    mixed[MODES.stop - 2, 0], mixed[BLOCKS[0], 0], mixed[BLOCKS[0] + 1, 0] = 1, 2, 3
    no_part[MODES.stop - 2, 0] = 17
    torn = motion.copy()
    torn[1, 0, 1, 1] += 1
    far = motion.copy()
    far[0, 0], far[0, 2:] = 1024, np.array([0, 2, -1])[:, None, None]
    for bad in (
        (levels[:-1], motion),
        (levels, motion[:-1]),
        (levels.astype(np.int32), motion),
        (outside, motion),
        (no_mode, motion),
        (mixed, motion),
        (no_part, motion),
        (levels, torn),
        (levels, far),
    ):
        with pytest.raises(ValueError, match=r"levels|motion|modes"):
            encode_chunk(Tokens(*bad), STEP, TABLES)


def test_trained_tables_make_chunks_smaller() -> None:
    size = (9, 64, 96)
    arrays = train_tables([(random_tokens(seed, *size), STEP) for seed in range(10, 14)], BLOCKS)
    tokens = random_tokens(15, *size)
    assert assert_comes_back(tokens, *size, Tables.of(arrays, BLOCKS)) < 0.97 * assert_comes_back(tokens, *size)


def test_tables_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match=r"coder\.levels\.weights"):
        Tables.of({"coder.levels.weights": np.zeros((3, 3), np.int32)}, BLOCKS)
    with pytest.raises(ModelError, match="2049"):
        Tables.of({}, (1, 1, 2049))


def test_looking_at_a_stream_does_not_import_the_compiler() -> None:
    code = "import sys, tokcodec.stream.container; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
