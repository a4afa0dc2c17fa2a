"""What an encoder plans before it codes a chunk: spans by content, finer steps for what is inherited."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tokcodec.coding.lookahead import AHEAD, LEAF, MOST, WINDOW, Lookahead
from tokcodec.coding.motion_search import coarse_vectors, halfway_errors, small
from tokcodec.pipeline import Helpers
from tokcodec.stream.pyramid import order


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, uint8 `[height, width]`."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.standard_normal((height, width)))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
    plain = np.fft.ifft2(spectrum / (0.02 + radius)).real
    return np.clip(128 + 50 * plain / plain.std(), 0, 255).astype(np.uint8)


class Plan(NamedTuple):
    spans: list[int]
    numbers: np.ndarray
    weight: np.ndarray


def planned(
    frames: list[np.ndarray], spans: list[int] | None = None, helpers: Helpers | None = None, most: int = 1000
) -> Plan:
    """The plan of a chunk; its steps up to the window of span `most`."""
    look = Lookahead([small(frame) for frame in frames], 64.0, spans, helpers)
    return Plan(list(itertools.islice(look.spans(), most)), look.numbers, look.weight)


def test_what_stands_still_is_one_long_pyramid_with_fine_anchors() -> None:
    plan = planned([texture(128, 128)] * 33)
    assert plan.spans == [32]
    by_depth = {place.depth: int(plan.numbers[place.frame]) for place in order(plan.spans)}
    assert sorted(by_depth.values()) == [by_depth[depth] for depth in range(6)]
    assert plan.numbers[0] <= by_depth[0] < by_depth[5] == LEAF


def test_what_moves_unevenly_has_short_spans() -> None:
    wide, place = texture(128, 256), [64]
    for step in (20, -16, 12, -20, 24, -12, 16, -24, 20, -8, 12, -20, 16, -16, 8, -12):
        place.append(place[-1] + step)
    assert max(planned([np.ascontiguousarray(wide[:, x : x + 128]) for x in place]).spans) <= 2


def test_what_nobody_inherits_has_the_largest_steps() -> None:
    plan = planned([texture(128, 128, seed) for seed in range(17)])
    assert plan.numbers.tolist() == [MOST[0], *(MOST[place.kind] for place in sorted(order(plan.spans)))]


def test_spans_that_are_given_are_kept() -> None:
    assert planned([texture(64, 64)] * 8, [4, 2, 1]).spans == [4, 2, 1]


def test_steps_depend_on_a_number_of_frames_ahead_and_not_on_who_helps() -> None:
    still, other = [texture(64, 64)] * 20, [texture(64, 64, seed) for seed in range(1, 30)]
    frames = [*still, *other] * 5
    whole, short = planned(frames), planned(frames[: 1 + AHEAD])
    assert len(whole.numbers) == 245
    assert sum(whole.spans) == 244
    assert whole.numbers[: 1 + WINDOW].tolist() == short.numbers[: 1 + WINDOW].tolist()
    assert whole.numbers.all()
    assert (whole.weight == short.weight).all()
    helpers = Helpers(1, "helper")
    try:
        helped = planned(frames, helpers=helpers)
    finally:
        helpers.shutdown()
    assert helped.spans == whole.spans
    assert (helped.numbers == whole.numbers).all()
    soon = planned(frames, most=1)
    assert not soon.numbers[1 + 2 * WINDOW :].any()


def test_what_stays_is_finer_than_what_goes() -> None:
    """The left half stands still, the right half is another one in every frame."""
    still = texture(128, 128)
    frames = [np.concatenate([still, texture(128, 128, 1 + seed)], 1) for seed in range(9)]
    weight = planned(frames, [8]).weight
    assert weight[:, :7].mean() > 2 + weight[:, 9:].mean()
    assert abs(weight.mean()) < 1e-4


def test_coarse_vectors_and_the_frame_halfway_follow_an_even_motion() -> None:
    wide = texture(128, 192)
    low, middle, high = (small(np.ascontiguousarray(wide[:, left : left + 128])) for left in (32, 24, 16))
    vectors, errors = coarse_vectors(high, low)
    inner = slice(1, -1), slice(2, -2)
    assert (vectors[1][inner] == -64).all()  # 16 pixels to the right, in quarter pixels
    assert (vectors[0][inner] == 0).all()
    assert errors[inner].max() == 0
    assert halfway_errors(middle, low, high, vectors)[inner].max() == 0
