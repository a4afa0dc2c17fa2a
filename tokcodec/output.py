"""Output that appears whole or not at all: written beside its name, renamed at the end."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tokcodec import standard
from tokcodec.errors import TokcodecError


def check_target(target: Path, sources: list[Path], overwrite: bool) -> None:
    """Refuse a target that would destroy something.

    Raises:
        TokcodecError: it exists and `overwrite` is not set, is one of the sources, is a link that leads nowhere but
            to itself, or has no folder.
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
        raise TokcodecError(f"{target}: exists already; -f overwrites it")
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
        TokcodecError: the target is refused (`check_target`) or its folder cannot be written.
    """
    check_target(target, sources, overwrite)
    real = target.resolve()  # a link stays one, and what it names is replaced
    try:
        handle, name = tempfile.mkstemp(prefix=f".{real.stem}.", suffix=f".partial{target.suffix}", dir=real.parent)
        os.close(handle)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's own mode is private
    except OSError as error:
        raise TokcodecError(f"{target}: cannot write: {error.strerror}") from error
    partial = Path(name)
    try:
        yield partial
        os.replace(partial, real)
    except OSError as error:
        raise TokcodecError(f"{target}: cannot write: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(target: str | Path, sources: list[Path], overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file to write a whole output to: `replacing`, opened; "-" is stdout.

    Raises:
        TokcodecError: as `replacing`; also when a write fails, as on a full disk.
    """
    if str(target) == "-":
        try:
            with os.fdopen(os.dup(standard.stdout().fileno()), "wb") as file:
                yield file
        except BrokenPipeError:  # whoever read has enough: not an error to tell
            raise
        except OSError as error:
            raise TokcodecError(f"stdout: cannot write: {error.strerror or error}") from error
    else:
        with replacing(Path(target), sources, overwrite) as partial, partial.open("wb") as file:
            yield file


@contextlib.contextmanager
def replacing_pattern(pattern: Path, overwrite: bool = False) -> Iterator[Path]:
    """As `replacing`, for a numbered set of files such as `frames/%05d.png`.

    The files are written to a temporary folder inside the pattern's folder, which is made if absent, and moved up.
    Those of an earlier, longer set are removed then.

    Raises:
        TokcodecError: the folder holds such files already and `overwrite` is not set, or cannot be written.
    """
    folder = pattern.parent
    if folder.is_dir() and not overwrite and any(folder.glob(f"*{pattern.suffix}")):
        raise TokcodecError(f"{folder}: holds {pattern.suffix} files already; -f overwrites them")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial.", dir=folder) as partial:
            yield Path(partial) / pattern.name
            made_names = [file.name for file in Path(partial).iterdir()]
            for name in made_names:
                os.replace(Path(partial) / name, folder / name)
        for file in [file for file in folder.iterdir() if _is_numbered(file.name, pattern.name)]:
            if file.name not in made_names:
                file.unlink()
        made = False
    except OSError as error:
        raise TokcodecError(f"{folder}: cannot write: {error.strerror or error}") from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _is_numbered(name: str, pattern: str) -> bool:
    """Whether a pattern such as `%05d.png` stands for a name: 00017.png, not 17.png."""
    before, width, after = re.split(r"%0?(\d*)d", pattern, maxsplit=1)
    match = re.fullmatch(re.escape(before) + r"(\d+)" + re.escape(after), name)
    return match is not None and match[1] == match[1].lstrip("0").zfill(int(width or 1))
