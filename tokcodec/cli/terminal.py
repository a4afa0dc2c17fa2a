"""What goes to the terminal: the result on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from tqdm import tqdm

from tokcodec.errors import TokcodecError
from tokcodec.report import Report

LINE_S = 30.0  # between two lines of progress where stderr is no terminal


def show(report: Report, target: str, as_json: bool, source: str = "") -> None:
    """The one line of a command that made or read a stream. It goes to stderr where stdout carries the file itself.

    Args:
        report: of the stream.
        target: what was made; of `verify` nothing.
        as_json: print JSON.
        source: the stream, where it is not the target.
    """
    if as_json:
        names = {key: name for key, name in (("input", source), ("output", target)) if name}
        line = json.dumps(names | dataclasses.asdict(report))
    else:
        rate = f"{report.frames / report.seconds:.1f} frames/s" if report.seconds else ""
        damage = f", {report.damaged} damaged places" if report.damaged else ""
        others = f" ({report.other_bytes} of other streams)" if report.other_bytes else ""
        line = (
            f"{target or source}: {report.frames} frames{f' from {source}' if source and target else ''}, "
            f"{report.bytes} bytes{others}, {report.bpp:.4f} bpp, "
            f"{report.kbps:.1f} kbit/s, {report.seconds:.1f} s, {rate}{damage}"
        )
    click.echo(line, err=target == "-")


@contextmanager
def compiling_told(say: Callable[[str], None] | None) -> Iterator[None]:
    """Have the coding loop compiled where it is used first on a machine, and say so, once a process.

    Args:
        say: prints a line; None keeps silent.
    """
    from tokcodec.compiled import telling  # with numba: who needs this calls compiled code

    with telling(lambda: compile_loop(say)):
        yield


def compile_loop(say: Callable[[str], None] | None) -> None:
    """Say that something is compiled; if it is of the coding loop, have all of that compiled on all cores."""
    if say is not None:
        say("compiling for this machine (once, a minute or two)")
    if "tokcodec.neural.loop" not in sys.modules:
        return
    from tokcodec.prepare import prepare

    with contextlib.ExitStack() as stack:
        progress = None
        if say is not None and sys.stderr.isatty():
            bar = stack.enter_context(tqdm(desc="compile", unit=" functions", leave=False))

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

        with contextlib.suppress(TokcodecError):  # who calls the loop compiles, and tells of what is wrong
            prepare(progress)


def compile_ahead(say: Callable[[str], None] | None) -> None:
    """Have the coding loop compiled before processes are started that use it."""
    from tokcodec.prepare import is_prepared

    if not is_prepared():
        compile_loop(say)


def say(label: str, text: str) -> None:
    """Print a line of a command to stderr, if anybody reads that."""
    with contextlib.suppress(OSError, ValueError):  # nobody does, or it is closed
        click.echo(f"tokcodec: {label}: {text}", err=True)


class Meter:
    """How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere, or JSON for programs.

    Args:
        label: of the run, such as "encode".
        unit: what is counted, in the plural.
        form: "auto"; "json" for an object a line, at every step; or "none".
    """

    def __init__(self, label: str, unit: str, form: str) -> None:
        self._label, self._unit, self._form = label, unit, form
        self._began = time.monotonic()
        self._line = ""  # of the newest step
        self._closed = threading.Event()
        self._bar: Any = None
        if form == "auto" and sys.stderr.isatty():
            self._bar = tqdm(desc=label, unit=f" {unit}", leave=False)
        elif form == "auto":
            threading.Thread(target=self._tell, name="progress", daemon=True).start()
        self._listening = contextlib.ExitStack()
        self._listening.enter_context(compiling_told(self.say if form == "auto" else None))

    def _tell(self) -> None:
        """Print a line now and then."""
        while not self._closed.wait(LINE_S):
            self.say(self._line or f"running for {time.monotonic() - self._began:.0f} s")

    def say(self, text: str) -> None:
        """Print a line."""
        if self._bar is None:
            say(self._label, text)
            return
        with contextlib.suppress(OSError, ValueError):
            self._bar.write(f"tokcodec: {self._label}: {text}", file=sys.stderr)

    def step(self, done: int, total: int | None, text: str, **facts: float) -> None:
        """Tell that `done` of `total` (None: not known) are done.

        Args:
            done, total: in units.
            text: more, for people.
            facts: more, for programs.
        """
        seconds = time.monotonic() - self._began
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._form == "json":
            about = {"progress": self._label, "unit": self._unit, "done": done, "total": total}
            click.echo(json.dumps(about | {"seconds": round(seconds, 3)} | facts), err=True)
        else:
            of = "" if total is None else f" of {total}"
            self._line = f"{done}{of} {self._unit} in {seconds:.0f} s{text and ', '}{text}"

    def close(self) -> None:
        self._closed.set()
        self._listening.close()
        if self._bar is not None:
            self._bar.close()


@contextmanager
def frames_meter(label: str, form: str) -> Iterator[Callable[[int, int, int | None, int], None]]:
    """A meter of frames as `encode_video` and `decode_video` call it."""
    meter = Meter(label, "frames", form)

    def update(frames: int, size_bytes: int, total: int | None, frame_px: int) -> None:
        bpp = 8 * size_bytes / (frames * frame_px)
        facts = {"bytes": size_bytes, "bpp": round(bpp, 6)} if size_bytes else {}
        meter.step(frames, total, f"{bpp:.4f} bpp" if size_bytes else "", **facts)

    try:
        yield update
    finally:
        meter.close()
