"""The README's Python example runs as it stands."""

import re
from pathlib import Path

import pytest
from conftest import MakeClip, frames_of, moving_frames

README = Path(__file__).parents[1] / "README.md"


def test_python_example(
    make_clip: MakeClip,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    make_clip("in.mp4", moving_frames(40))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    exec(compile(example, "README.md", "exec"), {})
    assert "64 48 [40]" in capsys.readouterr().out
    assert len(frames_of(tmp_path / "out.mp4")) == 40
