"""The coding loop compiled for this machine, once and on all cores, so that no command has to do it by the way.

Each package of work is a call of what commands call, on a tiny input; so whatever the loop is made of gets compiled.
Processes take the packages; what two of them need is compiled by one, while the other waits (`compiled`).
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import event

from tokcodec import compiled
from tokcodec.coding.planes import GRID, Planes, from_rgb, to_rgb
from tokcodec.errors import TokcodecError
from tokcodec.io import locks
from tokcodec.pipeline import available_cores
from tokcodec.restorer.planar import put_picture, put_squares
from tokcodec.stream import integers
from tokcodec.stream.entropy import PLAIN, Tokens, decode_chunk, encode_chunk, shapes
from tokcodec.stream.profile import DEFAULT, LFQ, Profile
from tokcodec.stream.pyramid import uniform
from tokcodec.tokenizer import Tokenizer
from tokcodec.weights import Weights

HEIGHT, WIDTH, FRAMES, STEP = 64, 96, 10, 8.0  # two spans of four and one of one
CANNOT_KEEP = 3  # exit code of a process that cannot keep what it compiles

OnCompiled = Callable[[int, int], None]  # functions compiled so far, and in all


def _frames(count: int) -> Any:
    """A pattern that moves, uint8 `[count, HEIGHT, WIDTH, 3]`."""
    t, y, x, c = np.ogrid[:count, :HEIGHT, :WIDTH, :3]
    return ((x + 3 * t) * (y + t) // 16 + 40 * c).astype(np.uint8)


def _nothing(tokenizer: Tokenizer, count: int) -> Tokens:
    """Tokens of a chunk in which all is zero."""
    levels, motion = shapes(count, HEIGHT, WIDTH, tokenizer.tables.dims)
    spans = np.array(uniform(count, 4), np.uint8)
    return Tokens(np.zeros(levels, np.int16), np.zeros(motion, np.int16), spans, np.full(count, PLAIN, np.uint8))


def _first(tokenizer: Tokenizer) -> None:
    tokenizer.encode(_frames(1), STEP)


def _motion(tokenizer: Tokenizer) -> None:
    encode_chunk(_nothing(tokenizer, FRAMES), round(16 * STEP), tokenizer.tables)


def _levels(tokenizer: Tokenizer) -> None:
    encode_chunk(_nothing(tokenizer, 1), round(16 * STEP), tokenizer.tables)


def _decode(tokenizer: Tokenizer) -> None:
    for frame in tokenizer.loop.decode(_nothing(tokenizer, FRAMES).in_order(), STEP):
        _shown(frame.base)


def _shown(base: Planes) -> None:
    """Both ways to a picture: of the loop alone, and what stands before and behind a network on a CPU."""
    picture = to_rgb(base, HEIGHT, WIDTH)[0]
    put_squares(base.y[0], base.c[0], 8, np.empty((HEIGHT // 8, WIDTH // 8, 96), np.float32), 0)
    put_picture(base.y[0], base.c[0], np.zeros((HEIGHT // 4, WIDTH // 4, 48), np.float32), picture)


def _whole(tokenizer: Tokenizer) -> None:
    """All that there and back take. What the other packages have left, or whatever they failed at, is compiled here."""
    from_rgb(_frames(1))
    tokens = tokenizer.encode(_frames(FRAMES), STEP).tokens
    coded = encode_chunk(tokens, round(16 * STEP), tokenizer.tables)
    tokens = decode_chunk(*coded, FRAMES, HEIGHT, WIDTH, round(16 * STEP), tokenizer.tables)
    for frame in tokenizer.loop.decode(tokens.in_order(), STEP):
        _shown(frame.base)


def _search(tokenizer: Tokenizer) -> None:
    for _ in tokenizer.of(Profile()).code(_frames(FRAMES), STEP):
        pass


def _integers(tokenizer: Tokenizer) -> None:
    """What the profile lfq takes there and back."""
    profile = Profile()
    of = tokenizer.of(profile)
    coded = of.packed(of.code(_frames(FRAMES), STEP), STEP)
    ints = integers.decode_chunk(*coded, FRAMES, -(-HEIGHT // GRID), -(-WIDTH // GRID), round(16 * STEP), profile)
    for _ in of.planes(integers.in_order(ints), STEP):
        pass


def _coder(tokenizer: Tokenizer) -> None:
    profile = Profile()
    ints = np.zeros((FRAMES, -(-HEIGHT // GRID), -(-WIDTH // GRID), profile.streams), np.int32)
    integers.encode_chunk(ints, round(16 * STEP), profile)


Package = Callable[[Tokenizer], None]
PACKAGES: dict[str, dict[str, Package]] = {
    DEFAULT: {"first": _first, "motion": _motion, "levels": _levels, "decode": _decode, "whole": _whole},
    LFQ: {"search": _search, "coder": _coder, "whole": _integers},  # what it takes besides
}  # by the profile that takes them; the longest chains first, independent of each other but for what they share
_LFQ_MODULES = frozenset({"tokcodec.coding.lfq_search", "tokcodec.stream.integers", "tokcodec.stream.vocabulary"})


def profile_of(module: str) -> str:
    """The profile that the compiled functions of a module belong to."""
    return LFQ if module in _LFQ_MODULES else DEFAULT


def folder() -> Path | None:
    """Where what is compiled is kept; None if there is no such place."""
    package = __name__.partition(".")[0]
    folders = [place for name, place in compiled.kept().items() if name.startswith(f"{package}.")]
    return min(folders) if folders else None


def is_prepared(profile: str = DEFAULT) -> bool:
    """Whether all of a profile is compiled that can be kept, for this source and this machine."""
    place = folder()
    return place is None or not _missing(place, profile)


def _missing(place: Path, profile: str) -> list[str]:
    """The parts of what a profile takes that are not compiled: that of the default profile is in all."""
    return [part for part in dict.fromkeys([DEFAULT, profile]) if not _stamp(place, part).exists()]


def _stamp(place: Path, part: str) -> Path:
    return place / f"tokcodec-{part}-{compiled.stamp(Path(__file__))}.done"


def prepare(progress: OnCompiled | None = None, profile: str = DEFAULT) -> bool:
    """Compile what encoding and decoding call, on all cores, unless that is done already.

    Args:
        progress: called after each function.
        profile: of the streams; a key of `PACKAGES`.

    Returns:
        Whether there was anything to do.

    Raises:
        TokcodecError: there is no folder to keep it in, or that is full; or no weights can be used.
    """
    place = folder()
    if place is None:
        raise TokcodecError("no folder to keep compiled code in; set NUMBA_CACHE_DIR")
    if not _missing(place, profile):
        return False
    weights = Weights.find()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            if locks.AVAILABLE:
                handle = os.open(place / "tokcodec.lock", os.O_RDWR | os.O_CREAT, 0o666)
                stack.callback(os.close, handle)
                with contextlib.suppress(OSError):  # a file system without locks
                    locks.lock(handle, wait=True)
            missing = _missing(place, profile)  # now: another process may have been at it
            for part in missing:
                code = _compile(weights, part, progress)
                if code == CANNOT_KEEP:
                    raise TokcodecError(f"{place}: compiled code cannot be kept there")
                if code:
                    raise TokcodecError(f"a process that compiles ended with code {code}")
                for old in place.glob(f"tokcodec-{part}-*.done"):
                    old.unlink()
                _stamp(place, part).touch()
    except OSError as error:
        raise TokcodecError(f"{place}: compiled code cannot be kept there: {error.strerror or error}") from error
    return bool(missing)


def _compile(weights: Weights, part: str, progress: OnCompiled | None) -> int:
    """Have processes do all packages of a part. The exit code of one that failed, else 0."""
    spawn = multiprocessing.get_context("spawn")
    waiting, names = list(PACKAGES[part]), set[str]()
    known = {name for name in compiled.kept() if profile_of(name.rpartition(".")[0]) == part}
    workers: dict[connection.Connection[Any, Any], Any] = {}
    try:
        for _ in range(min(max(available_cores(), 2), len(waiting))):
            pipe, theirs = spawn.Pipe()
            worker = spawn.Process(target=_work, args=(theirs, weights, part), daemon=True)
            worker.start()
            theirs.close()  # else the end of the process would not end the pipe
            workers[pipe] = worker
        while workers:
            for pipe in [pipe for pipe in workers if pipe in connection.wait(list(workers))]:
                try:
                    name = pipe.recv()
                    if name is None:  # it has nothing to do
                        pipe.send(waiting.pop(0) if waiting else None)
                except (EOFError, OSError):
                    worker = workers.pop(pipe)
                    worker.join()
                    if worker.exitcode:
                        return int(worker.exitcode)
                    continue
                if name in known:
                    names.add(name)
                    if progress is not None:
                        progress(len(names), len(known))
        return 0
    finally:
        for worker in workers.values():
            worker.terminate()


def _work(pipe: connection.Connection[Any, Any], weights: Weights, part: str) -> None:
    """The life of a process that compiles."""
    gc.disable()  # a compiler makes much and drops little
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and says when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    compiled.on_unkept = lambda: os._exit(CANNOT_KEEP)

    class Listener(event.Listener):
        def on_start(self, _: Any) -> None:
            pass

        def on_end(self, event: Any) -> None:
            function = event.data["dispatcher"].py_func
            pipe.send(f"{function.__module__}.{function.__qualname__}")

    with event.install_listener("numba:compile", Listener()):
        tokenizer = Tokenizer(weights)
        pipe.send(None)
        while (name := pipe.recv()) is not None:
            try:
                PACKAGES[part][name](tokenizer)
            except Exception:
                if name == "whole":  # the others only go ahead of it
                    raise
            pipe.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
