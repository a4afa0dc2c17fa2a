"""How good a network is on coded clips, and the plain base: LPIPS (AlexNet), (temporal) PSNR, VMAF, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tokcodec.coding.planes import GROUP
from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.io import suffixes
from tokcodec.restorer.pixels import to_levels
from tokcodec.scoring.scores import lpips_distance, mean_psnr_db, mean_temporal_psnr_db
from tokcodec.scoring.vmaf import ffmpeg_has, find_ffmpeg, scoring
from tokcodec.training.coded import Batch
from tokcodec.training.data import resize
from tokcodec.training.trainer import picture, restore
from tokcodec.video import VideoReader

CLIP_FRAMES = 17
PICTURE_PX = 320  # width of one frame in the picture

Scores = dict[str, float]  # "lpips", "psnr_db" and, where they can be had, "temporal_psnr_db" and "vmaf"


class Evaluation(NamedTuple):
    """Of one set of clips."""

    clips: dict[str, dict[str, Scores]]  # by clip: of "base" and "network"
    picture: Frames  # uint8 [H, W, 3]: a row a clip, its middle frame as it was, as the loop left it, restored


def load_clips(folder: Path, frames: int = CLIP_FRAMES, height_px: int = 360) -> dict[str, Frames]:
    """The first 1 + 4n frames of each video below a folder, uint8 `[T, H, W, 3]`, scaled down to `height_px`.

    Raises:
        TokcodecError: there is none.
        VideoError: one cannot be decoded.
    """
    clips = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes.VIDEO - suffixes.IMAGE):
        taken = []
        with VideoReader(path) as reader:
            for frame, _ in reader:
                taken.append(frame)
                if len(taken) == frames:
                    break
        clip = np.stack(taken[: (len(taken) - 1) // GROUP * GROUP + 1])
        height, width = clip.shape[1:3]
        if height > height_px:
            clip = resize(clip, height_px, round(width * height_px / height / 2) * 2)
        clips[path.relative_to(folder).as_posix()] = clip
    if not clips:
        raise TokcodecError(f"{folder}: no video to evaluate on")
    return clips


def to_frames(pixels: Tensor) -> Frames:
    """float `[1, T, 3, H, W]` in [-1, 1] to uint8 `[T, H, W, 3]`."""
    frames: Frames = to_levels(pixels[0]).permute(0, 2, 3, 1).cpu().numpy()
    return frames


def scores(lpips: nn.Module, output: Frames, target: Frames) -> Scores:
    """LPIPS of every third frame, RGB PSNR, of more than one frame temporal PSNR, and VMAF; uint8 `[T, H, W, 3]`.

    VMAF is left out where there is no FFmpeg with libvmaf.
    """
    found = {
        "lpips": round(lpips_distance(lpips, target, output), 4),
        "psnr_db": round(mean_psnr_db(target, output), 3),
    }
    if len(output) > 1:
        found["temporal_psnr_db"] = round(mean_temporal_psnr_db(target, output), 3)
    ffmpeg = find_ffmpeg()
    if ffmpeg is not None and "libvmaf" in ffmpeg_has(ffmpeg, "filters"):
        by_frame: dict[str, list[float]] = {}
        for _ in scoring(ffmpeg, zip(target, output, strict=True), target.shape[1:3], by_frame):
            pass
        found["vmaf"] = round(float(np.mean(by_frame["vmaf"])), 2)
    return found


@torch.no_grad()
def evaluate(
    network: nn.Module, lpips: nn.Module, clips: dict[str, Any], base: dict[str, Scores] | None = None
) -> Evaluation:
    """Judge the network and the plain base on whole clips.

    Args:
        network: the Restorer.
        lpips: the judge.
        clips: records of coded.py by name.
        base: the base's scores by clip, which never change: filled, and read where they are known.
    """
    device = next(network.parameters()).device
    base = {} if base is None else base
    by_clip: dict[str, dict[str, Scores]] = {}
    rows = []
    for name, coded in clips.items():
        planes, step, own, kind = (
            torch.from_numpy(np.array(coded[name])[None]) for name in ("planes", "step", "own", "kind")
        )
        batch = Batch(planes, step, own, kind, True).to(device)
        target, plain, output = map(to_frames, (picture(batch, 0), picture(batch, 1), restore(network, batch)))
        if name not in base:
            base[name] = scores(lpips, plain, target)
        by_clip[name] = {"base": base[name], "network": scores(lpips, output, target)}
        row = np.concatenate([x[len(target) // 2] for x in (target, plain, output)], axis=1)
        width = 3 * PICTURE_PX
        rows.append(np.asarray(Image.fromarray(row).resize((width, round(row.shape[0] * width / row.shape[1])))))
    return Evaluation(by_clip, np.concatenate(rows))


def means(by_clip: dict[str, dict[str, Scores]]) -> dict[str, Scores]:
    """The mean of every score over the clips that have it, of "base" and "network"."""
    result: dict[str, Scores] = {}
    for kind in ("base", "network"):
        names = dict.fromkeys(name for clip in by_clip.values() for name in clip[kind])
        result[kind] = {
            name: round(float(np.mean([c[kind][name] for c in by_clip.values() if name in c[kind]])), 4)
            for name in names
        }
    return result
