"""Clips made for training: photographs that move, and footage scaled down.

Footage is soft (compressed once already, and blurred where it moves) and of few places; photographs are sharp and of
many, and textures, borders and what comes into view are in them too. Optical flow has long been taught by such motion
(Dosovitskiy et al., "FlowNet", ICCV 2015). Footage scaled down is as sharp, and moves as things do. All are longer than
segments: in a long chunk the loop's picture wears, and the network must know how.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.dtypes import F64
from tokcodec.training.data import SEGMENT_FRAMES, resize

MADE_FRAMES = 2 * SEGMENT_FRAMES - 1  # a segment there and back
SCALES = (0.75, 1.2)  # pixels of the photograph a pixel of the clip, ...
SMALLER = 1.6, 0.15  # ... after a share of the photographs was made smaller by this factor
OUT_OF_FOCUS = (0.2, 0.05)  # the share of photographs: behind, of pieces before it
BLUR_PX = (1.0, 9.0)  # the radius of their circle of confusion
SLOWEST_PX = 0.05  # a frame
FASTEST_PX = (5.0, 8.0)  # a frame: of the photograph behind, of pieces before it
BENT = 0.4  # the share of photographs that bend as they move
PIECES = (0, 1, 1, 2)  # any of these, equally likely
SMALLER_SCALES = (0.47, 0.73)  # of footage


class Track(NamedTuple):
    """Where a camera looks in T frames.

    Attributes:
        offset: `[T, 2]`, x and y in pixels of the photograph.
        zoom: `[T]`, the logarithm of a factor of the scale.
        angle: `[T]`, in radians.
        bend: `[2, 5]`: the waves that shift x and y: height in pixels, periods a pixel in x and in y, and a frame, and
            the phase in periods.
    """

    offset: F64
    zoom: F64
    angle: F64
    bend: F64


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def draw_track(rng: np.random.Generator, fastest_px: float) -> Track:
    """A pan with the sway of a hand; in some, zoom, rotation or bending too."""
    t = np.arange(MADE_FRAMES, dtype=np.float64) - (MADE_FRAMES - 1) / 2
    speed, angle = log_uniform(rng, SLOWEST_PX, fastest_px), rng.uniform(0, 2 * math.pi)
    offset = speed * t[:, None] * [math.cos(angle), math.sin(angle)]
    for _ in range(2):
        size, period, phase = rng.exponential(0.8), rng.uniform(8, 40), rng.uniform(0, 2 * math.pi)
        offset += size * np.sin(2 * math.pi * t / period + phase)[:, None] * rng.normal(size=2)
    zoom = 0.0025 * float(rng.normal()) * t if rng.random() < 0.6 else 0 * t
    turn = 0.004 * float(rng.normal()) * t if rng.random() < 0.4 else 0 * t
    bend = np.zeros((2, 5))
    if rng.random() < BENT:
        for wave in bend:
            length, way = log_uniform(rng, 40, 200), rng.uniform(0, 2 * math.pi)
            height, phase = 0.025 * length * rng.normal(), rng.random()
            a_frame = rng.choice([-1, 1]) / rng.uniform(15, 80)
            wave[:] = height, math.cos(way) / length, math.sin(way) / length, a_frame, phase
    return Track(offset, zoom, turn, bend)


def film(photograph: Tensor, track: Track, scale: float, side: int) -> tuple[Tensor, F64, F64]:
    """Film a photograph; what lies outside is its mirror image.

    Args:
        photograph: float32 `[3, h, w]`.
        track: of the camera.
        scale: pixels of the photograph a pixel of the frames.
        side: of the frames.

    Returns:
        Frames, float32 `[T, 3, side, side]`; the x and the y that each pixel shows, `[T, side, side]`, from the
        photograph's middle.
    """
    across = np.arange(side) - (side - 1) / 2
    x, y = across[None, None, :], across[None, :, None]
    size = scale * np.exp(track.zoom)[:, None, None]
    cos, sin = (f(track.angle)[:, None, None] for f in (np.cos, np.sin))
    xs = size * (cos * x - sin * y) + track.offset[:, 0, None, None]
    ys = size * (sin * x + cos * y) + track.offset[:, 1, None, None]
    for shown, (size_px, *periods, phase) in zip((xs, ys), track.bend, strict=True):
        turns = sum(n * place for n, place in zip(periods, (x, y, np.arange(len(xs))[:, None, None]), strict=True))
        shown += size_px * np.sin(2 * math.pi * (turns + phase))
    height, width = photograph.shape[1:]
    grid = torch.from_numpy(np.stack([2 * xs / width, 2 * ys / height], -1)).float()
    frames = photograph.expand(len(grid), -1, -1, -1)
    return F.grid_sample(frames, grid, "bicubic", "reflection", align_corners=False), xs, ys


def blob(rng: np.random.Generator, xs: F64, ys: F64) -> Tensor:
    """The opacity of a piece with a wavy border that changes slowly, float32 `[T, 1, side, side]`."""
    reach = xs.shape[-1] * 0.26
    x, y = rng.uniform(-reach, reach, 2)
    mean = rng.uniform(0.115, 0.31) * xs.shape[-1]
    angle, radius = np.arctan2(ys - y, xs - x), np.full_like(xs, mean)
    t = np.arange(len(xs))[:, None, None]
    for waves in range(1, 6):
        height, phase, drift = 0.35 / waves * mean * rng.normal(), rng.uniform(0, 2 * math.pi), 0.03 * rng.normal()
        radius += height * np.cos(waves * angle + phase + drift * t)
    soft = (radius - np.hypot(xs - x, ys - y)) / rng.uniform(1, 2.5) + 0.5
    return torch.from_numpy(soft.clip(0, 1)).float()[:, None]


def out_of_focus(photograph: Tensor, radius_px: float) -> Tensor:
    """A photograph, float32 `[3, h, w]`, in which each point is a disk of this radius, which may be a fraction."""
    reach = math.ceil(radius_px)
    across = torch.arange(-reach, reach + 1.0)
    disk = (radius_px + 0.5 - torch.hypot(across[:, None], across[None, :])).clamp(0, 1)
    wider = F.pad(photograph[:, None], (reach,) * 4, "reflect")
    return F.conv2d(wider, (disk / disk.sum())[None, None])[:, 0]


class MovingPhotographs:
    """Clips in which a photograph moves as if filmed by hand, and before it, mostly, pieces of others.

    Each is made when it is asked for, as a pure function of its index.

    Args:
        photographs: arrays uint8 `[N, 1, h, w, 3]`, as `data.build_cache` has them.
        count: of clips.
        side: of a frame, in pixels.

    Attributes:
        shape: of all: (count, 65, side, side, 3), uint8.
    """

    def __init__(self, photographs: list[NDArray[np.uint8]], count: int, side: int) -> None:
        self.photographs = [(array, index) for array in photographs for index in range(len(array))]
        self.shape = (count, MADE_FRAMES, side, side, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        rng = np.random.default_rng([index, len(self.photographs)])
        clip, _, _ = self._layer(rng, 0)
        for _ in range(rng.choice(PIECES)):
            piece, xs, ys = self._layer(rng, 1)
            clip = torch.lerp(clip, piece, blob(rng, xs, ys))
        return clip.clamp(0, 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()

    def _layer(self, rng: np.random.Generator, before: int) -> tuple[Tensor, F64, F64]:
        """A photograph that moves, behind (0) or before the others (1), and where."""
        array, index = self.photographs[rng.integers(len(self.photographs))]
        frame = array[index]
        if rng.random() < SMALLER[1]:
            frame = resize(frame, *(max(1, round(size / SMALLER[0])) for size in frame.shape[1:3]))
        photograph = torch.from_numpy(np.array(frame[0])).permute(2, 0, 1).float()
        if rng.random() < OUT_OF_FOCUS[before]:
            radius_px = min(log_uniform(rng, *BLUR_PX), min(photograph.shape[1:]) / 3)
            photograph = out_of_focus(photograph, radius_px)
        return film(photograph, draw_track(rng, FASTEST_PX[before]), log_uniform(rng, *SCALES), self.shape[2])


class SmallerSegments:
    """Segments scaled down, as sharp as what is scaled down to be watched; mirror images of them fill the square.

    They are shown there and back.

    Each is made when it is asked for, as a pure function of its index.

    Args:
        segments: arrays uint8 `[N, 33, h, w, 3]`, as `data.build_cache` has them; they are taken in a shuffled order.
        count: of clips.
        side: of a frame, in pixels.

    Attributes:
        shape: of all: (count, 65, side, side, 3), uint8.
    """

    def __init__(self, segments: list[NDArray[np.uint8]], count: int, side: int) -> None:
        places = [(array, index) for array in segments for index in range(len(array))]
        self.segments = [places[i] for i in np.random.default_rng(len(places)).permutation(len(places))]
        self.shape = (count, MADE_FRAMES, side, side, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        rng = np.random.default_rng([index, len(self.segments)])
        array, number = self.segments[index % len(self.segments)]
        scale = log_uniform(rng, *SMALLER_SCALES)
        frames = resize(array[number], *(max(1, round(size * scale)) for size in array.shape[2:4]))
        frames = np.concatenate([frames, frames[-2::-1]])
        places = []
        for size in frames.shape[1:3]:
            place = (rng.integers(2 * size) + np.arange(self.shape[2])) % (2 * size)
            places.append(np.minimum(place, 2 * size - 1 - place))
        return np.ascontiguousarray(frames[:, places[0]][:, :, places[1]])
