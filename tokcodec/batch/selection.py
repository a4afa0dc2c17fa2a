"""Which files of a tree a batch takes, and why not the others."""

from __future__ import annotations

import fnmatch
import os
import zlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tokcodec.batch.storage import Item


class Selection(NamedTuple):
    """Files that were chosen, and the others, each with the reason."""

    chosen: list[Item]
    skipped: list[tuple[Item, str]]


def select(
    items: Iterable[Item], suffixes: Collection[str], globs: Sequence[str] = (), shard: tuple[int, int] = (1, 1)
) -> Selection:
    """Choose among files.

    Args:
        items: to choose from.
        suffixes: with the dot, in small letters.
        globs: a name must match one of them, if there are any; `*` matches slashes, too.
        shard: (i, n): the i-th of n parts, i from 1. The part of a file depends on its name alone, without the suffix:
            files that would have one output are in one part.
    """
    part, parts = shard
    selection = Selection([], [])
    for item in items:
        name = PurePosixPath(item.name)
        if name.suffix.lower() not in suffixes:
            selection.skipped.append((item, f"suffix {name.suffix.lower()}" if name.suffix else "no suffix"))
        elif globs and not any(fnmatch.fnmatchcase(item.name, pattern) for pattern in globs):
            selection.skipped.append((item, "matches no pattern"))
        elif zlib.crc32(os.fsencode(name.with_suffix(""))) % parts != part - 1:
            selection.skipped.append((item, "of another shard"))
        elif item.special:
            selection.skipped.append((item, item.special))
        else:
            selection.chosen.append(item)
    return selection
