"""Payloads of coder 0: numbers of fixed length under zstd."""

from __future__ import annotations

import zstandard

from tokcodec.errors import BitstreamError

LEVEL = 3  # of compression
WINDOW = 1 << 23  # bytes, at most: what a decoder holds
PIECE = 256  # bytes of a payload that are read at once: they can stand for 8 MiB


class PlainWriter:
    """Writes a zstd payload."""

    def __init__(self) -> None:
        self._done, self._compressor = b"", zstandard.ZstdCompressor(LEVEL).compressobj()

    def write(self, data: bytes) -> None:
        self._done += self._compressor.compress(data)

    def finish(self) -> bytes:
        """The payload, when all is written."""
        return self._done + self._compressor.flush()


class PlainReader:
    """Reads a zstd payload of any origin, hardly further than it is asked for. What is wrong raises BitstreamError."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._at, self._held = payload, 0, bytearray()
        self._source = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()

    def _hold(self, count: int) -> None:
        try:
            while len(self._held) < count and self._at < len(self._payload) and not self._source.eof:
                piece = self._payload[self._at : self._at + PIECE]
                self._held += self._source.decompress(piece)
                self._at += len(piece)
        except zstandard.ZstdError as error:
            raise BitstreamError(f"a zstd payload is damaged: {error}") from error

    def read(self, count: int) -> bytes:
        self._hold(count)
        if len(self._held) < count:
            raise BitstreamError("a zstd payload is too short")
        data = bytes(self._held[:count])
        del self._held[:count]
        return data

    def finish(self) -> None:
        """Refuse a payload that does not end here."""
        self._hold(1)
        if self._held or not self._source.eof or self._source.unused_data or self._at < len(self._payload):
            raise BitstreamError("a zstd payload does not end where its frames do")
