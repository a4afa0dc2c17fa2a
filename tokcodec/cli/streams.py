"""Commands on streams as they are, with no network: info, verify, trim, concat, tokens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from tqdm import tqdm

from tokcodec import arrays, edit, shards, suffixes
from tokcodec.cli.options import Amount, output_options, span_options, weights_option
from tokcodec.cli.terminal import show


@click.command()
@click.argument("source", metavar="STREAM", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(source: Path, as_json: bool) -> None:
    """Show what a stream holds."""
    facts = edit.describe(source)
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' '):<18}{value}")


@click.command()
@click.argument("source", metavar="STREAM", type=click.Path(path_type=Path))
@weights_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(source: Path, weights: Path | None, as_json: bool) -> None:
    """Check every byte of a stream: checksums, and that all tokens decode."""
    show(edit.verify(source, weights=weights), "", as_json, str(source))


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT")
@span_options
@output_options
def trim(source: Path, target: str, start_s: float, duration_s: float | None, force: bool, as_json: bool) -> None:
    """Cut a stream at the edges of its chunks: every chunk that overlaps the span is kept."""
    show(edit.trim(source, target, start_s, duration_s, overwrite=force), target, as_json)


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT")
@output_options
def concat(sources: tuple[Path, ...], target: str, force: bool, as_json: bool) -> None:
    """Join streams of one frame size and one set of weights, one after another."""
    show(edit.concat(list(sources), target, overwrite=force), target, as_json)


@click.command()
@click.argument("paths", metavar="INPUT... OUTPUT", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--webdataset",
    metavar="PATTERN",
    help="Instead of OUTPUT: WebDataset shards of all INPUTs (streams, folders), such as out/shard-%06d.tar.",
)
@click.option("--shard-samples", type=click.IntRange(1), default=1000, show_default=True, help="Of a shard, at most.")
@click.option("--shard-size", type=Amount(), default="1G", show_default=True, help="Bytes of a shard, at most.")
@weights_option
@output_options
def tokens(
    paths: tuple[Path, ...],
    webdataset: str | None,
    shard_samples: int,
    shard_size: float,
    weights: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export the tokens of a stream to .npz or .safetensors, or import them back to .tokc.

    With --webdataset the tokens of many streams go to shards, a sample a chunk; a stream that is damaged does not stop
    the others, is named at the end, and makes the exit code 1.
    """
    if webdataset is not None:
        _shards(paths, webdataset, shard_samples, int(shard_size), weights, force, as_json)
        return
    if len(paths) != 2:
        raise click.UsageError("give one INPUT and one OUTPUT, or --webdataset and any number of INPUTs")
    source, target = paths
    move = arrays.import_tokens if target.suffix.lower() == suffixes.STREAM else arrays.export_tokens
    show(move(source, target, weights=weights, overwrite=force), str(target), as_json)


def _shards(
    sources: tuple[Path, ...],
    pattern: str,
    shard_samples: int,
    shard_bytes: int,
    weights: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    with tqdm(desc="tokens", unit=" chunks", disable=None, leave=False) as bar:

        def progress(samples: int, size_bytes: int) -> None:
            bar.set_postfix_str(f"{size_bytes / 1e6:.1f} MB", refresh=False)
            bar.update(samples - bar.n)

        made = shards.export_shards(
            sources,
            pattern,
            weights=weights,
            shard_samples=shard_samples,
            shard_bytes=shard_bytes,
            overwrite=force,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(made)))
    else:
        click.echo(
            f"{pattern}: {made.shards} shards, {made.samples} chunks of {made.streams} streams, {made.frames} frames, "
            f"{made.bytes} bytes, {made.seconds:.1f} s"
        )
    for name, fault in made.failed.items():
        click.echo(f"tokcodec: {name}: {fault}", err=True)
    click.get_current_context().exit(1 if made.failed else 0)
