"""Copies of remote films on this machine: one for all its workers, there as long as one of them needs it.

A copy is a folder in the folder of temporary files. Who uses it holds a shared lock on it, so that it can be
removed by whoever finds it unlocked: the last user, or, where that one was killed, the next batch. Where there are no
locks, nothing of this can be used.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from tokcodec.io import locks

_held: tuple[Path, int] | None = None  # the copy this process uses, and its lock


def shared_copy(key: str, name: str, fetch: Callable[[Path], None]) -> Path:
    """A copy to read, until this process asks for another one or ends.

    Args:
        key: says which version of which file it is; a plain word.
        name: of the copy.
        fetch: writes it, if no process of this machine has.

    Raises:
        OSError: it cannot be written.
    """
    global _held
    folder = _root() / key
    if _held is None or _held[0] != folder:
        forget()
        for old in folder.parent.iterdir():
            _remove_unused(old)
        try:
            _held = folder, _use(folder, folder / name, fetch)
        except BaseException:
            _remove_unused(folder)
            raise
    return folder / name


def forget() -> None:
    """Remove the copy this process uses, unless another one uses it too."""
    global _held
    if _held is not None:
        (folder, lock), _held = _held, None
        os.close(lock)
        _remove_unused(folder)


atexit.register(forget)


def _root() -> Path:
    root = Path(tempfile.gettempdir(), f"tokcodec-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(0, "others may write to it", str(root))
    return root


def _use(folder: Path, copy: Path, fetch: Callable[[Path], None]) -> int:
    """A shared lock on a folder with the copy in it."""
    while True:
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                lock = os.open(folder, os.O_RDONLY)
            except FileNotFoundError:  # another process took it for one that nobody uses
                continue
            stack.callback(os.close, lock)
            locks.lock(lock, shared=True, wait=True)  # for who fetches it
            if _is(folder, lock) and copy.exists():
                stack.pop_all()
                return lock
            locks.lock(lock, wait=True)
            if _is(folder, lock) and not copy.exists():  # else another was quicker, or removed it
                partial = copy.with_name(f"{copy.name}.partial")
                fetch(partial)
                partial.rename(copy)


def _is(folder: Path, lock: int) -> bool:
    """Whether a folder is still the one that was opened."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.stat(folder), os.fstat(lock))
    return False


def _remove_unused(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process removes it, or uses it
        lock = os.open(folder, os.O_RDONLY)
        try:
            locks.lock(lock)
            if _is(folder, lock):
                shutil.rmtree(folder)
        finally:
            os.close(lock)
