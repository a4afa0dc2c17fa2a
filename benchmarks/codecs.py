"""The codecs in the ring: one table of named modes, and the command lines that run them.

Every codec gets the same lossless 8-bit RGB file. The reference encoders code BT.709 limited-range
4:2:0, converted here with stated matrix and range on both sides; what counts against them is the bare
elementary stream, without container and without the encoder's own SEI banner. tokcodec is charged its
whole file.

Threads inside a frame only (`frame-threads=1`): it compresses best, and the result does not depend on
the machine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools import Tools
from tokcodec.scoring.vmaf import YUV_FROM_RGB

LOOP, FAST, LFQ = "tokcodec-loop", "tokcodec-fast", "tokcodec-lfq"
RESTORERS = {"tokcodec": "full", FAST: "fast", LOOP: "off", LFQ: "full"}  # the first three of the same streams
CHUNK_FRAMES = 33  # the "ra" modes have a key frame as often: random access, for which they pay
TAGS = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")


@dataclass(frozen=True)
class Encoder:
    """A program's coder: its name, what turns its rate and the usual steps of it, and its bare stream's format."""

    name: str
    rate_name: str
    rates: tuple[int, ...]
    format: str


TOKENIZER = Encoder("tokcodec", "step", (8, 12, 20, 30, 44, 64), "tokc")
X264 = Encoder("libx264", "crf", (20, 26, 32, 38, 44), "h264")
X265 = Encoder("libx265", "crf", (20, 26, 32, 38, 44), "hevc")
VVENC = Encoder("libvvenc", "qp", (24, 30, 36, 42, 48), "vvc")
SVT_AV1 = Encoder("libsvtav1", "crf", (22, 32, 42, 52, 62), "obu")


@dataclass(frozen=True)
class Mode:
    """One way to run one encoder; `{rate}` and `{threads}` in the options stand for the numbers of the run."""

    name: str
    what: str
    encoder: Encoder
    pixels: str
    options: str
    remark: str = ""  # that stands beside its name in every table


_CLOSED = f"keyint={CHUNK_FRAMES}:min-keyint={CHUNK_FRAMES}:scenecut=0:open-gop=0"
_LOW_DELAY = "bframes=0:rc-lookahead=0:cutree=0:scenecut=0:keyint=-1"
_X265 = "info=0:pools={threads}:frame-threads=1"

_TOKCODEC = "--step {rate} --threads {threads}"

_TABLE = (
    Mode("tokcodec", "this codec, through its own command line", TOKENIZER, "rgb24", _TOKCODEC),
    Mode(FAST, "the same streams behind the small network", TOKENIZER, "rgb24", _TOKCODEC),
    Mode(LOOP, "the same streams by the coding loop alone, without the network", TOKENIZER, "rgb24", _TOKCODEC),
    Mode(
        LFQ,
        "this codec with tokens of a fixed vocabulary, 16 integers of 18 bits a position",
        TOKENIZER,
        "rgb24",
        f"{_TOKCODEC} --profile lfq --depth 16",
    ),
    Mode(
        "avc",
        "x264 slow, 8-bit, its own defaults",
        X264,
        "yuv420p",
        "-preset slow -crf {rate} -threads {threads} -bsf:v filter_units=remove_types=6",
    ),
    Mode(
        "hevc-medium",
        "x265 medium, 8-bit, its own defaults: the anchor of the MAGVIT-v2 paper",
        X265,
        "yuv420p",
        f"-preset medium -crf {{rate}} -x265-params {_X265}",
    ),
    Mode(
        "hevc-ra",
        f"x265 slow, 10-bit, tuned for PSNR, closed GOP of {CHUNK_FRAMES}",
        X265,
        "yuv420p10le",
        f"-preset slow -tune psnr -crf {{rate}} -x265-params {_CLOSED}:{_X265}",
    ),
    Mode(
        "hevc-visual",
        "x265 slow, 10-bit, default psychovisual tuning and GOP of 250",
        X265,
        "yuv420p10le",
        f"-preset slow -crf {{rate}} -x265-params {_X265}",
    ),
    Mode(
        "hevc-ld",
        "x265 slow, 10-bit, tuned for PSNR, low delay: no B-frames, no lookahead, one key frame",
        X265,
        "yuv420p10le",
        f"-preset slow -tune psnr -crf {{rate}} -x265-params {_LOW_DELAY}:{_X265}",
    ),
    Mode(
        "vvc-ra",
        f"VVenC medium, 10-bit, qpa 0 (PSNR), closed GOP of 32, the nearest it has to {CHUNK_FRAMES}",
        VVENC,
        "yuv420p10le",
        "-preset medium -qpa 0 -qp {rate} -threads {threads} -vvenc-params intraperiod=32:decodingrefreshtype=idr",
        "closed GOPs of 32 handicap it by about 30 % of bits",
    ),
    Mode(
        "vvc-visual",
        "VVenC medium, 10-bit, qpa 1 (visual), a key frame every 10 s",
        VVENC,
        "yuv420p10le",
        "-preset medium -qpa 1 -qp {rate} -period 10 -threads {threads}",
    ),
    Mode(
        "av1",
        "SVT-AV1 preset 4, 10-bit, its own defaults",
        SVT_AV1,
        "yuv420p10le",
        "-preset 4 -crf {rate} -svtav1-params lp={threads}",
    ),
)
MODES = {mode.name: mode for mode in _TABLE}


def encode_argv(tools: Tools, mode: Mode, rate: int, source: Path, stream: Path, threads: int) -> list[str]:
    """The command that codes the lossless RGB file `source` to `stream`."""
    options = mode.options.format(rate=rate, threads=threads).split()
    if mode.encoder is TOKENIZER:
        return [tools.tokcodec, "encode", str(source), str(stream), "-f", *options, "--json"]
    convert = ["-vf", f"{YUV_FROM_RGB},format={mode.pixels}", "-fps_mode", "passthrough", *TAGS]
    head = [tools.ffmpeg, "-hide_banner", "-nostats", "-y", "-i", str(source)]
    return [*head, *convert, "-c:v", mode.encoder.name, *options, "-f", mode.encoder.format, str(stream)]


def decode_argv(tools: Tools, mode: Mode, stream: Path, decoded: Path, threads: int) -> list[str]:
    """The command that decodes: tokcodec to the lossless RGB file `decoded`, the others to nothing, for the clock."""
    pair = [str(stream), str(decoded)]
    if mode.encoder is TOKENIZER:
        restorer = ["--restorer", RESTORERS[mode.name]]
        return [tools.tokcodec, "decode", *pair, *restorer, "--lossless", "-f", "--threads", str(threads), "--json"]
    return [tools.ffmpeg, "-v", "error", "-threads", str(threads), "-i", str(stream), "-f", "null", "-"]


def encoder_version(stderr: str) -> str:
    """What the encoder said of itself; empty if nothing (x264 inside FFmpeg is silent)."""
    found = re.search(r"HEVC encoder version (\S+)|libvvenc version: (\S+)|SVT-AV1 Encoder Lib (\S+)", stderr)
    return next(filter(None, found.groups())) if found else ""
