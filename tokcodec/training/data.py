"""Training clips: video files, images or shards, decoded once into memory-mapped uint8 arrays.

A cache is a folder of `NAME.npy`, one array `[segments, frames, H, W, 3]` a source file. A batch is a pure
function of (seed, step, place in the batch), so a run resumes at any step without stored state, and
processes that share a run draw the clips one process would have drawn.
"""

from __future__ import annotations

import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokcodec.errors import TokcodecError, VideoError
from tokcodec.output import writing
from tokcodec.video import VideoReader

log = logging.getLogger("tokcodec")

SEGMENT_FRAMES = 33
CACHE_PX = 256
THREADS = 8  # that draw clips, at most
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m", ".m4v"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
IMAGE_SHARD = re.compile(r"image-\d+\.mkv")


def square(frame: np.ndarray, side: int) -> np.ndarray:
    """The middle square of a frame, uint8 `[H, W, 3]`, scaled down to `side` pixels (never up)."""
    height, width = frame.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    cut = frame[top : top + short, left : left + short]
    return cut if short <= side else resize(cut[None], side, side)[0]


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale frames, uint8 `[T, H, W, 3]`, with an antialiased bicubic filter (integers: 15x faster than float32)."""
    if frames.shape[1:3] == (height, width):
        return frames
    pixels = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)
    scaled = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return scaled.permute(0, 2, 3, 1).numpy()


def decode_source(path: Path, target: Path, side: int = CACHE_PX) -> None:
    """Decode one source file into an array of segments, uint8 `[N, frames, side, side, 3]`, frame by frame.

    A video is cut every 33 frames, its tail dropped; an image, or a shard of images (`image-00.mkv`),
    gives segments of one frame.

    Raises:
        VideoError: the file cannot be decoded or is shorter than one segment.
        TokcodecError: the target cannot be written.
    """
    still = path.suffix.lower() in IMAGE_SUFFIXES or IMAGE_SHARD.fullmatch(path.name)
    length = 1 if still else SEGMENT_FRAMES
    with VideoReader(path) as reader, writing(target, [path]) as file:
        count, shape = 0, (0, 0, 0)
        for frame, _ in reader:
            cut = square(frame, side)
            if not count:
                shape = cut.shape
                start = _write_header(file, (0, length, *shape))
            file.write(cut.tobytes())
            count += 1
        segments = count // length
        if not segments:
            raise VideoError(f"{path}: shorter than one segment of {length} frames")
        file.truncate(start + segments * length * cut.nbytes)
        _write_header(file, (segments, length, *shape))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write the header of an .npy file; NumPy makes it as long for any number of segments. Returns its end."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.tell()


def build_cache(source: Path, cache: Path) -> dict[str, Path]:
    """Decode every video and image below `source` that `cache` does not hold yet.

    The cache knows a source by its name: delete the array of one that changed. A file that cannot be
    decoded is left out, with a warning.

    Returns:
        The array of each source, by the source's path below `source`, sorted.

    Raises:
        TokcodecError: there is nothing to train on, or the cache cannot be written.
    """
    arrays: dict[str, Path] = {}
    taken: set[Path] = set()
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES):
        place = path.relative_to(source)
        target = cache / place.with_suffix(".npy")
        if target in taken:  # two sources that differ in their suffix only
            target = cache / f"{place}.npy"
        taken.add(target)
        if not target.exists():
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                decode_source(path, target)
            except VideoError as error:
                log.warning("left out: %s", error)
                continue
            except OSError as error:
                raise TokcodecError(f"{target.parent}: cannot write: {error.strerror}") from error
        arrays[place.as_posix()] = target
    if not arrays:
        raise TokcodecError(f"{source}: no video or image to train on")
    return arrays


class ClipSampler:
    """Draws random clips from cached segments.

    Args:
        arrays: memory-mapped uint8 `[N, frames, H, W, 3]`, of any lengths and sizes.
        crop_px: side of the square crop, a multiple of 16.
        seed: of every draw.
        shrink_share: of the clips, cut up to twice as large and scaled down to the crop: finer detail and
            faster motion a pixel than the source has.
    """

    def __init__(self, arrays: list[np.ndarray], crop_px: int, seed: int, shrink_share: float = 0.0) -> None:
        self.arrays, self.crop_px, self.seed, self.shrink_share = arrays, crop_px, seed, shrink_share
        self._kinds: dict[tuple[int, bool], tuple[list[np.ndarray], np.ndarray]] = {}
        # A GPU trains on more than the 90 M pixels/s that one thread cuts and scales.
        self._threads = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "tokcodec clips")

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown()

    def _fitting(self, frames: int, photographs: bool) -> tuple[list[np.ndarray], np.ndarray]:
        """The arrays that are long and large enough (of photographs only), and how many segments end with each."""
        if (frames, photographs) not in self._kinds:
            fitting = [a for a in self.arrays if a.shape[1] >= frames and min(a.shape[2:4]) >= self.crop_px]
            fitting = [a for a in fitting if a.shape[1] == 1 or not photographs]
            self._kinds[frames, photographs] = fitting, np.cumsum([len(a) for a in fitting])
        return self._kinds[frames, photographs]

    def _pick(self, rng: np.random.Generator, frames: int) -> np.ndarray:
        """A random segment that is long enough: all segments are equally likely."""
        fitting, ends = self._fitting(frames, photographs=False)
        if not fitting:
            raise TokcodecError(f"no segment has {frames} frames of {self.crop_px} pixels")
        if frames == 1:  # single images: half from photographs, half from all, where there are both
            photographs = self._fitting(frames, photographs=True)
            if photographs[0] and rng.random() < 0.5:
                fitting, ends = photographs
        index = int(rng.integers(ends[-1]))
        which = int(np.searchsorted(ends, index, side="right"))
        segment: np.ndarray = fitting[which][index - int(ends[which])]
        return segment

    def clip(self, step: int, place: int, frames: int) -> np.ndarray:
        """One clip, uint8 `[frames, crop, crop, 3]`: random crop, scale, flip, stride 1 or 2, reversal."""
        rng = np.random.default_rng([self.seed, step, place])
        segment = self._pick(rng, frames)
        length, height, width = segment.shape[:3]
        stride = 2 if 2 * (frames - 1) < length and rng.random() < 0.3 else 1
        start = int(rng.integers(length - stride * (frames - 1)))
        side = self.crop_px
        if rng.random() < self.shrink_share:
            side = int(rng.integers(side, min(height, width, 2 * side) + 1))
        top, left = (int(rng.integers(size - side + 1)) for size in (height, width))
        clip = segment[start : start + stride * (frames - 1) + 1 : stride]
        clip = resize(clip[:, top : top + side, left : left + side], self.crop_px, self.crop_px)
        if rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        if rng.random() < 0.3:
            clip = clip[::-1]
        return clip

    def batch(self, step: int, places: range, frames: int) -> Tensor:
        """Clips as uint8 `[B, 3, frames, crop, crop]` (channels last in memory).

        Raises:
            TokcodecError: no segment is as long and as large.
        """
        clips = np.stack(list(self._threads.map(lambda place: self.clip(step, place, frames), places)))
        return torch.from_numpy(clips).permute(0, 4, 1, 2, 3)


def to_pixels(clip: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return clip.float().div_(127.5).sub_(1)
