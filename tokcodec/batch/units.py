"""The units of work of a batch: a whole file, a piece of a long one, the joining of pieces.

Units, settings and outcomes are plain values that travel to a worker process or another machine and back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tokcodec import edit, signals
from tokcodec.batch import pieces
from tokcodec.batch.pieces import Piece
from tokcodec.batch.storage import exists, fetched, placed
from tokcodec.codec import decode_video, encode_video
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import TokcodecError
from tokcodec.io import suffixes
from tokcodec.rate import Rate
from tokcodec.report import Progress, Report
from tokcodec.stream.profile import Profile
from tokcodec.video import Filters
from tokcodec.weights import find_weights

OnFrames = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How every file is coded.

    Attributes:
        decode: streams to videos; else videos to streams.
        suffix: of the outputs.
        rate: of the streams.
        profile: of the streams; None is the default one.
        deinterlace: make whole frames of fields before they are coded.
        crf: of the decoded videos.
        weights: path, the same on every machine; None finds them there.
        weights_sha256: that encoding must use; None to decode, where the stream says.
        compute: device, arithmetic and restorer; each worker puts in its number of threads.
        verify: read every stream back before it counts.
        piece_chunks: chunks a long file is cut into at a time; 0 leaves files whole.
    """

    decode: bool = False
    suffix: str = suffixes.STREAM
    rate: Rate = dataclasses.field(default_factory=Rate)
    profile: Profile | None = None
    deinterlace: bool = False
    crf: float = 12.0
    weights: Path | None = None
    weights_sha256: bytes | None = None
    compute: Compute = AUTO
    verify: bool = False
    piece_chunks: int = 0

    def facts(self) -> dict[str, Any]:
        """What the bytes of an output depend on, for the record."""
        network = {"device": self.compute.device, "dtype": self.compute.dtype}
        if self.decode:
            return {**network, "restorer": self.compute.restorer, "crf": self.crf}
        assert self.weights_sha256 is not None
        coded: dict[str, Any] = {"deinterlace": self.deinterlace, "weights_sha256": self.weights_sha256.hex()}
        if self.profile is not None:  # else the records of earlier versions stay valid
            coded["profile"] = list(self.profile)
        return {**network, **dataclasses.asdict(self.rate), **coded}

    @property
    def filters(self) -> Filters:
        """What is done to frames before they are coded."""
        return Filters(deinterlace=self.deinterlace)

    def network(self) -> dict[str, Any]:
        """The arguments that name weights and what computes, in this process."""
        weights = find_weights(self.weights, self.weights_sha256) if self.weights_sha256 else self.weights
        return {"weights": weights, "compute": self.compute}

    def limited(self, threads: int | None) -> Settings:
        """The same for a worker with so many threads; None changes nothing."""
        if threads is None:
            return self
        return dataclasses.replace(self, compute=dataclasses.replace(self.compute, threads=threads))


@dataclasses.dataclass(frozen=True)
class Done:
    """What a unit made: a file and what it says of itself; or the pieces it wants to be cut into."""

    report: Report | None = None
    bytes: int = 0
    pieces: tuple[Piece, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a unit: done, or an error in words; and who took how long, with what warnings."""

    done: Done | None
    error: str | None
    worker: str
    seconds: float
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Whole:
    """Code a file. URLs of source, target and the folder for unfinished work; `split` if it may ask for pieces."""

    source: str
    target: str
    work: str
    split: bool

    def run(self, settings: Settings, names: dict[str, str], on_frames: OnFrames) -> Done:
        split = self.split and not settings.rate.is_of_the_whole
        with fetched(self.source, names, shared=split) as source:
            if split:
                parts = pieces.plan(source, settings.piece_chunks, settings.filters)
                if parts:
                    return Done(pieces=tuple(parts))
            with placed(self.target, self.work, names) as target:
                if settings.decode:
                    report = decode_video(
                        source,
                        target,
                        crf=settings.crf,
                        progress=_frames(on_frames),
                        **settings.network(),
                    )
                else:
                    report = encode_video(
                        source,
                        target,
                        rate=settings.rate,
                        profile=settings.profile,
                        filters=settings.filters,
                        progress=_frames(on_frames),
                        **settings.network(),
                    )
                return _finished(target, report, settings)


@dataclasses.dataclass(frozen=True)
class Part:
    """Encode a piece of a file to a stream of its own, unless a run before has done so."""

    source: str
    target: str
    work: str
    piece: Piece

    def run(self, settings: Settings, names: dict[str, str], on_frames: OnFrames) -> Done:
        if not exists(self.target):
            with contextlib.ExitStack() as stack:
                source = stack.enter_context(fetched(self.source, names, shared=True))
                pieces.encode_piece(
                    source,
                    stack.enter_context(placed(self.target, self.work, names)),
                    self.piece,
                    rate=settings.rate,
                    profile=settings.profile,
                    filters=settings.filters,
                    progress=_frames(on_frames),
                    **settings.network(),
                )
        return Done()


@dataclasses.dataclass(frozen=True)
class Join:
    """Join the pieces of a file."""

    source: str
    target: str
    work: str
    parts: tuple[str, ...]

    def run(self, settings: Settings, names: dict[str, str], on_frames: OnFrames) -> Done:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(fetched(self.source, names, shared=True))
            parts = [stack.enter_context(fetched(part, names)) for part in self.parts]
            target = stack.enter_context(placed(self.target, self.work, names))
            return _finished(target, pieces.join(source, parts, target, settings.filters), settings)


Unit = Whole | Part | Join


def _finished(target: Path, report: Report, settings: Settings) -> Done:
    if settings.verify:
        edit.verify(target, weights=settings.network()["weights"])
    return Done(report, target.stat().st_size)


def _frames(on_frames: OnFrames) -> Progress:
    """A callback for a codec that tells the frames alone."""
    return lambda frames, size_bytes, total, frame_px: on_frames(frames)


def work(unit: Unit, settings: Settings, on_frames: OnFrames = lambda frames: None) -> Outcome:
    """Do a unit of work. What is wrong with its file is in the outcome, never raised; a signal is.

    `on_frames` is called, in any thread, with how many of its frames are coded so far: of the pass that is under way.
    """
    started, done, error = time.monotonic(), None, None
    names: dict[str, str] = {}

    def said(message: str) -> str:
        """A message with the files it is of by their own names, not those of copies."""
        for path, url in names.items():
            message = message.replace(path, url)
        return message

    with _warnings() as warnings, _torch_threads(settings.compute.threads):
        try:
            done = unit.run(settings, names, on_frames)
        except TokcodecError as fault:
            signals.check()
            error = said(str(fault))
        except Exception as fault:  # a file that finds a bug must not stop the others
            signals.check()
            error = said(f"{type(fault).__name__}: {fault}")
    worker = f"{socket.gethostname()}:{os.getpid()}"
    return Outcome(done, error, worker, time.monotonic() - started, tuple(dict.fromkeys(map(said, warnings))))


@contextlib.contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads (None: as many as before)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what is logged, in place of showing it."""
    messages: list[str] = []
    logger, handler = logging.getLogger("tokcodec"), logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
