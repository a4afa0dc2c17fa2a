"""What goes to the terminal: the result on stdout, progress on stderr."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from tqdm import tqdm

from tokcodec.report import Report


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
def progress_bar(label: str) -> Iterator[Callable[[int, int, int | None, int], None]]:
    """A bar on stderr that shows frames/s and bpp; nothing where stderr is no terminal."""
    with tqdm(desc=label, unit=" frames", disable=None, leave=False) as bar:

        def update(frames: int, size_bytes: int, total: int | None, frame_px: int) -> None:
            bar.total = total
            if size_bytes:
                bar.set_postfix_str(f"{8 * size_bytes / (frames * frame_px):.4f} bpp", refresh=False)
            bar.update(frames - bar.n)

        yield update
