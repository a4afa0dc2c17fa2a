"""Many files: a folder of videos to a folder of streams, on the cores, the GPUs or the cluster there are.

`run` is all of it in one call. `selection.select` says which files are meant; `driver.Driver` decides what to do next
and keeps the records (resume.py); `units.work` does it, in a worker process (workers.py) or a Ray task (cluster.py);
storage.py knows where files are, pieces.py cuts long ones. This package imports tokcodec, never the reverse.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tokcodec.arguments import check_choices
from tokcodec.batch.cluster import RayTasks
from tokcodec.batch.driver import Driver, Workers
from tokcodec.batch.selection import Which
from tokcodec.batch.storage import Tree
from tokcodec.batch.summary import Note, Summary
from tokcodec.batch.units import Settings
from tokcodec.batch.workers import local_workers
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import TokcodecError
from tokcodec.io import suffixes
from tokcodec.rate import DEFAULT_RATE, Rate
from tokcodec.restorer.device import pick_device
from tokcodec.stream.profile import Profile
from tokcodec.weights import Weights, find_weights

__all__ = ["Crew", "Decode", "Encode", "Note", "Summary", "Which", "run"]

PIECE_CHUNKS = 32  # of a long file, where there are several workers
CONTAINERS = ("mp4", "mkv", "mov")

OnFile = Callable[[Note, Summary], None]


@dataclasses.dataclass(frozen=True)
class Encode:
    """Videos to streams.

    Attributes:
        rate: what to spend on every file.
        profile: of the streams; None is the default one.
        deinterlace: make whole frames of the fields of interlaced video, as `Filters` says.
        verify: read every stream back before it counts as done.
        delete_source: delete each source after its stream is verified and on the disk.
    """

    rate: Rate = DEFAULT_RATE
    profile: Profile | None = None
    deinterlace: bool = False
    verify: bool = False
    delete_source: bool = False


@dataclasses.dataclass(frozen=True)
class Decode:
    """Streams to videos.

    Attributes:
        to: their kind: "mp4", "mkv" or "mov".
        crf: of their H.264, 0 (best) to 51.

    Raises:
        ValueError: one is unknown or out of range.
    """

    to: str = "mp4"
    crf: float = 12.0

    def __post_init__(self) -> None:
        if self.to not in CONTAINERS:
            raise ValueError(f"to must be one of {', '.join(CONTAINERS)}, not {self.to!r}")
        check_choices(crf=self.crf)


@dataclasses.dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        jobs: worker processes; None for one for two cores, or one a GPU for what the network is needed for (decoding,
            a target of quality); 1 works in this process.
        ray: instead, address of a Ray cluster; "" finds or starts one.
        piece_chunks: chunks that long files are cut into for several workers; 0 for never; None for 32 where there
            are several workers.

    Raises:
        ValueError: both jobs and ray are given, or a number is out of range.
    """

    jobs: int | None = None
    ray: str | None = None
    piece_chunks: int | None = None

    def __post_init__(self) -> None:
        if self.ray is not None and self.jobs is not None:
            raise ValueError("give one of jobs and ray")
        check_choices(counts=[self.jobs])
        if (self.piece_chunks or 0) < 0:
            raise ValueError("piece_chunks are at least 0")

    def start(self, compute: Compute, device: str) -> Workers:
        """The workers, with the threads of `compute`, on a device.

        Raises:
            ModelError: there is no such device.
            TokcodecError: there is no cluster.
        """
        if self.ray is not None:
            return RayTasks(self.ray, compute.threads or 1, device)
        if compute.device == "cuda":
            pick_device(compute.device)  # to fail once, not for every file
        return local_workers(self.jobs, compute.threads, device)


def run(
    source: str | Path,
    target: str | Path,
    task: Encode | Decode | None = None,
    *,
    which: Which | None = None,
    crew: Crew | None = None,
    retries: int = 1,
    overwrite: bool = False,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    log: str | Path | None = None,
    dry_run: bool = False,
    progress: OnFile | None = None,
    coding: Callable[[int, Summary], None] | None = None,
) -> Summary:
    """Encode a tree of videos: source/a/b.mp4 to target/a/b.tokc, or back with `Decode`.

    What a run before has finished is skipped, so an interrupted one goes on where it was: a file is finished when its
    source (size and time of change), its settings and the size of its output are those of the record in
    `target/.tokcodec`. Any number of workers makes the same bytes, given the same device and dtype. Several runs may
    share a local target; each file is coded by one of them. A script that has several workers needs
    `if __name__ == "__main__":` around its call, as always with processes in Python.

    Args:
        source: a folder, or a URL that fsspec knows (s3://bucket/videos); also target, which is made if absent.
        task: what is done to each file; None for `Encode()`.
        which: the files; None for all of the usual kinds.
        crew: who does it; None for worker processes on this machine.
        retries: how often a file that fails is tried again.
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
        ValueError: `retries` is less than 0.
    """
    task, which, crew = task or Encode(), which or Which(), crew or Crew()
    if retries < 0:
        raise ValueError("retries are at least 0")
    settings = _settings(task, weights, compute)
    tree = Tree(str(source))
    selection = which.of(tree.items(), {suffixes.STREAM} if settings.decode else suffixes.VIDEO)
    with contextlib.ExitStack() as stack:
        settled = progress if log is None or dry_run else stack.enter_context(_logged(Path(log), progress))
        workers: Workers | None = None
        if not dry_run:
            needs_network = settings.decode or settings.rate.is_of_quality
            workers = crew.start(compute, compute.device if needs_network else "cpu")
            stack.callback(workers.close)
            pieces = (PIECE_CHUNKS if workers.limit > 1 else 0) if crew.piece_chunks is None else crew.piece_chunks
            settings = dataclasses.replace(settings, piece_chunks=0 if settings.decode else pieces)
        driver = Driver(
            tree,
            Tree(str(target)),
            settings,
            retries=retries,
            overwrite=overwrite,
            delete_source=isinstance(task, Encode) and task.delete_source,
            settled=settled,
            coding=coding,
        )
        return driver.plan(selection) if workers is None else driver.run(selection, workers)


def _settings(task: Encode | Decode, weights: str | Path | None, compute: Compute) -> Settings:
    """How every file is coded.

    Raises:
        ModelError: the weights cannot be used.
    """
    path = None if weights is None else Path(weights).absolute()
    if isinstance(task, Decode):
        return Settings(decode=True, suffix=f".{task.to}", crf=task.crf, weights=path, compute=compute)
    return Settings(
        rate=task.rate,
        profile=task.profile,
        deinterlace=task.deinterlace,
        weights=path,
        weights_sha256=Weights.load(find_weights(weights)).sha256,
        compute=compute,
        verify=task.verify or task.delete_source,
    )


@contextlib.contextmanager
def _logged(path: Path, progress: OnFile | None) -> Iterator[OnFile]:
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
