"""How fast tokcodec codes and in how much memory, beside x265 and VVenC in the same run, on the same file.

    python -m benchmarks.speed CLIP --out benchmarks/results/speed.json

File to file: one run of each command on a lossless file, with all threads; of tokcodec without the start of Python and
the loading of the weights, which its own report leaves out. In memory: the median of several runs of one chunk in one
thread, by its parts.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.clips import Clip, file_source, prepare
from benchmarks.codecs import FAST, LOOP, MODES, TOKENIZER, decode_argv, encode_argv
from benchmarks.provenance import machine, versions
from benchmarks.run import parse_rates, parse_size
from benchmarks.tools import Finished, Tools, find_tools, run, shown
from tokcodec.compute import Compute
from tokcodec.rate import STEP_UNITS
from tokcodec.restorer.device import pick_device, pick_dtype
from tokcodec.stream.entropy import decode_chunk, encode_chunk
from tokcodec.tokenizer import Tokenizer
from tokcodec.video import VideoReader
from tokcodec.weights import Weights, find_weights

CHUNK_FRAMES = 33  # of a run in memory
NAMES = {
    "tokcodec": "tokcodec",
    FAST: "tokcodec, restorer fast",
    LOOP: "tokcodec, restorer off",
    "hevc-medium": "x265 medium",
    "vvc-visual": "VVenC medium",
}
RATES = ("tokcodec=112", f"{FAST}=112", f"{LOOP}=112", "hevc-medium=37", "vvc-visual=40")


def file_to_file(
    tools: Tools, clip: Clip, reference: Path, codec: str, rate: int, threads: int, options: list[str]
) -> dict[str, Any]:
    """Frames/s, peak memory and bytes of one encode and one decode; `options` are tokcodec's."""
    mode = MODES[codec]
    with tempfile.TemporaryDirectory() as folder:
        stream, decoded = Path(folder) / f"a.{mode.encoder.format}", Path(folder) / "a.mkv"
        commands = {
            "encode": [*encode_argv(tools, mode, rate, reference, stream, threads), *options],
            "decode": [*decode_argv(tools, mode, stream, decoded, threads), *options],
        }
        found: dict[str, Any] = {"codec": codec, "rate": rate}
        for way, argv in commands.items():
            done = run(argv)
            found[f"{way}_fps"] = round(clip.frames / _seconds(done, mode.encoder is TOKENIZER), 2)
            found[f"{way}_peak_rss_mib"] = round(done.peak_rss_bytes / 2**20)
            found[f"{way}_argv"] = shown(argv)
        return found | {"bytes": stream.stat().st_size}


def _seconds(done: Finished, ours: bool) -> float:
    return float(json.loads(done.stdout)["seconds"]) if ours else done.seconds


def in_memory(reference: Path, step: float, repeats: int, dtype: str, device: str) -> dict[str, float]:
    """Milliseconds a frame of a chunk's coding and decoding by their parts, medians; torch has one thread."""
    tokenizer = Tokenizer(Weights.load(find_weights()), Compute(device, dtype))
    tables, units = tokenizer.tables, round(step * STEP_UNITS)
    with VideoReader(reference) as reader:
        chunk = np.stack([frame for frame, _ in itertools.islice(reader, CHUNK_FRAMES)])
    frames, height, width = chunk.shape[:3]
    seconds: dict[str, list[float]] = {}

    def note(part: str, start: float) -> float:
        now = time.perf_counter()
        seconds.setdefault(part, []).append(now - start)
        return now

    for _ in range(repeats + 1):
        now = time.perf_counter()
        tokens = tokenizer.encode(chunk, step).tokens
        now = note("encode_loop", now)
        coder, motion, levels = encode_chunk(tokens, units, tables)
        now = note("encode_entropy", now)
        decode_chunk(coder, motion, levels, frames, height, width, units, tables)
        now = note("decode_entropy", now)
        for _picture in tokenizer.decode(tokens.in_order(), step, height, width):
            pass
        note("decode_loop_and_network", now)
    # the first compiles, or warms up
    return {part: round(1000 * statistics.median(values[1:]) / frames, 3) for part, values in seconds.items()}


def entropy_shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Of the time that coding and decoding take in one thread."""
    return {
        "encode": round(parts["encode_entropy"] / (parts["encode_entropy"] + parts["encode_loop"]), 4),
        "decode": round(parts["decode_entropy"] / (parts["decode_entropy"] + parts["decode_loop_and_network"]), 4),
    }


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--size", callback=parse_size, default="640x360", show_default=True, help="Scale to it first.")
@click.option("--frames", default=258, show_default=True, type=click.IntRange(2), help="Of the clip, at most.")
@click.option(
    "--rates", multiple=True, callback=parse_rates, default=RATES, show_default=True, help="And which codecs."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Of the chunk in memory.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1))
def main(
    file: Path,
    out: Path,
    size: tuple[int, int],
    frames: int,
    rates: dict[str, tuple[int, ...]],
    device: str,
    repeats: int,
    threads: int,
) -> None:
    """Measure speed and memory on FILE and this machine, which should have nothing else to do."""
    if "tokcodec" not in rates:
        raise click.UsageError("--rates must name tokcodec, whose parts are measured too")
    tools, runs = find_tools(), []
    load = os.getloadavg()[0]
    dtypes = ["float32"]
    if pick_dtype("auto", pick_device(device)) == torch.bfloat16:
        dtypes.append("bfloat16")  # elsewhere it is emulated, which nobody wants timed
    with tempfile.TemporaryDirectory() as folder:
        clip, reference = prepare(tools, file_source(file), size, frames, Path(folder))
        for codec, (rate, *_) in rates.items():
            ours = MODES[codec].encoder is TOKENIZER
            for dtype in dtypes if ours else [""]:
                options = ["--device", device, "--dtype", dtype] if ours else []
                found = file_to_file(tools, clip, reference, codec, rate, threads, options)
                setting = f"{MODES[codec].encoder.rate_name} {rate}"
                runs.append({"name": ", ".join(filter(None, [NAMES.get(codec, codec), setting, dtype])), **found})
                click.echo(json.dumps(runs[-1]), err=True)
        torch.set_num_threads(1)
        step = rates["tokcodec"][0]
        parts = {dtype: in_memory(reference, step, repeats, dtype, device) for dtype in dtypes}
    result = {
        "clip": asdict(clip),
        "frames": clip.frames,
        "step": step,
        "threads": threads,
        "device": device,
        "machine": {**machine(1), "load_before": round(load, 2)},
        "versions": versions(tools),
        "runs": runs,
        "in_memory_ms_a_frame": parts,
        "entropy_share": entropy_shares(parts["float32"]),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
