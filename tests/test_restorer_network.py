"""restorer/network.py: what the network promises before it has learned anything, and what learning may not break."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from tokcodec.restorer.network import Restorer, RestorerConfig, State, to_rgb, unshuffle

TINY = RestorerConfig(channels=(16, 24), blocks=(1, 1, 1), features=4, pixel_channels=16, pixel_blocks=1)
STEP = torch.tensor([10.0, 40.0])
OWN, KIND = STEP[:, None].expand(2, 4), torch.tensor([3, 2, 3, 1]).expand(2, 4)  # of the frames of a group


def inputs(first: bool) -> tuple[Tensor, Tensor, Tensor, bool]:
    """What a network is given as well as the planes of two chunks."""
    return (STEP, OWN[:, :1], 0 * KIND[:, :1], True) if first else (STEP, OWN, KIND, False)


def levels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def group(frames: int, seed: int = 0, height: int = 32, width: int = 48) -> list[Tensor]:
    """base_y, base_c, pred_y, pred_c of two chunks."""
    shapes = ((2, frames, height, width), (2, frames, 2, height // 2, width // 2)) * 2
    return [levels(*shape, seed=10 * seed + i) for i, shape in enumerate(shapes)]


def awake(config: RestorerConfig = TINY) -> Restorer:
    """A network whose zeroed layers are random."""
    torch.manual_seed(0)
    network = Restorer(config).eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.any():
            nn.init.normal_(layer.weight, std=0.05)
    return network


@pytest.mark.parametrize("first", [True, False])
def test_untrained_it_shows_the_plain_base(first: bool) -> None:
    planes = group(1 if first else 4)
    out, state = Restorer()(*planes, *inputs(first))
    assert out.dtype == torch.float32
    assert torch.equal(out, to_rgb(*planes[:2]))
    assert len(state) == sum(RestorerConfig().blocks)


def test_planes_to_rgb() -> None:
    """Against the matrix by hand: grey, and one red of full range."""
    y = torch.tensor([0, 128, 255, 54], dtype=torch.uint8)[:, None, None].expand(4, 4, 4)
    c = torch.tensor([[128, 128], [128, 128], [128, 128], [99, 255]], dtype=torch.uint8)
    rgb = to_rgb(y, c[:, :, None, None].expand(4, 2, 2, 2)) * 127.5 + 127.5
    assert rgb.shape == (4, 3, 4, 4)
    red = [54 + 1.5748 * 127, 54 + 0.1873 * 29 - 0.4681 * 127, 54 - 1.8556 * 29]
    for got, expected in zip(rgb, ([0] * 3, [128] * 3, [255] * 3, red), strict=True):
        assert got[:, 1, 2].tolist() == pytest.approx(expected, abs=1e-3)


def test_chroma_samples_lie_in_the_centre_of_their_pixels() -> None:
    c = torch.full((2, 4, 4), 128, dtype=torch.uint8)
    c[1] = torch.tensor([100, 120, 140, 160], dtype=torch.uint8)
    red = (to_rgb(torch.full((8, 8), 128, dtype=torch.uint8), c)[0, 3] * 127.5 - 0.5) / 1.5748
    assert red.tolist() == pytest.approx([-28, -23, -13, -3, 7, 17, 27, 32], abs=1e-3)


@pytest.mark.parametrize("side", [4, 8])
def test_unshuffle_keeps_every_sample_at_its_place(side: int) -> None:
    y, c = levels(2, 16, 24), levels(2, 2, 8, 12, seed=1)
    squares = unshuffle(y, c, side)
    assert squares.shape == (2, 16 // side, 24 // side, side * side * 3 // 2)
    half, luma = side // 2, squares[1, 1, 2, : side * side].view(side, side)
    assert torch.equal(luma, y[1, side : 2 * side, 2 * side : 3 * side])
    chroma = squares[1, 1, 2, side * side :].view(2, half, half)
    assert torch.equal(chroma, c[1, :, half : 2 * half, 2 * half : 3 * half])


def test_a_correction_lies_at_its_pixels_and_frames() -> None:
    """A network that only copies: its head gives each frame its own offset, its last layer each pixel its own."""
    network = Restorer(dataclasses.replace(TINY, pixel_blocks=0)).requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    ramp = torch.arange(48.0)
    network.pixel_out.bias.copy_(ramp)
    planes = group(4)
    out, _ = network(*planes, *inputs(False))
    correction = (out - to_rgb(*planes[:2]))[1, 2, :, 4:8, 8:12]
    assert torch.allclose(correction, ramp.view(3, 4, 4), atol=1e-4)
    network.pixel_out.bias.zero_()
    network.head.bias.view(4, 4, TINY.features)[2, 3, 1] = 1.0  # frame 2, lower right of its 2x2, feature 1
    network.pixel_in.weight[0, 48 + 1, 1, 1] = 100.0
    network.pixel_out.weight[0, 0] = 0.01
    moved = (network(*planes, *inputs(False))[0] - to_rgb(*planes[:2])).abs() > 0.5
    where = moved[0].nonzero()
    assert set(where[:, 0].tolist()) == {2}
    assert set((where[:, 2] % 8).tolist()) == set((where[:, 3] % 8).tolist()) == {4}


def test_a_group_depends_on_the_ones_before_and_on_nothing_later() -> None:
    network = awake()

    def run(seeds: tuple[int, ...]) -> list[Tensor]:
        state: State | None = None
        outs = []
        for index, seed in enumerate(seeds):
            out, state = network(*group(4 if index else 1, seed), *inputs(index == 0), state)
            outs.append(out)
        return outs

    a, b, c = run((1, 2, 3)), run((1, 2, 4)), run((5, 2, 3))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[1], c[1])


def test_step_and_first_are_seen_and_chunks_of_a_batch_are_not() -> None:
    network = awake()
    planes = group(4)
    out, _ = network(*planes, *inputs(False))
    other, _ = network(*planes, torch.tensor([10.0, 80.0]), OWN, KIND, False)
    assert torch.allclose(out[0], other[0], atol=1e-5)
    assert not torch.allclose(out[1], other[1], atol=1e-3)
    alone, _ = network(*(x[:1] for x in (*planes, *inputs(False)[:3])), False)
    assert torch.allclose(out[:1], alone, atol=1e-5)


def test_step_and_kind_of_a_frame_are_seen() -> None:
    network = awake()
    planes = group(4)
    out, _ = network(*planes, *inputs(False))
    finer, leaf = OWN.clone(), KIND.clone()
    finer[0, 2] /= 2
    leaf[1, 3] = 3
    other, _ = network(*planes, STEP, finer, KIND, False)
    assert not torch.allclose(out[0, 2], other[0, 2], atol=1e-3)
    assert torch.allclose(out[1], other[1], atol=1e-5)
    other, _ = network(*planes, STEP, OWN, leaf, False)
    assert not torch.allclose(out[1, 3], other[1, 3], atol=1e-3)


@pytest.mark.parametrize(("frames", "first", "height"), [(4, True, 32), (1, False, 32), (4, False, 24)])
def test_what_is_no_group_is_refused(frames: int, first: bool, height: int) -> None:
    with pytest.raises(ValueError, match="group"):
        awake()(*group(frames, height=height), STEP, OWN[:, :frames], KIND[:, :frames], first)


def test_bfloat16_is_near() -> None:
    network = awake()
    planes = group(4)
    exact, _ = network(*planes, *inputs(False))
    with torch.autocast("cpu", torch.bfloat16):
        out, state = network(*planes, *inputs(False))
    assert (out.dtype, state[0].dtype) == (torch.float32, torch.bfloat16)
    assert (out - exact).abs().mean() < 0.02 * (exact - to_rgb(*planes[:2])).abs().mean()
    whole, _ = awake().to(torch.bfloat16)(*planes, *inputs(False))
    assert (whole - exact).abs().mean() < 0.05 * (exact - to_rgb(*planes[:2])).abs().mean()


def test_a_configuration_survives_json() -> None:
    assert RestorerConfig.from_json(TINY.to_json()) == TINY


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"dims": 3}',
        '{"features": 0}',
        '{"features": true}',
        '{"channels": [64]}',
        '{"channels": 64}',
        '{"features": [1]}',
        '{"blocks": [1, 2, 1.5]}',
        '{"pixel_channels": 5000}',
    ],
)
def test_a_configuration_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        RestorerConfig.from_json(text)
