"""What an encoder plans before it codes a chunk: spans by content, finer steps for what is inherited."""

from __future__ import annotations

import numpy as np

from tokcodec.coding.lookahead import LEAF, MOST, Lookahead, Plan
from tokcodec.coding.motion_search import coarse_vectors, halfway_errors, small
from tokcodec.stream.pyramid import order


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise, uint8 `[height, width]`."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.standard_normal((height, width)))
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
    plain = np.fft.ifft2(spectrum / (0.02 + radius)).real
    return np.clip(128 + 50 * plain / plain.std(), 0, 255).astype(np.uint8)


def planned(frames: list[np.ndarray], spans: list[int] | None = None) -> Plan:
    return Lookahead([small(frame) for frame in frames], 64.0).plan(spans)


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
