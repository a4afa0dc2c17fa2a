"""Which files of a tree a batch takes, and why not the others."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import posixpath
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tokcodec.batch.storage import Item


class Selection(NamedTuple):
    """Files that were chosen, and the others, each with the reason."""

    chosen: list[Item]
    skipped: list[tuple[Item, str]]


@dataclasses.dataclass(frozen=True)
class Which:
    """Which files of a tree are meant.

    Attributes:
        globs: only names that match one of these, as `a/*.mp4`; `*` matches slashes, too.
        suffixes: only files that end so, with or without the dot; by default the usual ones of videos, or of streams
            to decode.
        names: only these files, relative to the tree.
        shard: (i, n), i from 1: only the i-th of n parts of the tree, always the same files.

    Raises:
        ValueError: there is no such shard.
    """

    globs: Sequence[str] = ()
    suffixes: Collection[str] = ()
    names: Sequence[str] | None = None
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if not 1 <= self.shard[0] <= self.shard[1]:
            raise ValueError(f"shard must be (i, n) with i from 1 to n, not {self.shard}")

    def of(self, items: Mapping[str, Item], usual: Collection[str]) -> Selection:
        """Choose among the files of a tree, by name; `usual` are suffixes with the dot, for want of others."""
        wanted = {f".{suffix.lower().lstrip('.')}" for suffix in self.suffixes} or usual
        paths = None if self.names is None else dict.fromkeys(map(posixpath.normpath, self.names))
        named = items.values() if paths is None else [items.get(path, Item(path, -1, "")) for path in paths]
        return select(named, wanted, self.globs, self.shard)


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
