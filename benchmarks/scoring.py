"""Score a decoded file against its reference with the package's own scores, both read by FFmpeg.

A decoder that is a frame late is an error, not a low score.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Set
from pathlib import Path

from torch import nn

from benchmarks.codecs import Video, rgb_argv
from benchmarks.tools import Tools, read_frames, run
from tokcodec.scores import SyncCheck, SyncError, frame_scores
from tokcodec.vmaf import SCORERS, read_scores, scoring_argv


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
    """Scores per frame in 8-bit BT.709 4:2:0: `psnr_y_db`, and `xpsnr_y_db`, `vmaf`, `ms_ssim` if FFmpeg has them.

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
