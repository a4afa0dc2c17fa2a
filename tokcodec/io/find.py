"""The streams that a file, a folder or several of them hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokcodec.errors import TokcodecError
from tokcodec.io import suffixes


def find_streams(sources: str | Path | Iterable[str | Path]) -> Iterator[tuple[str, Path]]:
    """Streams by name.

    Args:
        sources: a file, a folder that holds .tokc files at any depth (hidden ones are left out), or several of them.

    Yields:
        A name and a path, in order: the file's name, or its path below its folder, with slashes and without the suffix.

    Raises:
        TokcodecError: there is no source, one is not there, or a folder holds no stream.
    """
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    if not sources:
        raise TokcodecError("no stream is given")
    for source in sources:
        top, found = Path(source), [Path(source)]
        if not top.exists():
            raise TokcodecError(f"{source}: no such file or folder")
        if top.is_dir():
            below = [path for path in sorted(top.rglob(f"*{suffixes.STREAM}")) if path.is_file()]
            found = [p for p in below if not any(part.startswith(".") for part in p.relative_to(top).parts)]
            if not found:
                raise TokcodecError(f"{source}: holds no stream (*{suffixes.STREAM})")
        for path in found:
            name = path.relative_to(top) if path != top else Path(path.name)
            yield name.with_suffix("").as_posix(), path
