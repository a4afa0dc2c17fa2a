"""What is compiled is kept, once, whole or not at all; and what commands need is compiled ahead of them."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import MakeClip, moving_frames

from tokcodec import compiled, prepare
from tokcodec.errors import TokcodecError

ROOT = Path(__file__).parent.parent
SUMS = """from tokcodec.compiled import njit

@njit(cache=True)
def add(a, b):
    return a + b
"""


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ModuleType]:
    """A function that imports a module with one compiled function, as a process that has just begun."""
    (tmp_path / "compiled_sums.py").write_text(SUMS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)

    def fresh() -> ModuleType:
        sys.modules.pop("compiled_sums", None)
        return importlib.import_module("compiled_sums")

    return fresh


def kept(folder: Path, kind: str) -> Path:
    (path,) = folder.rglob(f"compiled_sums.add*.{kind}")
    return path


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"garbage",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        lambda data: data + b"x",
    ],
    ids=["empty", "garbage", "cut", "a bit", "longer"],
)
def test_what_is_damaged_is_compiled_again(
    sums: Callable[[], ModuleType], tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]
) -> None:
    """And kept again. Of the end of an index, which is a digest that nothing reads, damage does no harm."""
    assert sums().add(40, 2) == 42
    path = kept(tmp_path, kind)
    path.write_bytes(damage(path.read_bytes()))
    assert sums().add(40, 2) == 42
    again = sums()
    assert again.add(40, 2) == 42
    assert again.add.stats.cache_hits


def test_code_of_an_older_source_is_not_run(sums: Callable[[], ModuleType], tmp_path: Path) -> None:
    """As where a process was killed after it had written the index of the new one."""
    assert sums().add(40, 2) == 42
    old = kept(tmp_path, "nbc").read_bytes()
    (tmp_path / "compiled_sums.py").write_text(SUMS.replace("a + b", "a - b - 0"))
    assert sums().add(40, 2) == 38
    kept(tmp_path, "nbc").write_bytes(old)
    assert sums().add(40, 2) == 38


def test_the_digest_covers_what_is_compiled_and_all_that_it_imports() -> None:
    """Of a file outside of the digest old code would be run, and code with old constants of one it imports."""
    package = ROOT / "tokcodec"
    covered = {file for pattern in compiled.COMPILED for file in package.glob(pattern)}
    assert all(any(package.glob(pattern)) for pattern in compiled.COMPILED)
    waiting = [file for file in package.rglob("*.py") if file.name != "compiled.py" and "njit" in file.read_text()]
    assert {file.name for file in waiting} >= {"motion_search.py", "rangecoder.py", "words.py"}
    found = {package / "compiled.py"}  # what it imports keeps what is compiled, and is no part of that
    while waiting:
        file = waiting.pop()
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tokcodec"):
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                files = {ROOT.joinpath(*module.split(".")).with_suffix(".py") for module in modules}
                waiting += [file for file in files - found if file.exists()]
    assert {file.relative_to(package).as_posix() for file in found - covered} == {
        "compiled.py",
        "errors.py",
        "pipeline.py",
    }, "these hold nothing that is compiled in; give other files to `compiled.COMPILED`"


def test_a_full_folder_costs_a_warning(
    sums: Callable[[], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compiled._Files, "_open_for_write", full)
    compiled._warn.cache_clear()
    for _ in range(2):
        module = sums()
        assert module.add(40, 2) == 42
        assert module.add(0.5, 1) == 1.5
    assert [record.getMessage() for record in caplog.records] == [
        f"compiled code cannot be kept in {tmp_path / '__pycache__'} (No space left on device): "
        "every run compiles for a minute or two; set NUMBA_CACHE_DIR"
    ]


def test_of_several_processes_one_compiles(tmp_path: Path) -> None:
    (tmp_path / "compiled_sums.py").write_text(SUMS)
    script = """
import sys
from numba.core import event
import compiled_sums

class Listener(event.Listener):
    def on_start(self, _):
        print("compiles", flush=True)
        sys.stdin.readline()
    def on_end(self, _):
        pass

print("calls", flush=True)
with event.install_listener("numba:compile", Listener()):
    print(compiled_sums.add(40, 2), flush=True)
"""
    pipe = subprocess.PIPE
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"PYTHONPATH": str(ROOT)}

    def start() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", script]
        child = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "calls\n"
        return child

    first = start()
    assert first.stdout is not None
    assert first.stdout.readline() == "compiles\n"
    second = start()
    assert first.communicate("\n")[0] == "42\n"
    assert second.communicate("\n")[0] == "42\n"  # it waited, and had nothing to compile


def test_after_it_a_command_compiles_nothing(make_clip: MakeClip, tmp_path: Path) -> None:
    """With the released weights, whatever the loop is made of."""
    environment = {k: v for k, v in os.environ.items() if k != "TOKCODEC_WEIGHTS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "tokcodec", "compile"], env=environment, check=True, text=True)
    assert done.returncode == 0
    script = """
import sys
from numba.core import event
from tokcodec import decode_video, edit, encode_video

class Listener(event.Listener):
    def on_start(self, event):
        print(event.data["dispatcher"].py_func.__qualname__, event.data["args"])
    def on_end(self, _):
        pass

with event.install_listener("numba:compile", Listener()):
    encode_video("in.mp4", "a.tokc")
    edit.verify("a.tokc")
    decode_video("a.tokc", "out.mp4", compute=Compute("cpu"))
"""
    make_clip("in.mp4", moving_frames(14, 72, 80))
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    again = [sys.executable, "-m", "tokcodec", "compile"]
    done = subprocess.run(again, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.endswith(": compiled already\n")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(prepare, "folder", lambda: tmp_path / "file")
    with pytest.raises(TokcodecError, match=r"file: compiled code cannot be kept there: "):
        prepare.prepare()
    monkeypatch.setattr(prepare, "folder", lambda: tmp_path)
    monkeypatch.setattr(prepare, "_compile", lambda *_: prepare.UNKEPT)
    with pytest.raises(TokcodecError, match=r"compiled code cannot be kept there$"):
        prepare.prepare()
    monkeypatch.setattr(prepare, "_compile", lambda *_: 0)
    assert prepare.prepare()
    assert not prepare.prepare()
