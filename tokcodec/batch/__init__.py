"""Many files: a folder of videos to a folder of streams, on the cores, the GPUs or the cluster there are.

`run` is all of it in one call. `selection.select` says which files are meant; `driver.Batch` decides what to do next
and keeps the books (books.py); `units.work` does it, in a worker process (workers.py) or a Ray task (cluster.py);
storage.py knows where files are, pieces.py cuts long ones. This package imports tokcodec, never the reverse.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from tokcodec.arguments import check_choices
from tokcodec.batch.cluster import RayTasks
from tokcodec.batch.driver import Batch, Workers
from tokcodec.batch.selection import select
from tokcodec.batch.storage import Item, Tree
from tokcodec.batch.summary import Note, Summary
from tokcodec.batch.units import Settings
from tokcodec.batch.workers import local_workers
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import TokcodecError
from tokcodec.io import suffixes as known
from tokcodec.rate import DEFAULT_RATE, Rate
from tokcodec.restorer.device import pick_device
from tokcodec.stream.profile import Profile
from tokcodec.weights import Weights, find_weights

__all__ = ["Note", "Summary", "run"]

PIECE_CHUNKS = 64  # of a long file, where there are several workers
CONTAINERS = ("mp4", "mkv", "mov")

Progress = Callable[[Note, Summary], None]


def run(
    source: str | Path,
    target: str | Path,
    *,
    decode: bool = False,
    rate: Rate | None = None,
    profile: Profile | None = None,
    deinterlace: bool = False,
    to: str = "mp4",
    crf: float = 12.0,
    globs: Sequence[str] = (),
    suffixes: Collection[str] = (),
    names: Iterable[str] | None = None,
    shard: tuple[int, int] = (1, 1),
    jobs: int | None = None,
    ray: str | None = None,
    piece_chunks: int | None = None,
    retries: int = 1,
    verify: bool = False,
    delete_source: bool = False,
    overwrite: bool = False,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    log: str | Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    coding: Callable[[int, Summary], None] | None = None,
) -> Summary:
    """Encode a tree of videos: source/a/b.mp4 to target/a/b.tokc, or back with `decode`.

    What a run before has finished is skipped, so an interrupted one goes on where it was: a file is finished when its
    source (size and time of change), its settings and the size of its output are those of the record in
    `target/.tokcodec`. Any number of workers makes the same bytes, given the same device and dtype. Several runs may
    share a local target; each file is coded by one of them. A script that has several workers needs
    `if __name__ == "__main__":` around its call, as always with processes in Python.

    Args:
        source: a folder, or a URL that fsspec knows (s3://bucket/videos); also target, which is made if absent.
        decode: streams to videos.
        rate: what to spend on every file; quality 4 by default. Not with `decode`.
        profile: of the streams; None is the default one. Not with `decode`.
        deinterlace: make whole frames of the fields of interlaced video, as `Filters` says. Not with `decode`.
        to: with `decode`, the kind of the videos: "mp4", "mkv" or "mov"; crf of their H.264, 0 (best) to 51.
        globs: only names that match one of these, as `a/*.mp4`; `*` matches slashes, too.
        suffixes: only files that end so, with or without the dot; the usual ones of videos by default.
        names: only these files, relative to the source.
        shard: (i, n), i from 1: only the i-th of n parts of the tree, always the same files.
        jobs: worker processes; None for one for two cores, or one a GPU for what the network is needed for (`decode`,
            a target of quality); 1 works in this process.
        ray: instead, address of a Ray cluster; "" finds or starts one.
        piece_chunks: chunks that long files are cut into for several workers; 0 for never; None for 64 where there
            are several workers.
        retries: how often a file that fails is tried again.
        verify: read every stream back before it counts as done. Not with `decode`.
        delete_source: delete each source after its stream is verified and on the disk. Not with `decode`.
        overwrite: also replace outputs that no batch has made, or one made from a file of the same name in another
            tree; never one whose source had another name or was deleted.
        weights: safetensors file; the released ones if None.
        compute: device, arithmetic and restorer; threads are those of each worker, None divides the cores among them
            (on Ray: 1).
        log: file to which the note of each file is appended as a line of JSON.
        dry_run: only say what would be done: every file gets a note, "planned", "skipped", "finished" or "failed", and
            nothing is written, not even the log.
        progress: called after each file with its note and the summary so far, which goes on changing.
        coding: called as frames are coded, in any thread, one call at a time, with how many are so far, those of files
            under way too, and the same summary. On Ray only whole files count.

    Returns:
        What became of the files. One that failed is in it and does not stop the others.

    Raises:
        TokcodecError: there is no such source, the target or the log cannot be written, no worker can be started, or
            the weights cannot be used.
        ValueError: arguments that do not fit together.
    """
    if decode and (rate is not None or profile or deinterlace or verify or delete_source):
        raise ValueError("rate, profile, deinterlace, verify and delete_source are for streams, not for decode")
    if ray is not None and jobs is not None:
        raise ValueError("give one of jobs and ray")
    if to not in CONTAINERS:
        raise ValueError(f"to must be one of {', '.join(CONTAINERS)}, not {to!r}")
    check_choices(crf=crf, counts=[jobs])
    if retries < 0 or (piece_chunks or 0) < 0:
        raise ValueError("retries and piece_chunks are at least 0")
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard must be (i, n) with i from 1 to n, not {shard}")
    settings = Settings(
        decode=decode,
        suffix=f".{to}" if decode else known.STREAM,
        rate=rate or DEFAULT_RATE,
        profile=profile,
        deinterlace=deinterlace,
        crf=crf,
        weights=None if weights is None else Path(weights).absolute(),
        weights_sha256=None if decode else Weights.load(find_weights(weights)).sha256,
        compute=compute,
        verify=verify or delete_source,
    )
    tree = Tree(str(source))
    items = tree.items()
    wanted = {f".{suffix.lower().lstrip('.')}" for suffix in suffixes} or ({known.STREAM} if decode else known.VIDEO)
    paths = None if names is None else dict.fromkeys(map(posixpath.normpath, names))
    named = items.values() if paths is None else [items.get(path, Item(path, -1, "")) for path in paths]
    selection = select(named, wanted, globs, shard)
    with contextlib.ExitStack() as stack:
        settled = progress if log is None or dry_run else stack.enter_context(_logged(Path(log), progress))
        crew: Workers | None = None
        if not dry_run:
            if compute.device == "cuda" and ray is None:
                pick_device(compute.device)  # to be told once, not of every file
            where = compute.device if decode or settings.rate.is_of_quality else "cpu"  # the rest has no use for a GPU
            crew = (
                local_workers(jobs, compute.threads, where)
                if ray is None
                else RayTasks(ray, compute.threads or 1, where)
            )
            stack.callback(crew.close)
            if not decode:
                several = PIECE_CHUNKS if crew.limit > 1 else 0
                settings = dataclasses.replace(settings, piece_chunks=several if piece_chunks is None else piece_chunks)
        batch = Batch(
            tree,
            Tree(str(target)),
            settings,
            retries=retries,
            overwrite=overwrite,
            delete_source=delete_source,
            settled=settled,
            coding=coding,
        )
        return batch.plan(selection) if crew is None else batch.run(selection, crew)


@contextlib.contextmanager
def _logged(path: Path, progress: Progress | None) -> Iterator[Progress]:
    """A callback that appends notes to a file, and calls the other one."""

    def failed(error: OSError) -> TokcodecError:
        return TokcodecError(f"{path}: cannot write: {error.strerror or error}")

    def settled(note: Note, summary: Summary) -> None:
        try:
            file.write(json.dumps(dataclasses.asdict(note)).encode() + b"\n")
        except OSError as error:
            raise failed(error) from error
        if progress is not None:
            progress(note, summary)

    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise failed(error) from error
    with file:
        yield settled
