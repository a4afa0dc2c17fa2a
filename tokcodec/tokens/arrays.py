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
from tokcodec.rate import DEFAULT_RATE, STEP_UNITS
from tokcodec.report import Report, report_of
from tokcodec.stream.container import Reader, write_stream
from tokcodec.stream.metadata import Metadata
from tokcodec.stream.profile import Profile, checked
from tokcodec.stream.records import MAX_CHUNK_PX, VERSION, Chunk, Header, latent_size
from tokcodec.stream_reader import checked_streams, chunks_of, integers_of, reading, tokenizer_of, tokens_of

if TYPE_CHECKING:
    from tokcodec.stream.entropy import Tables

NAMES = ("levels", "motion", "spans", "numbers", "chunks", "step", "pts", "durations", "header", "metadata")
OPTIONAL = ("index", "streams", "streams_format")  # the index follows from the levels; streams where there are others
INTEGERS = "integers"  # of the profile lfq, in place of levels, index, motion, spans and numbers
CHUNK_FRAMES = 129  # of integers without a header, at most
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
        header = reader.header
        if header.profile is None:
            arrays = _levels_of(reader, tokenizer_of(reader, weights).tables)
        else:
            arrays = _integers_of(reader)
        chunks = list(chunks_of(reader))
        arrays |= {
            "step": np.array([chunk.step for chunk in chunks], np.uint16),
            "pts": np.array([pts for chunk in chunks for pts in chunk.pts], np.int64),
            "durations": np.array([chunk.duration for chunk in chunks], np.int64),
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


def _levels_of(reader: Reader, tables: Tables) -> dict[str, Array]:
    """The tokens of a stream of the default profile."""
    levels, motion, spans, numbers, rows = [], [], [], [], []
    frame = field = span = 0
    for chunk in chunks_of(reader):
        tokens = tokens_of(chunk, reader.header, tables)
        rows.append((frame, chunk.frames, field, len(tokens.motion), span, len(tokens.spans)))
        frame, field, span = frame + chunk.frames, field + len(tokens.motion), span + len(tokens.spans)
        levels.append(narrow(tokens.levels))
        motion.append(tokens.motion)
        spans.append(tokens.spans)
        numbers.append(tokens.numbers)
    return {
        "levels": np.concatenate(levels, 1),
        "index": np.concatenate([index(part) for part in levels]),
        "motion": np.concatenate(motion),
        "spans": np.concatenate(spans),
        "numbers": np.concatenate(numbers),
        "chunks": np.array(rows, np.int64),
    }


def _integers_of(reader: Reader) -> dict[str, Array]:
    """The tokens of a stream of the profile lfq."""
    parts = [integers_of(chunk, reader.header) for chunk in chunks_of(reader)]
    counts = [len(part) for part in parts]
    begins = np.cumsum([0, *counts[:-1]])
    return {"integers": np.concatenate(parts), "chunks": np.array([*zip(begins, counts, strict=True)], np.int64)}


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
    if header.profile is None:
        del fields["profile"]
    return json.dumps(fields).encode()


def _header_of(data: bytes) -> Header:
    """The inverse of `_header_json`; one of _MISFITS or BitstreamError if it is no header."""
    fields = json.loads(data)
    if not isinstance(fields, dict) or fields.pop("format_version") != VERSION:
        raise ValueError(f"the header is not of format version {VERSION}")
    fields |= {name: Fraction(fields[name]) for name in _FRACTIONS}
    fields["weights_sha256"] = bytes.fromhex(fields["weights_sha256"])
    if "profile" in fields:
        fields["profile"] = Profile(*fields["profile"])
    return Header.unpack(Header(**fields).pack())


_MISFITS = (
    KeyError, ValueError, IndexError, TypeError, AttributeError, ArithmeticError, RecursionError, struct.error,
)  # fmt: skip


def import_tokens(
    source: str | Path, target: str | Path, *, weights: str | Path | None = None, overwrite: bool = False
) -> Report:
    """Make a stream from arrays as `export_tokens` writes them: the way back, and from a language model.

    Of the profile lfq the array `integers` is enough: quality 4, 30 frames/s, integers of 18 bits (or those of an
    array `bits`), whole positions, chunks of up to 129 frames, and the weights given are the defaults of the rest.

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
            if INTEGERS in arrays:
                arrays = _completed(arrays, weights)
            header = _header_of(_bytes(arrays["header"]))
            metadata = Metadata.unpack(_bytes(arrays["metadata"]))
            streams: tuple[str, BinaryIO] | None = None
            if "streams" in arrays:
                streams = _bytes(arrays["streams_format"]).decode(), io.BytesIO(_bytes(arrays["streams"]))
            if INTEGERS in arrays:
                chunks = _chunks_of_integers(arrays, header)
            else:
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
            known = (INTEGERS, "bits", *NAMES) if INTEGERS in file else ()
            wanted = [name for name in (*known, *OPTIONAL) if name in file]
            return {name: file[name] for name in (wanted if known else (*NAMES, *wanted))}
    except KeyError:
        raise
    except Exception as error:  # a damaged archive fails in a dozen ways inside zipfile, zlib and NumPy
        raise TokcodecError(f"{source}: cannot read arrays: {str(error) or type(error).__name__}") from error


def _completed(arrays: dict[str, Array], weights: str | Path | None) -> dict[str, Array]:
    """Arrays of a stream of integers, with defaults for what is not there."""
    from tokcodec.weights import Weights

    if arrays[INTEGERS].ndim != 4:
        raise ValueError(f"integers are {list(arrays[INTEGERS].shape)}, not [frames, rows, columns, streams]")
    frames, h, w, streams = arrays[INTEGERS].shape
    if "header" in arrays:
        header = _header_of(_bytes(arrays["header"]))
    else:
        bits = int(arrays["bits"].item()) if "bits" in arrays else Profile().bits
        header = Header(
            width=16 * w,
            height=16 * h,
            chunk_frames=max(1, min(CHUNK_FRAMES, MAX_CHUNK_PX // max(1, 256 * h * w))),
            weights_sha256=Weights.find(weights).sha256,
            time_base=Fraction(1, 30),
            frame_rate=Fraction(30),
            profile=checked(bits, streams - 1),
        )
    step, tick = DEFAULT_RATE.fixed_step, 1 / (header.frame_rate * header.time_base) if header.frame_rate else 1
    assert step is not None
    begins = np.arange(0, frames, header.chunk_frames)
    pts = np.array([int(i * tick) for i in range(frames + 1)], np.int64)
    ends = np.minimum(begins + header.chunk_frames, frames)
    return {
        "header": _text(_header_json(header)),
        "metadata": _text(Metadata().pack()),
        "chunks": np.stack([begins, ends - begins], 1),
        "step": np.full(len(begins), round(STEP_UNITS * step), np.uint16),
        "pts": pts[:-1],
        "durations": pts[ends] - pts[ends - 1],
    } | arrays


def _chunks_of_integers(arrays: dict[str, Array], header: Header) -> Iterator[Chunk]:
    from tokcodec.stream.integers import check_ints, encode_chunk

    if header.profile is None:
        raise ValueError("the header is of the default profile, which has no integers")
    ints, (_, h, w) = arrays[INTEGERS], latent_size(1, header.height, header.width)
    for name in ("chunks", "step", "pts", "durations"):
        if arrays[name].dtype.kind not in "iu" or arrays[name].ndim != (2 if name == "chunks" else 1):
            raise ValueError(f"{name} is {arrays[name].dtype} {list(arrays[name].shape)}, not integers as of a stream")
    pts, done = arrays["pts"].tolist(), 0
    facts = zip(arrays["chunks"].tolist(), arrays["step"].tolist(), arrays["durations"].tolist(), strict=True)
    for (frame, frames), step, duration in facts:
        if frame != done or not 1 <= frames <= header.chunk_frames:
            raise ValueError(f"a chunk of {frames} frames begins at {frame} instead of {done}")
        part = ints[frame : frame + frames]
        check_ints(part, header.profile, h, w)
        if len(part) != frames:
            raise ValueError("the chunks have more frames than the integers")
        coded = encode_chunk(part, step, header.profile)
        yield Chunk(frames, coded[0], step, tuple(pts[frame : frame + frames]), duration, *coded[1:])
        done += frames
    if not done == len(pts) == len(ints):
        raise ValueError("the chunks do not use all frames")


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
