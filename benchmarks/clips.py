"""What is measured on: the user's files or a known data set, each made once into a lossless RGB reference.

Every codec gets that reference, so decoding, colour conversion and scaling of the source are nobody's
advantage. Nothing is cropped.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import av

from benchmarks.scoring import Video, pixels_sha256
from benchmarks.tools import ToolError, Tools, run
from tokcodec.io import suffixes

DATASETS = ("davis", "mcl-jcv", "uvg")
SUFFIXES = suffixes.VIDEO | {".yuv"}
DAVIS_FPS = 24


@dataclass(frozen=True)
class Source:
    """A clip as the user has it: how FFmpeg opens it, and the files it is made of."""

    name: str
    dataset: str  # "" for a file named by itself
    open: tuple[str, ...]
    files: tuple[Path, ...]
    matrix: str = "auto"  # colour matrix, where the file cannot say


@dataclass(frozen=True)
class Clip:
    """A prepared reference: FFV1, 8-bit RGB. All of it together is what a measured point says it was measured on."""

    name: str
    dataset: str
    sha256: str  # of the source's files, one after the other
    width: int
    height: int
    frames: int
    fps: str  # "30000/1001"
    prepared: str  # how FFmpeg made it: colour matrix, size, filter, frames at most
    pixels_sha256: str  # of its frames as rgb24

    @property
    def key(self) -> str:
        """Name of everything made from this clip."""
        return f"{self.name}_{self.width}x{self.height}_{self.frames}f"


def file_source(path: Path, dataset: str = "") -> Source:
    """A video file; a raw .yuv tells its size and rate by its name, as `Beauty_1920x1080_120fps_420_8bit_YUV.yuv`."""
    matrix = "bt709" if dataset else "auto"  # both data sets of plain files are BT.709, .y4m and .yuv cannot say so
    if path.suffix.lower() != ".yuv":
        return Source(path.stem, dataset, ("-i", str(path)), (path,), matrix)
    found = re.search(r"_(\d+x\d+)_(\d+)", path.name)
    if not found:
        raise ToolError(f"{path}: a raw file's name must tell its size and rate (name_1920x1080_120fps.yuv)")
    pixels = "yuv420p10le" if re.search(r"10[-_]?bit", path.name, re.IGNORECASE) else "yuv420p"
    layout = ("-f", "rawvideo", "-pix_fmt", pixels, "-video_size", found[1], "-framerate", found[2])
    return Source(path.stem, dataset, (*layout, "-i", str(path)), (path,), matrix)


def dataset_sources(dataset: str, folder: Path) -> list[Source]:
    """The clips of a data set in its usual layout.

    davis: `JPEGImages/<resolution>/<sequence>/00000.jpg`, 480p if there are several; mcl-jcv and uvg: video files
    anywhere below the folder.

    Raises:
        ToolError: there is none.
    """
    if dataset == "davis":
        first = sorted(folder.glob("JPEGImages/480p/*/00000.jpg")) or sorted(folder.glob("**/00000.jpg"))
        sources = [
            Source(
                path.parent.name,
                dataset,
                ("-framerate", str(DAVIS_FPS), "-i", str(path.parent / "%05d.jpg")),
                tuple(sorted(path.parent.glob("*.jpg"))),
            )
            for path in first
        ]
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        sources = [file_source(path, dataset) for path in files]
    if not sources:
        raise ToolError(f"{folder}: no clip of {dataset} here")
    return sources


def prepare(tools: Tools, source: Source, size: tuple[int, int] | None, frames: int, folder: Path) -> tuple[Clip, Path]:
    """Make the reference, or find the one made before.

    Args:
        size: (width, height) to scale to by Lanczos; None keeps the source's.
        frames: how many at most, from the first.

    Raises:
        ToolError: the source cannot be read.
    """
    sha256 = _sha256(source.files)
    target = f"{size[0]}:{size[1]}:" if size else ""
    scale = f"scale={target}in_color_matrix={source.matrix}:flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"
    picture = ["-frames:v", str(frames), "-vf", f"{scale},setsar=1", "-pix_fmt", "bgr0", "-fps_mode", "passthrough"]
    prepared = " ".join(picture)
    name = source.name + (f"_{size[0]}x{size[1]}" if size else "") + f"_{frames}"
    reference, note = folder / f"{name}.mkv", folder / f"{name}.json"
    if reference.exists() and note.exists():
        stored = json.loads(note.read_text())
        if (stored["sha256"], stored.get("prepared")) == (sha256, prepared):
            return Clip(**stored), reference
    folder.mkdir(parents=True, exist_ok=True)
    part = reference.with_suffix(".part")
    head = [tools.ffmpeg, "-v", "error", "-y", *source.open, "-map", "0:v:0"]
    run([*head, *picture, "-c:v", "ffv1", "-level", "3", "-f", "matroska", str(part)])
    with av.open(str(part)) as file:
        video = file.streams.video[0]
        width, height, fps = video.width, video.height, str(video.average_rate)
    pixels, count = pixels_sha256(tools, Video(part, rgb=True), (height, width))
    clip = Clip(source.name, source.dataset, sha256, width, height, count, fps, prepared, pixels)
    note.unlink(missing_ok=True)  # of an older reference
    part.rename(reference)
    note.write_text(json.dumps(asdict(clip)))
    return clip, reference


def _sha256(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from error
    return digest.hexdigest()
