"""A training run as curves: its losses against the pixels it saw, on logarithmic axes.

`python -m benchmarks.curves RUN ... CURVES.svg` reads `train.jsonl` and `eval.jsonl` of the runs' folders. A
straight line is a power law; its exponent tells what more training would bring at a constant learning rate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FIT_FROM = 0.25  # of the pixels: what came before is the start, not the trend
TERMS = {"rec": "reconstruction", "lpips": "LPIPS (AlexNet and SqueezeNet)"}


class Curve(NamedTuple):
    """One quantity over a run; both arrays are float64, of one length, above 0."""

    label: str
    pixels: np.ndarray
    values: np.ndarray


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log by step; of steps that were done again after a resume, the last."""
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    return [line for _, line in sorted({line["step"]: line for line in lines}.items())]


class Logs(NamedTuple):
    """The lines of one or several runs, each with the `pixels` seen until then, by the runs before it, too."""

    trained: list[dict[str, Any]]
    evaluated: list[dict[str, Any]]


def read_runs(runs: Sequence[Path]) -> Logs:
    """The logs of runs of which each began with the weights of the one before (`--init`)."""
    logs, before = Logs([], []), 0.0
    for run in runs:
        trained, evaluated = read_lines(run / "train.jsonl"), read_lines(run / "eval.jsonl")
        # the first versions of the trainer logged pixels in evaluations only
        pixels_at = {0: 0} | {line["step"]: line["pixels"] for line in evaluated + trained if "pixels" in line}
        steps = sorted(pixels_at)
        for line in trained + evaluated:
            line["pixels"] = before + float(np.interp(line["step"], steps, [pixels_at[step] for step in steps]))
        logs.trained.extend(line for line in trained if line["step"] <= steps[-1])
        logs.evaluated.extend(evaluated)
        before += pixels_at[steps[-1]]
    return logs


def training_curves(logs: Logs) -> list[Curve]:
    """The terms of the training loss, each point the mean of 50 steps."""
    pixels = np.array([line["pixels"] for line in logs.trained])
    return [Curve(label, pixels, np.array([line[term] for line in logs.trained])) for term, label in TERMS.items()]


def validation_curves(logs: Logs, metric: str) -> list[Curve]:
    """For each set of clips a curve of the network and one of the plain base.

    Args:
        logs: of the runs.
        metric: "lpips", or "mse": of values in 0..1, from the mean PSNR.
    """
    lines = logs.evaluated
    curves = []
    for name in (key for key, value in lines[-1].items() if isinstance(value, dict)):
        having = [line for line in lines if name in line]
        pixels = np.array([line["pixels"] for line in having], float)
        for kind in ("network", "base"):
            if metric == "lpips":
                values = np.array([line[name][kind]["lpips"] for line in having])
            else:
                values = np.array([10 ** (-line[name][kind]["psnr_db"] / 10) for line in having])
            curves.append(Curve(f"{name}, {kind}", pixels, values))
    return curves


def power_law(curve: Curve) -> tuple[float, float] | None:
    """(a, b) of values = a * pixels**b, least squares of logarithms over the later part; None below 3 points."""
    late = curve.pixels >= FIT_FROM * curve.pixels[-1]
    if late.sum() < 3:
        return None
    b, log_a = np.polyfit(np.log(curve.pixels[late]), np.log(curve.values[late]), 1)
    return float(np.exp(log_a)), float(b)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
def main(runs: tuple[Path, ...], target: Path) -> None:
    """Draw the curves of training RUNS (folders of `tokcodec train`, each the --init of the next) as SVG or PNG."""
    logs = read_runs(runs)
    panels = {
        "training loss": training_curves(logs),
        "validation MSE": validation_curves(logs, "mse"),
        "validation LPIPS (AlexNet)": validation_curves(logs, "lpips"),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 4.5), layout="constrained")
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            law = power_law(curve)
            label = curve.label if law is None else f"{curve.label}: pixels^{law[1]:.3f}"
            (line,) = axis.loglog(curve.pixels, curve.values, marker=".", markersize=3, linewidth=1, label=label)
            if law is not None:
                ahead = np.array([FIT_FROM, 4]) * curve.pixels[-1]
                axis.loglog(ahead, law[0] * ahead ** law[1], linestyle=":", color=line.get_color())
        axis.set(title=title, xlabel="pixels seen")
        axis.grid(which="both", alpha=0.25)
        axis.legend(fontsize=8)
    figure.savefig(target)
    plt.close(figure)


if __name__ == "__main__":
    main()
