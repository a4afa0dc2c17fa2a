"""Names and errors, as FFmpeg takes and gives them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

from av.error import EOFError as EndOfFileError
from av.error import FFmpegError, InvalidDataError

from tokcodec.errors import VideoError
from tokcodec.io.output import number_in

NUMBER = r"%0?\d*d"


def is_pattern(path: Path) -> bool:
    """Whether a path stands for numbered images, as frames/%05d.png and frames/%d.jpg do."""
    return path.suffix.lower() in (".png", ".jpg", ".jpeg") and bool(re.search(NUMBER, path.name))


def numbers_of(path: Path) -> list[int]:
    """The numbers of the files that are there of a pattern of images of any kind, in order; empty if it is none."""
    if not re.search(NUMBER, path.name) or path.exists():
        return []
    try:
        names = [file.name for file in path.parent.iterdir()]
    except OSError:  # FFmpeg will say why
        return []
    return sorted(number for name in names if (number := number_in(name, path.name)) is not None)


def url_of(path: str | Path, numbered: bool) -> str:
    """A path for FFmpeg: no protocol, and no number to fill in but that of a pattern of images, if it is one."""
    path = Path(path)
    return f"file:{str(path.parent).replace('%', '%%')}/{path.name}" if numbered else f"file:{path}"


def exact(rational: Any) -> Fraction:
    """A number of PyAV's to count with: from version 19 on its rationals are no Fractions, and not exact."""
    return Fraction(rational.numerator, rational.denominator)


def reason(error: Exception) -> str:
    """What an error of PyAV says, in one line."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


class _ReadInterruptedError(OSError):
    """What a signal raised in a read for FFmpeg. Only errors pass its C code: others end the process on the spot."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__("interrupted")
        self.raised = raised


class PipeFile:
    """A pipe for PyAV to read, opened and waited for in Python: in FFmpeg's own code no handler of a signal would run.

    Args:
        file: the pipe, open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.name = file, file.name

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (KeyboardInterrupt, SystemExit) as raised:
            raise _ReadInterruptedError(raised) from None


@contextlib.contextmanager
def errors(name: str, invalid: str = "") -> Iterator[None]:
    """Turn the errors of PyAV into one line with the file's name; a pipe that nobody reads stays a BrokenPipeError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except _ReadInterruptedError as read:
        raise read.raised from None
    except (FFmpegError, OSError) as error:
        prefix = f"{invalid}: " if invalid and isinstance(error, (InvalidDataError, EndOfFileError)) else ""
        raise VideoError(f"{name}: {prefix}{reason(error)}") from error
