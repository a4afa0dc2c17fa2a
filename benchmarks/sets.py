"""What README and the page of the benchmark quote: sets of clips, with their size, codecs and settings.

`python -m benchmarks.run CLIPS --set long-360p` measures one of them, into a folder of its own below `--out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.codecs import FAST, LFQ, LOOP


@dataclass(frozen=True)
class ClipSet:
    """Clips of one size and length by some codecs.

    Attributes:
        what: for people.
        size: (width, height) that all are scaled to.
        frames: of each clip at most, from the first.
        rates: the settings of each codec, finest first.
        names: of the clips, without suffix; without any all that are given.
    """

    what: str
    size: tuple[int, int]
    frames: int
    rates: Mapping[str, tuple[int, ...]]
    names: tuple[str, ...] = ()


_STEPS = (48, 72, 112, 160, 240, 360)
_SHORT = {
    "tokcodec": _STEPS,
    FAST: _STEPS,
    LOOP: _STEPS,
    LFQ: _STEPS,
    "hevc-medium": (28, 34, 40, 46, 51),
    "hevc-ra": (28, 34, 40, 46),
    "hevc-visual": (28, 34, 40, 46),
    "hevc-ld": (28, 34, 40, 46),
    "vvc-ra": (32, 37, 42, 47),
    "vvc-visual": (32, 37, 42, 47, 52),
    "av1": (40, 48, 56, 63),
}
_LONG = {
    "tokcodec": _STEPS[:-1],
    FAST: _STEPS[:-1],
    LOOP: _STEPS[:-1],
    "hevc-medium": (28, 34, 40, 46, 51),
    "hevc-visual": (28, 34, 40, 46, 51),
    "vvc-visual": (32, 37, 42, 47, 52),
    "av1": (40, 48, 56, 63),
}
LONG_FRAMES = 300  # a chunk has 257: a border lies inside
LARGE_FRAMES = 150  # no border: at 1280x720 each takes four times as long
SETS = {
    "eval-360p": ClipSet("the first 64 frames of every clip, 640x360", (640, 360), 64, _SHORT),
    "long-360p": ClipSet(
        "four clips of up to 300 frames, 640x360",
        (640, 360),
        LONG_FRAMES,
        _LONG,
        ("01_dog", "02_cups", "flower", "max-heromode"),
    ),
    "long-720p": ClipSet("two clips of 150 frames, 1280x720", (1280, 720), LARGE_FRAMES, _LONG, ("01_dog", "02_cups")),
}
