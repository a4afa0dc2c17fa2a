"""The table of the networks and the loop alone, of points made by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.codecs import FAST, LOOP
from benchmarks.tables import restorer_table
from tokcodec.scoring.scores import summary


def point(rate: int, psnr: float, vmaf: float | None = None) -> dict[str, Any]:
    metrics = {"psnr_rgb_db": summary([psnr])} | ({} if vmaf is None else {"vmaf": summary([vmaf])})
    return {"rate": rate, "bpp": rate / 1000, "metrics": metrics}


def test_loop_and_networks_stand_together_on_the_clips_that_all_have() -> None:
    points = {
        ("a", "tokcodec"): [point(48, 30, 80), point(72, 29, 70)],
        ("b", "tokcodec"): [point(48, 32, 90)],
        ("a", FAST): [point(48, 29.5, 75)],
        ("b", FAST): [point(48, 31.5)],
        ("a", LOOP): [point(48, 29, 70)],
        ("b", LOOP): [point(48, 31, 80)],
        ("c", LOOP): [point(48, 1, 1)],
        ("a", "av1"): [point(48, 1, 1)],
    }
    table = restorer_table(points)
    assert table is not None
    assert table.header == ["step", "bpp", "codec", "PSNR-RGB, dB", "VMAF", "clips"]
    assert table.rows == [
        ["48", "0.0480", "tokcodec", "31", "85", "2"],
        ["48", "0.0480", FAST, "30.5", "", "2"],  # a clip has no VMAF
        ["48", "0.0480", LOOP, "30", "75", "2"],
    ]


def test_there_is_no_table_where_only_one_was_measured() -> None:
    assert restorer_table({("a", "tokcodec"): [point(48, 30)], ("a", "av1"): [point(48, 30)]}) is None
    assert restorer_table({("a", LOOP): [point(48, 30)]}) is None
