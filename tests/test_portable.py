"""What must hold where Linux' calls are missing, and where the package cannot be written: nothing here needs such a
machine, its lacks are simulated."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeClip, frames_of, moving_frames

PACKAGE = Path(__file__).parents[1] / "tokcodec"
POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": {"O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "fchmod", "fork", "geteuid", "getuid", "mkfifo", "nice", "pread"}
    | {"pwrite", "sched_getaffinity", "sched_setaffinity", "setsid", "sysconf", "uname", "wait"},
    "signal": {"SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2", "pthread_kill"},
}


def top_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What runs on import, but for what a handler of ImportError stands behind."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Try) and any("ImportError" in ast.unparse(h.type or child) for h in child.handlers):
            continue
        yield child
        yield from top_nodes(child)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_needs_nothing_of_linux(path: Path) -> None:
    for node in top_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & POSIX_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in POSIX_MODULES
            assert not {alias.name for alias in node.names} & POSIX_NAMES.get(node.module or "", set())
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.attr not in POSIX_NAMES.get(node.value.id, set())


# Removes what Windows lacks, forbids what it forbids, and runs commands, one an argument.
WITHOUT_POSIX = f"""
import os, shlex, shutil, signal, sys, tempfile
import av, click, fsspec.implementations.local, numba, safetensors.numpy, torch, tqdm  # their needs are their own

for module in {sorted(POSIX_MODULES)}:
    sys.modules[module] = None
for owner, names in ((os, {sorted(POSIX_NAMES["os"])}), (signal, {sorted(POSIX_NAMES["signal"])})):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)
shutil._use_fd_functions = False
tempfile.TemporaryFile = tempfile.NamedTemporaryFile
plain_open = os.open


def no_folders(path, *args, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "a folder cannot be opened", str(path))
    return plain_open(path, *args, **options)


def closed_only(plain):
    def call(path, *args, **options):
        if options.get("dir_fd") is None:
            for number in os.listdir("/proc/self/fd"):
                if os.path.realpath(path) == os.path.realpath("/proc/self/fd/" + number):
                    raise PermissionError(13, "an open file cannot be moved", str(path))
        return plain(path, *args, **options)

    return call


def unwritten_only(plain):
    def call(path, *args, **options):
        for number in os.listdir("/proc/self/fd") if isinstance(path, (str, os.PathLike)) else ():
            if os.path.realpath(str(path).removeprefix("file:")) == os.path.realpath("/proc/self/fd/" + number):
                if int(open("/proc/self/fdinfo/" + number).read().split()[3], 8) & 3:
                    raise PermissionError(13, "a file that is written cannot be opened again", str(path))
        return plain(path, *args, **options)

    return call


os.open, av.open = no_folders, unwritten_only(av.open)
for name in ("replace", "rename", "unlink", "remove"):
    setattr(os, name, closed_only(getattr(os, name)))

import tokcodec.io.locks
from tokcodec.cli import main

assert not tokcodec.io.locks.AVAILABLE
for line in sys.argv[1:]:
    sys.argv = ["tokcodec", *shlex.split(line)]
    sys.stdin = open("in.mp4")
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, line
"""


@pytest.mark.skipif(sys.platform != "linux", reason="simulates other systems on Linux")
def test_commands_run_where_linux_calls_are_missing(make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    make_clip("in.mp4", moving_frames(6))
    (tmp_path / "src").mkdir()
    make_clip("src/one.mp4", moving_frames(3))
    commands = [
        "encode in.mp4 out.tokc",
        "encode -f in.mp4 out.tokc",
        "encode - piped.tokc --target-size 20k",
        "verify out.tokc",
        "decode out.tokc out.mp4",
        "decode out.tokc images/%03d.png",
        "decode -f out.tokc images/%03d.png",
        "batch src dst --device cpu --verify",
        "batch src dst --device cpu",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX, *commands],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "TOKCODEC_WEIGHTS": str(weights)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 files, 0 finished before" in done.stdout
    assert "0 of 1 files, 1 finished before" in done.stdout
    assert len(frames_of(tmp_path / "out.mp4")) == 6
    assert len(list(tmp_path.glob("images/*.png"))) == 6
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.parametrize("has_home", [True, False], ids=["home", "no home"])
def test_compiled_code_is_kept_elsewhere_where_the_package_cannot_be_written(tmp_path: Path, has_home: bool) -> None:
    """A file in place of `__pycache__` keeps root out, too."""
    (tmp_path / "__pycache__").touch()
    (tmp_path / "sums.py").write_text(
        "from tokcodec.compiled import njit\n\n@njit(cache=True)\ndef add(a, b):\n    return a + b\n\n"
        "@njit(cache=True)\ndef subtract(a, b):\n    return a - b\n"
    )
    home = tmp_path / "cache" if has_home else tmp_path / "__pycache__/none"
    env = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", "import sums; print(sums.add(40, 3) + sums.subtract(1, 2))"],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(PACKAGE.parent), "XDG_CACHE_HOME": str(home), "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "42\n"
    assert len(list(tmp_path.rglob("sums*.nbi"))) == (2 if has_home else 0)
    assert done.stderr.count("set NUMBA_CACHE_DIR") == (0 if has_home else 1)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_compiled_code_needs_no_scipy(path: Path) -> None:
    """Numba compiles products of matrices by SciPy's BLAS, which only the extras install."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef) or "njit" not in str([*map(ast.unparse, function.decorator_list)]):
            continue
        for node in ast.walk(function):
            assert not isinstance(node, ast.MatMult), function.name
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"dot", "vdot", "matmul", "linalg"}, function.name
