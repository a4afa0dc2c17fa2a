"""Commands from file to file: encode and decode."""

from __future__ import annotations

from pathlib import Path

import click

from tokcodec.cli.options import (
    network_options,
    output_options,
    progress_option,
    rate_of,
    rate_options,
    span_options,
    use_threads,
)
from tokcodec.cli.terminal import frames_meter, show
from tokcodec.errors import TokcodecError
from tokcodec.rate import DEFAULT_RATE


def beside(source: str, suffix: str) -> str:
    """The output where none is named: the input's name with another suffix, in its folder."""
    from tokcodec.video import is_pattern, is_pipe

    if source == "-" or is_pattern(Path(source)) or is_pipe(source):
        raise click.UsageError(f"Missing argument 'OUTPUT': {source} gives no name to it.")
    if Path(source).is_dir():
        raise TokcodecError(f"{source}: is a folder; batch is for those")
    return str(Path(source).with_suffix(suffix))


@click.command()
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="[OUTPUT]", required=False)
@rate_options
@span_options
@click.option("--deinterlace", is_flag=True, help="Make whole frames of the fields of interlaced video (bwdif).")
@network_options
@progress_option
@output_options
def encode(
    source: str,
    target: str | None,
    quality: int | None,
    step: float | None,
    bitrate: float | None,
    target_size: float | None,
    target_lpips: float | None,
    target_psnr: float | None,
    start_s: float,
    duration_s: float | None,
    deinterlace: bool,
    weights: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Encode a video (any file FFmpeg reads; - is stdin) to a .tokc stream (- is stdout).

    Without OUTPUT, a.mp4 becomes a.tokc beside it.
    """
    from tokcodec.codec import encode_video
    from tokcodec.video import Filters

    target = target or beside(source, ".tokc")
    rate = rate_of(quality, step, bitrate, target_size, target_lpips, target_psnr) or DEFAULT_RATE
    with frames_meter("encode", progress) as update:
        report = encode_video(
            source,
            target,
            rate=rate,
            weights=weights,
            device=device,
            dtype=dtype,
            cores=threads,
            start_s=start_s,
            duration_s=duration_s,
            filters=Filters(deinterlace=deinterlace),
            overwrite=force,
            progress=update,
        )
    show(report, target, as_json)


@click.command()
@click.argument("source", metavar="INPUT")
@click.argument("target", metavar="[OUTPUT]", required=False)
@click.option("--crf", type=click.FloatRange(0, 51), default=12.0, show_default=True, help="Of libx264; 0 is best.")
@click.option("--lossless", is_flag=True, help="FFV1 in RGB, every pixel as decoded; for .mkv.")
@click.option("--format", type=click.Choice(["rgb24", "y4m"]), default="y4m", show_default=True, help="On stdout.")
@click.option("--salvage", is_flag=True, help="Play every intact chunk of a damaged stream.")
@span_options
@network_options
@progress_option
@output_options
def decode(
    source: str,
    target: str | None,
    crf: float,
    lossless: bool,
    format: str,
    salvage: bool,
    start_s: float,
    duration_s: float | None,
    weights: Path | None,
    device: str,
    dtype: str,
    threads: int | None,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Decode a .tokc stream to a video.

    OUTPUT is .mp4, .mov or .mkv (H.264, with the other streams), .y4m, a pattern of images
    (frames/%05d.png), or - for y4m or raw frames on stdout. Without it, a.tokc becomes a.decoded.mp4 beside it
    (.mkv with --lossless).
    """
    from tokcodec.codec import decode_video

    target = target or beside(source, ".decoded.mkv" if lossless else ".decoded.mp4")
    if lossless and Path(target).suffix.lower() != ".mkv":
        raise click.UsageError("--lossless writes .mkv only")
    use_threads(threads)
    with frames_meter("decode", progress) as update:
        report = decode_video(
            source,
            target,
            weights=weights,
            device=device,
            dtype=dtype,
            crf=crf,
            lossless=lossless,
            stdout_format=format,
            salvage=salvage,
            start_s=start_s,
            duration_s=duration_s,
            overwrite=force,
            progress=update,
        )
    show(report, target, as_json, source)
