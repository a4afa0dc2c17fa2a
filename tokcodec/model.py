"""The tokenizer network: a temporally causal 3D CNN between video clips and LFQ bits.

MAGVIT-v2's tokenizer (Yu et al., ICLR 2024, section 3.2), rebuilt for speed: a space-time patch stem, so
that no convolution runs at full resolution. 1 + 4n frames become 1 + n latent frames at 1/16 of the
width and height; latent frame 0 holds frame 0 alone, so an image is a one-frame clip.

Every convolution is causal in time and every norm looks at one position only. Hence nothing sees the
future, and a clip can be coded a few latent frames at a time: pass the same `state` dict to each call.

Sizes must be whole here (multiples of 16, 1 + 4n frames); codec.py pads and crops. Files other than
weights are not this file's business.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tokcodec.bitstream import SPACE_STRIDE, TIME_STRIDE, latent_size
from tokcodec.errors import ModelError
from tokcodec.lfq import LFQ

PATCH = 8  # pixels a side of the stem's patch; the second half of the stride is a convolution
PATCH_CHANNELS = 3 * TIME_STRIDE * PATCH * PATCH

State = dict[nn.Module, Tensor]  # the last frames each causal convolution saw


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The shape of a tokenizer; stored as JSON in the metadata of its weights.

    Pairs are (at 1/8, at 1/16) of the resolution.
    """

    dims: int = 32
    planes: int = 2
    channels: tuple[int, int] = (128, 256)
    encoder_blocks: tuple[int, int] = (2, 2)
    decoder_blocks: tuple[int, int] = (4, 2)
    adaptive: bool = True

    @property
    def token_bits(self) -> int:
        """K, the bits of one token."""
        return self.dims * self.planes

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TokenizerConfig:
        """Raises ValueError if the text is not a configuration this version knows."""
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("configuration is not an object")
        known = {f.name for f in dataclasses.fields(cls)}
        if set(fields) - known:
            raise ValueError(f"unknown fields {sorted(set(fields) - known)}")
        pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        config = cls(**pairs)
        sizes = [config.dims, config.planes, *config.channels, *config.encoder_blocks, *config.decoder_blocks]
        if not all(isinstance(n, int) and 0 <= n <= 4096 for n in sizes) or config.token_bits > 64:
            raise ValueError("sizes are out of range")
        return config


class ChannelNorm(nn.Module):
    """Normalize over the channels of one position, with a learned gain. Blind to time and space."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 4, 1)
        # The mean is removed too: layer_norm has a fused kernel on CPUs, rms_norm has none (4x on backward).
        return F.layer_norm(last, last.shape[-1:], self.gain.to(x.dtype), None, 1e-6).permute(0, 4, 1, 2, 3)


class CausalConv(nn.Module):
    """A 3x3x3 convolution that sees the present and two frames of the past.

    Time padding repeats the first frame; space is padded with zeros.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, state: State | None) -> Tensor:
        past = None if state is None else state.get(self)
        if past is None:
            past = x[:, :, :1].expand(-1, -1, 2, -1, -1)
        x = torch.cat([past.to(x.dtype), x], dim=2)
        if state is not None:
            state[self] = x[:, :, -2:].clone()
        out: Tensor = self.conv(x)
        return out


class Pointwise(nn.Conv3d):
    """A 1x1x1 convolution, computed as the matrix product it is.

    PyTorch picks a convolution kernel by the number of threads, and so a last digit: the same bytes for any
    number of workers need a product that does not.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 4, 1), self.weight.flatten(1), self.bias).permute(0, 4, 1, 2, 3)


class ResidualBlock(nn.Module):
    """norm, SiLU, causal 3x3x3; norm, SiLU, 1x3x3; added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = CausalConv(channels, channels)
        self.norm2 = ChannelNorm(channels)
        self.conv2 = nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, state: State | None) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)), state)
        out: Tensor = x + self.conv2(F.silu(self.norm2(y)))
        return out


class AdaptiveNorm(nn.Module):
    """A norm whose gain and offset come from the latent at the same place."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.modulation = Pointwise(dims, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        scale = x.shape[-1] // latent.shape[-1]
        modulation = self.modulation(latent)
        if scale > 1:
            modulation = modulation.repeat_interleave(scale, dim=3).repeat_interleave(scale, dim=4)
        gain, offset = modulation.chunk(2, dim=1)
        out: Tensor = self.norm(x) * (1 + gain) + offset
        return out


def patchify(clip: Tensor) -> Tensor:
    """`[B, 3, 4t, H, W]` to `[B, 768, t, H/8, W/8]`, channels last in memory."""
    b, c, frames, height, width = clip.shape
    grid = clip.reshape(b, c, frames // TIME_STRIDE, TIME_STRIDE, height // PATCH, PATCH, width // PATCH, PATCH)
    return grid.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).permute(0, 4, 1, 2, 3)


def unpatchify(x: Tensor) -> Tensor:
    """The inverse of `patchify`."""
    b, _, t, h, w = x.shape
    grid = x.permute(0, 2, 3, 4, 1).reshape(b, t, h, w, 3, TIME_STRIDE, PATCH, PATCH)
    return grid.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, 3, t * TIME_STRIDE, h * PATCH, w * PATCH)


class Encoder(nn.Module):
    """Clip to unbounded latent."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        fine, coarse = config.channels
        self.stem = Pointwise(PATCH_CHANNELS, fine)
        self.fine = nn.ModuleList(ResidualBlock(fine) for _ in range(config.encoder_blocks[0]))
        self.down = nn.Conv3d(fine, coarse, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.coarse = nn.ModuleList(ResidualBlock(coarse) for _ in range(config.encoder_blocks[1]))
        self.norm = ChannelNorm(coarse)
        self.head = Pointwise(coarse, config.dims)

    def forward(self, clip: Tensor, state: State | None = None) -> Tensor:
        if not state:  # the clip starts here: frame 0 fills a latent frame alone
            clip = torch.cat([clip[:, :, :1].expand(-1, -1, TIME_STRIDE - 1, -1, -1), clip], dim=2)
        x = self.stem(patchify(clip))  # [B, 128, t, H/8, W/8]
        for block in self.fine:
            x = block(x, state)
        x = self.down(x)  # [B, 256, t, h, w]
        for block in self.coarse:
            x = block(x, state)
        out: Tensor = self.head(F.silu(self.norm(x)))
        return out


class Decoder(nn.Module):
    """Quantized latent to clip."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        fine, coarse = config.channels
        self.stem = CausalConv(config.dims, coarse)
        self.adapt_coarse = AdaptiveNorm(coarse, config.dims) if config.adaptive else None
        self.coarse = nn.ModuleList(ResidualBlock(coarse) for _ in range(config.decoder_blocks[1]))
        self.up = nn.Conv3d(coarse, 4 * fine, (1, 3, 3), padding=(0, 1, 1))
        self.adapt_fine = AdaptiveNorm(fine, config.dims) if config.adaptive else None
        self.fine = nn.ModuleList(ResidualBlock(fine) for _ in range(config.decoder_blocks[0]))
        self.norm = ChannelNorm(fine)
        self.head = Pointwise(fine, PATCH_CHANNELS)

    def forward(self, latent: Tensor, state: State | None = None) -> Tensor:
        first = not state
        latent = latent.to(self.head.weight.dtype)
        x = self.stem(latent, state)  # [B, 256, t, h, w]
        if self.adapt_coarse is not None:
            x = self.adapt_coarse(x, latent)
        for block in self.coarse:
            x = block(x, state)
        x = depth_to_space(self.up(x))  # [B, 128, t, 2h, 2w]
        if self.adapt_fine is not None:
            x = self.adapt_fine(x, latent)
        for block in self.fine:
            x = block(x, state)
        clip = unpatchify(self.head(F.silu(self.norm(x))))
        return clip[:, :, TIME_STRIDE - 1 :] if first else clip


def depth_to_space(x: Tensor) -> Tensor:
    """`[B, 4C, t, h, w]` to `[B, C, t, 2h, 2w]`, channels last in memory."""
    b, c, t, h, w = x.shape
    grid = x.permute(0, 2, 3, 4, 1).reshape(b, t, h, w, 2, 2, c // 4)
    return grid.permute(0, 1, 2, 4, 3, 5, 6).reshape(b, t, 2 * h, 2 * w, c // 4).permute(0, 4, 1, 2, 3)


def pad_clip(clip: Tensor) -> Tensor:
    """Repeat the last frame, row and column until the size fits the strides.

    Args:
        clip: `[B, 3, T, H, W]`, any type and size, a whole clip (from its first frame).

    Returns:
        `[B, 3, 1 + 4n, H', W']`; H' and W' are multiples of 16. Cropping gives the input back.
    """
    frames, height, width = clip.shape[2:]
    t, h, w = latent_size(frames, height, width)
    for dim, extra in (
        (2, (t - 1) * TIME_STRIDE + 1 - frames),
        (3, h * SPACE_STRIDE - height),
        (4, w * SPACE_STRIDE - width),
    ):
        if extra:
            last = clip.narrow(dim, clip.shape[dim] - 1, 1)
            clip = torch.cat([clip, *([last] * extra)], dim=dim)
    return clip


class Tokenizer(nn.Module):
    """Encoder, quantizer and decoder.

    Pixels are float in [-1, 1], `[B, 3, T, H, W]` with T = 1 + 4n and H, W multiples of 16; a later
    step of a streamed clip has T = 4n instead.
    """

    def __init__(self, config: TokenizerConfig | None = None) -> None:
        super().__init__()
        self.config = config or TokenizerConfig()
        self.quantizer = LFQ(self.config.dims, self.config.planes)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def encode(self, clip: Tensor, state: State | None = None) -> Tensor:
        """Clip to bits, bool `[B, K, t, h, w]` in bit order.

        Args:
            clip: float, as the class says.
            state: pass the same dict for every step of one clip, empty for the first; None for a whole clip.

        Raises:
            ValueError: the clip's shape does not fit the strides.
        """
        frames, height, width = clip.shape[2:]
        if (frames - (0 if state else 1)) % TIME_STRIDE or height % SPACE_STRIDE or width % SPACE_STRIDE:
            raise ValueError(f"clip of {frames} frames of {width}x{height} does not fit strides 4 and 16")
        return self.quantizer.bits(self.encoder(clip, state))

    def decode(self, bits: Tensor, state: State | None = None, kept: Tensor | None = None) -> Tensor:
        """Bits to clip, float, about [-1, 1], not clamped.

        Args:
            bits: bool `[B, k, t, h, w]`, any prefix of the K bits.
            state: as for `encode`.
            kept: int `[B]`: how many of the k bits count, per clip (None: all).
        """
        out: Tensor = self.decoder(self.quantizer.latent(bits, kept), state)
        return out

    def save(self, path: str | Path, note: dict[str, str] | None = None) -> None:
        """Write weights as float16 safetensors.

        One metadata entry holds the configuration and the note as JSON: with several their order, and so
        the SHA-256 of the file, would change from run to run.
        """
        tensors = {k: v.detach().half().contiguous().cpu() for k, v in self.state_dict().items()}
        metadata = {"tokcodec": json.dumps({"config": dataclasses.asdict(self.config), **(note or {})})}
        Path(path).write_bytes(save(tensors, metadata))  # save_file would make it private

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read weights, float32, on the CPU, in eval mode.

        Raises:
            ModelError: the file is missing, damaged, or not a tokcodec tokenizer.
        """
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
                if "tokcodec" not in metadata:
                    raise ModelError(f"{path}: not tokcodec weights (no configuration in the metadata)")
                model = cls(TokenizerConfig.from_json(json.dumps(json.loads(metadata["tokcodec"])["config"])))
                model.load_state_dict({k: file.get_tensor(k).float() for k in file.keys()})  # noqa: SIM118 (no __iter__)
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(f"{path}: cannot read weights: {str(error).splitlines()[0]}") from error
        return model.eval()


def weights_sha256(path: str | Path) -> bytes:
    """SHA-256 of a weights file, 32 bytes: the name a stream knows its weights by.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).digest()
    except OSError as error:
        raise ModelError(f"{path}: cannot read weights: {error.strerror}") from error


def pick_device(name: str = "auto") -> torch.device:
    """The device a user means: `auto` is CUDA where there is one, else the CPU.

    Raises:
        ModelError: CUDA is asked for and absent.
        ValueError: the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device is available; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic a user means: `auto` is bfloat16 where the device has it in hardware, else float32.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"unknown dtype {name!r}: auto, float32 or bfloat16")
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        features = torch.cpu.get_capabilities()
        fast = bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
    return torch.bfloat16 if fast else torch.float32
