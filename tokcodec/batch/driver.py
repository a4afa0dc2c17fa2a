"""What to do next, what to do when it fails, and the records: the one process that sees the whole batch.

A file is finished when its record says so: same source (size and time of change), same settings, and an output
of the recorded size. Whatever kills a run, the next one begins with the files that are not. An output whose
record names another source is never touched: it may be all that is left of that source.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol

from tokcodec.batch.resume import BusyError, Claim, Record, Records
from tokcodec.batch.selection import Selection
from tokcodec.batch.storage import ChangedError, Item, Tree
from tokcodec.batch.summary import Note, Status, Summary
from tokcodec.batch.units import Done, Join, Outcome, Part, Settings, Unit, Whole
from tokcodec.batch.workers import OnUnitFrames
from tokcodec.errors import TokcodecError

log = logging.getLogger("tokcodec")

MAX_UNDER_WAY = 500  # each holds a lock, and so an open file
MAX_LOSSES = 3  # workers that may die over one file: it may be the file that kills them


class Workers(Protocol):
    """Who does the units: `workers.ThisProcess`, `workers.Processes` or `cluster.RayTasks`."""

    on_frames: OnUnitFrames

    @property
    def limit(self) -> int: ...

    def submit(self, unit: Unit, settings: Settings) -> Future[Outcome]: ...

    def close(self) -> None: ...


@dataclasses.dataclass(eq=False)
class _File:
    """A file on its way: its claim, its units, and how often things went wrong."""

    item: Item
    output: str
    claim: Claim
    origin: Record  # of an output that is begun
    why: str = ""  # it is made, or not
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

    def effort(self) -> dict[str, Any]:
        """What it took, as a note says it."""
        return {"seconds": round(self.seconds, 3), "tries": self.tries, "warnings": tuple(self.warnings)}


class Driver:
    """A run over files of a folder.

    Args:
        source: where files come from.
        target: where outputs go, under the same names with the suffix of `settings`.
        settings: how to code.
        retries: how often a file is tried again after an error.
        overwrite: also replace outputs that no batch has made, or one made from a file of the same name in another
            tree; never those whose source had another name or was deleted.
        delete_source: remove each source whose output is verified; needs `settings.verify`.
        settled: called with a note of each file and the sum so far, which goes on changing.
        coding: called, in any thread, with the frames coded so far, those of files under way too, and the same sum.
    """

    def __init__(
        self,
        source: Tree,
        target: Tree,
        settings: Settings,
        *,
        retries: int = 1,
        overwrite: bool = False,
        delete_source: bool = False,
        settled: Callable[[Note, Summary], None] | None = None,
        coding: Callable[[int, Summary], None] | None = None,
    ) -> None:
        if delete_source and not settings.verify:
            raise ValueError("sources are deleted only after their outputs are verified")
        self._source, self._target, self._settings = source, target, settings
        self._records = Records(target)
        self._retries, self._overwrite, self._delete_source = retries, overwrite, delete_source
        self._settled, self._coding = settled, coding
        self._coded: dict[Unit, int] = {}  # frames of units whose file is not settled
        self._lock = threading.Lock()
        self._summary = Summary()
        self._started: float | None = None  # of a run
        self._queue: collections.deque[tuple[_File, Unit]] = collections.deque()
        self._running: dict[Future[Outcome], tuple[_File, Unit]] = {}

    def plan(self, selection: Selection) -> Summary:
        """Say what `run` would do, without writing anything. What another run has in hands counts as planned."""
        self._records.check()
        self._summary.files = len(selection.chosen)
        for item, why in selection.skipped:
            self._note(item, None, "skipped", why=why)
        for file in self._to_code(selection.chosen, dry=True):
            self._note(file.item, file.output, "planned", why=file.why)
        return self._summary

    def run(self, selection: Selection, workers: Workers) -> Summary:
        """Code files; those that are finished are skipped, those that fail are in the summary.

        Args:
            selection: of files of the source.
            workers: who codes; the caller closes them.

        Raises:
            TokcodecError: the records cannot be written, or no worker can be started.
        """
        self._started = time.monotonic()
        self._summary.files = len(selection.chosen)
        self._summary.skipped = dict(collections.Counter(why for _, why in selection.skipped))
        for item, why in selection.skipped:
            if why == item.special:
                log.warning("%s: is a %s, and skipped", self._source.url(item.name), why)
        if selection.chosen:
            self._records.prepare()
        workers.on_frames = self._count
        files = self._to_code(selection.chosen, dry=False)
        try:
            while self._submit(files, workers):
                for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                    self._settle(*self._running.pop(future), future)
        finally:
            self._records.close()
        return self._summary

    def _count(self, unit: Unit, frames: int) -> None:
        """So many frames of a unit are coded."""
        with self._lock:
            self._coded[unit] = frames
            if self._coding is not None:
                self._coding(self._summary.frames + sum(self._coded.values()), self._summary)

    def _submit(self, files: Iterator[_File], workers: Workers) -> bool:
        """Give the workers what they can take; whether anything is under way."""
        limit = min(MAX_UNDER_WAY, workers.limit)
        while len(self._running) < limit:
            if not self._queue:
                file = next(files, None)
                if file is None:
                    break
                self._queue.append((file, self._whole(file, split=self._settings.piece_chunks > 0)))
            file, unit = self._queue.popleft()
            self._running[workers.submit(unit, self._settings)] = file, unit
        return bool(self._running)

    def _to_code(self, items: Sequence[Item], dry: bool) -> Iterator[_File]:
        """The files that are to be coded, each claimed when its turn comes; the others are settled here.

        A dry run claims nothing.
        """
        makers: dict[str, str] = {}
        for item in items:
            output = str(PurePosixPath(item.name).with_suffix(self._settings.suffix))
            maker = makers.setdefault(output, item.name)
            if maker != item.name:
                self._note(item, output, "failed", error=f"{output} is made from {maker} already")
                continue
            claim = None
            try:
                claim = self._records.peek(output) if dry or item.bytes < 0 else self._records.claim(output)
                file = _File(item, output, claim, self._origin(item))
                size = self._target.size(output)
                status, file.why = self._verdict(file, size)
            except BusyError as error:
                self._note(item, output, "busy", why=str(error))
                continue
            except TokcodecError as error:  # its name is too long for the target, or of letters that it does not take
                if claim is not None:
                    claim.release()
                self._note(item, output, "failed", error=str(error))
                continue
            if status == "planned":
                if not dry:
                    claim.write(file.origin)
                    self._records.tidy(output, keep=file.key)
                yield file
                continue
            if status == "failed":
                self._note(item, output, "failed", error=file.why)
            elif dry:
                self._note(item, output, "finished", bytes=size)
            else:
                self._drop_source(file, "finished", bytes=size)
            claim.release()

    def _origin(self, item: Item) -> Record:
        return Record(item.name, item.bytes, item.modified, self._source.url(""), self._settings.facts())

    def _verdict(self, file: _File, size: int | None) -> tuple[Literal["planned", "finished", "failed"], str]:
        """What is to be done about an output of so many bytes (None: not there), and why. Touches nothing."""
        item, output, origin, record = file.item, file.output, file.origin, file.claim.record
        whole = record is not None and record.bytes == size and record.settings == origin.settings
        if item.bytes < 0:  # on the list of names, but not there: deleted, if its output is finished
            was_done = whole and record is not None and record.name == item.name and record.verified
            return ("finished", "") if was_done else ("failed", "no such file")
        if record is None:
            if size is None:
                return "planned", "new"
            if self._overwrite:
                return "planned", "it replaces what no batch made"
            return "failed", f"{output} exists, and no batch made it; overwriting must be asked for"
        same = (record.name, record.source_bytes, record.modified) == (item.name, item.bytes, item.modified)
        if whole and same and (record.verified or not self._settings.verify):
            return "finished", ""
        if size is None and (self._target.is_local or self._source.size(record.name) is None):
            return "planned", "its output is not there"  # nothing to lose; without locks, it may be in the making
        made = f"{output} was made from"
        if record.name != item.name:
            return "failed", f"{made} {record.name}; another target folder keeps both"
        if not same and record.deleted:
            return "failed", f"{made} another {record.name}, since deleted; another target folder keeps both"
        if not same and record.tree != origin.tree and not self._overwrite:
            return "failed", f"{made} {record.name} in {record.tree}; overwriting must be asked for"
        if not same:
            return "planned", "its source has changed"
        if record.settings != origin.settings:
            return "planned", "other settings"
        return "planned", "not verified yet" if whole else "its output is not the one that was made"

    def _whole(self, file: _File, split: bool) -> Unit:
        return Whole(*self._places(file), split)

    def _uncut(self, file: _File) -> Unit:
        """A file whose pieces are of no use: one was not made, or they do not fit each other."""
        file.parts = ()
        return self._whole(file, split=False)

    def _places(self, file: _File) -> tuple[str, str, str]:
        """URLs of source, target and the folder for unfinished work."""
        return self._source.url(file.item.name), self._target.url(file.output), self._records.work(file.output)

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
                after = self._uncut(file) if file.spoilt else Join(*self._places(file), file.parts)
                self._queue.appendleft((file, after))
        elif isinstance(unit, Join) and outcome.done is None:
            self._queue.appendleft((file, self._uncut(file)))
        elif outcome.done is None:
            self._retry(file, unit, outcome)
        elif outcome.done.pieces:
            self._cut(file, outcome.done)
        else:
            self._finish(file, outcome.done, outcome.worker)

    def _cut(self, file: _File, done: Done) -> None:
        """Queue the pieces of a long file."""
        source, _, work = self._places(file)
        file.open = len(done.pieces)
        # Which frames they hold is in their names: a run before may have cut the file elsewhere.
        file.parts = tuple(f"{work}/{file.key}-{p.begin}-{p.end}.tokc" for p in done.pieces)
        parts = [Part(source, part, work, piece) for part, piece in zip(file.parts, done.pieces, strict=True)]
        self._queue.extendleft((file, part) for part in reversed(parts))

    def _retry(self, file: _File, unit: Unit, outcome: Outcome) -> None:
        if file.tries <= self._retries and file.losses < MAX_LOSSES:
            file.tries += 1
            self._queue.append((file, unit))
            return
        self._records.tidy(file.output)
        file.claim.release()
        self._note(file.item, file.output, "failed", error=outcome.error, worker=outcome.worker, **file.effort())

    def _finish(self, file: _File, done: Done, worker: str) -> None:
        assert done.report is not None
        self._records.tidy(file.output)  # before the record: a run that finds the file finished does not look for more
        record = dataclasses.replace(
            file.origin, bytes=done.bytes, verified=self._settings.verify, damaged=done.report.damaged
        )
        file.claim.write(record)
        self._drop_source(
            file,
            "done",
            bytes=done.bytes,
            bpp=done.report.bpp,
            frames=done.report.frames,
            pieces=len(file.parts) or 1,
            worker=worker,
            **file.effort(),
        )
        file.claim.release()

    def _drop_source(self, file: _File, status: Status, **facts: Any) -> None:
        """Delete the source of an output that has all of it, if that is wanted, and settle the file."""
        record = file.claim.record
        assert record is not None
        delete = self._delete_source and file.item.bytes >= 0
        why = ""
        if record.damaged:
            why = "not all of it could be read"
        elif record.tree != file.origin.tree:
            why = f"its output was made from the file in {record.tree}"
        if delete and why:
            warning = f"{self._source.url(file.item.name)}: {why}, so it is not deleted"
            facts["warnings"] = (*facts.get("warnings", ()), warning)
        elif delete:
            try:
                if not (record.deleted and self._source.size(file.item.name) is None):  # else another run has done it
                    self._target.sync(file.output)
                    file.claim.write(dataclasses.replace(record, deleted=True))
                    self._source.delete(file.item)
            except TokcodecError as error:
                status, facts["error"] = "failed", str(error)
                if isinstance(error, ChangedError):
                    file.claim.write(record)
        self._note(file.item, file.output, status, **facts)

    def _note(self, item: Item, output: str | None, status: Status, **facts: Any) -> None:
        """Settle a file."""
        made = None if output is None else self._target.url(output)
        note = Note(item.name, self._source.url(item.name), made, status, item.bytes, **facts)
        with self._lock:
            self._coded = {unit: frames for unit, frames in self._coded.items() if unit.source != note.input}
            self._summary.add(note)
        if self._started is not None:
            self._summary.seconds = time.monotonic() - self._started
        for warning in note.warnings:
            log.warning("%s", warning)
        if self._settled is not None:
            self._settled(note, self._summary)
