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
PACKAGE = ROOT / "tokcodec"
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


FORMS = [  # of the import of a constant, or of the module that holds it
    "from formed.constant import K",
    "from formed.constant import K as K",
    "from .constant import K",
    "from . import constant\nK = constant.K",
    "from formed import constant as other\nK = other.K",
    "from formed import (  # in brackets :)\n    constant,  # (\n)\nK = constant.K",
    "from formed.constant \\\n    import K",
    "x = 1; from formed.constant import *",
    "if True: import formed.constant\nK = formed.constant.K",
    "import formed.constant as other\nK = other.K",
    "def get():\n    from formed.constant import K\n    return K\nK = get()",
    "from formed.between import K",
    "import formed\nK = formed.K",
    "from formed import K",
    "import importlib\nK = importlib.import_module('formed.con' + 'stant').K",
]


@pytest.mark.parametrize("form", FORMS)
def test_code_is_compiled_anew_when_a_file_changes_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A constant or a function of another file is compiled in; numba looks at a function's own file alone."""
    package = tmp_path / "formed"
    package.mkdir()
    (package / "__init__.py").write_text("from formed.constant import K\n")
    (package / "between.py").write_text("from formed.constant import K\n")
    function = "from tokcodec.compiled import njit\n\n@njit(cache=True)\ndef number():\n    return {}\n"
    (package / "use.py").write_text(f"{form}\n{function.format('K')}")
    (package / "other.py").write_text(function.format(7))
    monkeypatch.setattr(compiled, "PACKAGE", package)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    for value, is_kept in ((1, False), (1, True), (22, False)):
        (package / "constant.py").write_text(f"K = {value}\n")
        compiled.forget_sources()
        for name in [name for name in sys.modules if name.partition(".")[0] == "formed"]:
            del sys.modules[name]
        use, other = (importlib.import_module(f"formed.{name}").number for name in ("use", "other"))
        assert use() == value
        assert bool(use.stats.cache_hits) is is_kept
        assert other() == 7
        assert bool(other.stats.cache_hits) is (is_kept or value == 22)  # it imports nothing of that


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_is_missed(path: Path) -> None:
    """All that the grammar knows of a file's imports is among those that its digest follows."""
    found = compiled._imports(path, PACKAGE)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules = [f"{node.module}.{name.name}" for name in node.names]
            if not all((PACKAGE.parent / module.replace(".", "/")).with_suffix(".py").exists() for module in modules):
                modules.append(str(node.module))
        else:
            continue
        for module in modules:
            file = PACKAGE.parent / f"{module.replace('.', '/')}.py"
            if module.startswith("tokcodec.") and file.exists():
                assert file in found, module


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


@pytest.mark.parametrize("profile", ["default", "lfq"])
def test_after_it_a_command_compiles_nothing(make_clip: MakeClip, tmp_path: Path, profile: str) -> None:
    """With the released weights, whatever the loop is made of."""
    environment = {k: v for k, v in os.environ.items() if k != "TOKCODEC_WEIGHTS"} | {"PYTHONPATH": str(ROOT)}
    ahead = [sys.executable, "-m", "tokcodec", "compile", "--profile", profile]
    subprocess.run(ahead, env=environment, check=True)
    script = f"""
import sys
from numba.core import event
from tokcodec import Compute, compiled, decode_video, edit, encode_video, prepare
from tokcodec.stream.profile import Profile
from tokcodec.tokenizer import Tokenizer
from tokcodec.weights import Weights

def called():
    for name in compiled.kept():
        module, _, function = name.rpartition(".")
        if module in sys.modules:  # not those of the language model
            for signature in getattr(sys.modules[module], function).signatures:
                yield name, str(signature)

tokenizer = Tokenizer(Weights.find())
for part in dict.fromkeys(["default", "{profile}"]):
    for package in prepare.PACKAGES[part].values():
        try:
            package(tokenizer)
        except ValueError:  # some only go ahead of the whole
            pass
ahead = set(called())

class Listener(event.Listener):
    def on_start(self, event):
        print(event.data["dispatcher"].py_func.__qualname__, event.data["args"])
    def on_end(self, _):
        pass

with event.install_listener("numba:compile", Listener()):
    encode_video("in.mp4", "a.tokc"{", profile=Profile()" if profile == "lfq" else ""})
    edit.verify("a.tokc")
    decode_video("a.tokc", "out.mp4", compute=Compute("cpu"))
for missed in set(called()) - ahead:  # another run may have left it on the disk
    print(*missed)
"""
    make_clip("in.mp4", moving_frames(14, 72, 80))
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    done = subprocess.run(ahead, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.endswith(": compiled already\n")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(prepare, "folder", lambda: tmp_path / "file")
    with pytest.raises(TokcodecError, match=r"file: compiled code cannot be kept there: "):
        prepare.prepare()
    monkeypatch.setattr(prepare, "folder", lambda: tmp_path)
    monkeypatch.setattr(prepare, "_compile", lambda *_: prepare.CANNOT_KEEP)
    with pytest.raises(TokcodecError, match=r"compiled code cannot be kept there$"):
        prepare.prepare()
    monkeypatch.setattr(prepare, "_compile", lambda *_: 0)
    assert prepare.prepare()
    assert not prepare.prepare()


def test_a_command_loads_no_blas(make_clip: MakeClip, tmp_path: Path) -> None:
    """Numba would, wherever there is SciPy."""
    make_clip("in.mp4", moving_frames(2))
    script = """import sys
from tokcodec.cli.entry import main
try:
    main()
finally:
    print('scipy.linalg' in sys.modules)"""
    argv = [sys.executable, "-c", script, "encode", "in.mp4", "a.tokc", "--progress", "none"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"
