"""How many files a second `tokcodec batch` encodes: one worker, several, and Ray on the same cores.

    python -m benchmarks.batch CLIP... --out benchmarks/results/batch.json

The clips are cut into short ones of one size, which is what a training set looks like. A figure is one run of
the command, start-up included; `steady` leaves out the time before the first file is done, and that file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.provenance import machine, versions
from benchmarks.tools import Tools, find_tools, run


def short_clips(tools: Tools, sources: Sequence[Path], count: int, frames: int, size: str, folder: Path) -> None:
    """Write `count` clips of `frames` frames: of the sources in turn, from 0, 1 and 2 s on, then again."""
    width, height = size.split("x")
    scale = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
    for i in range(count):
        start_s = str(i // len(sources) % 3)
        head = [tools.ffmpeg, "-v", "error", "-stream_loop", "-1", "-ss", start_s, "-i", str(sources[i % len(sources)])]
        coded = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p"]
        run([*head, "-an", "-frames:v", str(frames), "-vf", scale, *coded, str(folder / f"{i:03}.mp4")])


def batch(tools: Tools, source: Path, count: int, frames: int, options: Sequence[str]) -> dict[str, Any]:
    """Files/s and frames/s of one run of the command on `count` files of `frames` frames."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        done = run([tools.tokcodec, "batch", str(source), folder, "--json", *options])
        summary = json.loads(done.stdout)
        if summary["done"] != count or summary["frames"] != count * frames:
            raise click.ClickException(f"not all files are coded: {done.stdout}{done.stderr}")
        times = sorted(path.stat().st_mtime - begin for path in Path(folder).glob("*.tokc"))
    steady = (count - 1) / max(times[-1] - times[0], 1e-3)
    return {
        "seconds": round(done.seconds, 2),
        "files_per_s": round(count / done.seconds, 3),
        "frames_per_s": round(count * frames / done.seconds, 2),
        "steady_files_per_s": round(steady, 3),
        "steady_frames_per_s": round(steady * frames, 2),
        "bytes": summary["bytes"],
        "peak_rss_mib": round(done.peak_rss_bytes / 2**20),
    }


@contextlib.contextmanager
def ray_cluster(cores: int) -> Iterator[str]:
    """The address of a Ray cluster on this machine."""
    cluster: Any = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cores, "object_store_memory": 100 * 2**20, "include_dashboard": False},
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
@click.option("--count", default=40, show_default=True, help="Short clips.")
@click.option("--frames", default=33, show_default=True, help="Of each.")
@click.option("--size", default="640x360", show_default=True)
@click.option("--jobs", default="1,2", show_default=True, help="Worker processes.")
@click.option("--ray", default=0, show_default=True, help="Also on a Ray cluster with so many cores.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def main(
    clips: tuple[Path, ...], out: Path, count: int, frames: int, size: str, jobs: str, ray: int, device: str
) -> None:
    """Measure batches on this machine."""
    tools = find_tools()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        short_clips(tools, clips, count, frames, size, source)

        def measure(workers: str, *options: str) -> None:
            runs.append({"workers": workers} | batch(tools, source, count, frames, [*options, "--device", device]))
            click.echo(json.dumps(runs[-1]))

        for number in jobs.split(","):
            measure(f"{number} processes that share the cores", "--jobs", number)
        if ray:
            with ray_cluster(ray) as address:
                measure(f"Ray, {ray} tasks of 1 core", "--ray", address)
    result = {
        "clips": [clip.name for clip in clips],
        "device": device,
        "files": count,
        "frames": frames,
        "size": size,
        "machine": machine(1),
        "versions": versions(tools),
        "runs": runs,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
