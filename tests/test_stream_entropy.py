"""The coder of tokens: what is decoded is what was coded, and any bytes are decoded or refused."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard

from tokcodec.errors import BitstreamError, ModelError
from tokcodec.stream import entropy, rangecoder, trees
from tokcodec.stream.entropy import (
    MIXED,
    PLAIN,
    STEP_NUMBERS,
    ZSTD,
    ChunkEncoder,
    FrameTokens,
    Guesses,
    Tables,
    Tokens,
    decode_chunk,
    decode_frames,
    encode_chunk,
    frame_step,
    gathered,
    role_of,
    shapes,
    train_tables,
)
from tokcodec.stream.fields import BOTH, FIRST, candidates
from tokcodec.stream.pyramid import SPANS, order, uniform

BLOCKS = (24, 12)
MODES = slice(BLOCKS[0], BLOCKS[0] + 19)  # in the first frame
TABLES = Tables.of({}, BLOCKS)
SIZES = [(1, 16, 16), (1, 50, 37), (2, 20, 18), (5, 64, 64), (10, 100, 130), (8, 17, 200)]
STEP = 40


def random_levels(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Levels int16, sparse, with variances that fall with the dimension and differ between places."""
    levels = np.zeros(shape, np.int16)
    for size, frames in ((BLOCKS[0], slice(0, 1)), (BLOCKS[1], slice(1, None))):
        block = levels[:size, frames]
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


def random_motion(rng: np.random.Generator, shape: tuple[int, ...], spans: list[int]) -> np.ndarray:
    """Motion int16 of random quad-trees, candidates and vectors."""
    motion = np.zeros(shape, np.int16)
    motion[:, 2] = -1
    out = np.empty((6, 3), np.int16)

    def block(field: np.ndarray, near: np.ndarray, far: np.ndarray, i: int, j: int, size: int) -> None:
        rows, columns = field.shape[1:]
        if i >= rows or j >= columns:
            return
        if size > 1 and (i + size > rows or j + size > columns or rng.random() < 0.4):
            for k in range(4):
                block(field, near, far, i + k // 2 * size // 2, j + k % 2 * size // 2, size // 2)
            return
        count = candidates(field[:2], field[2], i, j, size, near, far, out)
        merge = int(rng.integers(-1, count))
        motions = [*out[:count], np.array([*rng.integers(-1023, 1024, 2), rng.integers(3)])]
        numbers = [*motions[merge], 3 - size.bit_length() + 1, merge]
        field[:, i : i + size, j : j + size] = np.array(numbers)[:, None, None]

    guesses = Guesses(*shape[2:])
    for place in order(spans):
        field = motion[place.frame - 1]
        for i in range(0, shape[2], 8):
            for j in range(0, shape[3], 8):
                block(field, *guesses.of(place), i, j, 8)
        guesses.add(place, field)
    return motion


def still(spans: list[int], frames: int, height: int, width: int) -> Tokens:
    """Tokens of nothing: no levels, and motion that is taken over from no motion. Sides are multiples of 64."""
    of_levels, of_motion = shapes(frames, height, width, TABLES.dims)
    tokens = Tokens(
        np.zeros(of_levels, np.int16), np.zeros(of_motion, np.int16), np.array(spans, np.uint8),
        np.full(frames, PLAIN, np.uint8),
    )  # fmt: skip
    for place in order(spans):
        tokens.motion[place.frame - 1, 2] = BOTH if place.depth else FIRST
    return tokens


def random_spans(rng: np.random.Generator, frames: int) -> list[int]:
    spans: list[int] = []
    while left := frames - 1 - sum(spans):
        spans.append(int(rng.choice([span for span in SPANS if span <= left])))
    return spans


def random_tokens(
    seed: int, frames: int, height: int, width: int, scale: float = 2, spans: list[int] | None = None
) -> Tokens:
    rng = np.random.default_rng(seed)
    of_levels, of_motion = shapes(frames, height, width, TABLES.dims)
    levels = random_levels(rng, of_levels, scale)
    spans = random_spans(rng, frames) if spans is None else spans
    numbers = rng.integers(0, STEP_NUMBERS, frames).astype(np.uint8)
    return Tokens(levels, random_motion(rng, of_motion, spans), np.array(spans, np.uint8), numbers)


def assert_same(a: Tokens, b: Tokens) -> None:
    for one, other in zip(a, b, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert [array.dtype for array in a] == [np.int16, np.int16, np.uint8, np.uint8]


def assert_comes_back(tokens: Tokens, frames: int, height: int, width: int, tables: Tables = TABLES) -> int:
    """Code and decode; returns the number of bytes."""
    coder, motion, levels = encode_chunk(tokens, STEP, tables)
    assert_same(decode_chunk(coder, motion, levels, frames, height, width, STEP, tables), tokens)
    return len(motion) + len(levels)


def payloads(coder: int, tokens: Tokens) -> dict[str, bytes]:
    """The payloads of a coder, whichever is smaller."""
    encoder = ChunkEncoder(TABLES, STEP, *tokens.levels.shape[1:])
    for frame in tokens.in_order():
        encoder.add(frame)
    if coder == MIXED:
        parts = rangecoder.finish(encoder._walk.motion), rangecoder.finish(encoder._walk.levels)
    else:
        encoder._is_mixed = False
        _, *parts = encoder.finish()
    return dict(zip(("motion", "levels"), parts, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.3, 3, 300, 20000])
def test_tokens_come_back(size: tuple[int, int, int], scale: float) -> None:
    assert_comes_back(random_tokens(1, *size, scale), *size)


@pytest.mark.parametrize("coder", [ZSTD, MIXED])
@pytest.mark.parametrize("spans", [[32, 32], [1, 2, 4, 8, 16, 32], [32, 16, 8, 4, 2, 1], [1] * 5])
def test_spans_of_every_length_come_back(spans: list[int], coder: int) -> None:
    size = 1 + sum(spans), 40, 24
    tokens = random_tokens(7, *size, spans=spans)
    assert_same(decode_chunk(coder, *payloads(coder, tokens).values(), *size, STEP, TABLES), tokens)


def test_frames_come_in_the_order_of_coding() -> None:
    size, spans = (8, 40, 24), [4, 2, 1]
    tokens = random_tokens(8, *size, spans=spans)
    frames = list(decode_frames(*encode_chunk(tokens, STEP, TABLES), *size, STEP, TABLES))
    assert [frame.place for frame in frames] == [None, *order(spans)]
    assert frames[0].motion is None
    for frame, own in zip(frames, tokens.in_order(), strict=True):
        i = frame.place.frame if frame.place else 0
        np.testing.assert_array_equal(frame.levels, tokens.levels[:, i])
        np.testing.assert_array_equal(own.levels, tokens.levels[:, i])
        assert frame.number == own.number == tokens.numbers[i]
        if frame.motion is not None:
            np.testing.assert_array_equal(frame.motion, tokens.motion[i - 1])
    assert_same(gathered(frames, 8), tokens)


def coders(payload: bytes | None = None) -> rangecoder.Coder:
    """An encoder of motion, or a decoder."""
    start = TABLES.start("motion")
    return rangecoder.encoder(*start, 1 << 20) if payload is None else rangecoder.decoder(*start, payload)


@pytest.mark.parametrize("role", range(5))
def test_every_step_number_comes_back_from_every_guess(role: int) -> None:
    pairs = list(itertools.product(range(STEP_NUMBERS), repeat=2))
    coder = coders()
    for guess, number in pairs:
        assert trees.code_step(coder, number, guess, STEP_NUMBERS - 1, role) == number
    coder = coders(rangecoder.finish(coder))
    for guess, number in pairs:
        assert trees.code_step(coder, 0, guess, STEP_NUMBERS - 1, role) == number
    assert rangecoder.is_finished(coder)


def test_every_span_comes_back_after_every_other() -> None:
    cases = [(n, before, most) for before in range(7) for most in range(6) for n in range(most + 1)]
    coder = coders()
    for n, before, most in cases:
        assert trees.code_span(coder, n, before, most) == n
    coder = coders(rangecoder.finish(coder))
    for n, before, most in cases:
        assert trees.code_span(coder, 0, before, most) == n
    assert rangecoder.is_finished(coder)


def test_a_step_number_is_guessed_from_the_last_frame_of_its_role() -> None:
    """Frames whose numbers are guessed cost less than frames whose numbers go back and forth."""
    roles = [role_of(place) for place in (None, *order([8]))]
    assert roles == [4, 0, 3, 2, 1, 1, 2, 1, 1]  # of distance 8, 4, 2, 1, 1, 2, 1, 1
    tokens, sizes = still([8] * 8, 65, 64, 64), []
    for numbers in ([PLAIN] * 4 + [11], [20, 26, 30, 34, 5]):
        for place in (None, *order(tokens.spans)):
            tokens.numbers[place.frame if place else 0] = numbers[role_of(place)]
        sizes.append(len(payloads(MIXED, tokens)["motion"]))
    tokens.numbers[1:] = np.random.default_rng(0).permutation(tokens.numbers[1:])
    sizes.append(len(payloads(MIXED, tokens)["motion"]))
    assert sizes[0] < sizes[1] < sizes[0] + 10  # told once for each role
    assert sizes[2] > sizes[1] + 20


def test_steps_of_frames() -> None:
    assert [frame_step(160, number) for number in (0, 8, 16, 20, 24, 28, 32, 40, 48)] == [
        20, 40, 80, 113, 160, 226, 320, 640, 1280,
    ]  # fmt: skip
    assert [frame_step(160, number) for number in (11, 23, 25)] == [52, 147, 174]
    assert frame_step(16, 11) == 5
    assert frame_step(1, 0) == frame_step(4, 0) == 1
    assert frame_step(65535, 48) == 524280


def golden_tokens() -> Tokens:
    """6 frames of 20 x 16 pixels, written by hand: an escape, signs of all kinds, merged and explicit motion."""
    levels = np.zeros((43, 6, 1, 2), np.int16)
    levels[MODES, 0, 0, 0] = [7, 7, 0, 1, 7, 7, 26, 26, 10, 10, 34, 34, 10, 10, 34, 34, 3, 4, 2]
    levels[MODES, 0, 0, 1] = [1] * 16 + [0, 0, 2]
    levels[[0, 1, 2, 9, 23], 0, 0, 0] = [-70, 3, -1, 1, 1]
    levels[0, 0, 0, 1] = -66
    levels[[0, 11], 4, 0, 1] = [2, -1]
    levels[[0, 3], 2, 0, 1] = [1, 1]
    levels[11, 3, 0, 0] = -32768
    levels[[0, 11], 5, 0, 1] = [3, -1]
    motion = np.zeros((5, 5, 2, 4), np.int16)
    motion[3] = np.array([5, -300, 0, 2, -1])[:, None, None]  # the anchor of four
    motion[3, :, :, 2:] = np.array([5, -300, 0, 2, 0])[:, None, None]
    motion[1] = np.array([3, -150, 2, 2, 0])[:, None, None]  # halfway: as the anchor
    motion[0] = np.array([1023, -1023, 1, 2, -1])[:, None, None]
    motion[0, :, :, 2:] = np.array([2, -75, 2, 2, 1])[:, None, None]  # as the frame halfway
    motion[2] = np.array([0, 0, 0, 2, 2])[:, None, None]
    motion[2, 4, :, 2:] = 0
    motion[4] = np.array([1, -75, 0, 2, 0])[:, None, None]  # the anchor of one
    return Tokens(levels, motion, np.array([4, 1], np.uint8), np.array([11, 29, 26, 48, 22, 22], np.uint8))


def test_golden_bytes() -> None:
    coder, motion, levels = encode_chunk(golden_tokens(), STEP, TABLES)
    assert (coder, motion.hex(" "), levels.hex(" ")) == (
        1,
        "8b 48 41 99 21 c5 49 7a d4 ed 37 80 2d 2c",
        "54 51 cf 05 44 a8 47 66 b7 ac 79 a9 41 f8 5a 9b 3a ff 0e 63 c6 58 ee e8 87 f9 84 cf c2 8c 90",
    )
    assert_same(decode_chunk(coder, motion, levels, 6, 16, 20, STEP, TABLES), golden_tokens())


def test_nothing_costs_next_to_nothing() -> None:
    for longest in (1, 32):
        assert assert_comes_back(still(uniform(129, longest), 129, 256, 256), 129, 256, 256) < 160


@pytest.mark.parametrize("values", [(-32768, 32767), (32767, 32767), (-32768, -32768), (14, 15), (-16, 16)])
def test_extreme_levels_come_back(values: tuple[int, int]) -> None:
    tokens = random_tokens(2, 6, 40, 40)
    tokens.levels[:, 0] = np.resize(values, tokens.levels[:, 0].shape)
    tokens.levels[BLOCKS[0] :, 0] = 0  # planar, in one square
    tokens.levels[: BLOCKS[1], 1:] = np.resize(values, tokens.levels[: BLOCKS[1], 1:].shape)
    for coder in (ZSTD, MIXED):
        assert_same(decode_chunk(coder, *payloads(coder, tokens).values(), 6, 40, 40, STEP, TABLES), tokens)


@pytest.mark.parametrize("spans", [[], [4], [2, 1, 1]])
def test_noise_falls_back_to_zstd(spans: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 + sum(spans), 64, 64
    tokens = still(spans, *size)
    rng = np.random.default_rng(3)
    tokens.levels[: BLOCKS[0], 0] = rng.integers(-32768, 32768, tokens.levels[: BLOCKS[0], 0].shape)
    tokens.levels[: BLOCKS[1], 1:] = rng.integers(-32768, 32768, tokens.levels[: BLOCKS[1], 1:].shape)
    assert encode_chunk(tokens, STEP, TABLES)[0] == ZSTD
    assert_comes_back(tokens, *size)
    assert_same(decode_chunk(MIXED, *payloads(MIXED, tokens).values(), *size, STEP, TABLES), tokens)
    monkeypatch.setattr(entropy, "with_room", lambda coder, count: rangecoder.with_room(coder, 500))
    assert encode_chunk(tokens, STEP, TABLES)[0] == ZSTD  # the buffer is full before all is coded
    assert_comes_back(tokens, *size)


def damaged(good: bytes) -> Iterator[bytes]:
    """Payloads that are cut off, continued, changed in a bit, or noise."""
    rng = np.random.default_rng(5)
    yield from (good[:n] for n in rng.integers(0, len(good), 40))
    yield from (good + tail for tail in (b"\0", b"\1", b"\0\0\0\0\0", good))
    yield from (rng.bytes(n) for n in (0, 1, 10, 100, 10000))
    for bit in rng.integers(0, 8 * len(good), 60):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


@pytest.mark.parametrize("part", ["motion", "levels"])
def test_a_damaged_payload_is_refused_or_codes_other_tokens(part: str) -> None:
    size = (9, 40, 70)
    good = payloads(MIXED, random_tokens(4, *size))
    refused = 0
    for payload in damaged(good[part]):
        try:
            other = decode_chunk(MIXED, *(good | {part: payload}).values(), *size, STEP, TABLES)
        except BitstreamError:
            refused += 1
        else:
            assert payloads(MIXED, other) == good | {part: payload}
    assert refused > 95


def test_a_damaged_zstd_payload_is_refused_or_codes_other_tokens() -> None:
    size = (9, 40, 70)
    tokens = random_tokens(4, *size)
    good = payloads(ZSTD, tokens)
    for part in good:
        refused = 0
        for number, payload in enumerate(damaged(good[part])):
            try:
                other = decode_chunk(ZSTD, *(good | {part: payload}).values(), *size, STEP, TABLES)
            except BitstreamError:
                refused += 1
                continue
            assert number >= 49, "what is cut off, continued or noise"
            assert other.levels.shape == tokens.levels.shape
            assert (abs(other.motion[:, :2]) <= 1023).all()
            kinds = other.motion[:, 2:]
            assert ((kinds >= [[[0]], [[0]], [[-1]]]) & (kinds <= [[[2]], [[3]], [[5]]])).all()
            assert (other.numbers < STEP_NUMBERS).all()
        assert refused > 49


def test_a_zstd_payload_of_wrong_spans_and_numbers_is_refused() -> None:
    tokens = random_tokens(4, 4, 16, 16, spans=[2, 1])
    good = payloads(ZSTD, tokens)
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(good["motion"])
    field = 2 * 5 * 2 * 2
    assert (plain[0], plain[1], len(plain)) == (tokens.numbers[0], 2, 4 + 2 + 3 * field)
    for at, value, message in ((0, 49, "number"), (1, 3, "span of 3"), (1, 4, "span of 4"), (1, 0, "span of 0")):
        bad = bytearray(plain)
        bad[at] = value
        motion = zstandard.ZstdCompressor().compress(bytes(bad))
        with pytest.raises(BitstreamError, match=message):
            decode_chunk(ZSTD, motion, good["levels"], 4, 16, 16, STEP, TABLES)


def test_a_payload_is_read_as_far_as_frames_are_asked_for() -> None:
    """What was cut off is missed where it is due, not before."""
    size = (17, 40, 70)
    tokens = random_tokens(9, *size)
    good, whole, counts = payloads(MIXED, tokens), list(tokens.in_order()), []
    for share in (0.1, 0.7, 0.9):
        cut = good | {"levels": good["levels"][: int(share * len(good["levels"]))]}
        seen: list[FrameTokens] = []
        with pytest.raises(BitstreamError, match="a levels payload is damaged"):
            seen.extend(decode_frames(MIXED, *cut.values(), *size, STEP, TABLES))
        for frame, own in zip(seen[:-1], whole, strict=False):
            np.testing.assert_array_equal(frame.levels, own.levels)
        counts.append(len(seen))
    assert 0 == counts[0] < counts[1] < counts[2] < 17


def test_a_zstd_payload_is_read_as_far_as_frames_are_asked_for() -> None:
    size = (3, 640, 640)
    tokens = random_tokens(9, *size, scale=20000, spans=[2])
    good = payloads(ZSTD, tokens)
    cut = good | {"levels": good["levels"][:-100]}
    frames = decode_frames(ZSTD, *cut.values(), *size, STEP, TABLES)
    np.testing.assert_array_equal(next(frames).levels, tokens.levels[:, 0])
    np.testing.assert_array_equal(next(frames).levels, tokens.levels[:, 2])
    with pytest.raises(BitstreamError, match="zstd payload"):
        list(frames)


def test_an_unknown_coder_is_refused() -> None:
    with pytest.raises(BitstreamError, match="coder 2"):
        decode_chunk(2, b"", b"", 1, 16, 16, STEP, TABLES)


def test_malformed_tokens_are_the_callers_mistake() -> None:
    levels, motion, spans, numbers = good = random_tokens(6, 5, 32, 32, spans=[2, 1, 1])
    outside = levels.copy()
    outside[BLOCKS[1], 1] = 1
    no_mode, mixed, no_part = levels.copy(), levels.copy(), levels.copy()
    no_mode[BLOCKS[0] : MODES.stop - 2, 0] = 35
    mixed[MODES.stop - 2, 0], mixed[BLOCKS[0], 0], mixed[BLOCKS[0] + 1, 0] = 1, 2, 3
    no_part[MODES.stop - 2, 0] = 17
    torn = motion.copy()
    torn[1, 0, 1, 1] += 1
    far = motion.copy()
    far[0, 0], far[0, 2:] = 1024, np.array([0, 2, -1])[:, None, None]
    wild = numbers.copy()
    wild[3] = STEP_NUMBERS
    for bad in (
        good._replace(levels=levels[:-1]),
        good._replace(levels=levels[:, :-1]),
        good._replace(levels=levels[:, 0]),
        good._replace(motion=motion[:-1]),
        good._replace(motion=motion[:, :, :-1]),
        good._replace(levels=levels.astype(np.int32)),
        good._replace(levels=outside),
        good._replace(levels=no_mode),
        good._replace(levels=mixed),
        good._replace(levels=no_part),
        good._replace(motion=torn),
        good._replace(motion=far),
        good._replace(spans=spans[:-1]),
        good._replace(spans=np.array([3, 1], np.uint8)),
        good._replace(spans=np.array([4, 0], np.uint8)),
        good._replace(numbers=numbers[:-1]),
        good._replace(numbers=wild),
    ):
        with pytest.raises(ValueError, match=r"levels|motion|modes|spans|number"):
            encode_chunk(bad, STEP, TABLES)


def test_trained_tables_make_chunks_smaller() -> None:
    size = (10, 64, 96)
    arrays = train_tables([(random_tokens(seed, *size), STEP) for seed in range(10, 14)], BLOCKS)
    tokens = random_tokens(15, *size)
    assert assert_comes_back(tokens, *size, Tables.of(arrays, BLOCKS)) < 0.97 * assert_comes_back(tokens, *size)


def test_tables_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match=r"coder\.levels\.weights"):
        Tables.of({"coder.levels.weights": np.zeros((3, 3), np.int32)}, BLOCKS)
    with pytest.raises(ModelError, match="2049"):
        Tables.of({}, (1, 2049))


def test_looking_at_a_stream_does_not_import_the_compiler() -> None:
    code = "import sys, tokcodec.stream.container; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
