"""numba's `njit`, for machines where compiled code can be kept and for those where it cannot.

numba keeps it in $NUMBA_CACHE_DIR if that is set, else next to the source, else, where the package cannot be written,
in the user's cache folder. Without any of these it refuses to compile at all. By itself it compiles anew only when a
function's own file has changed; here also when another has that this file imports, or that those import, and so on,
whose constants and functions are compiled in with it; and only then.
Here, too, a kept file that is damaged is as one that is not there, a folder that is full costs a warning, and of
several processes that need a function one compiles it while the others wait.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching, registry, types
from numba.np import linalg

from tokcodec.io import locks

Function = TypeVar("Function", bound=Callable[..., Any])
PACKAGE = Path(__file__).parent
DIGEST_BYTES = 32
_IMPORT = re.compile(  # with or without brackets, comments and broken lines within
    rb"(?:\bfrom[\s\\]*([.\w]+)[\s\\]+)?\bimport[\s\\]*(\((?:[^)#]|#[^\n]*)*\)|(?:\\\n|[^\n;])*)"
)
_WORD = re.compile(rb"[\w.]*\w")
_ASIDE = re.compile(rb"#[^\n]*|\bas\s+\w+")
_UNTOLD = re.compile(rb"\b(import[l]ib|__[i]mport__|__[g]etattr__)\b")  # written so that it does not find itself
_caching: Any = caching  # of numba, some of which has types
_types: Any = types
_linalg: Any = linalg

_folders: dict[str, Path] = {}  # by function: where what is compiled of it is kept
_scopes = threading.local()  # of each function that a thread compiles: what ends with that
_missed: Callable[[str], None] | None = None  # see `telling`
on_unkept: Callable[[], None] | None = None  # called in place of the warning when something cannot be kept


@functools.cache
def _read(file: Path) -> bytes:
    return file.read_bytes()


@functools.cache
def _imports(file: Path, package: Path) -> frozenset[Path]:
    """The files of a package that one of them imports, in whatever place. There may be some too many, none too few."""
    text = _read(file)
    if _UNTOLD.search(text):  # what it imports shows when it runs
        return frozenset(package.rglob("*.py"))
    own = (package.name, *file.relative_to(package).parent.parts)
    found = set[Path]()
    for match in _IMPORT.finditer(text):
        named = (match[1] or b"").decode()
        name = named.lstrip(".")
        level = len(named) - len(name)
        base = [*(own[: len(own) + 1 - level] if level else ()), *(name.split(".") if name else ())]
        words = [word.decode().split(".") for word in _WORD.findall(_ASIDE.sub(b" ", match[2]))]
        modules = [_files_of([*base, *word], package) for word in words]
        found.update(*modules, *(_files_of(word, package) for word in words))
        if not modules or not all(modules):  # names that the module itself makes
            found.update(_files_of(base, package))
    return frozenset(found)


def _files_of(parts: list[str], package: Path) -> list[Path]:
    """The file of a module, and those of the packages that it lies in, but for the outermost."""
    if parts[:1] != [package.name]:
        return []
    path = package.joinpath(*parts[1:])
    files = [path / "__init__.py", *([path.with_name(f"{path.name}.py")] if len(parts) > 1 else [])]
    if not any(map(_is_file, files)):
        return []
    files += [package.joinpath(*parts[1:i], "__init__.py") for i in range(2, len(parts))]
    return [file for file in files if _is_file(file)]


@functools.cache
def _is_file(path: Path) -> bool:
    return path.is_file()


@functools.cache
def _sources(file: Path, package: Path) -> tuple[Path, ...]:
    """A file, and what it imports of its package, and what those import, and so on."""
    found, waiting = {file}, [file]
    while waiting:
        fresh = _imports(waiting.pop(), package) - found
        found |= fresh
        waiting += fresh
    return tuple(sorted(found))


@functools.cache
def _digest(file: Path, package: Path) -> str:
    """Of all that may be compiled into the functions of a file."""
    digest = hashlib.sha256()
    for source in _sources(file, package):
        digest.update(f"{source.relative_to(package)} {len(_read(source))} ".encode() + _read(source))
    return digest.hexdigest()


def forget_sources() -> None:
    """Look anew at the files, which may have changed since."""
    for function in (_read, _imports, _is_file, _sources, _digest):
        function.cache_clear()


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
        self._module = function.__module__
        file = Path(function.__code__.co_filename)
        stamp = _digest(file, PACKAGE) if PACKAGE in file.parents else self._impl.locator.get_source_stamp()
        self._cache_file: Any = _Files(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is kept for a signature. If that is nothing, this process alone may compile it from here on."""
        found = self._found(sig, target_context)
        if found is None and _missed is not None:
            _missed(self._module)
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


def njit(*, inner: bool = False, **options: Any) -> Callable[[Function], Function]:
    """As `numba.njit`; with `cache` what can be kept is, and what cannot is compiled again by every process.

    A function is compiled once for all signed integers, constants and booleans, which it takes as int64.

    Args:
        inner: only compiled functions call it: what calls from Python take is not compiled.
    """
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inner}

    def decorate(function: Function) -> Function:
        compiled: Any = numba.njit(**options | {"cache": False})(function)
        compiled.get_call_template = _widened(compiled)
        compiled.compile = _compiling_wide(compiled.compile)
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


def _wide(kind: Any) -> Any:
    """The type of an argument that a function is compiled for, of the one that it is called with."""
    kind = _types.unliteral(kind)
    return (
        _types.int64 if isinstance(kind, _types.Boolean) or (isinstance(kind, _types.Integer) and kind.signed) else kind
    )


def _widened(compiled: Any) -> Callable[..., Any]:
    """A dispatcher's `get_call_template`, for calls of compiled functions: what is left out has the default's type."""
    template = compiled.get_call_template

    def widened(arguments: Any, keywords: Any) -> Any:
        _, arguments = compiled._compiler.fold_argument_types(arguments, keywords)
        given = (
            _types.unliteral(_types.literal(kind.value)) if isinstance(kind, _types.Omitted) else kind
            for kind in arguments
        )
        return template(tuple(map(_wide, given)), {})

    return widened


def _compiling_wide(compile_one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A dispatcher's `compile`, which calls from Python come to."""
    return lambda arguments: compile_one(tuple(map(_wide, arguments)))


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


def without_blas() -> None:
    """Keep numba from looking for SciPy's BLAS when it loads its first function, which is slow.

    For programs alone: `numpy.cov` and `corrcoef` are then unknown to all functions that the process compiles.
    """
    found = _linalg.ensure_blas

    def none() -> None:
        raise ImportError

    _linalg.ensure_blas = none
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        _linalg.ensure_blas = found


@contextlib.contextmanager
def telling(tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell`, in any thread, with the module of each function that the disk has not and that would be compiled.

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


def stamp(file: Path) -> str:
    """What all that depends on which a file of this package calls of compiled code, as a word.

    That is the sources, numba, Python and the processor.
    """
    own = Path(__file__)
    compiling = [source for source in _sources(file, PACKAGE) if own in _imports(source, PACKAGE)]
    about = (
        [_digest(source, PACKAGE) for source in compiling],
        numba.__version__,
        sys.version,
        registry.cpu_target.target_context.codegen().magic_tuple(),
    )
    return hashlib.sha256(repr(about).encode()).hexdigest()[:16]
