"""The table of fade, pop and pulse, of points made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.evenness import evenness_table
from tokcodec.scoring.scores import summary


def point(bpp: float, fall_db: float, ghosts: float | None, **more: Any) -> dict[str, Any]:
    """80 frames: 40 of 40 dB, of which the last 16 are worse, then 40 of 40 dB."""
    psnr = np.full(80, 40.0)
    psnr[24:40] -= fall_db
    metrics = {"psnr_rgb_db": summary(list(psnr))} | ({} if ghosts is None else {"ghosts": summary([ghosts] * 80)})
    return {"rate": 160, "bpp": bpp, "metrics": metrics, **more}


def test_all_codecs_are_judged_by_the_borders_of_tokcodec_at_its_bytes() -> None:
    ours = point(0.02, 3, 2.5, borders=[40])
    others = [point(0.01, 2, 1), point(0.02, 1, 0.5), point(0.03, 0.5, 0.25)]
    points = {("clip", "tokcodec"): [ours], ("clip", "hevc-visual"): others, ("clip", "av1"): [point(0.5, 0, 0)]}
    table = evenness_table(points)
    assert table.header == ["step", "bpp", "codec", "fade, dB", "pop", "pulse, dB", "ghosts, %", "clips"]
    first, second = table.rows  # the third does not reach the bytes
    assert first[:4] == ["160", "0.0200", "tokcodec", "1.5"]  # 3 dB in one chunk, 0 in the other
    assert second[:4] == ["160", "0.0200", "hevc-visual", "0.5"]
    assert [row[6:] for row in table.rows] == [["2.5", "1"], ["0.5", "1"]]
    pops = [float(row[4]) for row in table.rows]
    errors = 255**2 / 10 ** (np.array([37, 39, 40]) / 10)
    assert pops == pytest.approx([100 * (error - errors[2]) for error in errors[:2]], rel=1e-2)  # over 0.01


def test_what_was_not_measured_is_left_empty() -> None:
    (row,) = evenness_table({("clip", "tokcodec"): [point(0.02, 3, None)]}).rows  # of before there were borders
    assert row[3] == "0"
    assert row[6:] == ["", "1"]
