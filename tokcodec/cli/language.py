"""Commands for tokens as a language: lm learn, lm predict, lm fill, lm probe."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click

from tokcodec.cli.options import (
    SEEDS,
    FileName,
    Seconds,
    StreamName,
    Within,
    compute_options,
    device_options,
    examples,
    output_options,
    progress_option,
    shared,
    use_threads,
    weights_option,
)
from tokcodec.cli.terminal import compiling_told, frames_meter, say, show
from tokcodec.compute import Compute
from tokcodec.language import generate

folder = click.Path(path_type=Path, file_okay=False)
model_option = click.option(
    "--lm", type=FileName(".safetensors"), required=True, help="A language model, or the folder of its run."
)
where_options = compute_options("device", "threads")
speech_options = shared(
    model_option,
    click.option(
        "--steps", type=click.IntRange(1, 64), default=8, show_default=True, help="Passes for each four frames."
    ),
    click.option(
        "--temperature",
        type=Within(0, 10),
        default=0.0,
        show_default=True,
        help="0 takes the likeliest words, 1 draws at random.",
    ),
    click.option("--seed", type=SEEDS, default=0, show_default=True, help="Random seed."),
    weights_option,
    where_options,
    progress_option,
    output_options,
)


@click.group(
    epilog=examples(
        "lm learn streams/ --out lm/ --minutes 60",
        "lm predict a.tokc b.tokc --seconds 1 --lm lm/",
        "lm fill a.tokc b.tokc --start 0.5 --duration 0.2 --lm lm/",
        "lm probe classes/ --lm lm/",
    )
)
def lm() -> None:
    """Train a language model of tokens, and use it.

    All commands need streams of encode --spans 4.
    """


@lm.command(epilog=examples("lm learn streams/ --out lm/ --minutes 60"))
@click.argument("streams", nargs=-1, required=True, type=FileName(".tokc"))
@click.option("--out", type=folder, required=True, help="Folder of the run; a run in it is continued.")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="Length of the schedule.")
@click.option("--minutes", type=Within(0, min_open=True), help="Complete the schedule in this time instead.")
@click.option("--batch", type=click.IntRange(1), default=6, show_default=True, help="Windows in each step.")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Random seed.")
@weights_option
@device_options
@compiling_told(partial(say, "lm learn"))
def learn(
    streams: tuple[Path, ...],
    out: Path,
    steps: int,
    minutes: float | None,
    batch: int,
    seed: int,
    weights: Path | None,
    compute: Compute,
) -> None:
    """Train a language model on the tokens of streams.

    STREAMS are .tokc files, or folders of them, made by encode --spans 4. OUT receives checkpoint.pt, model.safetensors
    and train.jsonl.
    """
    from tokcodec.language.training import LearnSettings
    from tokcodec.language.training import learn as train

    use_threads(compute.threads)
    settings = LearnSettings(steps=steps, batch=batch, seed=seed)
    learned, step = train(streams, out, settings=settings, minutes=minutes, weights=weights, compute=compute)
    click.echo(f"{out}: {step} steps, {learned.parameters_in_all} parameters")


@lm.command(epilog=examples("lm predict a.tokc b.tokc --seconds 1 --lm lm/"))
@click.argument("source", metavar="INPUT", type=FileName(".tokc"))
@click.argument("target", metavar="OUTPUT", type=StreamName())
@click.option("--seconds", type=Seconds(), required=True, help="How much to predict.")
@speech_options
def predict(
    source: Path,
    target: str,
    seconds: float,
    lm: Path,
    steps: int,
    temperature: float,
    seed: int,
    weights: Path | None,
    compute: Compute,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Continue a stream with frames that a model predicts.

    The stream must be one of encode --spans 4.
    """
    from tokcodec.language.sampler import Speech

    use_threads(compute.threads)
    speech = Speech(steps, temperature, seed)
    with frames_meter("lm predict", progress) as update:
        made = generate.predict(
            source,
            target,
            seconds,
            model=lm,
            speech=speech,
            weights=weights,
            compute=compute,
            overwrite=force,
            progress=update,
        )
    show(made, target, as_json)


@lm.command(epilog=examples("lm fill a.tokc b.tokc --start 0.5 --duration 0.2 --lm lm/"))
@click.argument("source", metavar="INPUT", type=FileName(".tokc"))
@click.argument("target", metavar="OUTPUT", type=StreamName())
@click.option("--start", "start_s", type=Seconds(), required=True, help="Start of the gap: seconds or HH:MM:SS.")
@click.option("--duration", "duration_s", type=Seconds(), required=True, help="Length of the gap: seconds or HH:MM:SS.")
@speech_options
def fill(
    source: Path,
    target: str,
    start_s: float,
    duration_s: float,
    lm: Path,
    steps: int,
    temperature: float,
    seed: int,
    weights: Path | None,
    compute: Compute,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Fill a gap in a stream with frames that a model predicts.

    The stream must be one of encode --spans 4.
    """
    from tokcodec.language.sampler import Speech

    use_threads(compute.threads)
    speech = Speech(steps, temperature, seed)
    with frames_meter("lm fill", progress) as update:
        made = generate.fill(
            source,
            target,
            start_s,
            duration_s,
            model=lm,
            speech=speech,
            weights=weights,
            compute=compute,
            overwrite=force,
            progress=update,
        )
    show(made, target, as_json)


@lm.command(epilog=examples("lm probe classes/ --lm lm/"))
@click.argument("classes", metavar="FOLDER", type=folder)
@model_option
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Random seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@weights_option
@where_options
@compiling_told(partial(say, "lm probe"))
def probe(classes: Path, lm: Path, seed: int, as_json: bool, weights: Path | None, compute: Compute) -> None:
    """Measure how well a model's features tell classes apart.

    The same probes on small pictures are measured too, for comparison.

    FOLDER holds a folder of .tokc streams (of encode --spans 4) for each class. Streams whose names are equal up to the
    last - come from one clip, and are never split between learning and testing.
    """
    from tokcodec.language.probe import probe as measure

    use_threads(compute.threads)
    result = measure(classes, model=lm, seed=seed, weights=weights, compute=compute)
    if as_json:
        click.echo(json.dumps(result))
    else:
        for name, value in result.items():
            click.echo(f"{name.replace('_', ' '):<18}{value}")
