"""The batch as a library call, and what it would do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import fsspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import MakeClip, frames_of, moving_frames

from tokcodec import TokcodecError, batch, edit, encode_video
from tokcodec.batch import Crew, Decode, Encode, Which
from tokcodec.batch.selection import select
from tokcodec.batch.storage import Item
from tokcodec.cli import cli
from tokcodec.codec import chunking
from tokcodec.compute import Compute
from tokcodec.io import suffixes
from tokcodec.rate import Rate
from tokcodec.video import Filters

CODED: dict[str, Any] = {"compute": Compute("cpu", "float32"), "crew": Crew(jobs=1)}
LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


@pytest.fixture
def tree(make_clip: MakeClip, tmp_path: Path) -> Path:
    """One clip of 5 frames at the top, one of 7 in a folder, and what is no video."""
    root = tmp_path / "src"
    (root / "a").mkdir(parents=True)
    make_clip("one.mp4", moving_frames(5)).rename(root / "one.mp4")
    make_clip("two.mkv", moving_frames(7)).rename(root / "a" / "two.mkv")
    for name in ("notes.txt", "a/notes.TXT", "README"):
        (root / name).write_text("no video")
    return root


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder, hidden ones too, with its time of change."""
    return {str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


def statuses(run: Callable[..., batch.Summary], *args: Any, **more: Any) -> dict[str, tuple[str, str | None]]:
    """Status and reason of each file, by name."""
    told: list[batch.Note] = []
    run(*args, **CODED, progress=lambda note, _: told.append(note), **more)
    assert len({note.name for note in told}) == len(told)
    return {note.name: (note.status, note.error or note.why) for note in told}


def test_a_call_does_what_the_command_does(tree: Path, tmp_path: Path) -> None:
    told: list[tuple[str, str, int]] = []

    def progress(note: batch.Note, summary: batch.Summary) -> None:
        told.append((note.name, note.status, summary.settled))

    log = tmp_path / "log"
    summary = batch.run(
        tree, tmp_path / "call", Encode(Rate(quality=2), verify=True), log=log, progress=progress, **CODED
    )
    assert told == [("a/two.mkv", "done", 1), ("one.mp4", "done", 2)]
    assert (summary.files, summary.done, summary.failed, summary.frames) == (2, 2, {}, 12)
    assert summary.skipped == {"suffix .txt": 2, "no suffix": 1}
    assert summary.source_bytes == sum((tree / name).stat().st_size for name in ("one.mp4", "a/two.mkv"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [set(line) for line in lines] == 2 * [{field.name for field in dataclasses.fields(batch.Note)}]
    argv = ["batch", str(tree), str(tmp_path / "command"), "-q", "2", "--device", "cpu", "--jobs", "1", "--json"]
    result = CliRunner().invoke(cli, argv, catch_exceptions=False)
    said = json.loads(result.stdout)
    for name in ("one.tokc", "a/two.tokc"):
        assert (tmp_path / "command" / name).read_bytes() == (tmp_path / "call" / name).read_bytes()
    assert said | {"seconds": 0} == dataclasses.asdict(summary) | {"seconds": 0}

    back = batch.run(tmp_path / "call", tmp_path / "back", Decode(to="mkv"), **CODED)
    assert (back.done, back.skipped) == (2, {})
    assert len(frames_of(tmp_path / "back" / "a" / "two.mkv")) == 7


@pytest.mark.parametrize("jobs", [1, 2])
def test_frames_are_told_while_their_file_is_under_way(tree: Path, tmp_path: Path, jobs: int) -> None:
    told: list[tuple[int, int]] = []

    def coding(frames: int, summary: batch.Summary) -> None:
        told.append((summary.settled, frames))

    batch.run(tree, tmp_path / "dst", coding=coding, **CODED | {"crew": Crew(jobs=jobs)})
    first = [frames for settled, frames in told if settled == 0]
    assert first == sorted(first)
    assert {0, 1} < set(first)
    assert max(frames for _, frames in told) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Crew(ray="", jobs=2),
        lambda: Decode(to="avi"),
        lambda: Which(shard=(0, 2)),
        lambda: Which(shard=(3, 2)),
    ],
)
def test_arguments_that_do_not_fit_are_the_callers_mistake(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"give one of|must be"):
        wrong()


def test_files_are_chosen_by_name_pattern_suffix_and_shard(tree: Path, tmp_path: Path) -> None:
    def chosen(**more: Any) -> set[str]:
        told = statuses(batch.run, tree, tmp_path / "dst", dry_run=True, which=Which(**more))
        return {name for name, (status, _) in told.items() if status == "planned"}

    assert chosen() == {"one.mp4", "a/two.mkv"}
    assert chosen(globs=["a/*"]) == {"a/two.mkv"}
    assert chosen(suffixes=["MP4"]) == chosen(suffixes=[".mp4"]) == {"one.mp4"}
    assert chosen(names=["one.mp4", "one.mp4"]) == {"one.mp4"}
    assert chosen(shard=(1, 2)) | chosen(shard=(2, 2)) == {"one.mp4", "a/two.mkv"}
    assert chosen(shard=(1, 2)) & chosen(shard=(2, 2)) == set()


def test_names_are_those_of_paths(tree: Path, tmp_path: Path) -> None:
    names = ["./one.mp4", "a//two.mkv", "./one.mp4", "../up.mp4", "a/none.mp4"]
    made = batch.run(tree, tmp_path / "dst", which=Which(names=names), **CODED)
    assert (made.done, made.files) == (2, 4)
    assert made.failed == {"../up.mp4": "no such file", "a/none.mp4": "no such file"}
    records = (tmp_path / "dst" / ".tokcodec").rglob("*.json")
    assert sorted(path.name for path in records) == ["one.tokc.json", "two.tokc.json"]
    assert not list(tmp_path.glob("*.json"))
    assert not list((tmp_path / "dst").glob("up*"))


def test_the_time_taken_is_told_as_it_goes(tree: Path, tmp_path: Path) -> None:
    times: list[float] = []
    made = batch.run(tree, tmp_path / "dst", progress=lambda _, summary: times.append(summary.seconds), **CODED)
    assert 0 < times[0] < times[1] <= made.seconds
    assert batch.run(tree, tmp_path / "dst", **CODED).seconds > 0  # all are finished


def test_a_dry_run_tells_what_and_why_and_writes_nothing(tree: Path, tmp_path: Path, make_clip: MakeClip) -> None:
    dst, log = tmp_path / "dst", tmp_path / "log"

    def told(**more: Any) -> dict[str, tuple[str, str | None]]:
        before = state(tmp_path)
        found = statuses(batch.run, tree, dst, dry_run=True, log=log, **more)
        assert state(tmp_path) == before
        return {name: fate for name, fate in found.items() if fate[0] != "skipped"}

    assert statuses(batch.run, tree, dst, dry_run=True) == {
        "one.mp4": ("planned", "new"),
        "a/two.mkv": ("planned", "new"),
        "notes.txt": ("skipped", "suffix .txt"),
        "a/notes.TXT": ("skipped", "suffix .txt"),
        "README": ("skipped", "no suffix"),
    }
    assert not dst.exists()
    assert not log.exists()
    batch.run(tree, dst, **CODED)
    assert told() == {"one.mp4": ("finished", None), "a/two.mkv": ("finished", None)}
    assert told(task=Encode(delete_source=True))["one.mp4"] == ("planned", "not verified yet")
    assert told(task=Encode(Rate(step=9)))["one.mp4"] == ("planned", "other settings")
    assert told(which=Which(names=["never.mp4"])) == {"never.mp4": ("failed", "no such file")}
    (dst / "one.tokc").write_bytes(b"cut off")
    assert told()["one.mp4"] == ("planned", "its output is not the one that was made")
    (dst / "one.tokc").unlink()
    assert told()["one.mp4"] == ("planned", "its output is not there")
    batch.run(tree, dst, **CODED)
    os.utime(tree / "one.mp4", (1, 1))
    assert told()["one.mp4"] == ("planned", "its source has changed")
    (dst / "three.tokc").write_text("mine")
    make_clip("three.mp4", moving_frames(4)).rename(tree / "three.mp4")
    assert told()["three.mp4"] == (
        "failed",
        "three.tokc exists, and no batch made it; overwriting must be asked for",
    )
    assert told(overwrite=True)["three.mp4"] == ("planned", "it replaces what no batch made")
    make_clip("three.mov", moving_frames(4)).rename(tree / "three.mov")
    assert told(overwrite=True)["three.mp4"] == ("failed", "three.tokc is made from three.mov already")


def test_a_dry_run_tells_of_a_target_that_is_no_folder(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "dst").write_text("a file")
    with pytest.raises(TokcodecError, match="dst: is not a folder"):
        batch.run(tree, tmp_path / "dst", dry_run=True, **CODED)


def test_a_dry_run_of_urls(tree: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{tree}/", "/dry/", recursive=True)
    try:
        fates = statuses(batch.run, "memory://dry", "memory://wet", dry_run=True)
        assert fates["one.mp4"] == ("planned", "new")
        assert not memory.exists("/wet")
    finally:
        memory.rm("/dry", recursive=True)


def command(*args: object) -> Result:
    argv = ["batch", *map(str, args), "--device", "cpu", "--dtype", "float32", "--jobs", "1"]
    return CliRunner().invoke(cli, argv, catch_exceptions=False)


def test_the_command_lists_a_dry_run(tree: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    assert command(tree, dst, "--glob", "a/*").exit_code == 0
    result = command(tree, dst, "--dry-run")
    assert result.exit_code == 0
    size = (tree / "one.mp4").stat().st_size
    assert result.stdout.splitlines() == [
        "skipped   README: no suffix",
        "skipped   a/notes.TXT: suffix .txt",
        "skipped   notes.txt: suffix .txt",
        f"finished  a/two.mkv -> {dst}/a/two.tokc",
        f"planned   one.mp4 -> {dst}/one.tokc: new",
        f"{dst}: 1 of 2 files to be made, 1 finished before, 0 failed; {size} bytes to read"
        "; skipped: 1 no suffix, 2 suffix .txt",
    ]
    said = json.loads(command(tree, dst, "--dry-run", "--json").stdout)
    assert (said["planned"], said["finished"], said["skipped"]) == (1, 1, {"no suffix": 1, "suffix .txt": 2})
    assert [(note["name"], note["status"], note["why"]) for note in said["notes"]][-1] == ("one.mp4", "planned", "new")


def test_the_command_counts_what_it_skips(tree: Path, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    line = command(tree, dst).stdout
    assert line.startswith(f"{dst}: 2 of 2 files, 0 finished before, 0 in other hands, 0 failed; 12 frames, ")
    assert line.endswith(" s; skipped: 1 no suffix, 2 suffix .txt\n")


def test_what_may_never_end_is_skipped_with_a_line(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tree / "pipe.mp4")
    os.mkfifo(tree / "pipe.txt")
    (tree / "a" / "linked.mkv").symlink_to("../pipe.mp4")
    monkeypatch.chdir(tree)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mp4")
    (tree / "null.mp4").symlink_to("/dev/null")
    dry = statuses(batch.run, tree, tmp_path / "dst", dry_run=True)
    assert (dry["pipe.mp4"], dry["socket.mp4"]) == (("skipped", "named pipe"), ("skipped", "socket"))
    line = command(tree, tmp_path / "dst").stdout
    assert line.startswith(f"{tmp_path / 'dst'}: 2 of 2 files, ")
    assert line.endswith("; skipped: 1 no suffix, 2 named pipe, 3 suffix .txt, 1 device, 1 socket\n")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tree}/a/linked.mkv: is a named pipe, and skipped",
        f"{tree}/null.mp4: is a device, and skipped",
        f"{tree}/pipe.mp4: is a named pipe, and skipped",
        f"{tree}/socket.mp4: is a socket, and skipped",
    ]


def test_the_longest_name_that_a_stream_can_have_is_coded(tree: Path, tmp_path: Path) -> None:
    """Though its record and its unfinished work would have a longer one."""
    name = "k" * 248 + "é"  # 250 bytes
    (tree / "one.mp4").rename(tree / f"{name}.mp4")
    summary = batch.run(tree, tmp_path / "dst", **CODED)
    assert (summary.done, summary.failed) == (2, {})
    assert (tmp_path / "dst" / f"{name}.tokc").exists()
    assert batch.run(tree, tmp_path / "dst", **CODED).finished == 2
    records = sorted(path.name for path in (tmp_path / "dst" / ".tokcodec").rglob("*.json"))
    assert records == [f".{hashlib.sha256(f'{name}.tokc'.encode()).hexdigest()}.json", "two.tokc.json"]


@pytest.mark.parametrize("piece_chunks", [0, 1])
def test_interlaced_video_is_told_of_or_deinterlaced_as_by_encode(
    make_clip: MakeClip, tmp_path: Path, piece_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "CHUNK_FRAMES", 33)
    monkeypatch.setattr(chunking, "SECTION_CHUNKS", 1)
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    fields = moving_frames(200)
    woven = [np.where(np.arange(48)[:, None, None] % 2, b, a) for a, b in zip(fields[::2], fields[1::2], strict=True)]
    make_clip("a.mp4", woven, options={"x264-params": "tff=1", "g": "20"}).rename(src / "a.mp4")
    told: list[batch.Note] = []
    for deinterlace, warning in [
        (False, "it is interlaced and coded as it is, with its combs; deinterlacing removes them"),
        (True, None),
    ]:
        summary = batch.run(
            src,
            dst,
            Encode(deinterlace=deinterlace),
            progress=lambda note, _: told.append(note),
            **CODED | {"crew": Crew(jobs=1, piece_chunks=piece_chunks)},
        )
        assert (summary.done, summary.failed) == (1, {})  # the second time, too: other settings
        assert told[-1].pieces == (3 if piece_chunks else 1)
        assert told[-1].warnings == (() if warning is None else (f"{src / 'a.mp4'}: {warning}",))
        alone = tmp_path / f"{deinterlace}.tokc"
        encode_video(src / "a.mp4", alone, filters=Filters(deinterlace=deinterlace), compute=Compute("cpu", "float32"))
        assert (dst / "a.tokc").read_bytes() == alone.read_bytes()
    assert (tmp_path / "False.tokc").read_bytes() != (tmp_path / "True.tokc").read_bytes()


def test_the_command_deinterlaces(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    shutil.copy(Path(__file__).parent / "cases" / "interlaced.mp4", tmp_path / "src")
    for name, options, warnings in [("combs", [], 1), ("whole", ["--deinterlace"], 0)]:
        log = tmp_path / name
        assert command(tmp_path / "src", tmp_path / f"{name}.dst", "--log", log, *options).exit_code == 0
        assert len(json.loads(log.read_text())["warnings"]) == warnings


def test_all_usual_suffixes_are_known() -> None:
    usual = {".3gp", ".gif", ".h264", ".hevc", ".webp", ".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".y4m"}
    assert usual <= suffixes.VIDEO
    chosen = select([Item(f"a{end}", 1, "") for end in sorted(usual)], suffixes.VIDEO).chosen
    assert len(chosen) == len(usual)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.3gp", "libx264", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.h264", "libx264", "yuv420p"),
        ("a.hevc", "libx265", "yuv420p"),
        ("a.webp", "libwebp", "yuv420p"),
    ],
)
def test_unusual_containers_are_coded(name: str, codec: str, pix_fmt: str, make_clip: MakeClip, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    count = 1 if name.endswith(".webp") else 6
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    if count == 1:
        frame = av.VideoFrame.from_ndarray(moving_frames(1)[0], format="rgb24").reformat(format=pix_fmt)
        encoder = av.CodecContext.create(codec, "w")
        encoder.width, encoder.height, encoder.pix_fmt = 64, 48, pix_fmt
        (packet,) = [*encoder.encode(frame), *encoder.encode(None)]
        (tmp_path / "src" / name).write_bytes(bytes(packet))
    else:
        made = make_clip(name, moving_frames(count), codec=codec, pix_fmt=pix_fmt, options=options)
        made.rename(tmp_path / "src" / name)
    summary = batch.run(tmp_path / "src", tmp_path / "dst", **CODED)
    assert (summary.done, summary.failed) == (1, {})
    assert summary.frames == count


def test_a_name_that_is_not_utf8_goes_there_and_back(tree: Path, tmp_path: Path) -> None:
    (tree / "one.mp4").rename(tree / f"{LATIN}.mp4")
    (tree / "broken.mp4").write_bytes(b"\0" * 999)
    (tree / "broken.mp4").rename(tree / f"{LATIN}-broken.mp4")
    dst, back = tmp_path / "dst", tmp_path / "back"
    assert statuses(batch.run, tree, dst, dry_run=True)[f"{LATIN}.mp4"] == ("planned", "new")
    result = command(tree, dst, "--log", tmp_path / "log", "--retries", 0)
    assert result.exit_code == 1
    assert (dst / f"{LATIN}.tokc").exists()
    assert (dst / "a" / "two.tokc").exists()
    assert {json.loads(line)["name"] for line in (tmp_path / "log").read_text().splitlines()} == {
        f"{LATIN}.mp4",
        f"{LATIN}-broken.mp4",
        "a/two.mkv",
    }
    assert command(dst, back, "--decode").exit_code == 0
    assert len(frames_of(back / f"{LATIN}.mp4")) == 5
    assert edit.describe(dst / f"{LATIN}.tokc")["frames"] == 5


def test_threads_of_the_caller_are_as_before(tree: Path, tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    batch.run(tree, tmp_path / "dst", compute=Compute("cpu", threads=before + 1), crew=Crew(jobs=1))
    assert torch.get_num_threads() == before


def test_a_log_that_cannot_be_written_is_one_error(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(TokcodecError, match="log: cannot write: No such file"):
        batch.run(tree, tmp_path / "dst", log=tmp_path / "no" / "log", **CODED)
    with pytest.raises(TokcodecError, match="full: cannot write: No space left"):
        batch.run(tree, tmp_path / "dst", log="/dev/full", **CODED)
