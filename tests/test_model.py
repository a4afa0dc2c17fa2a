"""The network's promises: causal, streamable, blind to length and frame size, exact in its files."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tokcodec.errors import ModelError
from tokcodec.model import (
    Tokenizer,
    TokenizerConfig,
    latent_size,
    pad_clip,
    patchify,
    pick_device,
    pick_dtype,
    unpatchify,
    weights_sha256,
)

TINY = TokenizerConfig(dims=8, planes=2, channels=(16, 24), encoder_blocks=(1, 1), decoder_blocks=(2, 1))


@pytest.fixture(scope="module")
def model() -> Tokenizer:
    """A small network in which every weight matters: those that start at zero are drawn too."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(TINY).eval().requires_grad_(False)
    for parameter in tokenizer.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.05)
    return tokenizer


def clip(frames: int, height: int = 32, width: int = 48, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_shapes(model: Tokenizer) -> None:
    for frames, latents in ((1, 1), (5, 2), (33, 9)):
        bits = model.encode(clip(frames))
        assert bits.shape == (1, 16, latents, 2, 3) == (1, 16, *latent_size(frames, 32, 48))
        assert bits.dtype == torch.bool
        assert model.decode(bits).shape == (1, 3, frames, 32, 48)


@pytest.mark.parametrize(("frames", "height", "width"), [(4, 32, 32), (5, 30, 32), (5, 32, 40)])
def test_sizes_that_do_not_fit_are_refused(model: Tokenizer, frames: int, height: int, width: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        model.encode(clip(frames, height, width))


def test_patchify_is_a_permutation() -> None:
    x = clip(8, 16, 24)
    patches = patchify(x)
    assert patches.shape == (1, 768, 2, 2, 3)
    assert torch.equal(unpatchify(patches), x)
    assert torch.equal(patches[0, :, 1, 0, 2].reshape(3, 4, 8, 8), x[0, :, 4:8, 0:8, 16:24])


def test_nothing_sees_the_future(model: Tokenizer) -> None:
    """Change frame T: no latent frame before the one that holds T changes, and that one does."""
    x = clip(13)
    u = model.encoder(x)
    for changed in range(13):
        y = x.clone()
        y[:, :, changed] = -y[:, :, changed]
        first = -(-changed // 4)
        difference = (model.encoder(y) - u).abs().amax(dim=(0, 1, 3, 4))
        assert not difference[:first].any()
        assert difference[first] > 0


def test_decoder_sees_no_future_latent(model: Tokenizer) -> None:
    latent = torch.randn(1, 8, 4, 2, 3, generator=torch.Generator().manual_seed(1))
    y = model.decoder(latent)
    for changed in range(4):
        other = latent.clone()
        other[:, :, changed] *= -1
        first = 0 if changed == 0 else 4 * changed - 3
        difference = (model.decoder(other) - y).abs().amax(dim=(0, 1, 3, 4))
        assert not difference[:first].any()
        assert difference[first:].all()


def test_first_frame_is_an_image(model: Tokenizer) -> None:
    x = clip(9)
    image, video = model.encode(x[:, :, :1]), model.encode(x)
    assert torch.equal(image, video[:, :, :1])
    assert torch.allclose(model.decode(image), model.decode(video)[:, :, :1], atol=1e-5)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_streaming_equals_the_whole(model: Tokenizer, step: int) -> None:
    x = clip(33)
    whole, state, parts, begin = model.encoder(x), {}, [], 0
    while begin < 33:
        end = min(33, begin + 4 * step - (3 if begin == 0 else 0))
        parts.append(model.encoder(x[:, :, begin:end], state))
        begin = end
    assert torch.allclose(torch.cat(parts, dim=2), whole, atol=1e-5)

    bits = model.encode(x)
    state = {}
    decoded = [model.decode(bits[:, :, i : i + step], state) for i in range(0, 9, step)]
    assert torch.allclose(torch.cat(decoded, dim=2), model.decode(bits), atol=1e-4)


def test_frame_size_does_not_change_a_tile_away_from_the_border(model: Tokenizer) -> None:
    """At 1/16, the encoder here reaches 3.5 positions to each side (1 + .5 + 2), the decoder 6 (1 + 2 + 1 + 2)."""
    x = clip(5, 160, 160)
    whole, part = model.encoder(x), model.encoder(x[..., :144, 16:])
    assert torch.allclose(whole[..., :5, 5:], part[..., :5, 4:], atol=1e-5)
    latent = torch.tanh(whole)
    y, z = model.decoder(latent), model.decoder(latent[..., :9, 1:])
    assert torch.allclose(y[..., : 3 * 16, 7 * 16 :], z[..., : 3 * 16, 6 * 16 :], atol=1e-4)
    assert not torch.allclose(y[..., : 9 * 16, 16:], z, atol=1e-2)


def test_any_prefix_of_bits_decodes(model: Tokenizer) -> None:
    bits = model.encode(clip(5))
    outputs = [model.decode(bits[:, :k]) for k in range(1, 17)]
    assert all(torch.isfinite(y).all() for y in outputs)
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(outputs))


def test_clips_with_different_bits_decode_together(model: Tokenizer) -> None:
    bits = torch.cat([model.encode(clip(5, seed=s)) for s in (1, 2)])
    together = model.decode(bits, kept=torch.tensor([5, 16]))
    assert torch.allclose(together[:1], model.decode(bits[:1, :5]), atol=1e-5)
    assert torch.allclose(together[1:], model.decode(bits[1:]), atol=1e-5)


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 1, 1), (2, 17, 16), (33, 16, 31), (6, 90, 160)])
def test_padding_repeats_the_edge_and_crops_back(frames: int, height: int, width: int) -> None:
    x = clip(frames, height, width)
    padded = pad_clip(x)
    t, h, w = latent_size(frames, height, width)
    assert padded.shape == (1, 3, 4 * t - 3, 16 * h, 16 * w)
    pads = [(0, p - s) for p, s in zip(padded.shape[2:], x.shape[2:], strict=True)]
    expected = np.pad(x.numpy(), [(0, 0), (0, 0), *pads], mode="edge")
    assert np.array_equal(padded.numpy(), expected)


def test_weights_keep_configuration_and_values(model: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model.save(path, {"steps": "7"})
    loaded = Tokenizer.load(path)
    assert loaded.config == TINY
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float())
    again = tmp_path / "again.safetensors"
    loaded.save(again, {"steps": "7"})
    assert weights_sha256(path) == weights_sha256(again)


def test_configuration_round_trip() -> None:
    for config in (TINY, TokenizerConfig(), TokenizerConfig(dims=18, planes=1, adaptive=False)):
        assert TokenizerConfig.from_json(config.to_json()) == config
    assert TokenizerConfig().token_bits == 64


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"depth": 3}', '{"dims": 33}', '{"dims": -1}', '{"dims": "8"}', '{"channels": [16, 9999]}']
)
def test_bad_configurations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        TokenizerConfig.from_json(text)


def test_bad_weights_are_one_clear_line(model: Tokenizer, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    model.save(good)
    foreign, cut, other = (tmp_path / name for name in ("foreign", "cut", "other"))
    save_file({"a": torch.zeros(2)}, foreign)
    cut.write_bytes(good.read_bytes()[:-100])
    save_file({"a": torch.zeros(2)}, other, metadata={"tokcodec": json.dumps({"config": dataclasses.asdict(TINY)})})
    for path, reason in ((foreign, "not tokcodec weights"), (cut, "cannot read"), (other, "cannot read")):
        with pytest.raises(ModelError, match=reason) as caught:
            Tokenizer.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="absent"):
        Tokenizer.load(tmp_path / "absent")
    with pytest.raises(ModelError, match="absent"):
        weights_sha256(tmp_path / "absent")


def test_device_and_dtype_by_name() -> None:
    cpu = torch.device("cpu")
    assert pick_device("cpu") == cpu
    assert pick_dtype("float32", cpu) == torch.float32
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="tpu"):
        pick_device("tpu")
    with pytest.raises(ValueError, match="int8"):
        pick_dtype("int8", cpu)
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no CUDA"):
            pick_device("cuda")
