"""Passes over a video: each codes every chunk once, several chunks at a time, each in a thread of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from tokcodec.codec.chunking import Clip, clips_of
from tokcodec.pipeline import Helpers, in_background, in_parallel
from tokcodec.report import Progress
from tokcodec.stream.container import Rest, Writer, no_rest, write_stream
from tokcodec.stream.records import Chunk, Header
from tokcodec.tokenizer import Tokenizer
from tokcodec.video import VideoInfo, VideoReader


class Counter:
    """How far a pass over a video is; `progress` hears it from several threads, one at a time."""

    def __init__(self, progress: Progress | None, info: VideoInfo) -> None:
        self._progress, self._total, self._frame_px = progress, info.frames, info.width * info.height
        self._lock = threading.Lock()
        self._coded = 0.0  # frames
        self._written = 0, 0  # frames and bytes of the chunks that are
        self._tell()

    def coded(self, frames: float) -> None:
        """So many frames more are coded."""
        with self._lock:
            self._coded += frames
            self._tell()

    def written(self, writer: Writer) -> None:
        """A chunk more is written."""
        with self._lock:
            self._written = sum(entry.frames for entry in writer.index), writer.bytes

    def end(self) -> None:
        """All frames are: what was promised of their number is of no matter."""
        with self._lock:
            self._total = int(self._coded + 0.5)
            self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            frames, (written, size) = int(self._coded + 1e-6), self._written
            total = None if self._total is None else max(self._total, frames)
            self._progress(frames, size * frames // written if written else 0, total, self._frame_px)


@dataclasses.dataclass(frozen=True)
class Passes:
    """A video that can be coded several times.

    Attributes:
        name: of the source, for messages.
        readers: of the source, one a pass, each opened when it is taken.
        info: what the source says of the video.
        header: of the stream.
        tokenizer: codes the chunks.
        spans: frames of all spans; None chooses them by content.
        workers: chunks that are coded at once.
        helpers: threads that take over parts of a chunk's work; None for none.
        rest: gives metadata and other streams, once a pass has read all frames.
        keep: whether chunks come with their pictures.
        progress: as for `encode_video`.
    """

    name: str
    readers: Iterator[VideoReader]
    info: VideoInfo
    header: Header
    tokenizer: Tokenizer
    spans: int | None
    workers: int
    helpers: Helpers | None
    rest: Callable[[], Rest]
    keep: bool
    progress: Progress | None

    def run(
        self, target: BinaryIO, code: Callable[[Clip, Counter], Chunk], rest: Callable[[], Rest] = no_rest
    ) -> Writer:
        """Code the video once.

        Args:
            target: where the stream goes.
            code: codes a chunk, in one of several threads, and tells the counter of its progress.
            rest: gives what stands behind the chunks.
        """
        counter = Counter(self.progress, self.info)
        clips = in_background(clips_of(next(self.readers), self.header.chunk_frames, self.keep), 0)
        coded = in_parallel(lambda clip: code(clip, counter), clips, self.workers)
        with contextlib.closing(clips), contextlib.closing(coded) as chunks:
            writer = write_stream(target, self.header, chunks, rest, counter.written)
        counter.end()
        return writer
