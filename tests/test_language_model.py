"""Tokens as a language: words and back, schedules and masks, and a model that learns a stream by heart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import loop_arrays, moving_frames

from tokcodec.coding.loop import Loop
from tokcodec.errors import ModelError
from tokcodec.language import sampler
from tokcodec.language.mask import draw_mask, hidden_counts, hidden_share, span_bits, speak_span
from tokcodec.language.model import (
    LanguageConfig,
    LanguageModel,
    Window,
    against,
    counting,
    load_model,
    references,
    resolved,
    save_model,
    values_of,
    window_of,
)
from tokcodec.language.words import (
    ABOVE,
    COPIES,
    DISTANCES,
    ESCAPE,
    FRAMES,
    LEFT,
    MERGES,
    MOTION,
    REACH,
    RIGHT,
    SPAN,
    STILL,
    STILL_BOTH,
    TEMPORAL,
    VALUES,
    Layout,
    Words,
    basis_sha256,
    quad_tree,
    whole_spans,
)
from tokcodec.stream.entropy import Guesses, Tables, Tokens, decode_chunk, encode_chunk
from tokcodec.stream.fields import BOTH, unknown
from tokcodec.stream.pyramid import order
from tokcodec.tokens.bits import bits_of, index_of, levels_of

BLOCKS = (384, 24)
NOTHING = np.zeros((0, 5, 6, 8), np.int16)  # motion before a chunk's first span
ZERO = torch.zeros(1, 3, 4, 2, 9, 10, dtype=torch.long)
SMALL = LanguageConfig(BLOCKS, "00", channels=16, layers=2, heads=2, head_channels=16)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    """Of a square that moves over a ramp: three spans of four frames of 3x4 positions."""
    return Loop(loop_arrays()).encode(np.stack(moving_frames(13)), 6.0, spans=[4, 4, 4]).tokens


def test_bits_are_the_thresholds_a_level_has_passed() -> None:
    levels = np.array([[0], [1], [-1], [2], [-3]], np.int16)
    bits = bits_of(levels, 2)
    assert bits[:, 0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]
    assert levels_of(bits, 2)[:, 0].tolist() == [0, 1, -1, 2, -2]
    assert bits_of(levels, 1)[:, 0].tolist() == [0, 0, 1, 0, 0, 1, 1, 0, 0, 1]
    assert index_of(bits_of(levels, 1)).tolist() == [2**2 + 2**5 + 2**6 + 2**9]


def test_an_index_does_not_overflow() -> None:
    assert index_of(np.ones((62, 1), np.uint8)).tolist() == [2**62 - 1]
    with pytest.raises(ValueError, match="at most 62"):
        index_of(np.ones((63, 1), np.uint8))


def test_layout_of_the_released_blocks() -> None:
    layout = Layout((384, 256))
    assert layout.factors == MOTION + 29
    assert layout.parts[:2] == ((0, 0, 2, 2), (0, 2, 4, 2))
    assert layout.parts[8] == (0, 16, 20, 1)
    assert layout.parts[20:24] == ((1, 0, 4, 1), (1, 4, 8, 1), (1, 8, 12, 1), (2, 0, 4, 1))
    allowed = layout.allowed()
    assert allowed.sum(1).tolist() == 4 * [9] + 8 * [256] + 8 * [25] + 21 * [81]
    assert layout.marks().shape == (layout.factors, VALUES, 8)


def test_roles_are_in_the_order_of_coding() -> None:
    assert (FRAMES, DISTANCES) == ((4, 2, 1, 3), (4, 2, 1, 1))


def test_words_hold_what_they_say_and_come_back(tokens: Tokens) -> None:
    layout = Layout(BLOCKS)
    words = layout.words(tokens)
    levels, motion = layout.tokens(words, tokens.levels.shape[0], NOTHING)
    assert tokens.motion.any()
    assert tokens.levels[:, 1:].any()
    wanted = tokens.levels[:, 1:].clip(-1, 1)
    wanted[:16, 3::4] = tokens.levels[:16, 4::4].clip(-2, 2)  # of anchors
    wanted[12:, [n for n in range(12) if n % 4 != 3]] = 0
    np.testing.assert_array_equal(levels, wanted)
    np.testing.assert_array_equal(motion[:, :3, ::2, ::2], tokens.motion[:, :3, ::2, ::2])
    back = tokens._replace(levels=np.concatenate([tokens.levels[:, :1], levels], 1), motion=motion)
    for mine, again in zip(words, layout.words(back), strict=True):
        np.testing.assert_array_equal(mine, again)
    tables = Tables.of(loop_arrays(), BLOCKS)
    decoded = decode_chunk(*encode_chunk(back, 96, tables), 13, 48, 64, 96, tables)
    np.testing.assert_array_equal(decoded.motion, motion)  # what is made of words is what the coder takes


def test_spans_of_a_part_are_those_of_the_whole(tokens: Tokens) -> None:
    layout = Layout(BLOCKS)
    words = layout.words(tokens)
    whole = layout.tokens(words, 403, NOTHING)
    part = Words(words.levels[:, 1:], words.merges[1:], words.vectors[1:])
    levels, motion = layout.tokens(part, 403, whole[1][:4])
    np.testing.assert_array_equal(levels, whole[0][:, 4:])
    np.testing.assert_array_equal(motion, whole[1][4:])


def test_what_is_left_behind_the_last_span_of_four_is_left_out(tokens: Tokens) -> None:
    cut = Tokens(tokens.levels[:, :11], tokens.motion[:10], np.array([4, 4, 2], np.uint8), tokens.numbers[:11])
    assert whole_spans(cut) == 2
    words, whole = Layout(BLOCKS).words(cut), Layout(BLOCKS).words(tokens)
    np.testing.assert_array_equal(words.levels, whole.levels[:, :2])
    np.testing.assert_array_equal(words.merges, whole.merges[:2])
    np.testing.assert_array_equal(words.vectors, whole.vectors[:2])
    grown = sampler.longer(cut, 1)
    assert grown.spans.tolist() == [4, 4, 4]
    assert [len(x) for x in (grown.levels[0], grown.motion, grown.numbers)] == [13, 12, 13]
    np.testing.assert_array_equal(grown.numbers, tokens.numbers)
    assert not grown.levels[:, 9:].any()
    for spans in ([8, 2], [4, 2, 2, 2], [2, 4, 4]):
        with pytest.raises(ValueError, match="spans of 4 frames"):
            Layout(BLOCKS).words(cut._replace(spans=np.array(spans, np.uint8)))
    short = Tokens(tokens.levels[:, :4], tokens.motion[:3], np.array([2, 1], np.uint8), tokens.numbers[:4])
    assert whole_spans(short) == 0


def motion_of(*frames: list[list[tuple[int, int, int]]]) -> Tokens:
    """Tokens of spans of four, of (y, x, kind) of each position and frame; frames by their roles."""
    cells = np.array(frames, np.int16).transpose(0, 3, 1, 2).repeat(2, 2).repeat(2, 3)
    motion = np.pad(cells, ((0, 0), (0, 2), (0, 0), (0, 0)))
    spans, (h, w) = len(frames) // SPAN, (n // 2 for n in cells.shape[2:])
    shown = [SPAN * n + FRAMES.index(frame) for n in range(spans) for frame in range(1, SPAN + 1)]
    return Tokens(
        np.zeros((403, 1 + len(frames), h, w), np.int16), motion[shown], np.full(spans, SPAN, np.uint8),
        np.full(1 + len(frames), 24, np.uint8),
    )  # fmt: skip


def test_merges_say_where_motion_is_from() -> None:
    a, b, c, still, both = (8, 4, 1), (8, 5, 1), (8, 4, 2), (0, 0, 0), (0, 0, 2)
    anchor = [[a, a, still], [b, c, c], [c, b, both]]
    # The anchor's motion as from both, of half and a quarter of its length; 5 / 2 and 5 / 4 are 3 and 1.
    half = [[(4, 2, 2), (4, 2, 2), both], [(4, 3, 2), (4, 2, 2), (4, 2, 2)], [(4, 2, 2), (4, 3, 2), both]]
    quarter = [[(2, 1, 2), (2, 1, 2), both], [(2, 1, 2), (2, 1, 2), (2, 1, 2)], [(2, 1, 2), (2, 1, 2), both]]
    odd = [[a, a, still], [(2, 1, 2), a, c], [both, (2, 1, 1), (2, 1, 1)]]
    tokens = motion_of(anchor, half, odd, quarter, anchor, half, quarter, odd)
    words = Layout(BLOCKS).words(tokens)
    first = [[COPIES + 1, LEFT, STILL], [COPIES + 1, COPIES + 2, LEFT], [RIGHT, COPIES + 1, STILL_BOTH]]
    others = [[COPIES + 1, LEFT, STILL], [TEMPORAL, ABOVE, COPIES + 2], [STILL_BOTH, COPIES + 1, LEFT]]
    assert words.merges[0].tolist() == [first, [[TEMPORAL] * 3] * 3, others, [[TEMPORAL] * 3] * 3]
    assert words.merges[1, 0].tolist() == [[TEMPORAL] * 3] * 3  # of the anchor before
    over_four = np.array(anchor).transpose(2, 0, 1)[:2]
    for role in (0, 1, 3):  # over four frames, and not rounded where it is taken over
        np.testing.assert_array_equal(words.vectors[0, role], over_four)
    assert words.vectors[0, 2, :, 0, 0].tolist() == [4 * 8, 4 * 4]
    assert words.vectors[0, 2, :, 2, 1].tolist() == [4 * 2, 4 * 1]
    explicit = words._replace(vectors=words.vectors * (words.merges >= COPIES)[:, :, None])
    _, motion = Layout(BLOCKS).tokens(explicit, 403, NOTHING[..., :6])
    np.testing.assert_array_equal(motion[:, :3], tokens.motion[:, :3])


def test_vectors_that_a_model_makes_are_rounded_and_cut() -> None:
    words = Words(
        np.zeros((len(Layout(BLOCKS).parts), 1, 1, 1), np.uint8),
        np.full((1, SPAN, 1, 1), COPIES, np.uint8),
        np.array([[1030, -7], [5, -7], [6, -6], [5000, -5]], np.int16).reshape(1, SPAN, 2, 1, 1),
    )
    _, motion = Layout(BLOCKS).tokens(words, 403, NOTHING[:, :, :2, :2])
    assert motion[[3, 1, 0, 2], :2, 0, 0].tolist() == [[1023, -7], [3, -3], [2, -1], [1023, -1]]


def test_a_merge_without_a_source_is_no_motion() -> None:
    for merge in (TEMPORAL, LEFT, ABOVE, RIGHT):
        words = Words(
            np.zeros((len(Layout(BLOCKS).parts), 1, 1, 1), np.uint8),
            np.full((1, SPAN, 1, 1), merge, np.uint8),
            np.full((1, SPAN, 2, 1, 1), 7, np.int16),
        )
        _, motion = Layout(BLOCKS).tokens(words, 403, NOTHING[:, :, :2, :2])
        assert not motion[:, :2].any()


def test_a_field_becomes_a_tree_that_the_coder_takes(tokens: Tokens) -> None:
    rng = np.random.default_rng(0)
    count = len(tokens.motion)
    plain = rng.choice([0, 0, 0, 4, -1023], (count, 3, 3, 4)).astype(np.int16)
    plain[:, 2] = rng.integers(0, 3, (count, 3, 4))
    plain = plain.repeat(2, 2).repeat(2, 3)
    motion, guesses = np.zeros_like(tokens.motion), Guesses(6, 8)
    for place in order(tokens.spans):
        motion[place.frame - 1] = quad_tree(plain[place.frame - 1], *guesses.of(place))
        guesses.add(place, motion[place.frame - 1])
    np.testing.assert_array_equal(motion[:, :3], plain)
    tables = Tables.of(loop_arrays(), BLOCKS)
    made = tokens._replace(motion=motion)
    decoded = decode_chunk(*encode_chunk(made, 96, tables), 13, 48, 64, 96, tables)
    np.testing.assert_array_equal(decoded.motion, motion)  # the coder refuses a merge that is not the candidate's
    still = quad_tree(np.zeros((3, 8, 8), np.int16), unknown(8, 8), unknown(8, 8))
    assert not still[:4].any()
    assert not still[4].any()  # one block that takes over "no motion"


def test_schedule_is_the_cosine() -> None:
    assert [round(hidden_share(p), 6) for p in (0, 0.5, 1)] == [1, round(math.sqrt(0.5), 6), 0]
    assert hidden_counts(100, 4) == [math.floor(100 * math.cos(math.pi / 8 * s)) for s in (1, 2, 3)] + [0]
    assert hidden_counts(3, 5) == [2, 1, 0, 0, 0]
    assert hidden_counts(256, 1) == [0]


def test_masks_hide_what_they_ask_for() -> None:
    shares, kinds = [], set()
    for seed in range(400):
        known, asked = draw_mask(4, 8, 8, np.random.default_rng(seed))
        assert asked.any()
        assert not (known & asked).any()
        spans = asked.any((1, 2))
        shares.append(asked[-1 if spans[-1] else spans.argmax()].mean())
        kinds.add("every" if spans.sum() > 1 else "last" if spans[-1] else "inner")
        if spans.sum() == 1:
            hidden = ~known & ~asked
            assert all(hidden[t].all() or not hidden[t].any() for t in range(4))
            assert not hidden[-1].any()
    assert kinds == {"every", "last", "inner"}
    assert abs(np.mean(shares) - 2 / math.pi) < 0.03  # the mean of cos(pi / 2 u)


def test_references_take_the_nearest_that_is_known() -> None:
    vectors = torch.arange(2 * 8 * 3 * 5).view(1, 2, 4, 2, 3, 5) + 100
    known = torch.zeros(1, 2, 4, 3, 5, dtype=torch.bool)
    assert not references(vectors, known).any()
    known[0, 0, :, 0, 0] = True
    reference = references(vectors, known)
    own = vectors[0, 0, ..., 0, 0]
    for place in ((0, 1), (1, 0)):
        assert torch.equal(reference[0, 0, ..., *place], own)
    for place in ((0, 2), (1, 1), (2, 0)):  # further away only for the anchor's
        assert torch.equal(reference[0, 0, ..., *place], own[:1].expand(4, 2))
    assert not reference[0, 0, ..., 2, 4].any()
    assert torch.equal(reference[0, 1, 0, :, 0, 0], own[0])  # the span before
    known[0, 1, :, 0, 1] = True
    assert torch.equal(references(vectors, known)[0, 1, ..., 0, 0], vectors[0, 1, ..., 0, 1])  # next to it: first
    known[0, 1, 2, 0, 1] = False  # each frame by itself
    assert torch.equal(references(vectors, known)[0, 1, 2, :, 0, 0], vectors[0, 1, 0, :, 0, 1])
    merges = torch.full((1, 2, 4, 3, 5), LEFT)
    assert torch.equal(against(reference, merges, vectors), reference)
    merges[0, 0, 0, 0, 1] = COPIES
    made = against(reference, merges, vectors)
    assert torch.equal(made[0, 0, 1:, :, 0, 1], vectors[0, 0, :1, :, 0, 1].expand(3, 2))
    made[0, 0, 1:, :, 0, 1] = reference[0, 0, 1:, :, 0, 1]
    assert torch.equal(made, reference)


def test_motion_is_known_where_all_it_is_taken_from_is(tokens: Tokens) -> None:
    words = Layout(BLOCKS).words(tokens)
    whole = window_of(words, Layout(BLOCKS).first(tokens, 6.0), 0, 3, 6.0)
    shown = whole._replace(vectors=whole.vectors * (whole.merges >= COPIES).unsqueeze(-3))
    known = torch.ones_like(whole.merges[:, :, 0], dtype=torch.bool)
    vectors, has = resolved(shown, known)
    assert whole.vectors.any()
    assert has.all()
    assert torch.equal(vectors, whole.vectors)
    merges = torch.full_like(whole.merges, TEMPORAL)
    merges[:, 0, 0] = LEFT
    known[0, 0, 1, 1] = False
    _, has = resolved(whole._replace(merges=merges), known)
    expected = torch.ones_like(has)
    expected[..., 1, 1:] = False  # of what is taken over from what is taken over from it
    assert torch.equal(has, expected)


def test_what_is_taken_over_costs_no_vector() -> None:
    window = random_window()
    values, _ = values_of(window, ZERO)
    counts = counting(values)
    is_explicit = window.merges >= COPIES
    assert torch.equal(counts[..., 4:MOTION:2], is_explicit.permute(0, 1, 3, 4, 2))
    assert counts[..., :4].all()
    assert counts[..., MOTION:].all()
    assert (values[..., 4:MOTION][~counts[..., 4:MOTION]] == REACH + 1).all()
    with torch.inference_mode():
        bits = model_of().bits(torch.randn(values[..., 0].numel(), 16), values.flatten(0, 3))
    assert torch.equal(bits > 0, counts.flatten(0, 3))


def random_window(seed: int = 0, spans: int = 3, h: int = 9, w: int = 10) -> Window:
    rng = np.random.default_rng(seed)
    allowed = Layout(BLOCKS).allowed()[MOTION:]
    levels = np.stack([rng.choice(np.flatnonzero(a), (spans, h, w)) for a in allowed]).astype(np.uint8)
    merges = rng.integers(0, MERGES, (spans, 4, h, w)).astype(np.uint8)
    vectors = rng.integers(-20, 20, (spans, 4, 2, h, w)).astype(np.int16)
    first = rng.integers(-3, 4, (24, h, w)).astype(np.int16)
    return window_of(Words(levels, merges, vectors), first, 0, spans, 8.0)


def model_of(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_nothing_hidden_is_seen() -> None:
    model, window, other = model_of(), random_window(0), random_window(1)
    known = torch.rand(window.merges[:, :, 0].shape) < 0.5
    mixed = Window(
        window.first,
        torch.where(known[:, :, None], window.levels, other.levels),
        torch.where(known[:, :, None], window.merges, other.merges),
        torch.where(known[:, :, None, None], window.vectors, other.vectors),
        window.place,
        window.step,
    )
    with torch.inference_mode():
        seen = model.trunk(window, known)
        assert torch.equal(seen, model.trunk(mixed, known))
        assert not torch.equal(seen, model.trunk(mixed, torch.ones_like(known)))


def test_a_factor_sees_only_those_before_it() -> None:
    model = model_of()
    values, _ = values_of(random_window(), ZERO)
    values = values.flatten(0, 3)[:5]
    values[:, :4] = COPIES  # all count
    features = torch.randn(5, 16)
    with torch.inference_mode():
        bits = model.bits(features, values)
        for i in (4, 7, MOTION + 2):
            changed = values.clone()
            changed[:, i] = 5  # allowed everywhere
            again = model.bits(features, changed)
            assert torch.equal(bits[:, :i], again[:, :i])
            assert not torch.allclose(bits[:, i + 1 :], again[:, i + 1 :])


def test_chances_of_a_factor_sum_to_one() -> None:
    model, features = model_of(), torch.randn(1, 16)
    allowed = torch.from_numpy(Layout(BLOCKS).allowed())
    values = torch.full((VALUES, model.layout.factors), 128)
    values[:, MOTION:], values[:, :4] = 0, COPIES
    for i in (0, 4, MOTION):
        trial = values.clone()
        trial[:, i] = torch.arange(VALUES)
        with torch.inference_mode():
            bits = model.bits(features.expand(VALUES, -1), trial)[:, i]
        assert (0.5 ** bits[allowed[i]]).sum().item() == pytest.approx(1, abs=1e-4)


def test_a_vector_out_of_reach_is_an_escape() -> None:
    window = random_window()
    window.vectors[0, 0, 0, 0, 0, 0] = REACH
    window.vectors[0, 0, 0, 1, 0, 0] = -REACH - 1
    window.merges[0, 0, :, 0, 0] = torch.tensor([COPIES, LEFT, LEFT, LEFT])
    values, out = values_of(window, ZERO)
    assert values[0, 0, 0, 0, 4].item() == VALUES - 1
    assert values[0, 0, 0, 0, 5].item() == ESCAPE
    assert out[0, 0, 0, 0].item() == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_span_is_spoken_the_same_from_the_same_seed(temperature: float) -> None:
    model, made = model_of(), []
    for seed in (1, 1, 2):
        window = random_window()
        before = window.merges.clone()
        known = torch.ones_like(window.merges[:, :, 0], dtype=torch.bool)
        speak_span(model, window, known, 2, 3, temperature, seed)
        assert known.all()
        assert torch.equal(window.merges[:, :2], before[:, :2])
        made.append(torch.cat([window.levels[0, 2].flatten(), window.vectors[0, 2].flatten()]))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2]) is (temperature == 0)


def test_a_tiny_model_learns_a_stream_by_heart_and_says_it(tokens: Tokens) -> None:
    layout = Layout(BLOCKS)
    words, first = layout.words(tokens), layout.first(tokens, 6.0)
    torch.manual_seed(0)
    model = LanguageModel(LanguageConfig(BLOCKS, "00", channels=32, layers=2, heads=2, head_channels=32))
    window = window_of(words, first, 0, 3, 6.0)
    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    known = torch.ones_like(window.merges[:, :, 0], dtype=torch.bool)
    known[:, 2] = False
    for _ in range(100):
        values, _ = values_of(window, references(*resolved(window, known)))
        features = model.trunk(window, known)[:, 1:]
        loss = model.bits(features[:, 2].flatten(0, 2), values[:, 2].flatten(0, 2)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert span_bits(model, window, known, 2, 1, 0).sum().item() < 0.3 * known[0, 2].numel()
    said = window_of(words, first, 0, 3, 6.0)
    said.levels[:, 2], said.merges[:, 2], said.vectors[:, 2] = 0, 0, 0
    speak_span(model, said, known, 2, 1, 0.0, 0)
    assert torch.equal(said.levels, window.levels)
    assert torch.equal(said.merges, window.merges)
    made = Words(
        said.levels[0].transpose(0, 1).numpy().astype(np.uint8),
        said.merges[0].numpy().astype(np.uint8),
        said.vectors[0].numpy().astype(np.int16),
    )
    (_, wanted), (_, again) = (layout.tokens(w, len(tokens.levels), NOTHING) for w in (words, made))
    assert tokens.motion[8:].any()
    np.testing.assert_array_equal(again, wanted)


def test_what_is_written_is_whole_where_a_window_begins_with_it(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_with = []

    def speak(model: LanguageModel, window: Window, known: torch.Tensor, span: int, *_: object) -> None:
        begun_with.append(window.vectors[0, 0, 0].numpy())
        window.merges[:, span], window.vectors[:, span] = TEMPORAL, 0
        known[:, span] = True

    monkeypatch.setattr(sampler, "speak_span", speak)
    made = sampler.spoken(model_of(), sampler.longer(tokens, 5), 6.0, 3, 8, sampler.Speech())
    last = tokens.motion[11, :3, ::2, ::2]
    assert last[:2].any()
    anchors = made.motion[15::4, :3, ::2, ::2]
    np.testing.assert_array_equal(anchors, np.broadcast_to(last, (5, *last.shape)))
    np.testing.assert_array_equal(made.motion[13::4, :2, ::2, ::2], np.broadcast_to((last[:2] + 1) >> 1, (5, 2, 3, 4)))
    np.testing.assert_array_equal(begun_with[-1], last[:2])  # of the first span that was written
    assert (made.motion[[12, 13, 14], 2] == BOTH).all()


def test_a_model_comes_back_from_its_file(tmp_path: Path) -> None:
    model = model_of()
    save_model(tmp_path / "model.safetensors", model)
    again = load_model(tmp_path)
    assert again.config == model.config
    known = torch.ones(1, 3, 9, 10, dtype=torch.bool)
    with torch.inference_mode():
        a, b = (m.trunk(random_window(), known) for m in (model, again))
    assert torch.allclose(a, b, atol=0.02)


def test_files_that_are_no_model_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the model"):
        load_model(tmp_path)
    (tmp_path / "x").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match="not a language model"):
        load_model(tmp_path / "x")
    with pytest.raises(ValueError, match="words of version 1, not 3: learn it again"):
        LanguageConfig.from_json(SMALL.to_json().replace('"version": 3, ', ""))
    for text in ("[]", "{}", SMALL.to_json().replace("16", "0"), SMALL.to_json().replace("16", '"a"')):
        with pytest.raises(ValueError, match=r"configuration|range|version"):
            LanguageConfig.from_json(text)
    assert LanguageConfig.from_json(SMALL.to_json()) == SMALL


def test_the_basis_is_known_by_its_transforms() -> None:
    arrays = loop_arrays()
    assert basis_sha256(arrays) == basis_sha256(arrays | {"coder.levels.slots": np.zeros(4, np.uint32)})
    assert basis_sha256(arrays) != basis_sha256(arrays | {"klt": arrays["klt"] + np.int16(1)})
