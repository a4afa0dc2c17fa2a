"""Workers of one machine: processes, each with its own network, threads and GPU; or just this process.

Not concurrent.futures' pool: one dead process breaks it, and its processes outlive a parent that was killed.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from tokcodec import signals
from tokcodec.batch import copies
from tokcodec.batch.units import Outcome, Settings, Unit, work
from tokcodec.errors import TokcodecError
from tokcodec.pipeline import available_cores

OnUnitFrames = Callable[[Unit, int], None]

_spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and CUDA in an unknown state


class WorkerLostError(Exception):
    """A worker ended before its unit did."""


class NoWorkersError(TokcodecError):
    """No worker can be started: there is nobody to do any unit."""


def local_workers(jobs: int | None, threads: int | None, device: str) -> ThisProcess | Processes:
    """The workers of this machine.

    Args:
        jobs: how many; None for one a GPU, else one for two cores.
        threads: of each; None divides the cores among them.
        device: "auto", "cpu" or "cuda".
    """
    cores = available_cores()
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    jobs = jobs or gpus or max(1, cores // 2)
    threads = threads or max(1, cores // jobs)
    if jobs > 1:
        return Processes(jobs, threads, gpus)
    return ThisProcess(threads)


class ThisProcess:
    """One worker without a process of its own: `submit` returns when the unit is done.

    Args:
        threads: that it uses; None leaves them as the settings say.

    Attributes:
        limit: units that are worth having under way.
        on_frames: called, in any thread, with a unit and how many of its frames are coded so far.
    """

    limit = 1

    def __init__(self, threads: int | None = None) -> None:
        self.on_frames: OnUnitFrames = lambda unit, frames: None
        self._threads = threads

    def submit(self, unit: Unit, settings: Settings) -> Future[Outcome]:
        """Do a unit; the result is its outcome."""
        future: Future[Outcome] = Future()
        future.set_result(work(unit, settings.limited(self._threads), functools.partial(self.on_frames, unit)))
        return future

    def close(self) -> None:
        """Nothing is left to stop, but a copy of a remote film may be left."""
        copies.forget()


class Processes:
    """Worker processes. One that dies is replaced when there is work for it; one that cannot start is done without.

    Args:
        jobs: how many.
        threads: that each uses.
        gpus: to share among them, one each in turn, of those this process sees; 0 leaves the choice to the device
            that is set.

    Attributes:
        limit: units that are worth having under way: one in work and one waiting for each worker.
        on_frames: as of `ThisProcess`.
    """

    def __init__(self, jobs: int, threads: int, gpus: int = 0) -> None:
        self.limit = 2 * jobs
        self.on_frames: OnUnitFrames = lambda unit, frames: None
        self._threads, self._gpus = threads, gpus
        self._units: queue.SimpleQueue[tuple[Future[Outcome], Unit, Settings] | None] = queue.SimpleQueue()
        self._processes: list[SpawnProcess | None] = [None] * jobs
        self._closing = False
        self._serving, self._lock = jobs, threading.Lock()
        self._servants = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(jobs)]
        for servant in self._servants:
            servant.start()

    def submit(self, unit: Unit, settings: Settings) -> Future[Outcome]:
        """Queue a unit; the result is its outcome, or WorkerLostError or NoWorkersError."""
        future: Future[Outcome] = Future()
        self._units.put((future, unit, settings.limited(self._threads)))
        return future

    def close(self) -> None:
        """Stop the workers, also in the midst of their units; these remove what they began to write."""
        self._closing = True
        for process in self._processes:
            if process is not None:
                process.terminate()
        for _ in self._servants:
            self._units.put(None)
        for servant in self._servants:
            servant.join()

    def _serve(self, i: int) -> None:
        """Hand units to worker `i`, one at a time."""
        process, pipe = None, None
        while (task := self._units.get()) is not None and not self._closing:
            future, unit, settings = task
            if process is None or pipe is None:
                try:
                    process, pipe = self._start(i)
                except OSError as error:  # no memory, no more processes or open files
                    with self._lock:
                        self._serving -= not (last := self._serving == 1)
                    if last:  # it stays, or those who wait would wait for ever
                        future.set_exception(NoWorkersError(f"no worker can be started: {error.strerror or error}"))
                        continue
                    self._units.put(task)
                    return
            try:
                pipe.send((unit, settings))
                while isinstance(got := pipe.recv(), int):
                    self.on_frames(unit, got)
                future.set_result(got)
            except (EOFError, OSError):
                process.join()
                future.set_exception(WorkerLostError(f"worker {process.pid} ended with code {process.exitcode}"))
                process = None
        if process is not None:
            process.terminate()
            process.join()

    def _start(self, i: int) -> tuple[SpawnProcess, connection.Connection[Any, Any]]:
        pipe, theirs = _spawn.Pipe()
        gpu = _visible_gpu(i % self._gpus) if self._gpus else None
        process = _spawn.Process(target=_worker, args=(theirs, gpu), daemon=True)
        process.start()
        theirs.close()  # else the end of the process would not end the pipe
        self._processes[i] = process
        if self._closing:  # `close` has not seen this one
            process.terminate()
        return process, pipe


def _visible_gpu(i: int) -> str:
    """Name of the i-th GPU that this process sees, for CUDA_VISIBLE_DEVICES of another."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return names.split(",")[i].strip() if names else str(i)


def _worker(pipe: connection.Connection[Any, Any], gpu: str | None) -> None:
    """The life of a worker process. `gpu` is what CUDA calls the one to use."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and says when to stop
    signal.signal(signal.SIGTERM, signals.stop_once)  # `close` may send a second one, which must not disturb
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        with contextlib.suppress(EOFError, OSError):  # the parent has gone
            while True:
                unit, settings = pipe.recv()
                line = _Line(pipe)
                line.close(work(unit, settings, line.tell))
    except SystemExit:  # what the unit began to write is removed; its threads may be busy for long
        copies.forget()
        os._exit(143)


class _Line:
    """What a unit has to say to the parent: how many frames are coded, in any thread, and at last its outcome."""

    def __init__(self, pipe: connection.Connection[Any, Any]) -> None:
        self._pipe, self._lock, self._is_open = pipe, threading.Lock(), True

    def tell(self, frames: int) -> None:
        """Say how many frames; nothing after the outcome, when threads of a unit that failed may still be busy."""
        with self._lock:
            if self._is_open:
                self._pipe.send(frames)

    def close(self, outcome: Outcome) -> None:
        """Say what became of it."""
        with self._lock:
            self._is_open = False
            self._pipe.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
