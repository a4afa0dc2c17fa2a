"""The measured points as tables: BD-rate, scores at equal rate, the paper's row, speed.

What they say about rates is always per clip first, then the mean over clips; how many clips stand behind a
number is printed with it. A missing number is called missing, and nothing is extrapolated.
"""

from __future__ import annotations

import csv
import html
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.bdrate import MIN_OVERLAP, BDRate, Curve, at_rate, bd_rate
from benchmarks.clips import Clip
from benchmarks.codecs import FAST, LOOP, MODES
from benchmarks.points import POINTS, Point, read_points
from tokcodec.errors import TokcodecError
from tokcodec.scoring.scores import METRICS
from tokcodec.training.judged import JudgedClip, judged_clips

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
        return f"## {self.title}\n\n{self.note}\n\n{self.markdown_rows()}"

    def markdown_rows(self) -> str:
        """The table itself, without title and note."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def csv(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([self.header, *self.rows])


def load_points(results: Path) -> Points:
    """Read `points.json`.

    Raises:
        TokcodecError: there is none, one is not a point, or two that would be compared are not of the same video or
            scored by other code, or two of a curve are by other programs.
    """
    points: Points = defaultdict(list)
    firsts: dict[tuple[str, ...], tuple[str, Any]] = {}
    for title, point in read_points(results).items():
        try:
            key = Clip(**point["clip"]).key
            points[key, point["codec"]].append(point)
            alike: dict[tuple[str, ...], dict[str, Any]] = {
                (key,): {"clip": point["clip"]},
                (key, point["codec"]): {
                    "program": point["program"],
                    "threads": point["threads"],
                    "command": [
                        ["{rate}" if word == str(point["rate"]) else word for word in words]
                        for words in point["argv"].values()
                    ],
                },
            }
            for metric in point["metrics"]:  # in older points one entry stands for all scores
                by = point["scored_by"].get(metric, point["scored_by"])
                alike[key, "score", metric] = {"scored_by": by}
        except (ValueError, KeyError, TypeError) as error:
            raise TokcodecError(f"{results / POINTS}: {title} is not a measured point ({error})") from error
        for group_key, facts in alike.items():
            first, known = firsts.setdefault(group_key, (title, facts))
            for name in facts:
                if facts[name] != known[name]:
                    raise TokcodecError(f"{title}: its {name} is not that of {first}; measure one of them again")
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


def named(codec: str) -> str:
    """A codec's name in a table, with what has to be said beside it."""
    remark = MODES[codec].remark
    return f"{codec} ({remark})" if remark else codec


def metrics_of(points: Points) -> list[str]:
    return [name for name in METRICS if any(name in point["metrics"] for group in points.values() for point in group)]


def curve(group: Sequence[Point], metric: str) -> Curve:
    """(bpp, mean over frames) of one codec on one clip, the metric as it is."""
    return [(point["bpp"], point["metrics"][metric]["mean"]) for point in group if metric in point["metrics"]]


def bd_rate_of(points: Points, clip: str, anchor: str, codec: str, metric: str) -> BDRate:
    """BD-rate of one codec against another on one clip."""
    sign = -1 if METRICS[metric].lower_is_better else 1
    curves = [
        [(bpp, sign * score) for bpp, score in curve(points.get((clip, name), []), metric)] for name in (anchor, codec)
    ]
    return bd_rate(*curves)


def bd_cell(rates: Sequence[BDRate]) -> str:
    """The mean over clips of what is not refused, and of how many clips that is."""
    percents = [rate.percent for rate in rates if rate.percent is not None]
    return f"{np.mean(percents):+.0f} % ({len(percents)}/{len(rates)})" if percents else f"refused (0/{len(rates)})"


BD_NOTE = (
    "-20 % means a fifth fewer bits at equal score, over the scores that both curves reach. PCHIP, by clip, then the "
    f"mean; in brackets the clips it is of. Refused below four points, or where the shared scores are less than "
    f"{MIN_OVERLAP:.0%} of the shorter curve; bdrate.csv has every clip."
)


def bd_table(points: Points, anchor: str) -> Table:
    """Mean BD-rate over clips of every codec against one."""
    metrics = metrics_of(points)
    table = Table(f"BD-rate against {anchor}", BD_NOTE, ["codec", *(METRICS[metric].label for metric in metrics)])
    for codec in codecs_of(points):
        if codec != anchor:
            cells = [
                bd_cell([bd_rate_of(points, clip, anchor, codec, metric) for clip in clips_of(points)])
                for metric in metrics
            ]
            table.rows.append([named(codec), *cells])
    return table


def ours_table(points: Points, clips: Sequence[str], title: str) -> Table:
    """BD-rate of tokcodec against every other codec."""
    metrics = metrics_of(points)
    table = Table(title, BD_NOTE, ["against", *(METRICS[metric].label for metric in metrics)])
    for anchor in codecs_of(points):
        if anchor != OURS:
            cells = [bd_cell([bd_rate_of(points, clip, anchor, OURS, metric) for clip in clips]) for metric in metrics]
            table.rows.append([named(anchor), *cells])
    return table


def judging(points: Points) -> list[str]:
    """The clips by which nothing was chosen: of the role "judge", or unknown to the trainer."""
    known = judged_clips()
    sha256 = {clip: group[0]["clip"]["sha256"] for (clip, _), group in points.items()}
    return [clip for clip in clips_of(points) if clip_role(known, sha256[clip]) != "choose"]


def clip_role(known: Mapping[str, JudgedClip], sha256: str) -> str:
    return known[sha256].role if sha256 in known else ""


def bd_clip_table(points: Points, anchor: str) -> Table:
    """The BD-rates of every clip, with the reason where one is refused: of all against one, of tokcodec against all."""
    table = Table("", "", ["clip", "codec", "metric", "anchor", "percent", "overlap", "refused"])
    codecs = codecs_of(points)
    pairs = {(anchor, codec) for codec in codecs} | {(other, OURS) for other in codecs if OURS in codecs}
    for clip, (base, codec), metric in itertools.product(clips_of(points), sorted(pairs), metrics_of(points)):
        if codec != base:
            rate = bd_rate_of(points, clip, base, codec, metric)
            percent = "" if rate.percent is None else f"{rate.percent:.2f}"
            table.rows.append([clip, codec, metric, base, percent, f"{rate.overlap:.3f}", rate.why])
    return table


def matched_table(points: Points, metric: str) -> Table:
    """tokcodec at each of its settings against every codec interpolated, per clip, to the very same bpp."""
    others = [codec for codec in codecs_of(points) if codec != OURS]
    note = (
        f"{'Lower' if METRICS[metric].lower_is_better else 'Higher'} is better. Each clip's reference curves are "
        "interpolated (PCHIP) at the rate tokcodec spent on that clip, never extrapolated. A cell is the reference's "
        "mean score, in brackets tokcodec minus reference on the same clips, and the number of those clips."
    )
    table = Table(f"{METRICS[metric].label} at tokcodec's rates", note, ["step", "bpp", OURS, *map(named, others)])
    for rate, group in ours_by_step(points).items():
        scored = [(clip, point) for clip, point in group if metric in point["metrics"]]
        if not scored:
            continue
        mean = np.mean([point["metrics"][metric]["mean"] for _, point in scored])
        row = [str(rate), f"{np.mean([point['bpp'] for _, point in scored]):.4f}", f"{mean:.4g}"]
        for codec in others:
            cell = at_equal_rate(points, scored, codec, metric)
            row.append(f"{cell.other:.4g} ({cell.ours:+.3g}, {cell.clips})" if cell else "out of its rates")
        table.rows.append(row)
    return table


class Matched(NamedTuple):
    """Another codec at the bits tokcodec spent on each clip: its mean score, tokcodec minus it, on how many clips."""

    other: float
    ours: float
    clips: int


def ours_by_step(points: Points) -> dict[int, list[tuple[str, Point]]]:
    """tokcodec's points with their clips, by step from fine to coarse."""
    found: dict[int, list[tuple[str, Point]]] = defaultdict(list)
    for clip in clips_of(points):
        for point in points.get((clip, OURS), []):
            found[point["rate"]].append((clip, point))
    return dict(sorted(found.items()))


def at_equal_rate(points: Points, ours: Sequence[tuple[str, Point]], codec: str, metric: str) -> Matched | None:
    """A codec interpolated on each clip to the rate of tokcodec's point there; None where it reaches none of them."""
    pairs = []
    for clip, point in ours:
        value = at_rate(curve(points.get((clip, codec), []), metric), point["bpp"])
        if value is not None and metric in point["metrics"]:
            pairs.append((value, point["metrics"][metric]["mean"] - value))
    if not pairs:
        return None
    other, delta = np.mean(pairs, axis=0)
    return Matched(float(other), float(delta), len(pairs))


def restorer_table(points: Points) -> Table | None:
    """Every metric of tokcodec's streams behind each network and by the loop alone; None where that was not measured.

    The bytes are the same, so nothing is interpolated; a row is of the clips that all of them have at that step.
    """
    codecs = [codec for codec in codecs_of(points) if codec in (OURS, FAST, LOOP)]
    if OURS not in codecs or len(codecs) < 2:
        return None
    metrics = metrics_of(points)
    note = "Means over clips, of the same streams. LPIPS, ST-LPIPS and ghosts are better low, all else high."
    header = ["step", "bpp", "codec", *(METRICS[metric].label for metric in metrics), "clips"]
    table = Table("The same streams with and without the network", note, header)
    steps = sorted({point["rate"] for clip in clips_of(points) for point in points.get((clip, OURS), [])})
    for step in steps:
        by_clip = [
            {codec: point for codec in codecs for point in points.get((clip, codec), []) if point["rate"] == step}
            for clip in clips_of(points)
        ]
        shared = [found for found in by_clip if len(found) == len(codecs)]
        for codec in codecs if shared else ():
            cells = []
            for metric in metrics:
                scores = [found[codec]["metrics"].get(metric) for found in shared]
                means = [score["mean"] for score in scores if score is not None]
                cells.append(f"{np.mean(means):.4g}" if len(means) == len(shared) else "")
            bpp = float(np.mean([found[codec]["bpp"] for found in shared]))
            table.rows.append([str(step), f"{bpp:.4f}", codec, *cells, str(len(shared))])
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
    jobs = max(point["machine"]["jobs"] for group in points.values() for point in group)
    shared = "" if jobs == 1 else f" Up to {jobs} points ran at once."
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
    if "code_sha256" in program:
        return f"code {program['code_sha256'][:16]}, weights {program['weights_sha256'][:16]}"
    return f"FFmpeg {program['version']} {point['encoder_version']}".strip()


def mode_table(points: Points) -> Table:
    """What each name means, with the command of one point."""
    note = "One command of each; the JSON of a point holds its own. All read the same lossless RGB file."
    table = Table("Codecs", note, ["codec", "what", "version", "encode", "decode"])
    for codec in codecs_of(points):
        point = next(each[0] for (_, name), each in points.items() if name == codec)
        commands = [" ".join(point["argv"][step]) for step in ("encode", "decode")]
        table.rows.append([named(codec), MODES[codec].what, version_of(point), *commands])
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
