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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

import tokcodec
from tokcodec.errors import TokcodecError
from tokcodec.scoring.vmaf import find_ffmpeg

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
        raise ToolError("no tokcodec command: bin/bench installs it")
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
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=_env())
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
            raise failure(argv, process.returncode, stderr)
        return Finished(seconds, peak_rss_bytes, out.read().decode(errors="replace"), stderr)


def _env() -> dict[str, str]:
    # the command line is of the checkout whose code is on record, not of the one that is installed
    paths = [str(Path(tokcodec.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


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


def failure(argv: Sequence[str], code: int, stderr: str) -> ToolError:
    """The error of a program that ended with a code other than 0."""
    tail = "\n".join(stderr.strip().splitlines()[-8:])
    return ToolError(f"exit code {code} from {' '.join(shown(argv))}\n{tail}")


def shown(argv: Sequence[str]) -> list[str]:
    """A command as it is published: absolute paths cut to their file names."""
    return [Path(a).name if Path(a).is_absolute() else a for a in argv]


def ffmpeg_version(tools: Tools) -> str:
    """As FFmpeg prints it, e.g. "7.1"."""
    return run([tools.ffmpeg, "-version"]).stdout.split()[2]
