"""Tokens out of a stream as arrays and in again, without torch and FFmpeg."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_edit import make_stream

from tokcodec import ModelError, TokcodecError, edit, open_stream
from tokcodec.stream.metadata import Chapter, Metadata
from tokcodec.tokens import arrays
from tokcodec.weights import Weights, find_weights, save_weights

METADATA = Metadata({"title": "Été"}, "fra", (Chapter(0, 10, "A"),))


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


@pytest.mark.parametrize("streams", [None, b"\0sound\xff" * 9])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_tokens_out_and_in_again(tmp_path: Path, suffix: str, streams: bytes | None) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 9, 4], metadata=METADATA, streams=streams)
    target = tmp_path / f"a{suffix}"
    arrays.export_tokens(path, target)
    data = dict(np.load(target)) if suffix == ".npz" else load_file(target)
    with open_stream(path) as stream:
        tokens = list(stream.tokens())
    assert data["levels"].dtype in (np.int8, np.int16)
    assert data["levels"].shape == (len(tokens[0].levels), 22, 2, 3)
    assert data["motion"].dtype == np.int16
    assert np.array_equal(data["levels"], np.concatenate([t.levels for t in tokens], 1))
    assert (data["index"].dtype, data["index"].shape) == (np.int32, data["levels"].shape[1:])
    place = tuple(np.argwhere(data["levels"][:9].any(0))[0])
    bits = [(level > 0, level < 0) for level in data["levels"][:9, *place]]
    assert data["index"][place] == sum(2 ** (2 * d + k) for d in range(9) for k in range(2) if bits[d][k]) > 0
    assert np.array_equal(data["motion"], np.concatenate([t.motion for t in tokens]))
    assert (data["spans"].dtype, data["numbers"].dtype) == (np.uint8, np.uint8)
    assert np.array_equal(data["spans"], np.concatenate([t.spans for t in tokens]))
    assert np.array_equal(data["numbers"], np.concatenate([t.numbers for t in tokens]))
    one, two, three = (len(t.spans) for t in tokens)
    assert data["chunks"].tolist() == [
        [0, 9, 0, 8, 0, one],
        [9, 9, 8, 8, one, two],
        [18, 4, 16, 3, one + two, three],
    ]
    assert data["step"].tolist() == [320, 336, 352]
    assert data["pts"].tolist() == list(range(7, 7 + 44, 2))
    assert data["durations"].tolist() == [2, 2, 2]
    header = json.loads(data["header"].tobytes())
    assert (header["format_version"], header["width"], header["time_base"]) == (3, 40, "1/50")
    assert Metadata.unpack(data["metadata"].tobytes()) == METADATA
    assert ("streams" in data, "streams_format" in data) == (streams is not None, streams is not None)
    if streams is not None:
        assert (data["streams"].tobytes(), data["streams_format"].tobytes()) == (streams, b"nut")
    arrays.import_tokens(target, tmp_path / "b.tokc")
    assert (tmp_path / "b.tokc").read_bytes() == path.read_bytes()


def test_an_index_of_other_levels_is_refused(tmp_path: Path) -> None:
    path, target = make_stream(tmp_path / "a.tokc", [9, 4]), tmp_path / "a.npz"
    arrays.export_tokens(path, target)
    data = dict(np.load(target))
    data["index"][4, 1, 2] += 1
    np.savez(target, **data)
    with pytest.raises(TokcodecError, match=r"a\.npz: .*the index is not that of the levels"):
        arrays.import_tokens(target, tmp_path / "b.tokc")
    del data["index"]
    np.savez(target, **data)
    arrays.import_tokens(target, tmp_path / "b.tokc")
    assert (tmp_path / "b.tokc").read_bytes() == path.read_bytes()


def test_small_levels_take_a_byte(tmp_path: Path) -> None:
    assert arrays.narrow(np.array([-128, 127], np.int16)).dtype == np.int8
    assert arrays.narrow(np.array([-129, 127], np.int16)).dtype == np.int16
    assert arrays.narrow(np.array([0, 128], np.int16)).dtype == np.int16


def test_arrays_that_are_no_tokens(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9, 4])
    arrays.export_tokens(path, tmp_path / "good.safetensors")
    good = load_file(tmp_path / "good.safetensors")
    header = json.loads(good["header"].tobytes())

    def text(value: object) -> np.ndarray:
        return np.frombuffer(json.dumps(value).encode(), np.uint8)

    wild = good["motion"].copy()
    wild[0, 2] = 7
    bad = {
        "missing": {k: v for k, v in good.items() if k != "pts"},
        "short": good | {"levels": good["levels"][:, :-1]},
        "thin": good | {"levels": good["levels"][:-1]},
        "flat": good | {"levels": good["levels"].reshape(-1)},
        "float": good | {"levels": good["levels"].astype(np.float32)},
        "fraction": good | {"step": good["step"].astype(np.float64)},
        "still": good | {"motion": good["motion"][:-1]},
        "spans": good | {"spans": good["spans"][:-1]},
        "span": good | {"spans": good["spans"] + np.uint8(2)},
        "spare": good | {"spans": np.append(good["spans"], np.uint8(1))},
        "wide": good | {"spans": good["spans"].astype(np.int64) + 256},
        "numbers": good | {"numbers": good["numbers"] + np.uint8(49)},
        "number": good | {"numbers": good["numbers"][:-1]},
        "minus": good | {"numbers": -good["numbers"].astype(np.int8)},
        "point": good | {"numbers": good["numbers"].astype(np.float32)},
        "wild": good | {"motion": wild},
        "times": good | {"pts": good["pts"][:-1]},
        "order": good | {"pts": good["pts"][::-1].copy()},
        "step": good | {"step": 0 * good["step"]},
        "chunks": good | {"chunks": -good["chunks"]},
        "rows": good | {"chunks": good["chunks"][:1]},
        "none": good | {"chunks": good["chunks"][:0], "step": good["step"][:0], "durations": good["durations"][:0]},
        "header": good | {"header": good["header"][:-1]},
        "version": good | {"header": text(header | {"format_version": 1})},
        "list": good | {"header": text([])},
        "field": good | {"header": text(header | {"extra": 1})},
        "rate": good | {"header": text(header | {"frame_rate": "1/0"})},
        "turned": good | {"header": text(header | {"mirrored": 2})},
        "half": good | {"header": text(header | {"width": 16.5})},
        "primaries": good | {"header": text(header | {"primaries": 1.5})},
        "deep": good | {"header": np.frombuffer(b"[" * 100_000, np.uint8)},
        "steps": good | {"step": good["step"][:, None]},
        "side": good | {"header": text(header | {"width": "wide"})},
        "metadata": good | {"metadata": text([])},
        "sound": good | {"streams": text("sound")},
        "format": good | {"streams": text("sound"), "streams_format": np.frombuffer(b"\xff", np.uint8)},
        "protocol": good | {"streams": text("sound"), "streams_format": np.frombuffer(b"a:b", np.uint8)},
    }
    for name, content in bad.items():
        save_file(content, tmp_path / f"{name}.safetensors")
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "pickle.npz", levels=np.array([{}], dtype=object))
    before = set(tmp_path.iterdir())
    for name in [f"{name}.safetensors" for name in bad] + ["text.npz", "pickle.npz", "absent.npz"]:
        with pytest.raises(TokcodecError, match=name):
            arrays.import_tokens(tmp_path / name, tmp_path / "b.tokc")
    with pytest.raises(TokcodecError, match=r"\.npz or \.safetensors"):
        arrays.export_tokens(path, tmp_path / "a.csv")
    other = tmp_path / "other.safetensors"
    save_weights(other, None, Weights.load(find_weights()).arrays, {"note": "other"})
    with pytest.raises(ModelError, match="other weights"):
        arrays.import_tokens(tmp_path / "good.safetensors", tmp_path / "b.tokc", weights=other)
    other.unlink()
    assert set(tmp_path.iterdir()) == before


def test_joined_streams_have_one_set_of_arrays(tmp_path: Path) -> None:
    a, b = make_stream(tmp_path / "a.tokc", [9]), make_stream(tmp_path / "b.tokc", [5, 1], seed=1)
    edit.concat([a, b], tmp_path / "c.tokc")
    arrays.export_tokens(tmp_path / "c.tokc", tmp_path / "c.npz")
    arrays.import_tokens(tmp_path / "c.npz", tmp_path / "d.tokc")
    assert (tmp_path / "d.tokc").read_bytes() == (tmp_path / "c.tokc").read_bytes()


def test_tokens_are_read_without_torch_and_ffmpeg(tmp_path: Path) -> None:
    path = make_stream(tmp_path / "a.tokc", [9])
    code = (
        "import sys, pathlib, tokcodec\n"
        "path, target = map(pathlib.Path, sys.argv[1:])\n"
        "with tokcodec.open_stream(path) as stream: assert len(list(stream.tokens())) == 1\n"
        "tokcodec.verify(path)\n"
        "tokcodec.export_tokens(path, target)\n"
        "sys.exit(bool({'torch', 'av'} & set(sys.modules)))"
    )
    root = Path(arrays.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code, path, tmp_path / "a.npz"], cwd=root).returncode == 0
