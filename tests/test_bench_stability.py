"""The benchmark of evenness in time: as many bytes for all, one table and one file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import MakeClip, moving_frames

import tokcodec
from benchmarks import stability
from benchmarks.run import borders_of
from benchmarks.stability import judged, with_bytes


def test_the_rate_rises_until_there_are_as_many_bytes() -> None:
    rates: list[int] = []

    def encode(rate: int) -> int:
        rates.append(rate)
        return rate // 10

    assert with_bytes(encode, 1000, 8000) == 1005
    assert rates == [8000, 10050]
    assert with_bytes(lambda rate: 7, 1000, 8000) == 7  # it gives no more


def test_what_is_judged_is_the_worst_of_frames_too() -> None:
    psnr = np.full(101, 30.0)
    psnr[50:] = 20
    found = judged({"psnr_rgb_db": list(psnr), "ghosts": [float(i) for i in range(101)], "vmaf": []}, [50])
    assert found["mean"] == {"psnr_rgb_db": pytest.approx(24.9505), "ghosts": 50}
    assert found["worst"] == {"psnr_rgb_db": 20, "ghosts": 95}  # the end that is worse
    assert found["fade_db"] == 0  # of each chunk
    assert found["pop"] == pytest.approx(58522.5, rel=1e-3)  # 650.25 - 65.025, over 0.01
    assert found["pulse_db"] == 0


def test_borders_are_those_of_the_stream(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    stream, twice = tmp_path / "a.tokc", tmp_path / "b.tokc"
    tokcodec.encode_video(make_clip("in.mp4", moving_frames(9)), stream, weights=weights)
    assert borders_of(stream) == []
    tokcodec.concat([stream, stream, stream], twice)
    assert borders_of(twice) == [9, 18]


def test_a_run_writes_one_file_and_prints_one_table(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    monkeypatch.delitem(stability.OTHERS, stability.VVENC)
    clip = make_clip("clip.mp4", moving_frames(12, 96, 128))
    options = ["--size", "128x96", "--threads", "1", "--out", str(tmp_path / "out.json")]
    result = CliRunner().invoke(stability.main, [str(clip), *options])
    assert result.exit_code == 0, result.output
    (found,) = json.loads((tmp_path / "out.json").read_text())["clips"]
    assert (found["quality"], found["borders"], found["clip"]["frames"]) == (4, [], 12)
    ours, other = found["codecs"]
    assert (ours["codec"], other["codec"]) == ("tokcodec", "x265 slow, two passes")
    assert set(ours) == set(other) == {"codec", "bytes", "fade_db", "pop", "pulse_db", "period", "mean", "worst"}
    assert {"psnr_rgb_db", "temporal_psnr_db", "ghosts", "psnr_y_db"} <= set(ours["mean"])
    lines = result.stdout.splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        ["| clip", each["codec"], str(each["bytes"])] for each in found["codecs"]
    ]


def test_a_clip_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    result = CliRunner().invoke(stability.main, [str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out.json")])
    assert result.exit_code == 1
    assert "a.mp4" in result.stderr
    assert not (tmp_path / "out.json").exists()
