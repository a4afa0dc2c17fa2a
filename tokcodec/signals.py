"""Signals that end a program by an exception, so that partial files are removed; also where that exception is lost.

And signals that a long run takes note of, to end at a good place.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

_sent: int | None = None  # the newest signal
_is_stopping = False  # an exception of `stop_once` is on its way


def stop(number: int, _frame: object = None) -> NoReturn:
    """End the program: a handler for signals.

    Raised in a destructor or a callback, as while modules are imported, the exception is lost; then the signal is sent
    again. Libraries in C can put an error of their own in its place: see `check`.

    Raises:
        KeyboardInterrupt: of SIGINT.
        SystemExit: of the others, with the code that a shell gives such a program.
    """
    global _sent
    _sent = number

    def ignored(lost: Any) -> None:
        global _is_stopping
        _is_stopping = False
        if issubclass(lost.exc_type, (KeyboardInterrupt, SystemExit)):
            if hasattr(signal, "pthread_kill"):  # wakes this thread if it sleeps by then; Windows has no such thing
                threading.Timer(0.1, signal.pthread_kill, [threading.get_ident(), number]).start()
            else:
                threading.Timer(0.1, signal.raise_signal, [number]).start()

    sys.unraisablehook = ignored
    _raise(number)


def stop_once(number: int, _frame: object = None) -> None:
    """As `stop`, but a signal that comes while the program is being ended does nothing.

    It stays the handler: one that is replaced by SIG_IGN while a second signal waits makes Python report an error.
    """
    global _is_stopping
    if not _is_stopping:
        _is_stopping = True
        stop(number)


def check() -> None:
    """Raise what `stop` has raised, if it was called: for who has caught an error that may stand in its place."""
    if _sent is not None:
        _raise(_sent)


@contextlib.contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Let SIGINT and SIGTERM end nothing for the time of a block, which asks what it is given whether one came."""
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True

    handlers = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
