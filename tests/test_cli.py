"""The command line as a user meets it: one line, the right exit code, nothing half done."""

import contextlib
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
import torch
from conftest import MakeClip, frames_of, moving_frames, times_of, with_sound, without_progress

import tokcodec
from tokcodec.cli import cli, main
from tokcodec.cli import play as playing
from tokcodec.cli.options import Amount, Seconds, Within
from tokcodec.cli.streams import _clock, _size
from tokcodec.cli.terminal import Meter, Warnings, frames_meter
from tokcodec.compute import Compute
from tokcodec.restorer.network import Restorer, RestorerConfig
from tokcodec.video import VideoInfo, VideoWriter
from tokcodec.weights import Weights, save_weights

PATIENCE_S = 600  # for what should take seconds, on a machine that may be busy


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(weights: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command line in this process, in the test's folder."""
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["tokcodec", *arguments])
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.getsignal(number) for number in numbers]
        with pytest.raises(SystemExit) as exit:
            main()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        captured = capfd.readouterr()
        return Result(int(exit.value.code or 0), captured.out, captured.err)

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_there_and_back(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(40))
    result = run("encode", "in.mp4", "a.tokc")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("a.tokc: 40 frames, ")
    assert result.out.count("\n") == 1
    assert run("verify", "a.tokc").code == 0
    assert run("decode", "a.tokc", "out.mp4").code == 0
    assert len(frames_of(tmp_path / "out.mp4")) == 40
    assert names(tmp_path) == ["a.tokc", "in.mp4", "out.mp4"]


def test_outputs_without_a_name_stand_beside_the_input(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make_clip("in/a.b.mp4", moving_frames(3))
    assert run("encode", "in/a.b.mp4").out.startswith("in/a.b.tokc: 3 frames, ")
    assert run("decode", "in/a.b.tokc").out.startswith("in/a.b.decoded.mp4: 3 frames ")
    assert run("decode", "in/a.b.tokc", "--lossless").code == 0
    made = ["a.b.decoded.mkv", "a.b.decoded.mp4", "a.b.mp4", "a.b.tokc"]
    assert names(tmp_path / "in") == made
    for arguments in (["encode", "in/a.b.mp4"], ["decode", "in/a.b.tokc"]):
        result = run(*arguments)
        assert result.code == 1
        assert result.err.endswith(": exists already; -f overwrites it\n")
        assert run(*arguments, "-f").code == 0
    os.mkfifo(tmp_path / "pipe")
    for arguments in (["encode", "-"], ["encode", "pipe"], ["decode", "-"]):
        result = run(*arguments)
        assert (result.code, result.out) == (2, "")
        assert "Missing argument 'OUTPUT'" in result.err
    assert run("encode", "in").err == "tokcodec: in: is a folder; batch is for those\n"
    assert run("encode", "absent.mp4").err == "tokcodec: absent.mp4: No such file or directory\n"
    assert names(tmp_path / "in") == made


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("decode a.tokc b.mp4 --format rgb24", "--format is for stdout"),
        ("decode a.tokc b.mkv --lossless --crf 3", "--crf is for H.264"),
        ("decode a.tokc %d.png --crf 3", "--crf is for H.264"),
        ("decode a.tokc b.gif --vcodec gif", "--vcodec is for H.264"),
        ("decode a.tokc b.mkv --lossless --vcodec ffv1", "--vcodec is for H.264"),
        ("batch in out --to mkv", "--to is for --decode"),
        ("batch in out --crf 12", "--crf is for --decode"),
        ("tokens a.tokc a.npz --shard-samples 5", "--shard-samples is for --webdataset"),
        ("tokens a.tokc a.npz --shard-size 1G", "--shard-size is for --webdataset"),
        ("encode a.mp4 --crf 20", "there is no --crf for a stream: --quality is 1 (small) to 8 (best)"),
        ("encode a.mp4 b.mp4", "b.mp4: a stream is no .mp4 file; its name ends in .tokc"),
        ("trim a.tokc b.MKV", "b.MKV: a stream is no .mkv file"),
        ("concat a.tokc a.tokc b.mov", "b.mov: a stream is no .mov file"),
        ("roundtrip a.mp4 b.mp4 --stream c.png", "c.png: a stream is no .png file"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run: Run, line: str, why: str) -> None:
    result = run(*line.split())
    assert (result.code, result.out) == (2, "")
    assert why in result.err


def test_a_gpu_without_memory_is_told_in_a_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr("tokcodec.codec.encode_video", full)
    result = run("encode", "a.mp4")
    assert (result.code, result.out, result.err) == (1, "", "tokcodec: out of memory\n")


def test_a_gpu_that_is_not_there_is_told_before_the_work(
    run: Run, make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make_clip("in.mp4", moving_frames(3))
    line = "tokcodec: no CUDA device is available; choose the CPU\n"
    assert run("encode", "in.mp4", "--device", "cuda") == Result(1, "", line)
    assert run("batch", ".", "out", "--device", "cuda") == Result(1, "", line)
    assert names(tmp_path) == ["in.mp4"]


def test_a_target_without_a_suffix_is_told_in_a_line(run: Run, make_clip: MakeClip) -> None:
    make_clip("in.mp4", moving_frames(3))
    run("encode", "in.mp4")
    line = "tokcodec: out: cannot write a file without a suffix, only mp4,"
    assert run("decode", "in.tokc", "out").err.startswith(line)


def test_threads_hold_for_what_is_written(run: Run, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip("in.mp4", moving_frames(3))
    run("encode", "in.mp4")
    given, init = [], VideoWriter.__init__

    def noted(self: VideoWriter, *arguments: Any, **options: Any) -> None:
        given.append(options["threads"])
        init(self, *arguments, **options)

    monkeypatch.setattr(VideoWriter, "__init__", noted)
    assert run("decode", "in.tokc", "--threads", "1").code == 0
    assert run("decode", "in.tokc", "-f").code == 0
    assert given == [1, 0]


def test_names_as_long_as_a_file_system_takes(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(2))
    for suffix in ("tokc", "mp4", "npz"):
        name = (250 - len(suffix)) * "n" + "." + suffix
        command = {"tokc": ["encode", "in.mp4"], "mp4": ["decode", "in.tokc"], "npz": ["tokens", "in.tokc"]}[suffix]
        assert run(*command, name).code == 0
        assert (tmp_path / name).stat().st_size > 0
        run("encode", "in.mp4", "-f")
    result = run("encode", "in.mp4", 300 * "n")
    assert (result.code, result.err) == (1, f"tokcodec: {300 * 'n'}: cannot write: File name too long\n")


def test_decode_writes_what_is_asked_for(
    run: Run, make_clip: MakeClip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_clip("in.mp4", moving_frames(20))
    run("encode", "in.mp4", "a.tokc")
    result = run("decode", "a.tokc", "still.png", "--start", "0.2", "--json")
    assert caplog.messages == ["still.png: takes the first frame only; still-%05d.png would take all"]
    assert (result.code, json.loads(result.out)["frames"]) == (0, 1)
    run("decode", "a.tokc", "frames/%d.png")
    assert np.array_equal(frames_of(tmp_path / "still.png")[0], frames_of(tmp_path / "frames/7.png")[0])
    assert run("decode", "a.tokc", "out.mkv", "--vcodec", "libx265", "--crf", "20").code == 0
    assert len(frames_of(tmp_path / "out.mkv")) == 20
    assert run("decode", "a.tokc", "out.gif").out.startswith("out.gif: 20 frames")
    result = run("decode", "a.tokc", "out.mp4", "--vcodec", "h266")
    assert (result.code, result.err) == (1, "tokcodec: out.mp4: this FFmpeg has no video encoder h266\n")
    assert names(tmp_path) == ["a.tokc", "frames", "in.mp4", "out.gif", "out.mkv", "still.png"]


def test_json_says_what_the_file_says(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(40))
    report = json.loads(run("encode", "in.mp4", "a.tokc", "--step", "24", "--json").out)
    facts = json.loads(run("info", "a.tokc", "--json").out)
    assert report["output"] == "a.tokc"
    assert facts["step"] == report["step"] == [24, 24]
    assert facts["bytes"] == report["bytes"] == (tmp_path / "a.tokc").stat().st_size
    assert facts["bpp"] == report["bpp"]
    assert "40 in 1 chunk of at most 257" in run("info", "a.tokc").out


def test_the_sound_is_told_apart(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    with_sound(make_clip("v.mp4", moving_frames(40)), tmp_path / "in.mp4")
    report = json.loads(run("encode", "in.mp4", "a.tokc", "--json").out)
    assert report["video_bytes"] + report["other_bytes"] == report["bytes"] == (tmp_path / "a.tokc").stat().st_size
    assert report["bpp"] == round(8 * report["video_bytes"] / (64 * 48 * 40), 6)
    line = run("verify", "a.tokc").out
    assert f", {report['bytes']} bytes ({report['other_bytes']} of other streams), {report['bpp']:.4f} bpp, " in line
    run("encode", "v.mp4", "b.tokc")
    assert "other streams" not in run("verify", "b.tokc").out


def test_rates(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(40))
    for options, step in ((["-q", "8"], 12), (["--step", "5"], 5), ([], 63.875), (["--quality", "1"], 224)):
        assert run("encode", "in.mp4", "a.tokc", "-f", *options).code == 0
        assert json.loads(run("info", "a.tokc", "--json").out)["step"] == [step, step]
    assert run("encode", "in.mp4", "b.tokc", "--target-size", "2Ki").code == 0
    assert (tmp_path / "b.tokc").stat().st_size <= 2048
    assert run("encode", "in.mp4", "c.tokc", "--bitrate", "10k").code == 0
    assert json.loads(run("info", "c.tokc", "--json").out)["kbps"] <= 10
    assert run("encode", "in.mp4", "d.tokc", "--target-psnr", "15").code == 0
    assert run("encode", "in.mp4", "e.tokc", "--bitrate", "1").code == 1
    for options in (
        ["--step", "3", "--quality", "4"],
        ["--step", "0"],
        ["--step", "nan"],
        ["-q", "9"],
        ["--bitrate", "fast"],
        ["--bitrate", "9" * 400],
        ["--target-size", "0.5"],
        ["--target-size", "9" * 305 + "g"],
        ["--target-lpips", "inf"],
        ["--target-psnr", "nan"],
    ):
        result = run("encode", "in.mp4", "e.tokc", *options)
        assert result.code == 2
        assert "Error: " in result.err
    assert names(tmp_path) == ["a.tokc", "b.tokc", "c.tokc", "d.tokc", "in.mp4"]


@pytest.mark.parametrize("missing", ["lpips", "alexnet_features.safetensors"])
def test_a_target_in_lpips_without_lpips_is_one_line(
    run: Run, make_clip: MakeClip, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip("in.mp4", moving_frames(2))
    if missing == "lpips":
        monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setenv("TOKCODEC_LPIPS_DIR", str(tmp_path))
    result = run("encode", "in.mp4", "a.tokc", "--target-lpips", ".3")
    assert result.code == 1
    assert result.err.startswith("tokcodec: LPIPS")
    assert missing in result.err
    assert result.err.count("\n") == 1
    assert names(tmp_path) == ["in.mp4"]


def test_trim_concat_and_tokens(run: Run, make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    make_clip("in.mp4", moving_frames(70))
    run("encode", "in.mp4", "a.tokc")
    assert run("trim", "a.tokc", "b.tokc", "--duration", "1.1").code == 0
    assert run("trim", "a.tokc", "c.tokc", "--start", "00:00:01.1").code == 0
    assert run("concat", "b.tokc", "c.tokc", "d.tokc").code == 0
    assert (tmp_path / "d.tokc").read_bytes() == (tmp_path / "a.tokc").read_bytes()
    assert run("tokens", "a.tokc", "a.npz").code == 0
    assert run("tokens", "a.npz", "e.tokc").code == 0
    assert (tmp_path / "e.tokc").read_bytes() == (tmp_path / "a.tokc").read_bytes()
    assert run("tokens", "a.tokc", "b.NPZ").code == 0
    assert run("tokens", "b.NPZ", "f.tokc").code == 0
    assert (tmp_path / "f.tokc").read_bytes() == (tmp_path / "a.tokc").read_bytes()
    assert len(names(tmp_path)) == 9  # no other file was left


@pytest.mark.parametrize("text", ["not a video", ""])
def test_errors_are_one_line(run: Run, make_clip: MakeClip, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    make_clip("in.mp4", moving_frames(3))
    run("encode", "in.mp4", "good.tokc")
    before = names(tmp_path)
    for arguments in (
        ["encode", "bad", "a.tokc"],
        ["encode", "absent.mp4", "a.tokc"],
        ["encode", "in.mp4", "good.tokc"],
        ["encode", "good.tokc", "good.tokc", "-f"],
        ["encode", "in.mp4", "no/a.tokc"],
        ["encode", "in.mp4", "a.tokc", "--weights", "bad"],
        ["encode", "in.mp4", "a.tokc", "--weights", "absent"],
        ["encode", "in.mp4", "a.tokc", "--start", "99"],
        ["decode", "bad", "a.mp4"],
        ["decode", "absent", "a.mp4"],
        ["decode", "in.mp4", "a.mp4"],
        ["decode", "good.tokc", "a.xyz"],
        ["decode", "good.tokc", "a.mp4", "--start", "99"],
        ["info", "bad"],
        ["info", "."],
        ["verify", "in.mp4"],
        ["encode", "in.mp4", "a.tokc", "--target-size", "10"],
        ["verify", "good.tokc", "--weights", "bad"],
        ["trim", "bad", "a.tokc"],
        ["concat", "good.tokc", "bad", "a.tokc"],
        ["tokens", "bad", "a.npz"],
        ["tokens", "bad", "a.tokc"],
        ["tokens", "good.tokc", "a.csv"],
    ):
        result = run(*arguments)
        assert result.code == 1, arguments
        assert result.out == ""
        assert result.err.startswith("tokcodec: ")
        assert result.err.count("\n") == 1, result.err
    assert names(tmp_path) == before


def test_read_only_folder(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(3))
    if Path("/proc/version").exists():  # no one creates files there, root included
        result = run("encode", "in.mp4", "/proc/a.tokc")
        assert result.code == 1
        assert result.err.count("\n") == 1
    else:
        pytest.skip("no folder that even root cannot write")


def test_options_that_cannot_be(run: Run, make_clip: MakeClip) -> None:
    make_clip("in.mp4", moving_frames(2))
    run("encode", "in.mp4", "a.tokc")
    for arguments in (
        ["decode", "a.tokc", "b.mp4", "--lossless"],
        ["encode", "-"],
        ["decode", "-"],
        ["encode", "%d.png"],
        ["encode"],
        ["decode", "--crf"],
        ["decode", "a.tokc", "b.mp4", "--crf", "nan"],
        ["tokens", "a.tokc", "--webdataset", "%d.tar", "--shard-size", "0.5"],
    ):
        result = run(*arguments)
        assert result.code == 2
        assert "Traceback" not in result.err


def test_amounts_and_times() -> None:
    amount, seconds = Amount(), Seconds()
    assert [amount.convert(x, None, None) for x in ("800", "300k", "2M", "1.5G", "2Ki")] == [800, 3e5, 2e6, 1.5e9, 2048]
    assert [seconds.convert(x, None, None) for x in ("12.5", "01:30", "00:01:30.25")] == [12.5, 90, 90.25]
    assert Within(0, 10).convert("2.5", None, None) == 2.5
    bad = [(amount, "0"), (amount, "-3"), (amount, "3x"), (seconds, "1:2:3:4"), (seconds, "soon"), (seconds, "9" * 400)]
    bad += [(Within(0, 10), "nan"), (Within(0), "inf"), (Within(0, 10), "11")]
    for kind, text in bad:
        with pytest.raises(click.BadParameter, match=text):
            kind.convert(text, None, None)


def test_every_command_has_help(run: Run) -> None:
    for name in cli.commands:
        result = run(name, "--help")
        assert result.code == 0
        assert "Usage: " in result.out
    assert run("--version").out == f"tokcodec, version {tokcodec.__version__}\n"


def process(weights: Path, *arguments: str, **options: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tokcodec", *arguments],
        env=os.environ | {"TOKCODEC_WEIGHTS": str(weights), "OMP_NUM_THREADS": "1"},
        **options,  # type: ignore[call-overload]
    )


def test_info_imports_nothing_heavy(run: Run, make_clip: MakeClip) -> None:
    """It starts in .2 s."""
    make_clip("in.mp4", moving_frames(2))
    run("encode", "in.mp4", "a.tokc")
    lines = [
        "import atexit, os, sys, tokcodec.cli",
        "heavy = {'torch', 'av', 'numba', 'scipy', 'fsspec'}",
        "atexit.register(lambda: os._exit(bool(heavy & set(sys.modules))))",
        "sys.argv = ['tokcodec', 'info', 'a.tokc']",
        "tokcodec.cli.main()",
    ]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines)], stdout=subprocess.DEVNULL).returncode == 0


def test_light_commands_do_not_import_torch() -> None:
    code = "import sys, tokcodec, tokcodec.cli, tokcodec.edit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_through_pipes(weights: Path, make_clip: MakeClip, tmp_path: Path) -> None:
    """y4m in on stdin, stream out on stdout, raw frames out on stdout: nothing but data there."""
    source = make_clip("in.mp4", moving_frames(5))
    stream, back = tmp_path / "a.tokc", tmp_path / "a.rgb"
    y4m = tmp_path / "in.y4m"
    with tokcodec.video.VideoWriter(y4m, tokcodec.video.VideoReader(source).info) as writer:
        for i, frame in enumerate(frames_of(source)):
            writer.write(frame, 512 * i)
    with y4m.open("rb") as stdin, stream.open("wb") as stdout:
        assert process(weights, "encode", "-", "-", stdin=stdin, stdout=stdout).wait() == 0
    with stream.open("rb") as stdin, back.open("wb") as stdout:
        assert process(weights, "decode", "-", "-", "--format", "rgb24", stdin=stdin, stdout=stdout).wait() == 0
    assert np.fromfile(back, np.uint8).size == 5 * 48 * 64 * 3


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_nothing(
    weights: Path,
    make_clip: MakeClip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    compiles: bool,
) -> None:
    """Also in the midst of the first compilation, which is under way when its first result is kept."""
    make_clip("in.mp4", moving_frames(1500, 96, 128))
    folder = tmp_path / "out"
    folder.mkdir()
    if compiles:
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    child = process(weights, "encode", str(tmp_path / "in.mp4"), str(folder / "a.tokc"), stderr=subprocess.PIPE)
    while not list(folder.iterdir()) or (compiles and not (tmp_path / "cache").exists()):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(number)
    _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == code
    assert b"Traceback" not in err
    assert names(folder) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_python_loses_is_sent_again(number: int, code: int) -> None:
    """In a destructor no exception gets through."""
    lines = [
        "import signal, sys, time, tokcodec.edit",
        "from tokcodec.cli import main",
        f"class Last: __del__ = lambda self: signal.raise_signal({int(number)})",
        "def work(*_, **__): Last(); time.sleep(60); sys.exit('not stopped')",
        "tokcodec.edit.describe, sys.argv = work, ['tokcodec', 'info', 'a.tokc']",
        "main()",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.split() == (["tokcodec:", "interrupted"] if number == signal.SIGINT else [])


@pytest.mark.parametrize("command", ["encode", "batch"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_error_in_place_of_what_a_signal_raised_does_not_hide_it(
    command: str, number: int, code: int, tmp_path: Path, weights: Path
) -> None:
    """As libraries in C make it. A batch tries nothing again then."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").touch()
    source = tmp_path / "in" / ("a.mp4" if command == "encode" else "")
    jobs = ["--jobs", "1"] if command == "batch" else []
    lines = [
        "import contextlib, signal, sys, tokcodec.codec, tokcodec.batch.units",
        "from tokcodec.cli import main",
        "from tokcodec.errors import TokcodecError",
        "def work(*_, **__):",
        "    print('called', flush=True)",
        "    with contextlib.suppress(BaseException):",
        f"        signal.raise_signal({int(number)})",
        "    raise TokcodecError('Interrupted system call')",
        "tokcodec.codec.encode_video = tokcodec.batch.units.encode_video = work",
        f"sys.argv = {['tokcodec', command, str(source), str(tmp_path / 'out'), '--device', 'cpu', *jobs]}",
        "main()",
    ]
    environment = os.environ | {"TOKCODEC_WEIGHTS": str(weights)}
    argv = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "called\n")
    assert done.stderr.split() == (["tokcodec:", "interrupted"] if number == signal.SIGINT else [])


@pytest.mark.parametrize("wait", ["a writer", "data", "data of stdin"])
def test_a_signal_ends_the_wait_for_a_pipe(weights: Path, tmp_path: Path, wait: str) -> None:
    fifo, out = tmp_path / "in.mp4", tmp_path / "out"
    os.mkfifo(fifo)
    out.mkdir()
    with contextlib.ExitStack() as stack:
        if wait != "a writer":
            stack.callback(os.close, os.open(fifo, os.O_RDWR))
        stdin = stack.enter_context(fifo.open("rb")) if wait == "data of stdin" else None
        source = "-" if stdin else str(fifo)
        child = process(weights, "encode", source, str(out / "a.tokc"), stdin=stdin, stderr=subprocess.PIPE)
        while not list(out.iterdir()):
            assert child.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)  # it waits by now, most probably; if not, the signal ends it sooner
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, without_progress(err)) == (143, "")
    assert list(out.iterdir()) == []


def test_an_end_of_file_that_is_a_bug_is_no_interrupt() -> None:
    """Which click takes it for."""
    lines = [
        "import sys, tokcodec.edit",
        "from tokcodec.cli import main",
        "def bug(*_, **__): raise EOFError('Ran out of input')",
        "tokcodec.edit.describe, sys.argv = bug, ['tokcodec', 'info', 'a.tokc']",
        "main()",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("EOFError: Ran out of input\n")


@pytest.mark.parametrize("arguments", [["--help"], ["info", "a.tokc"], ["decode", "a.tokc", "-"]])
def test_a_reader_that_has_had_enough_is_no_error_to_tell(
    run: Run, weights: Path, make_clip: MakeClip, arguments: list[str]
) -> None:
    make_clip("in.mp4", moving_frames(40))
    run("encode", "in.mp4", "a.tokc")
    there, here = os.pipe()
    os.close(there)
    with open(here, "wb") as pipe:
        child = process(weights, *arguments, stdout=pipe, stderr=subprocess.PIPE)
        _, err = child.communicate(timeout=PATIENCE_S)
    assert (child.returncode, without_progress(err)) == (1, "")


def test_spans_of_one_length(run: Run, make_clip: MakeClip) -> None:
    make_clip("in.mp4", moving_frames(12))
    assert run("encode", "in.mp4", "a.tokc", "--spans", "4").code == 0
    assert run("encode", "in.mp4", "b.tokc", "--spans", "1", "--target-psnr", "20").code == 0
    assert run("encode", "in.mp4", "c.tokc").code == run("encode", "in.mp4", "d.tokc", "--spans", "auto").code == 0
    assert Path("c.tokc").read_bytes() == Path("d.tokc").read_bytes()
    for name, spans in (("a", [4, 4, 2, 1]), ("b", [1] * 11)):
        with tokcodec.open_stream(f"{name}.tokc") as stream:
            (tokens,) = stream.tokens()
            assert tokens.spans.tolist() == spans
            assert len(list(stream.frames())) == 12
    assert run("encode", "in.mp4", "e.tokc", "--spans", "3").code == 2
    with pytest.raises(ValueError, match="spans have 1, 2, 4, 8, 16, 32 frames, not 3"):
        tokcodec.encode_video("in.mp4", "e.tokc", spans=3)
    assert not Path("e.tokc").exists()


def test_frames_are_scaled_and_made_even(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    """As FFmpeg does it: -2 keeps the shape and is even; at half the rate every second frame is left."""
    make_clip("in.mp4", moving_frames(40))
    for size, (width, height) in {"32:-2": (32, 24), "-2:30": (40, 30), "50:-2": (50, 38), "50:-1": (50, 38)}.items():
        assert run("encode", "in.mp4", "a.tokc", "-f", "--scale", size).code == 0
        facts = json.loads(run("info", "a.tokc", "--json").out)
        assert (facts["width"], facts["height"], facts["frames"]) == (width, height, 40)
    assert run("encode", "in.mp4", "b.tokc", "--scale", "32x24", "--fps", "15").code == 0
    facts = json.loads(run("info", "b.tokc", "--json").out)
    assert (facts["width"], facts["height"], facts["frames"], facts["frame_rate"]) == (32, 24, 20, 15)
    assert facts["duration_s"] == round(40 / 30, 6)
    with tokcodec.open_stream("b.tokc") as stream:
        assert [pts * stream.header.time_base for _, pts, _ in stream.frames()] == [Fraction(i, 15) for i in range(20)]
    for options in (["--scale", "32"], ["--scale", "0:24"], ["--scale=-2:-2"], ["--fps", "fast"], ["--fps", "0"]):
        assert run("encode", "in.mp4", "c.tokc", *options).code == 2
    assert not (tmp_path / "c.tokc").exists()


def test_progress_for_programs(run: Run, make_clip: MakeClip) -> None:
    make_clip("in.mp4", moving_frames(40))
    result = run("encode", "in.mp4", "a.tokc", "--progress", "json", "--json")
    *_, last = map(json.loads, result.err.splitlines())
    facts = {"progress": "encode", "unit": "frames", "done": 40, "total": 40}
    assert last == facts | {name: last[name] for name in ("seconds", "bytes", "bpp")}
    assert last["bpp"] == round(8 * last["bytes"] / (40 * 48 * 64), 6)
    assert last["bytes"] <= json.loads(result.out)["bytes"]
    for line, label, end in (
        ("decode a.tokc out.mp4", "decode", 40),
        ("decode a.tokc part.mp4 --start 0.1 --duration 0.6", "decode", 18),
        ("verify a.tokc", "verify", 40),
        ("compare in.mp4 a.tokc", "compare", 40),
    ):
        steps = [json.loads(text) for text in run(*line.split(), "--progress", "json").err.splitlines() if "{" in text]
        assert [steps[-1][key] for key in ("progress", "done", "total")] == [label, end, end]


def test_what_is_compiled_to_stay_is_told_of_once(tmp_path: Path) -> None:
    """Not when the disk has it, not to programs, and not where it cannot stay: there the warning says more."""
    (tmp_path / "sums.py").write_text(
        "from tokcodec.compiled import njit\n\n@njit(cache=True)\ndef add(a, b):\n    return a + b\n\n"
        "@njit(cache=True)\ndef subtract(a, b):\n    return a - b\n"
    )
    code = (
        "import contextlib, sums, sys, threading\n"
        "from tokcodec.cli.terminal import frames_meter\n"
        "for function in (sums.add, sums.subtract):\n"
        "    with frames_meter('encode', sys.argv[1]):\n"
        "        thread = threading.Thread(target=function, args=(40, 2))\n"
        "        thread.start()\n"
        "        thread.join()\n"
        "print(sums.add(40, 2))"
    )

    def stderr_of(progress: str, cache: str, **more: str) -> str:
        env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | more
        if cache:
            env["NUMBA_CACHE_DIR"] = str(tmp_path / cache)
        env["PYTHONPATH"] = str(Path(__file__).parents[1])
        done = subprocess.run(
            [sys.executable, "-c", code, progress], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout == "42\n"
        return done.stderr

    line = "tokcodec: encode: compiling for this machine (once, a minute or two)\n"
    runs = [("auto", "a"), ("auto", "a"), ("json", "b"), ("none", "c")]
    assert [stderr_of(*run) for run in runs] == [line, "", "", ""]
    (tmp_path / "__pycache__").touch()  # a file, as none of the places of numba's can be one
    nowhere = str(tmp_path / "__pycache__" / "none")
    (warning,) = stderr_of("auto", "", XDG_CACHE_HOME=nowhere, HOME=nowhere).splitlines()
    assert "every run compiles" in warning


def test_commands_without_progress_say_that_they_compile(
    run: Run, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`verify` reads tokens, so it may be what compiles first."""
    make_clip("in.mp4", moving_frames(4))
    run("encode", "in.mp4", "a.tokc")
    events: list[str] = []

    @contextlib.contextmanager
    def telling(tell: Callable[[str], None]) -> Iterator[None]:
        for module in ("tokcodec.coding.motion", "tokcodec.coding.intra", "tokcodec.stream.integers"):
            tell(module)
        yield
        events.append("closed")

    monkeypatch.setattr("tokcodec.compiled.telling", telling)
    monkeypatch.setattr("tokcodec.prepare.prepare", lambda _, profile: events.append(profile))
    monkeypatch.setattr("tokcodec.cli.terminal._asked", set())
    assert run("verify", "a.tokc").err == (
        "tokcodec: verify: compiling for this machine (once, a minute or two)\n"
        "tokcodec: verify: compiling the profile lfq for this machine (once, a minute or two)\n"
    )
    assert events == ["default", "lfq", "closed"]


def test_progress_where_there_is_no_terminal(
    run: Run, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line now and then, not a bar; also while nothing is done yet."""
    make_clip("in.mp4", moving_frames(40))
    assert run("encode", "in.mp4", "a.tokc").err == ""
    monkeypatch.setattr("tokcodec.cli.terminal.LINE_S", 0.02)
    lines = run("encode", "in.mp4", "b.tokc").err.splitlines()
    assert all(re.match(r"tokcodec: encode: (running for|\d+ of 40 frames in) \d+ s", line) for line in lines)
    assert lines
    assert run("encode", "in.mp4", "c.tokc", "--progress", "none").err == ""

    meter = Meter("encode", "frames", "auto")
    meter.step(40, 80, "0.0123 bpp")
    err = ""
    while " of " not in err:
        time.sleep(0.02)
        err += capfd.readouterr().err
    meter.close()
    line = next(line for line in err.splitlines() if "40" in line)
    speed = re.fullmatch(r"tokcodec: encode: 40 of 80 frames in \d+ s, (\S+) frames/s, \d+ s left, 0.0123 bpp", line)
    assert speed
    assert float(speed[1]) > 0


def test_progress_moves_within_a_chunk_and_ends_at_the_total(
    make_clip: MakeClip, tmp_path: Path, weights: Path
) -> None:
    clip = make_clip("in.mp4", moving_frames(22))
    calls: list[tuple[int, int, int | None, int]] = []

    def encode(rate: tokcodec.Rate) -> list[int]:
        calls.clear()
        tokcodec.encode_video(
            clip,
            tmp_path / "a.tokc",
            rate=rate,
            weights=weights,
            overwrite=True,
            progress=lambda *step: calls.append(step),
        )
        assert calls[-1][0] == calls[-1][2] == 22
        assert {px for *_, px in calls} == {64 * 48}
        return [frames for frames, *_ in calls]

    assert encode(tokcodec.Rate(quality=4)) == [*range(23), 22]
    passes = encode(tokcodec.Rate(target_size_bytes=1500))
    starts = [i for i, frames in enumerate(passes) if frames == 0]
    assert len(starts) > 1
    for begin, end in itertools.pairwise([*starts, len(passes)]):
        assert passes[begin:end] == [*range(23), 22]
    search = encode(tokcodec.Rate(target_psnr_db=30))
    assert search == sorted(search)
    assert len(set(search)) > 15


def test_progress_names_the_pass(run: Run, make_clip: MakeClip) -> None:
    make_clip("in.mp4", moving_frames(22))
    lines = run("encode", "in.mp4", "a.tokc", "--target-size", "1500", "--progress", "json").err.splitlines()
    steps = [json.loads(line) for line in lines]
    assert steps[0]["pass"] == 1
    assert steps[-1]["pass"] > 1
    assert "pass" not in json.loads(run("encode", "in.mp4", "b.tokc", "--progress", "json").err.splitlines()[-1])


def test_a_bar_counts_frames_and_warnings_stand_in_lines_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    logger, handler = logging.Logger("warned"), Warnings()
    logger.addHandler(handler)
    with frames_meter("encode", "auto", passes=True) as update:
        update(0, 0, 40, 100)
        time.sleep(0.2)  # a bar is drawn ten times a second
        update(13, 500, 40, 100)
        logger.warning("mind %s", "this")
        update(0, 0, 40, 100)
        time.sleep(0.2)
        update(20, 500, 40, 100)
    shown = capfd.readouterr().err
    clocks = r"\[\d\d:\d\d<\d\d:\d\d, [\d.]+ ?(frames/s|s/frames)"
    assert re.search(rf"encode:  32%\|[^|]*\| 13/40 {clocks}, pass 1, 3.0769 bpp\]", shown)
    assert re.search(r"encode:  50%\|[^|]*\| 20/40 \[.*pass 2, 2.0000 bpp\]", shown)
    assert "\rmind this\n" in re.sub(r"\r *\r", "\r", shown)


def test_info_is_for_people(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    with_sound(make_clip("v.mp4", moving_frames(40)), tmp_path / "in.mp4")
    run("encode", "in.mp4", "a.tokc")
    lines = dict(line.split(maxsplit=1) for line in run("info", "a.tokc").out.splitlines())
    assert lines["video"] == "64x48, 0:00:01.333, 30 frames/s"
    assert lines["frames"] == "40 in 1 chunk of at most 257"
    assert lines["step"] == "63.875"
    assert lines["colour"] == "unspecified primaries, unspecified transfer, smpte170m matrix, limited range"
    assert lines["audio"] == "aac, 48000 Hz, stereo"
    assert re.fullmatch(r"\d+\.\d kB \(motion \d+ bytes, levels .*, other streams \d+\.\d kB\)", lines["size"])
    assert json.loads(run("info", "a.tokc", "--json").out)["other_streams"]["streams"] == [
        {"kind": "audio", "codec": "aac", "rate_hz": 48000, "channels": "stereo"}
    ]
    assert [_size(n) for n in (0, 999, 1000, 12345, 2 * 10**6, 10**15)] == [
        *("0 bytes", "999 bytes", "1.0 kB", "12.3 kB", "2.0 MB", "1000.0 TB")
    ]
    assert [_clock(t) for t in (0, 1.333333, 59.9999, 3725.5, -2)] == [
        *("0:00:00", "0:00:01.333", "0:01:00", "1:02:05.5", "-0:00:02")
    ]


def test_a_damaged_stream_is_described_and_repaired(
    run: Run, make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokcodec.codec.chunking.CHUNK_FRAMES", 33)
    with_sound(make_clip("v.mp4", moving_frames(110)), tmp_path / "in.mp4")
    run("encode", "in.mp4", "a.tokc")
    data = bytearray((tmp_path / "a.tokc").read_bytes())
    with tokcodec.open_stream(tmp_path / "a.tokc") as stream:
        entries = list(stream.chunks)
    data[entries[1].offset + 20] ^= 1
    (tmp_path / "bad.tokc").write_bytes(data)

    result = run("info", "bad.tokc", "--json")
    facts = json.loads(result.out)
    fault = f"the CHNK record at byte {entries[1].offset} is damaged (checksum)"
    assert (result.code, result.err) == (1, f"tokcodec: bad.tokc: {fault}\n")
    assert (facts["fault"], facts["chunks"], facts["promised_chunks"], facts["frames"]) == (fault, 3, 4, 77)
    assert facts["damage"] == [[entries[1].offset, entries[1].offset + entries[1].bytes]]
    assert facts["missing_s"] == [[1.1, 2.2]]
    assert facts["other_streams"]["format"] == "mp4"
    lines = dict(line.split(maxsplit=1) for line in run("info", "bad.tokc").out.splitlines())
    assert (lines["intact"], lines["missing"]) == ("3 of 4 chunks, 77 frames", "0:00:01.1 to 0:00:02.2")
    with (tmp_path / "bad.tokc").open("rb") as file:
        child = process(tmp_path, "info", "-", stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert b"3 of 4 chunks" in child.communicate(timeout=PATIENCE_S)[0]

    assert run("trim", "bad.tokc", "no.tokc").code == 1
    result = run("trim", "bad.tokc", "good.tokc", "--salvage", "--json")
    assert (result.code, json.loads(result.out)["damaged"], json.loads(result.out)["frames"]) == (0, 1, 77)
    assert run("verify", "good.tokc").code == 0
    facts = json.loads(run("info", "good.tokc", "--json").out)
    assert ("fault" in facts, facts["frames"], facts["duration_s"]) == (False, 77, round(110 / 30, 6))

    (tmp_path / "cut.tokc").write_bytes(data[: entries[3].offset + 30])
    facts = json.loads(run("info", "cut.tokc", "--json").out)
    assert (facts["fault"], facts["promised_chunks"]) == (fault, None)
    assert facts["missing_s"] == [[1.1, 2.2], [3.3, None]]
    assert "what came after 0:00:03.3, if anything" in run("info", "cut.tokc").out
    data[entries[0].offset + 20] ^= 1
    (tmp_path / "cut.tokc").write_bytes(data[: entries[3].offset])
    facts = json.loads(run("info", "cut.tokc", "--json").out)
    assert facts["missing_s"] == [[None, 2.2], [3.3, None]]

    (tmp_path / "none.tokc").write_bytes(data[: entries[0].offset + 30])
    result = run("info", "none.tokc")
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1


def test_roundtrip_is_encode_decode_and_compare(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(20))
    result = run("roundtrip", "in.mp4", "out.mp4", "-q", "8", "--stream", "kept.tokc", "--json", "--lpips-dir", ".")
    report = json.loads(result.out)
    assert (result.code, report["output"], report["frames"], report["step"]) == (0, "out.mp4", 20, [12, 12])
    assert report["bytes"] == (tmp_path / "kept.tokc").stat().st_size
    assert len(frames_of(tmp_path / "out.mp4")) == 20
    scores = json.loads(run("compare", "in.mp4", "kept.tokc", "--json", "--lpips-dir", ".").out)["scores"]
    assert report["scores"] == {name: scores[name]["mean"] for name in scores}
    assert report["scores"]["psnr_rgb_db"] > 25
    assert run("roundtrip", "in.mp4", "other.mp4", "-q", "8", "--lpips-dir", ".").out.startswith(
        "other.mp4: 20 frames, "
    )
    made = names(tmp_path)
    assert made == ["in.mp4", "kept.tokc", "other.mp4", "out.mp4"]
    assert run("roundtrip", "in.mp4", "out.mp4").err == "tokcodec: out.mp4: exists already; -f overwrites it\n"
    assert run("roundtrip", "in.mp4", "out.xyz").code == 1
    assert run("roundtrip", "-", "new.mp4").code == 2
    refused = run("roundtrip", "in.mp4", "new.mp4", "--stream", "-")
    assert (refused.code, refused.err.splitlines()[-1]) == (2, "Error: --stream is read again and cannot be a pipe")
    assert names(tmp_path) == made


def player(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_play_hands_frames_to_a_player(
    run: Run, make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pts = [i + (i > 20) * 5 for i in range(39)]  # of an even rate but for a gap
    with_sound(
        make_clip("silent.mp4", [frame[:47, :63] for frame in moving_frames(39)], pts, pix_fmt="yuv444p"),
        Path("in.mp4"),
    )
    run("encode", "in.mp4", "a.tokc")
    programs = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert run("play", "a.tokc").err == "tokcodec: mpv or ffplay is needed to play, and is not installed\n"
    player(tmp_path / "bin", "ffplay", f'PATH="{programs}"; echo "$@" >arguments; cat >seen.mkv')
    assert run("play", "a.tokc", "--restorer", "full") == Result(0, "", "")
    run("decode", "a.tokc", "wanted.mkv", "--vcodec", "ffv1")
    assert np.array_equal(frames_of(tmp_path / "seen.mkv"), frames_of(tmp_path / "wanted.mkv"))
    for kind in ("video", "audio"):
        assert times_of(tmp_path / "seen.mkv", kind) == times_of(tmp_path / "wanted.mkv", kind)
    assert len(times_of(tmp_path / "seen.mkv", "audio")) > 50
    assert times_of(tmp_path / "seen.mkv")[20:22] == [Fraction(667, 1000), Fraction(867, 1000)]
    assert "-window_title a.tokc" in (tmp_path / "arguments").read_text()
    assert run("play", "a.tokc", "--player", "mpv").code == 1
    player(tmp_path / "bin", "mpv", "exit 3")
    assert run("play", "a.tokc").err == "tokcodec: mpv: stopped with exit code 3\n"
    assert run("play", "wanted.mkv", "--player", "ffplay").err.endswith("this is not a .tokc stream\n")


@pytest.mark.parametrize(("group_s", "chosen"), [((0.0,), "full"), ((9.0, 0.0), "fast"), ((9.0, 9.0), "off")])
def test_play_takes_the_best_restorer_that_is_in_time(
    run: Run, make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch, group_s: tuple[float, ...], chosen: str
) -> None:
    make_clip("in.mp4", moving_frames(2))
    networks = {tier: Restorer(RestorerConfig((8, 8), (0, 0, 0), 1, 8, 0)) for tier in ("full", "fast")}
    save_weights("two.safetensors", networks, Weights.find().arrays)
    run("encode", "in.mp4", "a.tokc", "--weights", "two.safetensors")
    ticks = iter([tick for took in group_s for tick in (0.0, took)])
    monkeypatch.setattr(playing, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert playing.restorer_in_time(Path("a.tokc"), Path("two.safetensors"), Compute("cpu")) == chosen
    assert not list(ticks)


def test_the_restorer_is_chosen_to_decode(run: Run, make_clip: MakeClip) -> None:
    make_clip("in.mp4", moving_frames(6))
    network = Restorer(RestorerConfig((8, 8), (0, 0, 0), 1, 8, 0))
    torch.nn.init.constant_(network.pixel_out.bias, 0.1)
    save_weights("one.safetensors", network, Weights.find().arrays)
    run("encode", "in.mp4", "a.tokc", "--weights", "one.safetensors")
    for tier in ("full", "off", "auto"):
        done = run("decode", "a.tokc", f"{tier}.y4m", "--restorer", tier, "--weights", "one.safetensors")
        assert done.code == 0, done.err
    assert Path("auto.y4m").read_bytes() == Path("full.y4m").read_bytes() != Path("off.y4m").read_bytes()
    missing = run("decode", "a.tokc", "fast.y4m", "--restorer", "fast", "--weights", "one.safetensors")
    assert (missing.code, missing.err) == (1, "tokcodec: one.safetensors: these weights hold no fast restorer\n")
    assert not Path("fast.y4m").exists()


def test_a_player_that_is_closed_early_is_no_error(
    run: Run, make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip("in.mp4", moving_frames(200))  # more than a pipe holds
    run("encode", "in.mp4", "a.tokc", "-q", "1")
    player(tmp_path / "bin", "mpv", "read line; exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert run("play", "a.tokc") == Result(0, "", "")


def test_devices_and_links_are_not_replaced(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(2))
    os.mkfifo(tmp_path / "pipe")
    assert run("encode", "in.mp4", "pipe", "-f").code == 1
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "real.tokc").write_text("old")
    (tmp_path / "link.tokc").symlink_to("real.tokc")
    assert run("encode", "in.mp4", "link.tokc", "-f").code == 0
    assert (tmp_path / "link.tokc").is_symlink()
    assert run("verify", "real.tokc").code == 0


@pytest.mark.parametrize(
    ("arguments", "closed", "line"),
    [
        ("encode - b.tokc", "<&-", "stdin: is closed"),
        ("decode - b.mp4", "<&-", "stdin: is closed"),
        ("info -", "<&-", "stdin: is closed"),
        ("encode in.mp4 -", ">&-", "stdout: is closed"),
        ("decode a.tokc -", ">&-", "stdout: is closed"),
        ("trim a.tokc -", ">&-", "stdout: is closed"),
    ],
)
def test_a_closed_pipe_is_one_line(
    run: Run, weights: Path, make_clip: MakeClip, tmp_path: Path, arguments: str, closed: str, line: str
) -> None:
    make_clip("in.mp4", moving_frames(2))
    run("encode", "in.mp4", "a.tokc")
    shell = ["sh", "-c", f'exec "$0" -m tokcodec {arguments} {closed}', sys.executable]
    done = subprocess.run(
        shell, env=os.environ | {"TOKCODEC_WEIGHTS": str(weights)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"tokcodec: {line}\n")
    assert names(tmp_path) == ["a.tokc", "in.mp4"]


def test_nothing_strays_into_a_file_where_all_pipes_are_closed(
    run: Run, weights: Path, make_clip: MakeClip, tmp_path: Path
) -> None:
    """The next files opened would be stdout and stderr to the libraries."""
    make_clip("in.mp4", moving_frames(2))
    run("encode", "in.mp4", "a.tokc")
    shell = ["sh", "-c", 'exec "$0" -m tokcodec encode in.mp4 b.tokc <&- >&- 2>&-', sys.executable]
    assert subprocess.run(shell, env=os.environ | {"TOKCODEC_WEIGHTS": str(weights)}, check=False).returncode == 0
    assert (tmp_path / "b.tokc").read_bytes() == (tmp_path / "a.tokc").read_bytes()


@pytest.mark.parametrize("options", [[], ["-f"]])
def test_a_link_to_itself_is_no_target(run: Run, make_clip: MakeClip, tmp_path: Path, options: list[str]) -> None:
    make_clip("in.mp4", moving_frames(2))
    (tmp_path / "loop").symlink_to("loop")
    result = run("encode", "in.mp4", "loop", *options)
    assert (result.code, result.err) == (1, "tokcodec: loop: cannot write: Too many levels of symbolic links\n")
    assert names(tmp_path) == ["in.mp4", "loop"]


def test_errors_name_the_file_the_user_named(run: Run, make_clip: MakeClip, tmp_path: Path) -> None:
    make_clip("in.mp4", moving_frames(2))
    run("encode", "in.mp4", "good.tokc")
    data = bytearray((tmp_path / "good.tokc").read_bytes())
    with tokcodec.open_stream(tmp_path / "good.tokc") as stream:
        data[stream.chunks[0].offset + 20] ^= 1
    (tmp_path / "bad.tokc").write_bytes(data)
    for sources in (["bad.tokc", "good.tokc"], ["good.tokc", "good.tokc", "bad.tokc"]):
        assert run("concat", *sources, "all.tokc").err.startswith("tokcodec: bad.tokc: the CHNK record")
    assert run("decode", "good.tokc", "out.avi").err.startswith("tokcodec: out.avi: cannot write avi")


def test_full_stdout_is_one_line(weights: Path, make_clip: MakeClip) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    source = str(make_clip("in.mp4", moving_frames(2)))
    with Path("/dev/full").open("wb") as full:
        child = process(weights, "encode", source, "-", stdout=full, stderr=subprocess.PIPE)
        _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 1
    assert without_progress(err) == "tokcodec: stdout: cannot write: No space left on device\n"


def test_interrupt_ends_a_read_that_stalls(weights: Path, tmp_path: Path) -> None:
    """Input from a pipe that gives a few frames and then nothing."""
    header = b"YUV4MPEG2 W32 H32 F30:1 Ip A1:1 C420jpeg\n"
    child = process(weights, "encode", "-", str(tmp_path / "a.tokc"), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(header + (b"FRAME\n" + bytes(1536)) * 2000)
    child.stdin.flush()
    while not list(tmp_path.iterdir()):
        assert child.poll() is None
        time.sleep(0.02)
    time.sleep(1)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=PATIENCE_S) == 130
    assert list(tmp_path.iterdir()) == []
    child.stdin.close()
    assert child.stderr is not None
    child.stderr.close()


def test_text_of_a_file_does_not_reach_the_terminal_raw(run: Run) -> None:
    """Escapes that colour or forge lines, in a tag and in the name of a file; and what a terminal has no letter for."""
    shutil.copy(Path(__file__).parent / "cases/title_with_terminal_escapes.mp4", "in.mp4")
    run("encode", "in.mp4", "a.tokc")
    assert "title: a\\x1b[31mred\\x1b]0;pwn\\x07\\nfake          line\\r\\x08\n" in run("info", "a.tokc").out
    assert json.loads(run("info", "a.tokc", "--json").out)["tags"]["title"].startswith("a\x1b[31mred")
    assert run("info", "\x1b[31m\u202e").err == "tokcodec: \\x1b[31m\\u202e: No such file or directory\n"
    assert run("encode", "in.mp4", "\x1b\u00e9.tokc").out.startswith("\\x1b\u00e9.tokc: 15 frames")
    with VideoWriter("a.mp4", VideoInfo(64, 48, Fraction(1, 25), tags={"title": "caf\u00e9"})) as writer:
        writer.write(moving_frames(1)[0], 0)
    run("encode", "a.mp4", "b.tokc")
    done = subprocess.run(
        [sys.executable, "-m", "tokcodec", "info", "b.tokc"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"title: caf\\xe9\n" in done.stdout
