"""Frames to integers of a fixed vocabulary and back, in memory: what a model learns from, and what it samples.

ints = tokcodec.tokens.encode(frames)
frames = tokcodec.tokens.decode(ints)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.lfq import LfqLoop
from tokcodec.compute import AUTO, Compute
from tokcodec.rate import DEFAULT_RATE, STEP_UNITS, Rate
from tokcodec.stream.integers import check_ints, in_order
from tokcodec.stream.profile import Profile, checked
from tokcodec.tokenizer import Tokenizer, load_tokenizer
from tokcodec.weights import Weights

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", "NDArray[Any]", "torch.Tensor")


def encode(
    frames: Array,
    *,
    rate: Rate = DEFAULT_RATE,
    bits: int = Profile().bits,
    depth: int = Profile().depth,
    weights: str | Path | None = None,
) -> Array:
    """Frames as integers; an image is a clip of one frame.

    Args:
        frames: uint8 `[..., T, H, W, 3]` RGB, of NumPy or of torch on any device; every clip is one chunk.
        rate: a step or a quality; `decode` needs the same one.
        bits: of a lookup-free integer, an even number from 2 to 30.
        depth: lookup-free integers of a position, 1 to 16.
        weights: safetensors file; the released ones if None.

    Returns:
        int32 `[..., T, h, w, depth + 1]`, where `frames` were: h and w are H / 16 and W / 16, rounded up. The last of a
        position, below 2^18, is motion; the others are below 2^bits.

    Raises:
        ModelError: the weights cannot be used.
        ValueError: frames have another shape or type, or a number is out of range.
    """
    clips = _numpy(frames)
    if clips.dtype != np.uint8 or clips.ndim < 4 or clips.shape[-1] != 3 or 0 in clips.shape:
        raise ValueError(f"frames are {clips.dtype} {list(clips.shape)}, not uint8 [..., T, H, W, 3]")
    loop = LfqLoop(load_tokenizer(Weights.find(weights)).loop, checked(bits, depth))
    coded = [
        loop.encode(np.ascontiguousarray(clip), _step(rate)).tokens for clip in clips.reshape(-1, *clips.shape[-4:])
    ]
    return cast(Array, _like(np.stack(coded).reshape(*clips.shape[:-4], *coded[0].shape), frames))


def decode(
    ints: Array,
    *,
    rate: Rate = DEFAULT_RATE,
    bits: int = Profile().bits,
    size: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
) -> Array:
    """Integers as frames. All integers in range decode, whatever they are.

    Args:
        ints: of any integer type, `[..., T, h, w, depth + 1]`, of NumPy or of torch on any device, as of `encode`.
        rate: as for `encode`.
        bits: of a lookup-free integer.
        size: H and W of the frames; 16 h and 16 w if None.
        weights: safetensors file; the released ones if None.
        compute: device, arithmetic and restorer.

    Returns:
        uint8 `[..., T, H, W, 3]` RGB, where `ints` were.

    Raises:
        ModelError: the weights cannot be used, or the device is absent or has too little memory.
        ValueError: integers have another shape or type, or one is out of range; or frames of this size have another
            grid.
    """
    given = _numpy(ints)
    if given.dtype.kind not in "iu" or given.ndim < 4 or 0 in given.shape:
        raise ValueError(f"tokens are {given.dtype} {list(given.shape)}, not integers [..., T, h, w, depth + 1]")
    profile = checked(bits, given.shape[-1] - 1)
    clips = given.astype(np.int64).clip(-1, 2**31 - 1).astype(np.int32).reshape(-1, *given.shape[-4:])
    h, w = clips.shape[2:4]
    height, width = size or (16 * h, 16 * w)
    if (-(-height // 16), -(-width // 16)) != (h, w):
        raise ValueError(f"frames of {width}x{height} have no grid of {w}x{h} positions")
    for clip in clips:
        check_ints(clip, profile, h, w)
    tokenizer = load_tokenizer(Weights.find(weights), compute).of(profile)
    shown = [_pictures(tokenizer, clip, _step(rate), height, width) for clip in clips]
    return cast(Array, _like(np.stack(shown).reshape(*given.shape[:-4], *shown[0].shape), ints))


def _pictures(tokenizer: Tokenizer, ints: NDArray[np.int32], step: float, height: int, width: int) -> NDArray[np.uint8]:
    return np.concatenate([*tokenizer.decode(in_order(ints), step, height, width)])


def _step(rate: Rate) -> float:
    """The step of a rate, in levels."""
    if rate.fixed_step is None:
        raise ValueError(f"a step or a quality is needed, not {rate}")
    return round(STEP_UNITS * rate.fixed_step) / STEP_UNITS


def _numpy(array: Any) -> NDArray[Any]:
    """An array of NumPy, of one or of a tensor."""
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return array.cpu().numpy() if torch and isinstance(array, torch.Tensor) else np.asarray(array)


def _like(array: NDArray[Any], model: Any) -> Any:
    """An array as a tensor on the device of another, or as it is."""
    torch = sys.modules.get("torch")
    if torch and isinstance(model, torch.Tensor):
        return torch.from_numpy(array).to(model.device)
    return array
