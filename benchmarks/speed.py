"""How fast tokcodec codes, and in how much memory: whole files through the command line, and chunks in memory.

    python -m benchmarks.speed CLIP --out benchmarks/results/speed.json

The clip is scaled to each size and looped to the frames wanted. A file-to-file figure is one run of the
command, start-up included; a figure in memory is the median of several chunks after one to warm up.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.provenance import machine, versions
from benchmarks.tools import Tools, find_tools, run
from tokcodec.neural.tokenizer import Tokenizer
from tokcodec.neural.weights import Weights, find_weights
from tokcodec.rate import DEFAULT_QUALITY, quality_step
from tokcodec.video import VideoReader

CHUNK_FRAMES = 33  # of a run in memory
STEP = quality_step(DEFAULT_QUALITY)
SIZES = {"180p": (320, 180), "360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}


def scaled(tools: Tools, source: Path, size: str, frames: int, target: Path) -> None:
    """Write the clip at a size, looped to a number of frames, as H.264 of high quality."""
    width, height = SIZES[size]
    looped = [tools.ffmpeg, "-v", "error", "-stream_loop", "-1", "-i", str(source), "-an", "-frames:v", str(frames)]
    run(
        [
            *looped,
            "-vf",
            f"scale={width}:{height}",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-crf",
            "16",
            str(target),
        ]
    )


def file_to_file(tools: Tools, clip: Path, frames: int, device: str, dtype: str) -> dict[str, float]:
    """Frames/s and peak memory of one encode and one decode of a file by the command line."""
    with tempfile.TemporaryDirectory() as folder:
        stream, decoded = Path(folder) / "a.tokc", Path(folder) / "a.mp4"
        options = ["--device", device, "--dtype", dtype]
        encoded = run([tools.tokcodec, "encode", str(clip), str(stream), *options])
        played = run([tools.tokcodec, "decode", str(stream), str(decoded), *options])
        return {
            "stream_bytes": stream.stat().st_size,
            "encode_frames_per_s": round(frames / encoded.seconds, 2),
            "decode_frames_per_s": round(frames / played.seconds, 2),
            "encode_peak_rss_mib": round(encoded.peak_rss_bytes / 2**20),
            "decode_peak_rss_mib": round(played.peak_rss_bytes / 2**20),
        }


def in_memory(clip: Path, device: str, dtype: str, repeats: int) -> dict[str, float]:
    """Frames/s of the loop (encode), and of loop and network (decode), on a chunk in memory, without entropy coding."""
    tokenizer = Tokenizer(Weights.load(find_weights()), device, dtype)
    with VideoReader(clip) as reader:
        chunk = np.stack([frame for frame, _ in itertools.islice(reader, CHUNK_FRAMES)])
    frames, height, width = chunk.shape[:3]
    encode_s, decode_s = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        tokens = tokenizer.encode(chunk, STEP).tokens
        middle = time.perf_counter()
        for _ in tokenizer.decode(tokens, STEP, height, width, frames):
            pass
        encode_s.append(middle - start)
        decode_s.append(time.perf_counter() - middle)
    figures = {
        "encode_frames_per_s": round(frames / statistics.median(encode_s[1:]), 2),
        "decode_frames_per_s": round(frames / statistics.median(decode_s[1:]), 2),
    }
    if tokenizer.peak_vram_bytes:
        figures["peak_vram_mib"] = round(tokenizer.peak_vram_bytes / 2**20)
    return figures


@click.command()
@click.argument("clip", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--sizes", default="360p,720p", show_default=True, help=f"Of {', '.join(SIZES)}.")
@click.option("--dtypes", default="bfloat16,float32", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--frames", default=264, show_default=True, help="Frames of a file-to-file run; 0 leaves them out.")
@click.option("--repeats", default=3, show_default=True, help="Chunks of a run in memory; 0 leaves them out.")
@click.option("--memory", default=0, show_default=True, help="Also code this many frames at 180p, for peak memory.")
def main(clip: Path, out: Path, sizes: str, dtypes: str, device: str, frames: int, repeats: int, memory: int) -> None:
    """Measure speed and memory on this machine."""
    tools = find_tools()
    runs: list[dict[str, Any]] = []

    def note(kind: str, size: str, dtype: str, count: int, figures: dict[str, float]) -> None:
        runs.append({"kind": kind, "size": size, "device": device, "dtype": dtype, "frames": count} | figures)
        click.echo(json.dumps(runs[-1]))

    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "clip.mp4"
        for size in sizes.split(","):
            scaled(tools, clip, size, max(frames, CHUNK_FRAMES), video)
            for dtype in dtypes.split(","):
                if frames:
                    note("file to file", size, dtype, frames, file_to_file(tools, video, frames, device, dtype))
                if repeats:
                    note("in memory", size, dtype, CHUNK_FRAMES * repeats, in_memory(video, device, dtype, repeats))
            video.unlink()
        for count in (300, memory) if memory else ():
            scaled(tools, clip, "180p", count, video)
            note("memory", "180p", "auto", count, file_to_file(tools, video, count, device, "auto"))
            video.unlink()
    result = {"clip": clip.name, "machine": machine(1), "versions": versions(tools), "runs": runs}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
