"""The README's Python examples run as they stand."""

import re
from pathlib import Path

import pytest
from conftest import MakeClip, frames_of, moving_frames

README = Path(__file__).parents[1] / "README.md"


def test_python_examples(
    make_clip: MakeClip,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    codec, data = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    make_clip("in.mp4", moving_frames(40))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    names: dict[str, object] = {}
    exec(compile(codec, "README.md", "exec"), names)
    assert "64 48 [40]" in capsys.readouterr().out
    assert len(frames_of(tmp_path / "out.mp4")) == 40
    (tmp_path / "streams").mkdir()
    (tmp_path / "out.tokc").rename(tmp_path / "streams" / "a.tokc")
    exec(compile(data, "README.md", "exec"), names)
    assert "torch.Size([2, 4, 4, 5, 6, 8])" in capsys.readouterr().out
