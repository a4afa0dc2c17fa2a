"""What to do next, what to do when it fails, and the books: the one process that sees the whole batch.

A file is finished when its record says so: same source (size and time of change), same settings, and an output
of the recorded size. Whatever kills a run, the next one begins with the files that are not. An output whose
record names another source is never touched: it may be all that is left of that source.
"""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import PurePosixPath
from typing import Any, Protocol, TextIO

from tokcodec.batch.storage import BusyError, ChangedError, Claim, Item, Record, Tree
from tokcodec.batch.units import Done, Join, Outcome, Part, Settings, Unit, Whole
from tokcodec.errors import TokcodecError

log = logging.getLogger("tokcodec")

VIDEO_SUFFIXES = frozenset(
    {".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
    | {".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
MAX_UNDER_WAY = 500  # each holds a lock, and so an open file
MAX_LOSSES = 3  # workers that may die over one file: it may be the file that kills them


class Workers(Protocol):
    """Who does the units: `workers.ThisProcess`, `workers.Processes` or `cluster.RayTasks`."""

    @property
    def limit(self) -> int: ...

    def submit(self, unit: Unit, settings: Settings) -> Future[Outcome]: ...

    def close(self) -> None: ...


@dataclasses.dataclass
class Summary:
    """What a run has done so far.

    Attributes:
        files: that were chosen.
        done: coded by this run; finished: by one before; busy: in the hands of another run.
        failed: an error for each file that was given up, by name.
        frames: coded by this run; also source_bytes, bytes (of the outputs) and seconds (wall time).
    """

    files: int = 0
    done: int = 0
    finished: int = 0
    busy: int = 0
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    frames: int = 0
    source_bytes: int = 0
    bytes: int = 0
    seconds: float = 0.0


def select(
    items: Iterable[Item], suffixes: Collection[str], globs: Sequence[str] = (), shard: tuple[int, int] = (1, 1)
) -> list[Item]:
    """Choose among files.

    Args:
        items: to choose from.
        suffixes: with the dot, in small letters.
        globs: a name must match one of them, if there are any; `*` matches slashes, too.
        shard: (i, n): the i-th of n parts, i from 1. The part of a file depends on its name alone, without the suffix:
            files that would have one output are in one part.
    """
    part, parts = shard
    return [
        item
        for item in items
        if PurePosixPath(item.name).suffix.lower() in suffixes
        and (not globs or any(fnmatch.fnmatchcase(item.name, pattern) for pattern in globs))
        and zlib.crc32(os.fsencode(PurePosixPath(item.name).with_suffix(""))) % parts == part - 1
    ]


@dataclasses.dataclass(eq=False)
class _File:
    """A file on its way: its claim, its units, and how often things went wrong."""

    item: Item
    output: str
    claim: Claim
    origin: Record  # of an output that is begun
    tries: int = 1
    losses: int = 0
    parts: tuple[str, ...] = ()  # URLs of its pieces
    open: int = 0  # pieces that are still to be coded
    spoilt: bool = False  # a piece could not be made
    seconds: float = 0.0
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def key(self) -> str:
        """Name of its pieces, by origin: those of another source or other settings are of no use."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self.origin), sort_keys=True).encode()).hexdigest()[:16]


def _same_source(one: Record, other: Record) -> bool:
    return (one.name, one.source_bytes, one.modified) == (other.name, other.source_bytes, other.modified)


class Batch:
    """A run over a folder of files.

    Args:
        source: where files come from.
        target: where outputs go, under the same names with the suffix of `settings`.
        settings: how to code.
        workers: who codes; the caller closes them.
        retries: how often a file is tried again after an error.
        overwrite: also replace outputs that no batch has made, or one made from a file of the same name in another
            tree; never those whose source had another name or was deleted.
        delete_source: remove each source whose output is verified; needs `settings.verify`.
        notes: gets a line of JSON for each file.
        progress: called after each file.
    """

    def __init__(
        self,
        source: Tree,
        target: Tree,
        settings: Settings,
        workers: Workers,
        *,
        retries: int = 1,
        overwrite: bool = False,
        delete_source: bool = False,
        notes: TextIO | None = None,
        progress: Callable[[Summary], None] | None = None,
    ) -> None:
        if delete_source and not settings.verify:
            raise ValueError("sources are deleted only after their outputs are verified")
        self._source, self._target, self._settings, self._workers = source, target, settings, workers
        self._retries, self._overwrite, self._delete_source = retries, overwrite, delete_source
        self._notes, self._progress = notes, progress
        self._summary = Summary()
        self._queue: collections.deque[tuple[_File, Unit]] = collections.deque()
        self._running: dict[Future[Outcome], tuple[_File, Unit]] = {}

    def run(self, items: Sequence[Item]) -> Summary:
        """Code files; those that are finished are skipped, those that fail are in the summary.

        Raises:
            TokcodecError: the books cannot be kept, or no worker can be started.
        """
        started = time.monotonic()
        self._summary.files = len(items)
        if items:
            self._target.prepare()
        files = self._claimed(items)
        try:
            while self._submit(files):
                for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                    self._settle(*self._running.pop(future), future)
                    self._summary.seconds = time.monotonic() - started
        finally:
            for file, _ in [*self._queue, *self._running.values()]:
                file.claim.release()
        return self._summary

    def _submit(self, files: Iterator[_File]) -> bool:
        """Give the workers what they can take; whether anything is under way."""
        limit = min(MAX_UNDER_WAY, self._workers.limit)
        while len(self._running) < limit:
            if not self._queue:
                file = next(files, None)
                if file is None:
                    break
                self._queue.append((file, self._whole(file, split=self._settings.piece_chunks > 0)))
            file, unit = self._queue.popleft()
            self._running[self._workers.submit(unit, self._settings)] = file, unit
        return bool(self._running)

    def _claimed(self, items: Sequence[Item]) -> Iterator[_File]:
        """The files that are to be coded, each claimed when its turn comes; the others are settled here."""
        makers: dict[str, str] = {}
        for item in items:
            output = str(PurePosixPath(item.name).with_suffix(self._settings.suffix))
            maker = makers.setdefault(output, item.name)
            if maker != item.name:
                self._note(item, output, "failed", error=f"{output} is made from {maker} already")
                continue
            try:
                claim = self._target.claim(output)
            except BusyError as error:
                self._note(item, output, "busy", error=str(error))
                continue
            except TokcodecError as error:  # its name is too long for the target, or of letters that it does not take
                self._note(item, output, "failed", error=str(error))
                continue
            origin = Record(item.name, item.bytes, item.modified, self._source.url(""), self._settings.facts())
            file = _File(item, output, claim, origin)
            size = self._target.size(output)
            if self._is_finished(file, size):
                self._drop_source(file, "finished", bytes=size)
            elif refusal := self._refusal(file, size):
                self._note(item, output, "failed", error=refusal)
            else:
                claim.write(origin)
                self._target.tidy(output, keep=file.key)
                yield file
                continue
            claim.release()

    def _is_finished(self, file: _File, size: int | None) -> bool:
        record = file.claim.record
        if record is None or size is None or record.bytes != size or record.settings != file.origin.settings:
            return False
        if file.item.bytes < 0:  # a source on the list that is not there: deleted, because this was done
            return record.name == file.item.name and record.verified
        return _same_source(record, file.origin) and (record.verified or not self._settings.verify)

    def _refusal(self, file: _File, size: int | None) -> str | None:
        """Why an output must not be made; None if it may."""
        record, output = file.claim.record, file.output
        if file.item.bytes < 0:
            return "no such file"
        if record is None:
            exists = size is not None and not self._overwrite
            return f"{output} exists, and no batch made it; -f overwrites it" if exists else None
        if size is None and (self._target.is_local or self._source.size(record.name) is None):
            return None  # nothing to lose; without locks, it may be in the making
        if record.name != file.item.name:
            return f"{output} was made from {record.name}; another target folder keeps both"
        if _same_source(record, file.origin):
            return None
        if record.deleted:
            return f"{output} was made from another {record.name}, since deleted; another target folder keeps both"
        if record.tree != file.origin.tree and not self._overwrite:
            return f"{output} was made from {record.name} in {record.tree}; -f overwrites it"
        return None

    def _whole(self, file: _File, split: bool) -> Unit:
        return Whole(*self._places(file), split)

    def _places(self, file: _File) -> tuple[str, str, str]:
        """URLs of source, target and the folder for unfinished work."""
        return self._source.url(file.item.name), self._target.url(file.output), self._target.work(file.output)

    def _settle(self, file: _File, unit: Unit, future: Future[Outcome]) -> None:
        """Decide what follows from a unit that ended."""
        fault = future.exception()
        if isinstance(fault, TokcodecError):  # there is nobody left to do anything
            self._queue.append((file, unit))
            raise fault
        if fault is not None:  # not the file's: the worker is gone
            file.losses += 1
            if file.losses < MAX_LOSSES:
                self._queue.append((file, unit))
                return
            outcome = Outcome(None, f"{file.losses} workers were lost over it: {fault}", "", 0.0, ())
        else:
            outcome = future.result()
        file.seconds += outcome.seconds
        file.warnings += [warning for warning in outcome.warnings if warning not in file.warnings]
        if isinstance(unit, Part):
            file.open -= 1
            file.spoilt |= outcome.done is None
            if not file.open:
                after = self._whole(file, split=False) if file.spoilt else Join(*self._places(file), file.parts)
                self._queue.appendleft((file, after))
        elif isinstance(unit, Join) and outcome.done is None:
            self._queue.appendleft((file, self._whole(file, split=False)))
        elif outcome.done is None:
            self._retry(file, unit, outcome)
        elif outcome.done.pieces:
            self._cut(file, outcome.done)
        else:
            self._finish(file, outcome.done, outcome.worker)

    def _cut(self, file: _File, done: Done) -> None:
        """Queue the pieces of a long file."""
        source, _, work = self._places(file)
        count = len(done.pieces)
        file.open = count
        file.parts = tuple(f"{work}/{file.key}-{i:05d}-of-{count:05d}.tokc" for i in range(count))
        parts = [Part(source, part, work, piece) for part, piece in zip(file.parts, done.pieces, strict=True)]
        self._queue.extendleft((file, part) for part in reversed(parts))

    def _retry(self, file: _File, unit: Unit, outcome: Outcome) -> None:
        if file.tries <= self._retries:
            file.tries += 1
            self._queue.append((file, unit))
            return
        self._target.tidy(file.output)
        file.claim.release()
        self._note(
            file.item,
            file.output,
            "failed",
            seconds=file.seconds,
            worker=outcome.worker,
            tries=file.tries,
            warnings=file.warnings,
            error=outcome.error,
        )

    def _finish(self, file: _File, done: Done, worker: str) -> None:
        assert done.report is not None
        self._target.tidy(file.output)  # before the record: a run that finds the file finished does not look for more
        file.claim.write(dataclasses.replace(file.origin, bytes=done.bytes, verified=self._settings.verify))
        self._summary.frames += done.report.frames
        self._summary.source_bytes += file.item.bytes
        self._summary.bytes += done.bytes
        self._drop_source(
            file,
            "done",
            bytes=done.bytes,
            bpp=done.report.bpp,
            frames=done.report.frames,
            pieces=len(file.parts) or 1,
            seconds=file.seconds,
            worker=worker,
            tries=file.tries,
            warnings=file.warnings,
        )
        file.claim.release()

    def _drop_source(self, file: _File, status: str, **facts: Any) -> None:
        """Delete the source of an output that is whole, if that is wanted, and settle the file."""
        record = file.claim.record
        assert record is not None
        if self._delete_source and file.item.bytes >= 0:
            try:
                self._target.sync(file.output)
                file.claim.write(dataclasses.replace(record, deleted=True))
                self._source.delete(file.item)
            except TokcodecError as error:
                status, facts["error"] = "failed", str(error)
                if isinstance(error, ChangedError):
                    file.claim.write(record)
        self._note(file.item, file.output, status, **facts)

    def _note(self, item: Item, output: str, status: str, **facts: Any) -> None:
        """Count a file that is settled and log it."""
        if status == "failed":
            self._summary.failed[item.name] = facts["error"]
        else:
            setattr(self._summary, status, getattr(self._summary, status) + 1)
        for warning in facts.get("warnings", ()):
            log.warning("%s", warning)
        if self._notes is not None:
            names = {"input": self._source.url(item.name), "output": self._target.url(output)}
            if "seconds" in facts:
                facts["seconds"] = round(facts["seconds"], 3)
            line = {**names, "status": status, "source_bytes": item.bytes, **facts}
            self._notes.write(json.dumps({"error": None, **line}) + "\n")
            self._notes.flush()
        if self._progress is not None:
            self._progress(self._summary)
