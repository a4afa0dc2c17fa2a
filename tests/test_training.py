"""training/: what a step learns, draws, stores and stops at; all on a network of a few thousand weights."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import moving_frames
from safetensors.torch import load_file
from torch import Tensor, nn

from tokcodec.cli.learning import train as train_command
from tokcodec.dtypes import Frames
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.restorer.network import Restorer, RestorerConfig, to_rgb
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.training import evaluate as evaluating
from tokcodec.training.coded import Batch, CodedClip, WindowSampler, pack, record, unpack
from tokcodec.training.evaluate import evaluate, means
from tokcodec.training.losses import MeanDistance, frame_perceptual_loss, reconstruction_loss, temporal_loss
from tokcodec.training.optim import Muon, MuonAdamW, as_matrix, orthogonal
from tokcodec.training.train import Evaluator, run
from tokcodec.training.trainer import Trainer, TrainSettings, lr_scale, picture, restore, starting_network
from tokcodec.weights import Weights

TINY = RestorerConfig(channels=(16, 24), blocks=(1, 1, 1), features=4, pixel_channels=16, pixel_blocks=1)
SETTINGS = TrainSettings(steps=20, batch=2, crop_px=32, warmup_steps=4, frames=(5, 9))
CPU = torch.device("cpu")


class Distance(nn.Module):
    """Stands in for LPIPS."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


def coarse(frames: Frames, step: float) -> CodedClip:
    """Stands in for the loop: levels rounded down, predicted from the last frame of the group before."""
    rgb = frames.astype(np.float32)
    luma = rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    chroma = np.stack([(rgb[..., 2] - luma) / 1.8556, (rgb[..., 0] - luma) / 1.5748], 1) + 128
    count, height, width = luma.shape
    chroma = chroma.reshape(count, 2, height // 2, 2, width // 2, 2).mean((3, 5))
    size = 8 * math.sqrt(step)
    original, base, prediction = [], [], []
    for plane in (luma, chroma):
        exact = plane.round().clip(0, 255).astype(np.uint8)
        decoded = (np.floor(plane / size) * size).clip(0, 255).astype(np.uint8)  # too dark: there is much to learn
        keys = np.repeat(decoded[: -1 if count > 1 else 0 : 4], 4, axis=0)
        original.append(exact)
        base.append(decoded)
        prediction.append(np.concatenate([np.full_like(decoded[:1], 128), keys]))
    planes: Any = tuple(original), tuple(base), tuple(prediction)
    kinds = np.full(count, 1, np.uint8)
    kinds[0] = 0
    return CodedClip(planes, np.arange(1, count + 1, dtype=np.float32) * np.float32(step), kinds)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def moving_segments(count: int = 4, frames: int = 17, size: int = 48) -> np.ndarray:
    """Records of stripes that drift, each segment in another direction, at steps 1, 2, ..."""
    y, x = np.mgrid[:size, :size] / size
    time = np.arange(frames)[:, None, None] / 16
    records = np.zeros(count, record(frames, size, size))
    for index, segment in enumerate(records):
        wave = np.sin(2 * np.pi * (np.cos(0.7 * index) * x + np.sin(0.7 * index) * y + time))
        clip = np.stack([128 + 100 * wave, 128 - 90 * wave, 60 + 40 * wave], axis=-1).astype(np.uint8)
        records["step"][index] = index + 1
        made = coarse(clip, index + 1)
        segment["own"], segment["kind"] = made.steps, made.kinds
        for kind, planes in enumerate(made.planes):
            segment["planes"][kind] = pack(*planes)
    return records


def trainer(init: Path | None = None, **changes: Any) -> Trainer:
    settings = dataclasses.replace(SETTINGS, **changes)
    sampler = WindowSampler([moving_segments()], settings.crop_px, settings.seed)
    arrays = {"klt.next": np.arange(6, dtype=np.int16)}
    started = starting_network(init) if init else None
    return Trainer(TINY, settings, sampler, Distance(), CPU, torch.float32, started, arrays=arrays)


def same(a: Any, b: Any) -> bool:
    """Equality of nested state, bit for bit."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


# the run


def test_twenty_steps_lower_the_loss(tmp_path: Path) -> None:
    begun = trainer(muon_lr=0.01, adam_lr=0.01)
    batch = begun.sampler.batch(99, range(2), 9, True)

    def error(model: nn.Module) -> float:
        with torch.no_grad():
            return reconstruction_loss(restore(model, batch), picture(batch, 0)).item()

    before = error(begun.model)
    assert before == pytest.approx(
        reconstruction_loss(to_rgb(*unpack(batch.planes[:, 1])), picture(batch, 0)).item(), rel=1e-5
    ), "it starts from the plain base"
    run(begun, tmp_path)
    assert (begun.step, begun.position) == (20, 1.0)
    assert error(begun.model) < 0.9 * before
    weights = Weights.load(tmp_path / "weights.safetensors")
    assert weights.restorer().config == TINY
    assert weights.note == {"steps": "20", "pixels": str(begun.pixels)}
    assert weights.arrays["klt.next"].tolist() == list(range(6))


def test_resume_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    def start() -> Trainer:
        return trainer(steps=6)

    whole, parts = start(), start()
    run(whole, tmp_path / "whole")
    step = parts.train_step

    def interrupted(batch: Batch) -> dict[str, float]:
        if parts.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch)

    parts.train_step = interrupted  # type: ignore[method-assign]
    run(parts, tmp_path / "parts")
    assert parts.step == 4, "SIGTERM ends the run after the step it meets"
    resumed = start()
    run(resumed, tmp_path / "parts")
    assert resumed.step == 6
    assert same(whole.state(), resumed.state())
    assert same(load_file(tmp_path / "whole/weights.safetensors"), load_file(tmp_path / "parts/weights.safetensors"))


def test_a_signal_during_an_evaluation_is_told_to_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the one that evaluates would leave the others waiting for it."""
    begun, votes = trainer(steps=6), []

    def agree(position: float, stopped: bool) -> tuple[float, bool]:
        votes.append(stopped)
        return position, stopped

    monkeypatch.setattr("tokcodec.training.processes.agree", agree)
    run(begun, tmp_path, lambda _: os.kill(os.getpid(), signal.SIGTERM), eval_every=2)
    assert votes == [False, False, True]


def test_finish_reaches_the_end_of_the_schedule_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own, on which a step takes some tenths of a second."""
    ticks = itertools.count()
    monkeypatch.setattr("tokcodec.training.train.time", SimpleNamespace(monotonic=lambda: next(ticks) / 10))
    begun = trainer(steps=10**6)
    run(begun, tmp_path, minutes=6 / 60, finish=True)
    assert begun.position == 1.0
    assert 5 < next(ticks) / 10 < 7
    assert begun.step > 3


def test_minutes_stop_in_the_middle(tmp_path: Path) -> None:
    begun = trainer(steps=10**6)
    run(begun, tmp_path, minutes=0.5 / 60)
    assert 0 < begun.position < 0.5
    assert (tmp_path / "checkpoint.pt").exists()
    with pytest.raises(ValueError, match="minutes"):
        run(begun, tmp_path, finish=True)


def test_log_and_evaluation(tmp_path: Path) -> None:
    begun = trainer(steps=50, batch=1, frames=(5,))
    clips = {"a": moving_segments()[0], "b": moving_segments(1, 1, 64)[0]}
    run(begun, tmp_path, Evaluator({"val": clips}, Distance(), tmp_path), eval_every=25)
    (line,) = [json.loads(text) for text in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {"loss", "rec", "lpips", "temporal", "gain_db", "grad_norm"} < set(line)
    assert {"steps_per_s", "pixels_per_s", "data_wait", "pixels", "position"} < set(line)
    assert line["step"] == 50
    assert line["pixels"] == sum(np.prod(begun.batch_shape(step)[:2]) for step in range(50)) * 32 * 32
    evaluations = [json.loads(text) for text in (tmp_path / "eval.jsonl").read_text().splitlines()]
    assert [e["step"] for e in evaluations] == [25, 50, 50]  # the last: at the end
    for kind in ("base", "network"):
        of_clips = [clip[kind]["psnr_db"] for clip in evaluations[0]["val"]["clips"].values()]
        assert evaluations[0]["val"][kind]["psnr_db"] == pytest.approx(np.mean(of_clips), abs=1e-3)
    assert evaluations[0]["val"]["base"] == evaluations[2]["val"]["base"]
    assert evaluations[2]["val"]["network"]["psnr_db"] > evaluations[2]["val"]["base"]["psnr_db"]
    assert (tmp_path / "val.png").stat().st_size > 1000


def test_a_loss_that_is_not_finite_ends_the_run_before_the_checkpoint_is_harmed(tmp_path: Path) -> None:
    broken = trainer(lpips_weight=math.nan)
    with pytest.raises(TokcodecError, match="the loss is nan at step 1"):
        run(broken, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_gradient_that_is_not_finite_ends_the_run_before_the_checkpoint_is_harmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = trainer()
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.raises(TokcodecError, match="the grad_norm is inf at step 1"):
        run(broken, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_run_goes_on_behind_the_tables_it_was_begun_with(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    trainer().save(path)
    other = trainer()
    other.arrays = {"klt.next": np.arange(1, 7, dtype=np.int16)}
    with pytest.raises(ModelError, match="the run was trained behind other tables"):
        other.load(path)
    state = torch.load(path)
    del state["tables"]  # as of a version that did not say
    torch.save(state, path)
    other.load(path)


@pytest.mark.parametrize("damage", [b"", b"PK nonsense", None])
def test_a_damaged_checkpoint_is_one_clear_error(damage: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    trainer().save(path)
    path.write_bytes(path.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        trainer().load(path)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        trainer(init=path)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    trainer().save(path)
    config = dataclasses.replace(TINY, features=5)
    other = Trainer(config, SETTINGS, WindowSampler([], 32, 0), Distance(), CPU, torch.float32)
    with pytest.raises(ModelError, match="another configuration"):
        other.load(path)


@pytest.mark.parametrize("start", ["checkpoint.pt", "weights.safetensors"])
def test_a_run_starts_from_the_averaged_weights_of_another(start: str, tmp_path: Path) -> None:
    before = trainer(steps=4)
    run(before, tmp_path)
    after = trainer(init=tmp_path / start)
    tolerance = 0 if start.endswith(".pt") else 1e-3
    for name, value in before.ema.state_dict().items():
        for model in (after.model, after.ema):
            assert torch.allclose(model.state_dict()[name], value, atol=tolerance, rtol=0), name
    assert after.step == 0


# a step


def test_windows_go_through_the_network_group_by_group() -> None:
    network = trainer().model.eval()
    torch.manual_seed(0)
    nn.init.normal_(network.pixel_out.weight, std=0.05)
    for first, frames, parts in ((True, 9, (0, 1, 5, 9)), (False, 8, (0, 4, 8)), (True, 1, (0, 1))):
        batch = WindowSampler([moving_segments()], 32, 0).batch(0, range(2), frames, first)
        (by, bc), (py, pc) = (unpack(batch.planes[:, kind]) for kind in (1, 2))
        expected, state = [], None
        for a, b in itertools.pairwise(parts):
            alone = first and a == 0
            planes = [x[:, a:b] for x in (by, bc, py, pc)]
            out, state = network(*planes, batch.step, batch.own[:, a:b], batch.kind[:, a:b], alone, state)
            expected.append(out)
        assert torch.equal(restore(network, batch), torch.cat(expected, 1))


def test_the_loss_of_a_step_is_the_sum_of_its_terms() -> None:
    begun = trainer(rec_weight=3.0, lpips_weight=0.7, temporal_weight=0.4, image_share=0.0, late_share=0.0, frames=(5,))
    batch = begun.sampler.batch(0, range(2), 5, True)
    base, target = to_rgb(*unpack(batch.planes[:, 1])), picture(batch, 0)  # the network's is not clamped
    terms = begun.train_step(batch)
    assert terms["loss"] == pytest.approx(3 * terms["rec"] + 0.7 * terms["lpips"] + 0.4 * terms["temporal"], rel=1e-5)
    assert terms["rec"] == pytest.approx(reconstruction_loss(base, target).item(), rel=1e-4)
    assert terms["gain_db"] == pytest.approx(0, abs=1e-4), "untrained"


# losses


def test_reconstruction_loss() -> None:
    output, target = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    smooth = (math.sqrt(0.25 + 1e-6) + math.sqrt(4 + 1e-6) + 1e-3) / 3
    assert reconstruction_loss(output, target).item() == pytest.approx(smooth + 4.25 / 3)


def test_temporal_loss_sees_what_moves_and_not_what_is_constantly_wrong() -> None:
    target = torch.randn(2, 3, 3, 4, 4)
    assert temporal_loss(target + 0.5, target).item() == pytest.approx(0, abs=1e-6)
    wave = torch.tensor([0.0, 1.0, 0.5]).view(1, 3, 1, 1, 1)
    assert temporal_loss(target + wave, target).item() == pytest.approx((1 + 0.5) / 2, rel=1e-5)
    assert temporal_loss(target[:, :1] + 1, target[:, :1]).item() == 0


def test_frame_perceptual_loss_sees_the_chosen_frames_of_each_clip() -> None:
    a, b = torch.randn(2, 2, 5, 3, 4, 6)
    chosen = [[0, 3], [4, 1]]
    direct = np.mean([(a[i, f] - b[i, f]).abs().mean().item() for i in (0, 1) for f in chosen[i]])
    assert frame_perceptual_loss(Distance(), a, b, torch.tensor(chosen)).item() == pytest.approx(direct)


def test_two_lpips_networks_teach(shared: Path) -> None:
    networks = [load_lpips(net, shared / "lpips") for net in ("alex", "squeeze")]
    lpips = MeanDistance(networks)
    target = picture(WindowSampler([moving_segments(1, 5, 64)], 64, 0).batch(0, range(1), 5, True), 0)
    torch.manual_seed(0)
    output = (target + 0.3 * torch.randn_like(target)).requires_grad_()
    chosen = torch.tensor([[1, 4]])
    loss = frame_perceptual_loss(lpips, output, target, chosen)
    loss.backward()
    assert output.grad is not None
    each = [frame_perceptual_loss(network, output, target, chosen).item() for network in networks]
    assert loss.item() == pytest.approx(np.mean(each), rel=1e-5)
    assert frame_perceptual_loss(lpips, target, target, chosen).item() == pytest.approx(0, abs=1e-6)
    used = output.grad.abs().amax(dim=(0, 2, 3, 4)) > 0
    assert used.tolist() == [False, True, False, False, True]


# optimizer and schedule


def test_learning_rate_schedule() -> None:
    settings = TrainSettings(warmup_steps=100, decay_share=0.3)
    expected = {
        (0, 0.0): 0.01,
        (49, 0.0): 0.5,
        (99, 0.0): 1.0,
        (5000, 0.7): 1.0,
        (5000, 0.775): 0.8535534,
        (5000, 0.85): 0.5,
        (5000, 1.0): 0.0,
    }
    assert {key: lr_scale(settings, *key) for key in expected} == pytest.approx(expected, abs=1e-6)


def test_muon_moves_kernels_in_place_and_adamw_the_rest() -> None:
    model = Restorer(TINY)
    optimizer = MuonAdamW(dict(model.named_parameters()), muon_lr=0.01, adam_lr=0.001)
    (group,) = optimizer.muon.param_groups
    kernels = {id(kernel) for kernel in group["params"]}
    assert len(kernels) == 11
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step(1.0)
    moved = {name: (p - before[name]).square().mean().sqrt().item() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        assert moved[name] == pytest.approx(0.002 if id(p) in kernels else 0.001, rel=0.35), name
    assert {"down.weight", "stem.weight"} <= set(moved)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_momentum_is_the_runs_and_not_the_checkpoints() -> None:
    kernel = nn.Parameter(torch.ones(4, 4, 1, 1))
    named = {"kernel": kernel, "gain": nn.Parameter(torch.ones(4))}
    kernel.grad = torch.ones_like(kernel)
    before = MuonAdamW(named, muon_lr=0.01, adam_lr=0.001, muon_momentum=0.5)
    before.step(1.0)
    after = MuonAdamW(named, muon_lr=0.01, adam_lr=0.001, muon_momentum=0.9)
    after.load_state_dict(before.state_dict())
    assert torch.equal(after.muon.state[kernel]["momentum_buffer"], 0.5 * torch.ones_like(kernel))
    kernel.grad = torch.zeros_like(kernel)
    after.step(1.0)
    assert after.muon.state[kernel]["momentum_buffer"].unique().item() == pytest.approx(0.45)


def test_muon_takes_the_steps_of_torchs_muon() -> None:
    """Which rounds to bfloat16 within its Newton-Schulz steps: hence the tolerance."""
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(16, 8, 3, 3).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(as_matrix(kernel.detach()).clone())
    ours = Muon([kernel], lr=0.1)
    reference = torch.optim.Muon(
        [matrix], lr=0.1, weight_decay=0.01, momentum=0.95, ns_steps=5, adjust_lr_fn="match_rms_adamw"
    )
    start = matrix.detach().clone()
    for _ in range(3):
        kernel.grad = torch.randn_like(kernel)
        matrix.grad = as_matrix(kernel.grad)
        ours.step()
        reference.step()
    moved = as_matrix(kernel.detach()) - start
    expected = matrix.detach() - start
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert (moved - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize(("shape", "rank"), [((24, 200), 24), ((200, 24), 24), ((32, 100), 3)])
def test_newton_schulz_on_the_gram_matrix_is_newton_schulz(shape: tuple[int, int], rank: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape[0], rank) @ torch.randn(rank, shape[1]) + 1e-3 * torch.randn(shape)
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    assert (orthogonal(matrix) - x).norm() < 1e-3 * x.norm()


# draws


def test_longer_windows_take_as_many_pixels_and_late_ones_have_no_first_frame() -> None:
    begun = trainer(batch=8, frames=(9, 17, 33), image_share=0.25)
    shapes = [begun.batch_shape(step) for step in range(300)]
    assert set(shapes) == {
        *((32, 1, True), (8, 9, True), (4, 17, True), (2, 33, True)),
        *((8, 8, False), (4, 16, False), (2, 32, False)),
    }
    assert 0.15 < np.mean([frames == 1 for _, frames, _ in shapes]) < 0.35
    assert 0.3 < np.mean([not first for *_, first in shapes]) < 0.45


def test_lpips_sees_other_frames_in_every_window() -> None:
    begun = trainer()
    seen = begun.seen(range(400), 9)
    assert seen.shape == (400, 2)
    assert (seen[:, 0] != seen[:, 1]).all()
    assert set(seen.unique().tolist()) == set(range(9))
    assert begun.seen(range(4), 1).tolist() == [[0]] * 4
    assert torch.equal(begun.seen(range(3, 5), 9), seen[3:5])


@pytest.mark.parametrize("fields", [{"frames": (9, 16)}, {"crop_px": 40}, {"step_range": (0, 4)}])
def test_sizes_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        TrainSettings(**fields)


# evaluation


def test_evaluation_judges_base_and_network() -> None:
    network = Restorer(TINY).eval()
    nn.init.constant_(network.pixel_out.bias, 10 / 127.5)
    coded = moving_segments()[1]
    result = evaluate(network, Distance(), {"a": coded})
    planes = torch.from_numpy(coded["planes"])[:, None]

    def levels(x: Tensor) -> np.ndarray:
        return (x * 127.5 + 127.5).round().clamp(0, 255)[0].permute(0, 2, 3, 1).numpy()

    target, base = levels(to_rgb(*unpack(planes[0]))), to_rgb(*unpack(planes[1]))
    for kind, output in (("base", levels(base)), ("network", levels(base + 10 / 127.5))):
        found, error = result.clips["a"][kind], output - target
        mse = np.square(error).mean(axis=(1, 2, 3))
        assert found["psnr_db"] == pytest.approx(np.mean(10 * np.log10(255**2 / mse)), abs=2e-3)
        mse = np.square(error[1:] - error[:-1]).mean(axis=(1, 2, 3))
        assert found["temporal_psnr_db"] == pytest.approx(np.mean(10 * np.log10(255**2 / mse)), abs=2e-3)
        assert found["lpips"] == pytest.approx(np.abs(error[::3]).mean() / 127.5, abs=2e-4)
    assert result.picture.shape == (320, 960, 3)


def test_vmaf_is_left_out_where_there_is_no_ffmpeg_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    target = np.stack(moving_frames(5, 64, 64))
    blurred = (target.astype(np.uint16) + np.roll(target, 3, 2) + np.roll(target, 6, 2)) // 3
    clear, worse = (evaluating.scores(Distance(), x.astype(np.uint8), target) for x in (target, blurred))
    assert clear["vmaf"] > worse["vmaf"] + 5
    monkeypatch.setattr(evaluating, "find_ffmpeg", lambda: None)
    assert evaluating.scores(Distance(), target, target) == {k: v for k, v in clear.items() if k != "vmaf"}


def test_means_are_over_the_clips_that_have_a_score() -> None:
    report = {
        "a": {"base": {"lpips": 0.5, "temporal_psnr_db": 30.0}, "network": {"lpips": 0.25}},
        "b": {"base": {"lpips": 0.3}, "network": {"lpips": 0.15}},
    }
    assert means(report) == {"base": {"lpips": 0.4, "temporal_psnr_db": 30.0}, "network": {"lpips": 0.2}}


# the command's defaults


def test_the_command_shows_the_defaults_of_the_settings() -> None:
    defaults = dataclasses.asdict(TrainSettings()) | dataclasses.asdict(RestorerConfig())
    shown = {p.name: p.show_default for p in train_command.params if isinstance(getattr(p, "show_default", 0), str)}
    assert len(shown) == 25
    for name, text in shown.items():
        value = defaults[name]
        assert text == (",".join(map(str, value)) if isinstance(value, tuple) else str(value)), name
