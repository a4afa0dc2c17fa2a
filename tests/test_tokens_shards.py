"""Tokens of many streams as WebDataset shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_edit import make_stream

from tokcodec import ExistsError, TokcodecError, export_shards, open_stream
from tokcodec.cli import cli
from tokcodec.stream.metadata import Metadata
from tokcodec.weights import Weights, find_weights

# The webdataset package leaves its files to the collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))


@pytest.fixture
def streams(tmp_path: Path) -> Path:
    """A folder of three streams of 3, 1 and 2 chunks, in two folders, one with a dot in its name."""
    root = tmp_path / "streams"
    (root / "a").mkdir(parents=True)
    (root / ".tokcodec").mkdir()
    make_stream(root / "one.tokc", [9, 9, 4], metadata=Metadata({"title": "Été"}))
    make_stream(root / "a" / "two.v2.tokc", [1], seed=1, width=48)
    make_stream(root / "a" / "three.tokc", [5, 1], seed=2)
    make_stream(root / ".tokcodec" / "unfinished.tokc", [5])
    return root


def samples(paths: list[Path]) -> Iterator[dict[str, object]]:
    """What the webdataset package reads."""
    import webdataset

    yield from webdataset.WebDataset([str(path) for path in paths], shardshuffle=False).decode()


def test_webdataset_reads_what_the_streams_hold(streams: Path, tmp_path: Path) -> None:
    made = export_shards([streams], tmp_path / "out" / "shard-%06d.tar")
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == ["shard-000000.tar"]
    assert (made.streams, made.failed, made.samples, made.frames, made.shards) == (3, {}, 6, 29, 1)
    assert made.bytes == paths[0].stat().st_size
    found = {sample["__key__"]: sample for sample in samples(paths)}
    keys = ["a/three/000000", "a/three/000001", "a/two.v2/000000", "one/000000", "one/000001", "one/000002"]
    assert list(found) == keys
    for key in keys:
        name, number = key.rsplit("/", 1)
        with open_stream(streams / f"{name}.tokc") as stream:
            tokens = list(stream.tokens())[int(number)]
            entry, header = stream.chunks[int(number)], stream.header
        sample, facts = found[key], found[key]["json"]
        assert np.array_equal(sample["levels.npy"], tokens.levels)
        assert sample["levels.npy"].dtype in (np.int8, np.int16)
        assert np.array_equal(sample["motion.npy"], tokens.motion)
        assert sample["motion.npy"].dtype == np.int16
        assert np.array_equal(sample["spans.npy"], tokens.spans)
        assert np.array_equal(sample["numbers.npy"], tokens.numbers)
        assert sample["spans.npy"].dtype == sample["numbers.npy"].dtype == np.uint8
        assert (facts["stream"], facts["chunk"], facts["frames"]) == (name, int(number), entry.frames)
        assert (facts["width"], facts["height"], facts["step"]) == (header.width, header.height, entry.step / 16)
        assert facts["pts"][0] == entry.first_pts
        assert facts["pts"][-1] + facts["duration"] == entry.end_pts
        assert (facts["time_base"], facts["weights_sha256"]) == ("1/50", Weights.load(find_weights()).sha256.hex())
        assert facts["tags"] == ({"title": "Été"} if name == "one" else {})


def test_shards_are_bounded_and_always_the_same(streams: Path, tmp_path: Path) -> None:
    export_shards([streams], tmp_path / "one" / "%d.tar")
    whole = (tmp_path / "one" / "0.tar").read_bytes()
    cases = [({"shard_samples": 4}, [4, 2]), ({"shard_samples": 1}, 6 * [1]), ({"shard_bytes": 1}, 6 * [1])]
    for limits, counts in cases:
        export_shards([streams], tmp_path / "n" / "%d.tar", overwrite=True, cores=2, **limits)
        assert [len(names_in(path)) for path in sorted((tmp_path / "n").iterdir())] == [5 * count for count in counts]
    most = 40960
    made = export_shards([streams], tmp_path / "n" / "%d.tar", overwrite=True, shard_bytes=most)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "n").iterdir())]
    assert 1 < made.shards == len(sizes) < 6  # those of the longer sets before are gone
    assert max(sizes) <= most
    assert sum(sizes) == made.bytes
    export_shards([streams], tmp_path / "again-%d.tar")
    assert (tmp_path / "again-0.tar").read_bytes() == whole


def test_long_names_count_too(tmp_path: Path) -> None:
    """A name of more than a hundred letters has two blocks of its own."""
    for i in range(3):
        make_stream(tmp_path / f"{120 * 'n'}{i}.tokc", [9, 4], seed=i)
    for most in range(10240, 61441, 10240):
        export_shards([tmp_path], tmp_path / "n" / "%d.tar", overwrite=True, shard_bytes=most)
        sizes = {path: path.stat().st_size for path in (tmp_path / "n").iterdir()}
        assert all(size <= most or len(names_in(path)) == 5 for path, size in sizes.items())


def names_in(shard: Path) -> list[str]:
    with tarfile.open(shard) as tar:
        return tar.getnames()


def test_sets_of_shards_stand_side_by_side_and_are_not_overwritten(streams: Path, tmp_path: Path) -> None:
    export_shards([streams / "one.tokc"], tmp_path / "out" / "train-%03d.tar")
    export_shards([streams / "a" / "three.tokc"], tmp_path / "out" / "val-%03d.tar")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(before) == {"train-000.tar", "val-000.tar"}
    assert names_in(tmp_path / "out" / "val-000.tar")[0] == "three/000000.levels.npy"
    with pytest.raises(ExistsError, match=r"out: holds files called val-%03d\.tar already"):
        export_shards([streams], tmp_path / "out" / "val-%03d.tar")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("name", ["shard.tar", "shard-%d.zip", "%d-%d.tar", "%s.tar", "%5.tar"])
def test_names_of_shards_need_a_place_for_a_number(name: str, streams: Path, tmp_path: Path) -> None:
    with pytest.raises(TokcodecError, match="pattern of names such as"):
        export_shards([streams], tmp_path / name)


def test_streams_of_one_name_are_refused(streams: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (streams / "one.tokc").rename(other / "one.tokc")
    make_stream(streams / "one.tokc", [4])
    with pytest.raises(TokcodecError, match=r"one\.tokc would have the same keys; give a folder that holds both"):
        export_shards([streams, other], tmp_path / "out" / "%d.tar")
    assert export_shards([tmp_path], tmp_path / "out" / "%d.tar").streams == 4
    (tmp_path / "empty").mkdir()
    with pytest.raises(TokcodecError, match="no stream is given"):
        export_shards([], tmp_path / "new" / "%d.tar")
    for missing, message in [(tmp_path / "none.tokc", "no such file"), (tmp_path / "empty", "holds no stream")]:
        with pytest.raises(TokcodecError, match=message):
            export_shards([missing], tmp_path / "new" / "%d.tar")
    assert not (tmp_path / "new").exists()


def tokens(*args: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["tokens", *map(str, args)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_a_damaged_stream_does_not_stop_the_others(streams: Path, tmp_path: Path) -> None:
    data = bytearray((streams / "one.tokc").read_bytes())
    with open_stream(streams / "one.tokc") as stream:
        data[stream.chunks[1].offset + 40] ^= 1
    (streams / "one.tokc").write_bytes(data)
    (streams / "a" / "two.v2.tokc").write_bytes(b"no stream")
    code, out, err = tokens(streams, "--webdataset", tmp_path / "%d.tar", "--json")
    said = json.loads(out)
    assert code == 1
    assert (said["streams"], said["samples"], set(said["failed"])) == (1, 3, {"one", "a/two.v2"})
    assert "tokcodec: one: " in err
    assert "checksum" in err
    keys = [name for name in names_in(tmp_path / "0.tar") if name.endswith(".json")]
    assert keys == ["a/three/000000.json", "a/three/000001.json", "one/000000.json"]
    with pytest.raises(TokcodecError, match=r"not a \.tokc stream"):
        export_shards([streams / "a" / "two.v2.tokc"], tmp_path / "new" / "%d.tar")
    assert not (tmp_path / "new").exists()


def test_the_command(streams: Path, tmp_path: Path) -> None:
    code, out, err = tokens(streams, "--webdataset", tmp_path / "s-%04d.tar", "--shard-samples", 4)
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/s-%04d.tar: 2 shards, 6 chunks of 3 streams, 29 frames, ")
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["s-0000.tar", "s-0001.tar"]
    for wrong in ([streams / "one.tokc"], [streams, streams, tmp_path / "a.npz"]):
        code, _, err = tokens(*wrong)
        assert code == 2
        assert "one INPUT and one OUTPUT" in err


def test_a_name_that_is_not_utf8_is_a_key(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    make_stream(tmp_path / f"{name}.tokc", [1])
    export_shards([tmp_path], tmp_path / "%d.tar")
    assert [sample["__key__"] for sample in samples([tmp_path / "0.tar"])] == [f"{name}/000000"]


def test_neither_torch_nor_ffmpeg_is_needed(streams: Path, tmp_path: Path) -> None:
    code = (
        "import sys, tokcodec\n"
        "tokcodec.export_shards([sys.argv[1]], sys.argv[2])\n"
        "sys.exit(bool({'torch', 'av'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", code, str(streams), str(tmp_path / "%d.tar")]
    assert subprocess.run(argv, cwd=Path(__file__).parents[1]).returncode == 0
