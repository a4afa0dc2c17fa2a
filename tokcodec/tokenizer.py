"""Weights in use: frames to tokens by the coding loop, tokens to frames by the loop and the network behind it.

Encoding and decoding tokens need no torch: it is imported when a picture goes through a network.
"""

from __future__ import annotations

import copy
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.loop import Coding, Loop, joined
from tokcodec.coding.planes import GRID, GROUP, Planes, to_rgb
from tokcodec.errors import ModelError
from tokcodec.pipeline import Helpers
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.entropy import ChunkEncoder, FrameTokens, Tables
from tokcodec.stream.pyramid import uniform
from tokcodec.weights import Weights

if TYPE_CHECKING:
    import torch

    from tokcodec.restorer.network import Restorer, State

Frames = NDArray[np.uint8]


class _OnDevice:
    """A network on its device, put there when it is asked for first, in any thread."""

    def __init__(self, weights: Weights, device: str, dtype: str) -> None:
        self.made: tuple[Restorer, torch.device] | None = None
        self._weights, self._device, self._dtype = weights, device, dtype
        self._lock = threading.Lock()

    def get(self) -> tuple[Restorer, torch.device] | None:
        """None where the weights hold no network."""
        if self._weights.config is None:
            return None
        from tokcodec.restorer.device import pick_device, pick_dtype

        with self._lock:
            if self.made is None:
                device = pick_device(self._device)
                self.made = self._weights.restorer().to(device, pick_dtype(self._dtype, device)), device
            return self.made


class Tokenizer:
    """Frames to tokens and back. Chunks may be coded and decoded in several threads at once.

    Args:
        weights: what the tokens are made with.
        device: of the network: "auto", "cpu" or "cuda".
        dtype: of its arithmetic: "auto", "float32" or "bfloat16".

    Attributes:
        weights: those given.
        loop: the coding loop with their tables.
        tables: what the entropy coder starts from.
        busy_s: seconds spent in the network so far, transfers of frames to and from its device included.

    Raises:
        ModelError: the weights hold no loop, or tables of another version.
    """

    def __init__(self, weights: Weights, device: str = "auto", dtype: str = "auto") -> None:
        try:
            self.loop = Loop(weights.arrays)
            self.tables = Tables.of(weights.arrays, self.loop.blocks)
        except ModelError as error:
            raise ModelError(f"{weights.name}: {error}") from error
        self.weights = weights
        self.busy_s = 0.0
        self._network = _OnDevice(weights, device, dtype)
        self._lock = threading.Lock()

    def counted(self) -> Tokenizer:
        """The same one, network and all, with a `busy_s` of its own that begins at 0."""
        other = copy.copy(self)
        other.busy_s, other._lock = 0.0, threading.Lock()
        return other

    @property
    def peak_vram_bytes(self) -> int:
        """The most memory this process has held on the GPU; 0 on a CPU."""
        network = self._network.made
        if network is None or network[1].type != "cuda":
            return 0
        import torch

        return torch.cuda.max_memory_allocated()

    def encode(
        self,
        frames: Frames,
        step: float,
        helpers: Helpers | None = None,
        spans: int | None = None,
        told: Callable[[int], None] | None = None,
    ) -> Coding:
        """Code a chunk.

        Args:
            frames: uint8 `[F, H, W, 3]`, any F, H and W from 1.
            step: of the quantizer, in levels; a multiple of 1/16.
            helpers: take over a part of the work.
            spans: length of all of them, in frames, and shorter ones for what is left at the end; by content if None.
            told: called with the number of frames, 1, when a frame is coded.
        """
        return self.loop.encode(frames, step, helpers, uniform(len(frames), spans) if spans else None, told)

    def pack(
        self,
        frames: Frames,
        step: float,
        helpers: Helpers | None = None,
        spans: int | None = None,
        told: Callable[[int], None] | None = None,
    ) -> tuple[int, bytes, bytes]:
        """Code a chunk to bytes, frame by frame: as `encode` and `encode_chunk`, with less memory.

        Args:
            frames, step, helpers, spans, told: as for `encode`.

        Returns:
            Coder id, motion payload and levels payload.
        """
        count, height, width = frames.shape[:3]
        coder = ChunkEncoder(self.tables, round(step * STEP_UNITS), count, -(-height // GRID), -(-width // GRID))
        for coded in self.loop.code(frames, step, helpers, uniform(count, spans) if spans else None):
            coder.add(coded.tokens)
            if told:
                told(1)
        return coder.finish()

    def decode(self, tokens: Iterable[FrameTokens], step: float, height: int, width: int) -> Iterator[Frames]:
        """The pictures of a chunk.

        Args:
            tokens: of its frames, in the order of coding.
            step: that it was coded with.
            height, width: of a frame, in pixels.

        Yields:
            uint8 `[t, height, width, 3]`: the first frame, then four at a time; the last are fewer.

        Raises:
            ModelError: the device has too little memory.
        """
        state: State | None = None
        for i, (base, prediction) in enumerate(grouped(self.loop.decode(tokens, step))):
            pictures, state = self.restore(base, prediction, step, i == 0, state, height, width)
            yield pictures

    def pictures(self, coding: Coding, step: float, height: int, width: int) -> Iterator[Frames]:
        """What `decode` will give of a chunk that was just coded."""
        state: State | None = None
        count = len(coding.base.y)
        edges = [0, *range(1, count, GROUP), count]
        for begin, end in itertools.pairwise(edges):
            base, prediction = (p.part(slice(begin, end)) for p in (coding.base, coding.prediction))
            pictures, state = self.restore(base, prediction, step, begin == 0, state, height, width)
            yield pictures

    def restore(
        self, base: Planes, prediction: Planes, step: float, first: bool, state: State | None, height: int, width: int
    ) -> tuple[Frames, State | None]:
        """Show a group.

        Args:
            base, prediction: planes of its frames, as the loop gives them.
            step: of the chunk.
            first: whether it is the first of the chunk.
            state: what the call for the group before returned; None for the first.
            height, width: of a frame, in pixels.

        Returns:
            uint8 `[t, height, width, 3]`, and the state for the next group.

        Raises:
            ModelError: the device has too little memory, or the device that was asked for is absent.
        """
        network = self._network.get()
        if network is None:
            return to_rgb(base, height, width), None
        import torch

        from tokcodec.restorer.pixels import to_levels

        model, device = network
        count = len(base.y)
        planes = [_whole(p, first) for pair in (base, prediction) for p in pair]
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                given = [torch.from_numpy(p)[None].to(device) for p in planes]
                steps = torch.tensor([step], dtype=torch.float32, device=device)
                rgb, state = model(*given, steps, first, state)
                pixels = to_levels(rgb[0, :count, :, :height, :width].permute(0, 2, 3, 1))
                pictures: Frames = pixels.cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise ModelError("the device has too little memory for frames of this size; choose the CPU") from error
        finally:
            with self._lock:
                self.busy_s += time.perf_counter() - began
        return pictures, state


def grouped(frames: Iterable[tuple[Planes, Planes]]) -> Iterator[tuple[Planes, Planes]]:
    """Base and prediction of single frames to those of groups: the first frame of a chunk, then four at a time."""
    source = iter(frames)
    size = 1
    while held := list(itertools.islice(source, size)):
        yield joined([base for base, _ in held]), joined([prediction for _, prediction in held])
        size = GROUP


def _whole(frames: NDArray[Any], first: bool) -> NDArray[Any]:
    """A group as the network takes it: the last frame is repeated until there are four."""
    missing = 0 if first else GROUP - len(frames)
    return np.concatenate([frames, *[frames[-1:]] * missing]) if missing else np.ascontiguousarray(frames)


@functools.lru_cache(maxsize=1)
def load_tokenizer(weights: Weights, device: str, dtype: str) -> Tokenizer:
    """`Tokenizer`, kept: the next file with the same weights, by their SHA-256, does not load them again.

    Raises:
        ModelError: the weights cannot be used, or CUDA is asked for and absent.
    """
    if device == "cuda":  # to be told before the work
        from tokcodec.restorer.device import pick_device

        pick_device(device)
    return Tokenizer(weights, device, dtype)
