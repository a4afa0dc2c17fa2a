"""Two videos against each other, frame by frame: files of any kind, or streams."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokcodec import video
from tokcodec.compute import AUTO, Compute
from tokcodec.dtypes import Frames
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.io.output import replacing, replacing_pattern
from tokcodec.report import Progress
from tokcodec.scoring.goals import LPIPS_SIDE
from tokcodec.scoring.scores import THUMB, SyncCheck, SyncError, frame_scores, mse_of, summary
from tokcodec.scoring.stability import Stability, stability
from tokcodec.scoring.vmaf import DEFAULT_FPS, MS_SSIM_SIDE, ffmpeg_has, find_ffmpeg, scoring
from tokcodec.stream.records import MAGIC
from tokcodec.stream_reader import open_stream

if TYPE_CHECKING:
    from torch import nn

    from tokcodec.video.info import VideoInfo

log = logging.getLogger("tokcodec")

HOTTEST = 64  # mean absolute error of a pixel, in levels, that is white in a heat map

Pairs = Iterator[tuple[Frames, Frames]]
Picture = Callable[[Frames, Frames], Frames]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How near a video is to its reference.

    Attributes:
        frames: how many were compared: all.
        width, height: of a frame in pixels, as coded.
        scores: by the names of `scores.METRICS`: "mean", "p5" and "p95" (percentiles over frames), "frames" (of each).
        stability: how even it is in time, from the PSNR of its frames. The chunks are those of a stream; a video of
            another kind counts as one.
        shift: "late" or "early" if the video shows clearly the neighbours of the reference's frames, else None.
    """

    frames: int
    width: int
    height: int
    scores: dict[str, dict[str, Any]]
    stability: Stability
    shift: str | None


@contextlib.contextmanager
def _opened(
    source: Path, weights: Path | None, compute: Compute
) -> Iterator[tuple[VideoInfo, Iterator[tuple[Frames, int]], list[int]]]:
    """A video: its shape and clock, its frames with their timestamps, and the numbers of those that begin a chunk."""
    if source.is_file():
        with source.open("rb") as file:
            is_stream = file.read(len(MAGIC)) == MAGIC
    else:
        is_stream = False
    if is_stream:
        with open_stream(source, weights=weights, compute=compute) as stream:
            header, (*borders, _) = stream.header, itertools.accumulate(chunk.frames for chunk in stream.chunks)
            count = stream.count()
            info = video.VideoInfo(header.width, header.height, header.time_base, header.frame_rate, frames=count)
            info = dataclasses.replace(
                info,
                sample_aspect=header.sample_aspect or info.sample_aspect,
                rotation=90 * header.rotation,
                mirrored=header.mirrored,
            )
            with contextlib.closing(stream.frames()) as frames:
                yield info, ((frame, pts) for frame, pts, _ in frames), borders
    else:
        with video.VideoReader(source) as reader:
            yield reader.info, iter(reader), []


class _Unsynced(SyncCheck):
    """Of frames that have no block to compare."""

    def update(self, reference: Frames, decoded: Frames) -> None:
        pass


def _judges(
    lpips_dir: Path | None, st_lpips: bool, height: int, width: int, missing: dict[str, str]
) -> dict[str, nn.Module]:
    """LPIPS, and ST-LPIPS if asked for, on a GPU if there is one; without what cannot be had, with a warning or in
    `missing`."""
    import torch

    from tokcodec.scoring.perceptual import load_lpips
    from tokcodec.scoring.stlpips import STLPIPS_SIDE, load_stlpips

    judges: dict[str, nn.Module] = {}
    loaders: list[tuple[str, str, int, Callable[[], nn.Module]]] = [
        ("lpips_alex", "LPIPS", LPIPS_SIDE, lambda: load_lpips("alex", lpips_dir)),
        ("stlpips_vgg", "ST-LPIPS", STLPIPS_SIDE, lambda: load_stlpips(lpips_dir)),
    ]
    for name, label, side, load in loaders[: 1 + st_lpips]:
        if min(height, width) < side:
            log.warning("left out: %s needs %d pixels a side", label, side)
            continue
        if name == "lpips_alex" and not all(map(importlib.util.find_spec, ("lpips", "torchvision"))):
            missing["LPIPS"] = "lpips"
            continue
        try:
            judges[name] = load().to("cuda" if torch.cuda.is_available() else "cpu")
        except ModelError as error:
            log.warning("left out: %s", error)
    return judges


def _vmaf_program(height: int, width: int, missing: dict[str, str]) -> str | None:
    """An FFmpeg with VMAF; None, with a warning or in `missing`, if there is none."""
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        missing["VMAF, MS-SSIM, XPSNR"] = "imageio-ffmpeg"
        return None
    if "libvmaf" not in ffmpeg_has(ffmpeg, "filters"):
        log.warning(
            "left out: VMAF, MS-SSIM and XPSNR, for %s has no libvmaf; let $TOKCODEC_FFMPEG name one that has", ffmpeg
        )
        return None
    if min(height, width) < MS_SSIM_SIDE:
        log.warning("left out: MS-SSIM needs %d pixels a side", MS_SSIM_SIDE)
    return ffmpeg


def heat(true: Frames, seen: Frames) -> Frames:
    """A picture of the error, uint8 `[H, W, 3]` all: from black (none) over red and yellow to white (64 levels)."""
    error = np.abs(seen.astype(np.int16) - true).mean(2, dtype=np.float32)
    share = np.sqrt(error / HOTTEST)  # the root, so that small errors can be seen
    picture: Frames = (np.clip(3 * share[..., None] - np.arange(3), 0, 1) * 255).astype(np.uint8)
    return picture


def doubled(shown: VideoInfo) -> VideoInfo:
    """A video of twice the width, as shown."""
    if shown.rotation % 180:
        return dataclasses.replace(shown, height=2 * shown.height)
    return dataclasses.replace(shown, width=2 * shown.width)


def joined_view(shown: VideoInfo, left: Frames, right: Frames) -> Frames:
    """Two frames as one of `doubled`: side by side when that is mirrored and turned as `shown` says."""
    axis = 1 - shown.rotation // 90 % 2
    if (shown.rotation in (90, 180)) != (shown.mirrored and axis == 1):
        left, right = right, left
    return np.concatenate([left, right], axis)


def _tell(progress: Progress, total: int | None, frame_px: int, done: int, is_end: bool) -> None:
    progress(done, 0, done if is_end else total and max(total, done), frame_px)


def _pairs(
    sources: list[Path],
    true_frames: Iterator[tuple[Frames, int]],
    seen_frames: Iterator[tuple[Frames, int]],
    outputs: list[tuple[video.VideoWriter, Picture]],
    tell: Callable[[int, bool], None] | None,
) -> Pairs:
    """The frames of two videos that meet by number; pictures of them go to `outputs` on the way.

    `tell` is called with the frames done, and whether they are all.

    Raises:
        SyncError: one has fewer frames.
    """
    done = 0
    for a, b in itertools.zip_longest(true_frames, seen_frames):
        if a is None or b is None:
            raise SyncError(f"{sources[a is not None]}: has {done} frames, fewer than the other")
        for writer, picture in outputs:
            writer.write(picture(a[0], b[0]), a[1])
        yield a[0], b[0]
        done += 1
        if tell is not None:
            tell(done, False)
    if tell is not None:
        tell(done, True)


def compare(
    reference: str | Path,
    seen: str | Path,
    *,
    side_by_side: str | Path | None = None,
    heatmap: str | Path | None = None,
    overwrite: bool = False,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    lpips_dir: str | Path | None = None,
    st_lpips: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Score a video against its reference. Frames meet by number, not by timestamp; memory does not grow with length.

    PSNR, temporal PSNR, ghosts, LPIPS and ST-LPIPS are of 8-bit RGB; VMAF, VMAF NEG, MS-SSIM and XPSNR of 8-bit BT.709
    4:2:0. LPIPS needs its backbone, the latter an FFmpeg program with libvmaf; what cannot be had is left out, with a
    warning.

    Args:
        reference, seen: videos that FFmpeg reads, "-" for one from stdin, or .tokc streams.
        side_by_side: video to write: the reference left, the other right.
        heatmap: video to write: where the two differ, and how much.
        overwrite: replace these if they exist.
        weights: of streams, as for `open_stream`.
        compute: their device, arithmetic and restorer; threads also of FFmpeg.
        lpips_dir: folder of LPIPS backbones, as for `load_lpips`.
        st_lpips: also ST-LPIPS (VGG-16) of every fifth frame, which takes seconds a frame on a CPU; it needs the
            package stlpips-pytorch, or its `vgg_shift_tolerant.pth` in `lpips_dir`.
        progress: is called with frames done, 0, frames in all or None, and pixels of a frame.

    Raises:
        SyncError: one has fewer frames.
        TokcodecError: one cannot be read, they differ in size, or an output cannot be written.
    """
    sources = [Path(reference), Path(seen)]
    chosen = None if weights is None else Path(weights)
    found: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        (info, true_frames, _), (other, seen_frames, borders) = (
            stack.enter_context(_opened(source, chosen, compute)) for source in sources
        )
        height, width = info.height, info.width
        sync = SyncCheck() if min(height, width) >= THUMB else _Unsynced()
        if (height, width) != (other.height, other.width):
            raise TokcodecError(
                f"{seen}: {other.width}x{other.height} cannot be compared with {width}x{height} of {reference}"
            )
        clock = video.VideoInfo(
            width, height, info.time_base, info.frame_rate, info.sample_aspect, info.rotation, mirrored=info.mirrored
        )
        outputs: list[tuple[video.VideoWriter, Picture]] = [
            (stack.enter_context(_writer(Path(path), shape, sources, overwrite)), picture)
            for path, shape, picture in (
                (side_by_side, doubled(clock), functools.partial(joined_view, clock)),
                (heatmap, clock, heat),
            )
            if path is not None
        ]
        tell = progress and functools.partial(_tell, progress, info.frames or other.frames, height * width)
        scored = _pairs(sources, true_frames, seen_frames, outputs, tell)
        missing: dict[str, str] = {}  # scores, and the packages that bring them
        if (ffmpeg := _vmaf_program(height, width, missing)) is not None:
            scored = scoring(ffmpeg, scored, (height, width), found, info.frame_rate or DEFAULT_FPS, compute.threads)
        judges = _judges(None if lpips_dir is None else Path(lpips_dir), st_lpips, height, width, missing)
        if missing:
            log.warning("left out: %s; pip install %s", ", ".join(missing), " ".join(missing.values()))
        with contextlib.closing(scored):  # type: ignore[type-var]
            found |= frame_scores(scored, judges, sync)
    scores = {name: summary(frames) for name, frames in found.items() if frames}
    even = stability([mse_of(psnr) for psnr in found["psnr_rgb_db"]], borders)
    return Comparison(len(found["psnr_rgb_db"]), width, height, scores, even, sync.shift())


@contextlib.contextmanager
def _writer(target: Path, info: VideoInfo, sources: list[Path], overwrite: bool) -> Iterator[video.VideoWriter]:
    kind = video.kind_of(target)
    is_pattern = video.is_pattern(target)
    with (
        replacing_pattern(target, overwrite) if is_pattern else replacing(target, sources, overwrite) as partial,
        video.VideoWriter(partial, info, format=kind, name=str(target)) as writer,
    ):
        yield writer
