"""Output that appears whole or not at all: written next to its name, renamed at the end.

Who writes holds a lock on the hidden file next to the name; one without a lock is of a process that was killed, and
the next output in its folder removes it. Where there are no locks, such files stay.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokcodec.errors import ExistsError, TokcodecError
from tokcodec.io import locks, standard
from tokcodec.io.files import NamedFile

PARTIAL = ".tokcodec."  # how the names of unfinished files begin


def check_target(target: Path, sources: list[Path], overwrite: bool) -> None:
    """Refuse a target that would destroy something.

    Raises:
        ExistsError: it exists and `overwrite` is not set.
        TokcodecError: it is one of the sources, is a link that leads nowhere but to itself, or has no folder.
    """
    try:
        target.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise TokcodecError(f"{target}: cannot write: {error.strerror}") from error
    for source in sources:
        if source.exists() and target.exists() and os.path.samefile(source, target):
            raise TokcodecError(f"{target}: output is the same file as input")
    if target.is_dir():
        raise TokcodecError(f"{target}: is a folder")
    if target.exists() and not target.is_file():
        raise TokcodecError(f"{target}: is a device or a pipe; write to - instead")
    if target.exists() and not overwrite:
        raise ExistsError(f"{target}: exists already")
    if not target.parent.is_dir():
        raise TokcodecError(f"{target}: no folder {target.parent}")


@contextlib.contextmanager
def replacing(target: Path, sources: list[Path], overwrite: bool = False) -> Iterator[Path]:
    """A temporary sibling to write to, with the target's suffix; it takes the target's name on success.

    Args:
        target: the real name.
        sources: files the target must not be.
        overwrite: replace a file that exists.

    Raises:
        ExistsError: the target exists and `overwrite` is not set; also at the end, of one that was made meanwhile.
        TokcodecError: the target is refused (`check_target`) or its folder cannot be written.
    """
    check_target(target, sources, overwrite)
    real = target.resolve()  # a link stays one, and what it names is replaced
    try:
        _remove_dead(real.parent)
        partial, lock = _partial_file(real.parent, target.suffix)
    except OSError as error:
        raise TokcodecError(f"{target}: cannot write: {error.strerror}") from error
    try:
        yield partial
        try:
            _place(partial, real, overwrite)
        except FileExistsError as error:
            raise ExistsError(f"{target}: was made by another process meanwhile") from error
        except OSError as error:
            raise TokcodecError(f"{target}: cannot write: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
        _close(lock)


def _place(partial: Path, real: Path, overwrite: bool) -> None:
    """Give a finished file its name.

    Raises:
        FileExistsError: it is taken, and `overwrite` is not set.
        OSError: the folder cannot be written.
    """
    if not overwrite:
        try:
            os.link(partial, real)  # of all ways to take a name only this one fails where it is taken
            return
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if real.exists():
                raise FileExistsError from None
    os.replace(partial, real)


def _partial_file(folder: Path, suffix: str) -> tuple[Path, int | None]:
    """An empty file for unfinished output, and the lock on it if there are locks."""
    while True:
        lock, name = tempfile.mkstemp(prefix=PARTIAL, suffix=f".partial{suffix}", dir=folder)
        if _locked(lock) and os.fstat(lock).st_nlink:  # else it was taken for a dead one before it was locked
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)  # mkstemp's own mode is private
            if locks.AVAILABLE:
                return Path(name), lock
            os.close(lock)  # Windows renames no file that is open
            return Path(name), None
        os.close(lock)


def _partial_folder(folder: Path) -> tuple[Path, int | None]:
    """As `_partial_file`, a folder."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=".partial", dir=folder))
        if not locks.AVAILABLE:
            return made, None
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(made, os.O_RDONLY)
            if _locked(lock) and made.exists():
                return made, lock
            os.close(lock)


def _locked(handle: int) -> bool:
    """Lock a file, unless another process has."""
    try:
        locks.lock(handle)
    except BlockingIOError:
        return False
    except (OSError, RuntimeError):  # a system or file system without locks, where `_remove_dead` gets none either
        pass
    return True


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


def _remove_dead(folder: Path) -> None:
    """Remove what processes that were killed have left in a folder."""
    for path in folder.glob(f"{PARTIAL}*.partial*") if locks.AVAILABLE else ():
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                locks.lock(handle)
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            finally:
                os.close(handle)


@contextlib.contextmanager
def writing(target: str | Path, sources: list[Path], overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write a whole output to: `replacing`, opened; "-" is stdout.

    Raises:
        TokcodecError: as `replacing`; also when a write fails, as on a full disk.
    """
    if str(target) == "-":
        with io.BufferedWriter(NamedFile(os.dup(standard.stdout().fileno()), "wb", "stdout")) as file:
            yield file
    else:
        with (
            replacing(Path(target), sources, overwrite) as partial,
            io.BufferedWriter(NamedFile(partial, "wb", target)) as file,
        ):
            yield file


@contextlib.contextmanager
def replacing_pattern(pattern: Path, overwrite: bool = False) -> Iterator[Path]:
    """As `replacing`, for a numbered set of files such as `frames/%05d.png`.

    The files are written to a temporary folder inside the pattern's folder, which is made if absent, and moved up.
    Those of an earlier, longer set are removed then.

    Raises:
        ExistsError: the folder holds files of such names already and `overwrite` is not set.
        TokcodecError: it cannot be written.
    """
    folder = pattern.parent

    def refuse() -> None:
        if (
            not overwrite
            and folder.is_dir()
            and any(number_in(f.name, pattern.name) is not None for f in folder.iterdir())
        ):
            raise ExistsError(f"{folder}: holds files called {pattern.name} already")

    refuse()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_dead(folder)
            partial, lock = _partial_folder(folder)
        except OSError as error:
            raise TokcodecError(f"{folder}: cannot write: {error.strerror or error}") from error
        try:
            yield partial / pattern.name
            refuse()  # what was made meanwhile
            try:
                made_names = [file.name for file in partial.iterdir()]
                for name in made_names:
                    os.replace(partial / name, folder / name)
                for file in [file for file in folder.iterdir() if number_in(file.name, pattern.name) is not None]:
                    if file.name not in made_names:
                        file.unlink()
            except OSError as error:
                raise TokcodecError(f"{folder}: cannot write: {error.strerror or error}") from error
            made = []
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            _close(lock)
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def number_in(name: str, pattern: str) -> int | None:
    """The number for which a pattern such as `%05d.png` is this name: of 00017.png, but not of 17.png."""
    before, width, after = re.split(r"%0?(\d*)d", pattern, maxsplit=1)
    match = re.fullmatch(re.escape(before) + r"(\d+)" + re.escape(after), name)
    return int(match[1]) if match and match[1] == match[1].lstrip("0").zfill(int(width or 1)) else None
