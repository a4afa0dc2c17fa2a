"""What goes to the terminal: the result on stdout, progress on stderr."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import io
import json
import logging
import re
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
from tokcodec.stream.profile import LFQ

LINE_S = 30.0  # between two lines of progress where stderr is no terminal
LINE_END_S = 1.0  # for a line that is being printed at the end: whoever reads it may have stopped
BAR_S = 0.5  # between two looks at the clock of a bar where nothing else moves it
OBJECT_S = 0.2  # between two objects for programs, at least
# What moves the cursor, ends the line, or turns the direction of what follows: a title or a name may forge lines by it.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A line with its control characters escaped: \\x1b, \\n."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def tell(line: str, err: bool = False) -> None:
    """Print a line for people, with what it quotes of files escaped; on stderr with `err`.

    click.echo would send UTF-8 to a terminal that has ASCII only.
    """
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


class Lines(logging.Formatter):
    """A line for each warning."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


def set_up_output() -> None:
    """Let stdout and stderr print any text: names that are not UTF-8 as they came, what they lack escaped."""
    codecs.register_error("tokcodec", _as_it_came)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tokcodec")


def _as_it_came(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode a character that the terminal does not have: a byte of a name, or the escape of another."""
    assert isinstance(error, UnicodeEncodeError)
    try:
        return error.object[error.start : error.start + 1].encode("ascii", "surrogateescape"), error.start + 1
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)


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
    tell(line, err=target == "-")


@contextmanager
def compiling_told(say: Callable[[str], None] | None) -> Iterator[None]:
    """Have the coding loop compiled where it is used first on a machine, and say so, once a process.

    Args:
        say: prints a line; None keeps silent.
    """
    from tokcodec.compiled import telling, without_blas  # with numba: who needs this calls compiled code

    without_blas()

    def tell(module: str) -> None:
        if "tokcodec.coding.loop" not in sys.modules:
            compile_loop(say, "")
            return
        from tokcodec.prepare import profile_of

        compile_loop(say, profile_of(module))

    with telling(tell):
        yield


class Warnings(logging.Handler):
    """Log messages as lines on stderr, each above the bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
            tqdm.write(self.format(record), file=sys.stderr)


_asked: set[str] = set()  # the profiles that this process has had compiled


def compile_loop(say: Callable[[str], None] | None, profile: str) -> None:
    """Say that something is compiled, and have all that a profile takes compiled on all cores; once a process.

    Args:
        say: prints a line; None keeps silent.
        profile: of `prepare.PACKAGES`; "" if what is missing is not of the coding loop.
    """
    if profile in _asked:
        return
    _asked.add(profile)
    if say is not None:
        say(f"compiling {f'the profile {profile} ' if profile == LFQ else ''}for this machine (once, a minute or two)")
    if not profile:
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
            prepare(progress, profile)


def compile_ahead(say: Callable[[str], None] | None, profile: str) -> None:
    """Have what streams of a profile take compiled before processes are started that need it."""
    from tokcodec.prepare import is_prepared

    if not is_prepared(profile):
        compile_loop(say, profile)


def say(label: str, text: str) -> None:
    """Print a line of a command to stderr, if anybody reads that."""
    with contextlib.suppress(OSError, ValueError):  # nobody does, or it is closed
        tell(f"tokcodec: {label}: {text}", err=True)


class Meter:
    """How far a run is, on stderr: a bar on a terminal, a line now and then elsewhere, or JSON for programs.

    Its methods may be called in any thread.

    Args:
        label: of the run, such as "encode".
        unit: what is counted, in the plural.
        form: "auto"; "json" for an object a line, a few times a second at most; or "none".
    """

    def __init__(self, label: str, unit: str, form: str) -> None:
        self._label, self._unit, self._form = label, unit, form
        self._began = time.monotonic()
        self._newest: tuple[int, int | None, str] | None = None  # done, total, more for people
        self._told = (0, self._began)  # done and the time, of the newest line or the beginning of the pass
        self._object: dict[str, Any] | None = None  # the newest that is not printed
        self._printed = -OBJECT_S  # seconds of the newest that is
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._bar: Any = None
        if form == "auto" and sys.stderr.isatty():
            self._bar = tqdm(desc=label, unit=f" {unit}", leave=False, miniters=1, smoothing=0.1)
        self._teller = threading.Thread(target=self._tell, name="progress", daemon=True) if form == "auto" else None
        if self._teller is not None:
            self._teller.start()
        self._listening = contextlib.ExitStack()
        self._listening.enter_context(compiling_told(self.say if form == "auto" else None))

    def _tell(self) -> None:
        """Print a line now and then, or move the clock of the bar."""
        while not self._closed.wait(LINE_S if self._bar is None else BAR_S):
            if self._bar is None:
                self.say(self._line())
            else:
                with contextlib.suppress(OSError, ValueError):
                    self._bar.refresh()

    def _line(self) -> str:
        """How far it is. The speed is that since the line before."""
        now = time.monotonic()
        seconds = now - self._began
        with self._lock:
            if self._newest is None:
                return f"running for {seconds:.0f} s"
            (done, total, text), (done_before, before) = self._newest, self._told
            self._told = done, now
        speed = (done - done_before) / max(now - before, 1e-3)
        parts = [f"{done}{'' if total is None else f' of {total}'} {self._unit} in {seconds:.0f} s"]
        if speed > 0:
            parts.append(f"{speed:.3g} {self._unit}/s")
            if total is not None:
                parts.append(f"{max(total - done, 0) / speed:.0f} s left")
        return ", ".join([*parts, text] if text else parts)

    def say(self, text: str) -> None:
        """Print a line."""
        if self._bar is None:
            say(self._label, text)
            return
        with contextlib.suppress(OSError, ValueError):
            self._bar.write(printable(f"tokcodec: {self._label}: {text}"), file=sys.stderr)

    def step(self, done: int, total: int | None, text: str, **facts: float) -> None:
        """Tell that `done` of `total` (None: not known) are done. Fewer than before: they are done once more.

        Args:
            done, total: in units.
            text: more, for people.
            facts: more, for programs.
        """
        now = time.monotonic()
        with self._lock:
            is_anew = self._newest is not None and done < self._newest[0]
            if is_anew:
                self._told = done, now
            self._newest = done, total, text
            if self._bar is not None:
                self._bar.total = total
                self._bar.set_postfix_str(text, refresh=False)
                if is_anew:
                    self._bar.reset()
                self._bar.update(done - self._bar.n)
            elif self._form == "json":
                about = {"progress": self._label, "unit": self._unit, "done": done, "total": total}
                self._object = about | {"seconds": round(now - self._began, 3)} | facts
                if now - self._began - self._printed >= OBJECT_S:
                    self._print()

    def _print(self) -> None:
        if self._object is not None:
            self._printed = self._object["seconds"]
            click.echo(json.dumps(self._object), err=True)
            self._object = None

    def close(self) -> None:
        """Print the newest object, if it is not printed yet; the bar goes away. No line comes after it."""
        self._closed.set()
        if self._teller is not None:
            self._teller.join(LINE_END_S)
        self._listening.close()
        with self._lock:
            self._print()
        if self._bar is not None:
            self._bar.close()


@contextmanager
def frames_meter(label: str, form: str, passes: bool = False) -> Iterator[Callable[[int, int, int | None, int], None]]:
    """A meter of frames as `encode_video` and `decode_video` call it; `passes`: they may be coded several times."""
    count = 0  # of passes; each begins with no frames

    def update(frames: int, size_bytes: int, total: int | None, frame_px: int) -> None:
        nonlocal count
        count += frames == 0
        bpp = 8 * size_bytes / (frames * frame_px) if frames else 0.0
        facts: dict[str, float] = {"bytes": size_bytes, "bpp": round(bpp, 6)} if size_bytes else {}
        texts = [f"{bpp:.4f} bpp"] if size_bytes else []
        if passes:
            facts["pass"], texts = count, [f"pass {count}", *texts]
        meter.step(frames, total, ", ".join(texts), **facts)

    with contextlib.closing(Meter(label, "frames", form)) as meter:
        yield update
