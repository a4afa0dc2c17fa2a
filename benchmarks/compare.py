"""Which network learns most in the same time: variants of shape and recipe, trained from nothing and judged alike.

    python -m benchmarks.compare DATA --holdout 'video-08*' --out compare-out

trains every variant for the same minutes, learning-rate decay included, and writes `compare.json` and
`compare.md` into the folder. A variant that is in the JSON is not trained again; one that was interrupted starts again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import torch

import tokcodec
from benchmarks.provenance import machine
from benchmarks.tables import Table
from tokcodec.compute import Compute
from tokcodec.errors import TokcodecError
from tokcodec.io.output import replacing
from tokcodec.restorer.device import pick_device, pick_dtype
from tokcodec.training.train import settings_of, train

BASE = "default"
VARIANTS: dict[str, dict[str, Any]] = {  # what each changes in the defaults of `tokcodec train`
    BASE: {},
    "Muon rate .0015": {"muon_lr": 0.0015},
    "Muon rate .006": {"muon_lr": 0.006},
    "AdamW rate .0005": {"adam_lr": 0.0005},
    "AdamW rate .002": {"adam_lr": 0.002},
    "channels 96, 256": {"channels": (96, 256)},
    "channels 64, 128": {"channels": (64, 128)},
    "64 channels at 1/4": {"pixel_channels": 64},
    "32 channels at 1/4": {"pixel_channels": 32},
    "2 blocks at 1/4": {"pixel_blocks": 2},
    "8 features": {"features": 8},
    "batch 2": {"batch": 2},
    "batch 8": {"batch": 8},
    "reconstruction weight .1": {"rec_weight": 0.1},
    "reconstruction weight 1": {"rec_weight": 1.0},
    "LPIPS on 4 frames": {"lpips_frames": 4},
    "no temporal loss": {"temporal_weight": 0.0},
    "windows from the start only": {"late_share": 0.0},
}


def outcome(run: Path) -> dict[str, Any]:
    """Of a finished run: steps, pixels, and the scores of the held-out clips, of the network and of the plain base."""
    last = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
    return {
        "steps": last["step"],
        "pixels": last["pixels"],
        "base": last["val"]["base"],
        "network": last["val"]["network"],
    }


def table(result: dict[str, Any]) -> Table:
    """The variants in order of their LPIPS, and the base."""
    note = (
        f"Each trained from nothing for {result['minutes']:g} minutes on {result['machine']['cpu']} "
        f"({result['dtype']}, threads: {result['threads']}), learning-rate decay included, and judged on "
        "the clips held out. Lower LPIPS (AlexNet) and higher PSNR are better."
    )
    header = ["variant", "seed", "steps", "pixels", "LPIPS", "PSNR (dB)", "temporal PSNR (dB)"]
    made = Table("Comparison at equal time", note, header)

    def shown(scores: dict[str, float]) -> list[str]:
        temporal = scores.get("temporal_psnr_db")
        return [
            f"{scores['lpips']:.4f}",
            f"{scores['psnr_db']:.2f}",
            "" if temporal is None else f"{temporal:.2f}",
        ]

    for run in sorted(result["runs"], key=lambda run: run["network"]["lpips"]):
        counts = [str(run["seed"]), str(run["steps"]), f"{run['pixels'] / 1e6:.0f} M"]
        made.rows.append([run["variant"], *counts, *shown(run["network"])])
    if result["runs"]:
        made.rows.append(["no network", "", "", "", *shown(result["runs"][0]["base"])])
    return made


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--holdout", multiple=True, required=True, help="Names of files to judge on, not to train on.")
@click.option("--out", default=Path("compare-out"), show_default=True, type=click.Path(path_type=Path))
@click.option("--cache", type=click.Path(path_type=Path), help="Decoded data, as for `tokcodec train` [OUT/cache].")
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--seed", "seeds", multiple=True, type=int, default=(0,), show_default=True, help="May be repeated.")
@click.option("--only", multiple=True, type=click.Choice(list(VARIANTS)), help="Some of the variants.")
@click.option("--frames", default=9, show_default=True, help="Of a clip.")
@click.option("--crop", "crop_px", default=192, show_default=True, help="Of a clip, pixels a side.")
@click.option("--tables", type=click.Path(path_type=Path), help="Weights with the loop's tables.")
@click.option("--lpips-dir", type=click.Path(path_type=Path), help="LPIPS backbones, if not torchvision's.")
@click.option("--threads", default=torch.get_num_threads(), show_default=True, help="CPU threads.")
@click.option("--dtype", default="auto", type=click.Choice(["auto", "float32", "bfloat16"]), show_default=True)
def main(
    data: Path,
    holdout: tuple[str, ...],
    out: Path,
    cache: Path | None,
    minutes: float,
    seeds: tuple[int, ...],
    only: tuple[str, ...],
    frames: int,
    crop_px: int,
    tables: Path | None,
    lpips_dir: Path | None,
    threads: int,
    dtype: str,
) -> None:
    """Train variants of the network on DATA for the same time and compare them."""
    torch.set_num_threads(threads)
    book = out / "compare.json"
    fixed = {"holdout": list(holdout), "minutes": minutes, "frames": frames, "crop_px": crop_px}
    fixed |= {"threads": threads, "dtype": str(pick_dtype(dtype, pick_device("auto"))).removeprefix("torch.")}
    versions = {"tokcodec": tokcodec.__version__, "torch": torch.__version__}
    result: dict[str, Any] = fixed | {"machine": machine(1), "versions": versions, "runs": []}
    if book.exists():
        stored = json.loads(book.read_text())
        if any(stored[key] != value for key, value in fixed.items()):
            raise click.ClickException(f"{book} was made with other options; name another --out")
        result = stored
    for variant in only or VARIANTS:
        for seed in seeds:
            if any((run["variant"], run["seed"]) == (variant, seed) for run in result["runs"]):
                continue
            given = {"frames": (frames,), "crop_px": crop_px, "seed": seed, **VARIANTS[variant]}
            settings, config = settings_of(given)
            folder = out / "run"
            shutil.rmtree(folder, ignore_errors=True)
            try:
                trainer = train(
                    data,
                    folder,
                    config,
                    settings,
                    cache=cache or out / "cache",
                    holdout=holdout,
                    tables=tables,
                    minutes=minutes,
                    finish=True,
                    eval_every=10**9,
                    compute=Compute(dtype=dtype),
                    lpips_dir=lpips_dir,
                )
            except TokcodecError as error:
                raise click.ClickException(str(error)) from error
            if trainer is None or trainer.position < 1:  # stopped by a signal, not by the clock
                raise click.Abort
            result["runs"].append({"variant": variant, "seed": seed, "changes": VARIANTS[variant], **outcome(folder)})
            with replacing(book, [], overwrite=True) as partial:
                partial.write_text(json.dumps(result, indent=1) + "\n")
            (out / "compare.md").write_text(table(result).markdown())
    click.echo(out / "compare.md")


if __name__ == "__main__":
    main()
