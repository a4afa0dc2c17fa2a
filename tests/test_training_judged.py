"""The benchmark's clips are known by their content, and nothing trains on them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from tokcodec.errors import TokcodecError
from tokcodec.training import judged
from tokcodec.training.data import build_cache
from tokcodec.training.judged import JudgedClip, judged_clips


def test_a_clip_of_the_benchmark_is_refused_under_any_name(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (footage / "two.mkv").read_bytes()
    known = JudgedClip("film", len(data), hashlib.sha256(data).hexdigest(), "judge", may_show=True)
    monkeypatch.setattr(judged, "judged_clips", lambda: {known.sha256: known})
    with pytest.raises(TokcodecError, match=r"two\.mkv: this is film, by which the benchmark judges"):
        build_cache(footage, tmp_path / "cache")
    (footage / "two.mkv").write_bytes(data[:-1] + b"x")  # as long, but another
    assert list(build_cache(footage, tmp_path / "cache")) == ["one.mkv", "two.mkv"]
    (footage / "sub").mkdir()
    (footage / "sub" / "other.mkv").write_bytes(data)
    with pytest.raises(TokcodecError, match="other"):
        build_cache(footage, tmp_path / "cache")


def test_the_list_is_of_clips_of_both_roles() -> None:
    clips = judged_clips().values()
    assert len(clips) == len({clip.name for clip in clips}) == 10
    assert {clip.role for clip in clips} == {"choose", "judge"}
    assert not any(clip.may_show for clip in clips if clip.name.startswith("davis"))


def test_the_list_is_of_the_files_that_are_judged_on(shared: Path, tmp_path: Path) -> None:
    for clip in judged_clips().values():
        (path,) = (shared / "data/eval").glob(f"{clip.name}.*")
        assert (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) == (clip.bytes, clip.sha256)
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(path, folder / "mine.mp4")
    with pytest.raises(TokcodecError, match="it must not be trained on"):
        build_cache(folder, tmp_path / "cache")
