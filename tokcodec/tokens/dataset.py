"""Tokens as a PyTorch data set: chunks, or windows of frames, decoded when they are asked for. No pixel is made."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tokcodec.errors import TokcodecError
from tokcodec.io.find import find_streams
from tokcodec.rate import STEP_UNITS
from tokcodec.stream import vocabulary
from tokcodec.stream.entropy import frame_step
from tokcodec.stream.profile import Profile
from tokcodec.stream.pyramid import Place, order
from tokcodec.stream_reader import integers_of, reading, tokenizer_of, tokens_of

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

    Of streams of the profile lfq, `integers`, int32 `[t, h, w, depth + 1]`, is in place of `levels` and `motion`. All
    streams have one profile.

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
        TokcodecError: there is no stream, one cannot be read, their profiles differ, or no chunk has so many frames.
            So does an item whose chunk is damaged.
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
        places, profiles = [], []  # stream, chunk, first frame
        for number, path in enumerate(self.streams):
            with reading(path) as reader:
                profiles.append(reader.header.profile)
                if profiles[-1] != profiles[0]:
                    raise TokcodecError(f"{path}: its profile is not that of {self.streams[0]}")
                for chunk, entry in enumerate(reader.index):
                    starts = [0] if frames is None else range(0, entry.frames - frames + 1, stride or frames)
                    places += [(number, chunk, start) for start in starts]
        if not places:
            raise TokcodecError(f"{self.streams[0]}: no chunk of it or the other streams has {frames} frames")
        self._places = np.array(places, np.int64)
        self._tables: dict[bytes, Tables] = {}
        self._held: collections.OrderedDict[tuple[int, int], _Held] = collections.OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """What goes to a worker: not what is held."""
        return self.__dict__ | {"_tables": {}, "_held": collections.OrderedDict()}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        stream, chunk, begin = self._places[index].tolist()
        held = self._chunk(stream, chunk)
        part = slice(begin, None if self._frames is None else begin + self._frames)
        return {
            **{
                name: torch.from_numpy((array[:, part] if name == "levels" else array[part]).copy())
                for name, array in held.tokens.items()
            },
            "places": torch.from_numpy(held.places[part].copy()),
            "steps": torch.from_numpy(held.steps[part].copy()),
            "first": torch.tensor(begin == 0),
            "stream": torch.tensor(stream),
            "chunk": torch.tensor(chunk),
            "frame": torch.tensor(begin),
        }

    def _chunk(self, stream: int, chunk: int) -> _Held:
        """A chunk, decoded."""
        key = stream, chunk
        if key not in self._held:
            with reading(self.streams[stream]) as reader:
                header, coded = reader.header, reader.read_chunk(chunk)
                if header.profile is not None:
                    fresh = _of_integers(integers_of(coded, header), coded.step, header.profile)
                else:
                    if header.weights_sha256 not in self._tables:
                        self._tables[header.weights_sha256] = tokenizer_of(reader, self._weights).tables
                    fresh = _of_levels(tokens_of(coded, header, self._tables[header.weights_sha256]), coded.step)
            sizes = [held.bytes for held in self._held.values()]
            while sizes and sum(sizes) > self._cache_bytes:
                self._held.popitem(last=False)
                sizes.pop(0)
            self._held[key] = fresh
        self._held.move_to_end(key)
        return self._held[key]


class _Held(NamedTuple):
    """A decoded chunk of F frames.

    Attributes:
        tokens: arrays by name; frames are the first axis, of levels the second.
        places: int64 `[F, 3]`, as in an item.
        steps: float32 `[F]`.
    """

    tokens: dict[str, NDArray[Any]]
    places: NDArray[np.int64]
    steps: NDArray[np.float32]

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.tokens.values())


def _of_levels(tokens: Tokens, step: int) -> _Held:
    """A chunk of the default profile; its step is in 1/16 level."""
    motion = np.concatenate([np.zeros((1, *tokens.motion.shape[1:]), np.int16), tokens.motion])  # the first has none
    steps = [frame_step(step, number) / STEP_UNITS for number in tokens.numbers]
    places = _places(order(tokens.spans), len(motion))
    return _Held({"levels": tokens.levels, "motion": motion}, places, np.array(steps, np.float32))


def _of_integers(integers: NDArray[np.int32], step: int, profile: Profile) -> _Held:
    """A chunk of the profile lfq."""
    steps = np.zeros(len(integers), np.float32)
    for place in (None, *vocabulary.places(len(integers))):
        steps[place.frame if place else 0] = vocabulary.step_of(place, step, profile) / STEP_UNITS
    return _Held({"integers": integers}, _places(vocabulary.places(len(integers)), len(integers)), steps)


def _places(found: Iterable[Place], frames: int) -> NDArray[np.int64]:
    """Where frames stand, as in an item."""
    places = np.zeros((frames, 3), np.int64)
    for place in found:
        second = place.frame - place.second if place.second >= 0 else 0
        places[place.frame] = place.distance, second, place.depth
    return places
