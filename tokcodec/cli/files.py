"""Commands from file to file: encode, decode and roundtrip."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from fractions import Fraction
from pathlib import Path

import click

from tokcodec.cli.options import (
    FileName,
    FrameRate,
    Size,
    StreamName,
    Within,
    deinterlace_option,
    examples,
    network_options,
    output_options,
    profile_options,
    progress_option,
    rate_options,
    refuse_unused,
    span_options,
    use_threads,
)
from tokcodec.cli.terminal import frames_meter, show, tell
from tokcodec.compute import Compute
from tokcodec.errors import TokcodecError
from tokcodec.rate import DEFAULT_RATE, Rate
from tokcodec.stream.profile import Profile
from tokcodec.stream.pyramid import SPANS


def default_target(source: str, suffix: str) -> str:
    """The output where none is named: the input's name with another suffix, in its folder."""
    from tokcodec.video import is_pattern, is_pipe

    if is_pattern(Path(source)) or is_pipe(source):
        raise click.UsageError(f"Missing argument 'OUTPUT': {source} gives no name to it.")
    if Path(source).is_dir():
        raise TokcodecError(f"{source}: is a folder; batch is for those")
    return str(Path(source).with_suffix(suffix))


def _refuse_crf(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Say what stands in its place here, for those who know it from other encoders."""
    if value is not None:
        raise click.UsageError("there is no --crf for a stream: --quality is 1 (small) to 8 (best); or --step")


@click.command(
    epilog=examples(
        "encode in.mp4                               # to in.tokc, quality 4",
        "encode in.mp4 out.tokc --quality 8",
        "encode in.mp4 out.tokc --bitrate 300k       # at most; --target-size 2M of the whole file",
        "encode in.mp4 out.tokc --target-psnr 30     # at least, in every chunk",
        "encode in.mp4 out.tokc --scale 640:-2 --fps 30000/1001",
        "encode in.mp4 out.tokc --start 00:01:30 --duration 10",
        "encode in.mp4 out.tokc --spans 4            # for the commands of lm",
        "encode in.mp4 out.tokc --profile lfq        # tokens of a fixed vocabulary",
        "encode - out.tokc <in.mkv",
    )
)
@click.argument("source", metavar="INPUT", type=FileName(path_type=str))
@click.argument("target", metavar="[OUTPUT]", required=False, type=StreamName())
@rate_options
@click.option("--crf", hidden=True, expose_value=False, callback=_refuse_crf)
@span_options
@click.option("--scale", type=Size(), help="Scale frames before coding, as shown: 640:360, 640:-2.")
@click.option("--fps", type=FrameRate(), help="Constant frames/s: drop and repeat frames.")
@deinterlace_option
@click.option(
    "--spans",
    type=click.Choice(["auto", *map(str, SPANS)]),
    default="auto",
    show_default=True,
    help="Frames of each span; auto chooses by content. The lm commands need 4.",
)
@profile_options
@click.option("--tonemap", is_flag=True, help="Convert HDR (PQ, HLG) to SDR (BT.709).")
@network_options
@progress_option
@output_options
def encode(
    source: str,
    target: str | None,
    rate: Rate | None,
    start_s: float,
    duration_s: float | None,
    scale: tuple[int, int] | None,
    fps: Fraction | None,
    deinterlace: bool,
    spans: str,
    profile: Profile | None,
    tonemap: bool,
    weights: Path | None,
    compute: Compute,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Encode a video (any file FFmpeg reads; - is stdin) to a .tokc stream (- is stdout).

    Without OUTPUT, a.mp4 becomes a.tokc in the same folder.
    """
    from tokcodec.codec import encode_video
    from tokcodec.video import Filters

    target = target or default_target(source, ".tokc")
    rate = rate or DEFAULT_RATE
    if rate.is_of_quality:  # else torch has nothing to do
        use_threads(compute.threads)
    if profile and spans not in ("auto", "4"):
        raise click.UsageError("--profile lfq has spans of 4 frames")
    try:
        filters = Filters(deinterlace=deinterlace, tonemap=tonemap, fps=fps, scale=scale)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with frames_meter("encode", progress, passes=rate.is_of_the_whole) as update:
        report = encode_video(
            source,
            target,
            rate=rate,
            spans=None if spans == "auto" else int(spans),
            profile=profile,
            weights=weights,
            compute=compute,
            start_s=start_s,
            duration_s=duration_s,
            filters=filters,
            overwrite=force,
            progress=update,
        )
    show(report, target, as_json)


@click.command(
    epilog=examples(
        "decode in.tokc                              # to in.decoded.mp4",
        "decode in.tokc out.mkv --lossless           # FFV1: exactly what was decoded",
        "decode in.tokc frames/%05d.png              # or .jpg; still.png takes the first frame",
        "decode in.tokc out.gif                      # also .webp and .webm",
        "decode in.tokc out.mp4 --vcodec libx265 --crf 20",
        "decode in.tokc - --format rgb24 >out.rgb    # or y4m, for other programs",
        "decode broken.tokc out.mp4 --salvage        # what is intact",
    )
)
@click.argument("source", metavar="INPUT", type=FileName(".tokc", path_type=str))
@click.argument("target", metavar="[OUTPUT]", required=False, type=FileName(path_type=str))
@click.option("--vcodec", metavar="NAME", help="Encoder of FFmpeg [default: libx264; VP9 or AV1 for .webm].")
@click.option("--crf", type=Within(0, 51), help="Quality of the encoder, 0 is best [default: 12 for libx264].")
@click.option("--lossless", is_flag=True, help="FFV1 in RGB, which keeps every decoded pixel; for .mkv.")
@click.option(
    "--format", type=click.Choice(["rgb24", "y4m"]), default="y4m", show_default=True, help="Frames on stdout."
)
@click.option("--salvage", is_flag=True, help="Decode every intact chunk of a damaged stream.")
@span_options
@network_options
@progress_option
@output_options
def decode(
    source: str,
    target: str | None,
    vcodec: str | None,
    crf: float | None,
    lossless: bool,
    format: str,
    salvage: bool,
    start_s: float,
    duration_s: float | None,
    weights: Path | None,
    compute: Compute,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Decode a .tokc stream to a video.

    OUTPUT is .mp4, .mov or .mkv (H.264, with the other streams), .webm, .gif, .webp, .y4m, a pattern of images
    (frames/%05d.png, .jpg), one image (the first frame), or - for y4m or raw frames on stdout. Without OUTPUT, a.tokc
    becomes a.decoded.mp4 in the same folder (.mkv with --lossless).
    """
    from tokcodec.codec import decode_video

    target = target or default_target(source, ".decoded.mkv" if lossless else ".decoded.mp4")
    if lossless and Path(target).suffix.lower() != ".mkv":
        raise click.UsageError("--lossless writes .mkv only")
    if target != "-":
        refuse_unused("for stdout", "format")
    if lossless or Path(target).suffix.lower() not in (".mp4", ".m4v", ".mov", ".mkv", ".webm"):
        refuse_unused("for H.264 and other codecs of .mp4, .mov, .mkv and .webm", "crf", "vcodec")
    use_threads(compute.threads)
    with frames_meter("decode", progress) as update:
        report = decode_video(
            source,
            target,
            weights=weights,
            compute=compute,
            codec=vcodec,
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


@click.command(
    epilog=examples(
        "roundtrip in.mp4 out.mp4",
        "roundtrip in.mp4 out.mp4 --quality 6 --stream kept.tokc --json",
    )
)
@click.argument("source", metavar="INPUT", type=FileName(path_type=str))
@click.argument("target", metavar="OUTPUT", type=FileName(path_type=str))
@click.option("--stream", type=StreamName(Path), help="Keep the stream in between.")
@click.option("--lpips-dir", type=click.Path(path_type=Path), help="Folder of LPIPS weights, if not torchvision's.")
@rate_options
@profile_options
@network_options
@progress_option
@output_options
def roundtrip(
    source: str,
    target: str,
    stream: Path | None,
    lpips_dir: Path | None,
    rate: Rate | None,
    profile: Profile | None,
    weights: Path | None,
    compute: Compute,
    progress: str,
    force: bool,
    as_json: bool,
) -> None:
    """Encode a video, decode it again, and score the result: what a rate costs and how it looks.

    The scores are those of compare, for the decoded stream and not for OUTPUT, which is compressed again. Scores that
    need a missing package are left out with a warning.
    """
    from tokcodec.codec import decode_video, encode_video
    from tokcodec.io.output import check_target
    from tokcodec.scoring.compare import compare
    from tokcodec.scoring.scores import METRICS
    from tokcodec.video import is_pattern, is_pipe, kind_of

    rate = rate or DEFAULT_RATE
    if is_pipe(source):
        raise click.UsageError("INPUT is read twice and cannot be a pipe")
    if stream is not None and is_pipe(str(stream)):
        raise click.UsageError("--stream is read again and cannot be a pipe")
    kind_of(Path(target))
    if not is_pattern(Path(target)):
        check_target(Path(target), [Path(source)], force)  # before the work, not after
    use_threads(compute.threads)
    with tempfile.TemporaryDirectory() as folder:
        coded = stream or Path(folder, "coded.tokc")
        with frames_meter("encode", progress, passes=rate.is_of_the_whole) as update:
            made = encode_video(
                source,
                coded,
                rate=rate,
                profile=profile,
                weights=weights,
                compute=compute,
                overwrite=force,
                lpips_dir=lpips_dir,
                progress=update,
            )
        with frames_meter("decode", progress) as update:
            decoded = decode_video(coded, target, weights=weights, compute=compute, overwrite=force, progress=update)
        with frames_meter("compare", progress) as update:
            found = compare(source, coded, weights=weights, compute=compute, lpips_dir=lpips_dir, progress=update)
    scores = {name: found.scores[name]["mean"] for name in METRICS if name in found.scores}
    if as_json:
        about = {"input": source, "output": target, **dataclasses.asdict(made)}
        click.echo(json.dumps(about | {"decode_seconds": decoded.seconds, "scores": scores}))
        return
    tell(
        f"{target}: {made.frames} frames, {made.bytes} bytes, {made.bpp:.4f} bpp, {made.kbps:.1f} kbit/s, "
        f"encoded in {made.seconds:.1f} s, decoded in {decoded.seconds:.1f} s"
    )
    for name, score in scores.items():
        tell(f"{METRICS[name].label:<20}{score:.5g}")
