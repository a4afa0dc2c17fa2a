"""FORMAT.md is a decoder: the code on the page, run as it stands, decodes what the package codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_coding_loop
import test_stream_entropy as coder
import test_stream_integers as integers

from tokcodec.coding import intra
from tokcodec.coding.lfq import LfqLoop
from tokcodec.coding.loop import Loop
from tokcodec.coding.planes import Planes
from tokcodec.stream.entropy import MIXED, Tables, Tokens, encode_chunk
from tokcodec.stream.integers import in_order
from tokcodec.stream.profile import Profile

PAGE = (Path(__file__).parents[1] / "FORMAT.md").read_text()
MOTION = bytes.fromhex("8b 48 41 99 21 c5 49 7a d4 ed 37 80 2d 2c")  # the golden bytes of test_stream_entropy.py
LEVELS = bytes.fromhex("54 51 cf 05 44 a8 47 66 b7 ac 79 a9 41 f8 5a 9b 3a ff 0e 63 c6 58 ee e8 87 f9 84 cf c2 8c 90")
Page = dict[str, Any]


@pytest.fixture(scope="module")
def page() -> Page:
    """What the code on the page defines."""
    namespace: Page = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "FORMAT.md", "exec"), namespace)
    namespace["predict_intra"] = predict_intra
    return namespace


def predict_intra(
    plane: np.ndarray, decoded: np.ndarray, top: int, left: int, size: int, mode: int, is_luma: bool
) -> np.ndarray:
    """The one function that the page leaves to ITU-T H.265; test_coding_intra.py holds the package's to that."""
    sharp, smooth, out = np.zeros(65, np.int32), np.zeros(65, np.int32), np.zeros((16, 16), np.int32)
    cell = 4 if is_luma else 8
    done = np.ascontiguousarray(decoded[::cell, ::cell]).astype(np.uint8)
    intra.around(plane.astype(np.int32), done, cell, top, left, size, sharp)
    intra.smoothed(sharp, size, smooth)
    intra.predict(sharp, smooth, size, mode, is_luma, out)
    return out[:size, :size].astype(int)


def decoder_of(page: Page, payload: bytes, tables: Tables, part: str) -> Any:
    slots, weights = tables.start(part)
    return page["ArithmeticDecoder"](payload, slots.tolist(), weights.tolist())


def chunk_of(page: Page, payloads: tuple[bytes, bytes], tables: Tables, frames: int, h: int, w: int, step: int) -> Any:
    """What the page decodes of a chunk."""
    decoders = (
        decoder_of(page, *given) for given in zip(payloads, (tables, tables), ("motion", "levels"), strict=True)
    )
    return page["decode_chunk"](*decoders, frames, h, w, step, tables.blocks[1], tables.blocks[0])


def assert_decodes(page: Page, tokens: Tokens, payloads: tuple[bytes, bytes], tables: Tables, step: int) -> None:
    """The page finds these tokens in these payloads."""
    frames, h, w = tokens.levels.shape[1:]
    intra_size = tables.blocks[0]
    wanted = list(tokens.in_order())
    for frame, found in zip(wanted, chunk_of(page, payloads, tables, frames, h, w, step), strict=True):
        place, number, motion_or_modes, blocks = found
        assert number == frame.number
        levels = np.array([[block.levels for block in row] for row in blocks]).transpose(2, 0, 1)
        assert np.array_equal(levels, frame.levels[: len(levels)])
        if frame.place is None or frame.motion is None:
            assert place is None
            modes = [[[*m.cells, m.partition, m.chroma, m.step_number] for m in row] for row in motion_or_modes]
            assert np.array_equal(np.array(modes).transpose(2, 0, 1), frame.levels[intra_size : intra_size + 19])
        else:
            assert (tuple(place), place.distance, place.kind) == (
                tuple(frame.place),
                frame.place.distance,
                frame.place.kind,
            )
            assert np.array_equal(np.array(motion_or_modes).transpose(2, 0, 1), frame.motion)


def test_the_page_decodes_the_golden_bytes(page: Page) -> None:
    assert_decodes(page, coder.golden_tokens(), (MOTION, LEVELS), coder.TABLES, coder.STEP)


@pytest.mark.parametrize(
    ("size", "scale", "spans"),
    [((1, 70, 90), 3, []), ((6, 100, 130), 3, [4, 1]), ((14, 40, 24), 0.3, [1, 8, 4]), ((2, 33, 16), 20000, [1])],
)
def test_the_page_decodes_random_tokens(page: Page, size: tuple[int, int, int], scale: float, spans: list[int]) -> None:
    tokens = coder.random_tokens(3, *size, scale, spans)
    payloads = coder.payloads(MIXED, tokens)
    assert_decodes(page, tokens, (payloads["motion"], payloads["levels"]), coder.TABLES, coder.STEP)


def test_the_page_refuses_a_payload_that_goes_on(page: Page) -> None:
    longer = MOTION, LEVELS + b"x"
    with pytest.raises(ValueError, match="the payload is damaged"):
        list(chunk_of(page, longer, coder.TABLES, 6, 1, 2, coder.STEP))


def test_the_page_reconstructs_what_the_loop_does(page: Page) -> None:
    arrays = test_coding_loop.tables()
    arrays["klt"], arrays["klt.chroma"] = np.ascontiguousarray(arrays["klt"][:, :40]), np.float32([1.3])
    loop = Loop(arrays)
    tables = Tables.of({}, loop.blocks)
    frames = test_coding_loop.moving(6, 40, 52, speed=3)
    tokens = loop.encode(frames, 9.5, spans=[4, 1]).tokens
    kind, *payloads = encode_chunk(tokens, 152, tables)
    assert kind == MIXED
    chunk = chunk_of(page, (payloads[0], payloads[1]), tables, 6, 3, 4, 152)
    found = {n: made for n, *made in page["decode_frames"](chunk, 152, arrays["klt"], arrays["klt.chroma"].item())}
    for number, shown in enumerate(loop.decode(tokens.in_order(), 9.5)):
        for mine, wanted in zip(found[number], (shown.base, shown.prediction), strict=True):
            assert_planes(mine, wanted)


def test_the_page_reconstructs_any_tokens(page: Page) -> None:
    """Vectors that reach far out of the picture, all kinds of squares, and levels that overflow 8 bits."""
    arrays = test_coding_loop.tables()
    arrays["klt"] = np.ascontiguousarray(arrays["klt"][:, :40])
    loop, rng = Loop(arrays), np.random.default_rng(5)
    of_levels, of_motion = coder.shapes(4, 48, 64, loop.dimensions)
    levels = np.zeros(of_levels, np.int16)
    levels[:384, 0] = rng.laplace(size=(384, 3, 4)) * 20 / np.arange(1, 385)[:, None, None]
    levels[384:403, 0] = coder.random_modes(rng, 3, 4)
    levels[:40, 1:] = rng.laplace(size=(40, 3, 3, 4)) * 20 / np.arange(1, 41)[:, None, None, None]
    motion = coder.random_motion(rng, of_motion, [2, 1])
    tokens = Tokens(levels, motion, np.array([2, 1], np.uint8), np.array([20, 30, 24, 26], np.uint8))
    tables = Tables.of({}, loop.blocks)
    kind, *payloads = encode_chunk(tokens, 200, tables)
    assert kind == MIXED
    chunk = chunk_of(page, (payloads[0], payloads[1]), tables, 4, 3, 4, 200)
    found = {n: made for n, *made in page["decode_frames"](chunk, 200, arrays["klt"], 1)}
    for number, shown in enumerate(loop.decode(tokens.in_order(), 12.5)):
        for mine, wanted in zip(found[number], (shown.base, shown.prediction), strict=True):
            assert_planes(mine, wanted)


def assert_planes(mine: list[np.ndarray], wanted: Planes) -> None:
    for plane, other in zip(mine, (wanted.y[0], *wanted.c[0]), strict=True):
        assert np.array_equal(plane, other)


def test_the_table_of_contents_lists_every_chapter() -> None:
    text = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    anchors = [
        re.sub(r"[^\w -]", "", title).replace(" ", "-").lower()
        for title in re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    ]
    listed = re.findall(r"\(#([\w-]+)\)", text.split("## Notation")[0])
    assert listed == anchors


def integers_of(page: Page, payloads: tuple[bytes, bytes], profile: Profile, frames: int, h: int, w: int) -> Any:
    """What the page decodes of a chunk of the profile lfq."""
    decoders = (page["fresh_decoder"](payload, slots) for payload, slots in zip(payloads, (2**12, 2**16), strict=True))
    return page["decode_integers"](*decoders, *profile, frames, h, w, integers.STEP)


def assert_decodes_integers(page: Page, ints: np.ndarray, payloads: tuple[bytes, bytes], profile: Profile) -> None:
    for frame, found in zip(in_order(ints), integers_of(page, payloads, profile, *ints.shape[:3]), strict=True):
        place, motion, lookup_free = found
        assert (tuple(place) if place else None) == (tuple(frame.place) if frame.place else None)
        assert motion == frame.ints[..., -1].tolist()
        assert lookup_free == frame.ints[..., :-1].tolist()


def test_the_page_decodes_the_golden_integers(page: Page) -> None:
    payloads = integers.MOTION, integers.LOOKUP_FREE
    assert_decodes_integers(page, integers.golden_ints(), payloads, integers.SMALL)
    with pytest.raises(ValueError, match="the payload is damaged"):
        list(integers_of(page, (payloads[0], payloads[1] + b"x"), integers.SMALL, 6, 1, 2))


@pytest.mark.parametrize("profile", [Profile(18, 2), Profile(4, 9)])
def test_the_page_decodes_and_reconstructs_any_integers(page: Page, profile: Profile) -> None:
    arrays = test_coding_loop.tables()
    arrays["klt"], arrays["klt.chroma"] = np.ascontiguousarray(arrays["klt"][:, :14]), np.float32([1.3])
    ints = np.concatenate([integers.moving_ints(profile, 4, 3, 4), integers.random_ints(1, profile, 3, 3, 4, 0.7)])
    payloads = integers.payloads_of(MIXED, ints, profile)
    assert_decodes_integers(page, ints, payloads, profile)
    chunk = integers_of(page, payloads, profile, *ints.shape[:3])
    made = page["decode_frames_of_integers"](chunk, *profile, integers.STEP, arrays["klt"], arrays["klt.chroma"].item())
    found = {n: planes for n, *planes in made}
    loop = LfqLoop(Loop(arrays), profile)
    for number, shown in enumerate(loop.decode(in_order(ints), integers.STEP / 16)):
        assert_planes(found[number][0], shown.base)
        if number:
            assert_planes(found[number][1], shown.prediction)
