"""Streams that a language model of their tokens lets go on, and fills; the commands around it."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_frames

from tokcodec.cli import main
from tokcodec.compute import Compute
from tokcodec.edit import verify
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.language.generate import fill, predict
from tokcodec.language.model import load_model
from tokcodec.language.probe import probe
from tokcodec.language.sampler import Speech
from tokcodec.language.training import LearnSettings, learn, read_texts
from tokcodec.stream.container import write_stream
from tokcodec.stream.entropy import Tokens
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.records import MAX_TICKS, Chunk, Header
from tokcodec.stream_reader import open_stream
from tokcodec.tokenizer import Tokenizer
from tokcodec.weights import Weights, save_weights

STEP = 6.0
SHAPE = {"channels": 16, "layers": 2, "heads": 2, "head_channels": 16}
QUICK = LearnSettings(steps=6, batch=2)


def stream(
    path: Path, weights: Path, *clips: list[np.ndarray], chunk_frames: int = 17, begin: int = 0, spans: int | None = 4
) -> Path:
    """A stream of a chunk for each clip, at 30 frames/s and 600 ticks, from the tick `begin` on."""
    tokenizer = Tokenizer(Weights.load(weights))
    height, width = clips[0][0].shape[:2]
    header = Header(width, height, chunk_frames, tokenizer.weights.sha256, Fraction(1, 600), Fraction(30))
    chunks, at = [], 0
    for frames in clips:
        coded = tokenizer.pack(np.stack(frames), STEP, spans=spans)
        pts = tuple(begin + 20 * (at + i) for i in range(len(frames)))
        chunks.append(Chunk(len(frames), coded[0], int(16 * STEP), pts, 20, *coded[1:]))
        at += len(frames)
    with path.open("wb") as file:
        write_stream(file, header, chunks, lambda: (Metadata(language="deu"), ("nut", io.BytesIO(b"sound"))))
    return path


@pytest.fixture(autouse=True)
def own_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


@pytest.fixture(scope="module")
def made(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A stream of two chunks, 9 and 11 frames, and the folder of a model that has seen little of it."""
    folder = tmp_path_factory.mktemp("language")
    frames = moving_frames(20)
    source = stream(folder / "a.tokc", weights, frames[:9], frames[9:])
    learn([source], folder / "lm", settings=QUICK, weights=weights, compute=Compute("cpu", "float32"), shape=SHAPE)
    return source, folder / "lm"


def tokens_of(path: Path) -> list[Tokens]:
    with open_stream(path) as opened:
        return list(opened.tokens())


def times_of(path: Path) -> list[tuple[int, int]]:
    with open_stream(path, compute=Compute("cpu")) as opened:
        return [(pts, duration) for _, pts, duration in opened.frames()]


def test_a_predicted_stream_goes_on_where_it_ended(made: tuple[Path, Path], tmp_path: Path) -> None:
    source, model = made
    report = predict(source, tmp_path / "b.tokc", 0.5, model=model)
    assert report.frames == 9 + 29  # 15 frames behind 11 are 26, in whole spans 29
    assert report.other_bytes > 0
    assert verify(tmp_path / "b.tokc").frames == 38
    before, after = tokens_of(source), tokens_of(tmp_path / "b.tokc")
    assert before[1].spans.tolist() == [4, 4, 2]
    for mine, theirs in zip(before[0], after[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(before[1].levels[:, :9], after[1].levels[:, :9])
    np.testing.assert_array_equal(before[1].motion[:8], after[1].motion[:8])
    assert after[1].spans.tolist() == [4] * 7  # the span of two is replaced
    assert after[1].numbers.tolist() == [*before[1].numbers[:9], *before[1].numbers[5:9].tolist() * 5]
    assert times_of(tmp_path / "b.tokc") == [(20 * i, 20) for i in range(38)]
    with (
        open_stream(source, compute=Compute("cpu")) as a,
        open_stream(tmp_path / "b.tokc", compute=Compute("cpu")) as b,
    ):
        pairs = list(zip(a.frames(end_s=18 / 30), b.frames(), strict=False))
    assert len(pairs) == 18  # all up to the last whole span
    assert all(np.array_equal(x[0], y[0]) for x, y in pairs)
    with open_stream(tmp_path / "b.tokc") as opened:
        assert opened.header.chunk_frames == 29  # more than the 17 of the source
        assert opened.metadata.language == "deu"


def test_what_is_drawn_follows_from_the_seed(made: tuple[Path, Path], tmp_path: Path) -> None:
    source, model = made
    for name, seed in (("b", 3), ("c", 3), ("d", 4)):
        predict(source, tmp_path / name, 0.3, model=model, speech=Speech(2, 1.0, seed))
    b, c, d = ((tmp_path / name).read_bytes() for name in "bcd")
    assert b == c
    assert b != d


def test_a_gap_is_filled_between_its_ends(made: tuple[Path, Path], tmp_path: Path) -> None:
    source, model = made
    report = fill(source, tmp_path / "b.tokc", 1 / 30, 4 / 30, model=model, speech=Speech(2, 1.0, 0))
    assert (report.frames, report.chunks) == (20, 3)
    assert verify(tmp_path / "b.tokc").frames == 20
    assert times_of(tmp_path / "b.tokc") == [(20 * i, 20) for i in range(20)]
    before, after = tokens_of(source), tokens_of(tmp_path / "b.tokc")
    np.testing.assert_array_equal(before[0].levels[:, 0], after[0].levels[:, 0])
    assert not np.array_equal(before[0].levels[:, 1], after[0].levels[:, 1])
    np.testing.assert_array_equal(before[1].levels, after[2].levels)
    with (
        open_stream(source, compute=Compute("cpu")) as a,
        open_stream(tmp_path / "b.tokc", compute=Compute("cpu")) as b,
    ):
        pairs = list(zip(a.frames(), b.frames(), strict=True))
    error = [np.abs(x[0].astype(int) - y[0]).mean() for x, y in pairs]
    assert error[0] == 0
    assert max(error[5:9]) < 12  # coded again from what was decoded
    assert max(error[9:]) == 0
    assert all((t.spans[: (t.levels.shape[1] - 1) // 4] == 4).all() for t in after), "it can be filled again"


def test_a_gap_at_the_end_of_a_chunk_makes_no_new_chunk(made: tuple[Path, Path], tmp_path: Path) -> None:
    source, model = made
    assert fill(source, tmp_path / "b.tokc", 6 / 30, 3 / 30, model=model).chunks == 2


def test_a_gap_at_frames_that_are_no_span_of_four_is_filled(made: tuple[Path, Path], tmp_path: Path) -> None:
    """The last two frames of the stream."""
    source, model = made
    report = fill(source, tmp_path / "b.tokc", 18 / 30, 1 / 30, model=model, speech=Speech(2, 1.0, 0))
    assert (report.frames, report.chunks) == (20, 3)
    assert times_of(tmp_path / "b.tokc") == [(20 * i, 20) for i in range(20)]
    before, after = tokens_of(source), tokens_of(tmp_path / "b.tokc")
    np.testing.assert_array_equal(before[1].levels[:, :9], after[1].levels)
    assert [t.levels.shape[1] for t in after] == [9, 9, 2]


def test_streams_of_other_spans_are_refused(made: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    source = stream(tmp_path / "a.tokc", weights, moving_frames(9), spans=8)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.tokc").write_bytes(source.read_bytes())
    for work in (
        lambda: predict(source, tmp_path / "b.tokc", 0.5, model=made[1]),
        lambda: fill(source, tmp_path / "b.tokc", 0.1, 0.1, model=made[1]),
        lambda: learn([source], tmp_path / "lm", settings=QUICK, weights=weights, compute=Compute("cpu"), shape=SHAPE),
        lambda: probe(tmp_path, model=made[1], compute=Compute("cpu")),
    ):
        with pytest.raises(TokcodecError, match=r"a\.tokc: its spans .* not of four frames: encode it with --spans 4$"):
            work()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tokc", "x"]
    short = stream(tmp_path / "short.tokc", weights, moving_frames(4), spans=2)
    with pytest.raises(TokcodecError, match="no streams of five frames or more"):
        learn([short], tmp_path / "lm", settings=QUICK, weights=weights, compute=Compute("cpu"), shape=SHAPE)
    assert predict(short, tmp_path / "b.tokc", 0.1, model=made[1]).frames == 9  # behind the first frame


@pytest.mark.parametrize(("start", "duration"), [(0.0, 0.1), (0.2, 0.3), (0.3, 0.1), (9.0, 1.0), (0.05, 0.001)])
def test_gaps_that_cannot_be_filled_are_refused(
    made: tuple[Path, Path], tmp_path: Path, start: float, duration: float
) -> None:
    with pytest.raises(TokcodecError, match="a gap has frames of one chunk"):
        fill(made[0], tmp_path / "b.tokc", start, duration, model=made[1])
    assert not list(tmp_path.iterdir())


def test_a_model_of_other_tokens_is_refused(made: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    arrays = dict(Weights.load(weights).arrays)
    arrays["klt"] = -arrays["klt"]
    save_weights(tmp_path / "other.safetensors", None, arrays)
    source = stream(tmp_path / "a.tokc", tmp_path / "other.safetensors", moving_frames(5))
    with pytest.raises(ModelError, match="other weights' tokens"):
        predict(source, tmp_path / "b.tokc", 1, model=made[1], weights=tmp_path / "other.safetensors")


def test_a_stream_at_the_end_of_its_clock_does_not_go_on(
    made: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    source = stream(tmp_path / "a.tokc", weights, moving_frames(5), begin=MAX_TICKS - 5 * 20)
    with pytest.raises(TokcodecError, match=r"a\.tokc: its last timestamps would be out of range"):
        predict(source, tmp_path / "b.tokc", 0.1, model=made[1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.tokc"]


def test_a_chunk_longer_than_the_format_allows_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(TokcodecError, match="chunk_frames must be 1 to 4096"):
        predict(made[0], tmp_path / "b.tokc", 1000, model=made[1])


def test_a_run_goes_on_as_if_it_had_not_stopped(made: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    source, _ = made
    options = {"weights": weights, "compute": Compute("cpu", "float32"), "shape": SHAPE}
    half = LearnSettings(steps=12, batch=2)
    whole, steps = learn([source], tmp_path / "whole", settings=half, **options)
    assert steps == 12
    calls = 0
    before = torch.optim.AdamW.step

    def stopping(self: torch.optim.AdamW, *args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 5:
            signal.raise_signal(signal.SIGTERM)
        return before(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stopping)
        _, steps = learn([source], tmp_path / "parts", settings=half, **options)
    assert steps == 5
    shutil.copytree(tmp_path / "parts", tmp_path / "shorter")
    _, steps = learn([source], tmp_path / "shorter", settings=LearnSettings(steps=6, batch=2), **options)
    assert steps == 9  # 7/12 of the schedule were left, and four steps of a sixth do them
    again, steps = learn([source], tmp_path / "parts", settings=half, **options)
    assert steps == 12
    for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ModelError, match="another configuration"):
        learn([source], tmp_path / "parts", settings=half, **options | {"shape": SHAPE | {"channels": 32}})


def test_probes_tell_bright_from_dark(made: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    for name, factor in (("bright", 1.0), ("dark", 0.3)):
        (tmp_path / name).mkdir()
        for i in range(6):
            frames = [(np.roll(f, 5 * i, 1) * factor).astype(np.uint8) for f in moving_frames(5)]
            stream(tmp_path / name / f"{i // 2}-{i % 2}.tokc", weights, frames)
    result = probe(tmp_path, model=made[1], compute=Compute("cpu"))
    assert {k: result[k] for k in ("classes", "streams", "clips", "chance")} == {
        "classes": 2,
        "streams": 12,
        "clips": 6,
        "chance": 0.5,
    }
    assert min(result[f"{kind}_{name}"] for kind in ("linear", "attention") for name in ("tokens", "pixels")) > 0.9
    assert probe(tmp_path, model=made[1], compute=Compute("cpu")) == result
    (tmp_path / "dark" / ".tokcodec.ab.partial.tokc").write_bytes(b"unfinished")
    assert probe(tmp_path, model=made[1], compute=Compute("cpu")) == result
    read_texts([tmp_path], weights)
    with pytest.raises(TokcodecError, match="two at least"):
        probe(tmp_path / "dark", model=made[1])


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tokcodec", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    return int(exit.value.code or 0)


def test_commands(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, model = str(made[0]), str(made[1])
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "lm", "learn", source, "--out", "lm", "--steps", "1", "--batch", "1") == 0
    assert capsys.readouterr().out.startswith("lm: 1 steps, ")
    assert load_model(tmp_path / "lm").config.blocks == (384, 24)
    assert command(monkeypatch, "lm", "predict", source, "b.tokc", "--seconds", "0.1", "--lm", model, "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 9 + 17  # 3 frames behind 11 are 14, in whole spans 17
    assert command(monkeypatch, "lm", "predict", source, "b.tokc", "--seconds", "0.1", "--lm", model) == 1
    assert "b.tokc: exists already" in capsys.readouterr().err
    gap = ("--start", "0.04", "--duration", "0.1", "--lm", model)
    assert command(monkeypatch, "lm", "fill", source, "c.tokc", *gap) == 0
    assert capsys.readouterr().out.startswith("c.tokc: 20 frames, ")
    assert command(monkeypatch, "lm", "fill", source, "d.tokc", "--start", "0", "--duration", "1", "--lm", model) == 1
    error = capsys.readouterr().err
    assert error.startswith("tokcodec: ")
    assert error.count("\n") == 1
    assert command(monkeypatch, "lm", "predict", source, "d.tokc", "--lm", model) == 2
    assert command(monkeypatch, "lm", "probe", str(made[0].parent), "--lm", model) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tokc", "c.tokc", "lm"]


def test_a_speech_out_of_range_is_an_error() -> None:
    for values in ((0, 0.0, 0), (1, -1.0, 0), (1, float("nan"), 0), (1, 0.0, -1)):
        with pytest.raises(ValueError, match="steps"):
            Speech(*values)
