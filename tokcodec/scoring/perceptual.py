"""LPIPS, the learned perceptual distance (Zhang et al., CVPR 2018): AlexNet judges, SqueezeNet teaches.

The `lpips` package brings the calibrated linear layers; the ImageNet backbone under them comes from a
local folder or from torchvision's own download. This is the only file that imports lpips or torchvision.
It needs one of the extras `bench` and `train`.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tokcodec.errors import ModelError

if TYPE_CHECKING:
    import lpips

BACKBONES = {  # the file of each backbone in a local folder: `features.*` of torchvision's model
    "alex": "alexnet_features.safetensors",
    "squeeze": "squeezenet1_1_features.safetensors",
    "vgg": "vgg16_features.safetensors",
}
_schemas: list[torch.library.Library] = []  # a library's definitions live as long as it does


def load_lpips(net: str = "alex", directory: str | Path | None = None) -> lpips.LPIPS:
    """LPIPS v0.1 in eval mode, without gradients of its own, channels_last, float32, on the CPU.

    The result maps two float `[B, 3, H, W]` in [-1, 1] (channels_last is 4x faster on a CPU) to a
    distance `[B, 1, 1, 1]`, 0 for equal images; gradients flow to the images.

    Args:
        net: the backbone: "alex", "squeeze" or "vgg".
        directory: folder with the backbone's weights; else $TOKCODEC_LPIPS_DIR; else torchvision
            downloads them, or finds them in its cache.

    Raises:
        ModelError: a package or the backbone's weights are missing or damaged; the message says which.
        ValueError: `net` is no backbone.
    """
    if net not in BACKBONES:
        raise ValueError(f"net must be one of {sorted(BACKBONES)}, not {net!r}")
    lpips = _import_lpips()
    folder = directory or os.environ.get("TOKCODEC_LPIPS_DIR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips still uses torchvision's old argument names
        try:
            model = lpips.LPIPS(net=net, pnet_rand=bool(folder), verbose=False)
        except OSError as error:  # no network
            raise ModelError(
                f"LPIPS: cannot download the {net} backbone ({error}); "
                f"point $TOKCODEC_LPIPS_DIR at a folder with {BACKBONES[net]}"
            ) from error
    if folder:
        path = Path(folder) / BACKBONES[net]
        try:
            weights = load_file(path)
            model.net.load_state_dict({k: weights["features." + k.partition(".")[2]] for k in model.net.state_dict()})
        except FileNotFoundError as error:
            raise ModelError(f"LPIPS: no {BACKBONES[net]} in {folder}") from error
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise ModelError(f"LPIPS: {path} is not the {net} backbone: {str(error).splitlines()[0]}") from error
    model.requires_grad_(False)
    return model.eval().to(memory_format=torch.channels_last)


def _import_lpips() -> Any:
    """The lpips package, also where torchvision's compiled operators do not load.

    A torchvision built for another torch fails on import, because it registers shape rules for two
    operators that are not there. LPIPS uses none of its operators: with their schemas defined it imports.
    """
    try:
        return importlib.import_module("lpips")
    except ImportError as error:
        raise ModelError(f"LPIPS needs the package {error.name}: pip install lpips") from error
    except RuntimeError:
        for name in [m for m in sys.modules if m.partition(".")[0] in ("lpips", "torchvision")]:
            del sys.modules[name]  # what the failed import left half-initialized
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _schemas.append(library)
        return importlib.import_module("lpips")
