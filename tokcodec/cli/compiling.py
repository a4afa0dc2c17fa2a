"""The command that compiles the coding loop ahead of all others."""

from __future__ import annotations

import contextlib
import time

import click

from tokcodec.cli.options import examples, progress_option
from tokcodec.cli.terminal import Meter
from tokcodec.stream.profile import DEFAULT, LFQ


@click.command("compile", epilog=examples("compile"))
@click.option(
    "--profile",
    type=click.Choice([DEFAULT, LFQ]),
    default=DEFAULT,
    show_default=True,
    help="Of the streams that are to be coded; lfq takes a minute more.",
)
@progress_option
def compile_loop(profile: str, progress: str) -> None:
    """Compile the coding loop for this machine, on all cores.

    Otherwise the first command that needs it does so. The compiled code is kept next to the package, or in the folder
    that NUMBA_CACHE_DIR names.
    """
    from tokcodec.prepare import folder, prepare

    began = time.monotonic()
    with contextlib.closing(Meter("compile", "functions", progress)) as meter:
        made = prepare(lambda done, total: meter.step(done, total, ""), profile)
    click.echo(f"{folder()}: {f'compiled in {time.monotonic() - began:.0f} s' if made else 'compiled already'}")
