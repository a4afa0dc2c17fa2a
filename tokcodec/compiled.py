"""numba's `njit`, for machines where compiled code can be kept and for those where it cannot.

numba keeps it in $NUMBA_CACHE_DIR if that is set, else beside the source, else, where the package cannot be written,
in the user's cache folder. Without any of these it refuses to compile at all. By itself it compiles anew only when a
function's own file has changed; here also when another has, whose constants and functions are compiled in with it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import event

Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = Path(__file__).parent


@functools.cache
def _digest(package: Path) -> str:
    """Of the files that compiled code may come from."""
    digest = hashlib.sha256()
    for file in sorted([*package.glob("neural/**/*.py"), *package.glob("stream/*.py"), package / "rate.py"]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _warn() -> None:
    logging.getLogger(__name__).warning(
        "no folder to keep compiled code in: every run compiles for a minute or two; set NUMBA_CACHE_DIR"
    )


def njit(**options: Any) -> Callable[[Function], Function]:
    """As `numba.njit`; with `cache` what can be kept is, and what cannot is compiled again by every process."""

    def decorate(function: Function) -> Function:
        try:
            compiled: Function = numba.njit(**options)(function)
        except RuntimeError:
            if not options.get("cache"):
                raise
            _warn()
            compiled = numba.njit(**options | {"cache": False})(function)
        kept = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
        if kept is not None and PACKAGE in Path(function.__code__.co_filename).parents:
            kept._source_stamp = _digest(PACKAGE)
        return compiled

    return decorate


class _Listener(event.Listener):
    """Calls a function before the first thing is compiled that stays on the disk. Numba's lock is held then."""

    told = False  # by any of them in this process

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def on_start(self, event: object) -> None:
        if not _Listener.told and not _warn.cache_info().currsize:
            _Listener.told = True
            self._tell()

    def on_end(self, event: object) -> None:
        pass


@contextlib.contextmanager
def telling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell`, once a process and in any thread, when the disk has not what is called, and it is compiled to stay.

    What raises in `tell` goes to the caller of what was to be compiled.
    """
    with event.install_listener("numba:compile", _Listener(tell)):
        yield
