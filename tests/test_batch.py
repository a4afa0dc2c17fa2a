"""The batch: same bytes whoever works, resumable, indifferent to what fails, two runs on one target."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from fractions import Fraction
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, cast

import av
import fsspec
import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result

from tests.conftest import MakeClip, moving_frames, with_sound, without_progress
from tokcodec import edit
from tokcodec.batch import pieces
from tokcodec.batch.driver import Driver
from tokcodec.batch.resume import BusyError, Record, Records
from tokcodec.batch.selection import select
from tokcodec.batch.storage import Item, Tree, fetched
from tokcodec.batch.units import Done, OnFrames, Outcome, Settings, Unit
from tokcodec.batch.workers import Processes, ThisProcess, WorkerLostError
from tokcodec.cli import cli
from tokcodec.codec import chunking, encode_video
from tokcodec.compute import Compute
from tokcodec.errors import TokcodecError
from tokcodec.rate import Rate
from tokcodec.video import VideoReader
from tokcodec.weights import Weights

PATIENCE_S = 600  # for what should take seconds, on a machine that may be busy
CODED = {"compute": Compute("cpu", "float32")}


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
    """What a user sees of DST: hidden files aside. Hidden folders are not looked into: a run may be at work there."""
    found: dict[str, bytes] = {}
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        paths = (Path(folder, name) for name in names if not name.startswith("."))
        found |= {str(path.relative_to(root)): path.read_bytes() for path in paths}
    return found


def leftovers(root: Path) -> list[Path]:
    """All files of DST that are neither outputs nor records."""
    found = []
    for folder, folders, names in os.walk(root):  # not `rglob`, which fails where something goes meanwhile
        found += [Path(folder, name) for name in names if ".work" in folder or "partial" in name]
        found += [Path(folder, name) for name in folders if "partial" in name]
    return found


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


def twins(make_clip: MakeClip, tmp_path: Path) -> Path:
    """A folder with a.mov and a.mp4, two films that would both be a.tokc."""
    src = tmp_path / "src"
    src.mkdir()
    make_clip("a.mov", moving_frames(4)).rename(src / "a.mov")
    make_clip("a.mp4", moving_frames(7)).rename(src / "a.mp4")
    return src


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], []),
        ([], ["-f"]),
        (["--ext", "mov"], ["--ext", "mp4"]),
        (["--glob", "*.mp4"], ["--glob", "*.mov"]),
        (["--list", "{}/mov"], ["--list", "{}/mp4"]),
    ],
)
@pytest.mark.parametrize("target", ["{}/dst", "memory://{}"])
def test_the_stream_of_a_deleted_source_is_not_taken_for_another(
    first: list[str], second: list[str], target: str, make_clip: MakeClip, tmp_path: Path, weights: Path
) -> None:
    src, dst = twins(make_clip, tmp_path), Tree(target.format(tmp_path))

    def again(options: list[str]) -> Result:
        return run(weights, src, dst.url(""), "--jobs", 1, "--delete-source", *(x.format(tmp_path) for x in options))

    for suffix in ("mov", "mp4"):
        (tmp_path / suffix).write_text(f"a.{suffix}\n")
    again(first)
    (left,) = outputs(src)
    made = stored(dst, "a.tokc")
    for _ in range(2):
        refused = again(second)
        assert refused.exit_code == 1
        assert "a.tokc was made from a." in refused.stderr
        assert set(outputs(src)) == {left}
        assert stored(dst, "a.tokc") == made


def stored(tree: Tree, name: str) -> bytes:
    with fetched(tree.url(name), {}) as path:
        return path.read_bytes()


def test_all_shards_know_of_one_output(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    src = twins(make_clip, tmp_path)
    for shard in ("1/3", "2/3", "3/3"):
        run(weights, src, tmp_path / "dst", "--jobs", 1, "--delete-source", "--shard", shard)
    assert len(outputs(src)) == 1
    items = [Item(f"{i}.{suffix}", 1, "") for i in range(20) for suffix in ("mov", "mp4")]
    for i in (1, 2, 3):
        names = [Path(item.name).stem for item in select(items, {".mov", ".mp4"}, shard=(i, 3)).chosen]
        assert names == sorted(2 * list(set(names)), key=names.index)


def test_a_film_under_the_name_of_a_deleted_one_is_refused(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    src, dst = twins(make_clip, tmp_path), tmp_path / "dst"
    (src / "a.mov").rename(tmp_path / "next")
    assert run(weights, src, dst, "--jobs", 1, "--delete-source").exit_code == 0
    before = outputs(dst)
    (tmp_path / "next").rename(src / "a.mp4")  # the camera counts from 1 again
    again = run(weights, src, dst, "--jobs", 1, "--delete-source", "-f")
    assert again.exit_code == 1
    assert "a.tokc was made from another a.mp4, since deleted" in again.stderr
    assert outputs(dst) == before
    assert set(outputs(src)) == {"a.mp4"}


def test_the_stream_of_a_file_in_another_tree_is_foreign(
    make_clip: MakeClip, tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    src, dst, other = twins(make_clip, tmp_path), tmp_path / "dst", tmp_path / "other"
    other.mkdir()
    (src / "a.mov").rename(other / "a.mp4")
    assert run(weights, src, dst, "--jobs", 1, "--verify").exit_code == 0
    before = outputs(dst)
    refused = run(weights, other, dst, "--jobs", 1)
    assert refused.exit_code == 1
    assert f"a.tokc was made from a.mp4 in {src}; overwriting must be asked for" in refused.stderr
    assert outputs(dst) == before
    src.rename(tmp_path / "moved")  # the same file elsewhere: finished
    assert json.loads(run(weights, tmp_path / "moved", dst, "--jobs", 1, "--json").stdout)["finished"] == 1
    assert run(weights, tmp_path / "moved", dst, "--jobs", 1, "--delete-source").exit_code == 0
    kept = f"{tmp_path / 'moved' / 'a.mp4'}: its output was made from the file in {src}, so it is not deleted"
    assert caplog.messages[-1] == kept
    assert (tmp_path / "moved" / "a.mp4").exists()
    assert run(weights, other, dst, "--jobs", 1, "-f").exit_code == 0
    assert outputs(dst) != before


@pytest.mark.parametrize("finished", [False, True])
def test_a_source_replaced_since_it_was_listed_is_kept(
    finished: bool, make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst = twins(make_clip, tmp_path), tmp_path / "dst"
    (src / "a.mov").rename(tmp_path / "next")
    if finished:
        assert run(weights, src, dst, "--jobs", 1, "--verify").exit_code == 0
    sync, times = Tree.sync, os.stat(src / "a.mp4")

    def replaced(self: Tree, name: str) -> None:
        os.utime(tmp_path / "next", ns=(times.st_atime_ns, times.st_mtime_ns))
        with (tmp_path / "next").open("ab") as file:
            file.truncate(times.st_size)  # another inode is all that tells
        os.utime(tmp_path / "next", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tmp_path / "next").rename(src / "a.mp4")
        sync(self, name)

    monkeypatch.setattr(Tree, "sync", replaced)
    result = run(weights, src, dst, "--jobs", 1, "--delete-source")
    assert result.exit_code == 1
    assert "a.mp4: changed since it was listed, so it is not deleted" in result.stderr
    assert set(outputs(src)) == {"a.mp4"}
    monkeypatch.undo()
    os.utime(src / "a.mp4", (1, 1))
    again = run(weights, src, dst, "--jobs", 1, "--json")
    assert json.loads(again.stdout)["files"] == 1
    assert "since deleted" not in again.stderr


def test_a_source_that_another_run_has_deleted_is_finished(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    src, dst = Tree(str(twins(make_clip, tmp_path))), Tree(str(tmp_path / "dst"))
    chosen = select(src.items().values(), {".mov"})
    how = settings(weights, verify=True)
    summaries = [Driver(src, dst, how, delete_source=True).run(chosen, ThisProcess()) for _ in range(2)]
    assert [(s.done, s.finished, s.failed) for s in summaries] == [(1, 0, {}), (0, 1, {})]
    assert set(outputs(tmp_path / "src")) == {"a.mp4"}


def test_a_source_is_deleted_after_its_stream_is_on_the_disk(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    src, dst, done = twins(make_clip, tmp_path), tmp_path / "dst", []
    (src / "a.mp4").unlink()
    (src / "b").mkdir()
    (src / "a.mov").rename(src / "b" / "a.mov")
    fsync, remove = os.fsync, os.remove
    monkeypatch.setattr(
        os, "fsync", lambda handle: (done.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "remove", lambda path: (done.append(str(path)), remove(path)))
    assert run(weights, src, dst, "--jobs", 1, "--delete-source").exit_code == 0
    before = done[: done.index(str(src / "b" / "a.mov"))]
    assert {str(dst / "b" / "a.tokc"), str(dst / "b"), str(dst)} <= set(before)
    assert outputs(src) == {}


def test_a_source_that_cannot_be_deleted_does_not_stop_the_rest(
    tree: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = Tree.delete

    def refuse(self: Tree, item: Item) -> None:
        if item.name == "a/two.mkv":
            raise TokcodecError(f"{item.name}: Permission denied")
        delete(self, item)

    monkeypatch.setattr(Tree, "delete", refuse)
    result = run(weights, tree, tmp_path / "dst", "--jobs", 1, "--delete-source")
    assert result.exit_code == 1
    assert "a/two.mkv: Permission denied" in result.stderr
    assert set(outputs(tree)) == {"a/two.mkv", "notes.txt"}


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


def test_a_source_that_is_no_folder_is_an_error_and_an_empty_one_is_told(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "file").touch()
    for source, message in [
        (tmp_path / "nosuchdir", "no such folder"),
        (tmp_path / "file", "is not a folder"),
        ("memory:///nosuchdir", "no such folder"),
    ]:
        with pytest.raises(TokcodecError, match=f"{source}: {message}"):
            run(weights, source, tmp_path / "dst", "--jobs", 1)
    for names in ([], ["a.txt", "b.txt"]):
        for name in names:
            (tmp_path / "src" / name).touch()
        result = run(weights, tmp_path / "src", tmp_path / "dst", "--jobs", 1, "--json")
        assert result.exit_code == 0
        assert f"nothing to do: none of its {len(names)} files is chosen" in result.stderr
        assert json.loads(result.stdout)["files"] == 0
    assert not (tmp_path / "dst").exists()


def test_a_name_that_is_not_utf8_is_a_name(tree: Path, tmp_path: Path, weights: Path) -> None:
    name, dst, listing = os.fsdecode(b"caf\xe9.mp4"), tmp_path / "dst", tmp_path / "list"
    (tree / "one.mp4").rename(tree / name)
    assert run(weights, tree, dst, "--jobs", 1, "--shard", "1/1", "--log", tmp_path / "log").exit_code == 0
    assert set(outputs(dst)) == {os.fsdecode(b"caf\xe9.tokc"), "a/two.tokc", "a/b/three.tokc"}
    listing.write_bytes(b"caf\xe9.mp4\n")
    again = run(weights, tree, dst, "--jobs", 1, "--json", "--list", listing)
    assert json.loads(again.stdout)["finished"] == 1
    argv = [*command(weights, tree, tmp_path / "made", "--jobs", "2", "--delete-source")[:-1]]
    done = subprocess.run(argv, env=ENVIRONMENT, check=True, capture_output=True)
    assert without_progress(done.stderr) == ""
    assert not (tree / name).exists()


def test_a_name_that_the_target_does_not_take_fails_alone(tree: Path, tmp_path: Path, weights: Path) -> None:
    (tree / "one.mp4").rename(tree / f"{'x' * 251}.mp4")  # its stream would need a longer one
    result = run(weights, tree, tmp_path / "dst", "--jobs", 1)
    assert result.exit_code == 1
    assert "File name too long" in result.stderr
    assert set(outputs(tmp_path / "dst")) == {"a/two.tokc", "a/b/three.tokc"}


def test_a_target_that_cannot_be_written_is_one_clear_line(tree: Path, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "dst").write_text("a file")
    with pytest.raises(TokcodecError, match=r"dst: (Not a directory|File exists)"):
        run(weights, tree, tmp_path / "dst", "--jobs", 1)


def test_select() -> None:
    items = [Item(f"{folder}/{i}.{ext}", 1, "") for folder in "xy" for i in range(50) for ext in ("mp4", "MKV", "txt")]
    videos = select(items, {".mp4", ".mkv"}).chosen
    assert len(videos) == 200
    assert [item.name for item in select(items, {".mp4"}, ["x/1*", "y/2.*"]).chosen] == [
        "x/1.mp4",
        *(f"x/1{i}.mp4" for i in range(10)),
        "y/2.mp4",
    ]
    shards = [select(items, {".mp4", ".mkv"}, shard=(i, 3)).chosen for i in (1, 2, 3)]
    assert sorted(item.name for shard in shards for item in shard) == sorted(item.name for item in videos)
    assert all(shards)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--shard", "0/3"], "is not a part"),
        (["--shard", "4/3"], "is not a part"),
        (["--decode", "--verify"], "not for --decode"),
        (["--decode", "--step", "3"], "not for --decode"),
        (["--decode", "--deinterlace"], "not for --decode"),
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
    make_clip("long.mp4", moving_frames(2060, 16, 16), options={"g": "20"}).rename(tree / "long.mp4")
    log = tmp_path / "run.ndjson"
    assert run(weights, tree, tmp_path / "one", "--jobs", 1, "--threads", 1).exit_code == 0
    result = run(weights, tree, tmp_path / "two", "--jobs", 2, "--threads", 1, "--piece", 1, "--log", log)
    assert result.exit_code == 0, result.output
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    assert not leftovers(tmp_path / "two")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {Path(line["input"]).name: line["pieces"] for line in lines} == {
        "long.mp4": 2,
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
    monkeypatch.setattr(chunking, "CHUNK_FRAMES", 33)
    monkeypatch.setattr(chunking, "SECTION_CHUNKS", 1)
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
    monkeypatch.setattr(chunking, "CHUNK_FRAMES", 33)
    monkeypatch.setattr(chunking, "SECTION_CHUNKS", 1)
    source = make_clip("clip.mp4", moving_frames(100))
    (tmp_path / "src").mkdir()
    source.rename(tmp_path / "src" / "clip.mp4")
    times = VideoReader.times
    monkeypatch.setattr(VideoReader, "times", lambda self: [t for t in times(self) if t != times(self)[50]])
    assert run(weights, tmp_path / "src", tmp_path / "dst", "--jobs", 1, "--piece", 1).exit_code == 0
    encode_video(tmp_path / "src" / "clip.mp4", tmp_path / "whole.tokc", weights=weights, **CODED)
    assert outputs(tmp_path / "dst") == {"clip.tokc": (tmp_path / "whole.tokc").read_bytes()}


@pytest.mark.parametrize(("first", "pieces_told"), [(66, 1), (40, 1), (90, 3)])
def test_a_video_whose_size_changes_is_coded_as_by_encode(
    first: int,
    pieces_told: int,
    make_clip: MakeClip,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where pieces meet, within the first one, and within the last one of three, where nothing is in the way."""
    monkeypatch.setattr(chunking, "CHUNK_FRAMES", 33)
    monkeypatch.setattr(chunking, "SECTION_CHUNKS", 1)
    sizes = {"small.mkv": (first, 48, 64), "large.mkv": (120 - first, 96, 128)}
    made = [make_clip(name, moving_frames(*size), codec="mjpeg", pix_fmt="yuvj420p") for name, size in sizes.items()]
    (tmp_path / "src").mkdir()
    path, count = tmp_path / "src" / "both.mkv", 0
    with av.open(path, "w") as target, av.open(made[0]) as small, av.open(made[1]) as large:
        copy = target.add_stream_from_template(small.streams.video[0])
        for packet in (*small.demux(), *large.demux()):
            if packet.size:
                packet.stream, packet.pts, packet.dts = copy, 33 * count, 33 * count
                target.mux(packet)
                count += 1
    log = tmp_path / "log"
    result = run(weights, tmp_path / "src", tmp_path / "dst", "--jobs", 1, "--piece", 1, "--log", log)
    assert result.exit_code == 0, result.output
    note = json.loads(log.read_text())
    assert (note["frames"], note["tries"], note["pieces"]) == (120, 1, pieces_told)
    warning = "the size of its frames changes from 64x48 to 128x96; they are scaled to the first"
    assert note["warnings"] == [f"{path}: {warning}"]
    encode_video(path, tmp_path / "whole.tokc", weights=weights, **CODED)
    assert outputs(tmp_path / "dst") == {"both.tokc": (tmp_path / "whole.tokc").read_bytes()}


class Ending(ThisProcess):
    """Does so many units, then ends the run."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units

    def submit(self, unit: Unit, settings: Settings) -> Future[Outcome]:
        self.units -= 1
        if self.units >= 0:
            return super().submit(unit, settings)
        future: Future[Outcome] = Future()
        future.set_exception(TokcodecError("no worker is left"))
        return future


def test_pieces_of_another_length_are_not_taken_over(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "CHUNK_FRAMES", 9)
    monkeypatch.setattr(chunking, "SECTION_CHUNKS", 1)
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / "a.mkv"
    make_clip("a.mkv", moving_frames(90), codec="mjpeg", pix_fmt="yuvj420p").rename(path)
    assert [len(pieces.plan(path, chunks)) for chunks in (4, 5)] == [2, 2]
    src, dst = Tree(str(tmp_path / "src")), Tree(str(tmp_path / "dst"))
    chosen = select(src.items().values(), {".mkv"})
    with pytest.raises(TokcodecError, match="no worker is left"):  # after the plan and a piece
        Driver(src, dst, settings(weights, piece_chunks=4)).run(chosen, Ending(2))
    assert len(list((tmp_path / "dst" / ".tokcodec" / "a.tokc.work").iterdir())) == 1
    assert Driver(src, dst, settings(weights, piece_chunks=5)).run(chosen, ThisProcess()).done == 1
    encode_video(path, tmp_path / "whole.tokc", weights=weights, **CODED)
    assert (tmp_path / "dst" / "a.tokc").read_bytes() == (tmp_path / "whole.tokc").read_bytes()


def test_a_source_that_could_not_be_read_to_its_end_is_not_deleted(
    make_clip: MakeClip, tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "src").mkdir()
    path, dst = tmp_path / "src" / "a.mp4", tmp_path / "dst"
    clip = make_clip("a.mp4", moving_frames(40), container_options={"movflags": "faststart"}, options={"g": "5"})
    path.write_bytes(clip.read_bytes()[:-600])
    for _ in range(2):  # made, then found finished
        result = run(weights, tmp_path / "src", dst, "--jobs", 1, "--delete-source")
        assert result.exit_code == 0, result.output
        assert caplog.messages[-1] == f"{path}: not all of it could be read, so it is not deleted"
        assert path.exists()
    path.write_bytes(clip.read_bytes())
    assert run(weights, tmp_path / "src", dst, "--jobs", 1, "--delete-source").exit_code == 0
    assert not path.exists()


def test_a_source_whose_sound_is_lost_is_not_deleted(
    make_clip: MakeClip, tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "src").mkdir()
    path = tmp_path / "src" / "a.mkv"
    whole = with_sound(make_clip("v.mp4", moving_frames(9)), path).read_bytes()
    assert whole.count(b"A_AAC") == 1
    path.write_bytes(whole.replace(b"A_AAC", b"A_FOO"))  # a codec that nobody knows
    assert run(weights, tmp_path / "src", tmp_path / "dst", "--jobs", 1, "--delete-source").exit_code == 0
    assert caplog.messages[-1] == f"{path}: not all of it could be read, so it is not deleted"
    assert path.exists()


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
        super().__init__()
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
    src, chosen = Tree(str(tree)), select(Tree(str(tree)).items().values(), {".mp4"})
    summary = Driver(src, Tree(str(tmp_path / "a")), settings(weights), retries=0).run(chosen, Flaky(2))
    assert (summary.done, summary.failed) == (2, {})
    summary = Driver(src, Tree(str(tmp_path / "b")), settings(weights), retries=0).run(chosen, Flaky(100))
    assert summary.done == 0
    assert "3 workers were lost over it: pulled the plug" in summary.failed["one.mp4"]
    crew = Flaky(100)
    Driver(src, Tree(str(tmp_path / "c")), settings(weights), retries=5).run(chosen, crew)
    assert crew.losses == 100 - 2 * 3, "retries are for errors"


@dataclasses.dataclass(frozen=True)
class Busy:
    """A unit whose thread does not end for a long while."""

    started: str

    def run(self, _: Settings, names: dict[str, str], coded: OnFrames) -> Done:
        threading.Thread(target=time.sleep, args=(2 * PATIENCE_S,)).start()
        Path(self.started).touch()
        time.sleep(2 * PATIENCE_S)
        return Done()


def test_a_worker_that_is_stopped_does_not_wait_for_its_threads(tmp_path: Path, weights: Path) -> None:
    crew = Processes(1, 1)
    crew.submit(Busy(str(tmp_path / "started")), settings(weights))  # type: ignore[arg-type]
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    began = time.monotonic()
    crew.close()
    assert time.monotonic() - began < PATIENCE_S


def test_no_file_stays_claimed_when_its_note_cannot_be_told(tree: Path, tmp_path: Path, weights: Path) -> None:
    src, dst = Tree(str(tree)), Tree(str(tmp_path / "dst"))
    chosen = select(src.items().values(), {".mp4", ".mkv"})

    def fails(*_: object) -> None:
        raise TokcodecError("the disk is full")

    for _ in range(2):  # of files that are done, and of those that were
        with pytest.raises(TokcodecError, match="the disk is full"):
            Driver(src, dst, settings(weights), settled=fails).run(chosen, ThisProcess())
        assert Driver(src, dst, settings(weights)).run(chosen, ThisProcess()).busy == 0


def test_a_killed_worker_is_replaced(tree: Path, tmp_path: Path, weights: Path) -> None:
    crew = Processes(1, 1)
    try:
        src, dst = Tree(str(tree)), Tree(str(tmp_path / "dst"))
        chosen = select(src.items().values(), {".mp4", ".mkv"})
        killed: list[int] = []

        def kill_once(*_: object) -> None:
            process = crew._processes[0]
            if not killed and process is not None and process.pid is not None:
                killed.append(process.pid)
                os.kill(process.pid, signal.SIGKILL)

        summary = Driver(src, dst, settings(weights), retries=0, settled=kill_once).run(chosen, crew)
        assert killed
        assert (summary.done, summary.failed) == (3, {})
    finally:
        crew.close()


def test_a_claim_is_held_by_one(tmp_path: Path) -> None:
    claim = Records(Tree(str(tmp_path))).claim("a/b.tokc")
    with pytest.raises(BusyError):
        Records(Tree(str(tmp_path))).claim("a/b.tokc")
    claim.write(RECORD)
    claim.release()
    again = Records(Tree(str(tmp_path))).claim("a/b.tokc")
    assert again.record == RECORD
    again.release()


def test_a_file_system_without_locks_has_records_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("tokcodec.io.locks.lock", no_locks)
    claim = Records(Tree(str(tmp_path))).claim("a/b.tokc")
    claim.write(RECORD)
    claim.release()
    assert Records(Tree(str(tmp_path))).peek("a/b.tokc").record == RECORD


RECORD = Record("b.mov", 12345, "1.5", "/videos", {"crf": 12.0}, bytes=3)


@dataclasses.dataclass(frozen=True)
class TellGpu:
    """A unit that fails with what its worker sees of the GPUs, when two workers are at it."""

    begun: str

    def run(self, _: Settings, names: dict[str, str], coded: OnFrames) -> Done:
        Path(self.begun, str(os.getpid())).touch()
        while len(os.listdir(self.begun)) < 2:
            time.sleep(0.02)
        raise TokcodecError(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


@pytest.mark.parametrize(
    ("ours", "gpus", "theirs"),
    [
        (None, 2, {"0", "1"}),
        ("5,7", 2, {"5", "7"}),
        ("GPU-8932f937, 3", 2, {"GPU-8932f937", "3"}),
        ("6", 1, {"6"}),
        ("5,7", 0, {"5,7"}),
    ],
)
def test_workers_share_the_gpus_their_parent_sees(
    ours: str | None, gpus: int, theirs: set[str], monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "begun").mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if ours is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ours)
    crew, unit = Processes(2, 1, gpus), cast("Unit", TellGpu(str(tmp_path / "begun")))
    try:
        futures = [crew.submit(unit, settings(weights)) for _ in range(6)]
        errors = {future.result(PATIENCE_S).error for future in futures}
        assert errors == theirs
    finally:
        crew.close()


def test_workers_that_cannot_be_started_end_the_batch(
    tree: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(SpawnProcess, "start", refuse)
    with pytest.raises(TokcodecError, match="no worker can be started: Resource temporarily unavailable"):
        run(weights, tree, tmp_path / "dst", "--jobs", 3)
    monkeypatch.undo()
    assert run(weights, tree, tmp_path / "dst", "--jobs", 1).exit_code == 0  # no claim is held


def test_a_worker_that_cannot_be_started_is_done_without(
    tree: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = SpawnProcess.start, threading.Lock()

    def once(process: SpawnProcess) -> None:
        if not started.acquire(blocking=False):
            raise BrokenPipeError
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", once)
    result = run(weights, tree, tmp_path / "dst", "--jobs", 3, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["done"] == 3


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "3", '{"byt', "\xff", '{"bytes": 3}', '{"name": 1, "settings": [], "bytes": "x"}']
)
def test_a_record_of_unknown_shape_counts_as_none(text: str, tree: Path, tmp_path: Path, weights: Path) -> None:
    dst = tmp_path / "dst"
    book = dst / ".tokcodec" / "one.tokc.json"
    book.parent.mkdir(parents=True)
    book.write_text(text, encoding="latin-1")
    (dst / "one.tokc").write_text("mine")
    refused = run(weights, tree, dst, "--jobs", 1)
    assert "one.tokc exists, and no batch made it" in refused.stderr
    assert set(outputs(dst)) == {"one.tokc", "a/two.tokc", "a/b/three.tokc"}
    (dst / "one.tokc").unlink()
    assert run(weights, tree, dst, "--jobs", 1).exit_code == 0
    facts = json.loads(book.read_text())
    for name in ("name", "source_bytes", "modified", "tree", "settings", "bytes"):
        book.write_text(json.dumps(facts | {name: None}))
        claim = Records(Tree(str(dst))).claim("one.tokc")
        assert claim.record is None
        claim.release()


def command(weights: Path, *args: object) -> list[str]:
    argv = [sys.executable, "-m", "tokcodec", "batch", *map(str, args), "--weights", str(weights)]
    return [*argv, "--device", "cpu", "--dtype", "float32", "--threads", "1", "--json"]


@pytest.mark.parametrize("old", [RECORD, dataclasses.replace(RECORD, name="a much longer name.mov")])
def test_a_record_cut_off_by_a_kill_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: Record
) -> None:
    claim = Records(Tree(str(tmp_path))).claim("a.tokc")
    claim.write(old)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "ftruncate", killed)
    new = dataclasses.replace(RECORD, name="a.mov")
    with pytest.raises(KeyboardInterrupt):
        claim.write(new)
    claim.release()
    assert Records(Tree(str(tmp_path))).claim("a.tokc").record == new


FILES = 10  # more than two workers finish before a signal reaches them
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_stopped_midway_is_finished_by_the_next(
    sent: signal.Signals, make_clip: MakeClip, tmp_path: Path, weights: Path
) -> None:
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    clip = make_clip("clip.mp4", moving_frames(40, 96, 128))
    for i in range(FILES):
        shutil.copy(clip, src / f"{i:02}.mp4")
    argv = command(weights, src, dst, "--jobs", 2, "--piece", 1)
    process = subprocess.Popen(argv, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while not outputs(dst):
        assert process.poll() is None
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    assert process.wait(PATIENCE_S) == (143 if sent == signal.SIGTERM else -sent)
    assert not psutil.wait_procs(workers, timeout=PATIENCE_S)[1]  # nobody works on
    before = outputs(dst)
    assert 0 < len(before) < FILES
    if sent == signal.SIGTERM:
        assert not [path for path in leftovers(dst) if "tmp." in str(path)]
    resumed = run(weights, src, dst, "--jobs", 1, "--threads", 1, "--piece", 1, "--json")
    summary = json.loads(resumed.stdout)
    assert summary["done"] + summary["finished"] == FILES
    assert summary["finished"] >= len(before) - 2  # each worker may have placed one that was not recorded yet
    assert not leftovers(dst)
    encode_video(clip, tmp_path / "straight.tokc", weights=weights)
    assert outputs(dst) == {f"{i:02}.tokc": (tmp_path / "straight.tokc").read_bytes() for i in range(FILES)}


def test_two_runs_share_one_target(tree: Path, tmp_path: Path, weights: Path) -> None:
    for i in range(5):
        shutil.copy(tree / "one.mp4", tree / f"more-{i}.mp4")
    argv = command(weights, tree, tmp_path / "dst", "--jobs", 1)
    both = [subprocess.Popen(argv, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    summaries = [json.loads(process.communicate(timeout=PATIENCE_S)[0]) for process in both]
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


@pytest.mark.parametrize(
    ("options", "device"),
    [((), "cpu"), (("--bitrate", "1M"), "cpu"), (("--target-psnr", 30), "auto"), (("--decode",), "auto")],
)
def test_a_worker_a_gpu_is_for_what_needs_the_network(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], device: str
) -> None:
    asked = []

    def local_workers(jobs: int | None, threads: int | None, device: str) -> ThisProcess:
        asked.append(device)
        return ThisProcess()

    monkeypatch.setattr("tokcodec.batch.local_workers", local_workers)
    (tmp_path / "src").mkdir()
    argv = ["batch", tmp_path / "src", tmp_path / "dst", "--weights", weights, *options]
    assert CliRunner().invoke(cli, list(map(str, argv)), catch_exceptions=False).exit_code == 0
    assert asked == [device]


@pytest.mark.parametrize("pieces", [(), ("--piece", 1)])
def test_messages_name_remote_files_not_their_copies(
    make_clip: MakeClip,
    tmp_path: Path,
    weights: Path,
    caplog: pytest.LogCaptureFixture,
    pieces: tuple[object, ...],
) -> None:
    memory = fsspec.filesystem("memory")
    deep = make_clip("deep.mkv", moving_frames(3), codec="ffv1", pix_fmt="yuv444p10le")
    memory.pipe({"/films/broken.mp4": bytes(1000), "/films/deep.mkv": deep.read_bytes()})
    try:
        result = run(weights, "memory://films", "memory://made", "--jobs", 1, *pieces)
        assert result.exit_code == 1
        assert "memory:///films/broken.mp4: not a video" in result.stderr
        assert caplog.messages == ["memory:///films/deep.mkv: 10-bit video is coded with 8 bits"]
    finally:
        for folder in ("/films", "/made"):
            memory.rm(folder, recursive=True)


def test_a_remote_film_in_pieces_is_fetched_once(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "CHUNK_FRAMES", 33)
    monkeypatch.setattr(chunking, "SECTION_CHUNKS", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    memory, fetches = fsspec.filesystem("memory"), []
    get_file = type(memory).get_file

    def counted(self: Any, path: str, target: str, **more: Any) -> None:
        fetches.append(path)
        get_file(self, path, target, **more)

    monkeypatch.setattr(type(memory), "get_file", counted)
    films = [str(make_clip(f"{i}.mp4", moving_frames(100 + i))) for i in range(2)]
    try:
        memory.makedirs("/films")
        memory.put(films, "/films/")
        result = run(weights, "memory://films", "memory://made", "--jobs", 1, "--piece", 1, "--log", tmp_path / "log")
        assert result.exit_code == 0, result.output
        assert [json.loads(line)["pieces"] for line in (tmp_path / "log").read_text().splitlines()] == [3, 3]
        assert [path for path in fetches if path.endswith(".mp4")] == ["/films/0.mp4", "/films/1.mp4"]
        assert not [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]
    finally:
        for folder in ("/films", "/made"):
            memory.rm(folder, recursive=True)


def test_a_copy_is_shared_and_goes_with_its_last_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = """
import os, sys, pathlib
from tokcodec.batch.copies import shared_copy

def fetch(path):
    path.write_text("a film")
    print("fetched", flush=True)

for line in sys.stdin:
    print(shared_copy(line.strip(), "film.mp4", fetch).read_text(), flush=True)
"""
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path)}

    def user() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", script], env=environment, stdin=pipe, stdout=pipe, text=True)

    def ask(process: subprocess.Popen[str], key: str) -> list[str]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{key}\n")
        process.stdin.flush()
        lines = [process.stdout.readline().strip()]
        while lines[-1] != "a film":
            lines.append(process.stdout.readline().strip())
        return lines

    def copies() -> set[str]:
        return {path.parent.name for path in tmp_path.rglob("film.mp4")}

    with user() as one, user() as two:
        assert ask(one, "A") == ["fetched", "a film"]
        assert ask(two, "A") == ["a film"]
        assert ask(two, "B") == ["fetched", "a film"]
        assert copies() == {"A", "B"}
        assert ask(two, "A") == ["a film"]
        assert copies() == {"A"}
        one.kill()
        one.wait()
        assert copies() == {"A"}
        two.kill()
        two.wait()
        assert copies() == {"A"}  # nobody was left to remove it
    with user() as three:
        assert ask(three, "B") == ["fetched", "a film"]
        assert copies() == {"B"}
        assert three.stdin is not None
        three.stdin.close()
        three.wait(30)
    assert copies() == set()


def test_an_unknown_protocol_is_one_clear_line() -> None:
    with pytest.raises(TokcodecError, match="nowhere"):
        Tree("nowhere://x")
