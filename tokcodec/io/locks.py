"""Locks on open files: they end with the process that holds them. Windows has none of this kind."""

from __future__ import annotations

from typing import Any

try:
    import fcntl as _fcntl

    _flock: Any = _fcntl
except ImportError:
    _flock = None

AVAILABLE = _flock is not None


def lock(handle: int, shared: bool = False, wait: bool = False) -> None:
    """Lock an open file or folder until its handle is closed, by this process or by its end.

    Args:
        handle: a file descriptor.
        shared: others may hold a shared lock, too.
        wait: for those who hold it.

    Raises:
        BlockingIOError: another process holds it, and `wait` is not set.
        OSError: its file system has no locks.
        RuntimeError: there are none on this system; see `AVAILABLE`.
    """
    if not AVAILABLE:
        raise RuntimeError("this system has no locks on files")
    kind = _flock.LOCK_SH if shared else _flock.LOCK_EX
    _flock.flock(handle, kind if wait else kind | _flock.LOCK_NB)
