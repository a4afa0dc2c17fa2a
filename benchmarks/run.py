"""Measure: every clip x codec x setting becomes a line of `points.json`, and what is there is not measured again.

`python -m benchmarks.run my.mp4` (or `bin/bench my.mp4`) measures tokcodec and every reference encoder this
machine's FFmpeg has, and writes a report with `benchmarks.report`.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.clips import DATASETS, Clip, dataset_sources, file_source, prepare
from benchmarks.codecs import MODES, TOKENIZER, Mode, decode_argv, encode_argv, encoder_version
from benchmarks.points import Point, read_points, title_of, write_point
from benchmarks.provenance import (
    code_sha256,
    ffmpeg_of,
    judge_sha256,
    machine,
    scoring_sha256,
    versions,
    weights_sha256,
)
from benchmarks.report import write_report
from benchmarks.scoring import Video, read_frames, rgb_argv, rgb_scores, yuv_scores
from benchmarks.tools import Finished, Tools, find_tools, run, shown
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.scoring.scores import METRICS, summary
from tokcodec.scoring.stlpips import load_stlpips
from tokcodec.scoring.vmaf import ffmpeg_has
from tokcodec.stream_reader import reading

ST_LPIPS = "st-vgg"  # of the option --lpips
NETS = ("alex", "vgg", "squeeze", ST_LPIPS)


@dataclass(frozen=True)
class Bench:
    """What all points of a run share."""

    tools: Tools
    filters: frozenset[str]
    judges: Mapping[str, nn.Module]
    threads: int
    results: Path
    work: Path
    scored_by: Mapping[str, Any]  # digests of what scores: code and judges
    machine: Mapping[str, Any]


def identity(bench: Bench, clip: Clip, mode: Mode, rate: int) -> Point:
    """What a stored point must agree in to stand for a new measurement; tokcodec's code is in that of its own alone."""
    stream, decoded = Path(f"/stream.{mode.encoder.format}"), Path("/decoded.mkv")
    ours = {"code_sha256": code_sha256(), "weights_sha256": weights_sha256()}
    return {
        "clip": asdict(clip),
        "codec": mode.name,
        "rate": rate,
        "argv": {
            "encode": shown(encode_argv(bench.tools, mode, rate, Path("/reference.mkv"), stream, bench.threads)),
            "decode": shown(decode_argv(bench.tools, mode, stream, decoded, bench.threads)),
        },
        "threads": bench.threads,
        "program": ours if mode.encoder is TOKENIZER else ffmpeg_of(bench.tools),
        "scored_by": bench.scored_by,
    }


def measure(bench: Bench, wanted: Point, clip: Clip, reference: Path, mode: Mode, rate: int) -> Point:
    """Encode, decode, time and score one point; `wanted` is its identity, made before.

    Raises:
        TokcodecError: a program fails, or what comes back is not the same frames.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=bench.work) as name:
        stream, decoded = Path(name) / f"stream.{mode.encoder.format}", Path(name) / "decoded.mkv"
        encode = run(encode_argv(bench.tools, mode, rate, reference, stream, bench.threads))
        decode = run(decode_argv(bench.tools, mode, stream, decoded, bench.threads))
        ours = mode.encoder is TOKENIZER
        original, result = Video(reference, rgb=True), Video(decoded if ours else stream, rgb=ours)
        size = clip.height, clip.width
        scores = rgb_scores(bench.tools, original, result, size, bench.judges)
        scores |= yuv_scores(bench.tools, original, result, size, clip.fps, bench.filters, bench.threads)
        worst = int(np.argmax(scores["lpips_alex"]) if "lpips_alex" in scores else np.argmin(scores["psnr_rgb_db"]))
        for frame in {clip.frames // 2, worst}:
            save_frame(bench, clip, original, frame, f"{clip.key}__{frame}.png")
            save_frame(bench, clip, result, frame, f"{clip.key}__{mode.name}__{rate}__{frame}.png")
        size_bytes = stream.stat().st_size
        borders = {"borders": borders_of(stream)} if ours else {}  # by which the others are judged too
    return {
        **wanted,
        **borders,
        "bytes": size_bytes,
        "bpp": 8 * size_bytes / (clip.width * clip.height * clip.frames),
        "metrics": {metric: summary(frames) for metric, frames in scores.items()},
        "middle_frame": clip.frames // 2,
        "worst_frame": worst,
        "encode": speed(clip, encode, ours),
        "decode": speed(clip, decode, ours),
        "encoder_version": encoder_version(encode.stderr),
        "versions": versions(bench.tools, ours),
        "machine": {**bench.machine, "load_before": round(load, 2)},
    }


def borders_of(stream: Path) -> list[int]:
    """The frames that begin a chunk of a .tokc stream, besides the first."""
    with reading(stream) as reader:
        return list(itertools.accumulate(entry.frames for entry in reader.index))[:-1]


def speed(clip: Clip, finished: Finished, ours: bool) -> dict[str, float]:
    """Frames/s from the command to its end and peak memory; for tokcodec also without its start, and of its network."""
    measured = {"fps": clip.frames / finished.seconds, "peak_rss_bytes": finished.peak_rss_bytes}
    if ours:
        report = json.loads(finished.stdout)
        measured["started_fps"] = clip.frames / report["seconds"]
        if report["network_s"]:  # encoding runs none
            measured["network_fps"] = clip.frames / report["network_s"]
        measured["peak_vram_bytes"] = report["peak_vram_bytes"]
    return measured


def save_frame(bench: Bench, clip: Clip, video: Video, frame: int, name: str) -> None:
    """Keep a frame as PNG for the report's pictures, unless it is there and younger than the video."""
    path = bench.work / "frames" / name
    if path.exists() and path.stat().st_mtime > video.path.stat().st_mtime:
        return
    path.parent.mkdir(exist_ok=True)
    (pixels,) = read_frames(rgb_argv(bench.tools, video, only=frame), clip.height, clip.width)
    Image.fromarray(pixels).save(path)


def measured(stored: Point | None, wanted: Point) -> bool:
    """Whether a stored point, if there is one, is this very one."""
    return stored is not None and all(stored.get(key) == value for key, value in wanted.items())


def load_judges(nets: tuple[str, ...], directory: Path | None) -> dict[str, nn.Module]:
    """LPIPS networks by metric name; one that cannot be had is named on stderr and left out."""
    judges: dict[str, nn.Module] = {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for net in nets:
        try:
            if net == ST_LPIPS:
                judges["stlpips_vgg"] = load_stlpips(directory).to(device)
            else:
                judges[f"lpips_{net}"] = load_lpips(net, directory).to(device)
        except ModelError as error:
            click.echo(f"going on without it: {error}", err=True)
    return judges


def parse_size(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise click.BadParameter("write it as 640x360") from None
    return width, height


def parse_rates(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    rates = {}
    for text in texts:
        mode, _, numbers = text.partition("=")
        if mode not in MODES or not all(number.isdecimal() for number in numbers.split(",")):
            raise click.BadParameter(f"{text!r}: write it as hevc-ra=26,32,38,44; codecs: {', '.join(MODES)}")
        rates[mode] = tuple(map(int, numbers.split(",")))
    return rates


def parse_codecs(context: click.Context, parameter: click.Parameter, text: str) -> list[Mode]:
    names = text.split(",") if text else list(MODES)
    if unknown := [name for name in names if name not in MODES]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(MODES)}")
    return [MODES[name] for name in names]


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--dataset",
    type=(click.Choice(DATASETS), click.Path(exists=True, path_type=Path)),
    multiple=True,
    help="A data set and its folder.",
)
@click.option("--size", callback=parse_size, help="Scale to WxH first, as 640x360.")
@click.option("--frames", default=64, show_default=True, type=click.IntRange(2), help="Frames of each clip, at most.")
@click.option(
    "--codecs", "modes", default="", callback=parse_codecs, help="Some of the codecs, as tokcodec,hevc-ra,av1."
)
@click.option("--rates", multiple=True, callback=parse_rates, help="Other settings, as hevc-ra=26,32,38,44.")
@click.option(
    "--lpips",
    "nets",
    multiple=True,
    default=("alex", ST_LPIPS),
    show_default=True,
    type=click.Choice(NETS),
    help="Backbones of LPIPS; st-vgg is ST-LPIPS, of every fifth frame.",
)
@click.option("--lpips-dir", type=click.Path(exists=True, path_type=Path), help="Folder with their weights.")
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(1), help="Points measured at once; 1 for true speeds."
)
@click.option(
    "--threads", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1), help="Threads of each program."
)
@click.option("--out", default=Path("bench-out/results"), show_default=True, type=click.Path(path_type=Path))
@click.option(
    "--work",
    default=Path("bench-out/work"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="References and frames; may be deleted, the report's pictures go with it.",
)
@click.option("-f", "--force", is_flag=True, help="Measure also what is measured.")
def main(
    files: tuple[Path, ...],
    dataset: tuple[tuple[str, Path], ...],
    size: tuple[int, int] | None,
    frames: int,
    modes: list[Mode],
    rates: dict[str, tuple[int, ...]],
    nets: tuple[str, ...],
    lpips_dir: Path | None,
    jobs: int,
    threads: int,
    out: Path,
    work: Path,
    force: bool,
) -> None:
    """Measure tokcodec and other codecs on FILES and data sets, and write a report to --out."""
    if not files and not dataset:
        raise click.UsageError("name a file or a --dataset")
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # the judge is exact
    try:
        tools = find_tools()
        available = ffmpeg_has(tools.ffmpeg, "encoders") | {TOKENIZER.name}
        for mode in modes:
            if mode.encoder.name not in available:
                click.echo(f"skipped: {mode.name} (this FFmpeg has no {mode.encoder.name})", err=True)
        modes = [mode for mode in modes if mode.encoder.name in available]
        judges = load_judges(nets, lpips_dir)
        scored_by = {
            "code_sha256": scoring_sha256(),
            "ffmpeg": ffmpeg_of(tools),
            "judges": {name: judge_sha256(judge) for name, judge in judges.items()},
        }
        filters = ffmpeg_has(tools.ffmpeg, "filters")
        bench = Bench(tools, filters, judges, threads, out, work, scored_by, machine(jobs))
        sources = [file_source(path) for path in files]
        for name, folder in dataset:
            sources += dataset_sources(name, folder)
        if len({source.name for source in sources}) < len(sources):
            raise click.UsageError("two clips have the same name")
        out.mkdir(parents=True, exist_ok=True)
        stored = read_points(out)
        clips = [prepare(tools, source, size, frames, work / "references") for source in sources]
        jobs_to_do = [
            (bench, clip, reference, mode, rate, None if force else stored.get(title_of(clip.key, mode.name, rate)))
            for clip, reference in clips
            for mode in modes
            for rate in rates.get(mode.name, mode.encoder.rates)
        ]
        with ThreadPoolExecutor(jobs) as pool:
            good = list(pool.map(lambda job: one_point(*job), jobs_to_do))
        write_report(out, work / "frames")
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    click.echo(out / "report.html")
    if not all(good):
        raise click.ClickException(f"{good.count(False)} of {len(good)} points failed, see above")


def one_point(bench: Bench, clip: Clip, reference: Path, mode: Mode, rate: int, stored: Point | None) -> bool:
    """Measure one point and store it, unless it is there; False if it failed, which stderr tells."""
    wanted = identity(bench, clip, mode, rate)
    if measured(stored, wanted):
        return True
    title = f"{clip.key} {mode.name} {mode.encoder.rate_name} {rate}"
    try:
        point = measure(bench, wanted, clip, reference, mode, rate)
    except TokcodecError as error:
        click.echo(f"failed: {title}: {error}", err=True)
        return False
    write_point(bench.results, title_of(clip.key, mode.name, rate), point)
    means = (f"{name} {point['metrics'][name]['mean']:.4g}" for name in METRICS if name in point["metrics"])
    click.echo(f"{title}: {point['bpp']:.4f} bpp, {', '.join(means)}", err=True)
    return True


if __name__ == "__main__":
    main()
