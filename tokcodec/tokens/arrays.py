"""Tokens out of a stream as arrays, and in again: for language models and analysis. Neither torch nor FFmpeg."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from tokcodec.arguments import check_stream_name
from tokcodec.dtypes import Array
from tokcodec.errors import BitstreamError, ModelError, TokcodecError
from tokcodec.io import output, suffixes
from tokcodec.report import Report, report_of
from tokcodec.stream.container import write_stream
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.records import VERSION, Chunk, Header
from tokcodec.stream_reader import checked_streams, chunks_of, reading, tokenizer_of, tokens_of

if TYPE_CHECKING:
    from tokcodec.stream.entropy import Tables

NAMES = ("levels", "motion", "spans", "numbers", "chunks", "step", "pts", "durations", "header", "metadata")
OPTIONAL = ("index", "streams", "streams_format")  # the index follows from the levels; streams where there are others
INDEX_BITS = 18  # the vocabulary of MAGVIT-v2
_FRACTIONS = ("time_base", "frame_rate", "sample_aspect")


def export_tokens(
    source: str | Path, target: str | Path, *, weights: str | Path | None = None, overwrite: bool = False
) -> Report:
    """Write the tokens of a stream as arrays.

    FORMAT.md describes them. The other streams (sound, subtitles) go with them as the file they are in the stream.

    Args:
        source: a stream.
        target: .npz or .safetensors.
        weights: those of the stream, for their coder tables; the released ones if None.
        overwrite: replace a target that exists.

    Raises:
        ModelError: the weights are not the stream's.
        TokcodecError: the source is damaged, or the target has another suffix or cannot be written.
    """
    started, source, target = time.monotonic(), Path(source), Path(target)
    if target.suffix.lower() not in suffixes.ARRAYS:
        raise TokcodecError(f"{target}: tokens are written to .npz or .safetensors")
    with reading(source) as reader, output.writing(target, [source], overwrite) as file:
        header, tables = reader.header, tokenizer_of(reader, weights).tables
        levels, motion, spans, numbers, rows, steps, durations = [], [], [], [], [], [], []
        pts: list[int] = []
        field = span = 0
        for chunk in chunks_of(reader):
            tokens = tokens_of(chunk, header.height, header.width, tables)
            rows.append((len(pts), chunk.frames, field, len(tokens.motion), span, len(tokens.spans)))
            field, span = field + len(tokens.motion), span + len(tokens.spans)
            levels.append(narrow(tokens.levels))
            motion.append(tokens.motion)
            spans.append(tokens.spans)
            numbers.append(tokens.numbers)
            pts.extend(chunk.pts)
            steps.append(chunk.step)
            durations.append(chunk.duration)
        arrays: dict[str, Array] = {
            "levels": np.concatenate(levels, 1),
            "index": np.concatenate([index(part) for part in levels]),
            "motion": np.concatenate(motion),
            "spans": np.concatenate(spans),
            "numbers": np.concatenate(numbers),
            "chunks": np.array(rows, np.int64),
            "step": np.array(steps, np.uint16),
            "pts": np.array(pts, np.int64),
            "durations": np.array(durations, np.int64),
            "header": _text(_header_json(header)),
            "metadata": _text(reader.metadata.pack()),
        }
        if streams := checked_streams(reader):
            arrays |= {"streams": _text(streams[1].read()), "streams_format": _text(streams[0].encode())}
        if target.suffix.lower() == ".npz":
            np.savez_compressed(file, allow_pickle=False, **arrays)  # to a path it would add .npz after .NPZ
        else:
            file.write(save(arrays))
        return report_of(header, reader.index, reader.bytes, reader.video_bytes, started)


def index(levels: Array) -> NDArray[np.int32]:
    """The LFQ index of tokens, int32 `[t, h, w]` below 2^18: of the bits of the first nine of levels `[D, t, h, w]`.

    Bits 2 d and 2 d + 1 say whether level d is above 0 and below 0.
    """
    from tokcodec.tokens.bits import bits_of, index_of

    return index_of(bits_of(levels[: INDEX_BITS // 2], 1)).astype(np.int32)


def narrow(levels: NDArray[np.int16]) -> Array:
    """Levels as int8 where that holds them all."""
    return levels.astype(np.int8) if np.array_equal(levels.astype(np.int8), levels) else levels


def _text(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


def _bytes(text: Array) -> bytes:
    return text.astype(np.uint8).tobytes()


def _header_json(header: Header) -> bytes:
    fields: dict[str, Any] = {"format_version": VERSION, **dataclasses.asdict(header)}
    fields |= {name: str(fields[name]) for name in _FRACTIONS}
    fields["weights_sha256"] = header.weights_sha256.hex()
    return json.dumps(fields).encode()


def _header_of(data: bytes) -> Header:
    """The inverse of `_header_json`; one of _MISFITS or BitstreamError if it is no header."""
    fields = json.loads(data)
    if not isinstance(fields, dict) or fields.pop("format_version") != VERSION:
        raise ValueError(f"the header is not of format version {VERSION}")
    fields |= {name: Fraction(fields[name]) for name in _FRACTIONS}
    fields["weights_sha256"] = bytes.fromhex(fields["weights_sha256"])
    return Header.unpack(Header(**fields).pack())


_MISFITS = (
    KeyError, ValueError, IndexError, TypeError, AttributeError, ArithmeticError, RecursionError, struct.error,
)  # fmt: skip


def import_tokens(
    source: str | Path, target: str | Path, *, weights: str | Path | None = None, overwrite: bool = False
) -> Report:
    """Make a stream from arrays as `export_tokens` writes them: the way back, and from a language model.

    Args:
        source: .npz or .safetensors.
        target: a stream; "-" is stdout.
        weights: those that the header names, for their coder tables; the released ones if None.
        overwrite: replace a target that exists.

    Raises:
        ModelError: the weights are not those that the header names.
        TokcodecError: the arrays are missing or do not fit each other, or the target cannot be written.
        ValueError: the target's suffix is that of another kind of file.
    """
    from tokcodec.tokenizer import load_tokenizer
    from tokcodec.weights import Weights

    check_stream_name(target)
    started, source = time.monotonic(), Path(source)
    with output.writing(target, [source], overwrite) as file:
        try:
            arrays = _load_arrays(source)
            header = _header_of(_bytes(arrays["header"]))
            metadata = Metadata.unpack(_bytes(arrays["metadata"]))
            streams: tuple[str, BinaryIO] | None = None
            if "streams" in arrays:
                streams = _bytes(arrays["streams_format"]).decode(), io.BytesIO(_bytes(arrays["streams"]))
            tables = load_tokenizer(Weights.find(weights, header.weights_sha256)).tables
            chunks = _chunks_from(arrays, header, tables)
            writer = write_stream(file, header, chunks, lambda: (metadata, streams))
            if not writer.index:
                raise ValueError("no chunks")
        except ModelError:
            raise
        except (*_MISFITS, BitstreamError) as error:
            raise TokcodecError(f"{source}: these arrays are not the tokens of a stream: {error}") from error
    return report_of(header, writer.index, writer.bytes, writer.video_bytes, started)


def _load_arrays(source: Path) -> dict[str, Array]:
    try:
        if source.suffix.lower() == ".safetensors":
            return dict(load_file(source))
        with np.load(source, allow_pickle=False) as file:
            return {name: file[name] for name in (*NAMES, *(name for name in OPTIONAL if name in file))}
    except KeyError:
        raise
    except Exception as error:  # a damaged archive fails in a dozen ways inside zipfile, zlib and NumPy
        raise TokcodecError(f"{source}: cannot read arrays: {str(error) or type(error).__name__}") from error


def _chunks_from(arrays: dict[str, Array], header: Header, tables: Tables) -> Iterator[Chunk]:
    from tokcodec.stream.entropy import Tokens, encode_chunk, shapes

    levels, motion = _int16(arrays["levels"]), _int16(arrays["motion"])
    for name in ("spans", "numbers", "chunks", "step", "pts", "durations"):
        if arrays[name].dtype.kind not in "iu" or arrays[name].ndim != (2 if name == "chunks" else 1):
            raise ValueError(f"{name} is {arrays[name].dtype} {list(arrays[name].shape)}, not integers as of a stream")
    pts, done = arrays["pts"].tolist(), np.zeros(3, np.int64)
    facts = zip(arrays["chunks"].tolist(), arrays["step"].tolist(), arrays["durations"].tolist(), strict=True)
    for (frame, frames, field, fields, span, spans), step, duration in facts:
        if [frame, field, span] != done.tolist() or not 1 <= frames <= header.chunk_frames:
            raise ValueError(
                f"a chunk of {frames} frames begins at {frame}, {field}, {span} instead of {done.tolist()}"
            )
        tokens = Tokens(
            levels[:, frame : frame + frames],
            motion[field : field + fields],
            _bytes_of(arrays["spans"][span : span + spans]),
            _bytes_of(arrays["numbers"][frame : frame + frames]),
        )
        wanted = shapes(frames, header.height, header.width, tables.dims)
        if (tokens.levels.shape, tokens.motion.shape) != wanted:
            raise ValueError(f"a chunk has {tokens.levels.shape} and {tokens.motion.shape}, not {wanted}")
        if "index" in arrays and not np.array_equal(index(tokens.levels), arrays["index"][frame : frame + frames]):
            raise ValueError("the index is not that of the levels: it is made of them, so leave it out")
        coder, coded_motion, coded_levels = encode_chunk(tokens, step, tables)
        yield Chunk(frames, coder, step, tuple(pts[frame : frame + frames]), duration, coded_motion, coded_levels)
        done += (frames, fields, spans)
    if done.tolist() != [len(pts), len(motion), len(arrays["spans"])] or done[0] != levels.shape[1]:
        raise ValueError("the chunks do not use all frames, fields and spans")


def _bytes_of(array: Array) -> NDArray[np.uint8]:
    if len(array) and not 0 <= array.min() <= array.max() < 256:
        raise ValueError("a span or a step number is not 0 to 255")
    return array.astype(np.uint8)


def _int16(array: Array) -> NDArray[np.int16]:
    if array.dtype not in (np.int8, np.int16):
        raise ValueError(f"tokens are {array.dtype}, not int8 or int16")
    return array.astype(np.int16)
