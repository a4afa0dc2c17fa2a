"""How good a tokenizer is at several rates: LPIPS (AlexNet) and PSNR on fixed clips, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tokcodec.errors import TokcodecError
from tokcodec.model import Tokenizer, pad_clip
from tokcodec.training.data import VIDEO_SUFFIXES, resize, to_pixels
from tokcodec.video import VideoReader

CLIP_FRAMES = 17
LPIPS_EVERY = 3  # every third frame: coprime to the time stride, so that all its phases are judged
PICTURE_PX = 320  # width of one frame in the picture


class Evaluation(NamedTuple):
    """Of one set of clips."""

    clips: dict[str, dict[str, list[float]]]  # by clip: "lpips" and "psnr_db" at each rate
    picture: np.ndarray  # uint8 [H, W, 3]: a row a clip, its middle frame as input, from 16 bits, from all


def rates(token_bits: int) -> list[int]:
    """The bits a token at which a tokenizer of K bits is judged: 8, 16, 32, and K."""
    return [k for k in (8, 16, 32) if k < token_bits] + [token_bits]


def load_clips(folder: Path, frames: int = CLIP_FRAMES, height_px: int = 360) -> dict[str, np.ndarray]:
    """The first frames of each video below a folder, uint8 `[T, H, W, 3]`, scaled down to `height_px`.

    Raises:
        TokcodecError: there is none.
        VideoError: one cannot be decoded.
    """
    clips = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES):
        taken = []
        with VideoReader(path) as reader:
            for frame, _ in reader:
                taken.append(frame)
                if len(taken) == frames:
                    break
        clip = np.stack(taken)
        height, width = clip.shape[1:3]
        if height > height_px:
            clip = resize(clip, height_px, round(width * height_px / height / 2) * 2)
        clips[path.relative_to(folder).as_posix()] = clip
    if not clips:
        raise TokcodecError(f"{folder}: no video to evaluate on")
    return clips


def reconstruct(model: Tokenizer, clip: np.ndarray, rates: list[int]) -> list[np.ndarray]:
    """Code a clip and decode it from the first k bits, for each k; uint8 `[T, H, W, 3]` like the input."""
    device = next(model.parameters()).device
    pixels = pad_clip(to_pixels(torch.from_numpy(clip).to(device).permute(3, 0, 1, 2)[None]))
    bits = model.encode(pixels)
    return [to_frames(model.decode(bits[:, :k]))[: len(clip), : clip.shape[1], : clip.shape[2]] for k in rates]


def to_frames(pixels: Tensor) -> np.ndarray:
    """float `[1, 3, T, H, W]` in [-1, 1] to uint8 `[T, H, W, 3]`."""
    scaled = pixels[0].float().add(1).mul(127.5).round().clamp(0, 255)
    frames: np.ndarray = scaled.byte().permute(1, 2, 3, 0).cpu().numpy()
    return frames


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over frames of the RGB PSNR of uint8 `[T, H, W, 3]`, in dB (100 for equal frames)."""
    error = np.square(a.astype(np.float32) - b.astype(np.float32)).mean(axis=(1, 2, 3))
    return float(np.mean(np.minimum(100, 10 * np.log10(255**2 / np.maximum(error, 1e-9)))))


def lpips_distance(lpips: nn.Module, a: np.ndarray, b: np.ndarray) -> float:
    """Mean LPIPS of every third frame of uint8 `[T, H, W, 3]`, frame by frame (memory), in float32."""
    device = next((p.device for p in lpips.parameters()), torch.device("cpu"))
    distances = []
    with torch.autocast(device.type, enabled=False):
        for pair in zip(a[::LPIPS_EVERY], b[::LPIPS_EVERY], strict=True):
            images = [to_pixels(torch.from_numpy(x[None]).to(device)).permute(0, 3, 1, 2) for x in pair]
            distances.append(lpips(*images).mean().item())
    return float(np.mean(distances))


@torch.no_grad()
def evaluate(model: Tokenizer, lpips: nn.Module, clips: dict[str, np.ndarray]) -> Evaluation:
    """LPIPS and PSNR of each clip at each of `rates`, from 8 bits a token upwards, and the picture."""
    judged = rates(model.config.token_bits)
    shown = max(k for k in judged if k <= max(16, judged[0]))
    report: dict[str, dict[str, list[float]]] = {}
    rows = []
    for name, clip in clips.items():
        outputs = reconstruct(model, clip, judged)
        report[name] = {
            "lpips": [round(lpips_distance(lpips, output, clip), 4) for output in outputs],
            "psnr_db": [round(psnr_db(output, clip), 3) for output in outputs],
        }
        row = np.concatenate([x[len(clip) // 2] for x in (clip, outputs[judged.index(shown)], outputs[-1])], axis=1)
        width = 3 * PICTURE_PX
        rows.append(np.asarray(Image.fromarray(row).resize((width, round(row.shape[0] * width / row.shape[1])))))
    return Evaluation(report, np.concatenate(rows))
