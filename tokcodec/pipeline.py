"""Iterate something in threads of their own, a few items ahead: how reading, coding and writing overlap."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")
_END = object()
_PATIENCE_S = 2.0  # with a thread that is stuck in a read or at work, when the work is given up


def in_background(items: Generator[T, None, None], depth: int = 1) -> Generator[T, None, None]:
    """Yield the items in order while a thread prepares the next ones.

    Args:
        items: runs wholly in the thread, its cleanup included; so it should own what it reads. An error it raises
            is raised here.
        depth: how many finished items may wait. Memory holds depth + 2: one here, one in the making. With 0 the next
            item is begun when the last one is taken.
    """
    ready: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(max(depth, 1))
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
                del item  # else a third would be held with it
                while depth == 0 and not ready.empty() and not stopped.wait(0.01):
                    pass
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


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_blas_lock = threading.Lock()
_blas_limits: list[Any] = []  # one for each who limits it now; the first knows how it was before


@contextlib.contextmanager
def blas_limited(cores: int | None) -> Iterator[None]:
    """Let NumPy's products of matrices take so many threads at most (None: no limit), in the whole process.

    Where several limit them at once, the newest limit holds, and the threads are as before when all are done.
    """
    if cores is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    with _blas_lock:
        _blas_limits.append(threadpool_limits(cores, user_api="blas"))
    try:
        yield
    finally:
        with _blas_lock:
            if len(_blas_limits) == 1:
                _blas_limits[0].restore_original_limits()
            _blas_limits.pop()  # the newest, whoever it is of: the first stays as long as there are others


def in_parallel(work: Callable[[T], U], items: Iterable[T], workers: int) -> Generator[U, None, None]:
    """Yield `work(item)` of every item, in order, done by several threads.

    An item is taken when a thread is free for it, so `workers` of them are held at most. An error is raised
    here; what was begun then ends in the background, if it does not end soon.
    """
    pool = ThreadPoolExecutor(workers, "tokcodec worker")
    pending: collections.deque[Future[U]] = collections.deque()
    try:
        iterator = iter(items)
        while True:
            if len(pending) == workers:
                yield pending.popleft().result()
            item = next(iterator, _END)
            if item is _END:
                break
            pending.append(pool.submit(work, item))  # type: ignore[arg-type]
            del item  # else one more would be held than is said
        while pending:
            yield pending.popleft().result()
    finally:
        begun = [future for future in pending if not future.cancel()]
        pool.shutdown(wait=not wait(begun, _PATIENCE_S).not_done)


class Helpers(ThreadPoolExecutor):
    """Threads that take over parts of what other threads do."""

    def share(self, work: Callable[[], T]) -> Callable[[], T]:
        """Offer work to the threads. What is returned gives its result, and does it where none of them has begun."""
        future = self.submit(work)
        return lambda: work() if future.cancel() else future.result()
