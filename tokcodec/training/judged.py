"""The benchmark's clips, known by their content: nobody trains on them by accident, under whatever name.

`clips.json` in this folder has one of each: name, bytes, SHA-256, role, and whether its pictures may be published.
The benchmark reads the same list.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokcodec.errors import TokcodecError

CLIPS = Path(__file__).with_name("clips.json")


@dataclass(frozen=True)
class JudgedClip:
    """A clip of the benchmark.

    Attributes:
        role: "choose": models and settings are chosen by it; "judge": it only says how good the chosen ones are.
        may_show: its licence lets pictures of it be published.
    """

    name: str
    bytes: int
    sha256: str
    role: str
    may_show: bool


@functools.cache
def judged_clips() -> dict[str, JudgedClip]:
    """All of them, by SHA-256."""
    clips = [JudgedClip(**fields) for fields in json.loads(CLIPS.read_text())]
    return {clip.sha256: clip for clip in clips}


def refuse_judged(paths: Iterable[Path]) -> None:
    """Raises TokcodecError if one of the files is a clip of the benchmark. Only files of the right size are read."""
    sizes = {clip.bytes for clip in judged_clips().values()}
    for path in paths:
        if path.stat().st_size not in sizes:
            continue
        with path.open("rb") as file:
            clip = judged_clips().get(hashlib.file_digest(file, "sha256").hexdigest())
        if clip is not None:
            raise TokcodecError(
                f"{path}: this is {clip.name}, by which the benchmark judges; it must not be trained on"
            )
