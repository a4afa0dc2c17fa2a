"""The loop alone: what the network adds, in bits at equal quality."""

from __future__ import annotations

import pytest

from benchmarks.floor import gain_over, network_gain


def test_the_gain_is_in_bits_at_equal_quality() -> None:
    """A network that shows what the loop needs twice the bits for saves half of them; where it blurs, it costs."""
    points = [
        {"clip": clip, "bpp": 0.01 * 2**n, "lpips_alex": 0.4 - 0.1 * n, "network_lpips_alex": 0.3 - 0.1 * n,
         "psnr_rgb_db": 25.0 + 2 * n, "network_psnr_rgb_db": 24.0 + 2 * n}
        for clip in "ab"
        for n in range(4)
    ]  # fmt: skip
    gain = network_gain(points)
    assert gain["lpips_alex"] == pytest.approx(-50)
    assert gain["psnr_rgb_db"] == pytest.approx(100 * (2**0.5 - 1))
    assert network_gain(points[:1]) == {"lpips_alex": None, "psnr_rgb_db": None}  # one step makes no curve


def test_a_file_is_compared_with_an_earlier_one_by_clip() -> None:
    """Twice the bits for the same pictures are 100 % more."""
    before = [
        {"clip": clip, "bpp": 0.01 * 2**n, "lpips_alex": 0.4 - 0.1 * n, "psnr_rgb_db": 25.0 + 2 * n}
        for clip in "ab"
        for n in range(4)
    ]
    twice = [point | {"bpp": 2 * point["bpp"]} for point in before if point["clip"] == "a"]
    assert gain_over(before, twice) == {"lpips_alex": {"mean": 100, "a": 100}, "psnr_rgb_db": {"mean": 100, "a": 100}}
