"""Iterate something in a thread of its own, a few items ahead: how reading, coding and writing overlap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
_END = object()
_PATIENCE_S = 2.0  # with a thread that is stuck in a read, when the work is given up


def in_background(items: Generator[T, None, None], depth: int = 1) -> Generator[T, None, None]:
    """Yield the items in order while a thread prepares the next ones.

    Args:
        items: runs wholly in the thread, its cleanup included; so it should own what it reads. An error it raises
            is raised here.
        depth: how many finished items may wait. Memory holds depth + 2: one here, one in the making.
    """
    ready: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: object, error: BaseException | None = None) -> bool:
        while not stopped.is_set():
            try:
                ready.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put(item):
                    break
            else:
                put(_END)
        except BaseException as error:  # it belongs to whoever consumes
            put(_END, error)
        finally:
            items.close()

    thread = threading.Thread(target=fill, name=f"tokcodec {getattr(items, '__name__', 'pipeline')}", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join(_PATIENCE_S)
