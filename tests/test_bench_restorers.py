"""What restorers are worth, of the same coded clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import MakeClip, moving_frames

from benchmarks import restorers
from tokcodec.training import evaluate


def test_every_tier_is_scored_on_the_same_coding(
    make_clip: MakeClip, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a distance in place of LPIPS: the loop alone has the scores of its planes, whatever networks there are."""

    def distance(judge: Any, target: np.ndarray, shown: np.ndarray, every: int = 3) -> float:
        return float(np.abs(target.astype(float) - shown).mean())

    monkeypatch.setattr(restorers, "load_lpips", lambda net, folder: None)
    monkeypatch.setattr(evaluate, "lpips_distance", distance)
    make_clip("clip.mp4", moving_frames(6, 32, 48))
    out = tmp_path / "out.json"
    args = [str(tmp_path), "--weights", str(weights), "--steps", "8,64", "--out", str(out)]
    result = CliRunner().invoke(restorers.main, args)
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["rows"]
    assert {(row["restorer"], row["step"]) for row in rows} >= {("off", 8), ("off", 64), ("full", 8), ("full", 64)}
    fine, coarse = ([row for row in rows if row["restorer"] == "off" and row["step"] == step] for step in (8, 64))
    assert fine[0]["psnr_db"] > coarse[0]["psnr_db"] + 1
    assert fine[0]["lpips"] < coarse[0]["lpips"]
    lines = [line.split()[:2] for line in result.output.splitlines()]
    assert lines == [[weights.name, tier] for tier in dict.fromkeys(row["restorer"] for row in rows)]


def test_a_folder_without_videos_is_one_line(weights: Path, tmp_path: Path) -> None:
    args = [str(tmp_path / "none"), "--weights", str(weights), "--out", str(tmp_path / "out.json")]
    (tmp_path / "none").mkdir()
    result = CliRunner().invoke(restorers.main, args)
    assert result.exit_code == 1
    assert "no video to evaluate on" in result.stderr
