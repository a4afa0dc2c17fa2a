"""Levels of 8 bits and what networks take."""

import pytest
import torch

from tokcodec.restorer.pixels import to_levels, to_unit


def test_levels_there_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(levels)
    assert unit.dtype == torch.float32
    assert unit[[0, 255]].tolist() == [-1, 1]
    assert unit[51] == pytest.approx(-0.6)
    assert torch.equal(to_levels(unit), levels)
    assert torch.equal(levels, torch.arange(256, dtype=torch.uint8))


def test_floats_are_rounded_and_clipped_and_stay_as_they_are() -> None:
    unit = torch.tensor([-3.0, -1.0, 0.49 / 127.5 - 1, 0.51 / 127.5 - 1, 0.0, 1.0, 9.0])
    kept = unit.clone()
    assert to_levels(unit).tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert torch.equal(unit, kept)
    assert to_levels(torch.tensor([-1.0, 1.0], dtype=torch.bfloat16)).tolist() == [0, 255]
