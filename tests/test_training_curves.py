"""benchmarks/curves.py: the exponent it draws is the run's own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.curves import main, power_law, read_lines, read_runs, validation_curves


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Logs of a run whose LPIPS falls with pixels^-0.2 and whose MSE falls with pixels^-0.4."""
    trained, evaluated = [], []
    for step in range(1, 9):
        pixels = step * 10**6
        trained.append({"step": step, "pixels": pixels, "rec": pixels**-0.3, "lpips": pixels**-0.1})
        lpips, psnr_db = pixels**-0.2, 4 * math.log10(pixels)
        scores = {"network": {"lpips": lpips, "psnr_db": psnr_db}, "base": {"lpips": 0.5, "psnr_db": 20}, "clips": {}}
        evaluated.append({"step": step, "pixels": pixels, "val": scores})
    trained.insert(0, {"step": 2, "pixels": 2 * 10**6, "rec": 99.0, "lpips": 99.0})  # before a resume
    for name, lines in (("train", trained), ("eval", evaluated)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_power_laws(run: Path) -> None:
    logs = read_runs([run])
    curves = validation_curves(logs, "lpips") + validation_curves(logs, "mse")
    assert [curve.label for curve in curves] == 2 * ["val, network", "val, base"]
    laws = [power_law(curve) for curve in curves]
    assert [law and law[1] for law in laws] == pytest.approx([-0.2, 0, -0.4, 0])
    assert [law and law[0] for law in laws[:2]] == pytest.approx([1, 0.5])


def test_a_repeated_step_counts_once(run: Path) -> None:
    lines = read_lines(run / "train.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert max(line["rec"] for line in lines) < 1


def test_a_run_goes_on_where_the_one_before_ended(run: Path) -> None:
    logs = read_runs([run, run])
    expected = [step * 1e6 for step in range(1, 17)]
    assert [line["pixels"] for line in logs.trained] == expected
    assert [line["pixels"] for line in logs.evaluated] == expected


@pytest.mark.parametrize("name", ["curves.svg", "curves.png"])
def test_the_picture(run: Path, name: str) -> None:
    result = CliRunner().invoke(main, [str(run), str(run), str(run / name)])
    assert result.exit_code == 0, result.output
    assert (run / name).stat().st_size > 5000
