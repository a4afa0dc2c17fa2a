"""Decode a stream as the loop alone has it: the network that restores pictures is left out.

`python -m benchmarks.loop a.tokc a.mkv` writes the pictures losslessly. Beside those of `tokcodec decode`, of the same
bytes, they tell what is coding and what is taste.
"""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.tools import failure, find_tools
from tokcodec.errors import TokcodecError
from tokcodec.neural.tokenizer import Tokenizer
from tokcodec.neural.weights import Weights
from tokcodec.opening import Stream, reading
from tokcodec.pipeline import blas_limited
from tokcodec.scores import Frames
from tokcodec.stream.container import Reader
from tokcodec.vmaf import DEFAULT_FPS


def loop_frames(path: Path, reader: Reader) -> Iterator[Frames]:
    """The frames of a stream without the network, uint8 `[H, W, 3]`.

    Raises:
        BitstreamError: a chunk is damaged.
        ModelError: the weights are not the stream's.
    """
    plain = copy.copy(Weights.find(None, reader.header.weights_sha256))
    plain.config = None  # as of a file without a network
    tokenizer = Tokenizer(plain)
    for frame, _, _ in Stream(path, reader, lambda: tokenizer).frames():
        yield frame


def decode(source: Path, target: Path) -> None:
    """Decode a stream to FFV1 in RGB.

    Raises:
        TokcodecError: it cannot be decoded or written.
    """
    with reading(source) as reader:
        header = reader.header
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{header.width}x{header.height}"]
        raw += ["-framerate", str(header.frame_rate or DEFAULT_FPS), "-i", "-"]
        argv = [find_tools().ffmpeg, "-v", "error", "-y", *raw, "-c:v", "ffv1", "-pix_fmt", "bgr0", str(target)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE)
        assert process.stdin is not None
        try:
            for frame in loop_frames(source, reader):
                process.stdin.write(frame.tobytes())
        finally:
            process.stdin.close()
            code = process.wait()
        if code:
            raise failure(argv, code, "")


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
def main(source: Path, target: Path, threads: int) -> None:
    """Decode SOURCE without the network to TARGET (.mkv), and say how long it took as `tokcodec decode --json` does."""
    began_s = time.monotonic()
    try:
        with blas_limited(threads):
            decode(source, target)
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    seconds = round(time.monotonic() - began_s, 3)
    click.echo(json.dumps({"seconds": seconds, "network_s": 0, "peak_vram_bytes": 0}))


if __name__ == "__main__":
    main()
