"""Weights in use: what is coded is what is decoded, and an untrained network shows what the loop shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, loop_arrays, moving_frames

from tokcodec import ModelError
from tokcodec.coding.planes import from_rgb, to_rgb
from tokcodec.compute import Compute
from tokcodec.restorer.network import Restorer
from tokcodec.stream.entropy import encode_chunk
from tokcodec.tokenizer import Group, Tokenizer, _on_cpu, _on_gpu, grouped, load_tokenizer
from tokcodec.weights import Weights, save_weights

STEP = 12.0


def tokenizer(path: Path, network: Restorer | None, dtype: str = "float32") -> Tokenizer:
    save_weights(path, network, loop_arrays())
    return Tokenizer(Weights.load(path), Compute("cpu", dtype))


def trained() -> Restorer:
    """A network that does something to the picture, and that remembers."""
    torch.manual_seed(0)
    network = Restorer(TINY)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 9, 13])
@pytest.mark.parametrize("size", [(16, 16), (33, 50), (1, 1)])
@pytest.mark.parametrize("with_network", [False, True])
def test_decoding_gives_what_the_encoder_saw(
    tmp_path: Path, frames: int, size: tuple[int, int], with_network: bool
) -> None:
    codec = tokenizer(tmp_path / "w.safetensors", trained() if with_network else None)
    clip = np.stack(moving_frames(frames, max(size[0], 8), max(size[1], 16)))[:, : size[0], : size[1]]
    coding = codec.encode(clip, STEP)
    groups = list(codec.decode(coding.tokens.in_order(), STEP, *size))
    assert [len(group) for group in groups] == [
        1,
        *[4] * ((frames - 1) // 4),
        *([rest] if (rest := (frames - 1) % 4) else []),
    ]
    shown = np.concatenate(groups)
    assert (shown.dtype, shown.shape) == (np.uint8, (frames, *size, 3))
    assert np.array_equal(shown, np.concatenate(list(codec.pictures(coding, STEP, *size))))
    if not with_network:
        assert np.array_equal(shown, to_rgb(coding.base, *size))
        assert codec.busy_s == 0
    else:
        assert codec.busy_s > 0


def test_an_untrained_network_shows_what_the_loop_shows(tmp_path: Path) -> None:
    clip = np.stack(moving_frames(13, 48, 64))
    plain = tokenizer(tmp_path / "plain.safetensors", None)
    zero = tokenizer(tmp_path / "zero.safetensors", Restorer(TINY))
    tokens = plain.encode(clip, STEP).tokens
    assert np.array_equal(zero.encode(clip, STEP).tokens.levels, tokens.levels)
    pair = [np.concatenate(list(each.decode(tokens.in_order(), STEP, 48, 64))) for each in (plain, zero)]
    difference = np.abs(pair[0].astype(int) - pair[1])
    assert difference.max() <= 1  # a tie of rounding
    assert (difference > 0).mean() < 0.001


def test_the_network_is_told_what_went_before(tmp_path: Path) -> None:
    """State is carried through a chunk and starts anew with the next."""
    codec = tokenizer(tmp_path / "w.safetensors", trained())
    clip = np.stack(moving_frames(9, 48, 64))
    tokens = codec.encode(clip, STEP).tokens
    once, again = (np.concatenate(list(codec.decode(tokens.in_order(), STEP, 48, 64))) for _ in range(2))
    assert np.array_equal(once, again)
    group = list(grouped(codec.loop.decode(tokens.in_order(), STEP)))[2]
    forgetful, _ = codec.restore(group, STEP, None, 48, 64)
    assert not np.array_equal(forgetful, once[5:])


@pytest.mark.parametrize("spans", [None, 4])
def test_what_is_packed_frame_by_frame_is_what_is_coded_at_once(tmp_path: Path, spans: int | None) -> None:
    codec, counts = tokenizer(tmp_path / "w.safetensors", None), []
    clip = np.stack(moving_frames(8, 48, 64))
    packed = codec.pack(clip, STEP, on_frame=counts.append, spans=spans)
    tokens = codec.encode(clip, STEP, spans=spans).tokens
    assert packed == encode_chunk(tokens, round(16 * STEP), codec.tables)
    assert counts == [1] * 8
    if spans:
        assert tokens.spans.tolist() == [4, 2, 1]


def test_weights_that_hold_no_loop(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", Restorer(TINY), {})
    with pytest.raises(ModelError, match=r"w\.safetensors: these weights hold no klt"):
        load_tokenizer(Weights.load(tmp_path / "w.safetensors"), Compute("cpu", "float32"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_absent_is_told_when_a_picture_is_due(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", Restorer(TINY), loop_arrays())
    codec = Tokenizer(Weights.load(tmp_path / "w.safetensors"), Compute("cuda"))
    tokens = codec.encode(np.stack(moving_frames(1)), STEP).tokens
    with pytest.raises(ModelError, match="no CUDA device"):
        next(codec.decode(tokens.in_order(), STEP, 48, 64))


@pytest.mark.parametrize(("frames", "first"), [(1, True), (4, False), (2, False)])
@pytest.mark.parametrize("size", [(48, 64), (33, 50)])
def test_on_a_cpu_pictures_are_those_of_a_gpu(tmp_path: Path, frames: int, first: bool, size: tuple[int, int]) -> None:
    """The conversions by numba and those by torch, which the network was trained with."""
    codec = tokenizer(tmp_path / "w.safetensors", trained())
    planes = [from_rgb(np.stack(moving_frames(frames + 3, *size)[k : k + frames])) for k in (3, 0)]
    of_frames = np.linspace(5, 30, frames, dtype=np.float32), np.arange(frames, dtype=np.uint8) % 4
    group = Group(planes[0], planes[1], *of_frames, first)
    network, _ = codec._network.get() or (Restorer(TINY), None)
    with torch.inference_mode():
        (a, after), (b, also) = (run(network, group, STEP, None, *size) for run in (_on_cpu, _on_gpu))
    assert (a.dtype, a.shape) == (b.dtype, b.shape) == (np.uint8, (frames, *size, 3))
    assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(after, also, strict=True))
    apart = np.abs(a.astype(int) - b)
    assert apart.max() <= 1  # a tie of rounding
    assert (apart > 0).mean() < 0.01
    assert (a != to_rgb(planes[0], *size)).mean() > 0.5, "the network does something"
