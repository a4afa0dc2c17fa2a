"""The loop by itself: real coded bytes, LPIPS and PSNR of what motion, KLT and coder make without a network.

`python -m benchmarks.floor CLIPS...` writes a JSON file. It is the floor from which training starts: the same bytes are
scored as the network shows them too. With `--against` it prints the bits that are saved or lost at equal score against
an earlier file: how one tool of the loop is measured alone. `benchmarks.run` compares the whole codec with other ones.
"""

from __future__ import annotations

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from torch import nn

from benchmarks.bdrate import bd_rate
from benchmarks.clips import file_source, prepare
from benchmarks.provenance import machine
from benchmarks.run import parse_size
from benchmarks.tools import find_tools
from tokcodec.coding.planes import from_rgb, to_rgb
from tokcodec.compute import Compute
from tokcodec.dtypes import Frames
from tokcodec.rate import STEP_UNITS, whole_units
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.scoring.scores import lpips_distance, mean_psnr_db, mean_temporal_psnr_db
from tokcodec.scoring.stability import stability
from tokcodec.stream.entropy import encode_chunk
from tokcodec.tokenizer import Tokenizer
from tokcodec.video import VideoReader
from tokcodec.weights import Weights, find_weights


def point(tokenizer: Tokenizer, judge: nn.Module, frames: Frames, step: float, every: int) -> dict[str, Any]:
    """Code a clip as one chunk: its bytes, time, and scores of every n-th frame (PSNR: of all)."""
    began_s = time.monotonic()
    coding = tokenizer.encode(frames, step)
    encoded_s = time.monotonic() - began_s
    _, motion, levels = encode_chunk(coding.tokens, round(step * STEP_UNITS), tokenizer.tables)
    decoded = to_rgb(coding.base, *frames.shape[1:3])
    luma = np.square(from_rgb(frames).y.astype(np.float32) - coding.base.y).mean((1, 2))
    even = stability(luma)
    shown = np.concatenate([*tokenizer.pictures(coding, step, *frames.shape[1:3])])
    return {
        "bpp": 8 * (len(motion) + len(levels)) / (frames.size / 3),
        "motion_bpp": 8 * len(motion) / (frames.size / 3),
        "lpips_alex": lpips_distance(judge, frames, decoded, every),
        "psnr_rgb_db": mean_psnr_db(frames, decoded),
        "temporal_psnr_db": mean_temporal_psnr_db(frames, decoded),
        "fade_db": even.fade_db,
        "pulse_db": even.pulse_db,
        "spans": coding.tokens.spans.tolist(),
        "last_psnr_rgb_db": mean_psnr_db(frames[-1:], decoded[-1:]),
        "network_lpips_alex": lpips_distance(judge, frames, shown, every),
        "network_psnr_rgb_db": mean_psnr_db(frames, shown),
        "network_temporal_psnr_db": mean_temporal_psnr_db(frames, shown),
        "encode_fps": len(frames) / encoded_s,
    }


def network_gain(points: list[dict[str, Any]]) -> dict[str, float | None]:
    """BD-rate of the network over the loop alone at equal LPIPS and PSNR, in percent: the mean of the clips that have
    one, None without any."""
    gains: dict[str, float | None] = {}
    for name, sign in (("lpips_alex", -1), ("psnr_rgb_db", 1)):
        rates = []
        for clip in dict.fromkeys(p["clip"] for p in points):
            own = [p for p in points if p["clip"] == clip]
            alone, shown = ([(p["bpp"], sign * p[key]) for p in own] for key in (name, f"network_{name}"))
            rate = bd_rate(alone, shown).percent
            if rate is not None:
                rates.append(rate)
        gains[name] = float(np.mean(rates)) if rates else None
    return gains


METRICS = {
    "lpips_alex": -1,
    "psnr_rgb_db": 1,
    "temporal_psnr_db": 1,
    "network_lpips_alex": -1,
    "network_psnr_rgb_db": 1,
    "network_temporal_psnr_db": 1,
}  # 1 where more is better


def gain_over(before: list[dict[str, Any]], points: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Bits saved (below 0) or lost at equal score against earlier points, in percent, by metric and clip.

    A clip without a curve in both is left out; "mean" is that of the others.
    """
    table: dict[str, dict[str, float]] = {}
    for name, sign in METRICS.items():
        rates: dict[str, float] = {}
        for clip in dict.fromkeys(p["clip"] for p in points):
            curves = [
                [(p["bpp"], sign * p[name]) for p in of if p["clip"] == clip and name in p] for of in (before, points)
            ]
            rate = bd_rate(*curves).percent
            if rate is not None:
                rates[clip] = round(rate, 1)
        if rates:
            table[name] = {"mean": round(float(np.mean(list(rates.values()))), 1)} | rates
    return table


def steps(context: click.Context, parameter: click.Parameter, text: str) -> list[float]:
    try:
        return [whole_units(float(part)) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter("numbers separated by commas") from None


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="[default: those of the package]")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--steps", "coarseness", callback=steps, default="32,64,112,192", show_default=True)
@click.option("--size", callback=parse_size, default="640x360", show_default=True)
@click.option("--frames", default=65, show_default=True)
@click.option("--every", default=5, show_default=True, help="LPIPS of every n-th frame: not of keys alone.")
@click.option("--against", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="An earlier file.")
@click.option("--lpips-dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(
    clips: tuple[Path, ...],
    weights: Path | None,
    out: Path,
    coarseness: list[float],
    size: tuple[int, int] | None,
    frames: int,
    every: int,
    against: Path | None,
    lpips_dir: Path | None,
) -> None:
    """Code the first frames of each of CLIPS at several steps."""
    tokenizer = Tokenizer(Weights.load(find_weights(weights)), Compute(dtype="float32"))
    judge, tools = load_lpips("alex", lpips_dir), find_tools()
    points = []
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(2) as pool:
        for path in clips:
            clip, reference = prepare(tools, file_source(path), size, frames, Path(work))
            with VideoReader(reference) as reader:
                pixels = np.stack([frame for frame, _ in reader])
            for step, found in zip(
                coarseness, pool.map(lambda s, p=pixels: point(tokenizer, judge, p, s, every), coarseness), strict=True
            ):
                points.append({"clip": clip.key, "step": step, **found})
                click.echo(json.dumps(points[-1]))
    numbers = [k for k in points[0] if k != "step" and all(isinstance(p[k], float) for p in points)]
    means = [
        {"step": s, **{k: float(np.mean([p[k] for p in points if p["step"] == s])) for k in numbers}}
        for s in coarseness
    ]
    gain = network_gain(points)
    for line in (*means, gain):
        click.echo(json.dumps(line))
    compared = {} if against is None else gain_over(json.loads(against.read_text())["points"], points)
    for name, rates in compared.items():
        click.echo(f"{name}: " + ", ".join(f"{clip} {rate:+.1f} %" for clip, rate in rates.items()))
    about = {
        "weights_sha256": tokenizer.weights.sha256.hex(),
        "numpy": np.__version__,
        "machine": machine(2),
    }
    found = {"lpips_every": every, "network_bd_rate_percent": gain, "means": means, "points": points}
    out.write_text(json.dumps(about | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
