"""The measured points as a page to look at.

`python -m benchmarks.report bench-out/results` reads `points.json` and writes `report.html` (self-contained:
every curve and picture is inside) and the tables as `tables.md`, `points.csv` and `bdrate.csv`.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from PIL import Image

from benchmarks.codecs import MODES
from benchmarks.evenness import evenness_table
from benchmarks.points import Point, judged_frames
from benchmarks.tables import (
    OURS,
    Points,
    Table,
    bd_clip_table,
    bd_table,
    clips_of,
    codecs_of,
    curve,
    judging,
    load_points,
    matched_table,
    metrics_of,
    mode_table,
    ours_table,
    paper_table,
    point_table,
    restorer_table,
    speed_table,
)
from tokcodec.errors import TokcodecError
from tokcodec.scoring.scores import METRICS
from tokcodec.training.judged import judged_clips

matplotlib.use("Agg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
from matplotlib import colors, ticker  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402 (after the backend is chosen)
from matplotlib.figure import Figure  # noqa: E402

CROP = (240, 160)
CROP_RATES = (0.02, 0.04)  # bits per pixel the crops are shown at
_TAB20 = [matplotlib.colormaps["tab20"](i) for i in range(20)]  # ten colours, each dark and light
COLOURS = dict(zip(MODES, _TAB20[::2] + _TAB20[1::2], strict=False))


def chart(points: Points, metric: str) -> str:
    """Rate-distortion curves of one metric, a panel a clip, as inline SVG."""
    clips = clips_of(points)
    columns = min(3, len(clips))
    rows = -(-len(clips) // columns)
    size = (4.4 * columns, 3.2 * rows + 0.6) if len(clips) > 1 else (9, 5)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis, clip in zip(axes.flat, clips, strict=False):
        for codec in codecs_of(points):
            if found := curve(points.get((clip, codec), []), metric):
                style = {"linewidth": 2.4, "marker": "o"} if codec == OURS else {"linewidth": 1.1, "marker": "."}
                axis.plot(*zip(*found, strict=True), label=codec, color=COLOURS[codec], **style)
        axis.set(title=clip.rsplit("_", 2)[0], xscale="log", xlabel="bits per pixel", ylabel=METRICS[metric].label)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda bpp, _: f"{bpp:g}"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.grid(alpha=0.3, which="both")
        if METRICS[metric].lower_is_better:
            axis.invert_yaxis()  # up is better on every chart
    return finished(figure, axes, len(clips))


def finished(figure: Figure, axes: np.ndarray, panels: int) -> str:
    """A figure of panels with one legend above them, as inline SVG."""
    for axis in axes.flat[panels:]:
        axis.axis("off")
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    columns = 5 if figure.get_size_inches()[0] > 8.8 else 3
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def detailed_window(frame: np.ndarray) -> tuple[int, int]:
    """(x, y) of the crop with the strongest gradients of the original: no codec has a say in it."""
    luma = frame.mean(2)
    detail = np.abs(np.diff(luma, axis=0, append=luma[-1:])) + np.abs(np.diff(luma, axis=1, append=luma[:, -1:]))
    w, h = min(CROP[0], frame.shape[1]), min(CROP[1], frame.shape[0])
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    window = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    y, x = np.unravel_index(window.argmax(), window.shape)
    return int(x), int(y)


def image_tag(pixels: np.ndarray, caption: str, quality: int = 92) -> str:
    """A picture inside the page."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality, subsampling=0)
    source = base64.b64encode(data.getvalue()).decode()
    return (
        f'<figure><img src="data:image/jpeg;base64,{source}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def caption(point: Point, frame: int) -> str:
    """What stands under a picture: its score, or that of the nearest frame that has one."""
    metric = "lpips_alex" if "lpips_alex" in point["metrics"] else "psnr_rgb_db"
    score = point["metrics"][metric]
    frames = judged_frames(score)
    value = score["frames"][min(range(len(frames)), key=lambda i: abs(frames[i] - frame))]
    return f"{point['codec']} {point['rate']}: {point['bpp']:.4f} bpp, {METRICS[metric].label} {value:.3g}"


def _nearest(group: Sequence[Point], bpp: float) -> Point:
    return min(group, key=lambda point: abs(math.log(point["bpp"] / bpp)))


def crops(points: Points, frames: Path, clips: Sequence[str]) -> str:
    """Every codec beside the original: at equal bytes where `benchmarks.stills` was run, else the nearest points."""
    parts = []
    for clip in clips:
        note = frames.parent / "stills" / f"{clip}.json"
        made = json.loads(note.read_text()) if note.exists() else None
        if made is not None and is_of(made, points.get((clip, OURS), [])):
            rows = equal_bytes(made, note)
        else:
            rows = nearest_points(points, frames, clip)
        for title, pictures in rows.items():
            x, y = detailed_window(pictures[0][1])
            cut = np.s_[y : y + CROP[1], x : x + CROP[0]]
            tags = [image_tag(pixels[cut], text) for text, pixels in pictures]
            parts.append(f"<h3>{html.escape(clip)}, {html.escape(title)}</h3><div class=row>{''.join(tags)}</div>")
    if not parts:
        return ""
    what = "The middle frame, where the original has most detail. Bytes are the whole clip's, LPIPS is this frame's."
    return f"<h2>Side by side</h2><p>{what}</p>{''.join(parts)}"


Rows = dict[str, list[tuple[str, np.ndarray]]]  # pictures with what stands under them, the original first, by title


def is_of(made: dict[str, Any], ours: Sequence[Point]) -> bool:
    """Whether tokcodec's pictures that `benchmarks.stills` made are of the code and the weights of these points."""
    by = [still["made_by"] for still in made["stills"] if still["codec"] == OURS]
    programs = [{"code_sha256": each["code"], "weights_sha256": each["weights"]} for each in by]
    return all(point["program"] == program for point in ours for program in programs)


def equal_bytes(made: dict[str, Any], note: Path) -> Rows:
    """The pictures that `benchmarks.stills` made of a clip, beside its note: none has fewer bytes than tokcodec."""
    frame = made["stills"][0]["frame"]
    pictures = [("original", note.with_name(f"{note.stem}__{frame}.png"))]
    pictures += [
        (each["label"], note.with_name(f"{note.stem}__{each['codec']}__{each['rate']}__{frame}.png"))
        for each in made["stills"]
    ]
    title = f"tokcodec at step {made['step']}, the others with as many bytes"
    return {title: [(text, np.asarray(Image.open(path))) for text, path in pictures]}


def nearest_points(points: Points, frames: Path, clip: str) -> Rows:
    """Every codec at its measured rate that is nearest to tokcodec's."""
    rows: Rows = {}
    own = points.get((clip, OURS), [])
    chosen = [_nearest(own, bpp) for bpp in CROP_RATES if own]
    for ours in {point["rate"]: point for point in chosen}.values():
        frame = ours["middle_frame"]
        original = frames / f"{clip}__{frame}.png"
        if not original.exists():
            continue
        pictures = [("original", np.asarray(Image.open(original)))]
        for codec in codecs_of(points):
            if group := points.get((clip, codec), []):
                point = _nearest(group, ours["bpp"])
                path = frames / f"{clip}__{codec}__{point['rate']}__{frame}.png"
                if path.exists():
                    pictures.append((caption(point, frame), np.asarray(Image.open(path))))
        if len(pictures) > 1:
            rows[f"tokcodec at {ours['bpp']:.4f} bpp, the others at their nearest point"] = pictures
    return rows


def worst_frames(points: Points, frames: Path, clips: Sequence[str]) -> str:
    """tokcodec's worst frame of each clip, at its middle setting."""
    tags = []
    for clip in clips:
        group = points.get((clip, OURS), [])
        if not group:
            continue
        point = group[len(group) // 2]
        frame = point["worst_frame"]
        pair = [frames / f"{clip}__{frame}.png", frames / f"{clip}__{OURS}__{point['rate']}__{frame}.png"]
        if all(path.exists() for path in pair):
            true, seen = (np.asarray(Image.open(path)) for path in pair)
            tags.append(image_tag(true, f"{clip}, frame {frame}, original") + image_tag(seen, caption(point, frame)))
    if not tags:
        return ""
    return (
        f"<h2>tokcodec's worst frames</h2><p>By LPIPS, at its middle setting.</p><div class=row>{''.join(tags)}</div>"
    )


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1400px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; font-size: 13px }
th, td { border: 1px solid #ddd; padding: 4px 8px; text-align: left }
th { background: #f4f4f4 }
svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
.row { display: flex; flex-wrap: wrap; gap: 10px }
figure { margin: 0 }
img { display: block; width: 330px; max-width: 100% }
figcaption { font-size: 12px; color: #555 }
"""
HEAD = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>tokcodec: rate and distortion</title><style>{STYLE}</style>
"""


def from_frame_to_frame(points: Points) -> str:
    """Every score of every frame, of a chosen clip and setting, as curves that a wheel and keys enlarge."""
    if OURS not in codecs_of(points):
        return ""
    clips: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for clip in clips_of(points):
        if points.get((clip, OURS)):
            groups = {codec: points.get((clip, codec), []) for codec in codecs_of(points)}
            clips[clip] = {codec: [_drawn(point) for point in group] for codec, group in groups.items() if group}
    data = {
        "clips": clips,
        "metrics": {
            name: {"label": METRICS[name].label, "lower": METRICS[name].lower_is_better} for name in metrics_of(points)
        },
        "colours": {name: colors.to_hex(colour) for name, colour in COLOURS.items()},
    }
    note = (
        "tokcodec at the chosen setting, every other codec at its setting with the nearest number of bytes. Up is "
        "better; grey lines are where a chunk begins. Turn the wheel or press + and - to enlarge, drag or press the "
        "arrows to move, double click or press Home to see all."
    )
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = resources.files("benchmarks").joinpath("frames.html").read_text()
    return f"<h2>From frame to frame</h2><p>{note}</p>{template.replace('DATA', text)}"


def _drawn(point: Point) -> dict[str, Any]:
    """What the page needs of a point."""
    scores = {
        name: {
            "first": (frames := judged_frames(score)).start,
            "every": frames.step,
            "values": [float(f"{value:.4g}") for value in score["frames"]],
        }
        for name, score in point["metrics"].items()
    }
    return {"rate": point["rate"], "bpp": point["bpp"], "borders": point.get("borders", []), "scores": scores}


def may_show(point: Point) -> bool:
    """Whether a clip's pictures may be published: as the list of clips says; else of a file, but not of a data set."""
    known = judged_clips().get(point["clip"]["sha256"])
    return not point["clip"]["dataset"] if known is None else known.may_show


def write_tables(points: Points, results: Path, anchor: str) -> list[Table]:
    """Write `tables.md`, `points.csv` and `bdrate.csv`.

    Args:
        points: of the run.
        results: the folder to write to.
        anchor: codec the BD-rates refer to.

    Returns:
        The tables of `tables.md`, in its order.
    """
    tables = [bd_table(points, anchor)]
    if OURS in codecs_of(points):
        clips = judging(points)
        tables.append(ours_table(points, clips_of(points), "BD-rate of tokcodec"))
        tables.append(ours_table(points, clips, f"BD-rate of tokcodec on the {len(clips)} clips that only judge"))
        tables += [matched_table(points, metric) for metric in metrics_of(points)]
        tables.append(evenness_table(points))
    tables += filter(None, [restorer_table(points), paper_table(points)])
    tables += [speed_table(points), mode_table(points)]
    (results / "tables.md").write_text("\n".join(table.markdown() for table in tables))
    point_table(points).csv(results / "points.csv")
    bd_clip_table(points, anchor).csv(results / "bdrate.csv")
    return tables


def write_report(results: Path, frames: Path, anchor: str = "hevc-medium") -> None:
    """Write `report.html` and all tables into the folder of the results.

    Args:
        frames: folder with the PNG frames of the run; pictures that are not there, or may not be shown, are left out.
        anchor: codec the BD-rates refer to; the first there is if it was not measured.

    Raises:
        TokcodecError: there is no point to report.
    """
    points = load_points(results)
    anchor = anchor if anchor in codecs_of(points) else codecs_of(points)[0]
    tables = write_tables(points, results, anchor)
    shown = sorted({clip for (clip, _), group in points.items() if may_show(group[0])})
    charts = "".join(f"<h3>{METRICS[metric].label}</h3>{chart(points, metric)}" for metric in metrics_of(points))
    body = [
        "<h1>tokcodec: rate and distortion</h1>",
        f"<p>{len(clips_of(points))} clips, {sum(map(len, points.values()))} points.</p>",
        crops(points, frames, shown),
        f"<h2>Curves</h2><p>Up and to the left is better.</p>{charts}",
        from_frame_to_frame(points),
        *(table.html() for table in tables),
        worst_frames(points, frames, shown),
    ]
    (results / "report.html").write_text(HEAD + "\n".join(body) + "\n</html>\n")


@click.command()
@click.argument("results", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--frames",
    default=Path("bench-out", "work", "frames"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="The run's PNG frames.",
)
@click.option(
    "--anchor", default="hevc-medium", show_default=True, type=click.Choice(list(MODES)), help="What BD-rates refer to."
)
def main(results: Path, frames: Path, anchor: str) -> None:
    """Write the report of measured RESULTS."""
    try:
        write_report(results, frames, anchor)
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error
    click.echo(results / "report.html")


if __name__ == "__main__":
    main()
