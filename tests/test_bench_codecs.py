"""The command lines, word by word, and that this FFmpeg's encoders take them and its decoders give the frames back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import MakeClip, moving_frames

from benchmarks.codecs import MODES, decode_argv, encode_argv, encoder_version
from benchmarks.scoring import Video, read_frames, rgb_argv
from benchmarks.tools import Tools, run
from tokcodec.scoring.scores import psnr_db
from tokcodec.scoring.vmaf import ffmpeg_has, find_ffmpeg

TOOLS = Tools("ffmpeg", "tokcodec")
YUV = "scale=out_color_matrix=bt709:out_range=limited:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
TAGS = "-fps_mode passthrough -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv"
TEN, EIGHT = "yuv420p10le", "yuv420p"
GOLDEN = {
    "avc": (EIGHT, "libx264 -preset slow -crf 30 -threads 2 -bsf:v filter_units=remove_types=6 -f h264 out"),
    "hevc-medium": (EIGHT, "libx265 -preset medium -crf 30 -x265-params info=0:pools=2:frame-threads=1 -f hevc out"),
    "hevc-ra": (
        TEN,
        "libx265 -preset slow -tune psnr -crf 30 -x265-params "
        "keyint=33:min-keyint=33:scenecut=0:open-gop=0:info=0:pools=2:frame-threads=1 -f hevc out",
    ),
    "hevc-visual": (TEN, "libx265 -preset slow -crf 30 -x265-params info=0:pools=2:frame-threads=1 -f hevc out"),
    "hevc-ld": (
        TEN,
        "libx265 -preset slow -tune psnr -crf 30 -x265-params "
        "bframes=0:rc-lookahead=0:cutree=0:scenecut=0:keyint=-1:info=0:pools=2:frame-threads=1 -f hevc out",
    ),
    "vvc-ra": (
        TEN,
        "libvvenc -preset medium -qpa 0 -qp 30 -threads 2 "
        "-vvenc-params intraperiod=32:decodingrefreshtype=idr -f vvc out",
    ),
    "vvc-visual": (TEN, "libvvenc -preset medium -qpa 1 -qp 30 -period 10 -threads 2 -f vvc out"),
    "av1": (TEN, "libsvtav1 -preset 4 -crf 30 -svtav1-params lp=2 -f obu out"),
}


@pytest.mark.parametrize("name", MODES)
def test_the_commands_are_these(name: str) -> None:
    encode = " ".join(encode_argv(TOOLS, MODES[name], 30, Path("in.mkv"), Path("out"), threads=2))
    decode = " ".join(decode_argv(TOOLS, MODES[name], Path("out"), Path("seen.mkv"), threads=2))
    if name.startswith("tokcodec"):
        profile = " --profile lfq --depth 16" if name == "tokcodec-lfq" else ""
        assert encode == f"tokcodec encode in.mkv out -f --step 30 --threads 2{profile} --json"
        restorer = {"tokcodec-loop": "off", "tokcodec-fast": "fast"}.get(name, "full")
        assert decode == f"tokcodec decode out seen.mkv --restorer {restorer} --lossless -f --threads 2 --json"
    else:
        pixels, rest = GOLDEN[name]
        head = f"ffmpeg -hide_banner -nostats -y -i in.mkv -vf {YUV},format={pixels}"
        assert encode == f"{head} {TAGS} -c:v {rest}"
        assert decode == "ffmpeg -v error -threads 2 -i out -f null -"


@pytest.mark.parametrize("name", GOLDEN)
def test_the_encoder_takes_them_and_gives_the_frames_back(name: str, make_clip: MakeClip, tmp_path: Path) -> None:
    tools, mode = Tools(find_ffmpeg() or "", "tokcodec"), MODES[name]
    if mode.encoder.name not in ffmpeg_has(tools.ffmpeg, "encoders"):
        pytest.skip(f"this FFmpeg has no {mode.encoder.name}")
    frames = moving_frames(5, 96, 128)
    source = make_clip("source.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    stream = tmp_path / f"stream.{mode.encoder.format}"
    finished = run(encode_argv(tools, mode, mode.encoder.rates[0], source, stream, threads=1))
    run(decode_argv(tools, mode, stream, tmp_path / "unused", threads=1))
    seen = list(read_frames(rgb_argv(tools, Video(stream, rgb=False)), 96, 128))
    assert len(seen) == len(frames)
    mse = np.mean([np.square(a.astype(int) - b).mean() for a, b in zip(seen, frames, strict=True)])
    assert psnr_db(float(mse)) > 30  # a wrong matrix or range would not pass
    assert (encoder_version(finished.stderr) != "") == (name != "avc")
