"""The measured points as tables: BD-rate, scores at equal rate, the paper's row, speed.

What they say about rates is always per clip first, then the mean over clips; how many clips stand behind a
number is printed with it. A missing number is called missing, and nothing is extrapolated.
"""

from __future__ import annotations

import csv
import html
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bdrate import BDRate, Curve, at_rate, bd_rate
from benchmarks.clips import Clip
from benchmarks.codecs import MODES
from tokcodec.errors import TokcodecError
from tokcodec.scores import METRICS

Point = dict[str, Any]
Points = dict[tuple[str, str], list[Point]]  # by (clip, codec), in order of rate

OURS = "tokcodec"
PAPER_BPP = 0.0384
PAPER = {  # MAGVIT-v2, table 3: MCL-JCV at 640x360, 0.0384 bpp
    "HEVC": (0.199, 30.10, 0.943),
    "VVC": (0.153, 32.65, 0.966),
    "MAGVIT": (0.144, 23.70, 0.846),
    "MAGVIT-v2": (0.104, 26.18, 0.894),
}
PAPER_METRICS = ("lpips_alex", "psnr_rgb_db", "ms_ssim")


class Table:
    """Rows of text with a title and a note: to HTML, Markdown and CSV."""

    def __init__(self, title: str, note: str, header: Sequence[str]) -> None:
        self.title, self.note, self.header = title, note, list(header)
        self.rows: list[list[str]] = []

    def html(self) -> str:
        def row(tag: str, cells: Sequence[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "\n".join(row("td", cells) for cells in self.rows)
        return (
            f"<h2>{html.escape(self.title)}</h2><p>{html.escape(self.note)}</p>"
            f'<div class="wide"><table>{row("th", self.header)}\n{body}</table></div>'
        )

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return f"## {self.title}\n\n{self.note}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def csv(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([self.header, *self.rows])


def load_points(results: Path) -> Points:
    """Read `points/*.json`.

    Raises:
        TokcodecError: there is none, or one is not a point.
    """
    points: Points = defaultdict(list)
    for path in sorted((results / "points").glob("*.json")):
        try:
            point = json.loads(path.read_text())
            points[Clip(**point["clip"]).key, point["codec"]].append(point)
        except (ValueError, KeyError, TypeError) as error:
            raise TokcodecError(f"{path}: not a measured point ({error})") from error
    if not points:
        raise TokcodecError(f"{results}: no measured points")
    for group in points.values():
        group.sort(key=lambda point: point["bpp"])
    return points


def clips_of(points: Points) -> list[str]:
    return sorted({clip for clip, _ in points})


def codecs_of(points: Points) -> list[str]:
    """In the order of the table of modes."""
    return [name for name in MODES if any(name == codec for _, codec in points)]


def metrics_of(points: Points) -> list[str]:
    return [name for name in METRICS if any(name in point["metrics"] for group in points.values() for point in group)]


def curve(group: Sequence[Point], metric: str) -> Curve:
    """(bpp, mean over frames) of one codec on one clip, the metric as it is."""
    return [(point["bpp"], point["metrics"][metric]["mean"]) for point in group if metric in point["metrics"]]


def bd_rates(points: Points, anchor: str) -> dict[tuple[str, str, str], BDRate]:
    """BD-rate against one codec, by (clip, codec, metric)."""
    found = {}
    for metric, clip in itertools.product(metrics_of(points), clips_of(points)):
        sign = -1 if METRICS[metric].lower_is_better else 1
        for codec in codecs_of(points):
            curves = [
                [(bpp, sign * score) for bpp, score in curve(points.get((clip, name), []), metric)]
                for name in (anchor, codec)
            ]
            found[clip, codec, metric] = bd_rate(*curves)
    return found


def bd_table(points: Points, anchor: str) -> Table:
    """Mean BD-rate over clips of every codec against one."""
    metrics, rates = metrics_of(points), bd_rates(points, anchor)
    note = (
        f"Bits against {anchor} at equal score: -20 % means a fifth fewer. PCHIP; refused below four points or "
        "75 % overlap of the two curves' scores. In brackets: clips that were not refused, mean overlap of all."
    )
    table = Table(f"BD-rate against {anchor}", note, ["codec", *(METRICS[metric].label for metric in metrics)])
    for codec in codecs_of(points):
        if codec == anchor:
            continue
        row = [codec]
        for metric in metrics:
            results = [rates[clip, codec, metric] for clip in clips_of(points)]
            percents = [result.percent for result in results if result.percent is not None]
            mean = f"{np.mean(percents):+.1f} %" if percents else "refused"
            overlap = np.mean([result.overlap for result in results])
            row.append(f"{mean} ({len(percents)}/{len(results)}, {overlap:.0%})")
        table.rows.append(row)
    return table


def bd_clip_table(points: Points, anchor: str) -> Table:
    """The BD-rates of every clip, with the reason where one is refused."""
    table = Table("", "", ["clip", "codec", "metric", "anchor", "percent", "overlap", "refused"])
    for (clip, codec, metric), rate in sorted(bd_rates(points, anchor).items()):
        if codec != anchor:
            percent = "" if rate.percent is None else f"{rate.percent:.2f}"
            table.rows.append([clip, codec, metric, anchor, percent, f"{rate.overlap:.3f}", rate.why])
    return table


def matched_table(points: Points, metric: str) -> Table:
    """tokcodec at each of its settings against every codec interpolated, per clip, to the very same bpp."""
    others = [codec for codec in codecs_of(points) if codec != OURS]
    note = (
        f"{'Lower' if METRICS[metric].lower_is_better else 'Higher'} is better. Each clip's reference curves are "
        "interpolated (PCHIP) at the rate tokcodec spent on that clip, never extrapolated. A cell is the reference's "
        "mean score, in brackets tokcodec minus reference on the same clips, and the number of those clips."
    )
    table = Table(f"{METRICS[metric].label} at tokcodec's rates", note, ["step", "bpp", OURS, *others])
    ours: dict[int, list[tuple[str, Point]]] = defaultdict(list)
    for clip in clips_of(points):
        for point in points.get((clip, OURS), []):
            if metric in point["metrics"]:
                ours[point["rate"]].append((clip, point))
    for rate, group in sorted(ours.items()):
        mean = np.mean([point["metrics"][metric]["mean"] for _, point in group])
        bpp = np.mean([point["bpp"] for _, point in group])
        row = [str(rate), f"{bpp:.4f}", f"{mean:.4g}"]
        for codec in others:
            pairs = []
            for clip, point in group:
                value = at_rate(curve(points.get((clip, codec), []), metric), point["bpp"])
                if value is not None:
                    pairs.append((value, point["metrics"][metric]["mean"] - value))
            value, delta = np.mean(pairs, axis=0) if pairs else (math.nan, math.nan)
            row.append(f"{value:.4g} ({delta:+.3g}, {len(pairs)})" if pairs else "out of its rates")
        table.rows.append(row)
    return table


def paper_table(points: Points) -> Table | None:
    """The MAGVIT-v2 paper's row beside ours, where the run is on the paper's data set and size."""
    clips = [
        clip
        for (clip, codec), group in points.items()
        if codec == OURS
        and (group[0]["clip"]["dataset"], group[0]["clip"]["width"], group[0]["clip"]["height"])
        == ("mcl-jcv", 640, 360)
    ]
    if not clips:
        return None
    labels = [METRICS[metric].label for metric in PAPER_METRICS]
    note = (
        "MAGVIT-v2 (Yu et al., ICLR 2024), table 3, as printed; ours interpolated to the same rate, clips in brackets."
    )
    table = Table(f"MCL-JCV at 640x360, {PAPER_BPP} bpp", note, ["codec", *labels])
    table.rows = [[name, *map(str, row)] for name, row in PAPER.items()]
    for codec in codecs_of(points):
        row = [f"{codec} (this run)"]
        for metric in PAPER_METRICS:
            values = [at_rate(curve(points.get((clip, codec), []), metric), PAPER_BPP) for clip in clips]
            there = [value for value in values if value is not None]
            row.append(f"{np.mean(there):.4g} ({len(there)}/{len(clips)})" if there else "out of its rates")
        table.rows.append(row)
    return table


def mib(size_bytes: float | None) -> float | None:
    """Bytes in MiB; None for none."""
    return size_bytes / 2**20 if size_bytes else None


def speed_table(points: Points) -> Table:
    """Frames/s and memory, the median over all points of a codec."""
    some = next(iter(points.values()))[0]
    shared = "" if some["machine"]["jobs"] == 1 else f" {some['machine']['jobs']} points ran at once."
    gpu = f", {some['machine']['gpu']}" if some["machine"]["gpu"] else ""
    note = (
        "Frames/s from the command's start to its end, reading a lossless file; of tokcodec also without loading "
        "Python and the weights ('started'), and of its network alone, without files and entropy coding. "
        f"{some['threads']} threads on {some['machine']['cpu']}{gpu}.{shared} Medians over points."
    )
    kinds = {"": "fps", ", started": "started_fps", ", network": "network_fps"}
    memories = {"RSS": "peak_rss_bytes", "VRAM": "peak_vram_bytes"}
    steps = ("encode", "decode")
    header = [step + kind for step in steps for kind in kinds]
    header += [f"peak {memory} {step}" for memory in memories for step in steps]
    table = Table("Speed", note, ["codec", *header, "load before"])
    for codec in codecs_of(points):
        group = [point for (_, name), each in points.items() if name == codec for point in each]

        def median(value: Callable[[Point], float | None], unit: str, group: list[Point] = group) -> str:
            values = [x for point in group if (x := value(point)) is not None]
            return f"{np.median(values):.3g}{unit}" if values else ""

        row = [codec]
        for step, key in itertools.product(steps, kinds.values()):
            row.append(median(lambda point, s=step, k=key: point[s].get(k), ""))  # type: ignore[misc]
        for key, step in itertools.product(memories.values(), steps):
            row.append(median(lambda point, s=step, k=key: mib(point[s].get(k)), " MiB"))  # type: ignore[misc]
        row.append(median(lambda point: point["machine"]["load_before"], ""))
        table.rows.append(row)
    return table


def version_of(point: Point) -> str:
    """Of the encoder, with the digests where it is tokcodec."""
    program = point["program"]
    if point["codec"] == OURS:
        return f"code {program['code_sha256'][:16]}, weights {program['weights_sha256'][:16]}"
    return f"FFmpeg {program['version']} {point['encoder_version']}".strip()


def mode_table(points: Points) -> Table:
    """What each name means, with the command of one point."""
    note = "One command of each; the JSON of a point holds its own. All read the same lossless RGB file."
    table = Table("Codecs", note, ["codec", "what", "version", "encode", "decode"])
    for codec in codecs_of(points):
        point = next(each[0] for (_, name), each in points.items() if name == codec)
        commands = [" ".join(point["argv"][step]) for step in ("encode", "decode")]
        table.rows.append([codec, MODES[codec].what, version_of(point), *commands])
    return table


def point_table(points: Points) -> Table:
    """Every point, for spreadsheets."""
    metrics = metrics_of(points)
    columns = [f"{metric}_{part}" for metric in metrics for part in ("mean", "p5", "p95")]
    header = ["clip", "codec", "rate", "bytes", "bpp", "encode_fps", "decode_fps", *columns]
    table = Table("", "", header)
    for (clip, codec), group in sorted(points.items()):
        for point in group:
            row = [clip, codec, str(point["rate"]), str(point["bytes"]), f"{point['bpp']:.6f}"]
            row += [f"{point[step]['fps']:.2f}" for step in ("encode", "decode")]
            for metric in metrics:
                scores = point["metrics"].get(metric, {})
                row += [str(scores.get(part, "")) for part in ("mean", "p5", "p95")]
            table.rows.append(row)
    return table
