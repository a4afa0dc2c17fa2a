"""Standard input and output as bytes. A process can be started with either of them closed."""

from __future__ import annotations

import sys
from typing import BinaryIO

from tokcodec.errors import TokcodecError


def stdin() -> BinaryIO:
    """Standard input.

    Raises:
        TokcodecError: it is closed.
    """
    return _binary("stdin")


def stdout() -> BinaryIO:
    """Standard output.

    Raises:
        TokcodecError: it is closed.
    """
    return _binary("stdout")


def _binary(name: str) -> BinaryIO:
    file: BinaryIO | None = getattr(getattr(sys, name), "buffer", None)
    if file is None:
        raise TokcodecError(f"{name}: is closed")
    return file
