"""All points of a benchmark in one file, `points.json`: an object of points by title, one a line.

Title is clip, codec and setting. The file is replaced whole, under a lock, so that a run which is stopped loses the
points under way alone, and several runs may share a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokcodec.errors import TokcodecError
from tokcodec.io import locks
from tokcodec.io.output import replacing

POINTS = "points.json"

Point = dict[str, Any]
_writing = threading.Lock()  # of the threads of a process, where there are no locks on files


def title_of(clip: str, codec: str, rate: int) -> str:
    return f"{clip}__{codec}__{rate}"


def judged_frames(score: Mapping[str, Any]) -> range:
    """The numbers of the frames that a score of a point is of."""
    first, every = score.get("first", 0), score.get("every", 1)
    return range(first, first + every * len(score["frames"]), every)


def read_points(results: Path) -> dict[str, Point]:
    """The points of a folder by title, in order of titles; none where there is no file.

    Raises:
        TokcodecError: the file cannot be read.
    """
    path = results / POINTS
    try:
        points: dict[str, Point] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TokcodecError(f"{path}: {error}") from error
    return points


def write_point(results: Path, title: str, point: Point) -> None:
    """Put a point among the others, in place of what was measured before under its title.

    Raises:
        TokcodecError: the file cannot be read or written.
    """
    with _writing, contextlib.ExitStack() as stack:
        if locks.AVAILABLE:
            handle = os.open(results, os.O_RDONLY)
            stack.callback(os.close, handle)
            locks.lock(handle, wait=True)
        points = sorted((read_points(results) | {title: point}).items())
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(one, separators=(',', ':'))}" for name, one in points)
        with replacing(results / POINTS, [], overwrite=True) as partial:
            partial.write_text(f"{{\n{lines}\n}}\n")
