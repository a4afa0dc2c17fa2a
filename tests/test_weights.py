"""The released weights keep the network's promises and make recognizable pictures."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_frames

from tokcodec.model import Tokenizer, TokenizerConfig
from tokcodec.network import RELEASED, Network
from tokcodec.video import VideoReader

BASE = RELEASED / "base.safetensors"
# README states these: how far pixels may be apart between precisions, in levels of 255.
MEAN_LEVELS, MOST_LEVELS = 1.0, 32


@pytest.fixture(scope="module")
def exact() -> Network:
    return Network(BASE, "cpu", "float32")


def clip(frames: int, side: int = 64) -> np.ndarray:
    return np.stack(moving_frames(frames, side, side))[None]


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_file() -> None:
    assert BASE.stat().st_size <= 60_000_000
    assert Tokenizer.load(BASE).config == TokenizerConfig()


def test_nothing_sees_the_future(exact: Network) -> None:
    x = clip(9)
    y = x.copy()
    y[:, 5:] = 255 - y[:, 5:]
    a, b = exact.encode(x), exact.encode(y)
    assert np.array_equal(a[:, :, :2], b[:, :, :2])
    assert not np.array_equal(a[:, :, 2], b[:, :, 2])


def test_streaming_equals_the_whole(exact: Network) -> None:
    x = torch.from_numpy(clip(17)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    with torch.inference_mode():
        whole, state = exact.model.encoder(x), {}
        parts = [exact.model.encoder(x[:, :, a:b], state) for a, b in ((0, 1), (1, 9), (9, 17))]
    assert torch.allclose(torch.cat(parts, dim=2), whole, atol=1e-3)


def test_the_number_of_threads_moves_no_bit(exact: Network) -> None:
    """A batch makes the same bytes whoever works; PyTorch's own choice of kernels would not."""
    x = torch.rand(1, 5, 256, 256, 3, generator=torch.Generator().manual_seed(0)).permute(0, 4, 1, 2, 3)
    before, latents = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            latents.append(exact.model.encoder(x))
    torch.set_num_threads(before)
    assert torch.equal(*latents)


def test_precisions_agree_within_the_stated_tolerance(exact: Network) -> None:
    bits = list(exact.encode(clip(9)))
    a = exact.decode(bits, 9, 64, 64).astype(int)
    b = Network(BASE, "cpu", "bfloat16").decode(bits, 9, 64, 64)
    assert np.abs(a - b).mean() <= MEAN_LEVELS
    assert np.abs(a - b).max() <= MOST_LEVELS


def test_more_bits_are_better(shared: Path, exact: Network) -> None:
    with VideoReader(shared / "data" / "eval" / "flower.mp4", duration_s=0.3) as reader:
        frames = np.stack([frame[120:376, 300:556] for frame, _ in reader])[:9]
    (bits,) = exact.encode(frames[None])
    quality = [psnr_db(exact.decode([bits[:k]], 9, 256, 256)[0], frames) for k in (8, 32, 64)]
    assert quality == sorted(quality)
    assert quality[-1] > 22


def test_the_end_of_a_chunk_is_as_good_as_its_start(shared: Path, exact: Network) -> None:
    """A still picture, 33 frames long: whatever drifts would show. The first frame is left out, it is an image."""
    with VideoReader(shared / "data" / "eval" / "flower.mp4", duration_s=0.01) as reader:
        frame = next(iter(reader))[0][120:248, 300:428]
    still = np.stack([frame] * 33)
    (bits,) = exact.encode(still[None])
    output = exact.decode([bits], 33, 128, 128)[0]
    start, end = psnr_db(output[1:9], still[1:9]), psnr_db(output[25:], still[25:])
    assert end > start - 0.5


@pytest.mark.parametrize("name", ["davis-camel.mkv", "davis-parkour.mkv", "02_cups.mp4"])
def test_the_end_of_a_long_chunk_is_as_good_as_a_chunk_of_its_own(shared: Path, exact: Network, name: str) -> None:
    """65 frames of real motion: frames 33 to 64, coded after the others, against the same frames coded alone."""
    with VideoReader(shared / "data" / "eval" / name, duration_s=4) as reader:
        frames = np.stack([frame[100:260, 200:360] for frame, _ in itertools.islice(reader, 65)])
    (bits,) = exact.encode(frames[None])
    (alone,) = exact.encode(frames[None, 32:])
    late = exact.decode([bits], 65, 160, 160)[0][33:]
    assert psnr_db(late, frames[33:]) > psnr_db(exact.decode([alone], 33, 160, 160)[0][1:], frames[33:]) - 0.1
