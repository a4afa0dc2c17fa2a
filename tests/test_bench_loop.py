"""The loop alone stands beside the whole codec: of the same bytes, with pictures of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY, MakeClip, loop_arrays, moving_frames

from benchmarks import run
from benchmarks.codecs import LFQ, LOOP
from benchmarks.points import read_points
from benchmarks.report import write_tables
from benchmarks.tables import load_points
from benchmarks.tools import Finished
from benchmarks.tools import run as run_program
from tokcodec.cli import cli
from tokcodec.restorer.network import Restorer
from tokcodec.weights import save_weights


def in_process(argv: Sequence[str], cwd: Path | None = None) -> Finished:
    """As `tools.run`, but tokcodec runs in this process: to start Python and torch five times takes longer."""
    if Path(argv[0]).name != "tokcodec":
        return run_program(argv, cwd)
    result = CliRunner().invoke(cli, argv[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Finished(1.0, 0, result.stdout, result.stderr)


def test_one_run_makes_both_rows_of_one_stream(
    make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Restorer(TINY)
    torch.nn.init.constant_(network.pixel_out.bias, 0.1)
    save_weights(tmp_path / "w.safetensors", network, loop_arrays())
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(tmp_path / "w.safetensors"))
    monkeypatch.setattr(run, "run", in_process)
    monkeypatch.setattr(run, "write_report", lambda out, frames: write_tables(load_points(out), out, "tokcodec"))
    clip = make_clip("clip.mp4", moving_frames(6, 96, 128))
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--threads", "1", "--lpips=alex"]
    arguments = ["--codecs", f"tokcodec,{LOOP},{LFQ}"]
    for codec in ("tokcodec", LOOP, LFQ):
        arguments += ["--rates", f"{codec}=20"]
    result = CliRunner().invoke(run.main, [str(clip), *arguments, *places, "--lpips-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    points = read_points(tmp_path / "out")
    ours, alone = points["clip_128x96_6f__tokcodec__20"], points[f"clip_128x96_6f__{LOOP}__20"]
    assert ours["stream_sha256"] == alone["stream_sha256"]
    assert ours["bytes"] == alone["bytes"]
    assert ours["encode"] == alone["encode"], "it was coded once"
    assert ours["pixels_sha256"] != alone["pixels_sha256"]
    assert set(ours["metrics"]) == set(alone["metrics"])
    assert len(list((tmp_path / "work/streams").glob("*.tokc"))) == 2
    integers = points[f"clip_128x96_6f__{LFQ}__20"]
    assert integers["bytes"] != ours["bytes"]
    assert integers["metrics"]["psnr_rgb_db"]["mean"] > 20
    tables = (tmp_path / "out/tables.md").read_text()
    assert f"| {LOOP} | the same streams by the coding loop alone" in tables
    assert str(tmp_path) not in (tmp_path / "out/points.json").read_text()
