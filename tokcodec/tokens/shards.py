"""Tokens of many streams as WebDataset shards: tar files, a chunk a sample. Neither torch nor FFmpeg."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tokcodec.arguments import check_choices
from tokcodec.errors import BitstreamError, TokcodecError
from tokcodec.io import output
from tokcodec.io.files import NamedFile
from tokcodec.io.find import find_streams
from tokcodec.pipeline import available_cores, in_parallel
from tokcodec.rate import STEP_UNITS
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.profile import name_of
from tokcodec.stream.records import VERSION, Chunk, Header
from tokcodec.stream_reader import integers_of, named, reading, tokenizer_of, tokens_of
from tokcodec.tokens.arrays import narrow

if TYPE_CHECKING:
    from tokcodec.stream.entropy import Tables

SHARD_SAMPLES = 1000
SHARD_BYTES = 10**9


@dataclasses.dataclass(frozen=True)
class Sharding:
    """What `export_shards` made.

    Attributes:
        streams: that were read to their end.
        failed: an error for each of the others, by name; chunks of theirs that could be read are in the shards.
        samples: one a chunk.
        frames: of them all.
        shards: files.
        bytes: of them all.
        seconds: wall time.
    """

    streams: int
    failed: dict[str, str]
    samples: int
    frames: int
    shards: int
    bytes: int
    seconds: float


class _Source(NamedTuple):
    """A chunk and what it takes to make a sample of it."""

    name: str
    path: Path
    number: int
    chunk: Chunk
    header: Header
    metadata: Metadata
    tables: Tables


def export_shards(
    sources: Sequence[str | Path],
    pattern: str | Path,
    *,
    weights: str | Path | None = None,
    shard_samples: int = SHARD_SAMPLES,
    shard_bytes: int = SHARD_BYTES,
    cores: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Sharding:
    """Write the tokens of streams as shards for the `webdataset` package.

    A sample is a chunk. Its key is the name of the stream, without the suffix and with its path below the folder that
    was given, and the number of the chunk: `a/b/000003`. Its parts are `levels.npy`, int8 or int16 `[D, F, h, w]`;
    `motion.npy`, int16 `[F - 1, 5, 2 h, 2 w]`; `spans.npy`, uint8 `[n]`; `numbers.npy`, uint8 `[F]`; and `json`:
    stream, chunk, frames, width, height, step (in levels), pts and duration (of the last frame) in ticks of time_base,
    format_version, weights_sha256, and the tags of the stream. A chunk of the profile lfq has `integers.npy`, int32
    `[F, h, w, depth + 1]`, in place of the other arrays, and profile, bits and depth in `json`. The same streams make
    the same bytes.

    Args:
        sources: streams, and folders of streams (`.tokc`) at any depth.
        pattern: names of the shards with a place for their number, such as `out/shard-%06d.tar`. They appear
            together when all are whole.
        weights: those of the streams, for their coder tables; the released ones if None.
        shard_samples: in a shard at most.
        shard_bytes: of a shard at most, unless a single sample is larger.
        cores: chunks to decode at once; None for as many as this process may use cores.
        overwrite: replace a set of shards that exists.
        progress: called after each chunk with chunks and bytes so far.

    Returns:
        What was made. A stream that is damaged is in it and does not stop the others.

    Raises:
        ExistsError: such shards exist and `overwrite` is not set.
        TokcodecError: the pattern is none of .tar names, there is no stream, two have one name, none can be read, or a
            shard cannot be written.
        ValueError: a size or the cores are below 1.
    """
    check_choices(counts=[cores])
    started = time.monotonic()
    pattern = Path(pattern)
    if pattern.suffix.lower() != ".tar" or not re.fullmatch(r"[^%]*%(0\d+)?d[^%]*", pattern.name):
        raise TokcodecError(f"{pattern}: shards need a pattern of names such as shard-%06d.tar")
    if min(shard_samples, shard_bytes) < 1:
        raise ValueError("a shard holds at least a sample and a byte")
    streams: dict[str, Path] = {}
    for name, path in find_streams(sources):
        if name in streams:
            raise TokcodecError(f"{path}: {streams[name]} would have the same keys; give a folder that holds both")
        streams[name] = path
    failed: dict[str, str] = {}
    with output.replacing_pattern(pattern, overwrite) as partial:
        frames = 0
        chunks = _chunks(streams, weights, failed)
        samples = in_parallel(_sample, chunks, cores or available_cores())
        shards = _Shards(partial, pattern, shard_samples, shard_bytes)
        with contextlib.closing(shards), contextlib.closing(samples):
            for source, sample in samples:
                if isinstance(sample, TokcodecError):
                    failed.setdefault(source.name, str(sample))
                    continue
                shards.add(sample)
                frames += source.chunk.frames
                if progress:
                    progress(shards.samples, shards.size_bytes)
        if not shards.samples:
            raise TokcodecError(next(iter(failed.values())))
    seconds = round(time.monotonic() - started, 3)
    return Sharding(
        len(streams) - len(failed), failed, shards.samples, frames, shards.count, shards.size_bytes, seconds
    )


def _chunks(streams: dict[str, Path], weights: str | Path | None, failed: dict[str, str]) -> Iterator[_Source]:
    """The chunks of all streams, as far as they can be read; the errors of the others go to `failed`."""
    for name, path in streams.items():
        try:
            with reading(path) as reader:
                tables = tokenizer_of(reader, weights).tables
                for i in range(len(reader.index)):
                    yield _Source(name, path, i, reader.read_chunk(i), reader.header, reader.metadata, tables)
        except TokcodecError as error:
            failed.setdefault(name, str(error))


def _sample(source: _Source) -> tuple[_Source, list[tuple[str, bytes]] | TokcodecError]:
    """The files of a sample and their bytes, or what is wrong with its chunk."""
    chunk, header = source.chunk, source.header
    try:
        parts = _arrays(source)
    except BitstreamError as error:
        return source, named(source.path, error)
    facts: dict[str, Any] = {
        "stream": source.name,
        "chunk": source.number,
        "frames": chunk.frames,
        "width": header.width,
        "height": header.height,
        "step": chunk.step / STEP_UNITS,
        "time_base": str(header.time_base),
        "pts": chunk.pts,
        "duration": chunk.duration,
        "format_version": VERSION,
        "weights_sha256": header.weights_sha256.hex(),
        "tags": source.metadata.tags,
    }
    if header.profile is not None:
        facts |= {"profile": name_of(header.profile), "bits": header.profile.bits, "depth": header.profile.depth}
    key = f"{source.name}/{source.number:06d}"  # in a folder, for webdataset ends a file's key at its first dot
    files = {f"{name}.npy": _npy(array) for name, array in parts.items()} | {"json": json.dumps(facts).encode()}
    return source, [(f"{key}.{end}", data) for end, data in files.items()]


def _arrays(source: _Source) -> dict[str, np.ndarray]:
    """The tokens of a chunk, by name."""
    if source.header.profile is not None:
        return {"integers": integers_of(source.chunk, source.header)}
    levels, motion, spans, numbers = tokens_of(source.chunk, source.header, source.tables)
    return {"levels": narrow(levels), "motion": motion, "spans": spans, "numbers": numbers}


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


class _Shards:
    """Writes samples to one tar file after another.

    Attributes:
        samples: so far.
        count: files so far.
    """

    def __init__(self, partial: Path, pattern: Path, most_samples: int, most_bytes: int) -> None:
        self.samples = self.count = 0
        self._partial, self._pattern = partial, pattern
        self._most_samples, self._most_bytes = most_samples, most_bytes
        self._files = contextlib.ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._held = 0  # samples in the open one
        self._closed_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Of all files, if the last one ends here."""
        return self._closed_bytes + (_tar_bytes(self._tar.offset) if self._tar else 0)

    def add(self, sample: Sequence[tuple[str, bytes]]) -> None:
        """Write a sample, to the next file if it does not fit into this one."""
        infos = [tarfile.TarInfo(name) for name, _ in sample]
        size = 0
        for info, (_, data) in zip(infos, sample, strict=True):
            info.size = len(data)
            size += len(info.tobuf(tarfile.GNU_FORMAT)) + -(-len(data) // BLOCKSIZE) * BLOCKSIZE
        tar = self._tar
        if tar is None or self._held == self._most_samples or _tar_bytes(tar.offset + size) > self._most_bytes:
            tar = self._next()
        for info, (_, data) in zip(infos, sample, strict=True):
            tar.addfile(info, io.BytesIO(data))
        self._held += 1
        self.samples += 1

    def _next(self) -> tarfile.TarFile:
        self.close()
        partial = self._partial.with_name(self._partial.name % self.count)
        named = NamedFile(partial, "wb", self._pattern.with_name(self._pattern.name % self.count))
        file = self._files.enter_context(io.BufferedWriter(named))
        self._tar = self._files.enter_context(tarfile.TarFile(fileobj=file, mode="w", format=tarfile.GNU_FORMAT))
        self.count += 1
        self._held = 0
        return self._tar

    def close(self) -> None:
        """End the open file."""
        self._closed_bytes, self._tar = self.size_bytes, None
        self._files.close()


def _tar_bytes(members: int) -> int:
    """Size of a tar file whose members take so many bytes: two blocks of zeros and then whole records."""
    return -(-(members + 2 * BLOCKSIZE) // RECORDSIZE) * RECORDSIZE
