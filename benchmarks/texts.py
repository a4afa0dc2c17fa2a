"""What README, the page of the benchmark and the model card quote of the results.

`python -m benchmarks.texts` writes it from the result files.

A quoted part stands between two marks, `<!-- benchmarks: NAME -->` and `<!-- end -->`; a test holds it to the files.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from benchmarks import points as points_file
from benchmarks.codecs import FAST, LFQ, LOOP
from benchmarks.evenness import evenness_table
from benchmarks.provenance import ROOT
from benchmarks.sets import SETS
from benchmarks.stability import table as stability_table
from benchmarks.tables import (
    OURS,
    Points,
    at_equal_rate,
    bd_cell,
    bd_rate_of,
    clips_of,
    codecs_of,
    judging,
    load_points,
    metrics_of,
    ours_by_step,
)
from tokcodec.scoring.scores import METRICS

RESULTS = ROOT / "benchmarks" / "results"
POINTS = RESULTS / "eval-360p"
FILES = ("README.md", "docs/benchmark.md", "tokcodec/weights/README.md")
NAMES = {  # of the codecs that are spoken of
    "hevc-medium": "x265 medium",
    "hevc-visual": "x265 slow",
    "hevc-ra": "x265 slow, tuned for PSNR, closed GOPs of 33",
    "vvc-ra": "VVenC, tuned for PSNR, closed GOPs of 32 (a handicap of about 30 % of bits)",
    "vvc-visual": "VVenC, tuned for the eye",
    "av1": "SVT-AV1",
    FAST: "its own small network",
    LFQ: "its own tokens of a fixed vocabulary",
    LOOP: "its own loop alone, without the network",
}
SCORES = {  # of the table, with their digits
    "lpips_alex": 3,
    "stlpips_vgg": 3,
    "vmaf": 1,
    "vmaf_neg": 1,
    "ms_ssim": 4,
    "psnr_rgb_db": 2,
    "temporal_psnr_db": 2,
    "ghosts": 2,
}
SHORT = {  # in the order of the tables
    "lpips_alex": "LPIPS",
    "stlpips_vgg": "ST-LPIPS",
    "vmaf": "VMAF",
    "vmaf_neg": "VMAF NEG",
    "ms_ssim": "MS-SSIM",
    "psnr_rgb_db": "PSNR",
    "temporal_psnr_db": "temporal PSNR",
    "ghosts": "ghosts",
}
SHOWN_STEPS = 3  # of those measured: the table has the coarsest, the middle one and the finest
NOT_MEASURED = "Not measured since the last change.\n"
MARKED = re.compile(r"(<!-- benchmarks: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@functools.cache
def _points() -> Points:
    return load_points(POINTS)


def _scores(points: Points) -> dict[str, int]:
    """Those of `SCORES` that were measured."""
    return {metric: digits for metric, digits in SCORES.items() if metric in metrics_of(points)}


def _difference(metric: str, value: float) -> str:
    """tokcodec minus another, in bold where tokcodec is the better."""
    text = f"{value:+.{SCORES[metric]}f}"
    if float(text) == 0:
        return text.replace("-", "+")
    return f"**{text}**" if (value < 0) == METRICS[metric].lower_is_better else text


def verdict() -> str:
    """Who wins by which score, a line each codec, from the bits that tokcodec needs for as much quality.

    Of the clips by which nothing was chosen. What is less than two standard errors of the mean is no win.
    """
    points = _points()
    clips = judging(points)
    lines = []
    for codec, name in NAMES.items():
        if codec not in codecs_of(points):
            continue
        parts: dict[str, list[str]] = {"wins": [], "loses": [], "level": [], "unsure": []}
        for metric in _scores(points):
            rates = [bd_rate_of(points, clip, codec, OURS, metric) for clip in clips]
            percents = [rate.percent for rate in rates if rate.percent is not None]
            if len(percents) < len(clips) / 2:
                parts["unsure"].append(SHORT[metric])
                continue
            mean = float(np.mean(percents))
            some = "" if len(percents) == len(clips) else f" on {len(percents)} clips"
            word = "fewer" if mean < 0 else "more"
            error = float(np.std(percents, ddof=1)) / len(percents) ** 0.5
            key = "level" if abs(mean) < 2 * error else "wins" if mean < 0 else "loses"
            parts[key].append(f"{SHORT[metric]} ({abs(mean):.0f} % {word} bits{some})")
        words = {"wins": "wins by", "loses": "loses by", "level": "no clear winner, within two standard errors, by"}
        told = [f"{word} {', '.join(parts[key])}" for key, word in words.items() if parts[key]]
        if parts["unsure"]:
            told.append(f"too far apart to say by {', '.join(parts['unsure'])}")
        lines.append(f"- against {name}: {'; '.join(told)}")
    groups = [[point["bpp"] for clip, point in group if clip in clips] for group in ours_by_step(points).values()]
    spent = [float(np.mean(group)) for group in groups]
    head = (
        f"At equal score (BD-rate, mean of the {len(clips)} clips that only judge, 640x360, {min(spent):.4f} to "
        f"{max(spent):.4f} bpp), tokcodec"
    )
    return head + "\n\n" + "\n".join(lines) + "\n"


def table() -> str:
    """The table of the first frames of every clip."""
    return table_of(_points())


def longer() -> str:
    """The tables of the sets of longer clips, as far as they are measured."""
    folders = [RESULTS / name for name in SETS if name != POINTS.name]
    having = [folder for folder in folders if (folder / points_file.POINTS).exists()]
    return "\n".join(longer_of(SETS[each.name].what, load_points(each)) for each in having) or NOT_MEASURED


def longer_of(what: str, points: Points) -> str:
    """Scores at equal bytes of a set, and how even its codecs are at tokcodec's middle step."""
    steps = sorted(ours_by_step(points))
    even = evenness_table(points, {steps[len(steps) // 2]}).markdown_rows()
    return f"Of {what}:\n\n{table_of(points)}\n{even}"


def table_of(points: Points) -> str:
    """tokcodec at three of its steps, and what it has more or less than the others at equal bytes on every clip."""
    steps, scores = ours_by_step(points), _scores(points)
    order = sorted(steps, reverse=True)
    chosen = sorted({order[round(i * (len(order) - 1) / (SHOWN_STEPS - 1))] for i in range(SHOWN_STEPS)}, reverse=True)
    lines = [
        f"| bpp | codec | {' | '.join(METRICS[metric].label for metric in scores)} | clips |",
        "|---" * (len(scores) + 3) + "|",
    ]
    for step in chosen:
        group = steps[step]
        bpp = np.mean([point["bpp"] for _, point in group])
        means = [
            f"{np.mean([point['metrics'][metric]['mean'] for _, point in group]):.{digits}f}"
            for metric, digits in scores.items()
        ]
        lines.append(f"| {bpp:.4f} | tokcodec, step {step} | {' | '.join(means)} | {len(group)} |")
        for codec, name in NAMES.items():
            cells = {metric: at_equal_rate(points, group, codec, metric) for metric in scores}
            first = cells["psnr_rgb_db"]
            shown = [_difference(metric, cell.ours) if cell else "" for metric, cell in cells.items()]
            if first:
                lines.append(f"| | minus {name} | {' | '.join(shown)} | {first.clips} |")
    return "\n".join(lines) + "\n"


def rates() -> str:
    """Bits at equal score against every codec, on all clips and on those that only judge, if these are not all."""
    points = _points()
    scores = _scores(points)
    groups = {"all": clips_of(points), "only judge": judging(points)}
    if groups["all"] == groups["only judge"]:
        del groups["all"]
    heads = [SHORT[metric] for metric in scores]
    lines = [f"| bits against | clips | {' | '.join(heads)} |", "|---" * (len(scores) + 2) + "|"]
    for codec, name in NAMES.items():
        for which, clips in groups.items():
            if codec in codecs_of(points):
                cells = [
                    bd_cell([bd_rate_of(points, clip, codec, OURS, metric) for clip in clips]) for metric in scores
                ]
                lines.append(f"| {name} | {which} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def origin() -> str:
    """Of which code, weights and clips the numbers are."""
    points = _points()
    ours = [point for (_, codec), group in points.items() if codec == OURS for point in group]
    codes = sorted({point["program"]["code_sha256"][:16] for point in ours})
    weights = sorted({point["program"]["weights_sha256"][:16] for point in ours})
    only = [clip.rsplit("_", 2)[0] for clip in judging(points)]
    chose = [clip.rsplit("_", 2)[0] for clip in clips_of(points) if clip not in judging(points)]
    chosen = f"; by {', '.join(chose)} settings and weights were also chosen" if chose else ""
    return (
        f"Measured with the code `{', '.join(codes)}` and the weights `{', '.join(weights)}` (the first digits of "
        f"their SHA-256, as every point has them whole). {', '.join(only)} only judge{chosen}. None of them was "
        "trained on.\n"
    )


def speed() -> str:
    """The table of speeds."""
    path = RESULTS / "speed.json"
    return speed_rows(json.loads(path.read_text())) if path.exists() else NOT_MEASURED


def speed_rows(result: dict[str, Any]) -> str:
    """The table of `benchmarks.speed`, with what it was measured on."""
    lines = ["| | encode, frames/s | decode, frames/s | peak memory of each | bytes |", "|---|---|---|---|---|"]
    for run in result["runs"]:
        memory = " / ".join(f"{run[f'{way}_peak_rss_mib']}" for way in ("encode", "decode"))
        speeds = [f"{run[f'{way}_fps']:.1f}" for way in ("encode", "decode")]
        lines.append(f"| {run['name']} | {' | '.join(speeds)} | {memory} MiB | {run['bytes']} |")
    clip, share = result["clip"], result["entropy_share"]
    note = (
        f"{clip['name']}, {result['frames']} frames of {clip['width']}x{clip['height']}, file to file, the start of "
        f"Python left out, on {result['threads']} cores of {result['machine']['cpu']}. In one thread and float32 "
        f"entropy coding is {share['encode']:.0%} of encoding and {share['decode']:.0%} of decoding."
    )
    return "\n".join(lines) + f"\n\n{note}\n"


def stability() -> str:
    """The table of `benchmarks.stability`."""
    path = RESULTS / "stability.json"
    return stability_table(json.loads(path.read_text())) if path.exists() else NOT_MEASURED


TEXTS: dict[str, Callable[[], str]] = {
    "verdict": verdict,
    "table": table,
    "longer": longer,
    "rates": rates,
    "origin": origin,
    "speed": speed,
    "stability": stability,
}


def filled(text: str) -> str:
    """A document with its quoted parts as the result files have them."""
    return MARKED.sub(lambda match: match[1] + TEXTS[match[2]]() + match[3], text)


@click.command()
def main() -> None:
    """Bring what the documents quote up to the result files."""
    for name in FILES:
        path = ROOT / name
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
