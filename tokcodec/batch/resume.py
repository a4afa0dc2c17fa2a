"""The records of a target: for each output a JSON record of how it was made, which is also the lock of who makes it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import PurePosixPath
from typing import Any

from tokcodec.batch.storage import Tree, errors_of
from tokcodec.errors import TokcodecError
from tokcodec.io import locks

FOLDER = ".tokcodec"
MAX_NAME_BYTES = 255  # of a file, on nearly every file system


class BusyError(TokcodecError):
    """Another batch works on this output."""


@dataclasses.dataclass(frozen=True)
class Record:
    """How an output was made.

    Attributes:
        name: of its source; also source_bytes and modified, as in `Item`.
        tree: where the source was, a URL.
        settings: `Settings.facts`.
        bytes: size of the output; below 0 while it is only begun.
        verified: it was read back.
        damaged: places of its source that could not be read.
        deleted: its source was deleted, or was about to be: this output may be all that is left of it.
    """

    name: str
    source_bytes: int
    modified: str
    tree: str
    settings: dict[str, Any]
    bytes: int = -1
    verified: bool = False
    damaged: int = 0
    deleted: bool = False


class Records:
    """A hidden folder of a target: a record for each output, and a folder for unfinished work on it.

    Args:
        tree: the target.

    Raises:
        TokcodecError: a file of theirs cannot be read or written; so does every method.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree, self._system, self._root = tree, tree.system, tree.root
        self._held: set[Claim] = set()

    def close(self) -> None:
        """Let others have all that is still claimed."""
        for claim in [*self._held]:
            claim.release()

    def work(self, name: str) -> str:
        """URL of the folder for unfinished work on an output."""
        return self._tree.url(_place(name, "work"))

    def tidy(self, name: str, keep: str | None = None) -> None:
        """Remove unfinished work on an output, left by runs that were killed; files that begin with `keep` stay."""
        folder = f"{self._root}/{_place(name, 'work')}"
        with errors_of(self._tree.url(name)), contextlib.suppress(FileNotFoundError):
            for path in self._system.ls(folder, detail=False):
                if keep is None or not PurePosixPath(path).name.startswith(keep):
                    self._system.rm(path, recursive=True)
            if keep is None and self._tree.is_local:
                os.rmdir(folder)

    def check(self) -> None:
        """Raise TokcodecError where `prepare` would find a file in place of the folder."""
        if self._tree.is_local and os.path.exists(self._root) and not os.path.isdir(self._root):
            raise TokcodecError(f"{self._tree.url('')}: is not a folder")

    def prepare(self) -> None:
        """Make the folder, so that what cannot be written at all fails once."""
        if self._tree.is_local:
            with errors_of(self._tree.url("")):
                os.makedirs(f"{self._root}/{FOLDER}", exist_ok=True)

    def peek(self, name: str) -> Claim:
        """The record of an output as it stands, without the right to make the output. Nothing is written."""
        return Claim(self._system, f"{self._root}/{_place(name, 'json')}", None, self._held)

    def claim(self, name: str) -> Claim:
        """The sole right to make an output, and its record. A dead process holds no claim.

        Where files are not local, on Windows and on file systems that have none, there are no locks, and two runs may
        do the same work: outputs are whole and the same either way.

        Raises:
            BusyError: another process holds it.
        """
        path = f"{self._root}/{_place(name, 'json')}"
        if not self._tree.is_local:
            return Claim(self._system, path, None, self._held)
        with errors_of(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not locks.AVAILABLE:
                return Claim(self._system, path, None, self._held)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locks.lock(handle)
            except BlockingIOError:
                os.close(handle)
                raise BusyError(f"{name}: another batch works on it") from None
            except OSError:
                pass  # no locks on this file system
        return Claim(self._system, path, handle, self._held)


class Claim:
    """The record of an output, in the hands of who may write it.

    Attributes:
        record: how the output was made, or is going to be; None if no batch made it.
    """

    def __init__(self, system: Any, path: str, handle: int | None, held: set[Claim]) -> None:
        self._system, self._path, self._handle, self._held = system, path, handle, held
        held.add(self)
        self.record: Record | None = None
        with errors_of(path), contextlib.suppress(FileNotFoundError):
            self.record = _parsed(system.cat_file(path))

    def write(self, record: Record) -> None:
        """Replace the record."""
        text = json.dumps(dataclasses.asdict(record)).encode()
        with errors_of(self._path):
            if self._handle is None:
                self._system.pipe_file(self._path, text)
            else:  # over the old one, never empty in between: a kill there would look as if no batch had begun
                os.pwrite(self._handle, text, 0)
                os.ftruncate(self._handle, len(text))
                os.fsync(self._handle)
        self.record = record

    def release(self) -> None:
        """Let others have it."""
        self._held.discard(self)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _place(name: str, kind: str) -> str:
    """Where the record of an output is: under its name, or, where that would be too long, a digest of it."""
    place = PurePosixPath(FOLDER, f"{name}.{kind}")
    if len(os.fsencode(place.name)) > MAX_NAME_BYTES:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()
        place = place.with_name(f".{digest}.{kind}")  # no output begins with a dot
    return str(place)


def _parsed(text: bytes) -> Record | None:
    """A record; None for anything else, which then is not ours."""
    try:
        facts = json.JSONDecoder().raw_decode(text.decode())[0]  # a kill may leave the end of an older one behind it
        record = Record(**facts)
    except (ValueError, TypeError):
        return None
    kinds = {"name": str, "source_bytes": int, "modified": str, "tree": str, "settings": dict, "bytes": int}
    return record if all(type(facts.get(name, -1)) is kind for name, kind in kinds.items()) else None
