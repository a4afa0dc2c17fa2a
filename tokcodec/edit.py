"""Stream to stream without the network: describe, verify, thin, trim, concat, tokens out and in.

Chunks decode alone, so whole ones can be cut and joined; bits are ordered, so fewer of them are a coarser
stream. Pixels are never touched, and torch is never imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from tokcodec import output, standard
from tokcodec.bitstream import Chunk, Entry, Header, Reader, Writer
from tokcodec.errors import BitstreamError, TokcodecError
from tokcodec.files import NamedFile
from tokcodec.records import MAX_TOKEN_BITS, ticks_of

log = logging.getLogger("tokcodec")


@dataclasses.dataclass(frozen=True)
class Rate:
    """How much to spend; at most one attribute is set, none means all bits of every token.

    Attributes:
        token_bits: bits kept of each token, 1 to 64; all of them if there are fewer.
        bits_per_s: of the stream without its copied audio and so on; met from below.
        size_bytes: of the whole file; met from below.
    """

    token_bits: int | None = None
    bits_per_s: float | None = None
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.token_bits, self.bits_per_s, self.size_bytes) if x is not None]
        if len(given) > 1 or any(x <= 0 for x in given):
            raise ValueError(f"a rate is one positive number, not {self}")
        if self.token_bits is not None and self.token_bits > MAX_TOKEN_BITS:
            raise ValueError(f"token_bits must be 1 to {MAX_TOKEN_BITS}, not {self.token_bits}")

    @property
    def is_target(self) -> bool:
        """Whether the sizes of the chunks decide the bits."""
        return self.token_bits is None and self != Rate()


DEFAULT_RATE = Rate(token_bits=32)  # the middle of the quality scale


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run made or read.

    Attributes:
        width: in pixels, as coded; also height.
        damaged: places of the stream that could not be read (salvage only).
        bytes: of the stream, all of it.
        video_bytes: of them without the other streams (sound, subtitles).
        other_bytes: of them for the other streams.
        bpp: 8 * video_bytes / (width * height * frames).
        kbps: 8 * video_bytes / duration / 1000.
        token_bits: fewest and most bits kept of a token.
        seconds: wall time.
        network_s: of them inside the network, transfers to and from its device included.
        peak_vram_bytes: most memory the process has held on a GPU; 0 on a CPU.
    """

    width: int
    height: int
    frames: int
    chunks: int
    duration_s: float
    damaged: int
    bytes: int
    video_bytes: int
    other_bytes: int
    bpp: float
    kbps: float
    token_bits: tuple[int, int]
    seconds: float
    network_s: float = 0.0
    peak_vram_bytes: int = 0


def report(
    header: Header, index: Sequence[Entry], size_bytes: int, video_bytes: int, started: float, damaged: int = 0
) -> Report:
    """Sum up a stream.

    Args:
        header: of the stream.
        index: its chunks.
        size_bytes: of the whole stream.
        video_bytes: of it without the other streams.
        started: `time.monotonic()` when the work began.
        damaged: places that could not be read.
    """
    frames = sum(entry.frames for entry in index)
    duration_s = float((index[-1].end_pts - index[0].first_pts) * header.time_base)
    return Report(
        width=header.width,
        height=header.height,
        frames=frames,
        chunks=len(index),
        duration_s=round(duration_s, 6),
        damaged=damaged,
        bytes=size_bytes,
        video_bytes=video_bytes,
        other_bytes=size_bytes - video_bytes,
        bpp=round(8 * video_bytes / (header.width * header.height * frames), 6),
        kbps=round(8 * video_bytes / duration_s / 1000, 3),
        token_bits=(min(e.token_bits for e in index), max(e.token_bits for e in index)),
        seconds=round(time.monotonic() - started, 3),
    )


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[BinaryIO]:
    """A seekable file; stdin and pipes are copied to a temporary one."""
    with contextlib.ExitStack() as stack:
        is_stdin = str(source) == "-"
        handle = os.dup(standard.stdin().fileno()) if is_stdin else source
        file: BinaryIO = stack.enter_context(
            io.BufferedReader(NamedFile(handle, "rb", "stdin" if is_stdin else source))
        )
        if is_stdin or not file.seekable():
            spool = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, spool)
            file = spool
        yield file


def _named(source: Path, error: BitstreamError) -> BitstreamError:
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
        with _opened(source) as file:
            reader = Reader(file, salvage=salvage)
            if not reader.index:
                raise BitstreamError("no intact chunk" if salvage else "no frames")
            yield reader
    except BitstreamError as error:
        raise _named(source, error) from error


def describe(source: Path) -> dict[str, Any]:
    """What a stream says of itself, as plain values in a fixed order.

    Raises:
        BitstreamError: it is damaged.
        TokcodecError: it cannot be read.
    """
    with reading(source) as reader:
        header = reader.header
        facts = dataclasses.asdict(report(header, reader.index, reader.bytes, reader.video_bytes, time.monotonic()))
        for of_a_run in ("seconds", "network_s", "peak_vram_bytes", "damaged"):
            del facts[of_a_run]
        streams = reader.streams()
        return {
            "file": str(source),
            **facts,
            "frame_rate": round(float(header.frame_rate), 6),
            "time_base": str(header.time_base),
            "sample_aspect": str(header.sample_aspect),
            "rotation": header.rotation,
            "mirrored": header.mirrored,
            "colour": f"{header.primaries}/{header.transfer}/{header.matrix}",
            "full_range": header.full_range,
            "chunk_frames": header.chunk_frames,
            "weights_bits": header.token_bits,
            "weights_sha256": header.weights_sha256.hex(),
            "other_streams": streams[0] if streams else None,
        }


def verify(source: Path) -> Report:
    """Read every byte of a stream: checksums, and that all tokens decode.

    Raises:
        BitstreamError: something is wrong with it.
        TokcodecError: it cannot be read.
    """
    started = time.monotonic()
    with reading(source) as reader:
        for chunk in chunks_of(reader):
            chunk.bits(reader.header)
        checked_streams(reader)
        return report(reader.header, reader.index, reader.bytes, reader.video_bytes, started)


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


def _write(
    file: BinaryIO, header: Header, chunks: Iterable[Chunk], streams: tuple[str, BinaryIO] | None
) -> tuple[list[Entry], int, int]:
    """Write a whole stream; returns its index, its bytes, and those without the other streams."""
    writer = Writer(file, header)
    for chunk in chunks:
        writer.write_chunk(chunk)
    if streams is not None:
        writer.write_streams(streams[1], streams[0])
    writer.close()
    return writer.index, writer.bytes, writer.video_bytes


def thin(source: Path, target: str | Path, rate: Rate, *, overwrite: bool = False) -> Report:
    """Lower the rate of a stream by dropping the last bits of its tokens.

    Args:
        source: a stream.
        target: a stream; "-" is stdout.
        rate: to reach; a chunk that has fewer bits already keeps them.
        overwrite: replace a target that exists.

    Raises:
        TokcodecError: the source is damaged, the target cannot be written, or the rate cannot be met.
    """
    started = time.monotonic()
    with reading(source) as reader, output.writing(target, [source], overwrite) as file:
        return report(reader.header, *thin_stream(reader, file, rate), started)


def thin_stream(reader: Reader, file: BinaryIO, rate: Rate) -> tuple[list[Entry], int, int]:
    """`thin` from an open stream to a file.

    Returns:
        Of the result: its index, its bytes, and those without the other streams.

    Raises:
        TokcodecError: the rate is less than one bit a token takes.
    """
    kept = [min(e.token_bits, rate.token_bits or e.token_bits) for e in reader.index]
    if rate.is_target:
        kept = _fit(reader, rate)
    thinned = (_thinned(chunk, reader.header, k) for chunk, k in zip(chunks_of(reader), kept, strict=True))
    return _write(file, reader.header, thinned, reader.streams())


def _thinned(chunk: Chunk, header: Header, token_bits: int) -> Chunk:
    if token_bits >= chunk.token_bits:
        return chunk
    return Chunk.from_bits(chunk.bits(header)[:token_bits], chunk.pts, chunk.duration)


def _fit(reader: Reader, rate: Rate) -> list[int]:
    """Bits to keep in each chunk so that the whole comes as close to the rate as it can from below.

    All chunks get the same bits, and some of them, evenly spread, one more.
    """

    def payloads(token_bits: int) -> list[int]:
        """Coded size of every chunk, in bytes."""
        return [len(_thinned(chunk, reader.header, token_bits).payload) for chunk in chunks_of(reader)]

    most = max(e.token_bits for e in reader.index)
    high, high_sizes = most, payloads(most)
    overhead = reader.bytes - sum(high_sizes)
    if rate.size_bytes is not None:
        budget = rate.size_bytes - overhead
    else:
        assert rate.bits_per_s is not None
        duration_s = (reader.index[-1].end_pts - reader.index[0].first_pts) * reader.header.time_base
        budget = math.floor(Fraction(rate.bits_per_s) * duration_s / 8) - (reader.video_bytes - sum(high_sizes))
    if sum(high_sizes) <= budget:
        return [e.token_bits for e in reader.index]
    low, low_sizes = 0, [0] * len(high_sizes)
    while high - low > 1:  # sizes are almost linear in the bits, so a guess by the rule of three soon hits
        share = (budget - sum(low_sizes)) / (sum(high_sizes) - sum(low_sizes))
        middle = min(high - 1, max(low + 1, low + round(share * (high - low))))
        sizes = payloads(middle)
        if sum(sizes) <= budget:
            low, low_sizes = middle, sizes
        else:
            high, high_sizes = middle, sizes
    if not low:
        least = overhead + sum(high_sizes)
        raise TokcodecError(f"the rate cannot be met: one bit a token alone makes {least} bytes")
    count, total = len(low_sizes), sum(low_sizes)
    kept = [low] * count
    for i in sorted(range(count), key=lambda i: (i * 0x9E3779B1) % 2**32):  # Weyl's sequence spreads them evenly
        if total + high_sizes[i] - low_sizes[i] <= budget:
            total += high_sizes[i] - low_sizes[i]
            kept[i] = high
    return kept


def trim(
    source: Path, target: str | Path, start_s: float = 0.0, duration_s: float | None = None, *, overwrite: bool = False
) -> Report:
    """Cut a stream at the edges of its chunks: every chunk that overlaps the span is kept.

    Time starts at 0 in the result; the other streams are cut likewise, to whole packets.

    Args:
        source: a stream.
        target: a stream; "-" is stdout.
        start_s: of the span, in seconds after the first frame.
        duration_s: of the span; None for all that follows.
        overwrite: replace a target that exists.

    Raises:
        TokcodecError: the source is damaged, has no frame in the span, or the target cannot be written.
    """
    started = time.monotonic()
    with reading(source) as reader, output.writing(target, [source], overwrite) as file:
        wanted = overlapping(reader, start_s, duration_s)
        if not wanted:
            raise TokcodecError(f"{source}: no frames in the span")
        part = _Part(source, reader, wanted, -reader.index[wanted[0]].first_pts)
        return report(reader.header, *_join(file, reader.header, [part]), started)


def overlapping(reader: Reader, start_s: float, duration_s: float | None) -> list[int]:
    """Which chunks have a part in [start_s, start_s + duration_s), in seconds after the first frame."""
    begin, end = span_ticks(reader, start_s, duration_s)
    return [i for i, entry in enumerate(reader.index) if entry.end_pts > begin and entry.first_pts < end]


def span_ticks(reader: Reader, start_s: float, duration_s: float | None) -> tuple[int, int]:
    """[start_s, start_s + duration_s) in seconds after the first frame to [begin, end) ticks of the stream's clock."""
    time_base, origin = reader.header.time_base, reader.index[0].first_pts
    begin = origin + ticks_of(start_s, time_base)
    end = reader.index[-1].end_pts if duration_s is None else origin + ticks_of(start_s + duration_s, time_base)
    return begin, end


@dataclasses.dataclass(frozen=True)
class _Part:
    """Consecutive chunks of a stream and the ticks by which they move."""

    source: Path
    reader: Reader
    chunks: list[int]
    shift: int

    def moved(self) -> Iterator[Chunk]:
        for i in self.chunks:
            try:
                chunk = self.reader.read_chunk(i)
            except BitstreamError as error:
                raise _named(self.source, error) from error
            yield dataclasses.replace(chunk, pts=tuple(pts + self.shift for pts in chunk.pts))

    def span(self) -> tuple[Fraction, Fraction, Fraction]:
        """Begin, end and shift in seconds, for the packets of the other streams."""
        first, last = self.reader.index[self.chunks[0]], self.reader.index[self.chunks[-1]]
        begin, end, shift = (
            ticks * self.reader.header.time_base for ticks in (first.first_pts, last.end_pts, self.shift)
        )
        return begin, end, shift


def _join(file: BinaryIO, header: Header, parts: list[_Part]) -> tuple[list[Entry], int, int]:
    """Write the parts one after another, their other streams with them; returns what `_write` does."""
    chunks = (chunk for part in parts for chunk in part.moved())
    cuts = []
    for part in parts:
        try:
            streams = checked_streams(part.reader)
        except BitstreamError as error:
            raise _named(part.source, error) from error
        if streams is not None:
            cuts.append((*streams, *part.span()))
    if not cuts:
        return _write(file, header, chunks, None)
    from tokcodec.video import cut_streams  # FFmpeg is needed only where there are other streams

    with tempfile.TemporaryFile() as joined:
        name = cut_streams(cuts, joined)
        return _write(file, header, chunks, None if name is None else (name, joined))


def concat(sources: Sequence[Path], target: str | Path, *, overwrite: bool = False) -> Report:
    """Join streams: each begins where the one before it ends.

    Args:
        sources: streams that agree in weights, frame size, time base, aspect, rotation and colour.
        target: a stream; "-" is stdout.
        overwrite: replace a target that exists.

    Raises:
        TokcodecError: a source is damaged or does not fit the first, or the target cannot be written.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(reading(source)) for source in sources]
        headers = [reader.header for reader in readers]
        widest = dataclasses.replace(headers[0], chunk_frames=max(h.chunk_frames for h in headers))
        end, parts = readers[0].index[0].first_pts, []
        for source, reader in zip(sources, readers, strict=True):
            for field in dataclasses.fields(Header):
                ours, first = getattr(reader.header, field.name), getattr(widest, field.name)
                if field.name not in ("chunk_frames", "frame_rate") and ours != first:
                    raise TokcodecError(f"{source}: its {field.name} is not that of {sources[0]}")
            shift = end - reader.index[0].first_pts
            parts.append(_Part(source, reader, list(range(len(reader.index))), shift))
            end = reader.index[-1].end_pts + shift
        file = stack.enter_context(output.writing(target, list(sources), overwrite))
        written = _join(file, widest, parts)
    return report(widest, *written, started)


def export_tokens(source: Path, target: Path, *, overwrite: bool = False) -> Report:
    """Write the tokens of a stream as arrays, for language models and analysis.

    The arrays: `bits` bool `[T, h, w, K]`, the latent frames of all chunks in a row, most important bit
    first (a bit that a chunk does not keep is 0); `chunks` int64 `[n, 4]`: first latent frame, latent
    frames, frames and bits kept of each chunk; `pts` int64 `[frames]` in ticks; `durations` int64 `[n]`, of
    the last frame of each chunk; `header` uint8, the stream's header record. The token integer is
    sum(bits[..., i] << i). Other streams (audio) are not exported.

    Args:
        source: a stream.
        target: .npz or .safetensors.
        overwrite: replace a target that exists.

    Raises:
        TokcodecError: the source is damaged, or the target is of another kind or cannot be written.
    """
    started = time.monotonic()
    if target.suffix.lower() not in (".npz", ".safetensors"):
        raise TokcodecError(f"{target}: tokens are exported to .npz or .safetensors")
    with reading(source) as reader, output.writing(target, [source], overwrite) as file:
        header = reader.header
        if reader.streams() is not None:
            log.warning("%s: the other streams (sound, subtitles) are not exported", source)
        grids = [header.bits_shape(e.frames, e.token_bits) for e in reader.index]
        length, most = sum(t for _, t, _, _ in grids), max(k for k, _, _, _ in grids)
        bits = np.zeros((length, *grids[0][2:], most), np.bool_)
        rows, durations, begin = [], [], 0
        pts: list[int] = []
        for chunk in chunks_of(reader):
            coded = chunk.bits(header)
            k, t = coded.shape[:2]
            bits[begin : begin + t, ..., :k] = coded.transpose(1, 2, 3, 0)
            rows.append((begin, t, chunk.frames, k))
            pts.extend(chunk.pts)
            durations.append(chunk.duration)
            begin += t
        arrays = {
            "bits": bits,
            "chunks": np.array(rows, np.int64),
            "pts": np.array(pts, np.int64),
            "durations": np.array(durations, np.int64),
            "header": np.frombuffer(header.pack(), np.uint8),
        }
        if target.suffix.lower() == ".npz":
            np.savez_compressed(file, allow_pickle=False, **arrays)  # to a path it would add .npz after .NPZ
        else:
            file.write(save(arrays))
        return report(header, reader.index, reader.bytes, reader.video_bytes, started)


def import_tokens(source: Path, target: str | Path, *, overwrite: bool = False) -> Report:
    """Make a stream from arrays as `export_tokens` writes them: the way back, and from a language model.

    Args:
        source: .npz or .safetensors.
        target: a stream; "-" is stdout.
        overwrite: replace a target that exists.

    Raises:
        TokcodecError: the arrays are missing or do not fit each other, or the target cannot be written.
    """
    started = time.monotonic()
    with output.writing(target, [source], overwrite) as file:
        try:
            arrays = _load_arrays(source)
            header = Header.unpack(arrays["header"].astype(np.uint8).tobytes())
            bits, pts = arrays["bits"].astype(np.bool_), arrays["pts"].tolist()
            written = _write(file, header, _chunks_from(bits, pts, arrays, header), None)
            if not written[0]:
                raise ValueError("no chunks")
        except (KeyError, ValueError, IndexError, TypeError, BitstreamError) as error:
            raise TokcodecError(f"{source}: these arrays are not the tokens of a stream: {error}") from error
    return report(header, *written, started)


def _load_arrays(source: Path) -> dict[str, NDArray[Any]]:
    try:
        if source.suffix.lower() == ".safetensors":
            return dict(load_file(source))
        with np.load(source, allow_pickle=False) as file:
            return {name: file[name] for name in ("bits", "chunks", "pts", "durations", "header")}
    except KeyError:
        raise
    except Exception as error:  # a damaged archive fails in a dozen ways inside zipfile, zlib and NumPy
        raise TokcodecError(f"{source}: cannot read arrays: {str(error) or type(error).__name__}") from error


def _chunks_from(
    bits: NDArray[np.bool_], pts: list[int], arrays: dict[str, NDArray[Any]], header: Header
) -> Iterator[Chunk]:
    done = 0
    for (begin, t, frames, k), duration in zip(arrays["chunks"].tolist(), arrays["durations"].tolist(), strict=True):
        coded = bits[begin : begin + t, ..., :k].transpose(3, 0, 1, 2)
        if coded.shape != header.bits_shape(frames, k):
            raise ValueError(f"a chunk has bits of shape {coded.shape}, not {header.bits_shape(frames, k)}")
        yield Chunk.from_bits(np.ascontiguousarray(coded), tuple(pts[done : done + frames]), duration)
        done += frames
    if done != len(pts):
        raise ValueError(f"{len(pts)} timestamps for {done} frames")
