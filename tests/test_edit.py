"""Streams cut, joined and turned into arrays, without the network."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeClip, moving_frames, times_of, with_sound
from safetensors.numpy import load_file, save_file

import tokcodec
from tokcodec import BitstreamError, Rate, TokcodecError, edit
from tokcodec.bitstream import Chunk, Header, Writer

HEADER = Header(
    width=40, height=24, chunk_frames=9, weights_sha256=bytes(range(32)), token_bits=16, time_base=Fraction(1, 50)
)


def make_stream(path: Path, lengths: list[int], k: int = 16, first_pts: int = 7, seed: int = 0) -> Path:
    """A stream of random tokens, two ticks a frame."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        writer = Writer(file, HEADER)
        pts = first_pts
        for frames in lengths:
            bits = rng.random(HEADER.bits_shape(frames, k)) < 0.3
            writer.write_chunk(Chunk.from_bits(bits, tuple(range(pts, pts + 2 * frames, 2)), 2))
            pts += 2 * frames
        writer.close()
    return path


def chunks(path: Path) -> list[Chunk]:
    with edit.reading(path) as reader:
        return list(edit.chunks_of(reader))


def bits(path: Path) -> list[np.ndarray]:
    return [chunk.bits(HEADER) for chunk in chunks(path)]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_describe_is_what_was_written(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 4])
    facts = edit.describe(path)
    assert (facts["frames"], facts["chunks"], facts["width"], facts["height"]) == (22, 3, 40, 24)
    assert facts["duration_s"] == 44 / 50
    assert facts["bytes"] == path.stat().st_size
    assert facts["bpp"] == pytest.approx(8 * path.stat().st_size / (40 * 24 * 22), abs=1e-6)
    assert facts["weights_sha256"] == bytes(range(32)).hex()


def test_trim_keeps_whole_chunks_and_starts_at_zero(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 9, 4])
    report = edit.trim(path, tmp_path / "b.tokc", start_s=0.4, duration_s=0.4)  # ticks 20 to 40, chunks of 18
    assert report.frames == 18
    kept = chunks(tmp_path / "b.tokc")
    assert [c.pts[0] for c in kept] == [0, 18]
    assert same(bits(tmp_path / "b.tokc"), bits(path)[1:2] + bits(path)[2:3])
    assert [c.payload for c in kept] == [c.payload for c in chunks(path)[1:3]]
    with pytest.raises(TokcodecError, match="no frames"):
        edit.trim(path, tmp_path / "c.tokc", start_s=60)
    assert not (tmp_path / "c.tokc").exists()


def test_concat_of_the_parts_is_the_whole(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 9, 4], first_pts=0)
    edit.trim(path, tmp_path / "b.tokc", duration_s=0.2)
    edit.trim(path, tmp_path / "c.tokc", start_s=0.4)
    edit.concat([tmp_path / "b.tokc", tmp_path / "c.tokc"], tmp_path / "d.tokc")
    assert (tmp_path / "d.tokc").read_bytes() == path.read_bytes()


def test_concat_refuses_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = make_stream(tmp_path / "a.tokc", [9])
    monkeypatch.setattr("test_edit.HEADER", Header(48, 24, 9, bytes(32), 16, Fraction(1, 50)))
    b = make_stream(tmp_path / "b.tokc", [9])
    with pytest.raises(TokcodecError, match=r"b\.tokc: its width is not that of .*a\.tokc"):
        edit.concat([a, b], tmp_path / "c.tokc")
    assert not (tmp_path / "c.tokc").exists()


def test_thin_keeps_a_prefix_of_the_bits(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 4])
    for k in (1, 5, 16, 64):
        edit.thin(path, tmp_path / "b.tokc", Rate(token_bits=k), overwrite=True)
        assert same(bits(tmp_path / "b.tokc"), [b[:k] for b in bits(path)])
        assert [c.pts for c in chunks(tmp_path / "b.tokc")] == [c.pts for c in chunks(path)]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_tokens_out_and_in_again(tmp_path: Path, suffix: str) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 4])
    arrays = tmp_path / f"a{suffix}"
    edit.export_tokens(path, arrays)
    data = dict(np.load(arrays)) if suffix == ".npz" else load_file(arrays)
    assert data["bits"].dtype == np.bool_
    assert data["bits"].shape == (3 + 3 + 2, 2, 3, 16)
    assert np.array_equal(data["bits"][3:6], bits(path)[1].transpose(1, 2, 3, 0))
    assert data["chunks"].tolist() == [[0, 3, 9, 16], [3, 3, 9, 16], [6, 2, 4, 16]]
    assert data["pts"].tolist() == list(range(7, 7 + 44, 2))
    edit.import_tokens(arrays, tmp_path / "b.tokc")
    assert (tmp_path / "b.tokc").read_bytes() == path.read_bytes()


def test_tokens_of_chunks_with_different_bits(tmp_path: Path) -> None:
    a, b = make_stream(tmp_path / "a.tokc", [9]), make_stream(tmp_path / "b.tokc", [9], k=5)
    edit.concat([a, b], tmp_path / "c.tokc")
    edit.export_tokens(tmp_path / "c.tokc", tmp_path / "c.npz")
    edit.import_tokens(tmp_path / "c.npz", tmp_path / "d.tokc")
    assert (tmp_path / "d.tokc").read_bytes() == (tmp_path / "c.tokc").read_bytes()


def test_arrays_that_are_no_tokens(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 4])
    edit.export_tokens(path, tmp_path / "good.safetensors")
    good = load_file(tmp_path / "good.safetensors")
    bad = {
        "missing": {k: v for k, v in good.items() if k != "pts"},
        "short": good | {"bits": good["bits"][:-1]},
        "flat": good | {"bits": good["bits"].reshape(-1)},
        "times": good | {"pts": good["pts"][:-1]},
        "order": good | {"pts": good["pts"][::-1].copy()},
        "header": good | {"header": good["header"][:-1]},
        "chunks": good | {"chunks": -good["chunks"]},
    }
    for name, arrays in bad.items():
        save_file(arrays, tmp_path / f"{name}.safetensors")
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "pickle.npz", bits=np.array([{}], dtype=object))
    before = set(tmp_path.iterdir())
    for name in [f"{name}.safetensors" for name in bad] + ["text.npz", "pickle.npz", "absent.npz"]:
        with pytest.raises(TokcodecError, match=name):
            edit.import_tokens(tmp_path / name, tmp_path / "b.tokc")
    with pytest.raises(TokcodecError, match=r"\.npz or \.safetensors"):
        edit.export_tokens(path, tmp_path / "a.csv")
    assert set(tmp_path.iterdir()) == before


def test_sound_is_cut_and_joined_with_its_stream(
    make_clip: MakeClip, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    source = with_sound(make_clip("v.mp4", moving_frames(66)), tmp_path / "s.mp4")
    whole, a, b, both = (tmp_path / f"{name}.tokc" for name in ("whole", "a", "b", "both"))
    tokcodec.encode_video(source, whole, device="cpu")
    edit.trim(whole, a, duration_s=1.0)
    edit.trim(whole, b, start_s=1.2)
    edit.concat([a, b], both)
    for stream, expected_s in ((whole, 2.2), (b, 1.1), (both, 2.2)):
        tokcodec.decode_video(stream, tmp_path / "out.mp4", overwrite=True, device="cpu")
        sound = times_of(tmp_path / "out.mp4", "audio")
        assert abs(sound[0]) < 0.03
        assert sound[-1] == pytest.approx(expected_s, abs=0.05)


def test_damage_is_found_by_verify(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 4])
    assert edit.verify(path).frames == 22
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 7):
        data[place] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(BitstreamError, match=r"a\.tokc: "):
            edit.verify(path)
        data[place] ^= 0x10


def test_spans_are_exact_in_decimal_seconds(tmp_path: Path) -> None:
    """0.1 s is no whole float: a chunk that ends there must not count as beyond it."""
    path = make_stream(tmp_path / "a.tokc", [5, 5, 5], first_pts=0)  # 10 ticks a chunk, 0.2 s
    with edit.reading(path) as reader:
        assert edit.span_ticks(reader, 0.1, 0.2) == (5, 15)
        assert edit.overlapping(reader, 0.0, 0.2) == [0]
        assert edit.overlapping(reader, 0.2, 0.2) == [1]
        assert edit.overlapping(reader, 0.1, 0.1 + 0.2) == [0, 1]


def test_damaged_sound_is_one_error(
    make_clip: MakeClip,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    stream = tmp_path / "a.tokc"
    tokcodec.encode_video(with_sound(make_clip("v.mp4", moving_frames(34)), tmp_path / "s.mp4"), stream, device="cpu")
    data = bytearray(stream.read_bytes())
    data[data.index(b"PART") + 100] ^= 1
    stream.write_bytes(data)
    for work in (
        lambda: tokcodec.decode_video(stream, tmp_path / "b.mp4", device="cpu"),
        lambda: edit.trim(stream, tmp_path / "b.tokc", duration_s=1.0),
        lambda: edit.verify(stream),
    ):
        with pytest.raises(BitstreamError, match=r"a\.tokc: the PART record"):
            work()
    assert capfd.readouterr().err == ""
    report = tokcodec.decode_video(stream, tmp_path / "b.mp4", salvage=True, device="cpu")
    assert (report.frames, report.damaged) == (34, 1)
