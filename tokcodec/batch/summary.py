"""What became of the files of a batch: a note for each, and their sum."""

from __future__ import annotations

import dataclasses
from typing import Literal

Status = Literal["done", "finished", "busy", "failed", "planned", "skipped"]


@dataclasses.dataclass(frozen=True)
class Note:
    """What became of a file. What does not apply, or is not known, is None.

    Attributes:
        name: relative to the source tree.
        input, output: paths or URLs; nothing comes of a file that is skipped.
        status: "done" by this run, "finished" by one before, "busy" (in the hands of another run) or "failed"; in a
            dry run also "planned" or "skipped".
        why: it is planned, skipped or busy.
        error: why it failed.
        source_bytes: size of the input; below 0 if there is no such file.
        bytes: size of the output.
        bpp: of the stream, as in `Report`.
        frames: of the video.
        pieces: that it was coded in.
        seconds: that workers spent on it, failures included.
        worker: who did the last of it, as HOST:PID.
        tries: it took.
        warnings: that its coding gave, each once.
    """

    name: str
    input: str
    output: str | None
    status: Status
    source_bytes: int
    why: str | None = None
    error: str | None = None
    bytes: int | None = None
    bpp: float | None = None
    frames: int | None = None
    pieces: int | None = None
    seconds: float | None = None
    worker: str | None = None
    tries: int | None = None
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass
class Summary:
    """What a batch has done so far.

    Attributes:
        files: that were chosen.
        done: coded by this run; finished: by one before; busy: in the hands of another run.
        planned: would be coded (dry run only).
        failed: an error for each file that was given up, by name.
        skipped: how many files were not chosen, by reason: "suffix .txt", "matches no pattern", "of another shard",
            "named pipe", "socket", "device".
        frames: coded by this run.
        source_bytes: of the files coded by this run (dry run: that would be).
        bytes: of their outputs.
        seconds: wall time.
    """

    files: int = 0
    done: int = 0
    finished: int = 0
    busy: int = 0
    planned: int = 0
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    frames: int = 0
    source_bytes: int = 0
    bytes: int = 0
    seconds: float = 0.0

    @property
    def settled(self) -> int:
        """How many of the chosen files have a fate."""
        return self.done + self.finished + self.busy + self.planned + len(self.failed)

    def add(self, note: Note) -> None:
        """Count a file."""
        if note.status == "failed":
            assert note.error is not None
            self.failed[note.name] = note.error
        elif note.status == "skipped":
            assert note.why is not None
            self.skipped[note.why] = self.skipped.get(note.why, 0) + 1
        else:
            setattr(self, note.status, getattr(self, note.status) + 1)
        if note.frames is not None:  # it was coded by this run, even if its source could not be deleted then
            self.frames += note.frames
            self.bytes += note.bytes or 0
        if note.frames is not None or note.status == "planned":
            self.source_bytes += note.source_bytes
