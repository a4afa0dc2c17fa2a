"""Real files as they come: each case was once a traceback, a wrong picture or a wrong time."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import pytest

from tokcodec import edit
from tokcodec.video import VideoReader, VideoWriter

CASES = Path(__file__).parent / "cases"


def read(path: Path | str, **options: object) -> tuple[list[int], VideoReader]:
    """The timestamps of a file's frames, and its reader."""
    with VideoReader(path, **options) as reader:  # type: ignore[arg-type]
        return [pts for _, pts in reader], reader


def run(weights: Path, *arguments: str, stdin: bytes = b"") -> tuple[bytes, str]:
    """What a command that succeeds writes to stdout and to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "tokcodec.cli", *arguments],
        env=os.environ | {"TOKCODEC_WEIGHTS": str(weights), "OMP_NUM_THREADS": "1"},
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.decode()


# Other streams


@pytest.mark.parametrize(("name", "stream"), [("apac_unknown.mp4", "audio"), ("ttml.mp4", "subtitle")])
def test_streams_of_unknown_codec_are_left_out(name: str, stream: str, caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryFile() as side:
        pts, reader = read(CASES / name, side=side)
    assert len(pts) == 15
    assert reader.side_format is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{CASES / name}: {stream} stream 1 (unknown codec) is left out"
    ]


RAW = [("basic.mp4", 15, "audio stream 0 (aac)"), ("subonly.mp4", 10, "subtitle stream 0 (mov_text)")]
Y4M_HEADER = b"YUV4MPEG2 W96 H64 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG XCOLORRANGE=LIMITED\n"


@pytest.mark.parametrize(("name", "frames", "stream"), RAW)
def test_a_raw_target_takes_no_other_streams(
    weights: Path, tmp_path: Path, name: str, frames: int, stream: str
) -> None:
    """Encode | decode | encode through pipes, and files: the sizes are those of the frames alone."""
    coded, _ = run(weights, "encode", str(CASES / name), "-")
    y4m, warning = run(weights, "decode", "-", "-", stdin=coded)
    assert warning.startswith(f"tokcodec: warning: stdout: {stream} is dropped: y4m does not take it\n")
    assert y4m.startswith(Y4M_HEADER)
    assert len(y4m) == len(Y4M_HEADER) + frames * (len("FRAME\n") + 96 * 64 * 3 // 2)
    rgb24, _ = run(weights, "decode", "-", "-", "--format", "rgb24", stdin=coded)
    assert len(rgb24) == frames * 96 * 64 * 3
    run(weights, "decode", "-", str(tmp_path / "a.y4m"), stdin=coded)
    assert (tmp_path / "a.y4m").read_bytes() == y4m
    with av.open(io.BytesIO(y4m)) as container:
        assert [frame.pts for frame in container.decode(video=0)] == list(range(frames))
    again, _ = run(weights, "encode", "-", "-", stdin=y4m)
    (tmp_path / "again.tokc").write_bytes(again)
    facts = edit.describe(tmp_path / "again.tokc")
    assert (facts["frames"], facts["other_streams"]) == (frames, None)


@pytest.mark.parametrize("format", ["y4m", "rgb24", "png"])
def test_a_bare_target_drops_the_other_streams(tmp_path: Path, format: str, caplog: pytest.LogCaptureFixture) -> None:
    """Byte for byte what it is without them."""
    with tempfile.TemporaryFile() as side, VideoReader(CASES / "basic.mp4", side=side) as reader:
        frames, info = list(reader), reader.info
        assert reader.side_format is not None
        for folder, streams in (("with", (side, reader.side_format)), ("without", None)):
            (tmp_path / folder).mkdir()
            target = tmp_path / folder / ("%d.png" if format == "png" else "video")
            with VideoWriter(target, info, format=format, side=streams, name="out") as writer:
                for frame, pts in frames:
                    writer.write(frame, pts)
    written = [{file.name: file.read_bytes() for file in (tmp_path / f).iterdir()} for f in ("with", "without")]
    assert written[0] == written[1]
    assert [record.getMessage() for record in caplog.records] == [
        f"out: audio stream 0 (aac) is dropped: {format} does not take it"
    ]
