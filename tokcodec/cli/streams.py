"""Commands on streams as they are, with no network: info, verify, trim, concat, tokens."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tokcodec import arrays, edit
from tokcodec.cli.options import output_options, span_options, weights_option
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
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT", type=click.Path(path_type=Path))
@weights_option
@output_options
def tokens(source: Path, target: Path, weights: Path | None, force: bool, as_json: bool) -> None:
    """Export the tokens of a stream to .npz or .safetensors, or import them back to .tokc."""
    move = arrays.import_tokens if target.suffix.lower() == ".tokc" else arrays.export_tokens
    show(move(source, target, weights=weights, overwrite=force), str(target), as_json)
