"""Training clips: video files, images or shards, decoded once into memory-mapped uint8 arrays.

A cache is a folder of `NAME.npy`, one array `[segments, frames, H, W, 3]` a source file. A batch is a pure
function of (seed, step, place in the batch), so a run resumes at any step without stored state, and
processes that share a run draw the clips one process would have drawn.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.errors import TokcodecError, VideoError
from tokcodec.video import VideoReader

SEGMENT_FRAMES = 33
CACHE_PX = 256
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m", ".m4v"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def square(frame: np.ndarray, side: int) -> np.ndarray:
    """The middle square of a frame, uint8 `[H, W, 3]`, scaled down to `side` pixels (never up)."""
    height, width = frame.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    cut = frame[top : top + short, left : left + short]
    return cut if short <= side else resize(cut[None], side, side)[0]


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale frames, uint8 `[T, H, W, 3]`, with an antialiased bicubic filter."""
    if frames.shape[1:3] == (height, width):
        return frames
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def decode_source(path: Path, side: int = CACHE_PX) -> np.ndarray:
    """Decode one source file into segments, uint8 `[N, frames, side, side, 3]`.

    A video is cut every 33 frames, its tail dropped; an image, or a file whose name begins with
    "image" (a shard of images), gives segments of one frame.

    Raises:
        VideoError: the file cannot be decoded or is shorter than one segment.
    """
    still = path.suffix.lower() in IMAGE_SUFFIXES or path.name.startswith("image")
    length = 1 if still else SEGMENT_FRAMES
    with VideoReader(path) as reader:
        frames = [square(frame, side) for frame, _ in reader]
    count = len(frames) // length
    if not count:
        raise VideoError(f"{path}: shorter than one segment of {length} frames")
    whole = np.stack(frames[: count * length])
    return whole.reshape(count, length, *whole.shape[1:])


def build_cache(source: Path, cache: Path) -> list[Path]:
    """Decode every video and image below `source` that `cache` does not hold yet.

    A file that cannot be decoded is left out, with a line on stderr.

    Returns:
        The arrays of all sources, sorted by name.

    Raises:
        TokcodecError: there is nothing to train on.
    """
    cache.mkdir(parents=True, exist_ok=True)
    arrays = []
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES):
        place = path.relative_to(source)
        tag = f"-{zlib.crc32(str(place.parent).encode()):08x}" if place.parent.name else ""
        target = cache / f"{path.stem}{tag}.npy"
        if not target.exists():
            partial = target.with_suffix(".partial.npy")
            try:
                np.save(partial, decode_source(path))
            except VideoError as error:
                print(f"left out: {error}", flush=True)
                continue
            os.replace(partial, target)
        arrays.append(target)
    if not arrays:
        raise TokcodecError(f"{source}: no video or image to train on")
    return arrays


@dataclasses.dataclass(frozen=True)
class ClipSampler:
    """Draws random clips from cached segments.

    Args:
        arrays: memory-mapped uint8 `[N, frames, H, W, 3]`, of any lengths and sizes.
        crop_px: side of the square crop, a multiple of 16.
        seed: of every draw.
    """

    arrays: list[np.ndarray]
    crop_px: int
    seed: int

    def _pick(self, rng: np.random.Generator, frames: int) -> np.ndarray:
        """A random segment that is long enough: all segments are equally likely."""
        fitting = [a for a in self.arrays if a.shape[1] >= frames and min(a.shape[2:4]) >= self.crop_px]
        if not fitting:
            raise TokcodecError(f"no segment has {frames} frames of {self.crop_px} pixels")
        if frames == 1:  # single images: half from photographs, half from video, where there are both
            photographs = [a for a in fitting if a.shape[1] == 1]
            fitting = photographs if photographs and rng.random() < 0.5 else fitting
        counts = np.cumsum([len(a) for a in fitting])
        index = int(rng.integers(counts[-1]))
        which = int(np.searchsorted(counts, index, side="right"))
        segment: np.ndarray = fitting[which][index - int(counts[which])]
        return segment

    def clip(self, step: int, place: int, frames: int) -> np.ndarray:
        """One clip, uint8 `[frames, crop, crop, 3]`: random crop, flip, stride 1 or 2, reversal."""
        rng = np.random.default_rng([self.seed, step, place])
        segment = self._pick(rng, frames)
        length, height, width = segment.shape[:3]
        stride = 2 if 2 * (frames - 1) < length and rng.random() < 0.3 else 1
        start = int(rng.integers(length - stride * (frames - 1)))
        top, left = (int(rng.integers(size - self.crop_px + 1)) for size in (height, width))
        clip = segment[start : start + stride * (frames - 1) + 1 : stride]
        clip = clip[:, top : top + self.crop_px, left : left + self.crop_px]
        if rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if rng.random() < 0.3:
            clip = clip[::-1]
        return clip

    def batch(self, step: int, places: range, frames: int) -> Tensor:
        """Clips as uint8 `[B, 3, frames, crop, crop]` (channels last in memory)."""
        clips = np.stack([self.clip(step, place, frames) for place in places])
        return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)


def to_pixels(clip: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return clip.float().div_(127.5).sub_(1)
