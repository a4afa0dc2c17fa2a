"""BD-rate by its identities, and its refusals."""

from __future__ import annotations

import pytest

from benchmarks.bdrate import at_rate, bd_rate

CURVE = [(0.01, 28.0), (0.02, 31.0), (0.04, 33.5), (0.08, 35.5)]


def test_a_curve_against_itself_is_zero() -> None:
    result = bd_rate(CURVE, CURVE[::-1])
    assert result.percent == pytest.approx(0, abs=1e-9)
    assert result.overlap == 1


def test_ten_percent_fewer_bits_is_minus_ten() -> None:
    assert bd_rate(CURVE, [(0.9 * bpp, db) for bpp, db in CURVE]).percent == pytest.approx(-10)


def test_curves_may_differ_in_points() -> None:
    denser = sorted([*CURVE, (0.03, at_rate(CURVE, 0.03) or 0)])
    assert bd_rate(CURVE, denser).percent == pytest.approx(0, abs=1)


def test_little_overlap_is_refused_and_told() -> None:
    result = bd_rate(CURVE, [(bpp, db + 4.5) for bpp, db in CURVE])
    assert result.percent is None
    assert result.overlap == pytest.approx(0.4)
    assert result.why == "40% overlap, below 50%"


def test_the_shared_part_is_judged_whatever_else_one_curve_has() -> None:
    longer = [(0.001, 20.0), *CURVE, (0.5, 42.0)]
    assert bd_rate(longer, CURVE).overlap == 1
    assert bd_rate(CURVE, longer).percent == pytest.approx(0, abs=1)


def test_no_overlap_is_none_of_it() -> None:
    assert bd_rate(CURVE, [(bpp, db + 20) for bpp, db in CURVE]).overlap == 0


def test_three_points_are_refused() -> None:
    assert bd_rate(CURVE, CURVE[:3]).why == "fewer than 4 points"
    assert bd_rate(CURVE, []).percent is None


def test_quality_that_falls_is_refused() -> None:
    assert bd_rate(CURVE, [*CURVE[:3], (0.08, 33.0)]).why == "quality does not rise with the rate"


def test_a_curve_meets_its_points_and_is_not_extrapolated() -> None:
    assert at_rate(CURVE, 0.04) == pytest.approx(33.5)
    assert 31 < (at_rate(CURVE, 0.03) or 0) < 33.5
    assert at_rate(CURVE, 0.009) is None
    assert at_rate(CURVE, 0.081) is None
    assert at_rate([], 0.02) is None
