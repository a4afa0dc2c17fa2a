"""Tokens as a PyTorch data set."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from test_edit import make_stream
from torch.utils.data import DataLoader

import tokcodec
from tokcodec import TokcodecError, stream_reader
from tokcodec.stream.entropy import frame_step
from tokcodec.tokens.dataset import TokenDataset

LENGTHS = {"one": [33, 9, 4], "two": [17, 1]}


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    for seed, (name, lengths) in enumerate(LENGTHS.items()):
        make_stream(tmp_path / f"{name}.tokc", lengths, seed=seed, chunk_frames=33)
    return tmp_path


def test_chunks_are_what_the_stream_holds(streams: Path) -> None:
    data = TokenDataset(streams)
    assert [path.name for path in data.streams] == ["one.tokc", "two.tokc"]
    assert len(data) == 5
    items = iter(data)
    for number, path in enumerate(data.streams):
        with tokcodec.open_stream(path) as stream:
            for chunk, tokens in enumerate(stream.tokens()):
                item, frames = next(items), tokens.levels.shape[1]
                assert item["levels"].dtype == item["motion"].dtype == torch.int16
                assert np.array_equal(item["levels"], tokens.levels)
                assert item["motion"].shape == (frames, 5, *tokens.motion.shape[2:])
                assert not item["motion"][0].any()
                assert np.array_equal(item["motion"][1:], tokens.motion)
                assert item["steps"].dtype == torch.float32
                step = stream.chunks[chunk].step
                assert item["steps"].tolist() == [frame_step(step, n) / 16 for n in tokens.numbers]
                assert item["first"]
                assert [int(item[name]) for name in ("stream", "chunk", "frame")] == [number, chunk, 0]
    assert data[-1]["stream"] == 1
    with pytest.raises(IndexError):
        data[5]


def test_places_say_what_a_frame_is_predicted_from(tmp_path: Path) -> None:
    """Frames back to either reference, and the depth in the pyramid."""
    make_stream(tmp_path / "a.tokc", [8], spans=4)
    (item,) = TokenDataset(tmp_path / "a.tokc")
    assert item["places"].dtype == torch.int64
    assert item["places"].tolist() == [
        [0, 0, 0],  # the first frame
        [1, -1, 2],
        [2, -2, 1],
        [1, -1, 2],
        [4, 0, 0],  # an anchor, without one before
        [1, -1, 1],
        [2, 6, 0],  # of a span of two, behind one of four
        [1, 3, 0],
    ]


@pytest.mark.parametrize(
    ("frames", "stride", "starts"),
    [
        (9, None, [(0, 0, 0), (0, 0, 9), (0, 0, 18), (0, 1, 0), (1, 0, 0)]),
        (16, 8, [(0, 0, 0), (0, 0, 8), (0, 0, 16), (1, 0, 0)]),
        (1, 16, [(0, 0, 0), (0, 0, 16), (0, 0, 32), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 0, 16), (1, 1, 0)]),
    ],
)
def test_windows_are_parts_of_chunks(
    frames: int, stride: int | None, starts: list[tuple[int, int, int]], streams: Path
) -> None:
    chunks = {(int(item["stream"]), int(item["chunk"])): item for item in TokenDataset(streams)}
    data = TokenDataset(streams, frames, stride)
    assert len(data) == len(starts)
    for item, (stream, chunk, frame) in zip(data, starts, strict=True):
        whole, window = chunks[stream, chunk], slice(frame, frame + frames)
        assert torch.equal(item["levels"], whole["levels"][:, window])
        for name in ("motion", "places", "steps"):
            assert torch.equal(item[name], whole[name][window])
        assert (int(item["frame"]), bool(item["first"])) == (frame, frame == 0)


def test_workers_load_the_same(streams: Path) -> None:
    data = TokenDataset(streams, 8)
    alone = list(DataLoader(data, batch_size=3))
    together = list(DataLoader(data, batch_size=3, num_workers=2))
    assert alone[0]["levels"].shape == (3, *data[0]["levels"].shape)
    assert len(alone) == len(together) == 3  # 4, 1 and 2 windows
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_chunk_is_decoded_once_as_long_as_it_is_held(streams: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def counted(chunk: object, *args: object) -> object:
        decoded.append(chunk.frames)
        return stream_reader.tokens_of(chunk, *args)

    monkeypatch.setattr("tokcodec.tokens.dataset.tokens_of", counted)
    list(TokenDataset(streams, 4, cache_bytes=0))
    assert decoded == [33, 9, 4, 17]
    data = TokenDataset(streams, 4)
    assert len(pickle.dumps(data)) < 10_000
    list(data)
    assert len(pickle.dumps(data)) < 10_000  # what is held stays here
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[3]["levels"], data[3]["levels"])
    decoded.clear()
    list(data)
    assert decoded == []
    small = TokenDataset(streams, 4, cache_bytes=0)
    for i in (0, -1, 0, -1):
        small[i]
    assert decoded == [33, 17, 33, 17]


def test_what_cannot_be_loaded(streams: Path, tmp_path: Path) -> None:
    for frames, stride in [(0, None), (2, 0), (None, 2)]:
        with pytest.raises(ValueError, match="cannot be"):
            TokenDataset(streams, frames, stride)
    with pytest.raises(TokcodecError, match="34 frames"):
        TokenDataset(streams, 34)
    with pytest.raises(TokcodecError, match="no such file"):
        TokenDataset(tmp_path / "none")
    (tmp_path / "text.tokc").write_text("no stream")
    with pytest.raises(TokcodecError, match=r"text\.tokc: this is not a \.tokc stream"):
        TokenDataset(streams)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_chunk_names_its_stream(workers: int, streams: Path) -> None:
    path = streams / "two.tokc"
    with tokcodec.open_stream(path) as stream:
        place = stream.chunks[0].offset + 40
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(TokcodecError, match=r"two\.tokc: .*checksum"):
        list(DataLoader(TokenDataset([path]), batch_size=None, num_workers=workers))
