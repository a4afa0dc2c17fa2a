"""weights/: one file for network and tables, named by its bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from tokcodec import weights as module
from tokcodec.errors import ModelError
from tokcodec.restorer.network import Restorer, RestorerConfig
from tokcodec.weights import Weights, find_weights, save_weights

TINY = RestorerConfig(channels=(16, 16), blocks=(1, 1, 0), features=4, pixel_channels=16, pixel_blocks=1)
ARRAYS = {
    "klt.first": np.arange(12, dtype=np.int16).reshape(3, 4),
    "klt.next": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3).T,
    "coder.levels": np.array([1, 65535], np.uint16),
    "coder.none": np.zeros((0, 2), np.int64),
    "klt.number": np.array(2.5, np.float32),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    save_weights(path, Restorer(TINY), ARRAYS, {"steps": "7"})
    return path


def test_what_is_written_is_read(file: Path) -> None:
    weights = Weights.load(file)
    assert weights.sha256 == hashlib.sha256(file.read_bytes()).digest()
    assert weights.note == {"steps": "7"}
    assert weights.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert weights.arrays[name].dtype == array.dtype
        assert weights.arrays[name].shape == array.shape
        assert np.array_equal(weights.arrays[name], array)
    network = weights.restorer()
    torch.manual_seed(0)
    written = Restorer(TINY).state_dict()
    assert network.config == TINY
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, written[name].half().float()), name


def test_a_file_holds_a_network_of_each_tier(tmp_path: Path) -> None:
    path, small = tmp_path / "w.safetensors", dataclasses.replace(TINY, features=2)
    networks = {"full": Restorer(TINY), "fast": Restorer(small)}
    save_weights(path, networks, ARRAYS)
    weights = Weights.load(path)
    assert list(weights.configs) == ["full", "fast"]
    assert weights.arrays.keys() == ARRAYS.keys()
    for tier, written in networks.items():
        read = weights.restorer(tier)
        assert read.config == written.config
        assert all(torch.equal(v, written.state_dict()[k].half().float()) for k, v in read.state_dict().items())
    save_weights(path, networks["fast"], ARRAYS)
    with pytest.raises(ModelError, match="hold no fast restorer"):
        Weights.load(path).restorer("fast")


def test_the_network_lies_in_half_precision(file: Path) -> None:
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    dtypes = {value["dtype"] for name, value in header.items() if name.startswith("restorer.")}
    assert dtypes == {"F16"}
    assert list(header["__metadata__"]) == ["tokcodec"]


def test_bytes_that_are_known_are_not_read_again(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    assert Weights.load(copy) is Weights.load(file)
    save_weights(copy, None, ARRAYS)
    assert Weights.load(copy) is not Weights.load(file)


def test_tables_are_read_without_torch(file: Path) -> None:
    code = (
        "import sys; from tokcodec.weights import Weights; w = Weights.load(sys.argv[1]); "
        "assert len(w.arrays) == 5; sys.exit('torch' in sys.modules)"
    )
    root = Path(module.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, file], cwd=root).returncode == 0


def test_tables_cannot_be_changed_by_accident(file: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Weights.load(file).arrays["klt.first"][0] = 1


def test_weights_of_tables_alone(tmp_path: Path) -> None:
    path = tmp_path / "tables.safetensors"
    save_weights(path, None, ARRAYS, {"of": "tables"})
    weights = Weights.load(path)
    assert weights.configs == {}
    with pytest.raises(ModelError, match=r"tables\.safetensors: these weights hold no full restorer"):
        weights.restorer()
    with pytest.raises(ValueError, match="restorer"):
        save_weights(path, None, {"restorer.x": np.zeros(1)})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        save({"a": np.zeros(1)}),
        save({"a": np.zeros(1)}, {"tokcodec": "{"}),
        save({"a": np.zeros(1)}, {"tokcodec": "[]"}),
        save({"a": np.zeros(1)}, {"other": "{}"}),
    ],
)
def test_a_file_that_is_no_weights_is_one_clear_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"bad\.safetensors: not tokcodec weights"):
        Weights.load(path)
    with pytest.raises(ModelError, match="cannot read weights: No such file"):
        Weights.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("config", ['{"features": 5}', '{"dims": 32}', "3", '{"features": "many"}'])
def test_a_network_of_another_shape_is_one_clear_error(config: str, file: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    tensors = {"restorer.full.stem.bias": np.zeros(3, np.float16)}
    path.write_bytes(save(tensors, {"tokcodec": f'{{"restorers": {{"full": {config}}}}}'}))
    with pytest.raises(ModelError, match=r"other\.safetensors: cannot use the network"):
        Weights.load(path).restorer()


def test_cut_files_are_refused(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match="not tokcodec weights"):
        Weights.load(path)


def test_weights_are_found_by_name_environment_and_release(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = tmp_path / "released"
    released.mkdir()
    monkeypatch.setattr(module, "RELEASED", released)
    monkeypatch.delenv("TOKCODEC_WEIGHTS", raising=False)
    with pytest.raises(ModelError, match="no weights are installed"):
        find_weights()
    for name in ("a", "b"):
        save_weights(released / f"{name}.safetensors", None, ARRAYS, {"name": name})
    assert find_weights() == released / "a.safetensors"
    second = Weights.load(released / "b.safetensors").sha256
    assert find_weights(sha256=second) == released / "b.safetensors"
    assert find_weights(file) == file
    with pytest.raises(ModelError, match=r"other weights .* than w\.safetensors"):
        find_weights(file, second)
    with pytest.raises(ModelError, match=r"than a\.safetensors or b\.safetensors"):
        find_weights(sha256=bytes(32))
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(file))
    assert find_weights() == file
