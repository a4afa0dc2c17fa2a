"""How good a tokenizer is at several rates: LPIPS (AlexNet) and PSNR on fixed clips, and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tokcodec.errors import TokcodecError
from tokcodec.model import Tokenizer, pad_clip
from tokcodec.training.data import VIDEO_SUFFIXES, resize, to_pixels
from tokcodec.video import VideoReader

RATES = (8, 16, 32, 64)
CLIP_FRAMES = 17
LPIPS_EVERY = 3  # every third frame: coprime to the time stride, so that all its phases are judged


def load_clips(folder: Path, frames: int = CLIP_FRAMES, short_px: int = 360) -> dict[str, np.ndarray]:
    """The first frames of each video below a folder, uint8 `[T, H, W, 3]`, scaled to `short_px` high.

    Raises:
        TokcodecError: there is none.
    """
    clips = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES):
        taken = []
        with VideoReader(path) as reader:
            for frame, _ in reader:
                taken.append(frame)
                if len(taken) == frames:
                    break
        height, width = taken[0].shape[:2]
        scaled_width = round(width * short_px / height / 2) * 2
        clips[path.stem] = resize(np.stack(taken), short_px, scaled_width)
    if not clips:
        raise TokcodecError(f"{folder}: no video to evaluate on")
    return clips


def reconstruct(model: Tokenizer, clip: np.ndarray, rates: Iterable[int]) -> list[np.ndarray]:
    """Code a clip and decode it from the first k bits, for each k; uint8 like the input."""
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


@torch.no_grad()
def evaluate(model: Tokenizer, lpips: nn.Module, clips: dict[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """LPIPS and PSNR of each clip at each of `RATES`, from 8 bits a token upwards."""
    device = next(model.parameters()).device
    report: dict[str, dict[str, list[float]]] = {}
    for name, clip in clips.items():
        report[name] = {"lpips": [], "psnr_db": []}
        for output in reconstruct(model, clip, RATES):
            pair = [
                to_pixels(torch.from_numpy(x[::LPIPS_EVERY]).to(device).permute(0, 3, 1, 2)).contiguous(
                    memory_format=torch.channels_last
                )
                for x in (output, clip)
            ]
            with torch.autocast(device.type, enabled=False):
                distances = [lpips(a[None], b[None]).item() for a, b in zip(*pair, strict=True)]
            report[name]["lpips"].append(round(float(np.mean(distances)), 4))
            report[name]["psnr_db"].append(round(psnr_db(output, clip), 3))
    return report


@torch.no_grad()
def picture(model: Tokenizer, clips: dict[str, np.ndarray], path: Path, width_px: int = 320) -> None:
    """Write a PNG: a row a clip, its middle frame as input and from 16 and 64 bits."""
    rows = []
    for clip in clips.values():
        middle = len(clip) // 2
        low, full = reconstruct(model, clip, (16, 64))
        row = np.concatenate([clip[middle], low[middle], full[middle]], axis=1)
        image = Image.fromarray(row)
        rows.append(np.asarray(image.resize((3 * width_px, round(row.shape[0] * 3 * width_px / row.shape[1])))))
    Image.fromarray(np.concatenate(rows)).save(path)
