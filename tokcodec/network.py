"""The network on a device: chunks of frames to bits and back, in steps that bound its memory."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tokcodec.bitstream import TIME_STRIDE
from tokcodec.errors import ModelError
from tokcodec.model import State, Tokenizer, pad_clip, pick_device, pick_dtype, weights_sha256

Frames = NDArray[np.uint8]
Bits = NDArray[np.bool_]

RELEASED = Path(__file__).parent / "weights"
STEP_PX = {"cpu": 1 << 20, "cuda": 1 << 26}  # pixels in one call of the network: cache-sized, memory-sized
GROUP_PX = {"cpu": 0, "cuda": 1 << 26}  # pixels of chunks that are coded side by side


def find_weights(path: str | Path | None = None, sha256: bytes | None = None) -> Path:
    """The weights to use: `path`, else $TOKCODEC_WEIGHTS, else the released ones.

    Args:
        path: of a safetensors file.
        sha256: what a stream was made with; the file found must have it.

    Raises:
        ModelError: there are none, or they are others than the stream's.
    """
    chosen = path or os.environ.get("TOKCODEC_WEIGHTS")
    candidates = [Path(chosen)] if chosen else sorted(RELEASED.glob("*.safetensors"))
    for candidate in candidates:
        if sha256 is None or weights_sha256(candidate) == sha256:
            return candidate
    if not candidates:
        raise ModelError("no weights are installed; name some with --weights")
    assert sha256 is not None
    raise ModelError(
        f"the stream was made with other weights (SHA-256 {sha256.hex()[:16]}...) than "
        f"{' or '.join(c.name for c in candidates)}; name its own with --weights"
    )


class Network:
    """Weights, ready on a device: chunks of frames to bits and back.

    Args:
        weights: safetensors file of a tokenizer.
        device: "auto", "cpu" or "cuda".
        dtype: of the network's arithmetic: "auto", "float32" or "bfloat16".

    Attributes:
        busy_s: seconds spent in `encode` and `decode` so far.

    Raises:
        ModelError: the weights or the device cannot be used.
    """

    def __init__(self, weights: Path, device: str = "auto", dtype: str = "auto") -> None:
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self.sha256 = weights_sha256(weights)
        self.model: Tokenizer = Tokenizer.load(weights).to(self.device, self.dtype)
        self.token_bits = self.model.config.token_bits
        self.busy_s = 0.0

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """For the time of a call of the network: no gradients, errors as ours, its seconds counted."""
        begin = time.perf_counter()
        try:
            with torch.inference_mode():
                yield
        except torch.OutOfMemoryError as error:
            raise ModelError("the device has too little memory for frames of this size; use --device cpu") from error
        finally:
            self.busy_s += time.perf_counter() - begin

    @property
    def peak_vram_bytes(self) -> int:
        """The most memory this process has held on the GPU; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0

    def _latent_step(self, chunks: int, height: int, width: int) -> int:
        """Latent frames in one call of the network."""
        return max(1, STEP_PX[self.device.type] // (chunks * TIME_STRIDE * height * width))

    def group(self, frames: int, height: int, width: int) -> int:
        """How many chunks to code side by side."""
        return max(1, GROUP_PX[self.device.type] // (frames * height * width))

    def encode(self, frames: Frames) -> Bits:
        """Code chunks of equal length.

        Args:
            frames: uint8 `[B, T, H, W, 3]`, any T, H and W from 1.

        Returns:
            bool `[B, K, t, h, w]`, bits most important first.

        Raises:
            ModelError: out of memory.
        """
        with self._running():
            clip = pad_clip(torch.from_numpy(frames).to(self.device).permute(0, 4, 1, 2, 3))
            step = self._latent_step(clip.shape[0], *clip.shape[3:]) * TIME_STRIDE
            state: State = {}
            bits, begin = [], 0
            while begin < clip.shape[2]:
                end = min(clip.shape[2], begin + step + (0 if begin else 1 - TIME_STRIDE))
                pixels = clip[:, :, begin:end].to(self.dtype).div_(127.5).sub_(1)
                bits.append(self.model.encode(pixels, state))
                begin = end
            coded: Bits = torch.cat(bits, dim=2).cpu().numpy()
        return coded

    def decode(self, chunks: list[Bits], frames: int, height: int, width: int) -> Frames:
        """Reconstruct chunks of equal length.

        Args:
            chunks: each bool `[k, t, h, w]`; k may differ.
            frames: of a chunk, to cut to; also height and width, in pixels.

        Returns:
            uint8 `[B, frames, height, width, 3]`.

        Raises:
            ModelError: the chunks have more bits than these weights, or memory ran out.
        """
        most = max(len(bits) for bits in chunks)
        if most > self.token_bits:
            raise ModelError(f"the stream has {most} bits a token, these weights have {self.token_bits}")
        padded = np.stack([np.pad(b, ((0, most - len(b)), (0, 0), (0, 0), (0, 0))) for b in chunks])
        result = np.empty((len(chunks), frames, height, width, 3), np.uint8)
        with self._running():
            bits = torch.from_numpy(padded).to(self.device)
            kept = torch.tensor([len(b) for b in chunks], device=self.device)
            step, state, done = self._latent_step(len(chunks), height, width), State(), 0
            for begin in range(0, bits.shape[2], step):
                clip = self.model.decode(bits[:, :, begin : begin + step], state, kept)
                count = min(clip.shape[2], frames - done)
                pixels = clip[:, :, :count, :height, :width].permute(0, 2, 3, 4, 1).float()
                pixels = pixels.mul_(127.5).add_(128).clamp_(0, 255).byte()  # + 127.5, and .5 to round
                result[:, done : done + count] = pixels.cpu().numpy()
                done += count
        return result


@functools.lru_cache(maxsize=1)
def load_network(weights: Path, device: str, dtype: str) -> Network:
    """`Network`, kept: the next file with the same weights does not load them again."""
    return Network(weights, device, dtype)
