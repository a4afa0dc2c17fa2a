"""Score a decoded file against its reference with the package's own scores, both read by FFmpeg.

A decoder that is a frame late is an error, not a low score.
"""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.tools import ToolError, Tools, failure, run
from tokcodec.scoring.scores import SyncCheck, SyncError, frame_scores
from tokcodec.scoring.vmaf import SCALE_FLAGS, SCORERS, YUV_FROM_RGB, read_scores, scoring_argv

RGB_FROM_YUV = f"scale=in_color_matrix=bt709:in_range=limited:out_range=full:{SCALE_FLAGS}"
YUV8_FROM_YUV10 = f"scale=sws_dither=none:{SCALE_FLAGS}"


@dataclass(frozen=True)
class Video:
    """A file to look at: lossless RGB, or a bare stream of BT.709 limited-range 4:2:0."""

    path: Path
    rgb: bool

    @property
    def to_rgb(self) -> str:
        """Filter that makes it 8-bit RGB."""
        return "null" if self.rgb else RGB_FROM_YUV

    @property
    def to_yuv(self) -> str:
        """Filter that makes it 8-bit BT.709 limited-range 4:2:0, undithered."""
        return f"{YUV_FROM_RGB if self.rgb else YUV8_FROM_YUV10},format=yuv420p"


def rgb_argv(tools: Tools, video: Video, only: int | None = None) -> list[str]:
    """The command that writes a video's frames (or frame `only`) to stdout as raw rgb24."""
    chosen = "" if only is None else rf",select=eq(n\,{only})"
    head = [tools.ffmpeg, "-v", "error", "-i", str(video.path), "-vf", video.to_rgb + chosen]
    return [*head, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]


def read_frames(argv: Sequence[str], height: int, width: int) -> Iterator[np.ndarray]:
    """The frames a program writes to stdout as raw rgb24, uint8 `[H, W, 3]`, one at a time.

    Raises:
        ToolError: it fails, or ends inside a frame.
    """
    size = height * width * 3
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err)
        assert process.stdout is not None
        try:
            while data := process.stdout.read(size):
                if len(data) < size:
                    raise ToolError(f"{Path(argv[0]).name} ended inside a frame of {width}x{height}")
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
        finally:
            process.stdout.close()
            code = process.wait()
        if code:
            err.seek(0)
            raise failure(argv, code, err.read().decode(errors="replace"))


def rgb_scores(
    tools: Tools, reference: Video, decoded: Video, size: tuple[int, int], judges: Mapping[str, nn.Module]
) -> dict[str, list[float]]:
    """Scores per frame in 8-bit RGB, as `frame_scores` has them.

    Args:
        size: (height, width) of both.
        judges: LPIPS networks by metric name, all on one device.

    Raises:
        SyncError: frame counts differ, or the video is shifted by a frame.
        ToolError: a file cannot be decoded.
    """
    sync = SyncCheck()
    videos = [read_frames(rgb_argv(tools, video), *size) for video in (reference, decoded)]
    scores = frame_scores(itertools.zip_longest(*videos), judges, sync)
    if way := sync.shift():
        raise SyncError(f"the decoded video is a frame {way}")
    return scores


def yuv_scores(
    tools: Tools, reference: Video, decoded: Video, size: tuple[int, int], fps: str, filters: Set[str], threads: int
) -> dict[str, list[float]]:
    """Scores per frame in 8-bit BT.709 4:2:0: `psnr_y_db`; also `xpsnr_y_db`, `vmaf`, `vmaf_neg` and `ms_ssim`.

    What this FFmpeg has not is left out.

    Args:
        size: (height, width) of both.
        fps: frame rate as FFmpeg writes it ("30000/1001"); XPSNR looks at it.
        filters: the names of this FFmpeg's filters.
        threads: of FFmpeg.

    Raises:
        ToolError: a file cannot be decoded.
    """
    scorers = [name for name in SCORERS if name == "psnr" or name in filters]
    inputs = ["-r", fps, "-i", str(decoded.path.resolve()), "-r", fps, "-i", str(reference.path.resolve())]
    argv = scoring_argv(
        tools.ffmpeg, inputs, f"[1:v]{reference.to_yuv}", f"[0:v]{decoded.to_yuv}", scorers, size, threads
    )
    with tempfile.TemporaryDirectory() as name:
        run(argv, Path(name))
        return read_scores(Path(name))
