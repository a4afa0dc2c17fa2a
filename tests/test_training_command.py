"""`tokcodec train` from the command line: a folder in, weights out, and a run that goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import moving_frames
from test_training import Distance, coarse

from tokcodec.cli import cli
from tokcodec.coding.planes import from_rgb
from tokcodec.restorer.network import RestorerConfig
from tokcodec.tokenizer import Tokenizer
from tokcodec.training import train
from tokcodec.weights import Weights, save_weights

SHAPE = ["--channels", "16,24", "--blocks", "1,1,0", "--features", "4", "--pixel-channels", "16", "--pixel-blocks", "1"]
SIZE = ["--crop", "32", "--batch", "1", "--frames", "5,9", "--device", "cpu", "--dtype", "float32", "--threads", "1"]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    path = tmp_path / "tables.safetensors"
    save_weights(path, None, {"klt.next": np.arange(4, dtype=np.int16)})
    return path


@pytest.fixture
def data(footage: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos, and neither LPIPS nor a loop but stand-ins."""
    monkeypatch.setattr(train, "load_lpips", lambda *_: Distance())
    monkeypatch.setattr(train, "coding_loop", lambda weights: coarse if len(weights.arrays) else None)
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(tables))
    return footage


def invoke(*words: object) -> Result:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(cli, ["train", *map(str, words)])
    torch.set_num_threads(threads)
    return result


def test_from_a_folder_to_weights_and_on(data: Path, tmp_path: Path) -> None:
    base, second = tmp_path / "base", tmp_path / "second"
    line = ["--holdout", "two*", "--eval", data, *SIZE]
    before = set(threading.enumerate())  # other tests leave some
    result = invoke(data, "--out", base, *line, *SHAPE, "--steps", 2)
    assert result.exit_code == 0, result.output
    started = set(threading.enumerate()) - before
    assert not [thread.name for thread in started if thread.name.startswith("tokcodec")]
    assert result.stdout.startswith(f"{base}: 2 steps, ")
    assert result.stdout.endswith("100.0% of the schedule\n")
    assert {path.name for path in base.iterdir()} == {
        *("cache", "checkpoint.pt", "weights.safetensors"),
        *("eval.jsonl", "val.png", "eval.png"),
    }
    result = invoke(data, "--out", base, *line, *SHAPE, "--steps", 4)
    assert "2 steps" in result.stdout, "a run that is at its end stays there"
    assert f"{base} goes on at step 2\n" in result.stderr
    for init in ("checkpoint.pt", "weights.safetensors"):
        options = ["--init", base / init, "--cache", base / "cache", "--steps", 1]
        result = invoke(data, "--out", second / init, *line, *options)
        assert result.exit_code == 0, result.output
        weights = Weights.load(second / init / "weights.safetensors")
        assert weights.restorer().config == RestorerConfig((16, 24), (1, 1, 0), 4, 16, 1)
        assert weights.arrays["klt.next"].tolist() == [0, 1, 2, 3], "the tables go with the network"
        result = invoke(data, "--out", tmp_path / "third", *SIZE, *options, "--features", 8)
        assert "brings its own shape" in str(result.exception)


def test_the_loop_that_is_learned_from_is_the_codec_s(weights: Path) -> None:
    """Also of steps that no stream can say: they are rounded as the codec would."""
    found = Weights.load(weights)
    frames = np.stack(moving_frames(9, 48, 64))
    (original, base, prediction), steps, of_frames = train.coding_loop(found)(frames, 12.01)
    coding = Tokenizer(found).encode(frames, 12)
    shown = list(Tokenizer(found).loop.decode(coding.tokens.in_order(), 12))
    assert steps.tolist() == [frame.step for frame in shown]
    assert of_frames.tolist() == [frame.kind for frame in shown]
    for given, wanted in ((original, from_rgb(frames)), (base, coding.base), (prediction, coding.prediction)):
        assert all(np.array_equal(a, b) for a, b in zip(given, wanted, strict=True))


def test_without_a_loop_there_is_nothing_to_learn_from(footage: Path, tables: Path, tmp_path: Path) -> None:
    result = invoke(footage, "--out", tmp_path / "out", "--tables", tables, *SIZE)
    assert result.exit_code == 1
    assert "tables.safetensors: these weights hold no klt" in str(result.exception)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--finish"], 2, "--finish needs --minutes"),
        (["--frames", "9,16"], 2, "1 + 4n frames"),
        (["--frames", "9;16"], 2, "not a list of numbers"),
        (["--crop", "40"], 2, "multiple of 16"),
        (["--channels", "1,2,3"], 2, "not 2 numbers"),
        (["--channels", "64,9999"], 2, "out of range"),
        (["--step-range", "9,4"], 2, "steps go from"),
        (["--eval-steps", "0,12"], 2, "--eval-steps are above 0"),
        (["--init", "absent.safetensors"], 1, "cannot read weights"),
        (["--holdout", "three*"], 1, "no file matches"),
        (["--frames", "65", *SHAPE], 1, "no segment has 65 frames"),
    ],
)
def test_mistakes(data: Path, tmp_path: Path, words: list[str], code: int, message: str) -> None:
    result = invoke(data, "--out", tmp_path / "out", *SIZE, *words)
    assert result.exit_code == code
    assert message in result.output + str(result.exception)
    assert not list(tmp_path.glob("out/*.pt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--init", "absent.pt"], "absent.pt: not a checkpoint"),
        (["--eval", "absent"], "absent: no video to evaluate on"),
    ],
)
def test_what_is_wrong_is_said_before_the_data_is_coded(
    data: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    result = invoke(data, "--out", tmp_path / "out", *SIZE, *words)
    assert result.exit_code == 1
    assert message in str(result.exception)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_folder_that_cannot_be_written_is_one_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke(data, "--out", tmp_path / "file" / "run", "--cache", tmp_path / "cache", *SIZE, *SHAPE)
    assert result.exit_code == 1
    assert "cannot write" in str(result.exception)
    assert np.load(tmp_path / "cache" / "one.npy").shape == (1, 33, 48, 48, 3)
