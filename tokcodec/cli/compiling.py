"""The command that compiles the coding loop ahead of all others."""

from __future__ import annotations

import contextlib
import time

import click

from tokcodec.cli.options import examples, progress_option
from tokcodec.cli.terminal import Meter


@click.command("compile", epilog=examples("compile"))
@click.option(
    "--profile",
    type=click.Choice(["default", "lfq"]),
    default="default",
    show_default=True,
    help="Of the streams that are to be coded; lfq takes a minute more.",
)
@progress_option
def compile_loop(profile: str, progress: str) -> None:
    """Compile the coding loop for this machine, on all cores.

    Otherwise the first command that needs it does so. The compiled code is kept next to the package, or in the folder
    that NUMBA_CACHE_DIR names.
    """
    from tokcodec.prepare import DEFAULT, folder, prepare

    began, made = time.monotonic(), False
    with contextlib.closing(Meter("compile", "functions", progress)) as meter:
        for name in dict.fromkeys([DEFAULT, profile]):
            made |= prepare(lambda done, total: meter.step(done, total, ""), name)
    click.echo(f"{folder()}: {f'compiled in {time.monotonic() - began:.0f} s' if made else 'compiled already'}")
