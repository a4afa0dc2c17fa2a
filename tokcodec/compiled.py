"""numba's `njit`, for machines where compiled code can be kept and for those where it cannot.

numba keeps it in $NUMBA_CACHE_DIR if that is set, else beside the source, else, where the package cannot be written,
in the user's cache folder. Without any of these it refuses to compile at all. By itself it compiles anew only when a
function's own file has changed; here also when another has, whose constants and functions are compiled in with it.
Here, too, a kept file that is damaged is as one that is not there, a folder that is full costs a warning, and of
several processes that need a function one compiles it while the others wait.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching, registry

from tokcodec.io import locks

Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = Path(__file__).parent
# Where compiled functions are, and what they take constants and functions from.
COMPILED = ("coding/*.py", "stream/*.py", "language/words.py", "tokens/bits.py", "rate.py")
DIGEST_BYTES = 32
_caching: Any = caching  # of numba, some of which has types

_folders: dict[str, Path] = {}  # by function: where what is compiled of it is kept
_scopes = threading.local()  # of each function that a thread compiles: what ends with that
_missed: Callable[[], None] | None = None  # see `telling`
_told = False
on_unkept: Callable[[], None] | None = None  # called in place of the warning when something cannot be kept


@functools.cache
def _digest(package: Path) -> str:
    """Of the files that compiled code may come from."""
    digest = hashlib.sha256()
    for file in sorted(file for pattern in COMPILED for file in package.glob(pattern)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _warn(text: str) -> None:
    logging.getLogger(__name__).warning("%s: every run compiles for a minute or two; set NUMBA_CACHE_DIR", text)


def _unkept(folder: str, error: OSError) -> None:
    if on_unkept is not None:
        on_unkept()
    _warn(f"compiled code cannot be kept in {folder} ({error.strerror or error})")


class _Files(_caching.IndexDataCacheFile):  # type: ignore[misc]
    """What is kept of a function, with digests: numba would run code that is damaged, or of an older source."""

    def _seal(self, data: bytes) -> bytes:
        return hashlib.sha256(repr(self._source_stamp).encode() + data).digest()

    def _dump(self, obj: object) -> bytes:
        data: bytes = super()._dump(obj)
        return data + self._seal(data)

    def _load_index(self) -> dict[Any, str]:
        try:
            return dict(super()._load_index())
        except Exception:  # there is no end to what damaged files raise
            return {}

    def _load_data(self, name: str) -> Any:
        sealed = Path(self._data_path(name)).read_bytes()
        data, seal = sealed[:-DIGEST_BYTES], sealed[-DIGEST_BYTES:]
        return super()._load_data(name) if seal == self._seal(data) else None


class _Kept(_caching.FunctionCache):  # type: ignore[misc]
    """What is kept of a function.

    Args:
        function: of Python.

    Raises:
        RuntimeError: there is no folder to keep it in.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        own = PACKAGE in Path(function.__code__.co_filename).parents
        stamp = _digest(PACKAGE) if own else self._impl.locator.get_source_stamp()
        self._cache_file: Any = _Files(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is kept for a signature. If that is nothing, this process alone may compile it from here on."""
        found = self._found(sig, target_context)
        if found is None and _missed is not None and not _told:
            _tell()
            found = self._found(sig, target_context)
        if found is None and locks.AVAILABLE:
            with contextlib.suppress(OSError):  # it cannot be written, or has no locks
                Path(self._cache_path).mkdir(parents=True, exist_ok=True)
                handle = os.open(f"{self._cache_file._index_path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
                _scopes.stacks[-1].callback(os.close, handle)
                locks.lock(handle, wait=True)
                found = self._found(sig, target_context)
        return found

    def _found(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except OSError as error:
            _unkept(self._cache_path, error)


def njit(**options: Any) -> Callable[[Function], Function]:
    """As `numba.njit`; with `cache` what can be kept is, and what cannot is compiled again by every process."""

    def decorate(function: Function) -> Function:
        compiled: Any = numba.njit(**options | {"cache": False})(function)
        if options.get("cache"):
            try:
                compiled._cache = _Kept(function)
            except RuntimeError:
                _warn("no folder to keep compiled code in")
                return cast(Function, compiled)
            compiled.compile = _scoped(compiled.compile)
            if "inline" not in options:
                _folders[f"{function.__module__}.{function.__qualname__}"] = Path(compiled._cache.cache_path)
        return cast(Function, compiled)

    return decorate


def _scoped(compile_one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A dispatcher's `compile`, at the end of which the lock of its function is released."""

    def scoped(sig: Any) -> Any:
        if not hasattr(_scopes, "stacks"):
            _scopes.stacks = []
        with contextlib.ExitStack() as stack:
            _scopes.stacks.append(stack)
            stack.callback(_scopes.stacks.pop)
            return compile_one(sig)

    return scoped


def _tell() -> None:
    global _told
    _told = True
    assert _missed is not None
    _missed()


@contextlib.contextmanager
def telling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell`, once a process and in any thread, when the disk has not what is called, and it would be compiled.

    What `tell` puts there is used. What raises in it goes to the caller of what was to be compiled; numba's lock is
    held.
    """
    global _missed
    before, _missed = _missed, tell
    try:
        yield
    finally:
        _missed = before


def kept() -> dict[str, Path]:
    """The functions, of modules imported so far, that are kept once they are compiled: folders by name."""
    return dict(_folders)


def stamp() -> str:
    """What all compiled code of this package depends on, as a word: the source, numba, Python and the processor."""
    about = (
        _digest(PACKAGE),
        numba.__version__,
        sys.version,
        registry.cpu_target.target_context.codegen().magic_tuple(),
    )
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]
