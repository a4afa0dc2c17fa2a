"""How near one video is to another: compare."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from tokcodec.cli.options import FileName, examples, network_options, output_options, progress_option, use_threads
from tokcodec.cli.terminal import frames_meter, tell
from tokcodec.compute import Compute
from tokcodec.scoring.scores import METRICS


@click.command(
    epilog=examples(
        "compare in.mp4 in.decoded.mp4",
        "compare in.mp4 in.tokc --json",
        "compare in.mp4 in.tokc --side-by-side both.mp4 --heatmap where.mp4",
        "compare in.mp4 - <out.mkv",
    )
)
@click.argument("reference", metavar="A", type=FileName())
@click.argument("seen", metavar="B", type=FileName())
@click.option("--side-by-side", type=click.Path(path_type=Path), help="Write a video of both: .mp4, .mov or .mkv.")
@click.option("--heatmap", type=click.Path(path_type=Path), help="Write a video of where they differ, and how much.")
@click.option("--lpips-dir", type=click.Path(path_type=Path), help="Folder of LPIPS weights, if not torchvision's.")
@click.option("--st-lpips", is_flag=True, help="Also ST-LPIPS (VGG-16) of every fifth frame; it takes seconds a frame.")
@network_options
@progress_option
@output_options
def compare(
    reference: Path,
    seen: Path,
    side_by_side: Path | None,
    heatmap: Path | None,
    lpips_dir: Path | None,
    st_lpips: bool,
    weights: Path | None,
    compute: Compute,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Score video or stream B against its reference A: PSNR, temporal PSNR, ghosts, LPIPS, VMAF, MS-SSIM, XPSNR.

    Frames are paired by number. - is a video from stdin. LPIPS needs its weights; VMAF, VMAF NEG, MS-SSIM and XPSNR
    need an FFmpeg with libvmaf. Scores that cannot be computed are left out. Fade, pop and pulse say how steady the
    quality of B is over time. --json gives the score of every frame.
    """
    from tokcodec.scoring.compare import compare as compare_videos

    use_threads(compute.threads)
    with frames_meter("compare", progress) as update:
        found = compare_videos(
            reference,
            seen,
            side_by_side=side_by_side,
            heatmap=heatmap,
            overwrite=force,
            weights=weights,
            compute=compute,
            lpips_dir=lpips_dir,
            st_lpips=st_lpips,
            progress=update,
        )
    if as_json:
        click.echo(json.dumps({"reference": str(reference), "video": str(seen)} | dataclasses.asdict(found)))
        return
    tell(f"{seen}: {found.frames} frames of {found.width}x{found.height} against {reference}")
    tell(f"{'':<20}{'mean':>10}{'worst 5 %':>12}{'best 5 %':>12}")
    for name, metric in METRICS.items():
        if name in found.scores:
            ends = ("p95", "p5") if metric.lower_is_better else ("p5", "p95")
            mean, worst, best = (f"{found.scores[name][part]:.5g}" for part in ("mean", *ends))
            tell(f"{metric.label:<20}{mean:>10}{worst:>12}{best:>12}")
    even = found.stability
    for label, value in (("fade, dB", even.fade_db), ("pop", even.pop), (f"pulse of {even.period}, dB", even.pulse_db)):
        if value is not None:
            tell(f"{label:<20}{value:>10.3g}")
    if found.shift:
        tell(f"tokcodec: warning: {seen} is a frame {found.shift}", err=True)
