"""The stream reader: opens a stream and reads it, its chunks, their tokens, and with a network its frames.

Tokens need the tables of the weights but neither torch nor FFmpeg.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokcodec.clock import Shown, Spans, ticks_of
from tokcodec.compute import AUTO, Compute
from tokcodec.dtypes import Frames
from tokcodec.errors import BitstreamError
from tokcodec.io import standard
from tokcodec.io.files import NamedFile, temporary_file
from tokcodec.pipeline import in_background
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.container import Reader
from tokcodec.stream.records import Chunk, Header, latent_size

if TYPE_CHECKING:
    from tokcodec.stream.entropy import FrameTokens, Tables, Tokens
    from tokcodec.stream.vocabulary import FrameIntegers
    from tokcodec.tokenizer import Group, Tokenizer


AHEAD_PX = 1 << 24  # of what waits for the network


@contextlib.contextmanager
def opened(source: Path) -> Iterator[BinaryIO]:
    """A seekable file; stdin and pipes are copied to a temporary one."""
    with contextlib.ExitStack() as stack:
        is_stdin = str(source) == "-"
        handle = os.dup(standard.stdin().fileno()) if is_stdin else source
        file: BinaryIO = stack.enter_context(
            io.BufferedReader(NamedFile(handle, "rb", "stdin" if is_stdin else source))
        )
        if is_stdin or not file.seekable():
            spool = stack.enter_context(temporary_file())
            shutil.copyfileobj(file, spool)
            file = spool
        yield file


def named(source: Path, error: BitstreamError) -> BitstreamError:
    """The error with the name of its stream before it, unless it bears one already."""
    if getattr(error, "has_name", False):
        return error
    named = type(error)(f"{source}: {error}")
    named.has_name = True  # type: ignore[attr-defined]
    return named


@contextlib.contextmanager
def reading(source: Path, salvage: bool = False) -> Iterator[Reader]:
    """Open a stream; errors name the file.

    Args:
        source: path of a .tokc file; "-" is stdin.
        salvage: accept a damaged or cut stream and read what is intact.

    Raises:
        BitstreamError: it is no stream, or (without `salvage`) it is damaged.
        TokcodecError: it cannot be read.
    """
    try:
        with opened(source) as file:
            reader = Reader(file, salvage=salvage)
            if not reader.index:
                raise BitstreamError("no intact chunk" if salvage else "no frames")
            yield reader
    except BitstreamError as error:
        raise named(source, error) from error


def checked_streams(reader: Reader) -> tuple[str, BinaryIO] | None:
    """The other streams, read through once: FFmpeg is no place for their damage to come to light.

    Raises:
        BitstreamError: a part of them is damaged.
    """
    streams = reader.streams()
    if streams is not None:
        while streams[1].read(1 << 20):
            pass
        streams[1].seek(0)
    return streams


def chunks_of(reader: Reader) -> Iterator[Chunk]:
    """All chunks, in order."""
    return (reader.read_chunk(i) for i in range(len(reader.index)))


def shown_of(reader: Reader) -> Shown:
    """Which of a stream's ticks are shown.

    Raises:
        BitstreamError: none that have a frame.
    """
    first, last = reader.index[0].first_pts, reader.index[-1].end_pts
    if not reader.metadata.shown:
        return Shown(((first, last),))
    spans = [(max(begin, first), min(end, last)) for begin, end in reader.metadata.shown]
    shown = Shown(tuple(span for span in spans if span[0] < span[1]))
    if not shown.spans:
        raise BitstreamError("no frame is shown")
    return shown


def overlapping(reader: Reader, start_s: float, end_s: float | None) -> list[int]:
    """Which chunks have a part that is shown in [start_s, end_s), in seconds after the first frame (None: the rest)."""
    return holding(reader, shown_of(reader).part(*span_ticks(reader, start_s, end_s)))


def holding(reader: Reader, spans: Spans) -> list[int]:
    """Which chunks have a part in spans of coded ticks."""
    return [
        i
        for i, entry in enumerate(reader.index)
        if any(entry.end_pts > begin and entry.first_pts < end for begin, end in spans)
    ]


def span_ticks(reader: Reader, start_s: float, end_s: float | None) -> tuple[int, int]:
    """[start_s, end_s) in seconds after the first frame (None: the rest) to [begin, end) ticks of what is shown."""
    shown, time_base = shown_of(reader), reader.header.time_base
    begin = shown.begin + ticks_of(start_s, time_base)
    end = shown.end if end_s is None else shown.begin + ticks_of(end_s, time_base)
    return begin, end


def framed(reader: Reader, spans: Spans) -> tuple[Spans, int]:
    """Spans of coded ticks cut to whole frames, those that begin in them; and how many these are.

    Raises:
        BitstreamError: a chunk that a span cuts is damaged.
    """
    found, count = [], 0
    for begin, end in spans:
        parts = []
        for i in holding(reader, ((begin, end),)):
            entry = reader.index[i]
            if begin <= entry.first_pts and entry.end_pts <= end:
                parts.append((entry.first_pts, entry.end_pts))
                count += entry.frames
                continue
            edges = (*(chunk := reader.read_chunk(i)).pts, chunk.end_pts)
            inside = [k for k, pts in enumerate(chunk.pts) if begin <= pts < end]
            if inside:
                parts.append((edges[inside[0]], edges[inside[-1] + 1]))
                count += len(inside)
        if parts:
            found.append((parts[0][0], parts[-1][1]))
    return tuple(found), count


def tokens_of(chunk: Chunk, header: Header, tables: Tables) -> Tokens:
    """The tokens of a chunk of the default profile.

    Raises:
        BitstreamError: its payloads are damaged, or the stream has another profile.
    """
    from tokcodec.stream.entropy import decode_chunk  # numba takes a while to import, and many commands do without

    if header.profile is not None:
        raise BitstreamError(f"the stream has the profile {header.profile}, and the default one is needed")
    return decode_chunk(
        chunk.coder, chunk.motion, chunk.levels, chunk.frames, header.height, header.width, chunk.step, tables
    )


def integers_of(chunk: Chunk, header: Header) -> NDArray[np.int32]:
    """The integers of a chunk of the profile lfq, int32 `[F, h, w, depth + 1]`. They need no weights.

    Raises:
        BitstreamError: its payloads are damaged, or the stream has another profile.
    """
    from tokcodec.stream.integers import decode_chunk

    if header.profile is None:
        raise BitstreamError("the stream has the default profile, and the profile lfq is needed")
    _, h, w = latent_size(1, header.height, header.width)
    return decode_chunk(chunk.coder, chunk.motion, chunk.levels, chunk.frames, h, w, chunk.step, header.profile)


def frames_of(chunk: Chunk, header: Header, tables: Tables) -> Iterator[FrameTokens | FrameIntegers]:
    """The tokens of a chunk's frames of any profile, one after another in the order of coding.

    It takes less memory than `tokens_of` and `integers_of`.
    """
    from tokcodec.stream import entropy, integers

    payloads, frames = (chunk.coder, chunk.motion, chunk.levels), chunk.frames
    if header.profile is None:
        return entropy.decode_frames(*payloads, frames, header.height, header.width, chunk.step, tables)
    _, h, w = latent_size(1, header.height, header.width)
    return integers.decode_frames(*payloads, frames, h, w, chunk.step, header.profile)


class _Timed(NamedTuple):
    """A group on its way to the network."""

    planes: Group
    step: float  # of the chunk
    edges: tuple[int, ...]  # timestamps of its frames and of what follows


class Stream:
    """An open stream: its header, its chunks, their tokens, and its frames.

    Attributes:
        header: what holds for the whole stream.
        chunks: an entry a chunk: frames, step (in 1/16 level), first_pts, end_pts, place and size in the file.
        metadata: tags, language, name and chapters, and which spans of the chunks' ticks are shown, if not all.
    """

    def __init__(self, path: Path, reader: Reader, tokenizer: Callable[[], Tokenizer]) -> None:
        self.header, self.chunks, self.metadata = reader.header, reader.index, reader.metadata
        self._path, self._reader, self._tokenizer = path, reader, tokenizer

    def tokens(self, start_s: float = 0.0, end_s: float | None = None) -> Iterator[Tokens]:
        """The tokens of every chunk that overlaps [start_s, end_s), in seconds from the first frame. No network.

        Yields:
            Of a chunk of F frames levels int16 `[D, F, h, w]`, motion int16 `[F - 1, 5, 2 h, 2 w]`, spans uint8 `[n]`
            and step numbers uint8 `[F]` (FORMAT.md).

        Raises:
            BitstreamError: a chunk is damaged, or the stream has another profile than the default one.
            ModelError: the weights are not the stream's.
        """
        tables = self._tokenizer().tables
        for chunk in self._chunks(start_s, end_s):
            try:
                yield tokens_of(chunk, self.header, tables)
            except BitstreamError as error:  # here: where several are open, `reading` of another may see it first
                raise named(self._path, error) from error

    def integers(self, start_s: float = 0.0, end_s: float | None = None) -> Iterator[NDArray[np.int32]]:
        """As `tokens`, of a stream of the profile lfq. No network and no weights.

        Yields:
            Of a chunk of F frames int32 `[F, h, w, depth + 1]` (FORMAT.md).

        Raises:
            BitstreamError: a chunk is damaged, or the stream has the default profile.
        """
        for chunk in self._chunks(start_s, end_s):
            try:
                yield integers_of(chunk, self.header)
            except BitstreamError as error:
                raise named(self._path, error) from error

    def _chunks(self, start_s: float, end_s: float | None) -> Iterator[Chunk]:
        for i in overlapping(self._reader, start_s, end_s):
            try:
                yield self._reader.read_chunk(i)
            except BitstreamError as error:
                raise named(self._path, error) from error

    def frames(
        self, start_s: float = 0.0, end_s: float | None = None
    ) -> Generator[tuple[Frames, int, int], None, None]:
        """The frames in [start_s, end_s), in seconds from the first frame; their chunks alone are decoded.

        Yields:
            Frame uint8 `[H, W, 3]` RGB, its timestamp and its duration in ticks of `header.time_base`, on the clock of
            what is shown: hidden frames (`metadata.shown`) are left out and take no time.

        Raises:
            BitstreamError: a chunk is damaged.
            ModelError: the weights are not the stream's.
        """
        shown, (begin, end) = shown_of(self._reader), span_ticks(self._reader, start_s, end_s)
        spans = shown.part(begin, end)
        tokenizer, (height, width) = self._tokenizer(), (self.header.height, self.header.width)
        state: Any = None
        groups = in_background(self._groups(spans), max(1, AHEAD_PX // (4 * height * width)))
        with contextlib.closing(groups):
            for group in groups:
                pictures, state = tokenizer.restore(
                    group.planes, group.step, None if group.planes.first else state, height, width
                )
                for i, picture in enumerate(pictures):
                    place = shown.place(group.edges[i])
                    if place and begin <= place[0] < end:
                        yield picture, place[0], min(group.edges[i + 1], place[1]) - group.edges[i]

    def count(self, start_s: float = 0.0, end_s: float | None = None) -> int:
        """How many frames `frames` gives.

        Raises:
            BitstreamError: a chunk is damaged.
        """
        spans = shown_of(self._reader).part(*span_ticks(self._reader, start_s, end_s))
        return framed(self._reader, spans)[1]

    def _groups(self, spans: Spans) -> Generator[_Timed, None, None]:
        """The groups of the chunks that have a part in some spans, as the loop decodes them, as far as needed."""
        from tokcodec.tokenizer import grouped

        header, tokenizer = self.header, self._tokenizer()
        ahead = max(2, AHEAD_PX // (header.height * header.width))

        def coded(chunk: Chunk) -> Generator[FrameTokens | FrameIntegers, None, None]:
            yield from frames_of(chunk, header, tokenizer.tables)

        for i in holding(self._reader, spans):
            try:
                chunk = self._reader.read_chunk(i)
                step, edges, done = chunk.step / STEP_UNITS, (*chunk.pts, chunk.end_pts), 0
                end = max(end for begin, end in spans if begin < chunk.end_pts)
                with contextlib.closing(in_background(coded(chunk), ahead)) as tokens:
                    for group in grouped(tokenizer.planes(tokens, step)):
                        if edges[done] >= end:
                            break
                        count = len(group.steps)
                        yield _Timed(group, step, edges[done : done + count + 1])
                        done += count
            except BitstreamError as error:  # as in `tokens`
                raise named(self._path, error) from error


@contextlib.contextmanager
def open_stream(
    path: str | Path,
    *,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    salvage: bool = False,
) -> Iterator[Stream]:
    """Open a .tokc stream to read its tokens and frames.

    Args:
        path: of the stream; "-" is stdin.
        weights: safetensors file; the released ones if None. Loaded on first use.
        compute: device, arithmetic and restorer.
        salvage: accept a damaged or cut stream and give what is intact.

    Raises:
        BitstreamError: it is no stream, or damaged (without `salvage`).
        TokcodecError: it cannot be opened.
    """
    with reading(Path(path), salvage) as reader:
        yield Stream(Path(path), reader, lambda: tokenizer_of(reader, weights, compute))


def tokenizer_of(reader: Reader, weights: str | Path | None = None, compute: Compute = AUTO) -> Tokenizer:
    """The tokenizer that a stream was made with.

    Raises:
        ModelError: the weights are not there, or not the stream's.
    """
    from tokcodec.tokenizer import load_tokenizer
    from tokcodec.weights import Weights

    found = Weights.find(weights, reader.header.weights_sha256)
    return load_tokenizer(found, compute).of(reader.header.profile)
