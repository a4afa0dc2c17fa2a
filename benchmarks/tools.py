"""The programs the benchmark runs, and how it runs them: timed, with their memory watched.

FFmpeg reads and writes every video here; tokcodec is run as a user runs it, from its command line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from tokcodec.errors import TokcodecError
from tokcodec.vmaf import find_ffmpeg

POLL_S = 0.02  # how often a running program's memory is read


class ToolError(TokcodecError):
    """A program is missing, or failed; the message ends with the last lines of its stderr."""


@dataclass(frozen=True)
class Tools:
    """Paths of the two programs."""

    ffmpeg: str
    tokcodec: str


@dataclass(frozen=True)
class Finished:
    """A program that ended well. `peak_rss_bytes` sums the process and its children."""

    seconds: float
    peak_rss_bytes: int
    stdout: str
    stderr: str


def find_tools() -> Tools:
    """FFmpeg as the package finds it; tokcodec beside this Python, or from PATH.

    Raises:
        ToolError: one of them is nowhere.
    """
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    tokcodec = shutil.which("tokcodec", path=beside)
    if tokcodec is None:
        raise ToolError("no tokcodec command: pip install -e '.[bench]'")
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        raise ToolError("no ffmpeg: set $TOKCODEC_FFMPEG or pip install imageio-ffmpeg")
    return Tools(ffmpeg, tokcodec)


def run(argv: Sequence[str], cwd: Path | None = None) -> Finished:
    """Run a program to its end, in the folder `cwd` if given.

    Raises:
        ToolError: it cannot be started, or exits with another code than 0.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd)
        except OSError as error:
            raise ToolError(f"{argv[0]}: {error.strerror}") from error
        peak_rss_bytes = 0
        while True:
            try:
                process.wait(POLL_S)
                break
            except subprocess.TimeoutExpired:
                peak_rss_bytes = max(peak_rss_bytes, _rss_bytes(process.pid))
        seconds = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        stderr = err.read().decode(errors="replace")
        if process.returncode:
            raise _failure(argv, process.returncode, stderr)
        return Finished(seconds, peak_rss_bytes, out.read().decode(errors="replace"), stderr)


def _rss_bytes(pid: int) -> int:
    # The kernel's own maximum (rusage) is no use: it starts at the size of the parent that forked.
    total = 0
    try:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.Error:  # it has just ended
        pass
    return total


def _failure(argv: Sequence[str], code: int, stderr: str) -> ToolError:
    tail = "\n".join(stderr.strip().splitlines()[-8:])
    return ToolError(f"exit code {code} from {' '.join(shown(argv))}\n{tail}")


def shown(argv: Sequence[str]) -> list[str]:
    """A command as it is published: absolute paths cut to their file names."""
    return [Path(a).name if Path(a).is_absolute() else a for a in argv]


def read_frames(argv: Sequence[str], height: int, width: int) -> Iterator[np.ndarray]:
    """The frames a program writes to stdout as raw rgb24, uint8 `[H, W, 3]`, one at a time.

    Raises:
        ToolError: it fails, or ends inside a frame.
    """
    size = height * width * 3
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err)
        assert process.stdout is not None
        try:
            while data := process.stdout.read(size):
                if len(data) < size:
                    raise ToolError(f"{Path(argv[0]).name} ended inside a frame of {width}x{height}")
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        finally:
            process.stdout.close()
            code = process.wait()
        if code:
            err.seek(0)
            raise _failure(argv, code, err.read().decode(errors="replace"))


def ffmpeg_version(tools: Tools) -> str:
    """As FFmpeg prints it, e.g. "7.1"."""
    return run([tools.ffmpeg, "-version"]).stdout.split()[2]
