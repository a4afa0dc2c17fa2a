"""Fade, pop and pulse of every measured point, and the table of them at equal bytes.

They come from the PSNR of the frames that a point holds. On each clip all codecs are judged by the borders of
tokcodec's chunks, on the same frames.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from benchmarks.bdrate import at_rate
from benchmarks.points import Point
from benchmarks.tables import OURS, Points, Table, codecs_of, named, ours_by_step
from tokcodec.scoring.scores import METRICS, mse_of
from tokcodec.scoring.stability import stability

Values = dict[str, float | None]  # None stands for what the clip is too short for, or was not measured
MEASURES = {"fade_db": "fade, dB", "pop": "pop", "pulse_db": "pulse, dB"}
NOTE = (
    "Fade: PSNR of frames 2 to 17 of a chunk less that of its last 16. Pop: the largest change of the error where a "
    "chunk begins, over the median change; without a border that of all frames. Pulse: PSNR of every 2nd, 4th, 8th or "
    "16th frame less that of those around it, of the period that has most. Lower is better. All by the borders of "
    "tokcodec's chunks; the others are interpolated, clip by clip, at the bytes that tokcodec spent."
)


def _borders(points: Points, clip: str) -> list[int]:
    """The frames of a clip that begin a chunk of tokcodec's, besides the first; none where it was not measured."""
    return next((point.get("borders", []) for point in points.get((clip, OURS), [])), [])


def evenness(point: Point, borders: Sequence[int]) -> Values:
    """Fade, pop and pulse of a point, by the names of `MEASURES`."""
    found = stability([mse_of(psnr) for psnr in point["metrics"]["psnr_rgb_db"]["frames"]], borders)
    return {name: getattr(found, name) for name in MEASURES}


def evenness_table(points: Points, steps: Collection[int] | None = None) -> Table:
    """tokcodec at each of its settings (or of `steps`), and every other codec at the same bytes."""
    others = [codec for codec in codecs_of(points) if codec != OURS]
    header = ["step", "bpp", "codec", *MEASURES.values(), METRICS["ghosts"].label, "clips"]
    table = Table("How even it is in time", NOTE, header)
    curves = {
        (clip, codec): [(point["bpp"], _values(points, clip, point)) for point in measured]
        for (clip, codec), measured in points.items()
    }
    for step, group in ours_by_step(points).items():
        if steps is not None and step not in steps:
            continue
        bpp = f"{np.mean([point['bpp'] for _, point in group]):.4f}"
        for codec in (OURS, *others):
            found = [
                _values(points, clip, point) if codec == OURS else _at_rate(curves.get((clip, codec), []), point["bpp"])
                for clip, point in group
            ]
            columns = [[value for each in found if (value := each[name]) is not None] for name in (*MEASURES, "ghosts")]
            if any(columns):
                cells = [f"{np.mean(column):.3g}" if column else "" for column in columns]
                table.rows.append([str(step), bpp, named(codec), *cells, str(max(map(len, columns)))])
    return table


def _values(points: Points, clip: str, point: Point) -> Values:
    """Fade, pop, pulse and ghosts of a point, by the borders of tokcodec's chunks."""
    return evenness(point, _borders(points, clip)) | {"ghosts": point["metrics"].get("ghosts", {}).get("mean")}


def _at_rate(curve: Sequence[tuple[float, Values]], bpp: float) -> Values:
    """Each value of a codec's points, interpolated; None where they do not reach that many bits."""
    found: Values = {}
    for name in (*MEASURES, "ghosts"):
        having = [(bits, value) for bits, each in curve if (value := each[name]) is not None]
        found[name] = at_rate(having, bpp)
    return found
