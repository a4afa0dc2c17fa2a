"""ST-LPIPS with VGG-16, the shift-tolerant learned distance (Ghildyal and Liu, ECCV 2022): a judge that never taught.

LPIPS (AlexNet) and LPIPS (SqueezeNet) choose and teach the network of this codec; nothing here is trained on this one.
The package stlpips-pytorch ships its trained weights (BSD-2); they are read from its folder without importing it, since
its imports are heavy, into a network of our own.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokcodec.errors import ModelError

WEIGHTS = "vgg_shift_tolerant.pth"  # in the package's folder weights/vST0.0, or in a folder that is named
STLPIPS_SIDE = 32  # pixels: its four blurs each halve a picture, and pad it by mirroring 2 pixels
_STAGES = ((0, 2), (6, 8), (12, 14, 16), (20, 22, 24), (28, 30, 32))  # convolutions before each of the five features


class STLPIPS(nn.Module):
    """Maps two float `[B, 3, H, W]` in [-1, 1] to a distance `[B, 1, 1, 1]`, 0 for equal images.

    VGG-16 whose pooling moves by one pixel and is blurred before it is thinned out: a picture moved by a pixel or two
    stays near.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        channels, width = 3, 64
        self.stages = nn.ModuleList()
        self.weights = nn.ParameterList()
        for convolutions in _STAGES:
            stage = nn.ModuleList()
            for _ in convolutions:
                stage.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
            self.stages.append(stage)
            self.weights.append(torch.zeros(1, width, 1, 1))
            width = min(512, 2 * width)

    def features(self, image: Tensor) -> list[Tensor]:
        """Five tensors `[B, C, h, w]`, each of unit length along its channels."""
        x = (image - self.shift) / self.scale
        found = []
        for number, stage in enumerate(self.stages):
            if number:
                x = _thinned(F.max_pool2d(x, 2, stride=1))
            for convolution in stage:  # type: ignore[attr-defined]
                x = F.relu(convolution(x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.distance(self.features(a), self.features(b))

    def distance(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """As of two images, of their features."""
        pairs = zip(self.weights, a, b, strict=True)
        parts = [(weight * (x - y).square()).sum(1, keepdim=True).mean((2, 3), keepdim=True) for weight, x, y in pairs]
        return torch.stack(parts).sum(0)


def _thinned(x: Tensor) -> Tensor:
    """Every second row and column of a picture that was blurred by [1 2 1] and mirrored by 2 pixels at its edges."""
    line = torch.tensor([0.25, 0.5, 0.25], device=x.device, dtype=x.dtype)
    kernel = (line[:, None] * line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=x.shape[1])


def load_stlpips(directory: str | Path | None = None) -> STLPIPS:
    """ST-LPIPS (VGG-16) in eval mode, without gradients of its own, channels_last, float32, on the CPU.

    Args:
        directory: folder with `vgg_shift_tolerant.pth`, where it is not that of the installed package.

    Raises:
        ModelError: the package and the file are missing, or the file is damaged; the message says which.
    """
    path = None if directory is None else Path(directory) / WEIGHTS
    if path is None or not path.exists():
        path = _packaged()
    if path is None:
        raise ModelError("ST-LPIPS needs the package stlpips-pytorch: pip install 'tokcodec[bench]'")
    model: Any = STLPIPS()
    try:
        model.load_state_dict(_renamed(torch.load(path, map_location="cpu", weights_only=True)))
    except Exception as error:  # what torch raises for a damaged file is of many kinds
        raise ModelError(f"ST-LPIPS: {path} is not its VGG-16: {str(error).splitlines()[0]}") from error
    model.requires_grad_(False)
    judge: STLPIPS = model.eval().to(memory_format=torch.channels_last)
    return judge


def _packaged() -> Path | None:
    """The file in the installed package, which is not imported."""
    spec = importlib.util.find_spec("stlpips_pytorch")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((path for folder in folders if (path := Path(folder, "weights", "vST0.0", WEIGHTS)).exists()), None)


def _renamed(weights: dict[str, Any]) -> dict[str, Any]:
    """The package's parameters by the names of ours. Its blurs are constants, and so are shift and scale."""
    found = {"shift": weights["scaling_layer.shift"][0], "scale": weights["scaling_layer.scale"][0]}
    for stage, numbers in enumerate(_STAGES):
        found[f"weights.{stage}"] = weights[f"lin{stage}.model.1.weight"]
        for place, number in enumerate(numbers):
            for kind in ("weight", "bias"):
                found[f"stages.{stage}.{place}.{kind}"] = weights[f"net.slice{stage + 1}.{number}.{kind}"]
    return found
