"""Where the files are: folders on a disk or behind an fsspec URL, and whole files in and out.

Local files are read in place and appear by rename. Others (s3://, gs://, memory://) are fetched to a temporary
file and stored when they are whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tokcodec.batch import copies
from tokcodec.errors import TokcodecError
from tokcodec.io import locks

CHANGED = ("mtime", "LastModified", "updated", "last_modified", "created")  # what file systems call it
SPECIAL = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}  # what can be opened, but may never end
VERSION = ("ETag", "etag", "generation", "md5Hash")  # likewise


class ChangedError(TokcodecError):
    """A file is not the one that was listed."""


@contextlib.contextmanager
def errors_of(name: str) -> Iterator[None]:
    """What fails in this block is an error of the file or folder of this name."""
    try:
        yield
    except (OSError, ImportError, ValueError) as error:  # the last two: a protocol without its package, or unknown
        raise TokcodecError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _open(url: str) -> tuple[Any, str]:
    """The file system of a local path or URL, and the path in it."""
    if "://" not in url:
        return LocalFileSystem(auto_mkdir=True), os.path.abspath(url)
    with errors_of(url):
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return system, path


@dataclasses.dataclass(frozen=True)
class Item:
    """A file of a tree.

    Attributes:
        name: relative to the tree, with slashes.
        bytes: its size; below 0 if there is no such file.
        modified: when, in the words of its file system; only good to be compared.
        version: its inode or ETag, likewise; a copy elsewhere has another.
        special: what it is in place of a file: "named pipe", "socket" or "device"; "" for a file.
    """

    name: str
    bytes: int
    modified: str
    version: str = ""
    special: str = ""


class Tree:
    """A folder and all that is in it.

    Args:
        url: a local path, or a URL that fsspec knows.

    Attributes:
        system: fsspec's file system that it is in; root: its path there.
        is_local: it is on a disk of this machine.

    Raises:
        TokcodecError: no package for this kind of URL is installed. Every method raises it, too.
    """

    def __init__(self, url: str) -> None:
        self.system, root = _open(url)
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.system, LocalFileSystem)

    def items(self) -> dict[str, Item]:
        """All files by name, in order, without hidden files and folders.

        Raises:
            TokcodecError: there is no such folder.
        """
        with errors_of(self.url("")):
            found: dict[str, dict[str, Any]] = self.system.find(self.root, detail=True)
            if set(found) <= {self.root} and not self.system.isdir(self.root or "/"):
                raise TokcodecError(f"{self.url('')}: {'is not a folder' if found else 'no such folder'}")
        items = {}
        for path, facts in sorted(found.items()):
            name = path[len(self.root) + 1 :]
            if name and not any(part.startswith(".") for part in name.split("/")):
                items[name] = self._item(name, facts)
        return items

    def _item(self, name: str, facts: dict[str, Any]) -> Item:
        if self.is_local:
            with contextlib.suppress(OSError):  # a link that leads nowhere: it fails when its turn comes
                status = os.stat(f"{self.root}/{name}")  # of a link's target, which `find` does not look at
                kind = SPECIAL.get(stat.S_IFMT(status.st_mode), "")
                return Item(name, status.st_size, str(status.st_mtime_ns), str(status.st_ino), kind)
        modified, version = (next((facts[k] for k in keys if facts.get(k)), "") for keys in (CHANGED, VERSION))
        return Item(name, int(facts["size"]), str(modified), str(version))

    def url(self, name: str) -> str:
        """What `fetched` and `placed` take for a file of this tree; a plain path if it is local."""
        path = f"{self.root}/{name}".rstrip("/")
        return path if self.is_local else str(self.system.unstrip_protocol(path))

    def size(self, name: str) -> int | None:
        """Of a file, in bytes; None if there is none."""
        with errors_of(self.url(name)):
            try:
                return int(self.system.info(f"{self.root}/{name}")["size"])
            except FileNotFoundError:
                return None

    def sync(self, name: str) -> None:
        """Return when a file and its name are on the disk: a power failure does not take it back."""
        if not self.is_local:  # then it was there when it was stored
            return
        path = Path(self.root, name)
        with errors_of(self.url(name)):
            folders = [folder for folder in path.parents if folder.is_relative_to(self.root)]
            for place in [path, *folders] if os.name == "posix" else [path]:  # Windows opens no folder
                handle = os.open(place, os.O_RDONLY if place.is_dir() else os.O_RDWR)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def delete(self, item: Item) -> None:
        """Remove a file.

        Raises:
            ChangedError: it is not the one that was listed.
        """
        path = f"{self.root}/{item.name}"
        with errors_of(self.url(item.name)):
            listed = self.system.ls(path, detail=True)  # not `info`: its times may be in other words
            if [self._item(item.name, facts) for facts in listed] != [item]:
                raise ChangedError(
                    f"{item.name}: changed since it was listed, so it is not deleted; run the batch again"
                )
            self.system.rm_file(path)


def exists(url: str) -> bool:
    """Whether there is a file."""
    system, path = _open(url)
    with errors_of(url):
        return bool(system.exists(path))


@contextlib.contextmanager
def fetched(url: str, names: dict[str, str], shared: bool = False) -> Iterator[Path]:
    """A file to read: itself if it is local, else a temporary copy.

    Args:
        url: of the file.
        names: takes what a copy is a copy of, for messages.
        shared: use one copy for all processes of this machine, and keep it for the next time: a film in pieces. Where
            there are no locks, each has its own.

    Raises:
        TokcodecError: it cannot be fetched.
    """
    system, path = _open(url)
    if isinstance(system, LocalFileSystem):
        yield Path(path)
        return
    if shared and locks.AVAILABLE:
        with errors_of(url):
            facts = system.info(path)
            what = json.dumps([url, facts], sort_keys=True, default=str)
            key = hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()[:16]
            name = PurePosixPath(path).name
            copy = copies.shared_copy(key, name, lambda copy: system.get_file(path, str(copy)))
        names[str(copy)] = url
        yield copy
        return
    with tempfile.TemporaryDirectory(prefix="tokcodec.") as folder:
        copy = Path(folder, PurePosixPath(path).name)
        with errors_of(url):
            system.get_file(path, str(copy))
        names[str(copy)] = url
        yield copy


@contextlib.contextmanager
def placed(url: str, work: str, names: dict[str, str]) -> Iterator[Path]:
    """A path to write a file to, which then appears under its URL, whole or not at all.

    Args:
        url: of the file; what is there is replaced.
        work: URL of a folder for unfinished work, next to it.
        names: takes what the path stands for, for messages.

    Raises:
        TokcodecError: it cannot be stored.
    """
    system, path = _open(url)
    local = isinstance(system, LocalFileSystem)
    with contextlib.ExitStack() as stack:
        with errors_of(url):
            if local:
                os.makedirs(work, exist_ok=True)
                os.makedirs(os.path.dirname(path), exist_ok=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tmp.", dir=work if local else None))
        partial = Path(folder, PurePosixPath(path).name)
        names[str(partial)] = url
        yield partial
        with errors_of(url):
            if local:
                os.replace(partial, path)
            else:
                system.put_file(str(partial), path)
