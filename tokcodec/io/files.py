"""Files whose errors bear their names, whoever reads or writes them."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

from tokcodec.errors import TokcodecError


class NamedFile(io.FileIO):
    """A binary file, unbuffered, for io.BufferedReader and io.BufferedWriter.

    Args:
        file: a path, or a descriptor that it will close.
        mode: "rb", "wb" or "r+b".
        name: of the file in errors.

    Raises:
        TokcodecError: it cannot be opened; each method raises it too. A pipe that nobody reads is a BrokenPipeError.
    """

    def __init__(self, file: Path | int, mode: str, name: object) -> None:
        self._label = str(name) if mode == "rb" else f"{name}: cannot {'write' if mode == 'wb' else 'read or write'}"
        try:
            super().__init__(file, mode)
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> Exception:
        return (
            error if isinstance(error, BrokenPipeError) else TokcodecError(f"{self._label}: {error.strerror or error}")
        )

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise self._named(error) from error

    def readall(self) -> bytes:
        try:
            return super().readall() or b""
        except OSError as error:
            raise self._named(error) from error

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise self._named(error) from error

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # as of a quota on a network's file system
            raise self._named(error) from error


def temporary_file() -> io.BufferedRandom:
    """A binary file without a name, which is gone when it is closed.

    Raises:
        TokcodecError: it cannot be made; its methods raise it too, as where there is no space.
    """
    try:
        with tempfile.TemporaryFile(buffering=0) as made:
            handle = os.dup(made.fileno())
    except OSError as error:
        raise TokcodecError(f"no temporary file: {error.strerror or error}") from error
    return io.BufferedRandom(NamedFile(handle, "r+b", f"temporary file in {tempfile.gettempdir()}"))
