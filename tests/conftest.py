"""Fixtures that several test files share: small synthetic clips, and the data folder beside the checkout."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import hypothesis
import numpy as np
import pytest
import torch

from tokcodec.cli import terminal
from tokcodec.coding.loop import Loop
from tokcodec.restorer.network import Restorer, RestorerConfig
from tokcodec.stream.entropy import Tables, decode_chunk, encode_chunk
from tokcodec.video import VideoReader
from tokcodec.weights import save_weights

hypothesis.settings.register_profile("busy", deadline=None)  # a machine may be
hypothesis.settings.load_profile("busy")
terminal.LINE_S = 86400.0  # or lines of progress would stand among those that tests look for on a busy machine
MakeClip = Callable[..., Path]
TINY = RestorerConfig(channels=(16, 16), blocks=(1, 1, 0), features=4, pixel_channels=16, pixel_blocks=1)


def loop_arrays() -> dict[str, np.ndarray]:
    """What the coding loop needs of its weights, small and made up: orthonormal means of squares."""
    vectors = [_mean(384, 16, 4, 4 * (i // 4), 4 * (i % 4)) for i in range(16)]
    vectors += [_mean(384, 8, 4, 4 * (i // 2), 4 * (i % 2), 256 + 64 * k) for i in range(4) for k in range(2)]
    unit = np.stack([vector / np.linalg.norm(vector) for vector in vectors], 1)
    return {"klt": np.round(2**14 * unit).astype(np.int16), "klt.chroma": np.array(1, np.float32)}


def _mean(size: int, side: int, cell: int, row: int, column: int, begin: int = 0) -> np.ndarray:
    """Ones in a square of a plane that begins at a place of a vector, zeros elsewhere."""
    vector = np.zeros(size)
    plane = vector[begin : begin + side * side].reshape(side, side)
    plane[row : row + cell, column : column + cell] = 1
    return vector


def moving_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames uint8 `[H, W, 3]` of a smooth ramp with a bright square that moves 3 pixels a frame."""
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1).astype(np.uint8)
    frames = []
    for index in range(count):
        frame = ramp.copy()
        left = 3 * index % (width - 8)
        frame[height // 4 : height // 4 + 8, left : left + 8] = (250, 240 - index % 64, 30)
        frames.append(frame)
    return frames


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """A function that writes frames to a video file and returns its path.

    make(name, frames, pts=None, time_base=1/30, codec="libx264", pix_fmt="yuv420p", options=None,
    container_options=None, setup=None): `setup(stream)` may change the stream before the header is written.
    """

    def make(
        name: str,
        frames: Sequence[np.ndarray],
        pts: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 30),
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        setup: Callable[[Any], None] | None = None,
    ) -> Path:
        path = tmp_path / name
        height, width = frames[0].shape[:2]
        with av.open(path, "w", container_options=container_options or {}) as container:
            stream = container.add_stream(codec, rate=30, width=width, height=height, options=options or {})
            stream.codec_context.pix_fmt = pix_fmt
            stream.codec_context.time_base = time_base
            if setup:
                setup(stream)
            for index, array in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = (index if pts is None else pts[index]), time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


@pytest.fixture
def footage(make_clip: MakeClip, tmp_path: Path) -> Path:
    """A folder to train on: one.mkv and two.mkv, 40 frames each."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("one", "two"):
        make_clip(f"{name}.mkv", moving_frames(40), codec="ffv1", pix_fmt="bgr0").rename(folder / f"{name}.mkv")
    return folder


@pytest.fixture
def shared() -> Path:
    """The folder of data and weights beside the checkout; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("TOKCODEC_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set TOKCODEC_SHARED")
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny network, untrained: enough for all that is not about pictures.

    The loop is compiled here: a process that is started by a test, and stopped by it, should find it on the disk.
    """
    torch.manual_seed(0)
    loop = Loop(loop_arrays())
    coding = loop.encode(np.stack(moving_frames(10)), 8.0)
    tables = Tables.of(loop_arrays(), loop.blocks)
    height, width = moving_frames(1)[0].shape[:2]
    assert decode_chunk(*encode_chunk(coding.tokens, 128, tables), 10, height, width, 128, tables).levels.any()
    assert len(list(loop.decode(coding.tokens.in_order(), 8.0))) == 10
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, Restorer(TINY), loop_arrays())
    return path


def without_progress(err: bytes) -> str:
    """What a process wrote to stderr, but for the lines that say how far it is: a busy machine makes more of them."""
    progress = re.compile(r"tokcodec: [a-z-]+: (running for |\d+ of \d+ |\d+ [a-z]+ in |compiling for ).*\n")
    return progress.sub("", err.decode())


def with_sound(video: Path, target: Path) -> Path:
    """A copy of a clip, with a sine of its length as AAC beside it."""
    with av.open(video) as source, av.open(target, "w") as output:
        picture = source.streams.video[0]
        copy = output.add_stream_from_template(picture)
        tone = output.add_stream("aac", rate=48000)
        for packet in source.demux(picture):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
        for start in range(0, 48000 * picture.frames // 30, 1024):
            wave = np.sin(np.arange(start, start + 1024) / 20).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            output.mux(tone.encode(frame))
        output.mux(tone.encode(None))
    return target


def frames_of(path: Path) -> list[np.ndarray]:
    """The frames of a video file, uint8 `[H, W, 3]`."""
    with VideoReader(path) as reader:
        return [frame for frame, _ in reader]


def times_of(path: Path, kind: str = "video") -> list[Fraction]:
    """Timestamps in seconds of a file's first stream of a kind, in order."""
    with av.open(path) as container:
        stream = getattr(container.streams, kind)[0]
        packets = [p for p in container.demux(stream) if p.size]
        return sorted(p.pts * p.time_base for p in packets if p.pts is not None and p.time_base is not None)
