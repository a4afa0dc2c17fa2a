"""The scores that FFmpeg's filters compute, in 8-bit BT.709 4:2:0: VMAF, VMAF NEG, MS-SSIM, PSNR-Y and XPSNR-Y.

VMAF NEG is VMAF that no sharpening raises. They need the FFmpeg program, built with libvmaf for the first three; the
package imageio-ffmpeg brings one.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.scoring.scores import IDENTICAL_DB

DEFAULT_FPS = Fraction(25)  # of frames without a clock
MS_SSIM_SIDE = 176  # pixels: its window of 11 at a sixteenth of the size
SCALE_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
YUV_FROM_RGB = f"scale=out_color_matrix=bt709:out_range=limited:{SCALE_FLAGS}"
VMAF_MODELS = r"model='version=vmaf_v0.6.1\:name=vmaf|version=vmaf_v0.6.1neg\:name=vmaf_neg'"
SCORERS = ("psnr", "xpsnr", "libvmaf")


def find_ffmpeg() -> str | None:
    """FFmpeg from $TOKCODEC_FFMPEG, PATH, or the package imageio-ffmpeg; None if it is nowhere."""
    named = os.environ.get("TOKCODEC_FFMPEG") or shutil.which("ffmpeg")
    if named is None:
        with contextlib.suppress(ImportError, RuntimeError):  # RuntimeError: the package without its program
            import imageio_ffmpeg

            named = imageio_ffmpeg.get_ffmpeg_exe()
    return named


@functools.cache
def ffmpeg_has(ffmpeg: str, kind: str) -> frozenset[str]:
    """The names of this FFmpeg's `kind`: "encoders" or "filters"; of a program that cannot be run, none."""
    try:
        listing = subprocess.run([ffmpeg, "-hide_banner", f"-{kind}"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return frozenset()
    return frozenset(re.findall(r"^ [A-Z.|]+ +(\w+) ", listing.stdout, re.MULTILINE))


def scoring_argv(
    ffmpeg: str,
    inputs: Sequence[str],
    reference: str,
    decoded: str,
    scorers: Sequence[str],
    size: tuple[int, int],
    threads: int,
    every: int = 1,
) -> list[str]:
    """The command that scores one video against another; it writes its logs into the folder it runs in.

    Args:
        inputs: the options that open the videos.
        reference: filters from an input to 8-bit BT.709 4:2:0, as "[1:v]format=yuv420p".
        decoded: the same, for what is scored.
        scorers: some of `SCORERS`; numbered frames, not timestamps, meet each other.
        size: (height, width) of both; MS-SSIM is left out below 176.
        threads: of FFmpeg.
        every: n of every n-th frame, from the first, that libvmaf scores; the others score all.
    """
    vmaf = f"libvmaf=log_path=vmaf.json:log_fmt=json:n_threads={threads}:n_subsample={every}:{VMAF_MODELS}"
    vmaf += ":feature=name=float_ms_ssim" * (min(size) >= MS_SSIM_SIDE)
    filters = {"psnr": "psnr=stats_file=psnr.log", "xpsnr": "xpsnr=stats_file=xpsnr.log", "libvmaf": vmaf}
    n = len(scorers)
    graph = [
        f"{reference},setpts=N,split={n}" + "".join(f"[r{i}]" for i in range(n)),
        f"{decoded},setpts=N,split={n}" + "".join(f"[d{i}]" for i in range(n)),
        *(f"[d{i}][r{i}]{filters[each]}[o{i}]" for i, each in enumerate(scorers)),
    ]
    outputs = [part for i in range(n) for part in ("-map", f"[o{i}]")]
    head = [ffmpeg, "-v", "error", "-threads", str(threads), *inputs]
    return [*head, "-filter_complex", ";".join(graph), *outputs, "-f", "null", "-"]


def read_scores(folder: Path) -> dict[str, list[float]]:
    """The scores per frame in the logs that the command left in a folder, by the names of `scores.METRICS`."""
    scores: dict[str, list[float]] = {}
    for name, log, pattern in (
        ("psnr_y_db", "psnr.log", r"psnr_y:(\S+)"),
        ("xpsnr_y_db", "xpsnr.log", r"^n:.*XPSNR y: *(\S+)"),
    ):
        if (folder / log).exists():
            found = re.findall(pattern, (folder / log).read_text(), re.MULTILINE)
            scores[name] = [min(IDENTICAL_DB, float(x)) for x in found]
    if (folder / "vmaf.json").exists():
        frames = [frame["metrics"] for frame in json.loads((folder / "vmaf.json").read_text())["frames"]]
        for name, key in (("vmaf", "vmaf"), ("vmaf_neg", "vmaf_neg"), ("ms_ssim", "float_ms_ssim")):
            if frames and key in frames[0]:
                scores[name] = [frame[key] for frame in frames]
    return scores


def scoring(
    ffmpeg: str,
    pairs: Iterable[tuple[Frames, Frames]],
    size: tuple[int, int],
    found: dict[str, list[float]],
    fps: Fraction = DEFAULT_FPS,
    cores: int | None = None,
) -> Iterator[tuple[Frames, Frames]]:
    """Pass on pairs of frames while FFmpeg looks at them too; when they have ended, put its scores into `found`.

    These are VMAF, VMAF NEG, MS-SSIM, and XPSNR-Y if this FFmpeg has it.

    Args:
        ffmpeg: a program with the filter libvmaf.
        pairs: of the reference and what is scored, uint8 `[H, W, 3]`.
        size: (height, width) of each.
        found: is given the scores per frame.
        fps: frames/s; XPSNR looks at it.
        cores: that FFmpeg may use; None for all.

    Raises:
        TokcodecError: FFmpeg failed.
    """
    height, width = size
    # one input for both, the reference above: a program can be given one pipe everywhere
    inputs = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{2 * height}"]
    inputs += ["-framerate", str(fps), "-i", "-"]
    scorers = [
        name for name in SCORERS if name == "libvmaf" or (name == "xpsnr" and name in ffmpeg_has(ffmpeg, "filters"))
    ]
    upper, lower = (
        f"[{half}]crop={width}:{height}:0:{top},{YUV_FROM_RGB},format=yuv420p"
        for half, top in (("upper", 0), ("lower", height))
    )
    threads = cores or os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as messages:
        argv = scoring_argv(ffmpeg, inputs, f"[0:v]split=2[upper][lower];{upper}", lower, scorers, size, threads)
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=messages, cwd=name)
        assert process.stdin is not None
        try:
            for true, seen in pairs:
                with contextlib.suppress(BrokenPipeError):  # its exit code tells
                    process.stdin.write(true.tobytes())
                    process.stdin.write(seen.tobytes())
                yield true, seen
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            code = process.wait()
        if code:
            messages.seek(0)
            lines = messages.read().decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
            raise TokcodecError(f"FFmpeg cannot score: {lines[-1]}")
        found |= read_scores(Path(name))
