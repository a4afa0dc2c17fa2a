"""The restoration network: decoded planes to the picture that is shown.

It stands outside the coding loop: the loop predicts from its own planes, so nothing here feeds on itself and a
stream's tokens never depend on a float. A trunk looks at whole groups at 1/8 and 1/16 of the size and is causal
(each block sees this group and the one before); then every frame is finished by itself at 1/4 of the size. No
convolution runs at full resolution, and the output is the plain picture of the base plus a correction.

Frames are 4:2:0 planes, uint8, full-range BT.709, padded to multiples of 16. A chunk is a group of one frame and
then groups of four.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.coding.planes import GROUP
from tokcodec.restorer.pixels import to_unit
from tokcodec.stream.pyramid import ANCHOR, MIDDLE

STEP_CENTRE = math.log(22.0)  # of the steps in use, 4 to 120 levels
PLANES = 24  # channels of 4x4 pixels of one frame: 16 of Y, 4 each of Cb and Cr
CHUNK_RATES, FRAME_RATES = 2, 3  # inputs of a chunk, and of each frame: see `Restorer.rates`

State = list[Tensor]  # what each causal block remembers of the last group


@dataclasses.dataclass(frozen=True)
class RestorerConfig:
    """The shape of a network; stored as JSON in the metadata of its weights."""

    channels: tuple[int, int] = (64, 192)  # of the trunk at 1/8 and at 1/16
    blocks: tuple[int, int, int] = (1, 2, 1)  # at 1/8, at 1/16, at 1/8 again
    features: int = 16  # channels the trunk hands to each frame at 1/4
    pixel_channels: int = 48  # of the stage at 1/4
    pixel_blocks: int = 3

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RestorerConfig:
        """Raises ValueError if the text is not a configuration this version knows."""
        fields = json.loads(text)
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or set(fields) - known:
            raise ValueError("not a configuration of this version")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        config = cls(**values)
        for field in dataclasses.fields(cls):
            value, default = getattr(config, field.name), field.default
            if isinstance(value, tuple) is not isinstance(default, tuple):
                raise ValueError(f"{field.name} is out of shape")
            sizes, shape = (x if isinstance(x, tuple) else (x,) for x in (value, default))
            least = 0 if "blocks" in field.name else 1
            if len(sizes) != len(shape) or not all(type(n) is int and least <= n <= 4096 for n in sizes):
                raise ValueError(f"{field.name} is out of range")
        return config


def to_rgb(y: Tensor, c: Tensor) -> Tensor:
    """Planes to RGB: BT.709, full range; chroma is upsampled bilinearly, each sample in the centre of its 2x2 pixels.

    Args:
        y: uint8 `[..., H, W]`.
        c: uint8 `[..., 2, H/2, W/2]`: Cb and Cr, 128 is neutral.

    Returns:
        float32 `[..., 3, H, W]`, level 0 at -1 and level 255 at 1, not clamped.
    """
    lead, (height, width) = y.shape[:-2], y.shape[-2:]
    chroma = c.reshape(-1, 2, height // 2, width // 2).float().sub_(128)
    cb, cr = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).unbind(1)
    luma = y.reshape(-1, height, width).float()
    red = torch.add(luma, cr, alpha=1.5748)
    green = torch.add(luma, cb, alpha=-0.1873).add_(cr, alpha=-0.4681)
    blue = torch.add(luma, cb, alpha=1.8556)
    return to_unit(torch.stack([red, green, blue], 1)).reshape(*lead, 3, height, width)


def unshuffle(y: Tensor, c: Tensor, side: int) -> Tensor:
    """Squares of pixels as channels: `[N, H, W]` and `[N, 2, H/2, W/2]` to `[N, H/side, W/side, 1.5 * side**2]`."""
    count, height, width = y.shape
    h, w, half = height // side, width // side, side // 2
    luma = y.reshape(count, h, side, w, side).permute(0, 1, 3, 2, 4).reshape(count, h, w, side * side)
    chroma = c.reshape(count, 2, h, half, w, half).permute(0, 2, 4, 1, 3, 5).reshape(count, h, w, 2 * half * half)
    return torch.cat([luma, chroma], 3)


class ChannelNorm(nn.Module):
    """Normalize over the channels of one position, with a learned gain. Blind to time and space."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        # The mean is removed too: layer_norm has a fused kernel on CPUs, rms_norm has none (4x on backward).
        return F.layer_norm(last, last.shape[-1:], self.gain.to(x.dtype), None, 1e-6).permute(0, 3, 1, 2)


class Pointwise(nn.Linear):
    """A 1x1 convolution, computed as the matrix product it is on channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def zero(layer: nn.Conv2d | nn.Linear) -> None:
    """Make a layer's output zero: what it is added to passes untouched at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class CausalBlock(nn.Module):
    """norm, SiLU, 3x3 over this group and the one before; norm, SiLU, 3x3; added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = ChannelNorm(channels), conv(2 * channels, channels)
        self.norm2, self.conv2 = ChannelNorm(channels), conv(channels, channels)
        zero(self.conv2)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        now = F.silu(self.norm1(x))
        before = now if past is None else past.to(now.dtype)
        y = self.conv1(torch.cat([before, now], 1))
        return x + self.conv2(F.silu(self.norm2(y))), now


class PixelBlock(nn.Module):
    """SiLU, 3x3, SiLU, 3x3; added to the input. No norm: it would cost as much as a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels)
        zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(x))))
        return out


class Restorer(nn.Module):
    """Decoded planes and their prediction to RGB, a group at a time. Untrained it gives the plain base exactly."""

    def __init__(self, config: RestorerConfig | None = None) -> None:
        super().__init__()
        self.config = config or RestorerConfig()
        fine, coarse = self.config.channels
        width, features = self.config.pixel_channels, self.config.features
        before, middle, after = self.config.blocks
        self.stem = Pointwise(2 * GROUP * 4 * PLANES, fine)
        self.down, self.up = conv(fine, coarse, 2), conv(coarse, 4 * fine)
        of_group, of_frame = (CHUNK_RATES + n * FRAME_RATES for n in (GROUP, 1))
        self.fine_rate, self.coarse_rate = nn.Linear(of_group, fine), nn.Linear(of_group, coarse)
        self.pixel_rate = nn.Linear(of_frame, width)
        self.before = nn.ModuleList(CausalBlock(fine) for _ in range(before))
        self.middle = nn.ModuleList(CausalBlock(coarse) for _ in range(middle))
        self.after = nn.ModuleList(CausalBlock(fine) for _ in range(after))
        self.norm, self.head = ChannelNorm(fine), Pointwise(fine, GROUP * 4 * features)
        self.pixel_in = conv(2 * PLANES + features, width)
        self.pixel = nn.ModuleList(PixelBlock(width) for _ in range(self.config.pixel_blocks))
        self.pixel_out = Pointwise(width, 48)
        zero(self.pixel_out)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        base_y: Tensor,
        base_c: Tensor,
        pred_y: Tensor,
        pred_c: Tensor,
        step: Tensor,
        own: Tensor,
        kind: Tensor,
        first: bool,
        state: State | None = None,
    ) -> tuple[Tensor, State]:
        """Restore one group of each of B chunks.

        Args:
            base_y: uint8 `[B, t, H, W]`: decoded luma; t is 1 for a chunk's first group, else 4. H and W are
                multiples of 16.
            base_c: uint8 `[B, t, 2, H/2, W/2]`: its Cb and Cr.
            pred_y, pred_c: the prediction, alike; 128 everywhere for the first group.
            step: float `[B]`: the chunk's quantizer step, in levels, above 0.
            own: float `[B, t]`: that of each frame.
            kind: integers `[B, t]`: of each frame, as `stream.pyramid` counts them.
            first: whether this is the first group of the chunks.
            state: what the call for the group before returned; None at a chunk's start.

        Returns:
            RGB, float32 `[B, t, 3, H, W]`, about [-1, 1], not clamped; and the state for the next group.

        Raises:
            ValueError: the shapes do not fit.
        """
        b, t, height, width = base_y.shape
        if t != (1 if first else GROUP) or height % 16 or width % 16:
            raise ValueError(f"{t} frames of {width}x{height} are no {'first ' if first else ''}group")
        planes = [(y.flatten(0, 1), c.flatten(0, 1)) for y, c in ((base_y, base_c), (pred_y, pred_c))]
        coarse = []
        for y, c in planes:
            part = unshuffle(y, c, 8)  # [bt, H/8, W/8, 96]
            part = part.reshape(b, t, *part.shape[1:]).expand(b, GROUP, *part.shape[1:])  # one frame fills the group
            coarse.append(part.permute(0, 2, 3, 1, 4).flatten(3))
        fine = torch.cat([unshuffle(y, c, 4) for y, c in planes], 3)
        correction, state = self.correct(
            self.scaled(torch.cat(coarse, 3)), self.scaled(fine), step, own, kind, first, state
        )
        base = to_rgb(base_y, base_c)
        correction = correction.reshape(b * t, height // 4, width // 4, 3, 4, 4)
        return base + correction.permute(0, 3, 1, 4, 2, 5).reshape(base.shape), state

    def correct(
        self, coarse: Tensor, fine: Tensor, step: Tensor, own: Tensor, kind: Tensor, first: bool, state: State | None
    ) -> tuple[Tensor, State]:
        """What is added to the base of one group of each of B chunks.

        Args:
            coarse: `[B, H/8, W/8, 768]`, -1 to 1: base and prediction of four frames, squares of 8 as channels.
            fine: `[B t, H/4, W/4, 48]`: base and prediction of each frame, squares of 4.
            step, own, kind, first, state: as for `forward`.

        Returns:
            `[B t, H/4, W/4, 48]`: RGB of 4x4 pixels, 2 for 255 levels; and the state for the next group.
        """
        of_group, of_frame = self.rates(step, own, kind, first)
        features, state = self.trunk(coarse, own.shape[1], of_group, state)
        x = torch.cat([fine, features.to(fine.dtype)], 3).permute(0, 3, 1, 2)  # [bt, 64, H/4, W/4]
        x = self.pixel_in(x) + self.pixel_rate(of_frame)[:, :, None, None]
        for block in self.pixel:
            x = block(x)
        correction: Tensor = self.pixel_out(F.silu(x)).permute(0, 2, 3, 1)
        return correction, state

    def rates(self, step: Tensor, own: Tensor, kind: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        """What layers get besides the pictures: of the group as a whole `[b, 14]`, of each frame `[bt, 5]`.

        Of the chunk the logarithm of its step and whether the group is its first; of each frame the logarithm of its
        own step over the chunk's, whether it is an anchor, and whether it stands between anchors and is predicted from.
        """
        b, t = own.shape
        chunk = torch.stack([step.float().log() - STEP_CENTRE, torch.full_like(step, float(first)).float()], 1)
        frames = torch.stack(
            [(own.float() / step.float()[:, None]).log(), (kind == ANCHOR).float(), (kind == MIDDLE).float()], 2
        )  # [b, t, 3]
        whole = torch.cat([chunk, frames.expand(b, GROUP, FRAME_RATES).flatten(1)], 1)
        single = torch.cat([chunk[:, None].expand(b, t, CHUNK_RATES), frames], 2).flatten(0, 1)
        dtype = self.stem.weight.dtype
        return whole.to(dtype), single.to(dtype)

    def trunk(self, coarse: Tensor, t: int, rate: Tensor, state: State | None) -> tuple[Tensor, State]:
        """What the group as a whole says about each of its frames: `[bt, H/4, W/4, features]`, and the new state."""
        past: list[Tensor | None] = [None] * sum(self.config.blocks) if state is None else list(state)
        after: State = []

        def run(blocks: nn.ModuleList, x: Tensor) -> Tensor:
            for block in blocks:
                x, now = block(x, past[len(after)])
                after.append(now)
            return x

        x = self.stem(coarse.permute(0, 3, 1, 2))
        x = run(self.before, x + self.fine_rate(rate)[:, :, None, None])
        y = run(self.middle, self.down(x) + self.coarse_rate(rate)[:, :, None, None])
        x = run(self.after, x + F.pixel_shuffle(self.up(y), 2))
        f = self.head(F.silu(self.norm(x)))  # [b, 4 * 4 * features, H/8, W/8]
        b, _, h, w = f.shape
        features = self.config.features
        f = f.permute(0, 2, 3, 1).reshape(b, h, w, GROUP, 2, 2, features)[:, :, :, -t:]
        return f.permute(0, 3, 1, 4, 2, 5, 6).reshape(b * t, 2 * h, 2 * w, features), after

    def scaled(self, levels: Tensor) -> Tensor:
        """uint8 levels to -1..1 in the arithmetic of the weights."""
        return levels.to(self.stem.weight.dtype).sub_(128).div_(128)
