"""Output that appears whole or not at all, and errors that name the file that is at fault."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tokcodec import stream_reader
from tokcodec.errors import ExistsError, TokcodecError
from tokcodec.io import output
from tokcodec.io.files import NamedFile, temporary_file

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
WRITERS = {
    "a file": "with output.writing(target / 'a.bin', []) as file:",
    "a path": "with output.replacing(target / 'a.bin', []) as path:",
    "images": "with output.replacing_pattern(target / '%05d.png') as path:",
}


def test_a_target_that_exists_is_an_error_of_its_own(tmp_path: Path) -> None:
    """Whose message names no option: it is the command line that has one."""
    (tmp_path / "a.png").touch()
    (tmp_path / "7.png").touch()
    with pytest.raises(ExistsError, match=r"a\.png: exists already$"), output.replacing(tmp_path / "a.png", []):
        pass
    images = output.replacing_pattern(tmp_path / "%d.png")
    with pytest.raises(ExistsError, match=r"holds files called %d\.png already$"), images:
        pass


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_two_that_write_one_target_the_later_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Unless it may overwrite; also on a file system without hard links."""

    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    target = tmp_path / "a.bin"

    def late(overwrite: bool) -> None:
        with output.writing(target, [], overwrite) as file:
            file.write(b"late")
            target.unlink(missing_ok=True)
            with output.writing(target, []) as other:
                other.write(b"early")

    with pytest.raises(ExistsError, match=r"a\.bin: was made by another process meanwhile$"):
        late(overwrite=False)
    assert target.read_bytes() == b"early"
    late(overwrite=True)
    assert target.read_bytes() == b"late"
    assert list(tmp_path.iterdir()) == [target]

    def late_images() -> None:
        with output.replacing_pattern(tmp_path / "%d.png") as pattern:
            pattern.with_name("1.png").write_bytes(b"late")
            (tmp_path / "1.png").write_bytes(b"early")

    with pytest.raises(ExistsError, match=r"holds files called %d\.png already$"):
        late_images()
    assert (tmp_path / "1.png").read_bytes() == b"early"


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_what_a_killed_process_left_is_removed_by_the_next_run(writer: str, tmp_path: Path) -> None:
    script = f"""
import pathlib, sys
from tokcodec.io import output
target = pathlib.Path(sys.argv[1])
{writer}
    print("begun", flush=True)
    sys.stdin.read()
"""
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(argv, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        left = set(tmp_path.iterdir())
        assert len(left) == 1
        with output.writing(tmp_path / "b.bin", []):
            assert set(tmp_path.iterdir()) > left  # it is at work
        process.kill()
        process.wait()
        assert set(tmp_path.iterdir()) == left | {tmp_path / "b.bin"}
    with output.writing(tmp_path / "c.bin", []) as file:
        file.write(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"b.bin", "c.bin"}


def test_hidden_files_of_others_stay(tmp_path: Path) -> None:
    names = [".a.partial", ".tokcodec", ".tokcodec.notes", "a.partial.mp4"]
    for name in names:
        (tmp_path / name).touch()
    with output.writing(tmp_path / "b", []):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "b"])


@pytest.mark.parametrize("kind", [output.replacing, output.writing])
def test_an_error_of_something_else_is_not_the_targets(kind: type, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), kind(tmp_path / "out", []):
        (tmp_path / "elsewhere").read_bytes()
    with pytest.raises(OSError, match="bad sector"), output.replacing_pattern(tmp_path / "%05d.png"):
        raise OSError("bad sector")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokcodecError, match="src: Is a directory"):
        NamedFile(tmp_path, "rb", "src")
    memory = os.open("/proc/self/mem", os.O_RDONLY)  # nothing can be read at its start
    with io.BufferedReader(NamedFile(memory, "rb", "src")) as file:
        for size in (1, -1):
            with pytest.raises(TokcodecError, match="src: Input/output error"):
                file.read(size)
    with (
        pytest.raises(TokcodecError, match="dst: cannot write: No space left"),
        NamedFile(Path("/dev/full"), "wb", "dst") as full,
    ):
        full.write(b"x")


def test_a_file_that_cannot_be_closed_is_named(tmp_path: Path) -> None:
    """As where a network's file system reports its quota last."""
    file = NamedFile(tmp_path / "a", "wb", "dst")
    os.close(file.fileno())
    with pytest.raises(TokcodecError, match="dst: cannot write: Bad file descriptor"):
        file.close()


def test_a_temporary_file_without_space_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = temporary_file()
    file.write(b"ab")
    file.seek(1)
    assert file.read() == b"b"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    message = f"^temporary file in {tmp_path}: cannot read or write: File too large$"
    try:
        with pytest.raises(TokcodecError, match=message):
            file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        file.close()
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(TokcodecError, match=r"^no temporary file: No such file"):
        temporary_file()


def test_folders_that_were_made_go_with_what_was_to_be_in_them(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output.replacing_pattern(tmp_path / "new" / "deep" / "%d.png"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_reading_does_not_take_the_blame_for_what_it_surrounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = tmp_path / "a.tokc"
    with pytest.raises(TokcodecError, match=r"a\.tokc: No such file"), stream_reader.reading(stream):
        pass
    with pytest.raises(TokcodecError, match="Is a directory"), stream_reader.reading(tmp_path):
        pass
    stream.touch()
    monkeypatch.setattr(stream_reader, "Reader", lambda *_, **__: SimpleNamespace(index=["a chunk"]))
    with pytest.raises(FileNotFoundError, match="elsewhere"), stream_reader.reading(stream):
        (tmp_path / "elsewhere").read_bytes()


def test_a_bug_keeps_its_traceback() -> None:
    script = """
import sys
from tokcodec import cli, edit

def bug(*_, **__):
    raise ValueError("operands could not be broadcast together")

edit.verify = bug
sys.argv = ["tokcodec", "verify", "a.tokc"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Traceback")
    assert ended.stderr.endswith("ValueError: operands could not be broadcast together\n")
