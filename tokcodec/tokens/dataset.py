"""Tokens as a PyTorch data set: chunks, or windows of frames, decoded when they are asked for. No pixel is made."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tokcodec.errors import TokcodecError
from tokcodec.io.find import find_streams
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.entropy import frame_step
from tokcodec.stream.pyramid import order
from tokcodec.stream_reader import reading, tokenizer_of, tokens_of

if TYPE_CHECKING:
    from tokcodec.stream.entropy import Tables, Tokens

CACHE_BYTES = 2**28


class TokenDataset(Dataset[dict[str, Tensor]]):
    """The tokens of streams, map-style, for PyTorch's DataLoader with any number of workers.

    An item is a dict of tensors, of t frames in the order they are shown, on a grid of h x w positions:

    - `levels`: int16 `[D, t, h, w]`;
    - `motion`: int16 `[t, 5, 2 h, 2 w]`; zeros for the first frame of a chunk, which has none;
    - `places`: int64 `[t, 3]`: frames back to the first and to the second reference frame (negative: it is later; 0:
      there is none), and the depth in the pyramid;
    - `steps`: float32 `[t]`, of each frame's quantizer in levels of 255;
    - `first`: bool, whether the first frame of the item is the first of its chunk: its levels are of another kind;
    - `stream`, `chunk`, `frame`: int64, where the item begins: the number of the stream in `streams`, of the chunk in
      it, and of the frame in that.

    FORMAT.md says what levels and fields mean. Windows of streams of one frame size have one shape, so the loader
    collates them; whole chunks have as many frames as they happen to have: load those with `batch_size=None`.

    A window costs the decoding of its chunk, unless that is still held from the last time.

    Args:
        sources: a stream, a folder of streams (`.tokc`) at any depth, or several of them.
        frames: of an item: so many consecutive frames of a chunk; None for whole chunks.
        stride: frames from one window of a chunk to the next; None for side by side. What is left at the end of a
            chunk is not used.
        weights: those of the streams, for their coder tables; the released ones if None.
        cache_bytes: of decoded chunks that each process holds, besides the last.

    Attributes:
        streams: paths, in order.

    Raises:
        TokcodecError: there is no stream, one cannot be read, or no chunk has so many frames. So does an item whose
            chunk is damaged.
        ModelError: an item's stream was made with other weights.
        ValueError: frames or stride are below 1, or a stride is given for whole chunks.
    """

    def __init__(
        self,
        sources: str | Path | Iterable[str | Path],
        frames: int | None = None,
        stride: int | None = None,
        *,
        weights: str | Path | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        if (frames is not None and frames < 1) or (stride is not None and (stride < 1 or frames is None)):
            raise ValueError(f"windows of {frames} frames, {stride} apart, cannot be")
        self.streams = [path for _, path in find_streams(sources)]
        self._frames, self._weights, self._cache_bytes = frames, weights, cache_bytes
        places = []  # stream, chunk, first frame
        for number, path in enumerate(self.streams):
            with reading(path) as reader:
                for chunk, entry in enumerate(reader.index):
                    starts = [0] if frames is None else range(0, entry.frames - frames + 1, stride or frames)
                    places += [(number, chunk, start) for start in starts]
        if not places:
            raise TokcodecError(f"{self.streams[0]}: no chunk of it or the other streams has {frames} frames")
        self._places = np.array(places, np.int64)
        self._tables: dict[bytes, Tables] = {}
        self._held: collections.OrderedDict[tuple[int, int], tuple[Tokens, int]] = collections.OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a worker: not what is held."""
        return self.__dict__ | {"_tables": {}, "_held": collections.OrderedDict()}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        stream, chunk, begin = self._places[index].tolist()
        tokens, step = self._chunk(stream, chunk)
        end = tokens.levels.shape[1] if self._frames is None else begin + self._frames
        motion = np.zeros((end - begin, *tokens.motion.shape[1:]), np.int16)
        behind = max(begin, 1)  # the first frame of a chunk has no motion
        motion[behind - begin :] = tokens.motion[behind - 1 : end - 1]
        places = np.zeros((tokens.levels.shape[1], 3), np.int64)
        for place in order(tokens.spans):
            second = place.frame - place.second if place.second >= 0 else 0
            places[place.frame] = place.distance, second, place.depth
        steps = [frame_step(step, number) / STEP_UNITS for number in tokens.numbers[begin:end]]
        return {
            "levels": torch.from_numpy(tokens.levels[:, begin:end].copy()),
            "motion": torch.from_numpy(motion),
            "places": torch.from_numpy(places[begin:end]),
            "steps": torch.tensor(steps, dtype=torch.float32),
            "first": torch.tensor(begin == 0),
            "stream": torch.tensor(stream),
            "chunk": torch.tensor(chunk),
            "frame": torch.tensor(begin),
        }

    def _chunk(self, stream: int, chunk: int) -> tuple[Tokens, int]:
        """Tokens and step, in 1/16 level, of a chunk."""
        key = stream, chunk
        if key not in self._held:
            with reading(self.streams[stream]) as reader:
                header, coded = reader.header, reader.read_chunk(chunk)
                if header.weights_sha256 not in self._tables:
                    self._tables[header.weights_sha256] = tokenizer_of(reader, self._weights).tables
                tokens = tokens_of(coded, header.height, header.width, self._tables[header.weights_sha256])
            sizes = [t.levels.nbytes + t.motion.nbytes for t, _ in self._held.values()]
            while sizes and sum(sizes) > self._cache_bytes:
                self._held.popitem(last=False)
                sizes.pop(0)
            self._held[key] = tokens, coded.step
        self._held.move_to_end(key)
        return self._held[key]
