"""Where the files are: folders on a disk or behind an fsspec URL, whole files in and out, and the books.

Local files are read in place and appear by rename. Others (s3://, gs://, memory://) are fetched to a temporary
file and stored when they are whole. The books are a folder `.tokcodec` in the target: for each output a JSON
record of how it was made, which is also the lock of whoever works on it, and a folder for unfinished work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tokcodec import locks
from tokcodec.batch import copies
from tokcodec.errors import TokcodecError

BOOKS = ".tokcodec"
CHANGED = ("mtime", "LastModified", "updated", "last_modified", "created")  # what file systems call it
VERSION = ("ETag", "etag", "generation", "md5Hash")  # likewise


class BusyError(TokcodecError):
    """Another batch works on this output."""


class ChangedError(TokcodecError):
    """A file is not the one that was listed."""


@contextlib.contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ImportError, ValueError) as error:  # the last two: a protocol without its package, or unknown
        raise TokcodecError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _open(url: str) -> tuple[Any, str]:
    """The file system of a local path or URL, and the path in it."""
    if "://" not in url:
        return LocalFileSystem(auto_mkdir=True), os.path.abspath(url)
    with _errors(url):
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
    """

    name: str
    bytes: int
    modified: str
    version: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """How an output was made.

    Attributes:
        name: of its source; also source_bytes and modified, as in `Item`.
        tree: where the source was, a URL.
        settings: `Settings.facts`.
        bytes: size of the output; below 0 while it is only begun.
        verified: it was read back.
        deleted: its source was deleted, or was about to be: this output may be all that is left of it.
    """

    name: str
    source_bytes: int
    modified: str
    tree: str
    settings: dict[str, Any]
    bytes: int = -1
    verified: bool = False
    deleted: bool = False


class Tree:
    """A folder and all that is in it.

    Args:
        url: a local path, or a URL that fsspec knows.

    Raises:
        TokcodecError: no package for this kind of URL is installed. Every method raises it, too.
    """

    def __init__(self, url: str) -> None:
        self._system, root = _open(url)
        self._root = root.rstrip("/")
        self.is_local = isinstance(self._system, LocalFileSystem)

    def items(self) -> dict[str, Item]:
        """All files by name, in order, without hidden files and folders.

        Raises:
            TokcodecError: there is no such folder.
        """
        with _errors(self.url("")):
            found: dict[str, dict[str, Any]] = self._system.find(self._root, detail=True)
            if set(found) <= {self._root} and not self._system.isdir(self._root or "/"):
                raise TokcodecError(f"{self.url('')}: {'is not a folder' if found else 'no such folder'}")
        items = {}
        for path, facts in sorted(found.items()):
            name = path[len(self._root) + 1 :]
            if name and not any(part.startswith(".") for part in name.split("/")):
                items[name] = self._item(name, facts)
        return items

    def _item(self, name: str, facts: dict[str, Any]) -> Item:
        if self.is_local:
            with contextlib.suppress(OSError):  # a link that leads nowhere: it fails when its turn comes
                status = os.stat(f"{self._root}/{name}")  # of a link's target, which `find` does not look at
                return Item(name, status.st_size, str(status.st_mtime_ns), str(status.st_ino))
        modified, version = (next((facts[k] for k in keys if facts.get(k)), "") for keys in (CHANGED, VERSION))
        return Item(name, int(facts["size"]), str(modified), str(version))

    def url(self, name: str) -> str:
        """What `fetched` and `placed` take for a file of this tree; a plain path if it is local."""
        path = f"{self._root}/{name}".rstrip("/")
        return path if self.is_local else str(self._system.unstrip_protocol(path))

    def size(self, name: str) -> int | None:
        """Of a file, in bytes; None if there is none."""
        with _errors(self.url(name)):
            try:
                return int(self._system.info(f"{self._root}/{name}")["size"])
            except FileNotFoundError:
                return None

    def sync(self, name: str) -> None:
        """Return when a file and its name are on the disk: a power failure does not take it back."""
        if not self.is_local:  # then it was there when it was stored
            return
        path = Path(self._root, name)
        with _errors(self.url(name)):
            folders = [folder for folder in path.parents if folder.is_relative_to(self._root)]
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
        path = f"{self._root}/{item.name}"
        with _errors(self.url(item.name)):
            listed = self._system.ls(path, detail=True)  # not `info`: its times may be in other words
            if [self._item(item.name, facts) for facts in listed] != [item]:
                raise ChangedError(
                    f"{item.name}: changed since it was listed, so it is not deleted; run the batch again"
                )
            self._system.rm_file(path)

    def work(self, name: str) -> str:
        """URL of the folder for unfinished work on an output."""
        return self.url(f"{BOOKS}/{name}.work")

    def tidy(self, name: str, keep: str | None = None) -> None:
        """Remove unfinished work on an output, left by runs that were killed; files that begin with `keep` stay."""
        folder = f"{self._root}/{BOOKS}/{name}.work"
        with _errors(self.url(name)), contextlib.suppress(FileNotFoundError):
            for path in self._system.ls(folder, detail=False):
                if keep is None or not PurePosixPath(path).name.startswith(keep):
                    self._system.rm(path, recursive=True)
            if keep is None and self.is_local:
                os.rmdir(folder)

    def check(self) -> None:
        """Raise TokcodecError where `prepare` would find a file in place of the folder."""
        if self.is_local and os.path.exists(self._root) and not os.path.isdir(self._root):
            raise TokcodecError(f"{self.url('')}: is not a folder")

    def prepare(self) -> None:
        """Make the folder of the books, so that what cannot be written at all is told once."""
        if self.is_local:
            with _errors(self.url("")):
                os.makedirs(f"{self._root}/{BOOKS}", exist_ok=True)

    def peek(self, name: str) -> Claim:
        """The record of an output as it stands, without the right to make the output. Nothing is written."""
        return Claim(self._system, f"{self._root}/{BOOKS}/{name}.json", None)

    def claim(self, name: str) -> Claim:
        """The sole right to make an output, and its record. A dead process holds no claim.

        Where files are not local, and on Windows, there are no locks, and two runs may do the same work: outputs are
        whole and the same either way.

        Raises:
            BusyError: another process holds it.
        """
        path = f"{self._root}/{BOOKS}/{name}.json"
        if not self.is_local:
            return Claim(self._system, path, None)
        with _errors(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not locks.AVAILABLE:
                return Claim(self._system, path, None)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locks.lock(handle)
            except BlockingIOError:
                os.close(handle)
                raise BusyError(f"{name}: another batch works on it") from None
        return Claim(self._system, path, handle)


class Claim:
    """The record of an output, in the hands of who may write it.

    Attributes:
        record: how the output was made, or is going to be; None if no batch made it.
    """

    def __init__(self, system: Any, path: str, handle: int | None) -> None:
        self._system, self._path, self._handle = system, path, handle
        self.record: Record | None = None
        with _errors(path), contextlib.suppress(FileNotFoundError):
            self.record = _parsed(system.cat_file(path))

    def write(self, record: Record) -> None:
        """Replace the record."""
        text = json.dumps(dataclasses.asdict(record)).encode()
        with _errors(self._path):
            if self._handle is None:
                self._system.pipe_file(self._path, text)
            else:  # over the old one, never empty in between: a kill there would look as if no batch had begun
                os.pwrite(self._handle, text, 0)
                os.ftruncate(self._handle, len(text))
                os.fsync(self._handle)
        self.record = record

    def release(self) -> None:
        """Let others have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _parsed(text: bytes) -> Record | None:
    """A record; None for anything else, which then is not ours."""
    try:
        facts = json.JSONDecoder().raw_decode(text.decode())[0]  # a kill may leave the end of an older one behind it
        record = Record(**facts)
    except (ValueError, TypeError):
        return None
    kinds = {"name": str, "source_bytes": int, "modified": str, "tree": str, "settings": dict, "bytes": int}
    return record if all(type(facts.get(name, -1)) is kind for name, kind in kinds.items()) else None


def exists(url: str) -> bool:
    """Whether there is a file."""
    system, path = _open(url)
    with _errors(url):
        return bool(system.exists(path))


@contextlib.contextmanager
def fetched(url: str, shared: bool = False) -> Iterator[Path]:
    """A file to read: itself if it is local, else a temporary copy.

    Args:
        url: of the file.
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
        with _errors(url):
            facts = system.info(path)
            what = json.dumps([url, facts], sort_keys=True, default=str)
            key = hashlib.sha256(what.encode(errors="surrogateescape")).hexdigest()[:16]
            name = PurePosixPath(path).name
            copy = copies.shared_copy(key, name, lambda copy: system.get_file(path, str(copy)))
        yield copy
        return
    with tempfile.TemporaryDirectory(prefix="tokcodec.") as folder:
        copy = Path(folder, PurePosixPath(path).name)
        with _errors(url):
            system.get_file(path, str(copy))
        yield copy


@contextlib.contextmanager
def placed(url: str, work: str) -> Iterator[Path]:
    """A path to write a file to, which then appears under its URL, whole or not at all.

    Args:
        url: of the file; what is there is replaced.
        work: URL of a folder for unfinished work, beside it.

    Raises:
        TokcodecError: it cannot be stored.
    """
    system, path = _open(url)
    local = isinstance(system, LocalFileSystem)
    with contextlib.ExitStack() as stack:
        with _errors(url):
            if local:
                os.makedirs(work, exist_ok=True)
                os.makedirs(os.path.dirname(path), exist_ok=True)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tmp.", dir=work if local else None))
        partial = Path(folder, PurePosixPath(path).name)
        yield partial
        with _errors(url):
            if local:
                os.replace(partial, path)
            else:
                system.put_file(str(partial), path)
