"""How near pictures are to their originals: one definition of each score for encoder, trainer, benchmark and `compare`.

Scores of frames in 8-bit RGB are computed here: PSNR, temporal PSNR, LPIPS; `ghosts.py` has ghosts, `vmaf.py` FFmpeg's,
in 8-bit 4:2:0. Scores of a clip are means over its frames.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.scoring.ghosts import ghosts

if TYPE_CHECKING:
    from torch import nn

IDENTICAL_DB = 100.0  # what PSNR-like scores call an identical frame, so that means stay finite
LPIPS_EVERY = 3  # every third frame: coprime to the length of a group, so that all its places are judged
THUMB = 8  # pixels a side of the blocks the sync check compares
SHIFTED = 0.8  # a neighbour frame this much nearer (in mean squared error) means the video is shifted


@dataclass(frozen=True)
class Metric:
    """A score's name for people, which way is up, and of which frames it is: every n-th from the first."""

    label: str
    lower_is_better: bool = False
    every: int = 1


METRICS = {
    "lpips_alex": Metric("LPIPS (AlexNet)", lower_is_better=True),
    "lpips_vgg": Metric("LPIPS (VGG)", lower_is_better=True),
    "lpips_squeeze": Metric("LPIPS (SqueezeNet)", lower_is_better=True),
    "stlpips_vgg": Metric("ST-LPIPS (VGG)", lower_is_better=True, every=5),  # it takes seconds a frame
    "psnr_rgb_db": Metric("PSNR-RGB, dB"),
    "psnr_y_db": Metric("PSNR-Y, dB"),
    "ms_ssim": Metric("MS-SSIM"),
    "vmaf": Metric("VMAF"),
    "vmaf_neg": Metric("VMAF NEG"),
    "xpsnr_y_db": Metric("XPSNR-Y, dB"),
    "temporal_psnr_db": Metric("temporal PSNR, dB"),
    "ghosts": Metric("ghosts, %", lower_is_better=True),
}


class SyncError(TokcodecError):
    """A video has other frames, or the same frames at other times, than its reference."""


def psnr_db(mse: float) -> float:
    """PSNR of a mean squared error of 8-bit values; 100 dB for none."""
    return IDENTICAL_DB if mse == 0 else min(IDENTICAL_DB, 10 * math.log10(255**2 / mse))


def mse_of(psnr: float) -> float:
    """Mean squared error of 8-bit values, from its PSNR in dB."""
    return float(255**2 / 10 ** (psnr / 10))


def _error(true: NDArray[Any], seen: NDArray[Any]) -> NDArray[np.int16]:
    error: NDArray[np.int16] = seen.astype(np.int16) - true
    return error


def _mean_square(error: NDArray[Any]) -> float:
    return float(np.square(error, dtype=np.float32).mean(dtype=np.float64))


def mean_psnr_db(true: Frames, seen: Frames) -> float:
    """Mean over frames of the PSNR of uint8 `[T, H, W, 3]`, in dB."""
    return float(np.mean([psnr_db(_mean_square(_error(*pair))) for pair in zip(true, seen, strict=True)]))


def mean_temporal_psnr_db(true: Frames, seen: Frames) -> float:
    """Mean over frames of the temporal PSNR (see `frame_scores`) of two or more frames, uint8 `[T, H, W, 3]`, in dB."""
    errors = [_error(*pair) for pair in zip(true, seen, strict=True)]
    return float(np.mean([psnr_db(_mean_square(b - a)) for a, b in itertools.pairwise(errors)]))


def lpips_distances(lpips: nn.Module, true: Frames, seen: Frames) -> list[float]:
    """LPIPS of each of uint8 `[B, H, W, 3]`, all at once, in float32 on the network's device."""
    import torch

    from tokcodec.restorer.pixels import to_unit

    device = next((p.device for p in lpips.parameters()), torch.device("cpu"))
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        # channels_last comes for free: it is how the frames lie in memory
        pixels = [to_unit(torch.from_numpy(np.array(x)).to(device).permute(0, 3, 1, 2)) for x in (true, seen)]
        distances: list[float] = lpips(*pixels).flatten().tolist()
    return distances


def lpips_distance(lpips: nn.Module, true: Frames, seen: Frames, every: int = LPIPS_EVERY) -> float:
    """Mean LPIPS of every third frame (or `every`) of uint8 `[T, H, W, 3]`, frame by frame (memory)."""
    pairs = zip(true[::every], seen[::every], strict=True)
    return float(np.mean([lpips_distances(lpips, a[None], b[None])[0] for a, b in pairs]))


@dataclass
class SyncCheck:
    """Compares each frame, seen in 8x8 block means, with its own reference and with the neighbours of that."""

    own: dict[str, float] = field(default_factory=lambda: {"late": 0.0, "early": 0.0})
    neighbour: dict[str, float] = field(default_factory=lambda: {"late": 0.0, "early": 0.0})
    previous: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None

    def update(self, reference: Frames, decoded: Frames) -> None:
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

    def shift(self) -> str | None:
        """ "late" or "early" if the video fits its reference clearly better one frame earlier or later."""
        return next((way for way, own in self.own.items() if self.neighbour[way] < SHIFTED * own), None)


def _block_means(frame: Frames) -> NDArray[np.float32]:
    h, w = frame.shape[0] // THUMB, frame.shape[1] // THUMB
    # in two sums: a mean over both axes takes 7 times as long
    rows = frame[: h * THUMB, : w * THUMB].reshape(h, THUMB, -1).sum(1, dtype=np.uint16)
    blocks: NDArray[np.float32] = rows.reshape(h, w, THUMB, 3).sum(2).astype(np.float32) / THUMB**2
    return blocks


def frame_scores(
    pairs: Iterable[tuple[Frames | None, Frames | None]],
    judges: Mapping[str, nn.Module],
    sync: SyncCheck,
    chosen: Mapping[str, range] | None = None,
) -> dict[str, list[float]]:
    """Scores per frame in 8-bit RGB: `psnr_rgb_db`, `temporal_psnr_db`, `ghosts` and one per judge.

    Temporal PSNR compares each frame's change from the frame before it with the reference's change: flicker
    and frozen detail lower it, a constant error does not. It starts at the second frame. Frames of less than 18 pixels
    a side have no ghosts.

    Args:
        pairs: frames uint8 `[H, W, 3]` of the reference and of the video, in one pass; None where one has ended
            before the other.
        judges: LPIPS networks by metric name; each judges every n-th frame, as `METRICS` says.
        sync: is shown every pair.
        chosen: the numbers of the frames that have a score, for judges and `ghosts`, where they are others.

    Raises:
        SyncError: one has ended before the other.
    """
    scores: dict[str, list[float]] = {name: [] for name in ("psnr_rgb_db", "temporal_psnr_db", "ghosts", *judges)}
    frames = {name: range(0, sys.maxsize, METRICS[name].every) for name in scores} | dict(chosen or {})
    previous: NDArray[np.int16] | None = None
    for number, (true, seen) in enumerate(pairs):
        if true is None or seen is None:
            raise SyncError("the videos differ in the number of frames")
        sync.update(true, seen)
        error = _error(true, seen)
        scores["psnr_rgb_db"].append(psnr_db(_mean_square(error)))
        if previous is not None:
            scores["temporal_psnr_db"].append(psnr_db(_mean_square(error - previous)))
        previous = error
        if number in frames["ghosts"] and (found := ghosts(true, seen)) is not None:
            scores["ghosts"].append(found)
        for name, judge in judges.items():
            if number in frames[name]:  # one by one: several at once take as long, and more memory
                scores[name] += lpips_distances(judge, true[None], seen[None])
    return scores


def summary(frames: list[float]) -> dict[str, float | list[float]]:
    """Mean, 5th and 95th percentile over frames, and the frames themselves, to 6 digits."""
    p5, p95 = np.percentile(frames, [5, 95])
    rounded = [float(f"{x:.6g}") for x in (np.mean(frames), p5, p95, *frames)]
    return {"mean": rounded[0], "p5": rounded[1], "p95": rounded[2], "frames": rounded[3:]}
