"""Training clips: video files, images or shards, decoded once into memory-mapped uint8 arrays.

A cache is a folder of `NAME.npy`, one array `[segments, frames, H, W, 3]` a source file.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F

from tokcodec.errors import TokcodecError, VideoError
from tokcodec.io import suffixes
from tokcodec.io.output import writing
from tokcodec.training.judged import refuse_judged
from tokcodec.video import VideoReader

log = logging.getLogger("tokcodec")

SEGMENT_FRAMES = 33
CACHE_PX = 256
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
    still = path.suffix.lower() in suffixes.IMAGE or IMAGE_SHARD.fullmatch(path.name)
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
    """Decode every video and image below `source` that `cache` does not hold yet, but for those of runs of the trainer.

    The cache knows a source by its name: delete the array of one that changed. A file that cannot be
    decoded is left out, with a warning.

    Returns:
        The array of each source, by the source's path below `source`, sorted.

    Raises:
        TokcodecError: there is nothing to train on, one source is a clip of the benchmark (whatever its name), or
            the cache cannot be written.
    """
    runs = {path.parent for path in source.rglob("checkpoint.pt")}  # whose pictures show what is held out
    sources = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in suffixes.VIDEO | suffixes.IMAGE and runs.isdisjoint(path.parents)
    )
    refuse_judged(sources)
    arrays: dict[str, Path] = {}
    taken: set[Path] = set()
    for path in sources:
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
