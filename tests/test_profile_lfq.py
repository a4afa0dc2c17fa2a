"""Streams of integers in every command, and their integers as arrays, shards, items and in memory."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import MakeClip, frames_of, moving_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

import tokcodec
from tokcodec import BitstreamError, Compute, Rate, TokcodecError
from tokcodec.cli import cli
from tokcodec.edit import describe
from tokcodec.stream.profile import Profile
from tokcodec.stream.vocabulary import step_of
from tokcodec.tokens.dataset import TokenDataset

PLAIN = Compute("cpu", "float32", restorer="off")
SMALL = Profile(12, 3)


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


@pytest.fixture
def clip(make_clip: MakeClip) -> Path:
    return make_clip("clip.mkv", moving_frames(10), codec="ffv1", pix_fmt="bgr0")


@pytest.fixture
def stream(clip: Path, tmp_path: Path) -> Path:
    tokcodec.encode_video(clip, tmp_path / "a.tokc", profile=SMALL, rate=Rate(step=24), compute=PLAIN)
    return tmp_path / "a.tokc"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def ints_of(path: Path) -> np.ndarray:
    with tokcodec.open_stream(path) as stream:
        return np.concatenate([*stream.integers()])


def test_there_and_back(stream: Path, clip: Path, tmp_path: Path) -> None:
    facts = describe(stream)
    assert (facts["profile"], facts["bits"], facts["depth"], facts["frames"]) == ("lfq", 12, 3, 10)
    ints = ints_of(stream)
    assert (ints.shape, ints.dtype) == ((10, 3, 4, 4), np.int32)
    tokcodec.verify(stream)
    tokcodec.decode_video(stream, tmp_path / "a.mkv", lossless=True, compute=PLAIN)
    loop = tokcodec.tokens.decode(ints, rate=Rate(step=24), bits=12, size=(48, 64), compute=PLAIN)
    assert np.array_equal(np.stack(frames_of(tmp_path / "a.mkv")), loop)
    error = np.square(loop.astype(float) - np.stack(moving_frames(10))).mean()
    assert error < 500  # 21 dB: these weights have 24 dimensions


@pytest.mark.parametrize("restorer", ["auto", "off"])
def test_commands_take_such_streams(clip: Path, tmp_path: Path, restorer: str) -> None:
    a, b = tmp_path / "a.tokc", tmp_path / "b.tokc"
    compute = ("--device", "cpu", "--dtype", "float32", "--restorer", restorer)
    for command in (
        ("encode", clip, a, "--profile", "lfq", "--bits", 12, "--depth", 3, "--target-psnr", 20, *compute),
        ("info", a),
        ("verify", a),
        ("decode", a, tmp_path / "a.mp4", *compute),
        ("trim", a, b, "--start", 0.1),
        ("concat", a, b, tmp_path / "c.tokc"),
        ("compare", clip, a, *compute),
        ("roundtrip", clip, tmp_path / "r.mp4", "--profile", "lfq", "--stream", tmp_path / "r.tokc", *compute),
        ("tokens", a, tmp_path / "a.npz"),
        ("tokens", tmp_path / "a.npz", tmp_path / "back.tokc"),
    ):
        done = run(*command)
        assert done.exit_code == 0, (command, done.output, done.exception)
    assert (tmp_path / "back.tokc").read_bytes() == a.read_bytes()
    assert "lfq, 3 integers of 12 bits" in run("info", a).output
    assert describe(tmp_path / "c.tokc")["frames"] == 17
    assert (describe(tmp_path / "r.tokc")["bits"], describe(tmp_path / "r.tokc")["depth"]) == Profile()


def test_a_batch_makes_such_streams(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    clip.rename(tmp_path / "videos" / "a.mkv")
    command = ("batch", tmp_path / "videos", tmp_path / "streams", "--jobs", 1, "--device", "cpu")
    assert run(*command, "--profile", "lfq", "--verify").exit_code == 0
    made = tmp_path / "streams" / "a.tokc"
    assert describe(made)["profile"] == "lfq"
    assert "1 finished before" in run(*command, "--profile", "lfq", "--verify").output
    assert (
        run("batch", tmp_path / "streams", tmp_path / "back", "--decode", "--jobs", 1, "--device", "cpu").exit_code == 0
    )
    assert len(frames_of(tmp_path / "back" / "a.mp4")) == 10
    assert "1 finished before" not in run(*command).output  # another profile is another file


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--bits", 12), "--bits is for --profile lfq"),
        (("--depth", 3), "--depth is for --profile lfq"),
        (("--profile", "lfq", "--bits", 13), "an even number of bits from 2 to 30, not 13"),
        (("--profile", "lfq", "--depth", 17), "17 is not in the range"),
        (("--profile", "lfq", "--spans", 8), "--profile lfq has spans of 4 frames"),
        (("--profile", "vq"), "'vq' is not one of"),
    ],
)
def test_options_that_cannot_be(clip: Path, tmp_path: Path, options: tuple[object, ...], text: str) -> None:
    done = run("encode", clip, tmp_path / "x.tokc", *options)
    assert done.exit_code == 2
    assert text in done.stderr
    assert not (tmp_path / "x.tokc").exists()


def test_profiles_do_not_mix(stream: Path, clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tokc"
    tokcodec.encode_video(clip, other, compute=PLAIN)
    with pytest.raises(TokcodecError, match=r"other.tokc: its profile is not that of .*a.tokc"):
        tokcodec.concat([stream, other], tmp_path / "both.tokc")
    with pytest.raises(TokcodecError, match="its profile is not that of"):
        TokenDataset([stream, other])
    with (
        tokcodec.open_stream(stream) as opened,
        pytest.raises(BitstreamError, match=r"lfq of 3 x 12 bits, and the def"),
    ):
        next(opened.tokens())
    with tokcodec.open_stream(other) as opened, pytest.raises(BitstreamError, match="the profile lfq is needed"):
        next(opened.integers())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_integers_alone_make_a_stream(stream: Path, tmp_path: Path, suffix: str) -> None:
    ints, path = ints_of(stream), tmp_path / f"ints{suffix}"
    arrays = {"integers": ints, "bits": np.array([12])}
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    made = tokcodec.import_tokens(path, tmp_path / "b.tokc")
    assert (made.frames, made.width, made.height, float(made.duration_s)) == (
        10,
        64,
        48,
        pytest.approx(1 / 3, abs=1e-3),
    )
    assert np.array_equal(ints_of(tmp_path / "b.tokc"), ints)
    tokcodec.decode_video(tmp_path / "b.tokc", tmp_path / "b.mkv", lossless=True, compute=PLAIN)
    assert np.array_equal(np.stack(frames_of(tmp_path / "b.mkv")), tokcodec.tokens.decode(ints, bits=12, compute=PLAIN))


def test_long_integers_are_cut_into_chunks(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", integers=np.zeros((300, 1, 1, 9), np.int32))
    assert tokcodec.import_tokens(tmp_path / "a.npz", tmp_path / "a.tokc").frames == 300
    with tokcodec.open_stream(tmp_path / "a.tokc") as stream:
        assert [chunk.frames for chunk in stream.chunks] == [129, 129, 42]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"integers": np.full((2, 1, 1, 9), 2**18, np.int32)}, "not below 2^18"),
        ({"integers": np.zeros((2, 1, 1, 9), np.int64)}, "not int32"),
        ({"integers": np.zeros((2, 1, 9), np.int32)}, "not [frames, rows, columns, streams]"),
        ({"integers": np.zeros((2, 1, 1, 1), np.int32)}, "1 to 16 integers, not 0"),
        ({"integers": np.zeros((0, 1, 1, 9), np.int32)}, "no chunks"),
        ({"bits": np.array([7])}, "an even number of bits"),
        ({"chunks": np.array([[0, 3]])}, "more frames than the integers"),
        ({"chunks": np.array([[0, 1]])}, "do not use all frames"),
        ({"pts": np.array([5, 5])}, "timestamps do not increase"),
        ({"step": np.array([0])}, "step must be"),
    ],
)
def test_other_arrays_are_refused_in_a_line(tmp_path: Path, change: dict[str, np.ndarray], text: str) -> None:
    np.savez(tmp_path / "a.npz", **{"integers": np.zeros((2, 1, 1, 9), np.int32)} | change)
    with pytest.raises(TokcodecError) as caught:
        tokcodec.import_tokens(tmp_path / "a.npz", tmp_path / "a.tokc")
    assert text in str(caught.value)
    assert not (tmp_path / "a.tokc").exists()


def test_shards_hold_integers(stream: Path, tmp_path: Path) -> None:
    tokcodec.export_shards([stream], tmp_path / "s-%06d.tar")
    with tarfile.open(tmp_path / "s-000000.tar") as tar:
        parts = {name.split(".", 1)[1]: tar.extractfile(name) for name in tar.getnames()}
        assert sorted(parts) == ["integers.npy", "json"]
        assert parts["integers.npy"] is not None
        assert parts["json"] is not None
        assert np.array_equal(np.load(io.BytesIO(parts["integers.npy"].read())), ints_of(stream))
        facts = json.loads(parts["json"].read())
    assert (facts["profile"], facts["bits"], facts["depth"]) == ("lfq", 12, 3)


def test_items_of_the_data_set_hold_integers(stream: Path) -> None:
    data = TokenDataset(stream, frames=4)
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert (batch["integers"].shape, batch["integers"].dtype) == ((2, 4, 3, 4, 4), torch.int32)
    assert np.array_equal(batch["integers"].reshape(8, 3, 4, 4), ints_of(stream)[:8])
    assert batch["steps"][0, 0] == step_of(None, 24 * 16, SMALL) / 16
    assert batch["places"][0].tolist() == [[0, 0, 0], [1, -1, 2], [2, -2, 1], [1, -1, 2]]


def test_two_lines_there_and_back() -> None:
    frames = np.stack(moving_frames(5))
    ints = tokcodec.tokens.encode(frames)
    assert tokcodec.tokens.decode(ints, compute=PLAIN).shape == frames.shape
    image = tokcodec.tokens.encode(frames[:1])
    assert np.array_equal(image, ints[:1])
    batched = tokcodec.tokens.encode(torch.from_numpy(np.stack([frames, frames[::-1]])), depth=2)
    assert (batched.shape, batched.dtype) == ((2, 5, 3, 4, 3), torch.int32)
    shown = tokcodec.tokens.decode(batched.long(), compute=PLAIN, size=(40, 50))
    assert (shown.shape, shown.dtype) == ((2, 5, 40, 50, 3), torch.uint8)
    one = tokcodec.tokens.decode(batched[1].numpy(), compute=PLAIN, size=(40, 50))
    assert np.array_equal(shown[1], one)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 15), st.integers(1, 16), st.integers(1, 6))
def test_any_integers_are_frames(seed: int, half: int, depth: int, frames: int) -> None:
    widths = np.array(Profile(2 * half, depth).widths)
    ints = np.random.default_rng(seed).integers(0, 2**widths, (frames, 1, 2, depth + 1))
    assert tokcodec.tokens.decode(ints, bits=2 * half, compute=PLAIN).shape == (frames, 16, 32, 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ints": np.full((1, 1, 1, 9), 2**18)}, r"not below 2\^18"),
        ({"ints": np.full((1, 1, 1, 9), 2**40)}, r"not below 2\^18"),
        ({"ints": np.full((1, 1, 1, 9), -1)}, r"not below 2\^18"),
        ({"ints": np.zeros((1, 1, 1, 9))}, "tokens are float64"),
        ({"size": (17, 16)}, "have no grid of 1x1"),
        ({"bits": 3}, "an even number"),
        ({"rate": Rate(bitrate_kbps=100)}, "a step or a quality is needed"),
    ],
)
def test_mistakes_in_python_are_value_errors(change: dict[str, object], text: str) -> None:
    arguments: dict[str, object] = {"ints": np.zeros((1, 1, 1, 9), np.int32)} | change
    with pytest.raises(ValueError, match=text):
        tokcodec.tokens.decode(arguments.pop("ints"), **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not uint8"):
        tokcodec.tokens.encode(np.zeros((1, 16, 16, 3)))


def test_a_damaged_stream_is_refused_in_a_line(stream: Path, tmp_path: Path) -> None:
    data = bytearray(stream.read_bytes())
    data[-80] ^= 255
    (tmp_path / "bad.tokc").write_bytes(data)
    with pytest.raises(BitstreamError, match=r"bad.tokc"):
        tokcodec.verify(tmp_path / "bad.tokc")
