"""Measure: every clip x codec x setting becomes a line of `points.json`, and what is there is not measured again.

A point knows its bytes and its pixels by digests. Other code of tokcodec, or another FFmpeg, costs another coding; what
is scored again is what has other pixels, and the scores whose own code has changed.

`python -m benchmarks.run my.mp4` (or `bin/bench my.mp4`) measures tokcodec and every reference encoder this
machine's FFmpeg has, and writes a report with `benchmarks.report`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from click.core import ParameterSource
from PIL import Image
from torch import nn

from benchmarks.clips import DATASETS, Clip, Source, dataset_sources, file_source, prepare
from benchmarks.codecs import MODES, TOKENIZER, Mode, decode_argv, encode_argv, encoder_version
from benchmarks.points import Point, judged_frames, read_points, title_of, write_point
from benchmarks.provenance import (
    code_sha256,
    ffmpeg_of,
    file_sha256,
    machine,
    scorer_sha256,
    versions,
    weights_sha256,
)
from benchmarks.report import write_report
from benchmarks.scoring import (
    BY_FFMPEG,
    BY_LIBVMAF,
    Remembering,
    Video,
    pixels_sha256,
    read_frames,
    rgb_argv,
    rgb_scores,
    sampled,
    yuv_scores,
)
from benchmarks.sets import SETS, ClipSet
from benchmarks.tools import Finished, Tools, find_tools, run, shown
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.io.output import replacing
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
    scorers: Mapping[str, str]  # by metric the digest of what makes it
    machine: Mapping[str, Any]
    is_forced: bool

    def scored_by(self, clip: Clip) -> dict[str, str]:
        """By metric the digest of what scores a clip, and of which frames."""
        frames = {name: sampled(name, clip.frames, (clip.height, clip.width)) for name in self.scorers}
        return {
            name: hashlib.sha256(f"{made} {frames[name]}".encode()).hexdigest() for name, made in self.scorers.items()
        }


def scorers_of(tools: Tools, filters: Set[str], judges: Mapping[str, nn.Module]) -> dict[str, str]:
    """By metric the digest of what makes it, of all that can be had here."""
    metrics = ["psnr_rgb_db", "temporal_psnr_db", "ghosts", *judges, "psnr_y_db"]
    metrics += ["xpsnr_y_db"] * ("xpsnr" in filters) + [*BY_LIBVMAF] * ("libvmaf" in filters)
    return {name: scorer_sha256(name, tools, judges.get(name)) for name in metrics}


def identity(bench: Bench, clip: Clip, mode: Mode, rate: int) -> Point:
    """What decides the bytes of a point, and its pixels; tokcodec's code is in that of its own alone.

    A stored point that agrees needs no coding. One that does not is coded again: its pixels may be the same still.
    """
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
    }


def code(bench: Bench, wanted: Point, clip: Clip, reference: Path, mode: Mode, rate: int) -> tuple[Path, Point]:
    """The stream of a point with what is known of its coding; one that was made by the same command is found again.

    Raises:
        TokcodecError: the encoder fails.
    """
    made_by = [clip.pixels_sha256, clip.fps, wanted["argv"]["encode"], wanted["program"]]
    name = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:32]
    stream = bench.work / "streams" / f"{name}.{mode.encoder.format}"
    note = stream.with_suffix(".json")
    if not bench.is_forced and stream.exists() and note.exists():
        known: Point = json.loads(note.read_text())
        if file_sha256(stream) == known["stream_sha256"]:
            return stream, known
    stream.parent.mkdir(exist_ok=True)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        part = Path(folder) / f"stream.{mode.encoder.format}"
        finished = run(encode_argv(bench.tools, mode, rate, reference, part, bench.threads))
        known = {
            "stream_sha256": file_sha256(part),
            "bytes": part.stat().st_size,
            "encode": speed(clip, finished, mode.encoder is TOKENIZER),
            "encoder_version": encoder_version(finished.stderr),
            "machine": {**bench.machine, "load_before": round(load, 2)},
        }
        note.unlink(missing_ok=True)  # of another stream
        part.rename(stream)
    with replacing(note, [], overwrite=True) as partial:
        partial.write_text(json.dumps(known))
    return stream, known


def measure(
    bench: Bench, wanted: Point, clip: Clip, reference: Path, mode: Mode, rate: int, stored: Point | None
) -> Point:
    """Encode, decode, time and score one point; `wanted` is its identity, made before.

    Scores of a stored point stay where its pixels are those that come out, and what scores them is the same.

    Raises:
        TokcodecError: a program fails, or what comes back is not the same frames.
    """
    ours, size = mode.encoder is TOKENIZER, (clip.height, clip.width)
    stream, known = code(bench, wanted, clip, reference, mode, rate)
    with tempfile.TemporaryDirectory(dir=bench.work) as name:
        decoded = Path(name) / "decoded.mkv"
        decode = run(decode_argv(bench.tools, mode, stream, decoded, bench.threads))
        original, result = Video(reference, rgb=True), Video(decoded if ours else stream, rgb=ours)
        pixels, _ = pixels_sha256(bench.tools, result, size)
        is_known = stored is not None and same(stored, {"clip": wanted["clip"], "pixels_sha256": pixels})
        before = stored if is_known and stored is not None else {"metrics": {}, "scored_by": {}}
        scored_by = bench.scored_by(clip)
        missing = {name for name, digest in scored_by.items() if before["scored_by"].get(name) != digest}
        metrics = {name: score for name, score in before["metrics"].items() if name not in missing}
        metrics |= scored(bench, clip, original, result, missing)
        worst = worst_frame(metrics)
        for frame in {clip.frames // 2, worst}:
            save_frame(bench, clip, original, frame, f"{clip.key}__{frame}.png")
            save_frame(bench, clip, result, frame, f"{clip.key}__{mode.name}__{rate}__{frame}.png")
        borders = {"borders": borders_of(stream)} if ours else {}  # by which the others are judged too
    return {
        **wanted,
        "scored_by": before["scored_by"] | scored_by,
        **borders,
        **known,
        "pixels_sha256": pixels,
        "bpp": 8 * known["bytes"] / (clip.width * clip.height * clip.frames),
        "metrics": {name: metrics[name] for name in METRICS if name in metrics},
        "middle_frame": clip.frames // 2,
        "worst_frame": worst,
        "decode": speed(clip, decode, ours),
        "versions": versions(bench.tools, ours),
    }


def scored(bench: Bench, clip: Clip, original: Video, result: Video, missing: set[str]) -> dict[str, Any]:
    """The scores that are missing, with the frames that they are of where these are not all.

    Raises:
        TokcodecError: what comes back is not the same frames.
    """
    size = clip.height, clip.width
    scores: dict[str, list[float]] = {}
    if missing.difference(BY_FFMPEG):
        judges = {name: judge for name, judge in bench.judges.items() if name in missing}
        scores |= rgb_scores(bench.tools, original, result, size, judges, clip.frames)
    if missing.intersection(BY_FFMPEG):
        scores |= yuv_scores(bench.tools, original, result, size, clip.fps, bench.filters, bench.threads, clip.frames)
    found = {}
    for name in missing.intersection(scores):
        frames = sampled(name, clip.frames, size)
        place = {} if frames.step == 1 else {"first": frames.start, "every": frames.step}
        if scores[name]:
            found[name] = summary(scores[name]) | place
    return found


def worst_frame(metrics: Mapping[str, Any]) -> int:
    """The frame that LPIPS likes least, or PSNR where there is no LPIPS."""
    by_lpips = metrics.get("lpips_alex")
    score = by_lpips or metrics["psnr_rgb_db"]
    return judged_frames(score)[int(np.argmax(score["frames"]) if by_lpips else np.argmin(score["frames"]))]


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


def same(stored: Point, wanted: Mapping[str, Any]) -> bool:
    """Whether a stored point has all that is wanted."""
    return all(stored.get(key) == value for key, value in wanted.items())


def load_judges(nets: tuple[str, ...], directory: Path | None) -> dict[str, nn.Module]:
    """LPIPS networks by metric name; one that cannot be had is named on stderr and left out."""
    judges: dict[str, nn.Module] = {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for net in nets:
        try:
            if net == ST_LPIPS:
                judges["stlpips_vgg"] = Remembering(load_stlpips(directory)).to(device)
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


@dataclass(frozen=True)
class Plan:
    """What is measured into one folder: clips of one size and length, by codecs at their settings."""

    out: Path
    sources: list[Source]
    size: tuple[int, int] | None
    frames: int
    rates: Mapping[str, tuple[int, ...]]


def plan_of(chosen: ClipSet, out: Path, sources: list[Source], settings: Mapping[str, tuple[int, ...]]) -> Plan:
    """A set, by those of its codecs that are wanted, of those of the sources that are in it.

    Raises:
        TokcodecError: one of its clips is not there.
    """
    if missing := set(chosen.names) - {source.name for source in sources}:
        raise TokcodecError(f"{out.name} needs the clips {', '.join(sorted(missing))}, too")
    clips = [source for source in sources if not chosen.names or source.name in chosen.names]
    rates = {name: chosen.rates[name] for name in settings if name in chosen.rates}
    return Plan(out, clips, chosen.size, chosen.frames, rates)


def measure_all(bench: Bench, plan: Plan, jobs: int) -> list[bool]:
    """Measure what is missing of a plan, some points at once, and write its report; of each point whether it is there.

    Raises:
        TokcodecError: a clip cannot be read, or there is no point.
    """
    bench = dataclasses.replace(bench, results=plan.out)
    plan.out.mkdir(parents=True, exist_ok=True)
    stored = {} if bench.is_forced else read_points(plan.out)
    clips = [prepare(bench.tools, each, plan.size, plan.frames, bench.work / "references") for each in plan.sources]
    to_do = [
        (bench, clip, reference, MODES[name], rate, stored.get(title_of(clip.key, name, rate)))
        for clip, reference in clips
        for name, rates in plan.rates.items()
        for rate in rates
    ]
    with ThreadPoolExecutor(jobs) as pool:
        good = list(pool.map(lambda job: one_point(*job), to_do))
    write_report(plan.out, bench.work / "frames")
    return good


def one_point(bench: Bench, clip: Clip, reference: Path, mode: Mode, rate: int, stored: Point | None) -> bool:
    """Measure one point and store it, as far as it is not there; False if it failed, which stderr tells."""
    wanted = identity(bench, clip, mode, rate)
    if stored is not None and same(stored, wanted) and same(stored.get("scored_by", {}), bench.scored_by(clip)):
        return True
    title = f"{clip.key} {mode.name} {mode.encoder.rate_name} {rate}"
    try:
        point = measure(bench, wanted, clip, reference, mode, rate, stored)
    except TokcodecError as error:
        click.echo(f"failed: {title}: {error}", err=True)
        return False
    write_point(bench.results, title_of(clip.key, mode.name, rate), point)
    means = (f"{name} {point['metrics'][name]['mean']:.4g}" for name in METRICS if name in point["metrics"])
    click.echo(f"{title}: {point['bpp']:.4f} bpp, {', '.join(means)}", err=True)
    return True


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--dataset",
    type=(click.Choice(DATASETS), click.Path(exists=True, path_type=Path)),
    multiple=True,
    help="A data set and its folder.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    type=click.Choice(list(SETS)),
    help="Measure what README quotes, of FILES: sizes, frames, codecs and settings are those of the set.",
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
    help="Backbones of LPIPS; st-vgg is ST-LPIPS.",
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
@click.option("-f", "--force", is_flag=True, help="Code and score also what is measured.")
def main(
    files: tuple[Path, ...],
    dataset: tuple[tuple[str, Path], ...],
    sets: tuple[str, ...],
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
    """Measure tokcodec and other codecs on FILES and data sets, and write a report to --out.

    With --set there is a report of each set, in a folder of its name below --out.
    """
    if not files and not dataset:
        raise click.UsageError("name a file or a --dataset")
    given = click.get_current_context().get_parameter_source
    if sets and any(given(name) is not ParameterSource.DEFAULT for name in ("size", "frames", "rates")):
        raise click.UsageError("a --set has --size, --frames and --rates of its own")
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
        filters = ffmpeg_has(tools.ffmpeg, "filters")
        scorers = scorers_of(tools, filters, judges)
        bench = Bench(tools, filters, judges, threads, out, work, scorers, machine(jobs), force)
        settings = {mode.name: rates.get(mode.name, mode.encoder.rates) for mode in modes}
        sources = [file_source(path) for path in files]
        for name, folder in dataset:
            sources += dataset_sources(name, folder)
        if len({source.name for source in sources}) < len(sources):
            raise click.UsageError("two clips have the same name")
        plans = [Plan(out, sources, size, frames, settings)]
        if sets:
            plans = [plan_of(SETS[name], out / name, sources, settings) for name in sets]
        good = [is_good for plan in plans for is_good in measure_all(bench, plan, jobs)]
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    for plan in plans:
        click.echo(plan.out / "report.html")
    if not all(good):
        raise click.ClickException(f"{good.count(False)} of {len(good)} points failed, see above")


if __name__ == "__main__":
    main()
