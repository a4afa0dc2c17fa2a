"""What callers may ask for: a mistake of theirs is a ValueError, before anything is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokcodec.io import suffixes


def check_choices(*, crf: float | None = None, counts: Iterable[int | None] = ()) -> None:
    """Refuse what no run can be done with.

    Args:
        crf: of an encoder, 0 to 51, or None.
        counts: of cores, threads, processes: at least 1, or None.

    Raises:
        ValueError: one is out of range; the message says which.
    """
    if crf is not None and not 0 <= crf <= 51:
        raise ValueError(f"crf must be 0 to 51, not {crf:g}")
    for count in counts:
        if count is not None and count < 1:
            raise ValueError(f"cores, threads and jobs are at least 1, not {count}")


def check_stream_name(target: str | Path) -> None:
    """Refuse a name for a stream that says that it is something else: no player would open it.

    Raises:
        ValueError: its suffix is that of a video, an image or an archive of arrays.
    """
    suffix = Path(target).suffix.lower()
    if suffix in suffixes.VIDEO | suffixes.IMAGE | suffixes.ARRAYS:
        raise ValueError(f"{target}: a stream is no {suffix} file; its name ends in {suffixes.STREAM}")
