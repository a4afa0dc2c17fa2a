"""Commands on streams as they are, with no network: info, verify, trim, concat, tokens."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tokcodec import edit
from tokcodec.cli.options import (
    Amount,
    FileName,
    StreamName,
    examples,
    output_options,
    progress_option,
    refuse_unused,
    span_options,
    weights_option,
)
from tokcodec.cli.terminal import Meter, frames_meter, say, show, tell
from tokcodec.errors import BitstreamError
from tokcodec.io import suffixes
from tokcodec.stream.profile import LFQ
from tokcodec.tokens import arrays, shards


@click.command(epilog=examples("info in.tokc", "info in.tokc --json"))
@click.argument("source", metavar="STREAM", type=FileName(".tokc"))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(source: Path, as_json: bool) -> None:
    """Show what a stream holds.

    For a damaged stream it lists what is intact and what is not, and exits with code 1. trim --salvage keeps what is
    intact.
    """
    facts = edit.describe(source, salvage=True)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in _lines(facts):
            tell(f"{name:<15}{value}")
    if "fault" in facts:
        raise BitstreamError(f"{source}: {facts['fault']}")


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What `describe` tells, for people: name and value."""
    yield "file", facts["file"]
    parts = {"motion": "motion_bytes", "levels": "levels_bytes", "other streams": "other_bytes"}
    shares = ", ".join(f"{name} {_size(facts[key])}" for name, key in parts.items() if facts[key])
    yield "size", f"{_size(facts['bytes'])} ({shares})"
    rate = f"{facts['frame_rate']:.6g} frames/s" if facts["frame_rate"] else "frame rate unknown"
    yield "video", f"{facts['width']}x{facts['height']}, {_clock(facts['duration_s'])}, {rate}"
    chunks = "chunk" if facts["chunks"] == 1 else "chunks"
    hidden = f", {facts['hidden_frames']} more are hidden" if facts["hidden_frames"] else ""
    yield "frames", f"{facts['frames']} in {facts['chunks']} {chunks} of at most {facts['chunk_frames']}{hidden}"
    yield "rate", f"{facts['kbps']:.1f} kbit/s, {facts['bpp']:.4f} bpp"
    if facts["profile"] == LFQ:
        yield "profile", f"lfq, {facts['depth']} integers of {facts['bits']} bits and one of motion a position"
    finest, coarsest = facts["step"]
    yield "step", f"{finest:g}" if finest == coarsest else f"{finest:g} to {coarsest:g}"
    names = facts["colour"].split("/")
    colour = names[0] if len(set(names)) == 1 else "{} primaries, {} transfer, {} matrix".format(*names)
    yield "colour", f"{colour}, {'full' if facts['full_range'] else 'limited'} range"
    turned = [f"turned by {facts['rotation']} degrees"] if facts["rotation"] else []
    turned = ["mirrored", *turned] if facts["mirrored"] else turned
    if facts["sample_aspect"] not in ("0", "1"):
        turned.append(f"pixels of {facts['sample_aspect'].replace('/', ':')}")
    if turned:
        yield "display", ", ".join(turned)
    for stream in facts["other_streams"]["streams"] if facts["other_streams"] else []:
        rate = f"{stream['rate_hz']} Hz" if "rate_hz" in stream else ""
        about = (stream["codec"] or "unknown codec", rate, stream.get("channels", ""), stream.get("language", ""))
        yield stream["kind"], ", ".join(filter(None, about))
    if facts["language"]:
        yield "language", facts["language"]
    for name, value in facts["tags"].items():
        yield "tag", f"{name}: {value}"
    if facts["chapters"]:
        yield "chapters", str(facts["chapters"])
    yield "weights", facts["weights_sha256"]
    yield "format", f"version {facts['format_version']}, ticks of {facts['time_base']} s"
    if "fault" not in facts:
        return
    promised = facts["promised_chunks"]
    yield "intact", f"{facts['chunks']}{'' if promised is None else f' of {promised}'} chunks, {facts['frames']} frames"
    for begin, end in facts["damage"]:
        yield "damaged", f"bytes {begin} to {end - 1}"
    for begin, end in facts["missing_s"]:
        if end is None:
            yield "missing", f"what came after {_clock(begin)}, if anything"
        else:
            yield "missing", f"{'the beginning' if begin is None else _clock(begin)} to {_clock(end)}"


def _size(size_bytes: int) -> str:
    """Bytes for people, in powers of 1000: 950 bytes, 1.8 kB, 20.1 MB."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    power = min(int(math.log10(size_bytes)) // 3, 4)
    return f"{size_bytes / 1000**power:.1f} {'kMGT'[power - 1]}B"


def _clock(time_s: float) -> str:
    """Seconds for people, as they can be given to --start: 0:01:02.5."""
    sign, rest = "-" if time_s < 0 else "", abs(time_s)
    minutes, seconds = divmod(round(rest, 3), 60)
    return f"{sign}{int(minutes) // 60}:{int(minutes) % 60:02}:{seconds:06.3f}".rstrip("0").rstrip(".")


@click.command(epilog=examples("verify in.tokc", "verify in.tokc --weights own.safetensors"))
@click.argument("source", metavar="STREAM", type=FileName(".tokc"))
@weights_option
@progress_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(source: Path, weights: Path | None, progress: str, as_json: bool) -> None:
    """Check a stream: every checksum, and that all tokens decode."""
    with frames_meter("verify", progress) as update:
        report = edit.verify(source, weights=weights, progress=update)
    show(report, "", as_json, str(source))


@click.command(
    epilog=examples("trim in.tokc part.tokc --start 10 --duration 5", "trim broken.tokc whole.tokc --salvage")
)
@click.argument("source", metavar="INPUT", type=FileName(".tokc"))
@click.argument("target", metavar="OUTPUT", type=StreamName())
@span_options
@click.option("--salvage", is_flag=True, help="Make a whole stream of the intact chunks of a damaged one.")
@output_options
def trim(
    source: Path, target: str, start_s: float, duration_s: float | None, salvage: bool, force: bool, as_json: bool
) -> None:
    """Cut a part out of a stream, to the frame.

    Nothing is coded again. Chunks that overlap the part are kept whole, and their other frames are hidden.
    """
    show(edit.trim(source, target, start_s, duration_s, salvage=salvage, overwrite=force), target, as_json)


@click.command(epilog=examples("concat a.tokc b.tokc both.tokc"))
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=FileName(".tokc"))
@click.argument("target", metavar="OUTPUT", type=StreamName())
@output_options
def concat(sources: tuple[Path, ...], target: str, force: bool, as_json: bool) -> None:
    """Join streams one after another.

    They must agree in size, pixel shape, orientation, colour, time base and weights."""
    show(edit.concat(list(sources), target, overwrite=force), target, as_json)


@click.command(
    epilog=examples(
        "tokens in.tokc out.npz",
        "tokens in.npz out.tokc                      # the way back",
        "tokens streams --webdataset out/shard-%06d.tar",
    )
)
@click.argument(
    "paths", metavar="INPUT... OUTPUT", nargs=-1, required=True, type=FileName(".tokc", ".npz", ".safetensors")
)
@click.option(
    "--webdataset",
    metavar="PATTERN",
    help="Write all INPUTs (streams, folders) to WebDataset shards such as out/shard-%06d.tar, not to OUTPUT.",
)
@click.option(
    "--shard-samples", type=click.IntRange(1), default=1000, show_default=True, help="Samples of a shard, at most."
)
@click.option("--shard-size", type=Amount(), default="1G", show_default=True, help="Bytes of a shard, at most.")
@weights_option
@progress_option
@output_options
def tokens(
    paths: tuple[Path, ...],
    webdataset: str | None,
    shard_samples: int,
    shard_size: float,
    weights: Path | None,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Export the tokens of a stream to .npz or .safetensors, or import them back to .tokc.

    With --webdataset the tokens of many streams go to shards, one sample for each chunk. A damaged stream does not stop
    the others. It is named at the end, and the exit code is 1.
    """
    if webdataset is not None:
        if shard_size < 1:
            raise click.UsageError("--shard-size is at least a byte")
        _shards(paths, webdataset, shard_samples, int(shard_size), weights, progress, force, as_json)
        return
    refuse_unused("for --webdataset", "shard_samples", "shard_size")
    if len(paths) != 2:
        raise click.UsageError("give one INPUT and one OUTPUT, or --webdataset and any number of INPUTs")
    source, target = paths
    move = arrays.import_tokens if target.suffix.lower() == suffixes.STREAM else arrays.export_tokens
    show(move(source, target, weights=weights, overwrite=force), str(target), as_json)


def _shards(
    sources: tuple[Path, ...],
    pattern: str,
    shard_samples: int,
    shard_bytes: int,
    weights: Path | None,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    with contextlib.closing(Meter("tokens", "chunks", progress)) as meter:

        def update(samples: int, size_bytes: int) -> None:
            meter.step(samples, None, f"{size_bytes / 1e6:.1f} MB", bytes=size_bytes)

        made = shards.export_shards(
            sources,
            pattern,
            weights=weights,
            shard_samples=shard_samples,
            shard_bytes=shard_bytes,
            overwrite=force,
            progress=update,
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(made)))
    else:
        tell(
            f"{pattern}: {made.shards} shards, {made.samples} chunks of {made.streams} streams, {made.frames} frames, "
            f"{made.bytes} bytes, {made.seconds:.1f} s"
        )
    for name, fault in made.failed.items():
        say(name, fault)
    click.get_current_context().exit(1 if made.failed else 0)
