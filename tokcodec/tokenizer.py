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
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.lfq import IntegerCoding, LfqLoop
from tokcodec.coding.loop import Coding, Loop, Shown, joined
from tokcodec.coding.planes import GRID, GROUP, Planes, from_rgb, to_rgb
from tokcodec.compute import AUTO, Compute
from tokcodec.dtypes import Frames
from tokcodec.errors import ModelError
from tokcodec.pipeline import Helpers
from tokcodec.rate import STEP_UNITS
from tokcodec.stream import integers
from tokcodec.stream.entropy import ChunkEncoder, FrameTokens, Tables, encode_chunk, frame_step
from tokcodec.stream.profile import Profile
from tokcodec.stream.pyramid import kinds, uniform
from tokcodec.stream.vocabulary import FrameIntegers
from tokcodec.weights import TIERS, Weights

if TYPE_CHECKING:
    import torch

    from tokcodec.restorer.network import Restorer, State


class Group(NamedTuple):
    """What the network takes at once: the first frame of a chunk, or up to four later ones.

    Attributes:
        base, prediction: planes of its t frames, as the loop gives them.
        steps: of the quantizer of each, in levels, float32 `[t]`.
        kinds: of each, uint8 `[t]`, as `stream.pyramid` counts them.
        first: whether it is the first of a chunk.
    """

    base: Planes
    prediction: Planes
    steps: NDArray[np.float32]
    kinds: NDArray[np.uint8]
    first: bool


class _OnDevice:
    """A network on its device, put there when it is asked for first, in any thread."""

    def __init__(self, weights: Weights, compute: Compute) -> None:
        self.made: tuple[Restorer, torch.device] | None = None
        self._weights, self._compute = weights, compute
        self._tier = compute.restorer
        if self._tier == "auto":
            self._tier = next((tier for tier in TIERS if tier in weights.configs), "off")
        if self._tier not in (*weights.configs, "off"):  # refused before the work
            raise ModelError(f"{weights.name}: these weights hold no {self._tier} restorer")
        self._lock = threading.Lock()

    def get(self) -> tuple[Restorer, torch.device] | None:
        """None where the loop's own pictures are shown.

        Raises:
            ModelError: the network cannot be used, or there is no such device.
        """
        if self._tier == "off":
            return None
        from tokcodec.restorer.device import pick_device, pick_dtype

        with self._lock:
            if self.made is None:
                device = pick_device(self._compute.device)
                network = self._weights.restorer(self._tier)
                self.made = network.to(device, pick_dtype(self._compute.dtype, device)), device
            return self.made


class CodeOptions(TypedDict, total=False):
    """How a chunk is coded, besides its step.

    Attributes:
        helpers: threads that take over a part of the work; None for none.
        spans: length of all of them, in frames, and shorter ones for what is left at the end; by content if None.
        on_frame: called with the number of frames, 1, when a frame is coded.
    """

    helpers: Helpers | None
    spans: int | None
    on_frame: Callable[[int], None] | None


class Tokenizer:
    """Frames to tokens and back. Chunks may be coded and decoded in several threads at once.

    Args:
        weights: what the tokens are made with.
        compute: device, arithmetic and restorer.

    Attributes:
        weights: those given.
        loop: the coding loop of the default profile with their tables.
        profile: of the tokens; None, the default one, unless it came from `of`.
        tables: what the entropy coder starts from.
        busy_s: seconds spent in the network so far, transfers of frames to and from its device included.

    Raises:
        ModelError: the weights hold no loop, tables of another version, or not the restorer that was asked for.
    """

    def __init__(self, weights: Weights, compute: Compute = AUTO) -> None:
        try:
            self.loop = Loop(weights.arrays)
            self.tables = Tables.of(weights.arrays, self.loop.blocks)
        except ModelError as error:
            raise ModelError(f"{weights.name}: {error}") from error
        self.weights = weights
        self.profile: Profile | None = None
        self._lfq: LfqLoop | None = None
        self.busy_s = 0.0
        self._network = _OnDevice(weights, compute)
        self._lock = threading.Lock()

    def of(self, profile: Profile | None) -> Tokenizer:
        """The same one, network and all, for tokens of a profile."""
        other = copy.copy(self)
        other.profile, other._lfq = profile, LfqLoop(self.loop, profile) if profile else None
        return other

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

    def usage(self) -> dict[str, Any]:
        """What the network took so far, as attributes of a `Report`."""
        return {"network_s": round(self.busy_s, 3), "peak_vram_bytes": self.peak_vram_bytes}

    def encode(self, frames: Frames | Planes, step: float, **options: Unpack[CodeOptions]) -> Coding:
        """Code a chunk to tokens of the default profile.

        Args:
            frames: uint8 `[F, H, W, 3]`, any F, H and W from 1, or their planes.
            step: of the quantizer, in levels; a multiple of 1/16.
            options: see `CodeOptions`.
        """
        original = from_rgb(frames)
        spans = _spans(len(original.y), options)
        return self.loop.encode(original, step, options.get("helpers"), spans, options.get("on_frame"))

    def code(self, frames: Frames | Planes, step: float, **options: Unpack[CodeOptions]) -> Coding | IntegerCoding:
        """Code a chunk to tokens of this profile; the arguments are those of `encode`. Those of lfq have no spans."""
        if self._lfq:
            return self._lfq.encode(frames, step, options.get("on_frame"))
        return self.encode(frames, step, **options)

    def pack(self, frames: Frames | Planes, step: float, **options: Unpack[CodeOptions]) -> tuple[int, bytes, bytes]:
        """Code a chunk to bytes, frame by frame: as `code` and `packed`, with less memory.

        Returns:
            Coder id, motion payload and levels payload.
        """
        original = from_rgb(frames)
        count, height, width = original.y.shape
        grid, on_frame = (height // GRID, width // GRID), options.get("on_frame")
        coder: Any
        coded: Iterator[Any]
        if self._lfq:
            coder = integers.ChunkEncoder(self._lfq.profile, round(step * STEP_UNITS), *grid)
            coded = self._lfq.code(original, step)
        else:
            coder = ChunkEncoder(self.tables, round(step * STEP_UNITS), count, *grid)
            coded = self.loop.code(original, step, options.get("helpers"), _spans(count, options))
        for frame in coded:
            coder.add(frame.tokens)
            if on_frame:
                on_frame(1)
        packed: tuple[int, bytes, bytes] = coder.finish()
        return packed

    def packed(self, coding: Coding | IntegerCoding, step: float) -> tuple[int, bytes, bytes]:
        """What `pack` makes of a chunk that was just coded."""
        step16 = round(step * STEP_UNITS)
        if isinstance(coding, IntegerCoding):
            assert self.profile is not None
            return integers.encode_chunk(coding.tokens, step16, self.profile)
        return encode_chunk(coding.tokens, step16, self.tables)

    def planes(self, tokens: Iterable[FrameTokens | FrameIntegers], step: float) -> Iterator[Shown]:
        """The decoded planes of a chunk, one frame after another in the order they are shown.

        Args:
            tokens: of its frames, in the order of coding, of this profile.
            step: that it was coded with.
        """
        if self._lfq:
            return self._lfq.decode(cast("Iterable[FrameIntegers]", tokens), step)
        return self.loop.decode(cast("Iterable[FrameTokens]", tokens), step)

    def decode(
        self, tokens: Iterable[FrameTokens | FrameIntegers], step: float, height: int, width: int
    ) -> Iterator[Frames]:
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
        for group in grouped(self.planes(tokens, step)):
            pictures, state = self.restore(group, step, state, height, width)
            yield pictures

    def pictures(self, coding: Coding | IntegerCoding, step: float, height: int, width: int) -> Iterator[Frames]:
        """What `decode` will give of a chunk that was just coded."""
        state: State | None = None
        steps, of_frames = steps_and_kinds(coding, step)
        count = len(coding.base.y)
        for begin, end in itertools.pairwise([0, *range(1, count, GROUP), count]):
            part = slice(begin, end)
            group = Group(
                coding.base.part(part), coding.prediction.part(part), steps[part], of_frames[part], begin == 0
            )
            pictures, state = self.restore(group, step, state, height, width)
            yield pictures

    def restore(
        self, group: Group, step: float, state: State | None, height: int, width: int
    ) -> tuple[Frames, State | None]:
        """Show a group.

        Args:
            group: as `grouped` makes it.
            step: of the chunk.
            state: what the call for the group before returned; None for the first.
            height, width: of a frame, in pixels.

        Returns:
            uint8 `[t, height, width, 3]`, and the state for the next group.

        Raises:
            ModelError: the device has too little memory, or the device that was asked for is absent.
        """
        network = self._network.get()
        if network is None:
            return to_rgb(group.base, height, width), None
        import torch

        model, device = network
        run = _on_cpu if device.type == "cpu" else _on_gpu
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                pictures, state = run(model, group, step, state, height, width)
        except torch.OutOfMemoryError as error:
            raise ModelError("the device has too little memory for frames of this size; choose the CPU") from error
        finally:
            with self._lock:
                self.busy_s += time.perf_counter() - began
        return pictures, state


def _spans(frames: int, options: CodeOptions) -> list[int] | None:
    """The lengths of all spans of a chunk; None for a choice by content."""
    length = options.get("spans")
    return uniform(frames, length) if length else None


def _on_gpu(
    model: Restorer, group: Group, step: float, state: State | None, height: int, width: int
) -> tuple[Frames, State]:
    """`Tokenizer.restore` where planes go to the device and pictures come back."""
    import torch

    from tokcodec.restorer.pixels import to_levels

    device = model.stem.weight.device
    whole = functools.partial(_whole, first=group.first)
    planes = [whole(p) for pair in (group.base, group.prediction) for p in pair]
    of_each = (whole(group.steps), whole(group.kinds))
    *given, steps, of_frames = (torch.from_numpy(p)[None].to(device) for p in (*planes, *of_each))
    of_chunk = torch.tensor([step], dtype=torch.float32, device=device)
    rgb, state = model(*given, of_chunk, steps, of_frames, group.first, state)
    pictures: Frames = to_levels(rgb[0, : len(group.steps), :, :height, :width].permute(0, 2, 3, 1)).cpu().numpy()
    return pictures, state


def _on_cpu(
    model: Restorer, group: Group, step: float, state: State | None, height: int, width: int
) -> tuple[Frames, State]:
    """`Tokenizer.restore` with the conversions in one pass each."""
    import torch

    from tokcodec.restorer.planar import put_picture, put_squares

    count, high, wide = group.base.y.shape
    steps, of_frames = (torch.from_numpy(_whole(x, group.first))[None] for x in (group.steps, group.kinds))
    of_chunk = torch.tensor([step], dtype=torch.float32)
    coarse = np.empty((high // 8, wide // 8, 2 * GROUP * 96), np.float32)
    fine = np.empty((steps.shape[1], high // 4, wide // 4, 48), np.float32)
    for part, planes in enumerate((group.base, group.prediction)):
        for i in range(GROUP):
            frame = min(i, count - 1)  # the last one again until there are four
            put_squares(planes.y[frame], planes.c[frame], 8, coarse, 96 * (GROUP * part + i))
            if i < len(fine):
                put_squares(planes.y[frame], planes.c[frame], 4, fine[i], 24 * part)
    dtype = model.stem.weight.dtype
    squares, of_pixels = torch.from_numpy(coarse)[None].to(dtype), torch.from_numpy(fine).to(dtype)
    correction, state = model.correct(squares, of_pixels, of_chunk, steps, of_frames, group.first, state)
    corrections = correction.float().contiguous().numpy()
    pictures = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        put_picture(group.base.y[i], group.base.c[i], corrections[i], pictures[i])
    return pictures, state


def grouped(frames: Iterable[Shown]) -> Iterator[Group]:
    """The frames of a chunk in groups: the first one, then four at a time."""
    source = iter(frames)
    first = True
    while held := list(itertools.islice(source, 1 if first else GROUP)):
        base, prediction, steps, of_frames = zip(*held, strict=True)
        yield Group(joined(base), joined(prediction), np.array(steps, np.float32), np.array(of_frames, np.uint8), first)
        first = False


def steps_and_kinds(coding: Coding | IntegerCoding, step: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Of the frames of a chunk that was just coded, in the order they are shown, as in `Group`."""
    if isinstance(coding, IntegerCoding):
        return coding.steps, coding.kinds
    step16 = round(step * STEP_UNITS)
    steps = [frame_step(step16, int(number)) / STEP_UNITS for number in coding.tokens.numbers]
    return np.array(steps, np.float32), np.array(kinds(coding.tokens.spans), np.uint8)


def _whole(frames: NDArray[Any], first: bool) -> NDArray[Any]:
    """A group as the network takes it: the last frame is repeated until there are four."""
    missing = 0 if first else GROUP - len(frames)
    return np.concatenate([frames, *[frames[-1:]] * missing]) if missing else np.ascontiguousarray(frames)


@functools.lru_cache(maxsize=1)
def load_tokenizer(weights: Weights, compute: Compute = AUTO) -> Tokenizer:
    """`Tokenizer`, kept: the next file with the same weights, by their SHA-256, does not load them again.

    Raises:
        ModelError: the weights cannot be used, or CUDA is asked for and absent.
    """
    if compute.device == "cuda":  # to be refused before the work
        from tokcodec.restorer.device import pick_device

        pick_device(compute.device)
    return Tokenizer(weights, compute)
