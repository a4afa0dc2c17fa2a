"""The batch: same bytes whoever works, resumable, indifferent to what fails, two runs on one target."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result

from tests.conftest import MakeClip, moving_frames
from tokcodec import codec, edit
from tokcodec.batch import pieces
from tokcodec.batch.driver import Batch, select
from tokcodec.batch.storage import BusyError, Item, Tree
from tokcodec.batch.units import Outcome, Settings, Unit
from tokcodec.batch.workers import Processes, ThisProcess, WorkerLostError
from tokcodec.cli import cli
from tokcodec.codec import encode_video
from tokcodec.errors import TokcodecError
from tokcodec.neural.weights import Weights
from tokcodec.rate import Rate
from tokcodec.video import VideoReader

CODED = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def tree(make_clip: MakeClip, tmp_path: Path) -> Path:
    """SRC: three clips in two folders, and a file that is none of our business."""
    root = tmp_path / "src"
    (root / "a" / "b").mkdir(parents=True)
    for i, name in enumerate(["one.mp4", "a/two.mkv", "a/b/three.mp4"]):
        make_clip(Path(name).name, moving_frames(36 + 3 * i)).rename(root / name)
    (root / "notes.txt").write_text("not a video")
    return root


def run(weights: Path, *args: object) -> Result:
    argv = ["batch", *map(str, args), "--weights", str(weights), "--device", "cpu", "--dtype", "float32"]
    return CliRunner().invoke(cli, argv, catch_exceptions=False)


def outputs(root: Path) -> dict[str, bytes]:
    """What a user sees of DST: hidden files aside."""
    names = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {str(n): (root / n).read_bytes() for n in names if not any(part.startswith(".") for part in n.parts)}


def leftovers(root: Path) -> list[Path]:
    """All files of DST that are neither outputs nor records."""
    return [p for p in root.rglob("*") if (p.is_file() and ".work" in str(p)) or "partial" in p.name]


def settings(weights: Path, **more: Any) -> Settings:
    return Settings(weights=weights, weights_sha256=Weights.load(weights).sha256, **CODED, **more)


def test_tree_in_tree_out_and_back(tree: Path, tmp_path: Path, weights: Path) -> None:
    tokc, back, log = tmp_path / "tokc", tmp_path / "back", tmp_path / "run.ndjson"
    result = run(weights, tree, tokc, "--verify", "--jobs", 1, "--log", log, "--json")
    assert result.exit_code == 0, result.output
    assert set(outputs(tokc)) == {"one.tokc", "a/two.tokc", "a/b/three.tokc"}
    encode_video(tree / "one.mp4", tmp_path / "alone.tokc", weights=weights, **CODED)
    assert outputs(tokc)["one.tokc"] == (tmp_path / "alone.tokc").read_bytes()
    assert not leftovers(tokc)
    summary = json.loads(result.stdout)
    assert (summary["done"], summary["failed"], summary["frames"]) == (3, {}, 36 + 39 + 42)
    lines = {line["input"]: line for line in map(json.loads, log.read_text().splitlines())}
    line = lines[str(tree / "a" / "two.mkv")]
    size = (tokc / "a" / "two.tokc").stat().st_size
    assert line["output"] == str(tokc / "a" / "two.tokc")
    assert (line["bytes"], line["frames"], line["error"]) == (size, 39, None)
    assert line["bpp"] == pytest.approx(8 * size / (64 * 48 * 39), abs=1e-6)
    assert line["worker"].endswith(f":{os.getpid()}")
    assert line["seconds"] > 0

    assert run(weights, tokc, back, "--decode", "--to", "mkv", "--jobs", 1).exit_code == 0
    assert set(outputs(back)) == {"one.mkv", "a/two.mkv", "a/b/three.mkv"}
    with VideoReader(back / "a" / "b" / "three.mkv") as reader:
        assert sum(1 for _ in reader) == 42


def test_what_is_finished_is_skipped(tree: Path, tmp_path: Path, weights: Path) -> None:
    dst = tmp_path / "dst"

    def done(*args: object) -> int:
        result = run(weights, tree, dst, "--jobs", 1, "--json", *args)
        assert result.exit_code == 0, result.output
        return int(json.loads(result.stdout)["done"])

    assert done() == 3
    assert done() == 0
    os.utime(tree / "one.mp4", (1, 1))
    assert done() == 1  # another time of change
    (dst / "a" / "two.tokc").write_bytes(b"cut off")
    assert done() == 1  # another size of the output
    assert done("--verify") == 3  # not verified yet
    assert done() == 0
    assert done("--step", 4) == 3  # other settings
    assert edit.describe(dst / "one.tokc")["step"] == (4, 4)


def test_failures_do_not_stop_the_rest(tree: Path, tmp_path: Path, weights: Path) -> None:
    dst, log = tmp_path / "dst", tmp_path / "run.ndjson"
    (tree / "a" / "broken.mp4").write_bytes(b"\0" * 1000)
    (tree / "one.mkv").write_bytes((tree / "a" / "two.mkv").read_bytes())  # also wants to be one.tokc
    result = run(weights, tree, dst, "--jobs", 1, "--retries", 2, "--log", log)
    assert result.exit_code == 1
    assert set(outputs(dst)) == {"one.tokc", "a/two.tokc", "a/b/three.tokc"}
    failed = [line for line in map(json.loads, log.read_text().splitlines()) if line["status"] == "failed"]
    assert {Path(line["input"]).name for line in failed} == {"broken.mp4", "one.mp4"}
    assert next(line for line in failed if line["input"].endswith("broken.mp4"))["tries"] == 3
    assert "a/broken.mp4: " in result.stderr
    assert "not a video" in result.stderr
    assert "one.tokc is made from one.mkv already" in result.stderr
    assert not leftovers(dst)


def test_foreign_outputs_are_kept(tree: Path, tmp_path: Path, weights: Path) -> None:
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "one.tokc").write_text("mine")
    for _ in range(2):  # a refusal leaves no record that would make the file ours
        assert run(weights, tree, dst, "--jobs", 1).exit_code == 1
        assert (dst / "one.tokc").read_text() == "mine"
    assert run(weights, tree, dst, "--jobs", 1, "-f").exit_code == 0
    edit.verify(dst / "one.tokc", weights=weights)


def test_sources_are_deleted_after_verification_only(tree: Path, tmp_path: Path, weights: Path) -> None:
    dst, names = tmp_path / "dst", tmp_path / "names"
    names.write_text("one.mp4\na/two.mkv\n")
    (tree / "a" / "broken.mp4").write_bytes(b"\0" * 1000)
    assert run(weights, tree, dst, "--jobs", 1, "--delete-source", "--list", names).exit_code == 0
    assert set(outputs(tree)) == {"a/b/three.mp4", "a/broken.mp4", "notes.txt"}
    assert run(weights, tree, dst, "--jobs", 1, "--list", names).exit_code == 0  # they are done, and so not missed
    names.write_text("never.mp4\n")
    result = run(weights, tree, dst, "--jobs", 1, "--list", names)
    assert result.exit_code == 1
    assert "never.mp4: " in result.stderr
    assert run(weights, tree, dst, "--jobs", 1, "--delete-source").exit_code == 1
    assert set(outputs(tree)) == {"a/broken.mp4", "notes.txt"}


def test_a_stream_that_does_not_verify_is_not_placed(
    tree: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise TokcodecError(f"{path.name}: bad memory")

    monkeypatch.setattr(edit, "verify", refuse)
    result = run(weights, tree, tmp_path / "dst", "--jobs", 1, "--delete-source", "--glob", "one*")
    assert result.exit_code == 1
    assert outputs(tmp_path / "dst") == {}
    assert (tree / "one.mp4").exists()


def test_select() -> None:
    items = [Item(f"{folder}/{i}.{ext}", 1, "") for folder in "xy" for i in range(50) for ext in ("mp4", "MKV", "txt")]
    videos = select(items, {".mp4", ".mkv"})
    assert len(videos) == 200
    assert [item.name for item in select(items, {".mp4"}, ["x/1*", "y/2.*"])] == [
        "x/1.mp4",
        *(f"x/1{i}.mp4" for i in range(10)),
        "y/2.mp4",
    ]
    shards = [select(items, {".mp4", ".mkv"}, shard=(i, 3)) for i in (1, 2, 3)]
    assert sorted(item.name for shard in shards for item in shard) == sorted(item.name for item in videos)
    assert all(shards)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--shard", "0/3"], "is not a part"),
        (["--shard", "4/3"], "is not a part"),
        (["--decode", "--verify"], "not for --decode"),
        (["--decode", "--step", "3"], "not for --decode"),
        (["--ray=auto", "--jobs", "2"], "--jobs and --ray"),
    ],
)
def test_usage(args: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["batch", "src", "dst", *args])
    assert result.exit_code == 2
    assert message in result.stderr


def test_workers_and_pieces_do_not_change_a_byte(
    tree: Path, make_clip: MakeClip, tmp_path: Path, weights: Path
) -> None:
    make_clip("long.mp4", moving_frames(400), options={"g": "20"}).rename(tree / "long.mp4")
    log = tmp_path / "run.ndjson"
    assert run(weights, tree, tmp_path / "one", "--jobs", 1, "--threads", 1).exit_code == 0
    result = run(weights, tree, tmp_path / "two", "--jobs", 2, "--threads", 1, "--piece", 1, "--log", log)
    assert result.exit_code == 0, result.output
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    assert not leftovers(tmp_path / "two")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {Path(line["input"]).name: line["pieces"] for line in lines} == {
        "long.mp4": 3,
        "one.mp4": 1,
        "two.mkv": 1,
        "three.mp4": 1,
    }
    assert all(not line["worker"].endswith(f":{os.getpid()}") for line in lines)


def vfr_with_sound(path: Path) -> None:
    """Open GOPs, B-frames, irregular timestamps that do not start at 0, a new scene at frame 45, and sound."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, width=64, height=48, options={"g": "17", "bf": "2"})
        stream.options = {**stream.options, "x264-params": "open-gop=1"}
        stream.codec_context.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=16000, layout="mono")
        pts = 70
        for i, array in enumerate(moving_frames(150)):
            array = array if i < 45 else 255 - array
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            pts += 20 + i * 37 % 29
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for i in range(70):
            samples = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1, np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 16000, 1024 * i, Fraction(1, 16000)
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", [Rate(), Rate(step=5), Rate(target_psnr_db=20)])
def test_pieces_join_to_the_stream_of_the_whole(
    suffix: str, rate: Rate, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "CHUNK_FRAMES", 33)
    source = tmp_path / f"clip{suffix}"
    vfr_with_sound(source)
    named = {"weights": weights, **CODED}
    encode_video(source, tmp_path / "whole.tokc", rate=rate, **named)
    plan = pieces.plan(source, 1)
    assert [piece.frames for piece in plan] == [33, 33, 33, 51]
    parts = [tmp_path / f"{i}.tokc" for i in range(4)]
    for part, piece in zip(parts, plan, strict=True):
        pieces.encode_piece(source, part, piece, rate=rate, **named)
    joined = pieces.join(source, parts, tmp_path / "joined.tokc")
    assert (tmp_path / "joined.tokc").read_bytes() == (tmp_path / "whole.tokc").read_bytes()
    facts = edit.describe(tmp_path / "joined.tokc")
    assert facts["other_bytes"] > 1000
    assert (joined.video_bytes, joined.other_bytes) == (facts["video_bytes"], facts["other_bytes"])
    assert facts["chunks"] == 6  # of 33, 12, 21, 33, 33 and 18 frames
    with pytest.raises(ValueError, match="of the whole"):
        pieces.encode_piece(source, parts[0], plan[0], rate=Rate(target_size_bytes=9), **named)


def test_pieces_that_do_not_hold_what_was_planned_are_made_whole(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "CHUNK_FRAMES", 33)
    source = make_clip("clip.mp4", moving_frames(100))
    (tmp_path / "src").mkdir()
    source.rename(tmp_path / "src" / "clip.mp4")
    times = VideoReader.times
    monkeypatch.setattr(VideoReader, "times", lambda self: [t for t in times(self) if t != times(self)[50]])
    assert run(weights, tmp_path / "src", tmp_path / "dst", "--jobs", 1, "--piece", 1).exit_code == 0
    encode_video(tmp_path / "src" / "clip.mp4", tmp_path / "whole.tokc", weights=weights, **CODED)
    assert outputs(tmp_path / "dst") == {"clip.tokc": (tmp_path / "whole.tokc").read_bytes()}


def test_packets_tell_the_timestamps_of_the_frames(tmp_path: Path) -> None:
    vfr_with_sound(tmp_path / "clip.mp4")
    with VideoReader(tmp_path / "clip.mp4") as reader:
        read = [pts for _, pts in reader]
    with VideoReader(tmp_path / "clip.mp4") as reader:
        assert reader.times() == read
    with av.open(tmp_path / "clip.mp4") as source, av.open(tmp_path / "clip.ts", "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    with VideoReader(tmp_path / "clip.ts") as reader:
        assert reader.times() == []  # MPEG-TS: its clock may jump


class Flaky(ThisProcess):
    """Loses the first workers, as a cluster that loses machines does."""

    def __init__(self, losses: int) -> None:
        self.losses = losses

    def submit(self, unit: Unit, settings: Settings) -> Future[Outcome]:
        if self.losses:
            self.losses -= 1
            future: Future[Outcome] = Future()
            future.set_exception(WorkerLostError("pulled the plug"))
            return future
        return super().submit(unit, settings)


def test_units_of_lost_workers_run_again_and_a_file_that_kills_them_is_given_up(
    tree: Path, tmp_path: Path, weights: Path
) -> None:
    src, items = Tree(str(tree)), select(Tree(str(tree)).items().values(), {".mp4"})
    summary = Batch(src, Tree(str(tmp_path / "a")), settings(weights), Flaky(2), retries=0).run(items)
    assert (summary.done, summary.failed) == (2, {})
    summary = Batch(src, Tree(str(tmp_path / "b")), settings(weights), Flaky(100), retries=0).run(items)
    assert summary.done == 0
    assert "3 workers were lost over it: pulled the plug" in summary.failed["one.mp4"]


def test_a_killed_worker_is_replaced(tree: Path, tmp_path: Path, weights: Path) -> None:
    crew = Processes(1, 1)
    try:
        src, dst = Tree(str(tree)), Tree(str(tmp_path / "dst"))
        items = select(src.items().values(), {".mp4", ".mkv"})
        killed: list[int] = []

        def kill_once(_: object) -> None:
            process = crew._processes[0]
            if not killed and process is not None and process.pid is not None:
                killed.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)

        summary = Batch(src, dst, settings(weights), crew, retries=0, progress=kill_once).run(items)
        assert killed
        assert (summary.done, summary.failed) == (3, {})
    finally:
        crew.close()


def test_a_claim_is_held_by_one(tmp_path: Path) -> None:
    claim = Tree(str(tmp_path)).claim("a/b.tokc")
    with pytest.raises(BusyError):
        Tree(str(tmp_path)).claim("a/b.tokc")
    claim.write({"bytes": 3})
    claim.release()
    again = Tree(str(tmp_path)).claim("a/b.tokc")
    assert again.record == {"bytes": 3}
    again.release()
    (tmp_path / ".tokcodec" / "a" / "b.tokc.json").write_text('{"byt')  # killed while it wrote
    torn = Tree(str(tmp_path)).claim("a/b.tokc")
    assert torn.record == {}
    torn.release()


def command(weights: Path, *args: object) -> list[str]:
    argv = [sys.executable, "-m", "tokcodec.cli", "batch", *map(str, args), "--weights", str(weights)]
    return [*argv, "--device", "cpu", "--dtype", "float32", "--threads", "1", "--json"]


@pytest.mark.parametrize("old", [{}, {"bytes": 12345678901234567890}])
def test_a_record_cut_off_by_a_kill_still_says_that_a_batch_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: dict[str, int]
) -> None:
    claim = Tree(str(tmp_path)).claim("a.tokc")
    claim.write(old)
    size = (tmp_path / ".tokcodec" / "a.tokc.json").stat().st_size

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "ftruncate", killed)
    with pytest.raises(KeyboardInterrupt):
        claim.write({"bytes": 1})
    assert (tmp_path / ".tokcodec" / "a.tokc.json").stat().st_size >= size
    claim.release()
    assert Tree(str(tmp_path)).claim("a.tokc").record is not None


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_midway_is_finished_by_the_next(
    sent: signal.Signals, make_clip: MakeClip, tmp_path: Path, weights: Path
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    clip = make_clip("clip.mp4", moving_frames(70, 144, 176))
    for i in range(12):
        shutil.copy(clip, src / f"{i:02}.mp4")
    argv = command(weights, src, dst, "--jobs", 2, "--piece", 1)
    process = subprocess.Popen(argv, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not outputs(dst) and time.monotonic() < end:
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    assert process.wait(30) == (143 if sent == signal.SIGTERM else -sent)
    assert not psutil.wait_procs(workers, timeout=30)[1]  # nobody works on
    before = outputs(dst)
    assert 0 < len(before) < 12
    if sent == signal.SIGTERM:
        assert not [path for path in leftovers(dst) if "tmp." in str(path)]
    resumed = run(weights, src, dst, "--jobs", 1, "--threads", 1, "--piece", 1, "--json")
    summary = json.loads(resumed.stdout)
    assert summary["done"] + summary["finished"] == 12
    assert summary["finished"] >= len(before) - 2  # each worker may have placed one that was not recorded yet
    assert not leftovers(dst)
    assert run(weights, src, tmp_path / "straight", "--jobs", 1, "--threads", 1).exit_code == 0
    assert outputs(dst) == outputs(tmp_path / "straight")


def test_two_runs_share_one_target(tree: Path, tmp_path: Path, weights: Path) -> None:
    for i in range(5):
        shutil.copy(tree / "one.mp4", tree / f"more-{i}.mp4")
    argv = command(weights, tree, tmp_path / "dst", "--jobs", 1)
    both = [subprocess.Popen(argv, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    summaries = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(summary["done"] for summary in summaries) == 8  # each file once
    assert run(weights, tree, tmp_path / "straight", "--jobs", 1).exit_code == 0
    assert outputs(tmp_path / "dst") == outputs(tmp_path / "straight")
    assert not leftovers(tmp_path / "dst")


def test_urls(tree: Path, tmp_path: Path, weights: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{tree}/", "/videos/", recursive=True)
    try:
        argv = ("memory://videos", "memory://streams", "--jobs", 1, "--json", "--piece", 1, "--verify")
        first = run(weights, *argv)
        assert first.exit_code == 0, first.output
        assert run(weights, tree, tmp_path / "dst", "--jobs", 1).exit_code == 0
        stored = {path for path in memory.find("/streams") if ".tokcodec" not in path}
        assert {path.removeprefix("/streams/"): memory.cat(path) for path in stored} == outputs(tmp_path / "dst")
        assert not [path for path in memory.find("/streams") if ".work" in path]
        again = json.loads(run(weights, *argv).stdout)
        assert (again["done"], again["finished"]) == (0, 3)
        assert run(weights, *argv, "--delete-source", "--glob", "one*").exit_code == 0
        assert not memory.exists("/videos/one.mp4")
    finally:
        memory.rm("/videos", recursive=True)
        memory.rm("/streams", recursive=True)


def test_an_unknown_protocol_is_one_clear_line() -> None:
    with pytest.raises(TokcodecError, match="nowhere"):
        Tree("nowhere://x")
