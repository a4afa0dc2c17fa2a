"""The command for a tree of files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from tokcodec.cli.options import (
    FolderName,
    Within,
    deinterlace_option,
    examples,
    gathered,
    network_options,
    output_options,
    profile_options,
    progress_option,
    rate_options,
    refuse_unused,
)
from tokcodec.cli.terminal import Meter, compile_ahead, tell
from tokcodec.compute import Compute
from tokcodec.rate import DEFAULT_RATE, Rate
from tokcodec.stream.profile import Profile, name_of

if TYPE_CHECKING:
    from tokcodec.batch import Crew, Note, Summary, Which


class Shard(click.ParamType[tuple[int, int]]):
    """A part of the whole: 2/8 is the second of eight."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)/(\d+)", str(value))
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            self.fail(f"{value!r} is not a part such as 2/8", param, ctx)
        return int(match[1]), int(match[2])


def _which_of(globs: tuple[str, ...], ext: tuple[str, ...], listing: TextIO | None, shard: tuple[int, int]) -> Which:
    """Which files options choose."""
    from tokcodec.batch import Which

    names = None if listing is None else [line.rstrip("\r\n") for line in listing if line.strip()]
    return Which(globs, ext, names, shard)


def _crew_of(jobs: int | None, ray: str | None, piece: int | None) -> Crew:
    """Who works, as options say."""
    if ray is not None and jobs:
        raise click.UsageError("give one of --jobs and --ray")
    from tokcodec.batch import Crew

    return Crew(jobs, ray, piece)


which_options = gathered(
    "which",
    _which_of,
    ("globs", "ext", "listing", "shard"),
    click.option("--glob", "globs", multiple=True, help="Only names that match: 'a/*.mp4' (* matches slashes, too)."),
    click.option("--ext", multiple=True, help="Only files with this extension [default: the usual ones of videos]."),
    click.option(
        "--list",
        "listing",
        type=click.File(errors="surrogateescape"),
        help="Only the names in this file, one a line (- is stdin).",
    ),
    click.option("--shard", type=Shard(), default=(1, 1), help="Only the i-th of n parts, as in 1/8."),
)
crew_options = gathered(
    "crew",
    _crew_of,
    ("jobs", "ray", "piece"),
    click.option(
        "--jobs",
        type=click.IntRange(1),
        help="Worker processes [default: one for every two cores; where a network is needed, one for each GPU].",
    ),
    click.option("--ray", is_flag=False, flag_value="", metavar="[ADDRESS]", help="Work on a Ray cluster."),
    click.option(
        "--piece", type=click.IntRange(0), help="Split long files into pieces of so many chunks [32]; 0: never."
    ),
)


@click.command(
    epilog=examples(
        "batch videos streams                        # goes on where it was interrupted",
        "batch videos streams --dry-run",
        "batch videos streams --jobs 4 --glob '*.mov' --quality 6",
        "batch s3://bucket/videos s3://bucket/streams --shard 2/8",
        "batch streams videos --decode --to mkv",
    )
)
@click.argument("source", metavar="SRC", type=FolderName())
@click.argument("target", metavar="DST", type=FolderName())
@click.option("--decode", is_flag=True, help="Decode streams to videos.")
@click.option(
    "--to", type=click.Choice(["mp4", "mkv", "mov"]), default="mp4", show_default=True, help="Container for --decode."
)
@click.option("--crf", type=Within(0, 51), default=12.0, show_default=True, help="Quality of H.264 for --decode.")
@which_options
@crew_options
@click.option(
    "--retries", type=click.IntRange(0), default=1, show_default=True, help="Further attempts at files that fail."
)
@click.option("--verify", is_flag=True, help="Read every stream back before counting it as done.")
@click.option("--delete-source", is_flag=True, help="Delete each source after its stream is verified.")
@click.option("--log", type=click.Path(path_type=Path), help="Append a line of JSON for each file.")
@click.option("--dry-run", is_flag=True, help="List what would be made or skipped, and why; write nothing.")
@rate_options
@profile_options
@deinterlace_option
@network_options
@progress_option
@output_options
def batch(
    source: str,
    target: str,
    decode: bool,
    to: str,
    crf: float,
    which: Which,
    crew: Crew,
    retries: int,
    verify: bool,
    delete_source: bool,
    log: Path | None,
    dry_run: bool,
    rate: Rate | None,
    profile: Profile | None,
    deinterlace: bool,
    weights: Path | None,
    compute: Compute,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Encode a tree of videos: SRC/a/b.mp4 to DST/a/b.tokc, or back with --decode.

    SRC and DST are folders or URLs (s3://bucket/videos). Files that an earlier run has finished are
    skipped, so an interrupted run continues where it stopped. Files that fail are tried again, then listed at the end,
    with exit code 1. The number of workers does not change the bytes, given the same device and dtype.
    """
    if decode and (verify or delete_source or deinterlace or rate is not None):
        raise click.UsageError("a rate, --deinterlace, --verify and --delete-source are for streams, not for --decode")
    if decode:
        refuse_unused("for streams, not for --decode", "profile", "bits", "depth")
    else:
        refuse_unused("for --decode", "to", "crf")
    from tokcodec.batch import Decode, Encode, run

    notes: list[Note] = []
    with contextlib.closing(Meter("batch", "files", "none" if dry_run else progress)) as meter:
        update = _updating(meter)

        def settled(note: Note, summary: Summary) -> None:
            if dry_run:
                notes.append(note)
            else:
                update(summary.frames, summary)

        if crew.jobs != 1 and crew.ray is None and not dry_run:
            compile_ahead(meter.say if progress == "auto" else None, name_of(profile))
        summary = run(
            source,
            target,
            Decode(to, crf) if decode else Encode(rate or DEFAULT_RATE, profile, deinterlace, verify, delete_source),
            which=which,
            crew=crew,
            retries=retries,
            overwrite=force,
            weights=weights,
            compute=compute,
            log=log,
            dry_run=dry_run,
            progress=settled,
            coding=update,
        )
    _show(summary, notes, source, target, dry_run, as_json)
    click.get_current_context().exit(1 if summary.failed else 0)


def _updating(meter: Meter) -> Callable[[int, Summary], None]:
    """A callback that shows how many frames are coded, and what became of the files so far."""
    most, began = 0, time.monotonic()

    def update(frames: int, summary: Summary) -> None:
        nonlocal most
        most = max(most, frames)  # of a file that failed they are done once more
        speed = most / max(time.monotonic() - began, 1e-3)
        meter.step(
            summary.settled,
            summary.files,
            f"{most} frames, {speed:.1f} frames/s, {(summary.source_bytes - summary.bytes) / 1e6:.1f} MB saved",
            frames=most,
            source_bytes=summary.source_bytes,
            bytes=summary.bytes,
            failed=len(summary.failed),
        )

    return update


def _show(summary: Summary, notes: list[Note], source: str, target: str, dry_run: bool, as_json: bool) -> None:
    """Print what became of a batch, or with `dry_run` what would."""
    if not summary.files:
        found = sum(summary.skipped.values())
        tell(f"tokcodec: {source}: nothing to do: none of its {found} files is chosen", err=True)
    if as_json:
        listed = {"notes": [dataclasses.asdict(note) for note in notes]} if dry_run else {}
        click.echo(json.dumps(dataclasses.asdict(summary) | listed))
    else:
        for note in notes:
            made = f" -> {note.output}" if note.output else ""
            why = note.error or note.why
            tell(f"{note.status:<9} {note.name}{made}{f': {why}' if why else ''}")
        tell(f"{target}: {_line(summary, dry_run)}")
    for name, error in summary.failed.items():
        tell(f"tokcodec: {name}: {error}", err=True)


def _line(summary: Summary, dry_run: bool) -> str:
    """A batch in a line."""
    before, failed = f"{summary.finished} finished before", f"{len(summary.failed)} failed"
    if dry_run:
        line = (
            f"{summary.planned} of {summary.files} files to be made, {before}, {failed}; "
            f"{summary.source_bytes} bytes to read"
        )
    else:
        line = (
            f"{summary.done} of {summary.files} files, {before}, {summary.busy} in other hands, {failed}; "
            f"{summary.frames} frames, {summary.source_bytes} to {summary.bytes} bytes, {summary.seconds:.1f} s"
        )
    skipped = ", ".join(f"{count} {why}" for why, count in summary.skipped.items())
    return f"{line}; skipped: {skipped}" if skipped else line
