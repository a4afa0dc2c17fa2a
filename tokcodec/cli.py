"""The command line, thin: arguments in, one call, one line out (or JSON with --json).

Results go to stdout; progress, warnings and errors to stderr. Exit code 0 is success, 1 an error, 2 wrong
usage, 130 an interrupt. What needs torch is imported inside the command that uses it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
from tqdm import tqdm

import tokcodec
from tokcodec import arrays, edit
from tokcodec.errors import TokcodecError
from tokcodec.rate import DEFAULT_RATE, Rate
from tokcodec.report import Report

SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class Amount(click.ParamType[float]):
    """A positive number with FFmpeg's suffixes: 300k is 300,000, 2Mi is 2 * 2**20."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]i?)?", str(value), re.IGNORECASE)
        amount = float(match[1]) * SCALES[(match[2] or "").lower()] if match else 0.0
        if not 0 < amount < math.inf:
            self.fail(f"{value!r} is not an amount such as 800, 300k or 2M", param, ctx)
        return amount


class Seconds(click.ParamType[float]):
    """A time as FFmpeg writes it: 12.5, 01:30 or 00:01:30.25."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if not re.fullmatch(r"(?:(?:\d+:)?\d+:)?\d+(?:\.\d+)?", str(value)):
            self.fail(f"{value!r} is not a time such as 12.5 or 00:01:30", param, ctx)
        total = 0.0
        for part in str(value).split(":"):
            total = 60 * total + float(part)
        return total


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers between commas, such as 9,17,33."""

    name = "n,n,..."

    def __init__(self, count: int | None = None) -> None:
        self.count = count  # how many there must be (None: any)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not re.fullmatch(r"\d+(,\d+)*", str(value)):
            self.fail(f"{value!r} is not a list of numbers such as 9,17,33", param, ctx)
        numbers = tuple(int(n) for n in str(value).split(","))
        if self.count not in (None, len(numbers)):
            self.fail(f"{value!r} is not {self.count} numbers", param, ctx)
        return numbers


def shared(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


output_options = shared(
    click.option("-f", "--force", is_flag=True, help="Overwrite the output."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
device_options = shared(
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Arithmetic of the network; auto is bfloat16 where the device has it.",
    ),
    click.option("--threads", type=click.IntRange(1), help="CPU threads [default: all cores]."),
)
span_options = shared(
    click.option("--start", "start_s", type=Seconds(), default=0.0, help="Begin here: seconds or HH:MM:SS."),
    click.option("--duration", "duration_s", type=Seconds(), help="Take this much: seconds or HH:MM:SS."),
)
rate_options = shared(
    click.option("-q", "--quality", type=click.IntRange(1, 8), help="1 (small) to 8 (best) [default: 4]."),
    click.option("--step", type=click.FloatRange(1 / 16, 4095), help="Of the quantizer, in levels of 255."),
    click.option("--bitrate", type=Amount(), help="Bits per second of the video, at most: 300k."),
    click.option("--target-size", type=Amount(), help="Bytes of the whole file, at most: 2M."),
    click.option("--target-lpips", type=click.FloatRange(0, min_open=True), help="LPIPS of every chunk, at most."),
    click.option("--target-psnr", type=click.FloatRange(0, min_open=True), help="PSNR of every chunk in dB, at least."),
)
weights_option = click.option("--weights", type=click.Path(path_type=Path), help="Weights, if not the released ones.")
network_options = shared(weights_option, device_options)


def rate_of(
    quality: int | None,
    step: float | None,
    bitrate: float | None,
    target_size: float | None,
    target_lpips: float | None,
    target_psnr: float | None,
) -> Rate | None:
    """The rate the options name, None if they name none."""
    given = [x for x in (quality, step, bitrate, target_size, target_lpips, target_psnr) if x is not None]
    if len(given) > 1:
        raise click.UsageError(
            "give one of --quality, --step, --bitrate, --target-size, --target-lpips and --target-psnr"
        )
    if not given:
        return None
    if target_size is not None and target_size < 1:
        raise click.UsageError("--target-size is at least a byte")
    try:
        return Rate(
            step=step,
            quality=quality,
            bitrate_kbps=None if bitrate is None else bitrate / 1000,
            target_size_bytes=None if target_size is None else int(target_size),
            target_lpips=target_lpips,
            target_psnr_db=target_psnr,
        )
    except ValueError as error:  # not a number, or infinite
        raise click.UsageError(str(error)) from error


def use_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


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
            bar.set_postfix_str(f"{8 * size_bytes / (frames * frame_px):.4f} bpp", refresh=False)
            bar.update(frames - bar.n)

        yield update


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(tokcodec.__version__, prog_name="tokcodec")
def cli() -> None:
    """A neural video codec: video to a compact stream of visual tokens (.tokc), and back."""


@cli.command()
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="OUTPUT")
@rate_options
@span_options
@network_options
@output_options
def encode(
    source: str,
    target: str,
    quality: int | None,
    step: float | None,
    bitrate: float | None,
    target_size: float | None,
    target_lpips: float | None,
    target_psnr: float | None,
    start_s: float,
    duration_s: float | None,
    weights: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Encode a video (any file FFmpeg reads; - is stdin) to a .tokc stream (- is stdout)."""
    from tokcodec.codec import encode_video

    rate = rate_of(quality, step, bitrate, target_size, target_lpips, target_psnr) or DEFAULT_RATE
    with progress_bar("encode") as progress:
        report = encode_video(
            source,
            target,
            rate=rate,
            weights=weights,
            device=device,
            dtype=dtype,
            cores=threads,
            start_s=start_s,
            duration_s=duration_s,
            overwrite=force,
            progress=progress,
        )
    show(report, target, as_json)


@cli.command()
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="OUTPUT")
@click.option("--crf", type=click.FloatRange(0, 51), default=12.0, show_default=True, help="Of libx264; 0 is best.")
@click.option("--lossless", is_flag=True, help="FFV1 in RGB, every pixel as decoded; for .mkv.")
@click.option("--format", type=click.Choice(["rgb24", "y4m"]), default="y4m", show_default=True, help="On stdout.")
@click.option("--salvage", is_flag=True, help="Play every intact chunk of a damaged stream.")
@span_options
@network_options
@output_options
def decode(
    source: str,
    target: str,
    crf: float,
    lossless: bool,
    format: str,
    salvage: bool,
    start_s: float,
    duration_s: float | None,
    weights: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Decode a .tokc stream to a video.

    OUTPUT is .mp4, .mov or .mkv (H.264, with the other streams), .y4m, a pattern of images
    (frames/%05d.png), or - for y4m or raw frames on stdout.
    """
    from tokcodec.codec import decode_video

    if lossless and Path(target).suffix.lower() != ".mkv":
        raise click.UsageError("--lossless writes .mkv only")
    use_threads(threads)
    with progress_bar("decode") as progress:
        report = decode_video(
            source,
            target,
            weights=weights,
            device=device,
            dtype=dtype,
            crf=crf,
            lossless=lossless,
            stdout_format=format,
            salvage=salvage,
            start_s=start_s,
            duration_s=duration_s,
            overwrite=force,
            progress=progress,
        )
    show(report, target, as_json, source)


@cli.command()
@click.argument("source", metavar="STREAM", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(source: Path, as_json: bool) -> None:
    """Show what a stream holds."""
    facts = edit.describe(source)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' '):<18}{value}")


@cli.command()
@click.argument("source", metavar="STREAM", type=click.Path(path_type=Path))
@weights_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(source: Path, weights: Path | None, as_json: bool) -> None:
    """Check every byte of a stream: checksums, and that all tokens decode."""
    show(edit.verify(source, weights=weights), "", as_json, str(source))


@cli.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT")
@span_options
@output_options
def trim(source: Path, target: str, start_s: float, duration_s: float | None, force: bool, as_json: bool) -> None:
    """Cut a stream at the edges of its chunks: every chunk that overlaps the span is kept."""
    show(edit.trim(source, target, start_s, duration_s, overwrite=force), target, as_json)


@cli.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT")
@output_options
def concat(sources: tuple[Path, ...], target: str, force: bool, as_json: bool) -> None:
    """Join streams of one frame size and one set of weights, one after another."""
    show(edit.concat(list(sources), target, overwrite=force), target, as_json)


@cli.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT", type=click.Path(path_type=Path))
@weights_option
@output_options
def tokens(source: Path, target: Path, weights: Path | None, force: bool, as_json: bool) -> None:
    """Export the tokens of a stream to .npz or .safetensors, or import them back to .tokc."""
    move = arrays.import_tokens if target.suffix.lower() == ".tokc" else arrays.export_tokens
    show(move(source, target, weights=weights, overwrite=force), str(target), as_json)


folder = click.Path(path_type=Path, file_okay=False)
share = click.FloatRange(0, 1)
settings_options = shared(  # None leaves a value to the settings, which the text shown repeats
    click.option("--steps", type=click.IntRange(1), show_default="20000", help="Length of the schedule."),
    click.option("--batch", type=click.IntRange(1), show_default="4", help="Windows a step, over all processes."),
    click.option("--frames", type=Numbers(), show_default="9", help="Lengths of windows: 1 + 4n, at most 33."),
    click.option("--crop", "crop_px", type=click.IntRange(16), show_default="192", help="Pixels a side."),
    click.option("--seed", type=click.IntRange(0), show_default="0", help="Of every random draw."),
    click.option("--step-range", type=Numbers(2), show_default="4,120", help="Of the quantizer, when data is coded."),
    click.option("--passes", type=click.IntRange(1), show_default="1", help="Times the data is coded."),
    click.option("--muon-lr", type=click.FloatRange(0), show_default="0.003", help="Learning rate of kernels."),
    click.option("--muon-momentum", type=click.FloatRange(0, 1, max_open=True), show_default="0.95", help="Of Muon."),
    click.option("--adam-lr", type=click.FloatRange(0), show_default="0.001", help="Learning rate of the rest."),
    click.option("--rec-weight", type=click.FloatRange(0), show_default="0.3", help="Of the pixels' errors."),
    click.option("--lpips-weight", type=click.FloatRange(0), show_default="1.0", help="Of LPIPS in the loss."),
    click.option("--lpips-frames", type=click.IntRange(1), show_default="2", help="Frames of a window LPIPS sees."),
    click.option("--temporal-weight", type=click.FloatRange(0), show_default="0.5", help="Of judder and shimmer."),
    click.option("--image-share", type=share, show_default="0.1", help="Of the steps: single first frames."),
    click.option("--late-share", type=share, show_default="0.5", help="Of the others: windows from later groups."),
    click.option(
        "--decay-share",
        type=click.FloatRange(0, 1, min_open=True),
        show_default="0.3",
        help="Of the schedule: the learning rates fall to 0.",
    ),
)
shape_options = shared(
    click.option("--channels", type=Numbers(2), show_default="64,192", help="At 1/8 and 1/16 of the resolution."),
    click.option("--blocks", type=Numbers(3), show_default="1,2,1", help="At 1/8, at 1/16 and at 1/8 again."),
    click.option("--features", type=click.IntRange(1), show_default="16", help="Handed on to 1/4 of the resolution."),
    click.option("--pixel-channels", type=click.IntRange(1), show_default="48", help="At 1/4 of the resolution."),
    click.option("--pixel-blocks", type=click.IntRange(0), show_default="2", help="At 1/4 of the resolution."),
)


@cli.command()
@click.argument("data", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", type=folder, required=True, help="Folder of the run; a run that is there goes on.")
@click.option("--init", type=click.Path(path_type=Path), help="Start from these weights, or this checkpoint.pt.")
@click.option("--holdout", metavar="PATTERN", multiple=True, help="Names of files to evaluate on, not to train on.")
@click.option("--eval", "eval_folder", type=folder, help="Videos to evaluate on.")
@click.option("--eval-steps", type=Numbers(), default="12,40", show_default=True, help="Quantizer's, for --eval.")
@click.option("--eval-every", type=click.IntRange(1), default=1000, show_default=True, help="In steps.")
@click.option("--tables", type=click.Path(path_type=Path), help="Weights with the loop's tables [--init, released].")
@click.option("--cache", type=folder, help="Folder for decoded and coded data [default: OUT/cache].")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after this time.")
@click.option("--finish", is_flag=True, help="Bring the schedule to its end within --minutes.")
@click.option("--lpips-dir", type=folder, help="LPIPS backbones, if not torchvision's.")
@settings_options
@shape_options
@device_options
def train(
    data: Path,
    out: Path,
    init: Path | None,
    holdout: tuple[str, ...],
    eval_folder: Path | None,
    eval_steps: tuple[int, ...],
    eval_every: int,
    tables: Path | None,
    cache: Path | None,
    minutes: float | None,
    finish: bool,
    lpips_dir: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
    **options: Any,
) -> None:
    """Train the restoration network on a folder of videos and images.

    The data is coded once, ahead of time. OUT receives checkpoint.pt, weights.safetensors, train.jsonl,
    eval.jsonl and pictures. Several processes share a run under torchrun -m tokcodec.cli train ...
    """
    try:
        from tokcodec.training import train as training
    except ModuleNotFoundError as error:
        raise TokcodecError(f"training needs the package {error.name}: pip install 'tokcodec[train]'") from error

    if finish and minutes is None:
        raise click.UsageError("--finish needs --minutes")
    try:
        settings, config = training.settings_of({k: v for k, v in options.items() if v is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    use_threads(threads)
    trainer = training.train(
        data,
        out,
        config,
        settings,
        cache=cache,
        holdout=holdout,
        eval_folder=eval_folder,
        eval_steps=eval_steps,
        init=init,
        tables=tables,
        minutes=minutes,
        finish=finish,
        eval_every=eval_every,
        device=device,
        dtype=dtype,
        lpips_dir=lpips_dir,
    )
    if trainer:
        click.echo(f"{out}: {trainer.step} steps, {trainer.pixels} pixels, {trainer.position:.1%} of the schedule")


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


@cli.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--decode", is_flag=True, help="The way back: streams to videos.")
@click.option("--to", type=click.Choice(["mp4", "mkv", "mov"]), default="mp4", show_default=True, help="Of --decode.")
@click.option("--crf", type=click.FloatRange(0, 51), default=12.0, show_default=True, help="Of --decode.")
@click.option("--glob", "globs", multiple=True, help="Only names that match: 'a/*.mp4' (* matches slashes, too).")
@click.option("--ext", multiple=True, help="Only files with this extension [default: the usual ones of videos].")
@click.option(
    "--list",
    "listing",
    type=click.File(errors="surrogateescape"),
    help="Only the names in this file, one a line (- is stdin).",
)
@click.option("--shard", type=Shard(), default=(1, 1), help="Only the i-th of n parts, as in 1/8.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Worker processes [default: one a GPU, else one for two cores]; short files fill a GPU with several.",
)
@click.option("--ray", is_flag=False, flag_value="", metavar="[ADDRESS]", help="Work on a Ray cluster.")
@click.option(
    "--piece", type=click.IntRange(0), help="Chunks long files are cut into for several workers [64]; 0: never."
)
@click.option("--retries", type=click.IntRange(0), default=1, show_default=True, help="For files that fail.")
@click.option("--verify", is_flag=True, help="Read every stream back before it counts as done.")
@click.option("--delete-source", is_flag=True, help="Delete each source after its stream is verified.")
@click.option("--log", type=click.Path(path_type=Path), help="Append a line of JSON for each file.")
@rate_options
@network_options
@output_options
def batch(
    source: str,
    target: str,
    decode: bool,
    to: str,
    crf: float,
    globs: tuple[str, ...],
    ext: tuple[str, ...],
    listing: TextIO | None,
    shard: tuple[int, int],
    jobs: int | None,
    ray: str | None,
    piece: int | None,
    retries: int,
    verify: bool,
    delete_source: bool,
    log: Path | None,
    quality: int | None,
    step: float | None,
    bitrate: float | None,
    target_size: float | None,
    target_lpips: float | None,
    target_psnr: float | None,
    weights: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Encode a tree of videos: SRC/a/b.mp4 to DST/a/b.tokc, or back with --decode.

    SRC and DST are folders or URLs (s3://bucket/videos). What a run before has finished is skipped, so an
    interrupted run goes on where it was; what fails is tried again, then listed at the end, with exit code 1.
    Any number of workers makes the same bytes, given the same device and dtype.
    """
    rate = rate_of(quality, step, bitrate, target_size, target_lpips, target_psnr)
    if decode and (verify or delete_source or rate is not None):
        raise click.UsageError("a rate, --verify and --delete-source are for streams, not for --decode")
    if ray is not None and jobs:
        raise click.UsageError("give one of --jobs and --ray")
    from tokcodec.batch import cluster, driver, storage, units, workers
    from tokcodec.neural.weights import Weights, find_weights

    settings = units.Settings(
        decode=decode,
        suffix=f".{to}" if decode else ".tokc",
        rate=rate or DEFAULT_RATE,
        crf=crf,
        weights=None if weights is None else weights.absolute(),
        weights_sha256=None if decode else Weights.load(find_weights(weights)).sha256,
        device=device,
        dtype=dtype,
        verify=verify or delete_source,
    )
    src, dst = storage.Tree(source), storage.Tree(target)
    items = src.items()
    named = list(items.values())
    if listing is not None:
        names = [line.rstrip("\r\n") for line in listing if line.strip()]
        named = [items.get(name, storage.Item(name, -1, "")) for name in dict.fromkeys(names)]
    suffixes = {f".{e.lower().lstrip('.')}" for e in ext} or ({".tokc"} if decode else driver.VIDEO_SUFFIXES)
    chosen = driver.select(named, suffixes, globs, shard)
    if not chosen:
        click.echo(f"tokcodec: {source}: nothing to do: none of its {len(items)} files is chosen", err=True)
    crew = workers.local_workers(jobs, threads, device) if ray is None else cluster.RayTasks(ray, threads or 1, device)
    if not decode:
        settings = dataclasses.replace(settings, piece_chunks=(64 if crew.limit > 1 else 0) if piece is None else piece)
    with contextlib.ExitStack() as stack:
        stack.callback(crew.close)
        notes = None if log is None else stack.enter_context(log.open("a"))
        bar = stack.enter_context(tqdm(total=len(chosen), desc="batch", unit=" files", disable=None, leave=False))

        def progress(summary: driver.Summary) -> None:
            saved = (summary.source_bytes - summary.bytes) / 1e6
            bar.set_postfix_str(f"{summary.frames / max(summary.seconds, 1e-3):.1f} frames/s, {saved:.1f} MB saved")
            bar.update(summary.done + summary.finished + summary.busy + len(summary.failed) - bar.n)

        summary = driver.Batch(
            src,
            dst,
            settings,
            crew,
            retries=retries,
            overwrite=force,
            delete_source=delete_source,
            notes=notes,
            progress=progress,
        ).run(chosen)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
    else:
        click.echo(
            f"{target}: {summary.done} of {summary.files} files, {summary.finished} finished before, "
            f"{summary.busy} in other hands, {len(summary.failed)} failed; {summary.frames} frames, "
            f"{summary.source_bytes} to {summary.bytes} bytes, {summary.seconds:.1f} s"
        )
    for name, error in summary.failed.items():
        click.echo(f"tokcodec: {name}: {error}", err=True)
    click.get_current_context().exit(1 if summary.failed else 0)


def main() -> None:
    """Entry point: the one place that turns errors into a line and an exit code. A bug keeps its traceback."""
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:
        pass  # the number of a closed stdin, stdout or stderr would go to the next file, and FFmpeg print into that
    os.close(spare)
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8 go out as they came
    logging.basicConfig(format="tokcodec: warning: %(message)s", level=logging.WARNING, stream=sys.stderr)
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that partial files are removed
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        code = cli.main(standalone_mode=False) or 0
    except TokcodecError as error:
        click.echo(f"tokcodec: {error}", err=True)
        code = 1
    except MemoryError:
        click.echo("tokcodec: out of memory", err=True)
        code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("tokcodec: interrupted", err=True)
        code = 130
    except SystemExit as stop:  # by a signal
        code = int(stop.code or 0)
    except OSError as error:  # of stdout: every other file has a name in its own error
        if not isinstance(error, BrokenPipeError):  # then whoever read it had enough
            click.echo(f"tokcodec: {error.filename or 'stdout'}: {error.strerror or error}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    if any(thread.name.startswith("tokcodec") for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)  # all files are in order, but a thread sits in a read that may never return
    sys.exit(code)


if __name__ == "__main__":
    main()
