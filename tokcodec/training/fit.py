"""The closed forms of the codec, fitted to video: the KLT of residuals, and the coder's first probabilities.

A KLT is fitted to what the loop itself leaves over, so the loop must run to fit it: it starts from cosines and is
fitted again to the residuals of the loop that the fit before made. `python -m tokcodec.training.fit --help`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tokcodec.coding.intra import cosines
from tokcodec.coding.loop import Loop
from tokcodec.coding.planes import GRID, Planes
from tokcodec.coding.transform import BASIS_BITS, SIZE, blocks_of
from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.io.output import replacing
from tokcodec.pipeline import available_cores, in_parallel
from tokcodec.rate import STEP_UNITS, whole_units
from tokcodec.stream.entropy import Tokens, train_tables
from tokcodec.training.data import build_cache
from tokcodec.weights import save_weights

LATENTS = 256
CHROMA_WEIGHT = 1.4  # of an error in Cb or Cr, over one in Y
LOW_ENERGY = 16  # squared steps: residuals of less energy than that count less
STEP_RANGE = 8.0, 224.0

Arrays = dict[str, NDArray[Any]]


def _in_integers(vectors: NDArray[Any]) -> NDArray[np.int16]:
    integers: NDArray[np.int16] = np.round(vectors * 2**BASIS_BITS).clip(-32768, 32767).astype(np.int16)
    return integers


def cosine_tables() -> Arrays:
    """The transform to start from: DCT-II of each plane."""
    half = GRID // 2
    luma, chroma = np.kron(cosines(GRID), cosines(GRID)), np.kron(cosines(half), cosines(half))
    vectors = np.zeros((SIZE, SIZE))
    ends = GRID * GRID, GRID * GRID + half * half
    vectors[: ends[0], : ends[0]] = luma
    vectors[ends[0] : ends[1], ends[0] : ends[1]] = vectors[ends[1] :, ends[1] :] = chroma
    y, x = np.divmod(np.arange(GRID * GRID), GRID)
    v, u = np.divmod(np.arange(half * half), half)
    low_first = np.argsort(np.concatenate([y + x, 1 + 2 * (v + u), 1 + 2 * (v + u)]), kind="stable")
    return {
        "klt": _in_integers(vectors[low_first].T[:, :LATENTS]),
        "klt.chroma": np.array([CHROMA_WEIGHT], np.float32),
    }


class Listening(Loop):
    """A loop that keeps the covariance of the residuals it codes."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(arrays)
        self.covariance = np.zeros((SIZE, SIZE))

    def _coded(self, original: Planes, prediction: Planes, step16: int) -> NDArray[np.int16]:
        flat = blocks_of(original, prediction).reshape(-1, SIZE).copy()
        flat[:, GRID * GRID :] *= CHROMA_WEIGHT
        energy = np.square(flat).sum(1)
        floor = LOW_ENERGY * (step16 / STEP_UNITS) ** 2
        flat = (flat / np.sqrt(energy + floor)[:, None])[energy > floor / 4]  # loud blocks do not outvote the rest
        self.covariance += flat.T @ flat
        return super()._coded(original, prediction, step16)


def random_step(rng: np.random.Generator) -> float:
    """Log-uniform in `STEP_RANGE`, a multiple of 1 / 16."""
    return whole_units(math.exp(rng.uniform(math.log(STEP_RANGE[0]), math.log(STEP_RANGE[1]))))


def fit_transform(segments: Sequence[Frames], tables: Arrays) -> Arrays:
    """Fit the KLT to the residuals of a loop with these tables; new tables.

    Args:
        segments: uint8 `[F, H, W, 3]` each.
        tables: `klt.*`.
    """
    rng = np.random.default_rng(0)
    steps = [random_step(rng) for _ in segments]

    def covariance(index: int) -> NDArray[np.float64]:
        loop = Listening(tables)
        loop.encode(np.array(segments[index]), steps[index])
        return loop.covariance

    total = np.zeros((SIZE, SIZE))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in pool.map(covariance, range(len(segments))):
            total += part
    vectors = np.linalg.eigh(total)[1][:, ::-1][:, :LATENTS]
    return dict(tables) | {"klt": _in_integers(vectors * np.where(vectors.sum(0) < 0, -1, 1))}


def fit_coder(segments: Sequence[Frames], tables: Arrays) -> Arrays:
    """The coder's tables after these segments; `klt.*` and `coder.*`."""
    loop = Loop(tables)
    rng = np.random.default_rng(1)
    steps = [random_step(rng) for _ in segments]

    def coded(i: int) -> tuple[Tokens, int]:
        return loop.encode(np.array(segments[i]), steps[i]).tokens, round(steps[i] * STEP_UNITS)

    chunks = in_parallel(coded, (int(i) for i in rng.permutation(len(segments))), available_cores())
    return tables | train_tables(chunks, loop.blocks)


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), required=True, help="Of decoded data.")
@click.option("--every", type=click.IntRange(1), default=8, show_default=True, help="Take every n-th segment.")
@click.option("--rounds", type=click.IntRange(0), default=2, show_default=True, help="Times to fit the transform.")
@click.option("--tables", type=click.Path(exists=True, path_type=Path), help="Keep the transform of these weights.")
def main(source: Path, target: Path, cache: Path, every: int, rounds: int, tables: Path | None) -> None:
    """Fit transform and coder tables to the videos in SOURCE; TARGET is a weights file without a network."""
    from tokcodec.weights import Weights

    try:
        arrays = [np.load(path, mmap_mode="r") for path in build_cache(source, cache).values()]
        clips = [segment for array in arrays if array.shape[1] > 1 for segment in array]
        photographs = [segment for array in arrays if array.shape[1] == 1 for segment in array]
        fitted = cosine_tables()
        if tables:
            fitted = {k: np.array(v) for k, v in Weights.load(tables).arrays.items() if k.startswith("klt")}
            rounds = 0
        for turn in range(rounds):
            fitted = fit_transform(clips[turn::every], fitted)
        fitted = fit_coder(clips[1::every] + photographs[1::every], fitted)
        with replacing(target, [source], overwrite=True) as partial:
            try:
                save_weights(partial, None, fitted, {"fitted": f"{len(clips[::every])} segments, {rounds} rounds"})
            except OSError as error:
                raise TokcodecError(f"{target}: cannot write: {error.strerror}") from error
    except TokcodecError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
