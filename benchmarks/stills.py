"""Pictures at equal bytes: one frame of a clip as tokcodec shows it, and other codecs with as many bytes for the clip.

    python -m benchmarks.stills CLIP ... --size 640x360 --step 160 --results benchmarks/results/eval-360p

An encoder has no option for bytes, so its rate is searched: the coarsest one whose stream is not smaller than
tokcodec's (the others are never given less). The frames go to `WORK/stills` with a note beside each, from where the
report takes them; `--picture` writes one file of the first clip for README.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from benchmarks.clips import Clip, file_source, prepare
from benchmarks.codecs import MODES, TOKENIZER, X264, X265, Mode, decode_argv, encode_argv
from benchmarks.provenance import code_sha256, ffmpeg_of, weights_sha256
from benchmarks.run import load_judges, parse_codecs, parse_size
from benchmarks.scoring import Video, read_frames, rgb_argv
from benchmarks.tables import OURS, Points, load_points
from benchmarks.tools import ToolError, Tools, find_tools, run, shown
from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.scoring.scores import lpips_distances
from tokcodec.training.judged import judged_clips

RATE_RANGE = (1, 63)
NAMES = {"hevc-medium": "x265 medium", "vvc-ra": "VVenC (PSNR)", "vvc-visual": "VVenC (visual)", "av1": "SVT-AV1"}
LABEL_PX = 26


class Coder:
    """Codes a clip at any rate, once: what is in the folder is taken from there."""

    def __init__(self, tools: Tools, clip: Clip, reference: Path, frame: int, threads: int, folder: Path) -> None:
        self.tools, self.clip, self.reference, self.frame = tools, clip, reference, frame
        self.threads, self.folder = threads, folder

    def still(self, mode: Mode, rate: int) -> dict[str, Any]:
        """Bytes of the stream, and the place of the frame as PNG."""
        ours = mode.encoder is TOKENIZER
        made_by: dict[str, Any] = {"clip": asdict(self.clip), "codec": mode.name, "rate": rate, "frame": self.frame}
        encode = encode_argv(self.tools, mode, rate, Path("/reference.mkv"), Path("/stream"), self.threads)
        made_by["encode"] = shown(encode)
        made_by |= {"code": code_sha256(), "weights": weights_sha256()} if ours else ffmpeg_of(self.tools)
        note = self.folder / f"{self.clip.key}__{mode.name}__{rate}__{self.frame}.json"
        if note.exists():
            stored: dict[str, Any] = json.loads(note.read_text())
            if stored["made_by"] == made_by:
                return stored
        with tempfile.TemporaryDirectory() as name:
            stream, decoded = Path(name) / f"stream.{mode.encoder.format}", Path(name) / "decoded.mkv"
            run(encode_argv(self.tools, mode, rate, self.reference, stream, self.threads))
            if ours:
                run(decode_argv(self.tools, mode, stream, decoded, self.threads))
            pixels = self.read(Video(decoded if ours else stream, rgb=ours))
            size = stream.stat().st_size
        Image.fromarray(pixels).save(note.with_suffix(".png"))
        found = {"codec": mode.name, "rate": rate, "frame": self.frame, "bytes": size, "made_by": made_by}
        note.write_text(json.dumps(found, indent=1) + "\n")
        return found

    def read(self, video: Video) -> Frames:
        """The frame of a video."""
        argv = rgb_argv(self.tools, video, only=self.frame)
        (pixels,) = read_frames(argv, self.clip.height, self.clip.width)
        return pixels

    def picture(self, still: dict[str, Any]) -> Frames:
        name = f"{self.clip.key}__{still['codec']}__{still['rate']}__{still['frame']}.png"
        return np.array(Image.open(self.folder / name))


def coarsest_rate(size_at: Callable[[int], int], wanted: int, guess: int, low: int, high: int) -> int:
    """The largest rate (of which a larger one means fewer bytes) that gives at least `wanted` bytes.

    Args:
        size_at: bytes at a rate.
        guess: where to begin.
        low, high: the rates there are.

    Raises:
        ToolError: even the finest gives fewer.
    """
    rate, stride = min(max(guess, low), high), 1
    enough, few = low - 1, high + 1  # between which the border lies
    while few - enough > 1:
        if size_at(rate) >= wanted:
            enough = rate
        else:
            few = rate
        ahead = rate + stride if enough == rate else rate - stride
        stride *= 2
        rate = ahead if enough < ahead < few else (enough + few) // 2
    if enough < low:
        raise ToolError(f"no rate gives {wanted} bytes")
    return enough


def check_shown(clip: Clip, path: Path) -> None:
    """
    Raises:
        TokcodecError: the licence of a known clip keeps its pictures from being shown.
    """
    known = judged_clips().get(clip.sha256)
    if known is not None and not known.may_show:
        raise TokcodecError(f"{path}: pictures of {known.name} may not be shown")


def rates_of(mode: Mode) -> tuple[int, int]:
    """The finest and the coarsest rate of a reference encoder."""
    return RATE_RANGE[0], 51 if mode.encoder in (X264, X265) else RATE_RANGE[1]


def guessed(points: Points, clip: str, codec: str, size: int, pixels: int) -> int:
    """The rate at which a codec's measured curve has so many bytes, or its end that is nearest."""
    group = points.get((clip, codec), [])
    if not group:
        return sum(RATE_RANGE) // 2
    bits = np.log([point["bpp"] for point in group])
    return round(float(np.interp(np.log(8 * size / pixels), bits, [point["rate"] for point in group])))


def label(judge: nn.Module | None, name: str, size: int, true: Frames, seen: Frames) -> str:
    """What stands under a picture: the bytes of the whole clip, LPIPS of this frame."""
    score = "" if judge is None else f", LPIPS {lpips_distances(judge, true[None], seen[None])[0]:.3f}"
    return f"{name}: {size:,} bytes{score}"


def composed(pictures: Sequence[tuple[str, Frames]]) -> Image.Image:
    """Two columns of pictures, each with a line of text under it."""
    height, width = pictures[0][1].shape[:2]
    rows = -(-len(pictures) // 2)
    sheet = Image.new("RGB", (2 * width + 4, rows * (height + LABEL_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=17)
    for i, (text, pixels) in enumerate(pictures):
        left, top = i % 2 * (width + 4), i // 2 * (height + LABEL_PX)
        sheet.paste(Image.fromarray(pixels), (left, top))
        draw.text((left + 4, top + height + 3), text, fill="black", font=font)
    return sheet


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--size", callback=parse_size, help="Scale to WxH first, as 640x360.")
@click.option("--frames", default=64, show_default=True, type=click.IntRange(2), help="Frames of each clip, at most.")
@click.option("--step", default=160, show_default=True, help="Of tokcodec.")
@click.option("--codecs", "modes", default="hevc-medium,vvc-visual,av1", show_default=True, callback=parse_codecs)
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Measured points.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write the first clip as .webp, .png.")
@click.option("--lpips-dir", type=click.Path(exists=True, path_type=Path), help="Folder with LPIPS backbones.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--work", default=Path("bench-out/work"), show_default=True, type=click.Path(path_type=Path))
def main(
    files: tuple[Path, ...],
    size: tuple[int, int] | None,
    frames: int,
    step: int,
    modes: list[Mode],
    results: Path | None,
    picture: Path | None,
    lpips_dir: Path | None,
    threads: int,
    work: Path,
) -> None:
    """Make pictures of FILES at equal bytes."""
    try:
        tools, judge = find_tools(), load_judges(("alex",), lpips_dir).get("lpips_alex")
        points = load_points(results) if results else {}
        folder = work / "stills"
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            clip, reference = prepare(tools, file_source(path), size, frames, work / "references")
            check_shown(clip, path)
            coder = Coder(tools, clip, reference, clip.frames // 2, threads, folder)
            ours = coder.still(MODES[OURS], step)
            original = coder.read(Video(reference, rgb=True))
            Image.fromarray(original).save(folder / f"{clip.key}__{coder.frame}.png")
            chosen = [ours]
            for mode in modes:
                guess = guessed(points, clip.key, mode.name, ours["bytes"], clip.width * clip.height * clip.frames)
                rate = coarsest_rate(
                    lambda rate, coder=coder, mode=mode: coder.still(mode, rate)["bytes"],  # type: ignore[misc]
                    ours["bytes"],
                    guess,
                    *rates_of(mode),
                )
                chosen.append(coder.still(mode, rate))
            shown = [("original", original)]
            for still in chosen:
                pixels = coder.picture(still)
                name = OURS if still is ours else NAMES.get(still["codec"], still["codec"])
                still["label"] = label(judge, name, still["bytes"], original, pixels)
                shown.append((still["label"], pixels))
                click.echo(f"{clip.key} {still['label']}", err=True)
            (folder / f"{clip.key}.json").write_text(json.dumps({"step": step, "stills": chosen}, indent=1) + "\n")
            if picture is not None and path == files[0]:
                composed(shown[:4]).save(picture, quality=80)
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
