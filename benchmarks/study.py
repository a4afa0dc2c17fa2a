"""A blind test by people: which of two codecs with as many bytes looks better beside the original.

    python -m benchmarks.study make CLIP ... --size 640x360 --step 160 --codecs hevc-visual,vvc-visual --out study
    python -m benchmarks.study read answers-*.json --key study.key.json

`make` writes a folder with one page and its videos. Which codec is where is only in the key, a file beside the folder
that nobody who takes part should get. Each video has the original, and below it the two codecs in an order that is
drawn, so all three always show the same frame. The page draws the order of pairs, and which codec stands left, anew for
each person. The other codec has the coarsest setting that has no fewer bytes than tokcodec.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import click
import numpy as np

from benchmarks.clips import Clip, file_source, prepare
from benchmarks.codecs import MODES, TAGS, TOKENIZER, Mode, decode_argv
from benchmarks.provenance import machine, versions
from benchmarks.run import Bench, code, identity, parse_codecs, parse_size
from benchmarks.scoring import Video
from benchmarks.stills import check_shown, coarsest_rate, guessed, rates_of
from benchmarks.tables import OURS, Points, Table, clips_of, load_points
from benchmarks.tools import ToolError, Tools, find_tools, run
from tokcodec.errors import TokcodecError
from tokcodec.io.output import replacing

PAGE = Path(__file__).with_suffix(".html")
VP9 = "-c:v libvpx-vp9 -crf 4 -b:v 0 -deadline realtime -cpu-used 7 -g 30"  # far finer than the codecs
RESAMPLES = 10000
NOTE = (
    "Preference: the share of answers for tokcodec, of each person first, then the mean over people; no difference "
    "counts half. The interval is of 95 %, by bootstrap over people (percentiles of {resamples} resamples: Efron and "
    "Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), which is too narrow if people are few "
    "(Hesterberg, What Teachers Should Know about the Bootstrap, 2015). Bytes: the other's, in units of tokcodec's."
)


class Coded(NamedTuple):
    """A stream of a mode at a setting."""

    mode: Mode
    rate: int
    stream: Path
    bytes: int


def coded(bench: Bench, clip: Clip, reference: Path, mode: Mode, rate: int) -> Coded:
    """The stream that the benchmark has coded, or codes now."""
    stream, known = code(bench, identity(bench, clip, mode, rate), clip, reference, mode, rate)
    return Coded(mode, rate, stream, known["bytes"])


def opponent(bench: Bench, clip: Clip, reference: Path, mode: Mode, ours: Coded, points: Points) -> Coded:
    """The coarsest setting of a codec that has no fewer bytes than tokcodec.

    Raises:
        ToolError: its finest has fewer.
    """

    def size_at(rate: int) -> int:
        return coded(bench, clip, reference, mode, rate).bytes

    of_any_length = (known for known in clips_of(points) if known.rsplit("_", 1)[0] == clip.key.rsplit("_", 1)[0])
    pixels = clip.width * clip.height * clip.frames
    guess = guessed(points, next(of_any_length, clip.key), mode.name, ours.bytes, pixels)
    return coded(bench, clip, reference, mode, coarsest_rate(size_at, ours.bytes, guess, *rates_of(mode)))


def write_video(tools: Tools, clip: Clip, reference: Path, pair: Sequence[Coded], target: Path, threads: int) -> None:
    """Original, first and second codec, one below the other, as VP9 that browsers play.

    Raises:
        ToolError: a program fails, the size is odd, or a codec has not the frames of the clip.
    """
    if clip.width % 2 or clip.height % 2:
        raise ToolError(f"{clip.key}: width and height must be even; name a --size")
    with tempfile.TemporaryDirectory() as folder:
        videos = [Video(reference, rgb=True)]
        for one in pair:
            is_ours = one.mode.encoder is TOKENIZER
            decoded = Path(folder) / f"{len(videos)}.mkv"
            if is_ours:
                run(decode_argv(tools, one.mode, one.stream, decoded, threads))
            videos.append(Video(decoded if is_ours else one.stream, rgb=is_ours))
        inputs = [word for video in videos for word in ("-r", clip.fps, "-i", str(video.path))]
        parts = [f"[{i}:v]{video.to_yuv},setsar=1[v{i}]" for i, video in enumerate(videos)]
        stack = ";".join([*parts, "[v0][v1][v2]vstack=inputs=3:shortest=1[v]"])
        plain = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", str(threads)]
        argv = [tools.ffmpeg, "-v", "error", "-y", *inputs, "-filter_complex", stack, "-map", "[v]"]
        run([*argv, *VP9.split(), *TAGS, *plain, "-f", "webm", str(target)])
    with av.open(str(target)) as file:
        count = sum(1 for packet in file.demux(video=0) if packet.size)
    if count != clip.frames:
        raise ToolError(
            f"{clip.key}: {count} of {clip.frames} frames came out of {' and '.join(p.mode.name for p in pair)}"
        )


def page_of(study: str, trials: Sequence[Mapping[str, Any]]) -> str:
    """The page of a study: it knows of every pair its name and its size."""
    known = json.dumps({"id": study, "trials": list(trials)})
    return PAGE.read_text().replace("const study = STUDY;", f"const study = {known};")


Answers = dict[str, int]  # by trial the part of the video that is better: 1, 2, or 0 for no difference


def read_key(path: Path) -> dict[str, Any]:
    """The key of a study.

    Raises:
        TokcodecError: it cannot be read, or is none.
    """
    try:
        key = json.loads(path.read_text())
        for trial in key["trials"].values():
            if sorted(one == OURS for one in trial["codecs"]) != [False, True]:
                raise ValueError("a pair is not of tokcodec and another codec")
            str(key["study"]), trial["clip"], trial["step"], float(trial["ratio"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokcodecError(f"{path}: not the key of a study ({error})") from error
    return dict(key)


def read_answers(path: Path, key: Mapping[str, Any]) -> tuple[str, Answers]:
    """Who answered, and what.

    Raises:
        TokcodecError: it cannot be read, is of another study, or holds no answers to its pairs.
    """
    try:
        found = json.loads(path.read_text())
        answers = {answer["trial"]: answer["better"] for answer in found["answers"]}
        count, person, study = len(found["answers"]), str(found["person"]), found["study"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TokcodecError(f"{path}: no answers of a study ({error})") from error
    if study != key["study"]:
        raise TokcodecError(f"{path}: its answers are to another study")
    if not answers or len(answers) < count:
        raise TokcodecError(f"{path}: no answers, or two to one pair")
    if not answers.keys() <= key["trials"].keys() or any(value not in (0, 1, 2) for value in answers.values()):
        raise TokcodecError(f"{path}: an answer is to no pair of the study, or is none")
    return person, answers


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of a mean by bootstrap, the percentiles of `RESAMPLES` resamples; None of fewer than 2 values."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(0).choice(np.asarray(values, float), (RESAMPLES, len(values)))
    low, high = np.percentile(drawn.mean(1), [2.5, 97.5])
    return float(low), float(high)


def preferences(key: Mapping[str, Any], people: Mapping[str, Answers]) -> Table:
    """How people prefer tokcodec to every other codec, over all clips and by clip."""
    header = ["against", "step", "clip", "bytes", "people", "answers", "tokcodec", "no difference", "other"]
    table = Table("Preference", NOTE.format(resamples=RESAMPLES), [*header, "preference", "95 %"])
    rows: dict[tuple[str, str, str], list[str]] = {}  # trials by what a row is of
    for name, trial in sorted(key["trials"].items(), key=lambda item: str(item[1]["clip"])):
        other = next(one for one in trial["codecs"] if one != OURS)
        for clip in ("all", str(trial["clip"])):
            rows.setdefault((other, str(trial["step"]), clip), []).append(name)
    for title, trials in sorted(rows.items(), key=lambda row: (row[0][:2], row[0][2] != "all")):
        scores = [
            [_score(key["trials"][name]["codecs"], answers[name]) for name in trials if name in answers]
            for answers in people.values()
        ]
        scores = [each for each in scores if each]
        if not scores:
            continue
        every = [score for each in scores for score in each]
        means = [float(np.mean(each)) for each in scores]
        bounds = interval(means)
        ratio = np.mean([key["trials"][name]["ratio"] for name in trials])
        counts = [str(every.count(score)) for score in (1, 0.5, 0)]
        shown = "" if bounds is None else f"{bounds[0]:.0%} to {bounds[1]:.0%}"
        cells = [f"{ratio:.3f}", str(len(scores)), str(len(every)), *counts, f"{np.mean(means):.0%}", shown]
        table.rows.append([*title, *cells])
    return table


def _score(codecs: Sequence[str], better: int) -> float:
    """1 where tokcodec is better, 0 where the other is."""
    return 0.5 if better == 0 else float(codecs[better - 1] == OURS)


@click.group()
def main() -> None:
    """Have people compare tokcodec and other codecs blindly."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--size", callback=parse_size, help="Scale to WxH first, as 640x360.")
@click.option("--frames", default=150, show_default=True, type=click.IntRange(2), help="Frames of each clip, at most.")
@click.option("--step", "steps", default=(160,), multiple=True, show_default=True, type=click.IntRange(1))
@click.option("--codecs", "modes", default="hevc-visual,vvc-visual", show_default=True, callback=parse_codecs)
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Measured points.")
@click.option("--seed", type=int, help="Draws names, and the order of codecs in videos [another each time].")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1))
@click.option(
    "--out", default=Path("study"), show_default=True, type=click.Path(path_type=Path), help="Folder to make."
)
@click.option("--key", type=click.Path(path_type=Path), help="File that says which codec is where [OUT.key.json].")
@click.option("--work", default=Path("bench-out/work"), show_default=True, type=click.Path(path_type=Path))
def make(
    files: tuple[Path, ...],
    size: tuple[int, int] | None,
    frames: int,
    steps: tuple[int, ...],
    modes: list[Mode],
    results: Path | None,
    seed: int | None,
    threads: int,
    out: Path,
    key: Path | None,
    work: Path,
) -> None:
    """Make a study of FILES: a folder with a page, and beside it a key. Streams in --work are not coded again."""
    key = key or out.with_name(f"{out.name}.key.json")
    if any(mode.encoder is TOKENIZER for mode in modes):
        raise click.UsageError("--codecs names the others: tokcodec is in every pair")
    seed = secrets.randbits(32) if seed is None else seed
    drawn = random.Random(seed)
    study = f"{drawn.getrandbits(32):08x}"
    trials: dict[str, dict[str, Any]] = {}
    try:
        if out.exists() or key.exists():
            raise TokcodecError(f"{out} or {key} exists")
        if out.resolve() in key.resolve().parents:
            raise TokcodecError(f"{key}: the key must not be in the folder that people get")
        tools = find_tools()
        points = load_points(results) if results else {}
        bench = Bench(tools, frozenset(), {}, threads, out, work, {}, machine(1), False)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as name:
            made = Path(name) / "study"
            (made / "videos").mkdir(parents=True)
            pages = []
            for path in files:
                clip, reference = prepare(tools, file_source(path), size, frames, work / "references")
                check_shown(clip, path)
                for step in steps:
                    ours = coded(bench, clip, reference, MODES[OURS], step)
                    for mode in modes:
                        other = opponent(bench, clip, reference, mode, ours, points)
                        pair = drawn.sample([ours, other], 2)
                        trial = f"{drawn.getrandbits(32):08x}"
                        write_video(tools, clip, reference, pair, made / "videos" / f"{trial}.webm", threads)
                        pages.append({"id": trial, "width": clip.width, "height": clip.height})
                        trials[trial] = {
                            "clip": clip.key,
                            "step": step,
                            "codecs": [one.mode.name for one in pair],
                            "rates": [one.rate for one in pair],
                            "bytes": [one.bytes for one in pair],
                            "ratio": other.bytes / ours.bytes,
                        }
                        click.echo(f"{clip.key}: step {step}, {mode.name} {other.rate}", err=True)
            (made / "index.html").write_text(page_of(study, sorted(pages, key=lambda each: str(each["id"]))))
            content = {"study": study, "seed": seed, "versions": versions(tools), "trials": trials}
            with replacing(key, []) as partial:
                partial.write_text(json.dumps(content, indent=1) + "\n")
            made.rename(out)
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    click.echo(out / "index.html")


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Of the study."
)
def read(files: tuple[Path, ...], key: Path) -> None:
    """Count the answers in FILES, one of each person, and print the preferences as Markdown."""
    try:
        known, people = read_key(key), {}
        for path in files:
            person, answers = read_answers(path, known)
            if person in people:
                raise TokcodecError(f"{path}: the answers of this person are given twice")
            people[person] = answers
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    click.echo(preferences(known, people).markdown(), nl=False)


if __name__ == "__main__":
    main()
