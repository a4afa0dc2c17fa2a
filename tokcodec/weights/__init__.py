"""Weights: one safetensors file with all that a decoder must share, found, read and hashed once.

The file holds the arrays of the classical loop as they are (`klt.*`, `coder.*`, any dtype NumPy knows), and the
networks as float16 tensors under `restorer.full.` and `restorer.fast.`, their configurations as JSON in the metadata.
A stream names its weights
by the SHA-256 of this file. Everything but `Weights.restorer` works without torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tokcodec.dtypes import Array
from tokcodec.errors import ModelError

if TYPE_CHECKING:
    from tokcodec.restorer.network import Restorer

RELEASED = Path(__file__).parent
PREFIX = "restorer."
TIERS = ("full", "fast")  # of networks in one file, the best first


class Weights:
    """A weights file in memory.

    Attributes:
        sha256: of the file, 32 bytes: the name a stream knows its weights by.
        arrays: all that is not the network, by name, of any shape and dtype; not to be written to.
        note: what the metadata says in addition to the configuration, such as the steps of the training.
        configs: of its networks, as JSON, by tier.
    """

    _loaded: ClassVar[dict[bytes, Weights]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, data: bytes, name: str) -> None:
        """Read a file's bytes; `name` is for messages.

        Raises:
            ModelError: they are not tokcodec weights.
        """
        self.name = name
        self.sha256 = hashlib.sha256(data).digest()
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            about = dict(json.loads(header["__metadata__"]["tokcodec"]).items())
            self.configs = {str(tier): json.dumps(config) for tier, config in about.pop("restorers", {}).items()}
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{name}: not tokcodec weights: {str(error).partition(chr(10))[0]}") from error
        self.note: dict[str, str] = about
        self.arrays: dict[str, Array] = {k: v for k, v in tensors.items() if not k.startswith(PREFIX)}
        self._networks = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        for array in self.arrays.values():
            array.flags.writeable = False

    @classmethod
    def load(cls, path: str | Path) -> Weights:
        """Read a file; one whose bytes are known already gives the same object again.

        Raises:
            ModelError: the file is missing, damaged, or not tokcodec weights.
        """
        return cls._of(_read(path), str(path))

    @classmethod
    def find(cls, path: str | Path | None = None, sha256: bytes | None = None) -> Weights:
        """`find_weights` and `load` in one: what was checked is what is used, also where the file changes meanwhile.

        Raises:
            ModelError: as both.
        """
        found, data = _find(path, sha256)
        return cls._of(data, str(found))

    @classmethod
    def _of(cls, data: bytes, name: str) -> Weights:
        sha256 = hashlib.sha256(data).digest()
        with cls._lock:
            if sha256 not in cls._loaded:
                cls._loaded[sha256] = cls(data, name)
            return cls._loaded[sha256]

    def restorer(self, tier: str = "full") -> Restorer:
        """A new network with these weights, float32, on the CPU, in eval mode.

        Args:
            tier: one of TIERS.

        Raises:
            ModelError: the file holds none, or one of another version.
        """
        import torch

        from tokcodec.restorer.network import Restorer, RestorerConfig

        if tier not in self.configs:
            raise ModelError(f"{self.name}: these weights hold no {tier} restorer")
        prefix = f"{tier}."
        own = {k.removeprefix(prefix): v for k, v in self._networks.items() if k.startswith(prefix)}
        try:
            network = Restorer(RestorerConfig.from_json(self.configs[tier]))
            network.load_state_dict({k: torch.from_numpy(v.astype(np.float32)) for k, v in own.items()})
        except (ValueError, TypeError, RuntimeError) as error:
            raise ModelError(f"{self.name}: cannot use the network: {str(error).partition(chr(10))[0]}") from error
        return network.eval()


def save_weights(
    path: str | Path,
    restorer: Restorer | Mapping[str, Restorer] | None,
    arrays: Mapping[str, Array],
    note: Mapping[str, str] | None = None,
) -> None:
    """Write a weights file.

    One metadata entry holds configuration and note as JSON: with several their order, and so the SHA-256 of the
    file, would change from run to run.

    Args:
        path: is written in place; for a file that appears whole, give a temporary name.
        restorer: the network of the tier "full", or networks by tier, stored as float16; None for arrays alone.
        arrays: the rest, by names without the prefix `restorer.`; kept as they are.
        note: for the metadata.

    Raises:
        ValueError: an array has a name of the network's.
    """
    if any(name.startswith(PREFIX) for name in arrays):
        raise ValueError(f"arrays may not be called {PREFIX}*")
    tensors: dict[str, Array] = {k: np.asarray(v, order="C") for k, v in arrays.items()}
    about: dict[str, Any] = dict(note or {})
    restorers = restorer if isinstance(restorer, Mapping) else {TIERS[0]: restorer} if restorer else {}
    if restorers:
        about["restorers"] = {tier: json.loads(network.config.to_json()) for tier, network in restorers.items()}
    for tier, network in restorers.items():
        for name, value in network.state_dict().items():
            half = value.detach().cpu().float().numpy().astype(np.float16)
            tensors[f"{PREFIX}{tier}.{name}"] = np.ascontiguousarray(half)
    Path(path).write_bytes(save(tensors, {"tokcodec": json.dumps(about)}))  # save_file would make it private


def find_weights(path: str | Path | None = None, sha256: bytes | None = None) -> Path:
    """The weights to use: `path`, else $TOKCODEC_WEIGHTS, else the released ones.

    Args:
        path: of a safetensors file.
        sha256: what a stream was made with; the file found must have it.

    Raises:
        ModelError: there are none, or they are others than the stream's.
    """
    return _find(path, sha256)[0]


def _find(path: str | Path | None, sha256: bytes | None) -> tuple[Path, bytes]:
    """The weights to use and their bytes."""
    chosen = path or os.environ.get("TOKCODEC_WEIGHTS")
    candidates = [Path(chosen)] if chosen else sorted(RELEASED.glob("*.safetensors"))
    for candidate in candidates:
        data = _read(candidate)
        if sha256 is None or hashlib.sha256(data).digest() == sha256:
            return candidate, data
    if not candidates:
        raise ModelError("no weights are installed")
    assert sha256 is not None
    raise ModelError(
        f"the stream was made with other weights (SHA-256 {sha256.hex()[:16]}...) than "
        f"{' or '.join(c.name for c in candidates)}; give those"
    )


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot read weights: {error.strerror}") from error
