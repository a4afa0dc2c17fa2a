"""What the network learns from: segments run through the coding loop ahead of time, and windows drawn from them.

A coded file is one memory-mapped .npy array of records, one a segment: its quantizer step, step and kind of each
frame, and the planes of the original, of the base and of the prediction. A batch is a pure function of (seed, step,
place in the batch), so a run resumes at any step without stored state, and processes that share a run draw what one
would have drawn.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.coding.planes import GROUP, Planes
from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.io.output import writing

STRIDE = 16  # pixels: sizes and places of crops are multiples, so that a crop keeps the loop's blocks whole
RECORD = 2  # version of the files: the name of one has it
THREADS = 8  # that draw windows, at most


class CodedClip(NamedTuple):
    """What the loop makes of T frames.

    Attributes:
        planes: of the original, of the base and of the prediction.
        steps: of each frame, in levels, float32 `[T]`.
        kinds: of each, uint8 `[T]`, as `stream.pyramid` counts them.
    """

    planes: tuple[Planes, Planes, Planes]
    steps: NDArray[np.float32]
    kinds: NDArray[np.uint8]


Code = Callable[[Frames, float], CodedClip]
"""The coding loop: frames uint8 `[T, H, W, 3]` (T = 1 + 4n, H and W multiples of 16) and a step, in levels. It is
called from several threads."""


class Segments(Protocol):
    """Clips of equal size, uint8 `[N, T, H, W, 3]`: an array, or what makes them one by one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...


def record(frames: int, height: int, width: int) -> np.dtype[Any]:
    """The record of one segment.

    `step` of the chunk, `own` [T] and `kind` [T] of each frame, and `planes` [3, T, 3H/2, W] of original, base and
    prediction (see `pack`).
    """
    planes = (3, frames, height * 3 // 2, width)
    return np.dtype([("step", "<f4"), ("own", "<f4", frames), ("kind", "u1", frames), ("planes", "u1", planes)])


def pack(y: Frames, c: Frames) -> Frames:
    """Planes as one picture, uint8 `[T, 3H/2, W]`: Y, below it Cb on the left and Cr on the right."""
    return np.concatenate([y, np.concatenate([c[:, 0], c[:, 1]], axis=2)], axis=1)


def unpack(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `pack` for any leading dimensions: views `[..., H, W]` and `[..., 2, H/2, W/2]`."""
    height = planes.shape[-2] * 2 // 3
    c = planes[..., height:, :]
    return planes[..., :height, :], c.reshape(*c.shape[:-1], 2, c.shape[-1] // 2).movedim(-2, -3)


def whole_blocks(frames: Frames) -> Frames:
    """Repeat the last column and row until width and height, axes 2 and 1, are multiples of 16."""
    extra = [(0, -size % STRIDE) for size in frames.shape[1:3]]
    return np.pad(frames, ((0, 0), *extra, (0, 0)), mode="edge") if any(n for _, n in extra) else frames


def draw_step(steps: tuple[float, float], *seeds: int) -> float:
    """A step between two, log-uniform, a pure function of the seeds."""
    low, high = (math.log(step) for step in steps)
    return float(np.float32(math.exp(low + (high - low) * np.random.default_rng(seeds).random())))


def code_segments(source: Segments, target: Path, code: Code, step_of: Callable[[int], float]) -> None:
    """Run segments through the loop into a file of records, whole or not at all.

    Args:
        source: the segments, T = 1 + 4n.
        target: to write.
        code: the loop.
        step_of: the step of a segment, by its index.

    Raises:
        TokcodecError: the target cannot be written.
        ValueError: the loop gave planes of another size.
    """
    height, width = (-(-size // STRIDE) * STRIDE for size in source.shape[2:4])
    kind = record(source.shape[1], height, width)
    shape: tuple[int, ...] = kind["planes"].shape[1:]

    def coded(index: int) -> NDArray[Any]:
        step = step_of(index)
        made = code(whole_blocks(np.array(source[index])), step)
        planes = [pack(*p) for p in made.planes]
        if [p.shape for p in planes] != [shape] * 3 or any(p.dtype != np.uint8 for p in planes):
            raise ValueError(f"the loop gave planes of {[p.shape for p in planes]}, not {shape}")
        entry = np.empty((), kind)
        entry["step"], entry["own"], entry["kind"], entry["planes"] = step, made.steps, made.kinds, planes
        return entry

    began = time.monotonic()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TokcodecError(f"{target.parent}: cannot write: {error.strerror}") from error
    about = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (len(source),)}
    with writing(target, [], overwrite=True) as file, ThreadPoolExecutor(torch.get_num_threads()) as pool:
        np.lib.format.write_array_header_1_0(file, about)
        for entry in pool.map(coded, range(len(source))):
            file.write(entry.tobytes())
    print(f"coded {target}: {len(source)} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def digest_of(*facts: object) -> str:
    """Facts that decide what is in a file, as 8 digits of its name."""
    return hashlib.sha256(repr((RECORD, *facts)).encode()).hexdigest()[:8]


def digest_of_tables(arrays: Mapping[str, NDArray[Any]]) -> str:
    """What the loop makes of a segment depends on its tables: their SHA-256."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def code_cache(
    arrays: dict[str, Path],
    cache: Path,
    code: Code,
    steps: tuple[float, float],
    passes: int = 1,
    every: int = 1,
    most: int | None = None,
    tables: str = "",
) -> list[Path]:
    """Code every array that `cache` does not hold yet, each pass at steps of its own.

    The cache knows a file by its name, in which stands what else decides its content, by a digest: `steps`, `every`,
    `most` and `tables`. Delete the folder when the loop itself changes.

    Args:
        arrays: files of segments by name, as `build_cache` gives them.
        cache: folder to write to.
        code: the loop.
        steps: least and largest step, in levels; each segment has its own between them.
        passes: files of records for each array.
        every: code every n-th segment only.
        most: frames of a segment to code, 1 + 4n (None: all).
        tables: digest of those that the loop uses, see `digest_of_tables`.

    Returns:
        The files of records: of the first pass in the order of `arrays`, then of the next.

    Raises:
        TokcodecError: the cache cannot be written.
    """
    targets = []
    kind = digest_of(tuple(map(float, steps)), every, most, tables)
    for turn in range(passes):
        for name, source in arrays.items():
            target = cache / f"{name}-{turn}-{kind}.npy"
            if not target.exists():
                seeds = zlib.crc32(name.encode()), turn
                segments = np.load(source, mmap_mode="r")[::every, :most]
                code_segments(segments, target, code, partial(draw_step, steps, *seeds))
            targets.append(target)
    return targets


class Batch(NamedTuple):
    """Windows of one kind."""

    planes: Tensor  # uint8 [B, 3, T, 3S/2, S]: of original, base and prediction, packed
    step: Tensor  # float32 [B]: of the chunk
    own: Tensor  # float32 [B, T]: of each frame
    kind: Tensor  # uint8 [B, T]: of each frame
    first: bool  # whether the windows begin with the first frame of a chunk

    def to(self, device: torch.device) -> Batch:
        planes, step, own, kind = (x.to(device, non_blocking=True) for x in self[:4])
        return Batch(planes, step, own, kind, self.first)


def errors_of(records: NDArray[Any]) -> NDArray[np.float64]:
    """What the loop left of each segment: RMS error of the base's luma in the middle frame, levels, float64 `[N]`."""
    _, length, rows, _ = records.dtype["planes"].shape
    original, base = (records["planes"][:, kind, length // 2, : rows * 2 // 3] for kind in (0, 1))
    squares = [np.square(a.astype(np.float64) - b).mean() for a, b in zip(original, base, strict=True)]
    return np.sqrt(squares)


class WindowSampler:
    """Draws random windows of whole groups from coded segments.

    Args:
        arrays: memory-mapped records, of any lengths and sizes.
        crop_px: side of the square crop, a multiple of 16.
        seed: of every draw.
        focus: a segment is drawn as often as its error (`errors_of`, one at least) to this power; 0: all alike.
    """

    def __init__(self, arrays: list[NDArray[Any]], crop_px: int, seed: int, focus: float = 0) -> None:
        self.arrays, self.crop_px, self.seed = arrays, crop_px, seed
        self._weights = [np.maximum(errors_of(a), 1) ** focus if focus else np.ones(len(a)) for a in arrays]
        self._kinds: dict[tuple[int, bool], tuple[list[tuple[int, int]], NDArray[np.float64]]] = {}
        # Cutting waits for the disk as much as for the CPU.
        self._threads = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), "tokcodec windows")

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown()

    def _fitting(self, frames: int, photographs: bool) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
        """Where the records lie that are long and large enough (photographs only), and sums of their weights."""
        if (frames, photographs) not in self._kinds:
            fitting, weights = [], [np.zeros(0)]
            for number, array in enumerate(self.arrays):
                _, length, rows, width = array.dtype["planes"].shape
                large = length >= frames and min(rows * 2 // 3, width) >= self.crop_px
                if large and (length == 1 or not photographs):
                    fitting += [(number, index) for index in range(len(array))]
                    weights.append(self._weights[number])
            self._kinds[frames, photographs] = fitting, np.cumsum(np.concatenate(weights))
        return self._kinds[frames, photographs]

    def _pick(self, rng: np.random.Generator, frames: int) -> Any:
        """A random record that is long enough."""
        fitting, sums = self._fitting(frames, photographs=False)
        if not fitting:
            raise TokcodecError(f"no segment has {frames} frames of {self.crop_px} pixels")
        if frames == 1:  # single images: half from photographs, half from all, where there are both
            photographs = self._fitting(frames, photographs=True)
            if photographs[0] and rng.random() < 0.5:
                fitting, sums = photographs
        place = min(int(np.searchsorted(sums, sums[-1] * rng.random(), side="right")), len(fitting) - 1)
        number, index = fitting[place]
        return self.arrays[number][index]

    def window(self, step: int, place: int, frames: int, first: bool) -> tuple[Any, ...]:
        """One window: planes `[3, frames, 3S/2, S]`, cropped and perhaps mirrored, step, steps and kinds of its frames.

        Args:
            step, place: what it is drawn for.
            frames: 1 + 4n from the start of a segment, or 4n from any later group.
            first: which of the two.
        """
        rng = np.random.default_rng([self.seed, step, place])
        segment = self._pick(rng, frames if first else 1 + frames)
        planes = segment["planes"]
        length, rows, width = planes.shape[1:]
        height, side = rows * 2 // 3, self.crop_px
        begin = 0 if first else 1 + GROUP * int(rng.integers((length - 1 - frames) // GROUP + 1))
        top, left = (STRIDE * int(rng.integers((size - side) // STRIDE + 1)) for size in (height, width))
        mirror = slice(None, None, -1 if rng.random() < 0.5 else 1)
        cut = np.empty((3, frames, side * 3 // 2, side), np.uint8)
        part, half = planes[:, begin : begin + frames], side // 2
        cut[:, :, :side] = part[:, :, top : top + side, left : left + side][..., mirror]
        below = height + top // 2
        for chroma in range(2):
            start = chroma * width // 2 + left // 2
            plane = part[:, :, below : below + half, start : start + half]
            cut[:, :, side:, chroma * half : (chroma + 1) * half] = plane[..., mirror]
        own, kind = (segment[name][begin : begin + frames] for name in ("own", "kind"))
        return cut, segment["step"], own, kind

    def batch(self, step: int, places: range, frames: int, first: bool) -> Batch:
        """The windows of some places of a step's batch.

        Raises:
            TokcodecError: no segment is as long and as large.
        """
        windows = list(self._threads.map(lambda place: self.window(step, place, frames, first), places))
        planes, steps, own, kind = (torch.from_numpy(np.stack(parts)) for parts in zip(*windows, strict=True))
        return Batch(planes, steps, own, kind, first)
