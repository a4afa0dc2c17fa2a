"""What the restorers of weights are worth: scores of the same coded clips by the loop alone and behind each network.

`python -m benchmarks.restorers CLIPS... --weights A --weights B` prints a table and writes a JSON file: how weights are
chosen. `benchmarks.run` compares the whole codec with other ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.floor import steps
from benchmarks.provenance import machine
from tokcodec.compute import Compute
from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.tokenizer import Tokenizer
from tokcodec.training.evaluate import load_clips, scores
from tokcodec.weights import Weights, find_weights

METRICS = {"lpips": ".4f", "psnr_db": ".2f", "temporal_psnr_db": ".2f", "vmaf": ".1f"}  # those of `evaluate.scores`


def tiers_of(weights: Weights) -> dict[str, Tokenizer]:
    """A tokenizer for the loop alone and for each network that the weights hold."""
    return {
        tier: Tokenizer(weights, Compute("cpu", "float32", restorer=tier)) for tier in ("off", *sorted(weights.configs))
    }


def measured(paths: list[Path], clips: dict[str, Frames], coarseness: list[float], judge: Any) -> list[dict[str, Any]]:
    """A row for every clip, step, weights and tier."""
    rows = []
    for path in paths:
        tiers = tiers_of(Weights.load(path))
        for clip, frames in clips.items():
            for step in coarseness:
                coding = tiers["off"].encode(frames, step)
                for tier, tokenizer in tiers.items():
                    shown = np.concatenate([*tokenizer.pictures(coding, step, *frames.shape[1:3])])
                    row = {"weights": path.name, "restorer": tier, "clip": clip, "step": step}
                    rows.append(row | scores(judge, shown, frames))
    return rows


def means_of(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    """The mean of every score over clips and steps, by weights and tier."""
    names = dict.fromkeys((row["weights"], row["restorer"]) for row in rows)
    return {
        name: {
            metric: float(np.mean([row[metric] for row in rows if (row["weights"], row["restorer"]) == name]))
            for metric in METRICS
            if metric in rows[0]
        }
        for name in names
    }


@click.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--weights", multiple=True, type=click.Path(exists=True, path_type=Path), help="[default: those of the package]"
)
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--steps", "coarseness", callback=steps, default="48,128", show_default=True)
@click.option("--lpips-dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(clips: Path, weights: tuple[Path, ...], out: Path, coarseness: list[float], lpips_dir: Path | None) -> None:
    """Score the restorers on the first 17 frames of every video below the folder CLIPS, scaled down to 360 rows."""
    paths = [find_weights(path) for path in weights or (None,)]
    try:
        rows = measured(paths, load_clips(clips), coarseness, load_lpips("alex", lpips_dir))
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    for (name, tier), mean in means_of(rows).items():
        told = "  ".join(f"{metric} {score:{METRICS[metric]}}" for metric, score in mean.items())
        click.echo(f"{name:32} {tier:5} {told}")
    digests = {path.name: Weights.load(path).sha256.hex() for path in paths}
    out.write_text(json.dumps({"machine": machine(1), "weights": digests, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
