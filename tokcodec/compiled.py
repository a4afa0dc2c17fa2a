"""numba's `njit`, for machines where compiled code can be kept and for those where it cannot.

numba keeps it in $NUMBA_CACHE_DIR if that is set, else beside the source, else, where the package cannot be written,
in the user's cache folder. Without any of these it refuses to compile at all.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


@functools.cache
def _warn() -> None:
    logging.getLogger(__name__).warning(
        "no folder to keep compiled code in: every run compiles for about half a minute; set NUMBA_CACHE_DIR"
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
        return compiled

    return decorate
