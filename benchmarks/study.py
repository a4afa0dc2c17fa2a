"""A blind test: people see the original between two codecs at equal bytes, and say which is nearer to it.

    python -m benchmarks.study make CLIP ... --size 640x360 --out study     # study/page/index.html, study/key.json
    python -m benchmarks.study read study/key.json answers-*.json           # preference, with its interval

The folder `page` may be given to anyone: neither names nor order in it tell which codec is on which side. Who has
answered saves a file; `key.json` says what the pairs were.
"""

from __future__ import annotations

import hashlib
import html
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from math import sqrt
from pathlib import Path
from typing import Any

import click

from benchmarks.clips import Clip, file_source, prepare
from benchmarks.codecs import MODES, TAGS, Mode, decode_argv, encode_argv
from benchmarks.run import parse_codecs, parse_size
from benchmarks.stills import RATE_RANGE, coarsest_rate, guessed
from benchmarks.tables import OURS, Points, load_points, named
from benchmarks.tools import Tools, find_tools, run
from tokcodec.errors import TokcodecError
from tokcodec.io.output import replacing
from tokcodec.scoring.vmaf import YUV_FROM_RGB
from tokcodec.training.judged import judged_clips

Z_95 = 1.959964  # of the normal distribution: 95 % lie within
ANSWERS = ("first", "second", "same")  # of a pair: which is nearer to the original


@dataclass(frozen=True)
class Coded:
    """A clip by a codec: the file that a browser plays, and the bytes of the stream."""

    codec: str
    rate: int
    bytes: int
    video: Path


class Coder:
    """Codes a clip, each rate once, and makes files that a browser plays.

    Args:
        folder: where streams and videos are kept.
    """

    def __init__(self, tools: Tools, clip: Clip, reference: Path, threads: int, folder: Path) -> None:
        self._tools, self._clip, self._reference = tools, clip, reference
        self._threads, self._folder = threads, folder

    def _stream(self, mode: Mode, rate: int) -> Path:
        stream = self._folder / f"{self._clip.key}__{mode.name}__{rate}.{mode.encoder.format}"
        if not stream.exists():
            part = stream.with_name(f"part-{stream.name}")
            run(encode_argv(self._tools, mode, rate, self._reference, part, self._threads))
            part.rename(stream)
        return stream

    def size(self, mode: Mode, rate: int) -> int:
        """Bytes of its stream."""
        return self._stream(mode, rate).stat().st_size

    def coded(self, mode: Mode, rate: int) -> Coded:
        """The clip by a codec at a rate."""
        stream = self._stream(mode, rate)
        video = stream.with_suffix(".mp4")
        if mode.name == OURS:
            with tempfile.TemporaryDirectory(dir=self._folder) as name:
                decoded = Path(name) / "decoded.mkv"
                run(decode_argv(self._tools, mode, stream, decoded, self._threads))
                self.playable(decoded, video, rgb=True)
        else:
            self.playable(stream, video, rgb=False)
        return Coded(mode.name, rate, stream.stat().st_size, video)

    def playable(self, source: Path, target: Path, *, rgb: bool) -> None:
        """H.264 that every browser plays, so fine (CRF 8) that it hides nothing; timestamps from the rate alone."""
        convert = f"{YUV_FROM_RGB},format=yuv420p" if rgb else "format=yuv420p"
        head = [self._tools.ffmpeg, "-v", "error", "-y", "-i", str(source)]
        at_rate = f"setpts=N/({self._clip.fps})/TB,fps={self._clip.fps}"
        coding = ["-c:v", "libx264", "-preset", "medium", "-crf", "8", "-movflags", "+faststart", *TAGS]
        run([*head, "-an", "-vf", f"{convert},{at_rate}", *coding, "-map_metadata", "-1", str(target)])


def at_equal_bytes(coder: Coder, clip: Clip, mode: Mode, wanted: int, points: Points) -> Coded:
    """A clip by another codec, at the coarsest rate that gives at least `wanted` bytes.

    Raises:
        ToolError: even its finest rate gives fewer, or a program fails.
    """
    guess = guessed(points, clip.key, mode.name, wanted, clip.width * clip.height * clip.frames)
    highest = 51 if mode.encoder.rate_name == "crf" and mode.encoder.format != "obu" else RATE_RANGE[1]
    return coder.coded(mode, coarsest_rate(lambda rate: coder.size(mode, rate), wanted, guess, RATE_RANGE[0], highest))


def page_of(study: str, pairs: int, what: str) -> str:
    """The page: `pairs` are played from NNN-original.mp4, NNN-first.mp4 and NNN-second.mp4 beside it."""
    template = resources.files("benchmarks").joinpath("study.html").read_text()
    return template.replace("STUDY", study).replace("PAIRS", str(pairs)).replace("WHAT", html.escape(what))


def write_study(
    out: Path, pairs: Sequence[tuple[Clip, Path, Coded, Coded]], step: int, rng: random.Random
) -> dict[str, Any]:
    """Write `out/page` and `out/key.json`: pairs in a drawn order, on drawn sides.

    Args:
        pairs: clip, its original as a browser plays it, tokcodec, the other codec.

    Returns:
        The key.
    """
    drawn = rng.sample(list(pairs), len(pairs))
    (out / "page").mkdir(parents=True)
    key: list[dict[str, Any]] = []
    for number, (clip, original, ours, other) in enumerate(drawn):
        sides = rng.sample([ours, other], 2)
        for name, video in zip(("original", *ANSWERS), (original, sides[0].video, sides[1].video), strict=False):
            (out / "page" / f"{number:03}-{name}.mp4").write_bytes(video.read_bytes())
        key.append(
            {"clip": clip.key}
            | {
                side: {"codec": coded.codec, "rate": coded.rate, "bytes": coded.bytes}
                for side, coded in zip(ANSWERS, sides, strict=False)
            }
        )
    study = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    whole = {"study": study, "step": step, "pairs": key}
    (out / "page" / "index.html").write_text(page_of(study, len(key), f"{len(key)} pairs"))
    with replacing(out / "key.json", [], overwrite=False) as partial:
        partial.write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share of `count` answers (Wilson, Probable Inference, JASA 22, 1927)."""
    centre = (share + Z_95**2 / (2 * count)) / (1 + Z_95**2 / count)
    half = Z_95 / (1 + Z_95**2 / count) * sqrt(share * (1 - share) / count + (Z_95 / (2 * count)) ** 2)
    return centre - half, centre + half


def read_json(path: Path) -> dict[str, Any]:
    """
    Raises:
        TokcodecError: it cannot be read, or is no object.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TokcodecError(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise TokcodecError(f"{path}: this is no object of JSON")
    return found


def tallied(key: dict[str, Any], files: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """By codec how often tokcodec, it and neither was nearer to the original.

    Args:
        key: of the study.
        files: the answers of people, with the names of their files.

    Raises:
        TokcodecError: a file is of another study, or holds what is no answer.
    """
    tally: dict[str, dict[str, float]] = {}
    for path, person in files:
        if person.get("study") != key["study"]:
            raise TokcodecError(f"{path}: these are answers to another study")
        for number, answer in dict(person.get("answers") or {}).items():
            if answer not in ANSWERS or not str(number).isdecimal() or int(number) >= len(key["pairs"]):
                raise TokcodecError(f"{path}: {number}: {answer!r} is no answer")
            pair = key["pairs"][int(number)]
            codecs = [pair[side]["codec"] for side in ANSWERS[:2]]
            (other,) = [codec for codec in codecs if codec != OURS]
            chosen = "neither" if answer == "same" else codecs[ANSWERS.index(answer)]
            counts = tally.setdefault(other, {"tokcodec": 0, "other": 0, "neither": 0})
            counts[{OURS: "tokcodec", other: "other"}.get(chosen, "neither")] += 1
    return tally


@click.group()
def main() -> None:
    """A blind test of codecs at equal bytes."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@click.option("--size", callback=parse_size, help="Scale to WxH first, as 640x360.")
@click.option("--frames", default=96, show_default=True, type=click.IntRange(2), help="Frames of each clip, at most.")
@click.option("--step", default=112, show_default=True, help="Of tokcodec.")
@click.option("--codecs", "modes", default="hevc-visual,vvc-visual", show_default=True, callback=parse_codecs)
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Measured points.")
@click.option("--seed", default=0, show_default=True, help="Of order and sides.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--work", default=Path("bench-out/work"), show_default=True, type=click.Path(path_type=Path))
def make(
    files: tuple[Path, ...],
    out: Path,
    size: tuple[int, int] | None,
    frames: int,
    step: int,
    modes: list[Mode],
    results: Path | None,
    seed: int,
    threads: int,
    work: Path,
) -> None:
    """Make the page of a study, and its key.

    The others have at least as many bytes as tokcodec for every clip: an encoder has no option for bytes, so its rate
    is the coarsest that gives them.
    """
    try:
        if out.exists():
            raise TokcodecError(f"{out} exists")
        tools, points = find_tools(), load_points(results) if results else {}
        folder = work / "study"
        folder.mkdir(parents=True, exist_ok=True)
        pairs = []
        for path in files:
            clip, reference = prepare(tools, file_source(path), size, frames, work / "references")
            known = judged_clips().get(clip.sha256)
            if known is not None and not known.may_show:
                raise TokcodecError(f"{path}: {known.name} may not be shown")
            coder, original = Coder(tools, clip, reference, threads, folder), folder / f"{clip.key}.mp4"
            coder.playable(reference, original, rgb=True)
            ours = coder.coded(MODES[OURS], step)
            for mode in modes:
                other = at_equal_bytes(coder, clip, mode, ours.bytes, points)
                click.echo(f"{clip.key}: {ours.bytes} bytes, {named(mode.name)} {other.bytes}", err=True)
                pairs.append((clip, original, ours, other))
        write_study(out, pairs, step, random.Random(seed))
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    click.echo(out / "page" / "index.html")


@main.command()
@click.argument("key", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("answers", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def read(key: Path, answers: tuple[Path, ...]) -> None:
    """Tally the ANSWERS of people to the study of KEY.

    "No difference" counts as half an answer for each. The interval takes answers for independent of each other: with
    many of few people it is too narrow.
    """
    try:
        tally = tallied(read_json(key), [(path, read_json(path)) for path in answers])
    except KeyError as error:
        raise click.ClickException(f"{key}: this is no key of a study") from error
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    if not tally:
        raise click.ClickException("there are no answers")
    click.echo(f"{len(answers)} people")
    for codec, counts in sorted(tally.items()):
        total = sum(counts.values())
        share = (counts["tokcodec"] + counts["neither"] / 2) / total
        low, high = wilson(share, total)
        click.echo(
            f"tokcodec against {named(codec)}: {100 * share:.0f} % prefer tokcodec "
            f"({100 * low:.0f} to {100 * high:.0f}); {counts['tokcodec']:.0f} for it, "
            f"{counts['other']:.0f} against, {counts['neither']:.0f} no difference"
        )


if __name__ == "__main__":
    main()
