"""Show a stream in a window, by a player that is installed: play."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import click

from tokcodec.cli.options import FileName, examples, network_options, span_options, use_threads
from tokcodec.cli.terminal import compiling_told, say
from tokcodec.errors import TokcodecError

PLAYERS = {  # what each is told besides the title of its window: Matroska, raw frames and sound, comes on its stdin
    "mpv": ["--really-quiet", "--title={}", "-"],
    "ffplay": ["-loglevel", "error", "-autoexit", "-window_title", "{}", "-f", "matroska", "-i", "-"],
}


@click.command(epilog=examples("play in.tokc", "play in.tokc --start 00:01:30 --player ffplay"))
@click.argument("source", metavar="STREAM", type=FileName(".tokc"))
@click.option("--player", type=click.Choice(list(PLAYERS)), help="[default: the first that is installed]")
@click.option("--salvage", is_flag=True, help="Play every intact chunk of a damaged stream.")
@span_options
@network_options
@compiling_told(partial(say, "play"))
def play(
    source: Path,
    player: str | None,
    salvage: bool,
    start_s: float,
    duration_s: float | None,
    weights: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
) -> None:
    """Show a stream in a window while it is decoded, with its sound, by mpv or ffplay."""
    from tokcodec.codec import decode_video

    installed = [name for name in ([player] if player else PLAYERS) if shutil.which(name)]
    if not installed:
        raise TokcodecError(f"{player or ' or '.join(PLAYERS)} is needed to play, and is not installed")
    use_threads(threads)
    command = [installed[0], *(word.format(source) for word in PLAYERS[installed[0]])]
    window = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert window.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # the window is closed before the end
            decode_video(
                source,
                cast(BinaryIO, window.stdin),
                stdout_format="mkv",
                codec="rawvideo",
                salvage=salvage,
                weights=weights,
                device=device,
                dtype=dtype,
                start_s=start_s,
                duration_s=duration_s,
            )
            window.stdin.close()
        code = window.wait()
    finally:
        window.terminate()
        with contextlib.suppress(BrokenPipeError):  # of what is in its buffer
            window.stdin.close()
        window.wait()
    if code > 0:
        raise TokcodecError(f"{installed[0]}: stopped with exit code {code}")
