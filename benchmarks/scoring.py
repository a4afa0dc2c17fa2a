"""Score a decoded file against its reference with the package's own scores, both read by FFmpeg.

A decoder that is a frame late is an error, not a low score. What takes long is of every n-th frame, of the same ones
for every codec.
"""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from benchmarks.tools import ToolError, Tools, failure, run
from tokcodec.scoring.scores import METRICS, SyncCheck, SyncError, frame_scores
from tokcodec.scoring.stlpips import STLPIPS
from tokcodec.scoring.vmaf import SCALE_FLAGS, SCORERS, YUV_FROM_RGB, read_scores, scoring_argv

RGB_FROM_YUV = f"scale=in_color_matrix=bt709:in_range=limited:out_range=full:{SCALE_FLAGS}"
YUV8_FROM_YUV10 = f"scale=sws_dither=none:{SCALE_FLAGS}"
BY_LIBVMAF = ("vmaf", "vmaf_neg", "ms_ssim")
BY_FFMPEG = ("psnr_y_db", "xpsnr_y_db", *BY_LIBVMAF)
OF_ALL_FRAMES = ("psnr_rgb_db", "temporal_psnr_db", "psnr_y_db", "xpsnr_y_db")
SAMPLE = 24  # frames of a clip that the others have a score of, at most ...
STLPIPS_PX = 3 * 640 * 360  # ... and ST-LPIPS, which takes seconds a frame, so many pixels, in 2 frames at least
KEPT_BYTES = 1 << 31  # features of originals


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


def sampled(metric: str, frames: int, size: tuple[int, int]) -> range:
    """The numbers of the frames of a clip that have a score.

    Where they are not all it is every n-th frame with an odd n, so that every place in a pyramid of 2, 4 or 8 frames is
    judged, and from the middle of the first n on: the first frame is the best of every codec. libvmaf's begin with it.
    """
    if metric in OF_ALL_FRAMES:
        return range(frames)
    most = SAMPLE if metric != "stlpips_vgg" else max(2, STLPIPS_PX // (size[0] * size[1]))
    every = -(-frames // most) // 2 * 2 + 1 if frames > most else 1
    return range(0 if metric in BY_LIBVMAF else every // 2, frames, every)


class Remembering(nn.Module):
    """ST-LPIPS that keeps the features of originals: those of a clip are asked for at every point of it."""

    def __init__(self, judge: STLPIPS) -> None:
        super().__init__()
        self.judge = judge
        self._kept: dict[bytes, list[Tensor]] = {}
        self._lock = threading.Lock()

    def forward(self, true: Tensor, seen: Tensor) -> Tensor:
        key = hashlib.sha256(true.cpu().numpy().tobytes()).digest()
        with self._lock:
            features = self._kept.pop(key, None)
        if features is None:
            features = self.judge.features(true)
        with self._lock:
            self._kept[key] = features  # the youngest
            size = sum(x.nbytes for each in self._kept.values() for x in each)
            while size > KEPT_BYTES and len(self._kept) > 1:
                size -= sum(x.nbytes for x in self._kept.pop(next(iter(self._kept))))
        return self.judge.distance(features, self.judge.features(seen))


def rgb_argv(tools: Tools, video: Video, only: int | None = None) -> list[str]:
    """The command that writes a video's frames (or frame `only`) to stdout as raw rgb24."""
    chosen, until = ("", []) if only is None else (rf"select=eq(n\,{only}),", ["-frames:v", "1"])
    head = [tools.ffmpeg, "-v", "error", "-i", str(video.path), "-vf", chosen + video.to_rgb]
    return [*head, *until, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]


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


def pixels_sha256(tools: Tools, video: Video, size: tuple[int, int]) -> tuple[str, int]:
    """SHA-256 of a video's frames as rgb24, and how many there are.

    Raises:
        ToolError: it cannot be decoded.
    """
    digest, count = hashlib.sha256(), 0
    for frame in read_frames(rgb_argv(tools, video), *size):
        digest.update(frame.tobytes())
        count += 1
    return digest.hexdigest(), count


def rgb_scores(
    tools: Tools,
    reference: Video,
    decoded: Video,
    size: tuple[int, int],
    judges: Mapping[str, nn.Module],
    frames: int | None = None,
) -> dict[str, list[float]]:
    """Scores per frame in 8-bit RGB, as `frame_scores` has them.

    Args:
        size: (height, width) of both.
        judges: LPIPS networks by metric name, all on one device.
        frames: how many a clip has of which `sampled` is scored; None scores what `METRICS` says.

    Raises:
        SyncError: frame counts differ, or the video is shifted by a frame.
        ToolError: a file cannot be decoded.
    """
    sync = SyncCheck()
    videos = [read_frames(rgb_argv(tools, video), *size) for video in (reference, decoded)]
    names = METRICS if frames is not None else ()
    chosen = {name: sampled(name, frames or 0, size) for name in names}
    scores = frame_scores(itertools.zip_longest(*videos), judges, sync, chosen)
    if way := sync.shift():
        raise SyncError(f"the decoded video is a frame {way}")
    return scores


def yuv_scores(
    tools: Tools,
    reference: Video,
    decoded: Video,
    size: tuple[int, int],
    fps: str,
    filters: Set[str],
    threads: int,
    frames: int | None = None,
) -> dict[str, list[float]]:
    """Scores per frame in 8-bit BT.709 4:2:0: `psnr_y_db`; also `xpsnr_y_db`, `vmaf`, `vmaf_neg` and `ms_ssim`.

    What this FFmpeg has not is left out.

    Args:
        size: (height, width) of both.
        fps: frame rate as FFmpeg writes it ("30000/1001"); XPSNR looks at it.
        filters: the names of this FFmpeg's filters.
        threads: of FFmpeg.
        frames: as for `rgb_scores`.

    Raises:
        ToolError: a file cannot be decoded.
    """
    every = 1 if frames is None else sampled("vmaf", frames, size).step
    scorers = [name for name in SCORERS if name == "psnr" or name in filters]
    inputs = ["-r", fps, "-i", str(decoded.path.resolve()), "-r", fps, "-i", str(reference.path.resolve())]
    pair = f"[1:v]{reference.to_yuv}", f"[0:v]{decoded.to_yuv}"
    argv = scoring_argv(tools.ffmpeg, inputs, *pair, scorers, size, threads, every)
    with tempfile.TemporaryDirectory() as name:
        run(argv, Path(name))
        return read_scores(Path(name))
