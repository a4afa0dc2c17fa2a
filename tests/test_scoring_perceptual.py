"""LPIPS against literal values, and what it says when something is missing.

The literals are this loader's own results (lpips 0.1.4, torchvision's ImageNet backbones) on images made by a
formula: they hold the loader and the backbone files to what was measured with, not to the paper.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tokcodec.errors import ModelError
from tokcodec.scoring.perceptual import load_lpips


@pytest.mark.parametrize(("net", "faded", "shifted"), [("alex", 0.036757, 0.025015), ("squeeze", 0.241955, 0.062614)])
def test_distances_are_the_known_ones(shared: Path, net: str, faded: float, shifted: float) -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    waves = torch.stack([torch.sin(x / 5), torch.cos(y / 7), torch.sin((x + y) / 9)])[None]
    stripes = waves.clone()
    stripes[..., ::2] *= 0.5
    judge = load_lpips(net, shared / "lpips")
    assert judge(waves, waves).item() == 0
    assert judge(waves, stripes).item() == pytest.approx(faded, rel=1e-3)
    assert judge(waves, waves.roll(3, -1)).item() == pytest.approx(shifted, rel=1e-3)


def test_gradients_reach_the_images_only(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_LPIPS_DIR", str(shared / "lpips"))
    teacher = load_lpips("squeeze")
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    teacher(image, torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_missing_backbone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no alexnet_features\.safetensors in"):
        load_lpips("alex", tmp_path)


def test_another_backbone_is_refused(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "alexnet_features.safetensors")
    with pytest.raises(ModelError, match="is not the alex backbone"):
        load_lpips("alex", tmp_path)


def test_an_unknown_backbone_is_a_caller_mistake() -> None:
    with pytest.raises(ValueError, match="net must be one of"):
        load_lpips("resnet")
