"""How near a decoded video is to its reference: per-frame scores, computed in one pass with bounded memory.

RGB scores (LPIPS, PSNR, temporal PSNR) are computed here in 8-bit RGB; PSNR-Y, MS-SSIM, VMAF and XPSNR by
FFmpeg's own filters in 8-bit 4:2:0. A decoder that is a frame late is an error, not a low score.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.codecs import Video, rgb_argv
from benchmarks.tools import Tools, read_frames, run
from tokcodec.errors import TokcodecError

LPIPS_BATCH = 8
IDENTICAL_DB = 100.0  # what PSNR-like scores call an identical frame, so that means stay finite
MS_SSIM_SIDE = 176  # pixels: its window of 11 at a sixteenth of the size
THUMB = 8  # pixels a side of the blocks the sync check compares
SHIFTED = 0.8  # a neighbour frame this much nearer (in mean squared error) means the video is shifted


@dataclass(frozen=True)
class Metric:
    """A score's name for people, and which way is up."""

    label: str
    lower_is_better: bool = False


METRICS = {
    "lpips_alex": Metric("LPIPS (AlexNet)", lower_is_better=True),
    "lpips_vgg": Metric("LPIPS (VGG)", lower_is_better=True),
    "lpips_squeeze": Metric("LPIPS (SqueezeNet)", lower_is_better=True),
    "psnr_rgb_db": Metric("PSNR-RGB, dB"),
    "psnr_y_db": Metric("PSNR-Y, dB"),
    "ms_ssim": Metric("MS-SSIM"),
    "vmaf": Metric("VMAF"),
    "xpsnr_y_db": Metric("XPSNR-Y, dB"),
    "temporal_psnr_db": Metric("temporal PSNR, dB"),
}


class SyncError(TokcodecError):
    """The decoded video has other frames, or the same frames at other times, than its reference."""


def psnr_db(mse: float) -> float:
    """PSNR of a mean squared error of 8-bit values; 100 dB for none."""
    return IDENTICAL_DB if mse == 0 else min(IDENTICAL_DB, 10 * math.log10(255**2 / mse))


@dataclass
class SyncCheck:
    """Compares each decoded frame, seen in 8x8 block means, with its own reference and with the neighbours of that."""

    own: dict[str, float] = field(default_factory=lambda: {"late": 0.0, "early": 0.0})
    neighbour: dict[str, float] = field(default_factory=lambda: {"late": 0.0, "early": 0.0})
    previous: tuple[np.ndarray, np.ndarray] | None = None

    def update(self, reference: np.ndarray, decoded: np.ndarray) -> None:
        """The next pair of frames, uint8 `[H, W, 3]`."""
        true, seen = _block_means(reference), _block_means(decoded)
        if self.previous is not None:
            true_before, seen_before = self.previous
            # a late video shows the reference's frame before, an early one the frame after
            self.own["late"] += _mean_square(seen - true)
            self.neighbour["late"] += _mean_square(seen - true_before)
            self.own["early"] += _mean_square(seen_before - true_before)
            self.neighbour["early"] += _mean_square(seen_before - true)
        self.previous = true, seen

    def finish(self) -> None:
        """Raises SyncError if the video fits its reference clearly better one frame earlier or later."""
        for way, own in self.own.items():
            if self.neighbour[way] < SHIFTED * own:
                raise SyncError(f"the decoded video is a frame {way}")


def _block_means(frame: np.ndarray) -> np.ndarray:
    h, w = frame.shape[0] // THUMB, frame.shape[1] // THUMB
    # in two sums: a mean over both axes takes 7 times as long
    rows = frame[: h * THUMB, : w * THUMB].reshape(h, THUMB, -1).sum(1, dtype=np.uint16)
    blocks: np.ndarray = rows.reshape(h, w, THUMB, 3).sum(2).astype(np.float32) / THUMB**2
    return blocks


def rgb_scores(
    tools: Tools, reference: Video, decoded: Video, size: tuple[int, int], judges: Mapping[str, nn.Module]
) -> dict[str, list[float]]:
    """Scores per frame in 8-bit RGB: `psnr_rgb_db`, `temporal_psnr_db` and one per judge.

    Temporal PSNR compares each frame's change from the frame before it with the reference's change: flicker
    and frozen detail lower it, a constant error does not. It starts at the second frame.

    Args:
        size: (height, width) of both.
        judges: LPIPS networks by metric name, all on one device.

    Raises:
        SyncError: frame counts differ, or the video is shifted by a frame.
        ToolError: a file cannot be decoded.
    """
    scores: dict[str, list[float]] = {name: [] for name in ("psnr_rgb_db", "temporal_psnr_db", *judges)}
    sync = SyncCheck()
    previous_error: np.ndarray | None = None
    pairs = itertools.zip_longest(
        read_frames(rgb_argv(tools, reference), *size), read_frames(rgb_argv(tools, decoded), *size)
    )
    while batch := list(itertools.islice(pairs, LPIPS_BATCH)):
        for true, seen in batch:
            if true is None or seen is None:
                raise SyncError("the decoded video and its reference differ in the number of frames")
            sync.update(true, seen)
            error = seen.astype(np.int16) - true
            scores["psnr_rgb_db"].append(psnr_db(_mean_square(error)))
            if previous_error is not None:
                scores["temporal_psnr_db"].append(psnr_db(_mean_square(error - previous_error)))
            previous_error = error
        for name, judge in judges.items():
            scores[name] += _lpips(judge, *(np.stack(frames) for frames in zip(*batch, strict=True)))
    sync.finish()
    return scores


def _mean_square(error: np.ndarray) -> float:
    return float(np.square(error, dtype=np.float32).mean(dtype=np.float64))


@torch.inference_mode()
def _lpips(judge: nn.Module, *videos: np.ndarray) -> list[float]:
    """Two uint8 `[B, H, W, 3]` to B distances, in float32 on the judge's device."""
    device = next(judge.parameters()).device
    # channels_last comes for free: it is how the frames lie in memory
    pixels = [torch.from_numpy(video).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1 for video in videos]
    distances: list[float] = judge(*pixels).flatten().tolist()
    return distances


def yuv_scores(
    tools: Tools, reference: Video, decoded: Video, size: tuple[int, int], fps: str, filters: set[str], threads: int
) -> dict[str, list[float]]:
    """Scores per frame in 8-bit BT.709 4:2:0: `psnr_y_db`, and `xpsnr_y_db`, `vmaf`, `ms_ssim` if FFmpeg has them.

    Args:
        size: (height, width) of both; MS-SSIM is left out below 176.
        fps: frame rate as FFmpeg writes it ("30000/1001"); XPSNR looks at it.
        filters: the names of this FFmpeg's filters.

    Raises:
        ToolError: a file cannot be decoded.
    """
    ms_ssim = min(size) >= MS_SSIM_SIDE
    vmaf = f"libvmaf=log_path=vmaf.json:log_fmt=json:n_threads={threads}" + ":feature=name=float_ms_ssim" * ms_ssim
    chosen = ["psnr=stats_file=psnr.log"]
    chosen += ["xpsnr=stats_file=xpsnr.log"] if "xpsnr" in filters else []
    chosen += [vmaf] if "libvmaf" in filters else []
    n = len(chosen)
    graph = [  # numbered frames, not timestamps, meet each other
        f"[0:v]setpts=N,{decoded.to_yuv},split={n}" + "".join(f"[d{i}]" for i in range(n)),
        f"[1:v]setpts=N,{reference.to_yuv},split={n}" + "".join(f"[r{i}]" for i in range(n)),
        *(f"[d{i}][r{i}]{each}[o{i}]" for i, each in enumerate(chosen)),
    ]
    inputs = ["-r", fps, "-i", str(decoded.path.resolve()), "-r", fps, "-i", str(reference.path.resolve())]
    outputs = [part for i in range(n) for part in ("-map", f"[o{i}]")]
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        logs = Path(name)
        head = [tools.ffmpeg, "-v", "error", "-threads", str(threads)]
        run([*head, *inputs, "-filter_complex", ";".join(graph), *outputs, "-f", "null", "-"], logs)
        scores["psnr_y_db"] = _logged_db(logs / "psnr.log", r"psnr_y:(\S+)")
        if "xpsnr" in filters:
            scores["xpsnr_y_db"] = _logged_db(logs / "xpsnr.log", r"^n:.*XPSNR y: *(\S+)")
        if "libvmaf" in filters:
            frames = [frame["metrics"] for frame in json.loads((logs / "vmaf.json").read_text())["frames"]]
            scores["vmaf"] = [frame["vmaf"] for frame in frames]
            if ms_ssim:
                scores["ms_ssim"] = [frame["float_ms_ssim"] for frame in frames]
    return scores


def _logged_db(log: Path, pattern: str) -> list[float]:
    return [min(IDENTICAL_DB, float(x)) for x in re.findall(pattern, log.read_text(), re.MULTILINE)]


def summary(frames: list[float]) -> dict[str, float | list[float]]:
    """Mean, 5th and 95th percentile over frames, and the frames themselves, to 6 digits."""
    p5, p95 = np.percentile(frames, [5, 95])
    rounded = [float(f"{x:.6g}") for x in (np.mean(frames), p5, p95, *frames)]
    return {"mean": rounded[0], "p5": rounded[1], "p95": rounded[2], "frames": rounded[3:]}
