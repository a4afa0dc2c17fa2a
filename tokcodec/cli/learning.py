"""The command that trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tokcodec.cli.options import SEEDS, FileName, Numbers, Within, device_options, examples, shared, use_threads
from tokcodec.compute import Compute
from tokcodec.errors import TokcodecError

folder = click.Path(path_type=Path, file_okay=False)
share = Within(0, 1)
settings_options = shared(  # None leaves a value to the settings, which the text shown repeats
    click.option("--steps", type=click.IntRange(1), show_default="20000", help="Length of the schedule."),
    click.option("--batch", type=click.IntRange(1), show_default="4", help="Windows in each step, over all processes."),
    click.option("--frames", type=Numbers(), show_default="9", help="Lengths of windows: 1 + 4n, at most 33."),
    click.option("--crop", "crop_px", type=click.IntRange(16), show_default="192", help="Pixels a side."),
    click.option("--seed", type=SEEDS, show_default="0", help="Random seed."),
    click.option(
        "--step-range",
        type=Numbers(2),
        show_default="4,120",
        help="Quantizer steps, from and to, to code the data with.",
    ),
    click.option("--passes", type=click.IntRange(1), show_default="1", help="How often the data is coded."),
    click.option(
        "--moving",
        type=click.IntRange(0),
        show_default="0",
        help="Clips of 65 frames to make from photographs, moving as if filmed by hand.",
    ),
    click.option(
        "--smaller",
        type=click.IntRange(0),
        show_default="0",
        help="Clips of 65 frames to make from downscaled footage.",
    ),
    click.option(
        "--focus",
        type=Within(0, 4),
        show_default="0.0",
        help="Draw segments in proportion to this power of the loop's error in them; 0: all equally often.",
    ),
    click.option("--muon-lr", type=Within(0), show_default="0.003", help="Learning rate of kernels."),
    click.option("--muon-momentum", type=Within(0, 1, max_open=True), show_default="0.95", help="Momentum of Muon."),
    click.option("--adam-lr", type=Within(0), show_default="0.001", help="Learning rate of the rest."),
    click.option("--rec-weight", type=Within(0), show_default="0.3", help="Weight of pixel errors in the loss."),
    click.option("--lpips-weight", type=Within(0), show_default="1.0", help="Weight of LPIPS in the loss."),
    click.option("--lpips-frames", type=click.IntRange(1), show_default="2", help="Frames of each window for LPIPS."),
    click.option(
        "--temporal-weight", type=Within(0), show_default="0.5", help="Weight of errors of frame differences."
    ),
    click.option("--image-share", type=share, show_default="0.1", help="Share of steps with single first frames."),
    click.option(
        "--late-share", type=share, show_default="0.5", help="Share of other steps with windows from later groups."
    ),
    click.option(
        "--decay-share",
        type=Within(0, 1, min_open=True),
        show_default="0.3",
        help="Share of the schedule in which the learning rates fall to 0.",
    ),
)
shape_options = shared(
    click.option(
        "--channels", type=Numbers(2), show_default="64,192", help="Channels at 1/8 and 1/16 of the resolution."
    ),
    click.option("--blocks", type=Numbers(3), show_default="1,2,1", help="Blocks at 1/8, at 1/16 and at 1/8 again."),
    click.option("--features", type=click.IntRange(1), show_default="16", help="Channels handed on to 1/4."),
    click.option(
        "--pixel-channels", type=click.IntRange(1), show_default="48", help="Channels at 1/4 of the resolution."
    ),
    click.option("--pixel-blocks", type=click.IntRange(0), show_default="3", help="Blocks at 1/4 of the resolution."),
)


@click.command(
    epilog=examples(
        "train footage --out run",
        "train footage --out run --init own.safetensors --holdout 'test-*' --minutes 60 --finish",
    )
)
@click.argument("data", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--out", type=folder, required=True, help="Folder of the run; a run in it is continued.")
@click.option("--init", type=FileName(".safetensors", ".pt"), help="Start from these weights, or this checkpoint.pt.")
@click.option("--holdout", metavar="PATTERN", multiple=True, help="Names of files to evaluate on, not to train on.")
@click.option("--eval", "eval_folder", type=folder, help="Videos to evaluate on.")
@click.option("--eval-steps", type=Numbers(), default="12,40", show_default=True, help="Quantizer steps for --eval.")
@click.option(
    "--eval-every",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Steps from one evaluation to the next.",
)
@click.option(
    "--tables", type=FileName(".safetensors"), help="Weights with transform and coder tables [--init, released]."
)
@click.option("--cache", type=folder, help="Folder for decoded and coded data [default: OUT/cache].")
@click.option("--minutes", type=Within(0, min_open=True), help="Stop after this time.")
@click.option("--finish", is_flag=True, help="Complete the schedule within --minutes.")
@click.option("--lpips-dir", type=folder, help="Folder of LPIPS weights, if not torchvision's.")
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
    compute: Compute,
    **options: Any,
) -> None:
    """Train the restorer, the network that improves decoded frames, on a folder of videos and images.

    The data is coded once, ahead of time. OUT receives checkpoint.pt, weights.safetensors, train.jsonl,
    eval.jsonl and pictures. Several processes share a run under torchrun -m tokcodec train ...
    """
    try:
        from tokcodec.training import train as training
    except ModuleNotFoundError as error:
        raise TokcodecError(f"training needs the package {error.name}: pip install lpips pillow") from error

    if finish and minutes is None:
        raise click.UsageError("--finish needs --minutes")
    if 0 in eval_steps:
        raise click.UsageError("--eval-steps are above 0")
    try:
        settings, config = training.settings_of({k: v for k, v in options.items() if v is not None})
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    use_threads(compute.threads)
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
        compute=compute,
        lpips_dir=lpips_dir,
    )
    if trainer:
        click.echo(f"{out}: {trainer.step} steps, {trainer.pixels} pixels, {trainer.position:.1%} of the schedule")
