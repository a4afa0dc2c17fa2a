"""Show a stream in a window, by a player that is installed: play."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import click

from tokcodec.cli.options import FileName, examples, network_options, span_options, use_threads
from tokcodec.cli.terminal import compiling_told, say
from tokcodec.compute import Compute
from tokcodec.errors import TokcodecError

PLAYERS = {  # the options of each besides the title of its window: Matroska, raw frames and sound, comes on its stdin
    "mpv": ["--really-quiet", "--title={}", "-"],
    "ffplay": ["-loglevel", "error", "-autoexit", "-window_title", "{}", "-f", "matroska", "-i", "-"],
}


def restorer_in_time(source: Path, weights: Path | None, compute: Compute) -> str:
    """The best restorer that restores a group in half the time it is shown for; the loop takes its part of the rest."""
    from tokcodec.coding.loop import Shown, grey
    from tokcodec.coding.planes import GROUP, padded
    from tokcodec.stream_reader import reading, tokenizer_of
    from tokcodec.tokenizer import grouped
    from tokcodec.weights import TIERS, Weights

    with reading(source, salvage=True) as reader:
        header, found = reader.header, Weights.find(weights, reader.header.weights_sha256)
        frame = grey(padded(header.height), padded(header.width))
        first, group = grouped([Shown(frame, frame, 16.0, 1)] * (1 + GROUP))
        limit_s = GROUP / float(header.frame_rate or 25) / 2
        for tier in TIERS:
            if tier in found.configs:
                tokenizer = tokenizer_of(reader, weights, dataclasses.replace(compute, restorer=tier))
                _, state = tokenizer.restore(first, 16.0, None, header.height, header.width)  # also warms it up
                began = time.perf_counter()
                tokenizer.restore(group, 16.0, state, header.height, header.width)
                if time.perf_counter() - began <= limit_s:
                    return tier
    return "off"


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
    compute: Compute,
) -> None:
    """Play a stream in a window, with its sound, while it is decoded. Needs mpv or ffplay.

    --restorer auto is the best network that runs in real time."""
    from tokcodec.codec import decode_video

    installed = [name for name in ([player] if player else PLAYERS) if shutil.which(name)]
    if not installed:
        raise TokcodecError(f"{player or ' or '.join(PLAYERS)} is needed to play, and is not installed")
    use_threads(compute.threads)
    if compute.restorer == "auto":
        compute = dataclasses.replace(compute, restorer=restorer_in_time(source, weights, compute))
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
                compute=compute,
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
