"""Pictures at equal bytes: the search, and that a clip that may not be shown is refused."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import MakeClip, moving_frames

from benchmarks import stills
from benchmarks.clips import Clip
from benchmarks.codecs import MODES
from benchmarks.stills import Coder, coarsest_rate, composed, guessed
from benchmarks.tools import ToolError, Tools
from tokcodec.scoring.vmaf import find_ffmpeg
from tokcodec.training.judged import JudgedClip


@pytest.mark.parametrize("guess", [1, 20, 37, 63, 99])
def test_the_coarsest_rate_with_enough_bytes_is_found(guess: int) -> None:
    sizes = {rate: round(1e6 * 0.9**rate) for rate in range(1, 64)}
    rate = coarsest_rate(sizes.__getitem__, 20000, guess, 1, 63)
    assert sizes[rate] >= 20000 > sizes[rate + 1]
    assert coarsest_rate(sizes.__getitem__, 1, guess, 1, 63) == 63
    with pytest.raises(ToolError, match="no rate"):
        coarsest_rate(sizes.__getitem__, 10**7, guess, 1, 63)


def test_the_guess_is_read_off_the_measured_curve() -> None:
    group = [{"bpp": bpp, "rate": rate} for bpp, rate in ((0.01, 46), (0.02, 40), (0.04, 34))]
    points = {("a", "av1"): group}
    assert guessed(points, "a", "av1", 20000, 8 * 10**6) == 40
    assert guessed(points, "a", "av1", 28284, 8 * 10**6) == 37
    assert guessed(points, "a", "av1", 1, 8 * 10**6) == 46
    assert guessed(points, "b", "av1", 1, 1) == 32


def test_pictures_stand_in_two_columns() -> None:
    sheet = composed([(str(i), np.full((40, 60, 3), 40 * i, np.uint8)) for i in range(3)])
    assert sheet.size == (124, 2 * 66)
    assert sheet.getpixel((62 + 20, 10)) == (40, 40, 40)
    assert sheet.getpixel((10, 66 + 10)) == (80, 80, 80)


def test_a_still_is_kept_until_the_options_of_its_mode_change(make_clip: MakeClip, tmp_path: Path) -> None:
    reference = make_clip("a.mkv", moving_frames(3, 96, 128))
    tools = Tools(find_ffmpeg() or "", "tokcodec")
    coder = Coder(tools, Clip("a", "", "", 128, 96, 3, "25", "", ""), reference, 1, 1, tmp_path)
    made = [
        coder.still(dataclasses.replace(MODES["avc"], options=f"-preset ultrafast -crf {crf} -threads 1"), 30)
        for crf in ("{rate}", "{rate}", "50")
    ]
    assert made[0] == made[1]
    assert made[2]["bytes"] < made[0]["bytes"]


def test_what_may_not_be_shown_is_refused(make_clip: MakeClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip("a.mp4", moving_frames(3, 96, 128))
    sha256 = hashlib.sha256(clip.read_bytes()).hexdigest()
    monkeypatch.setattr(
        stills, "judged_clips", lambda: {sha256: JudgedClip("film", 1, sha256, "judge", may_show=False)}
    )
    monkeypatch.setattr(stills, "find_tools", lambda: Tools(find_ffmpeg() or "", "tokcodec"))
    line = [str(clip), "--work", str(tmp_path / "work"), "--lpips-dir", str(tmp_path)]
    line += ["--picture", str(tmp_path / "a.png")]
    result = CliRunner().invoke(stills.main, line)
    assert (result.exit_code, "pictures of film may not be shown" in result.output) == (1, True)
    assert not (tmp_path / "a.png").exists()
