"""ST-LPIPS against the values of the package that its weights come from.

The literals are what stlpips-pytorch 0.0.2 gives: `LPIPS(net="vgg", variant="shift_tolerant")` of these images.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokcodec.errors import ModelError
from tokcodec.scoring import stlpips
from tokcodec.scoring.stlpips import STLPIPS, WEIGHTS, load_stlpips

needs_package = pytest.mark.skipif(importlib.util.find_spec("stlpips_pytorch") is None, reason="no stlpips-pytorch")


def images() -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    waves = torch.stack([torch.sin(x / 5), torch.cos(y / 7), torch.sin((x + y) / 9)])[None]
    stripes = waves.clone()
    stripes[..., ::2] *= 0.5
    return waves, stripes


@needs_package
def test_distances_are_those_of_the_package() -> None:
    waves, stripes = images()
    judge = load_stlpips()
    assert judge(waves, waves).tolist() == [[[[0]]]]
    assert judge(waves, stripes).item() == pytest.approx(0.38854241, rel=1e-4)
    assert judge(waves, waves.roll(3, -1)).item() == pytest.approx(0.08732807, rel=1e-4)
    assert judge(waves[..., :51, :77], stripes[..., :51, :77]).item() == pytest.approx(0.43131503, rel=1e-4)
    both = judge(torch.cat([waves, waves]), torch.cat([waves, stripes]))
    assert both.flatten().tolist() == pytest.approx([0, 0.38854241], rel=1e-4)
    assert "stlpips_pytorch" not in sys.modules


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stlpips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="ST-LPIPS needs the package stlpips-pytorch: pip install"):
        load_stlpips(tmp_path)


@pytest.mark.parametrize("damage", ["no weights", "others"])
def test_a_file_that_is_another_is_refused(tmp_path: Path, damage: str) -> None:
    if damage == "others":
        torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / WEIGHTS)
    else:
        (tmp_path / WEIGHTS).write_text(damage)
    with pytest.raises(ModelError, match=f"{WEIGHTS} is not its VGG-16"):
        load_stlpips(tmp_path)


def test_the_smallest_picture_is_scored() -> None:
    small = torch.zeros(1, 3, stlpips.STLPIPS_SIDE, stlpips.STLPIPS_SIDE)
    assert STLPIPS()(small, small + 1).item() == 0  # of weights that are zero
