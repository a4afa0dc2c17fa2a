"""The loop alone stands beside the whole codec: of the same bytes, with pictures of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import MakeClip, moving_frames

import tokcodec
from benchmarks import loop, run
from benchmarks.codecs import LOOP
from benchmarks.points import read_points
from tokcodec.neural.planes import to_rgb
from tokcodec.neural.tokenizer import Tokenizer
from tokcodec.neural.weights import Weights
from tokcodec.opening import reading, tokens_of


def test_its_frames_are_the_plain_base(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    stream = tmp_path / "a.tokc"
    tokcodec.encode_video(make_clip("in.mp4", moving_frames(9)), stream, weights=weights)
    tokenizer = Tokenizer(Weights.load(weights))
    with reading(stream) as reader:
        shown = np.stack(list(loop.loop_frames(stream, reader)))
        chunk = reader.read_chunk(0)
        tokens = tokens_of(chunk, reader.header.height, reader.header.width, tokenizer.tables)
        size = reader.header.height, reader.header.width
    bases = [base for base, _ in tokenizer.loop.decode(tokens.in_order(), chunk.step / 16)]
    assert np.array_equal(shown, np.concatenate([to_rgb(base, *size) for base in bases]))
    restored = np.stack([frame for frame, _, _ in _frames(stream, weights)])
    assert restored.shape == shown.shape
    assert not np.array_equal(restored, shown), "the weights hold a network, and know it still"


def _frames(stream: Path, weights: Path) -> list[tuple[np.ndarray, int, int]]:
    with tokcodec.open_stream(stream, weights=weights) as opened:
        return list(opened.frames())


def test_one_run_makes_both_rows_of_one_stream(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    clip = make_clip("clip.mp4", moving_frames(6, 96, 128))
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--threads", "1", "--lpips=alex"]
    arguments = ["--codecs", f"tokcodec,{LOOP}", "--rates", "tokcodec=20", "--rates", f"{LOOP}=20"]
    result = CliRunner().invoke(run.main, [str(clip), *arguments, *places, "--lpips-dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    points = read_points(tmp_path / "out")
    ours, alone = points["clip_128x96_6f__tokcodec__20"], points[f"clip_128x96_6f__{LOOP}__20"]
    assert ours["stream_sha256"] == alone["stream_sha256"]
    assert ours["bytes"] == alone["bytes"]
    assert ours["encode"] == alone["encode"], "it was coded once"
    assert ours["pixels_sha256"] != alone["pixels_sha256"]
    assert set(ours["metrics"]) == set(alone["metrics"])
    assert len(list((tmp_path / "work/streams").glob("*.tokc"))) == 1
    tables = (tmp_path / "out/tables.md").read_text()
    assert f"| {LOOP} | the same streams by the coding loop alone" in tables
    assert str(tmp_path) not in (tmp_path / "out/points.json").read_text()


def test_a_stream_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tokc").write_text("no stream")
    result = CliRunner().invoke(loop.main, [str(tmp_path / "a.tokc"), str(tmp_path / "a.mkv")])
    assert result.exit_code == 1
    assert "a.tokc" in result.stderr
