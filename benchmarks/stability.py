"""How even clips are in time: fade, pop, pulse and ghosts of tokcodec, and of x265 and VVenC with as many bytes.

    python -m benchmarks.stability CLIP ... --quality 4 --out stability.json

Clips should be longer than a chunk (257 frames), so that the border of one is judged. All codecs are judged by
tokcodec's borders, on the same frames.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from benchmarks.clips import Clip, file_source, prepare
from benchmarks.codecs import MODES, TOKENIZER, VVENC, X265, Encoder, decode_argv
from benchmarks.provenance import machine, versions
from benchmarks.run import NETS, borders_of, load_judges, parse_size
from benchmarks.scoring import Video, rgb_scores, yuv_scores
from benchmarks.tools import Tools, find_tools, run
from tokcodec.errors import TokcodecError
from tokcodec.io.output import replacing
from tokcodec.rate import QUALITIES
from tokcodec.scoring.scores import METRICS, mse_of, summary
from tokcodec.scoring.stability import stability
from tokcodec.scoring.vmaf import YUV_FROM_RGB, ffmpeg_has

TRIES = 4  # encodes until a codec has no fewer bytes than tokcodec
OTHERS = {  # by encoder: its name for people, and the options of each pass at `{rate}` bit/s
    X265: (
        "x265 slow, two passes",
        tuple(
            f"-preset slow -b:v {{rate}} -x265-params info=0:pools={{threads}}:frame-threads=1:keyint=250:pass={n}"
            for n in (1, 2)
        ),
    ),
    VVENC: (
        "VVenC medium, tuned for the eye",
        ("-preset medium -qpa 1 -period 10 -b:v {rate} -threads {threads}",),
    ),
}


def with_bytes(encode: Callable[[int], int], wanted: int, rate: int) -> int:
    """Encode at a rising rate until the stream has `wanted` bytes; at most `TRIES` times. What it has in the end.

    Args:
        encode: makes the stream at a rate in bit/s and gives its bytes.
        rate: where to begin.
    """
    size = 0
    for _ in range(TRIES):
        size = encode(rate)
        if size >= wanted:
            break
        rate = int(rate * (1.005 * wanted / size)) + 1
    return size


def encode_at(tools: Tools, encoder: Encoder, rate: int, reference: Path, stream: Path, threads: int) -> int:
    """Code the lossless RGB file `reference` to `stream` at `rate` bit/s, in all passes; its bytes."""
    convert = ["-vf", f"{YUV_FROM_RGB},format=yuv420p10le", "-fps_mode", "passthrough"]
    for options in OTHERS[encoder][1]:
        coded = ["-c:v", encoder.name, *options.format(rate=rate, threads=threads).split()]
        head = [tools.ffmpeg, "-v", "error", "-y", "-i", str(reference)]
        run([*head, *convert, *coded, "-f", encoder.format, str(stream)], stream.parent)
    return stream.stat().st_size


def judged(scores: Mapping[str, list[float]], borders: Sequence[int]) -> dict[str, Any]:
    """Fade, pop and pulse, and of every score the mean and the worst 5 % of frames.

    Args:
        scores: per frame, by the names of `METRICS`.
        borders: frames that begin a chunk, besides the first.
    """
    sums = {name: summary(scores[name]) for name in METRICS if scores.get(name)}
    worst = {name: found["p95" if METRICS[name].lower_is_better else "p5"] for name, found in sums.items()}
    even = stability([mse_of(psnr) for psnr in scores["psnr_rgb_db"]], borders)
    return asdict(even) | {"mean": {name: found["mean"] for name, found in sums.items()}, "worst": worst}


def measured(
    tools: Tools, clip: Clip, reference: Path, quality: int, judges: Mapping[str, nn.Module], threads: int
) -> dict[str, Any]:
    """A clip by all codecs that there are.

    Raises:
        TokcodecError: a program fails, or what comes back is not the same frames.
    """
    filters = ffmpeg_has(tools.ffmpeg, "filters")

    def scored(video: Video, borders: Sequence[int]) -> dict[str, Any]:
        pair = tools, Video(reference, rgb=True), video, (clip.height, clip.width)
        scores = rgb_scores(*pair, judges, clip.frames)
        return judged(scores | yuv_scores(*pair, clip.fps, filters, threads, clip.frames), borders)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stream, decoded = folder / "a.tokc", folder / "a.mkv"
        run([tools.tokcodec, "encode", str(reference), str(stream), "--quality", str(quality)])
        run(decode_argv(tools, MODES[TOKENIZER.name], stream, decoded, threads))
        borders, wanted = borders_of(stream), stream.stat().st_size
        codecs = [{"codec": "tokcodec", "bytes": wanted, **scored(Video(decoded, rgb=True), borders)}]
        for encoder, (label, _) in OTHERS.items():
            if encoder.name not in ffmpeg_has(tools.ffmpeg, "encoders"):
                click.echo(f"left out: this FFmpeg has no {encoder.name}", err=True)
                continue
            other = folder / f"a.{encoder.format}"
            size = with_bytes(
                lambda rate, encoder=encoder, other=other: encode_at(  # type: ignore[misc]
                    tools, encoder, rate, reference, other, threads
                ),
                wanted,
                int(8 * wanted * Fraction(clip.fps) / clip.frames),
            )
            codecs.append({"codec": label, "bytes": size, **scored(Video(other, rgb=False), borders)})
    return {"clip": asdict(clip), "quality": quality, "borders": borders, "codecs": codecs}


def table(result: Mapping[str, Any]) -> str:
    """The clips as a Markdown table."""
    shown = {"psnr_rgb_db": "PSNR-RGB, dB", "ghosts": "ghosts, %"}
    shown |= {
        name: METRICS[name].label for name in ("vmaf", "vmaf_neg", "lpips_alex", "stlpips_vgg") if name in METRICS
    }
    having = [
        name for name in shown if all(name in each["mean"] for clip in result["clips"] for each in clip["codecs"])
    ]
    heads = [
        "clip",
        "codec",
        "bytes",
        "fade, dB",
        "pop",
        "pulse, dB",
        *(f"{shown[name]}: mean / worst 5 %" for name in having),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for clip in result["clips"]:
        for each in clip["codecs"]:
            pulse = "" if each["pulse_db"] is None else f"{each['pulse_db']:.2f} (of {each['period']})"
            even = [
                "" if each[name] is None else f"{each[name]:.{digits}f}"
                for name, digits in (("fade_db", 2), ("pop", 1))
            ]
            pairs = [f"{each['mean'][name]:.3g} / {each['worst'][name]:.3g}" for name in having]
            lines.append(
                f"| {' | '.join([clip['clip']['name'], each['codec'], str(each['bytes']), *even, pulse, *pairs])} |"
            )
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--quality", default=4, show_default=True, type=click.IntRange(1, QUALITIES))
@click.option("--size", callback=parse_size, default="640x360", show_default=True, help="Scale to WxH first.")
@click.option("--frames", default=150, show_default=True, type=click.IntRange(2), help="Of each clip, at most.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
@click.option("--lpips", "nets", multiple=True, type=click.Choice(NETS), help="Also LPIPS.")
@click.option("--lpips-dir", type=click.Path(exists=True, path_type=Path), help="Folder with LPIPS backbones.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1))
def main(
    files: tuple[Path, ...],
    quality: int,
    size: tuple[int, int] | None,
    frames: int,
    out: Path,
    nets: tuple[str, ...],
    lpips_dir: Path | None,
    threads: int,
) -> None:
    """Measure how even FILES are in time at a quality of tokcodec, and with the same bytes by x265 and VVenC."""
    torch.set_num_threads(threads)
    try:
        tools, judges = find_tools(), load_judges(nets, lpips_dir)
        result: dict[str, Any] = {"machine": machine(1), "versions": versions(tools), "clips": []}
        with tempfile.TemporaryDirectory() as work:
            for path in files:
                clip, reference = prepare(tools, file_source(path), size, frames, Path(work))
                result["clips"].append(measured(tools, clip, reference, quality, judges, threads))
                click.echo(f"{clip.key}: done", err=True)
        with replacing(out, [], overwrite=True) as partial:
            partial.write_text(json.dumps(result, indent=1) + "\n")
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(result), nl=False)


if __name__ == "__main__":
    main()
