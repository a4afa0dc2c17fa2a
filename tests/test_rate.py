"""What to spend: the scale of qualities, and how a step is found that meets a goal."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tokcodec import Rate
from tokcodec.codec.rate_control import CLOSE
from tokcodec.codec.search import BISECTIONS, LIKELY_FINEST, Try, coarsest, first_step, next_step, pick_tries, total
from tokcodec.rate import DEFAULT_RATE, STEP_RANGE, STEP_UNITS, quality_step, whole_units


def test_qualities_are_a_geometric_row_of_steps() -> None:
    assert [quality_step(q) for q in range(1, 9)] == [224, 147.4375, 97.0625, 63.875, 42.0625, 27.6875, 18.25, 12]
    assert DEFAULT_RATE.fixed_step == Rate().fixed_step == quality_step(4)


def test_a_step_is_kept_to_what_a_stream_can_say() -> None:
    assert Rate(step=10.03).fixed_step == 10
    assert Rate(step=1 / 16).fixed_step == whole_units(0.001) == 1 / 16
    assert Rate(bitrate_kbps=3).fixed_step is Rate(target_lpips=0.3).fixed_step is None


def test_a_rate_is_one_number() -> None:
    assert Rate(bitrate_kbps=1).is_of_the_whole
    assert Rate(target_size_bytes=1).is_of_the_whole
    assert not any(r.is_of_the_whole for r in (Rate(), Rate(step=3), Rate(target_psnr_db=30), Rate(target_lpips=0.1)))
    for wrong in ({"step": 3, "quality": 4}, {"bitrate_kbps": 0}, {"target_psnr_db": math.nan}, {"target_lpips": -1}):
        with pytest.raises(ValueError, match="one positive number"):
            Rate(**wrong)  # type: ignore[arg-type]
    for wrong in ({"quality": 9}, {"step": 0.01}, {"step": 5000}):
        with pytest.raises(ValueError, match="must be"):
            Rate(**wrong)  # type: ignore[arg-type]


def test_chunks_are_taken_from_two_neighbouring_tries() -> None:
    tries = [Try(40, [10, 10, 10, 10]), Try(10, [40, 40, 40, 40]), Try(20, [20, 21, 22, 23])]
    assert pick_tries(tries, 39) is None
    assert pick_tries(tries, 40) == pick_tries(tries, 49) == [0, 0, 0, 0]
    chosen = pick_tries(tries, 65)
    assert chosen is not None
    assert set(chosen) == {0, 2}
    assert 55 < total(tries, chosen) <= 65
    assert pick_tries(tries, 86) == [2, 2, 2, 2]
    assert pick_tries(tries, 10**9) == [1, 1, 1, 1]


@given(
    slope=st.floats(0.5, 2),
    scale=st.floats(2e4, 1e9),
    share=st.floats(0.01, 0.9),
    weights=st.lists(st.floats(0.2, 5), min_size=5, max_size=50),
)
def test_four_tries_meet_any_budget_of_a_power_law(
    slope: float, scale: float, share: float, weights: list[float]
) -> None:
    def coded(step: float) -> Try:
        return Try(step, [int(scale * w / sum(weights) * (step / 2) ** -slope) for w in weights])

    budget = max(int(share * coded(LIKELY_FINEST).bytes), coded(200.0).bytes)
    tries: list[Try] = []
    step: float | None = first_step(None)
    for _ in range(4):
        assert step is not None
        assert STEP_RANGE[0] <= step <= STEP_RANGE[1]
        tries.append(coded(step))
        chosen = pick_tries(tries, budget)
        if chosen and total(tries, chosen) >= CLOSE * budget:
            break
        step = next_step(tries, budget)
        if step is None:
            break
    assert chosen is not None
    if budget > 100 * len(weights):  # whole bytes are coarse in smaller ones
        assert 0.95 * budget <= total(tries, chosen) <= budget


def test_the_search_ends_at_the_ends_of_the_range() -> None:
    assert next_step([Try(30, [10])], 10**6) == LIKELY_FINEST
    assert STEP_RANGE[0] <= (next_step([Try(30, [10]), Try(LIKELY_FINEST, [50])], 100) or 0) < LIKELY_FINEST
    assert next_step([Try(STEP_RANGE[0], [10])], 100) is None
    assert next_step([Try(STEP_RANGE[1], [1000])], 100) is None
    assert next_step([Try(100, [1000])], 1) == STEP_RANGE[1]


@pytest.mark.parametrize("limit", [0.05, 0.1, 1.0, 2.0, 3.7, 29.25, 30.0, 100.0, 511.0, 1000.0])
def test_the_coarsest_step_that_is_good_enough(limit: float) -> None:
    tried = []

    def attempt(step: float) -> tuple[bool, str]:
        tried.append(step)
        return step <= limit, f"made with {step}"

    step, is_good, made = coarsest(attempt)
    assert made == f"made with {step}"
    assert is_good == (step <= limit) == (limit >= STEP_RANGE[0])
    assert len(tried) == len(set(tried)) <= 11 + BISECTIONS
    assert STEP_RANGE[0] <= min(tried)
    assert max(tried) <= STEP_RANGE[1]
    if is_good:
        assert step <= limit
        assert step == STEP_RANGE[1] or limit < 1.1 * step + 2 / STEP_UNITS
    else:
        assert step == STEP_RANGE[0]
