"""Where a number comes from: digests of the code and the weights that made it, versions, and the machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tokcodec
from benchmarks.tools import ToolError, Tools, ffmpeg_version, run
from tokcodec.weights import find_weights

ROOT = Path(__file__).parent.parent
PACKAGE = Path(tokcodec.__file__).parent
SCORING = (
    PACKAGE / "scoring/scores.py",
    PACKAGE / "scoring/ghosts.py",
    PACKAGE / "restorer/pixels.py",
    PACKAGE / "scoring/vmaf.py",
    PACKAGE / "scoring/perceptual.py",
    PACKAGE / "scoring/stlpips.py",
    Path(__file__).with_name("scoring.py"),
)


def digest_of_files(paths: Iterable[Path], root: Path) -> str:
    """SHA-256 of files and of their names below `root`, whatever their order."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in paths):
        data = path.read_bytes()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def code_sha256() -> str:
    """Of tokcodec/**/*.py: what tokcodec's points depend on, beside its weights."""
    return digest_of_files(PACKAGE.rglob("*.py"), PACKAGE.parent)


def scoring_sha256() -> str:
    """Of the files that every score depends on, whichever codec it is of."""
    return digest_of_files(SCORING, ROOT)


def weights_sha256() -> str:
    """Of the weights that the command line finds."""
    return hashlib.sha256(find_weights().read_bytes()).hexdigest()


def judge_sha256(judge: nn.Module) -> str:
    """Of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, values in sorted(judge.state_dict().items()):
        digest.update(name.encode() + values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@functools.cache
def ffmpeg_of(tools: Tools) -> dict[str, str]:
    """FFmpeg's own version, and the SHA-256 of the program: a static one holds its encoders."""
    with open(tools.ffmpeg, "rb") as file:
        return {"version": ffmpeg_version(tools), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def git_commit() -> str | None:
    """The checkout's commit, "-dirty" if a file that is not a result differs from it; None outside of a checkout."""
    git = ["git", "-C", str(ROOT)]
    with contextlib.suppress(ToolError):
        commit = run([*git, "rev-parse", "HEAD"]).stdout.strip()
        changed = run([*git, "status", "--porcelain", "--", ".", ":(exclude)benchmarks/results"]).stdout
        return commit + "-dirty" * bool(changed)
    return None


def versions(tools: Tools, ours: bool = True) -> dict[str, str]:
    """What ran. With `ours` tokcodec too: its version, the digests of its code and its weights."""
    found = {"ffmpeg": ffmpeg_version(tools)}
    if ours:
        found |= {
            "tokcodec": tokcodec.__version__,
            "code_sha256": code_sha256(),
            "weights_sha256": weights_sha256(),
        }
    if commit := git_commit():
        found["git_commit"] = commit
    return found | {name: importlib.metadata.version(name) for name in ("torch", "lpips", "numpy")}


def machine(jobs: int) -> dict[str, Any]:
    """Names of the processors, and what shares them."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.partition(": ")[2] for line in info.read_text().splitlines() if "model name" in line), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "jobs": jobs}
