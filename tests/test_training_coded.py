"""training/coded.py: segments run through a loop once, and the windows that are drawn from them."""

from __future__ import annotations

import math
import resource
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import coarse, moving_segments

from tokcodec.dtypes import Frames
from tokcodec.errors import TokcodecError
from tokcodec.training.coded import (
    CodedClip,
    WindowSampler,
    code_cache,
    code_segments,
    digest_of_tables,
    draw_step,
    errors_of,
    pack,
    record,
    unpack,
    whole_blocks,
)


def labelled(segments: int = 3, frames: int = 13, height: int = 48, width: int = 64) -> np.ndarray:
    """Records whose every sample says what it is: kind and segment in the step, place in the level."""
    records = np.zeros(segments, record(frames, height, width))
    t, row, column = np.ogrid[:frames, :height, :width]
    y = np.broadcast_to(10 * t + row, (frames, height, width)).astype(np.uint8)
    x = np.broadcast_to(100 + column, y.shape)
    cb, cr = (x[:, ::2, ::2].astype(np.uint8), (200 - x[:, ::2, ::2] // 2).astype(np.uint8))
    for index in range(segments):
        records["step"][index] = index + 1
        records["own"][index], records["kind"][index] = np.arange(frames), np.arange(frames) % 4
        for kind in range(3):
            records["planes"][index, kind] = pack(y + kind, np.stack([cb, cr], 1))
    return records


def test_pack_and_unpack() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 256, (5, 32, 48), np.uint8)
    c = rng.integers(0, 256, (5, 2, 16, 24), np.uint8)
    packed = pack(y, c)
    assert packed.shape == (5, 48, 48)
    for got, expected in zip(unpack(torch.from_numpy(packed)), (y, c), strict=True):
        assert np.array_equal(got.numpy(), expected)
    nested = unpack(torch.from_numpy(packed)[None, None])
    assert [x.shape for x in nested] == [(1, 1, 5, 32, 48), (1, 1, 5, 2, 16, 24)]


def test_sizes_are_brought_to_whole_blocks() -> None:
    frames = np.arange(2 * 15 * 17 * 3, dtype=np.uint8).reshape(2, 15, 17, 3)
    padded = whole_blocks(frames)
    assert padded.shape == (2, 16, 32, 3)
    assert np.array_equal(padded[:, :15, :17], frames)
    assert (padded[:, :15, 17:] == frames[:, :, -1:]).all()
    assert (padded[:, 15] == padded[:, 14]).all()


def test_steps_are_log_uniform_and_a_pure_function_of_their_seeds() -> None:
    steps = [draw_step((4, 64), 7, i) for i in range(400)]
    assert draw_step((4, 64), 7, 3) == steps[3]
    assert draw_step((4, 64), 8, 3) != steps[3]
    assert 4 <= min(steps) < 4.5
    assert 57 < max(steps) <= 64
    assert 0.4 < np.mean([step < 16 for step in steps]) < 0.6
    assert draw_step((5, 5), 0) == pytest.approx(5)


def test_a_cache_of_coded_segments(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources = {}
    for name, shape in (("a.mkv", (5, 9, 24, 32, 3)), ("sub/b.png", (1, 1, 16, 16, 3))):
        sources[name] = tmp_path / f"{Path(name).stem}.npy"
        np.save(sources[name], rng.integers(0, 256, shape, np.uint8))
    calls = []
    lock = threading.Lock()

    def code(frames: Frames, step: float) -> CodedClip:
        with lock:
            calls.append(step)
        return coarse(frames, step)

    cache = tmp_path / "coded"
    paths = code_cache(sources, cache, code, (2, 32), passes=2)
    names = [str(path.relative_to(cache)) for path in paths]
    kind = names[0].removeprefix("a.mkv-0-").removesuffix(".npy")
    assert names == [f"{name}-{turn}-{kind}.npy" for turn in (0, 1) for name in ("a.mkv", "sub/b.png")]
    assert len(calls) == len(set(calls)) == 12
    first = np.load(paths[0], mmap_mode="r")
    assert first["planes"].shape == (5, 3, 9, 48, 32)
    frames = whole_blocks(np.load(sources["a.mkv"])[4])
    made = coarse(frames, float(first["step"][4]))
    assert np.array_equal(first["own"][4], made.steps)
    assert np.array_equal(first["kind"][4], made.kinds)
    for kind, planes in enumerate(made.planes):
        assert np.array_equal(first["planes"][4, kind], pack(*planes))
    code_cache(sources, cache, code, (2, 32), passes=2)
    assert len(calls) == 12, "nothing is coded twice"
    one = {"a.mkv": sources["a.mkv"]}
    for steps, more in (
        ((2, 16), {}),
        ((2, 32), {"every": 2}),
        ((2, 32), {"most": 5}),
        ((2, 32), {"tables": "others"}),
    ):
        before = len(calls)
        (other,) = code_cache(one, cache, code, steps, **more)
        assert other not in paths
        assert len(calls) > before, "what another content has is coded again"
    (thin,) = code_cache(one, tmp_path / "thin", code, (2, 32), every=2, most=5)
    part = np.load(thin)
    assert part["planes"].shape == (3, 3, 5, 48, 32)
    assert (
        part["planes"][1, 0, 0, :24] == pack(*coarse(whole_blocks(np.load(sources["a.mkv"])[2]), 1).planes[0])[0, :24]
    ).all()


def test_tables_have_a_digest_of_their_own() -> None:
    tables = {"a": np.arange(6, dtype=np.int16), "b": np.zeros(2)}
    others = [
        tables | {"a": tables["a"] + np.int16(1)},
        tables | {"a": tables["a"].reshape(2, 3)},
        tables | {"c": np.zeros(2)},
    ]
    digests = {digest_of_tables(arrays) for arrays in (tables, *others)}
    assert len(digests) == 4
    assert digest_of_tables(dict(reversed(tables.items()))) == digest_of_tables(tables)


def test_a_loop_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def other_size(frames: Frames, step: float) -> CodedClip:
        return coarse(frames[:, 16:], step)

    def failing(frames: Frames, step: float) -> CodedClip:
        raise ZeroDivisionError

    segments = np.zeros((2, 5, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="gave planes of"):
        code_segments(segments, tmp_path / "a.npy", other_size, lambda _: 1.0)
    with pytest.raises(ZeroDivisionError):
        code_segments(segments, tmp_path / "a.npy", failing, lambda _: 1.0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(TokcodecError, match="cannot write"):
        code_segments(segments, tmp_path / "file" / "a.npy", coarse, lambda _: 1.0)


def test_a_full_disk_is_one_line_and_no_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(TokcodecError, match=r"a\.npy: cannot write: File too large"):
            code_segments(np.zeros((2, 5, 32, 32, 3), np.uint8), tmp_path / "a.npy", coarse, lambda _: 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_window_is_a_pure_function_of_seed_step_and_place() -> None:
    def sampler(seed: int) -> WindowSampler:
        return WindowSampler([moving_segments()], 32, seed)

    batch = sampler(3).batch(7, range(4), 9, True)
    assert batch.planes.shape == (4, 3, 9, 48, 32)
    assert (batch.planes.dtype, batch.step.dtype) == (torch.uint8, torch.float32)
    again = sampler(3).batch(7, range(2, 4), 9, True)
    assert torch.equal(batch.planes[2:], again.planes)
    assert torch.equal(batch.step[2:], again.step)
    assert (batch.own.dtype, batch.own.shape) == (torch.float32, (4, 9))
    assert (batch.kind.dtype, batch.kind.shape) == (torch.uint8, (4, 9))
    assert not torch.equal(batch.planes, sampler(3).batch(8, range(4), 9, True).planes)
    assert not torch.equal(batch.planes, sampler(4).batch(7, range(4), 9, True).planes)


@pytest.mark.parametrize("first", [True, False])
def test_windows_are_whole_groups_at_whole_blocks(first: bool) -> None:
    sampler = WindowSampler([labelled()], 32, 0)
    begins, lefts, mirrored, steps = set(), set(), set(), set()
    frames = 5 if first else 4
    for step in range(120):
        planes, quantizer, own, kind = sampler.window(step, 0, frames, first)
        assert planes.shape == (3, frames, 48, 32)
        y, c = (x.numpy().astype(int) for x in unpack(torch.from_numpy(planes)))
        assert (y[1] == y[0] + 1).all()
        assert (y[2] == y[0] + 2).all()
        assert (c[1:] == c[:1]).all()
        rows = y[0, :, :, 0]
        begin = (rows[0, 0] - 16 * (rows[0, 0] % 10 > 0)) // 10
        assert (own == np.arange(begin, begin + frames)).all()
        assert (kind == own % 4).all()
        assert (np.diff(rows, axis=1) == 1).all()
        assert (np.diff(rows, axis=0) == 10).all()
        columns = c[0, 0, 0, 0] - 100
        mirror = columns[0] > columns[1]
        assert (np.diff(columns) == (-2 if mirror else 2)).all()
        left = columns.min()
        assert np.array_equal(c[0, 0, 1], 200 - (100 + np.broadcast_to(columns, (16, 16))) // 2)
        for value, found in ((rows[0, 0], begins), (left, lefts), (mirror, mirrored), (quantizer, steps)):
            found.add(float(value))
    # rows[0, 0] is 10 * begin + top, with top 0 or 16
    starts = (0,) if first else (1, 5, 9)
    assert begins == {10 * begin + top for begin in starts for top in (0, 16)}
    assert lefts == {0, 16, 32}
    assert mirrored == {0, 1}
    assert steps == {1, 2, 3}


def test_single_frames_come_from_photographs_and_video_alike() -> None:
    photographs = np.zeros(3, record(1, 32, 32))
    photographs["planes"] = 7
    sampler = WindowSampler([moving_segments(50), photographs], 32, 0)
    drawn = sampler.batch(0, range(200), 1, True).planes
    assert drawn.shape == (200, 3, 1, 48, 32)
    share = (drawn == 7).flatten(1).all(dim=1).float().mean().item()
    assert 0.4 < share < 0.65
    assert not (sampler.batch(0, range(50), 9, True).planes == 7).all()


def test_all_segments_are_equally_likely() -> None:
    records: Any = np.zeros(10, record(9, 16, 16))
    records["step"] = np.arange(10)
    drawn = [int(WindowSampler([records[:3], records[3:]], 16, 0).window(step, 0, 8, False)[1]) for step in range(600)]
    assert np.bincount(drawn, minlength=10).min() > 30


def test_a_segment_is_drawn_as_often_as_its_error_to_a_power() -> None:
    records: Any = np.zeros(3, record(9, 16, 16))
    records["step"] = np.arange(3)
    for index, error in enumerate((0, 2, 4)):
        records["planes"][index, 1, :, :16] = error
    assert errors_of(records).tolist() == [0, 2, 4]
    sampler = WindowSampler([records[:1], records[1:]], 16, 0, focus=2)
    drawn = [int(sampler.window(step, 0, 8, False)[1]) for step in range(2100)]
    assert np.bincount(drawn) / 100 == pytest.approx([1, 4, 16], abs=0.8)


@pytest.mark.parametrize(("frames", "first", "size"), [(33, True, 32), (20, False, 32), (9, True, 64)])
def test_no_segment_is_long_or_large_enough(frames: int, first: bool, size: int) -> None:
    with pytest.raises(TokcodecError, match=f"frames of {size} pixels"):
        WindowSampler([moving_segments()], size, 0).window(0, 0, frames, first)


def test_the_stand_in_predicts_from_the_key_frame_before() -> None:
    """Else what the other tests learn from would not be a loop's."""
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), np.uint8)
    _, base, prediction = coarse(frames, 4).planes
    assert (prediction[0][0] == 128).all()
    assert (prediction[0][1:5] == base[0][0]).all()
    assert (prediction[0][5:] == base[0][4]).all()
    assert math.isclose(coarse(frames, 1).planes[1][0].max() % 8, 0)
