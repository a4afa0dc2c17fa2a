"""HDR to SDR: a table of colours for FFmpeg's lut3d filter, which every build has (zscale is missing in most)."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Values = np.ndarray[Any, np.dtype[Any]]

PQ, HLG = 16, 18  # transfer characteristics of H.273
SIDE = 33  # of the table, in each colour
WHITE_NITS = 100.0  # of SDR
PEAK_NITS = 1000.0  # what becomes the brightest; beyond it, all is white
TO_709 = np.array(  # linear light of BT.2020 to that of BT.709 (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


def mapped(rgb: Values, transfer: int) -> Values:
    """Colours of BT.2020 in PQ or HLG to BT.709 for a display of gamma 2.4.

    As FFmpeg's zscale=t=linear:npl=100, tonemap=hable:desat=0:peak=10, zscale=t=bt709 do it.

    Args:
        rgb: `[..., 3]`, 0 to 1.
        transfer: PQ or HLG.

    Returns:
        Likewise, 0 to 1.
    """
    nits = _pq_nits(rgb) if transfer == PQ else _hlg_nits(rgb)
    linear = nits / WHITE_NITS @ TO_709.T
    brightest = np.maximum(linear.max(-1, keepdims=True), 1e-6)
    shown = linear * (_hable(brightest) / _hable(np.array(PEAK_NITS / WHITE_NITS)) / brightest)
    result: Values = np.clip(shown, 0, 1) ** (1 / 2.4)
    return result


def _pq_nits(value: Values) -> Values:
    """SMPTE ST 2084."""
    power = value ** (32 / 2523)
    nits: Values = 10000 * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)
    return nits


def _hlg_nits(value: Values) -> Values:
    """ITU-R BT.2100, on a display of 1000 cd/m2: gamma 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(value <= 0.5, value**2 / 3, (np.exp((np.maximum(value, 0.5) - c) / a) + b) / 12)
    nits: Values = 1000 * scene * (scene @ np.array([[0.2627], [0.678], [0.0593]])) ** 0.2
    return nits


def _hable(light: Values) -> Values:
    """The curve of John Hable's "Filmic tonemapping with piecewise power curves", as FFmpeg has it."""
    return (light * (0.15 * light + 0.05) + 0.004) / (light * (0.15 * light + 0.5) + 0.06) - 0.02 / 0.3


@functools.cache
def _cube(transfer: int) -> str:
    """A .cube file: red runs fastest."""
    blue, green, red = np.meshgrid(*3 * [np.linspace(0, 1, SIDE)], indexing="ij")
    colours = mapped(np.stack([red, green, blue], -1), transfer).reshape(-1, 3)
    return "\n".join([f"LUT_3D_SIZE {SIDE}", *(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in colours.tolist())]) + "\n"


@contextlib.contextmanager
def table(transfer: int) -> Iterator[str]:
    """The name of a file with the table, escaped for a filter's arguments; it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tokcodec.") as folder:
        path = Path(folder, "table.cube")
        path.write_text(_cube(transfer))
        yield path.as_posix().replace(":", "\\:")
