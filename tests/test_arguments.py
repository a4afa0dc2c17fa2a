"""What the functions of the package take: names as text or as paths, and no nonsense."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeClip, moving_frames
from test_edit import make_stream

import tokcodec
from tokcodec import batch
from tokcodec.compute import Compute
from tokcodec.language import generate
from tokcodec.pipeline import blas_limited
from tokcodec.scoring.compare import compare

PATHS: dict[str, tuple[tuple[str | list[str], ...], str]] = {  # paths that a function is given, and the one it writes
    "concat": ((["a.tokc", "b.tokc"], "out.tokc"), "out.tokc"),
    "decode_video": (("a.tokc", "out.y4m"), "out.y4m"),
    "encode_video": (("in.mp4", "out.tokc"), "out.tokc"),
    "export_shards": ((["a.tokc"], "out-%d.tar"), "out-0.tar"),
    "export_tokens": (("a.tokc", "out.npz"), "out.npz"),
    "import_tokens": (("a.npz", "out.tokc"), "out.tokc"),
    "open_stream": (("a.tokc",), ""),
    "trim": (("a.tokc", "out.tokc"), "out.tokc"),
    "verify": (("a.tokc",), ""),
}


@pytest.fixture
def folder(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, make_clip: MakeClip) -> Path:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    make_stream(tmp_path / "a.tokc", [5])
    make_stream(tmp_path / "b.tokc", [5])
    tokcodec.export_tokens(tmp_path / "a.tokc", tmp_path / "a.npz")
    make_clip("in.mp4", moving_frames(2))
    return tmp_path


@pytest.mark.parametrize("name", [name for name in tokcodec.__all__ if inspect.isfunction(getattr(tokcodec, name))])
def test_a_path_may_be_text(name: str, folder: Path) -> None:
    arguments, made = PATHS[name]
    written = []
    for kind in (str, Path):
        call = getattr(tokcodec, name)(*([*map(kind, a)] if isinstance(a, list) else kind(a) for a in arguments))
        if hasattr(call, "__enter__"):
            with call as stream:
                assert stream.count() == 5
        elif made:
            written.append((folder / made).read_bytes())
            (folder / made).unlink()
    assert written[:1] == written[1:]


WRONG: dict[str, Callable[[], Any]] = {
    "unknown device 'gpu'": lambda: tokcodec.encode_video("none.mp4", "out.tokc", compute=Compute("gpu")),
    "unknown device 'tpu'": lambda: tokcodec.decode_video("none.tokc", "out.mp4", compute=Compute("tpu")),
    "unknown device 'npu'": lambda: tokcodec.open_stream("none.tokc", compute=Compute("npu")).__enter__(),
    "unknown device 'ipu'": lambda: compare("none.mp4", "none.mp4", compute=Compute("ipu")),
    "unknown device 'xpu'": lambda: generate.predict("none.tokc", "out.tokc", 1.0, model="lm", compute=Compute("xpu")),
    "unknown device 'dsp'": lambda: batch.run("none", "out", compute=Compute("dsp")),
    "unknown dtype 'int8'": lambda: tokcodec.decode_video("none.tokc", "out.mp4", compute=Compute(dtype="int8")),
    "unknown dtype 'int4'": lambda: tokcodec.encode_video("none.mp4", "out.tokc", compute=Compute(dtype="int4")),
    "crf must be 0 to 51, not 99": lambda: tokcodec.decode_video("none.tokc", "out.mp4", crf=99),
    "crf must be 0 to 51, not -1": lambda: batch.Decode(crf=-1),
    "at least 1, not -1": lambda: tokcodec.encode_video("none.mp4", "out.tokc", compute=Compute(threads=-1)),
    "at least 1, not -2": lambda: tokcodec.decode_video("none.tokc", "out.mp4", compute=Compute(threads=-2)),
    "at least 1, not 0": lambda: tokcodec.export_shards(["none.tokc"], "out-%d.tar", cores=0),
    "at least 1, not -3": lambda: batch.Crew(jobs=-3),
    "no stream to join": lambda: tokcodec.concat([], "out.tokc"),
    "a.mp4: a stream is no .mp4 file; its name ends in .tokc": lambda: tokcodec.encode_video("none.mp4", "a.mp4"),
    "a.MKV: a stream is no .mkv file": lambda: tokcodec.trim("none.tokc", "a.MKV"),
    "a.png: a stream is no .png file": lambda: tokcodec.concat(["none.tokc"], "a.png"),
    "a.npz: a stream is no .npz file": lambda: tokcodec.import_tokens("none.npz", "a.npz"),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_mistake_of_the_caller_is_told_before_anything_is_read(message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_cores_hold_for_products_of_matrices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    seen = []
    with threadpool_limits(3, user_api="blas"):
        before = threads()
        tokcodec.encode_video(
            "in.mp4", "out.tokc", compute=Compute(threads=1), progress=lambda *_: seen.append(threads())
        )
        assert seen[0] == {1}
        with blas_limited(2), blas_limited(1):
            assert threads() == {1}
        assert threads() == before
