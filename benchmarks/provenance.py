"""Where a number comes from: digests of the code and the weights that made it, versions, and the machine."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import inspect
import os
import platform
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tokcodec
from benchmarks import scoring
from benchmarks.tools import ToolError, Tools, ffmpeg_version, run
from tokcodec.restorer import pixels
from tokcodec.scoring import ghosts, scores, stlpips, vmaf
from tokcodec.weights import find_weights

ROOT = Path(__file__).parent.parent
PACKAGE = Path(tokcodec.__file__).parent
_ERRORS = (scores.psnr_db, scores._mean_square, scores._error)
_BY_FFMPEG = (vmaf, scoring.Video, scoring.yuv_scores, scoring.RGB_FROM_YUV, scoring.YUV8_FROM_YUV10)
MADE_BY: dict[str, tuple[object, ...]] = {  # each score but those of judges: the code that turns pixels into it
    "psnr_rgb_db": (*_ERRORS, scores.frame_scores),
    "temporal_psnr_db": (*_ERRORS, scores.frame_scores),
    "ghosts": (ghosts,),
    **dict.fromkeys(scoring.BY_FFMPEG, _BY_FFMPEG),
}
_OF_JUDGES = (scores.lpips_distances, pixels.to_unit)


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


def source_of(part: object) -> str:
    """The code of a module, a class or a function without comments and docstrings; of all else what it prints."""
    if not (inspect.ismodule(part) or inspect.isclass(part) or inspect.isfunction(part)):
        return repr(part)
    tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def scorer_sha256(metric: str, tools: Tools, judge: nn.Module | None) -> str:
    """Of all that makes a score of pixels: its code, the network that judges, and FFmpeg where that computes it.

    How pixels come about is no part of it: a point knows them by their own digest.
    """
    if judge is not None:
        inner = judge.judge if isinstance(judge, scoring.Remembering) else judge
        network = stlpips.STLPIPS if isinstance(inner, stlpips.STLPIPS) else importlib.metadata.version("lpips")
        parts: list[object] = [*_OF_JUDGES, network, stlpips._thinned, judge_sha256(inner)]
    else:
        parts = [*MADE_BY[metric]]
        parts += [ffmpeg_of(tools)["sha256"]] if metric in scoring.BY_FFMPEG else []
    return hashlib.sha256("\0".join(map(source_of, parts)).encode()).hexdigest()


def weights_sha256() -> str:
    """Of the weights that the command line finds."""
    return hashlib.sha256(find_weights().read_bytes()).hexdigest()


def judge_sha256(judge: nn.Module) -> str:
    """Of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, values in sorted(judge.state_dict().items()):
        digest.update(name.encode() + values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def ffmpeg_of(tools: Tools) -> dict[str, str]:
    """FFmpeg's own version, and the SHA-256 of the program: a static one holds its encoders."""
    return {"version": ffmpeg_version(tools), "sha256": file_sha256(tools.ffmpeg)}


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
