"""Tags, language, name, chapters and edits of a video, as values and as the JSON of the META record."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NoReturn

from tokcodec.errors import BitstreamError
from tokcodec.stream.records import MAX_TICKS

MAX_METADATA_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Chapter:
    """A named span. Raises ValueError if its ends are no ticks from -2^62 to 2^62 in order."""

    start: int  # ticks of the header's time base
    end: int  # ticks, not before the start
    title: str = ""

    def __post_init__(self) -> None:
        if type(self.start) is not int or type(self.end) is not int:  # bool is an int as well
            raise ValueError("a chapter's ends are not integers")
        if not -MAX_TICKS <= self.start <= self.end <= MAX_TICKS:
            raise ValueError(f"a chapter goes from {self.start} to {self.end}")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What the source's container says of the video, and which of its frames are shown.

    Raises ValueError if something in it is no text, spans are no ticks in order, or all of it takes more than 1 MiB.
    """

    tags: dict[str, str] = dataclasses.field(default_factory=dict)  # "title", "artist", ...
    language: str = ""  # of the video, as the source names it; "" is unknown
    chapters: tuple[Chapter, ...] = ()
    name: str = ""  # of the video among the streams of the source
    shown: tuple[tuple[int, int], ...] = ()  # [begin, end) in ticks: only frames in these are shown; empty for all

    def __post_init__(self) -> None:
        edges = [tick for span in self.shown for tick in span]
        if any(type(tick) is not int or abs(tick) > MAX_TICKS for tick in edges):
            raise ValueError("a span that is shown has ends that are no ticks")
        if any(begin >= end for begin, end in self.shown) or edges != sorted(edges):
            raise ValueError("the spans that are shown are not in order")
        texts = [*self.tags, *self.tags.values(), self.language, self.name, *(c.title for c in self.chapters)]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("metadata holds something that is no text")
        if len(self.pack()) > MAX_METADATA_BYTES:  # half a surrogate pair in a text is a ValueError as well
            raise ValueError(f"metadata takes more than {MAX_METADATA_BYTES} bytes")

    def cut(self, begin: int | None, end: int | None, shift: int) -> Metadata:
        """That of a part of the video: chapters with a tick in [begin, end), cut to it and moved by `shift`.

        None is no limit. What would end beyond the clock ends with it.
        """

        def moved(ticks: int) -> int:
            return max(-MAX_TICKS, min(ticks + shift, MAX_TICKS))

        begin, end = -MAX_TICKS if begin is None else begin, MAX_TICKS + 1 if end is None else end
        parts = [
            Chapter(moved(max(chapter.start, begin)), moved(min(chapter.end, end)), chapter.title)
            for chapter in self.chapters
            if chapter.start < end and (chapter.end > begin or chapter.start == chapter.end == begin)
        ]
        return dataclasses.replace(self, chapters=tuple(parts))

    def pack(self) -> bytes:
        """Payload of the META record: JSON in UTF-8, without what is empty."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if value}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def unpack(cls, payload: bytes) -> Metadata:
        """The inverse of `pack`; BitstreamError if it is no such JSON. Keys it does not know are ignored."""
        try:
            fields = _object(json.loads(payload.decode(), object_pairs_hook=_unique, parse_constant=_refuse))
            tags, chapters = _object(fields.get("tags", {})), fields.get("chapters", [])
            if not isinstance(chapters, list):
                raise ValueError("chapters are not a list")
            parts = tuple(_chapter(_object(item)) for item in chapters)
            shown = tuple((begin, end) for begin, end in fields.get("shown", []))
            return cls(tags, fields.get("language", ""), parts, fields.get("name", ""), shown)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BitstreamError(f"the metadata is malformed: {error}") from error


def _chapter(item: dict[str, Any]) -> Chapter:
    return Chapter(item["start"], item["end"], item["title"])


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("something that should be an object is not")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return dict(pairs)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
