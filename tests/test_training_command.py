"""`tokcodec train` from the command line: a folder in, weights out, and a run that goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from test_training import Distance

from tokcodec.cli import cli
from tokcodec.model import Tokenizer, TokenizerConfig
from tokcodec.training import train

SHAPE = ["--dims", "8", "--planes", "2", "--channels", "16,32", "--encoder-blocks", "1,1", "--decoder-blocks", "1,1"]
SIZE = ["--crop", "32", "--batch", "1", "--frames", "5,9", "--device", "cpu", "--dtype", "float32", "--threads", "1"]


@pytest.fixture
def data(footage: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos, and no LPIPS but a stand-in."""
    monkeypatch.setattr(train, "load_lpips", lambda *_: Distance())
    return footage


def invoke(*words: object) -> Result:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(cli, ["train", *map(str, words)])
    torch.set_num_threads(threads)
    return result


def test_both_stages_from_a_folder_to_weights(data: Path, tmp_path: Path) -> None:
    base, second = tmp_path / "base", tmp_path / "second"
    line = ["--holdout", "two*", "--eval", data, *SIZE]
    result = invoke(data, "--out", base, *line, *SHAPE, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("tokcodec")]
    assert result.stdout.startswith(f"{base}: 2 steps, ")
    assert result.stdout.endswith("100.0% of the schedule\n")
    assert {path.name for path in base.iterdir()} == {
        *("cache", "checkpoint.pt", "weights.safetensors"),
        *("eval.jsonl", "val.png", "eval.png"),
    }
    result = invoke(data, "--out", base, *line, *SHAPE, "--steps", 4)
    assert "2 steps" in result.stdout, "a run that is at its end stays there"
    options = ["--stage", "adversarial", "--init", base / "checkpoint.pt", "--cache", base / "cache", "--steps", 2]
    result = invoke(data, "--out", second, *line, *options)
    assert result.exit_code == 0, result.output
    model = Tokenizer.load(second / "weights.safetensors")
    assert model.config == TokenizerConfig(8, 2, (16, 32), (1, 1), (1, 1))
    bits = model.encode(torch.zeros(1, 3, 5, 32, 32))
    assert torch.equal(bits, Tokenizer.load(base / "weights.safetensors").encode(torch.zeros(1, 3, 5, 32, 32)))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--finish"], 2, "--finish needs --minutes"),
        (["--frames", "9,16"], 2, "1 + 4n frames"),
        (["--frames", "9;16"], 2, "not a list of numbers"),
        (["--crop", "40"], 2, "multiple of 16"),
        (["--channels", "1,2,3"], 2, "not 2 numbers"),
        (["--dims", "64", "--planes", "2"], 2, "out of range"),
        (["--stage", "adversarial"], 1, "needs --init"),
        (["--init", "w.safetensors", "--dims", "8"], 1, "brings its own shape"),
        (["--holdout", "three*"], 1, "no file matches"),
        (["--frames", "65", *SHAPE], 1, "no segment has 65 frames"),
    ],
)
def test_mistakes(data: Path, tmp_path: Path, words: list[str], code: int, message: str) -> None:
    result = invoke(data, "--out", tmp_path / "out", *SIZE, *words)
    assert result.exit_code == code
    assert message in result.output + str(result.exception)
    assert not list(tmp_path.glob("out/*.pt"))


def test_a_folder_that_cannot_be_written_is_one_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke(data, "--out", tmp_path / "file" / "run", "--cache", tmp_path / "cache", *SIZE, *SHAPE)
    assert result.exit_code == 1
    assert "cannot write" in str(result.exception)
    assert np.load(tmp_path / "cache" / "one.npy").shape == (1, 33, 48, 48, 3)
