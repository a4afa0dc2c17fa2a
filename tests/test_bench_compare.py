"""benchmarks/compare.py: variants are trained for the same time, once, and stand in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from test_training import Distance, coarse

from benchmarks import compare
from tokcodec.restorer.network import RestorerConfig
from tokcodec.training import train
from tokcodec.training.train import settings_of
from tokcodec.weights import save_weights

TINY: dict[str, Any] = {
    "channels": (16, 16),
    "blocks": (1, 0, 0),
    "pixel_channels": 16,
    "pixel_blocks": 0,
    "batch": 1,
    "image_share": 0.0,
    "late_share": 0.0,
}


@pytest.fixture
def data(footage: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two videos, two tiny variants, and neither LPIPS nor a loop but stand-ins."""
    monkeypatch.setattr(train, "load_lpips", lambda *_: Distance())
    monkeypatch.setattr(train, "coding_loop", lambda _: coarse)
    monkeypatch.setattr(compare, "VARIANTS", {"plain": TINY, "one block": {**TINY, "pixel_blocks": 1}})
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(tmp_path / "tables.safetensors"))
    save_weights(tmp_path / "tables.safetensors", None, {"klt.next": np.eye(2)})
    return footage


def invoke(data: Path, out: Path, *more: str) -> Result:
    line = ["--holdout", "two*", "--out", str(out), "--minutes", "0.01", "--frames", "5", "--crop", "32"]
    threads = torch.get_num_threads()
    result = CliRunner().invoke(compare.main, [str(data), *line, "--threads", "1", "--dtype", "float32", *more])
    torch.set_num_threads(threads)
    return result


def test_variants_are_trained_once_and_compared(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    result = invoke(data, out)
    assert result.exit_code == 0, result.output
    stored = json.loads((out / "compare.json").read_text())
    assert [(run["variant"], run["seed"]) for run in stored["runs"]] == [("plain", 0), ("one block", 0)]
    assert all(run["steps"] >= 1 and run["pixels"] == run["steps"] * 5 * 32 * 32 for run in stored["runs"])
    rows = (out / "compare.md").read_text().splitlines()[-3:]
    best = min(stored["runs"], key=lambda run: run["network"]["lpips"])
    assert rows[2].startswith("| no network |  |  |  | ")
    assert rows[0].startswith(f"| {best['variant']} | 0 | {best['steps']} | ")

    monkeypatch.setattr(compare, "train", None)  # nothing is trained again
    assert invoke(data, out).exit_code == 0
    refused = invoke(data, out, "--seed", "0", "--minutes", "0.02")
    assert (refused.exit_code, "made with other options" in refused.output) == (1, True)


def test_a_run_that_is_stopped_is_not_an_outcome(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "train", lambda *_, **__: None)
    result = invoke(data, tmp_path / "out")
    assert (result.exit_code, result.stderr) == (1, "Aborted!\n")
    assert not (tmp_path / "out" / "compare.json").exists()


def test_every_variant_is_a_network() -> None:
    assert compare.VARIANTS[compare.BASE] == {}
    made = [settings_of(given) for given in compare.VARIANTS.values()]
    made = [(settings, config or RestorerConfig()) for settings, config in made]
    assert len({str(each) for each in made}) == len(compare.VARIANTS), "two variants are the same"
