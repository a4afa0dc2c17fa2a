"""training/: what a step learns, draws, stores and stops at; all on a tokenizer of a few thousand weights."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import moving_frames
from safetensors.torch import load_file
from torch import Tensor, nn

from tokcodec.cli import train as train_command
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.lfq import LFQ, entropy_terms
from tokcodec.model import Tokenizer, TokenizerConfig
from tokcodec.perceptual import load_lpips
from tokcodec.training.adversarial import AdversarialSettings, AdversarialTrainer
from tokcodec.training.data import ClipSampler, to_pixels
from tokcodec.training.discriminator import Discriminator, blur_pool
from tokcodec.training.evaluate import evaluate, psnr_db, rates, reconstruct
from tokcodec.training.losses import (
    discriminator_hinge,
    frame_perceptual_loss,
    generator_hinge,
    lecam,
    reconstruction_loss,
)
from tokcodec.training.optim import Muon, MuonAdamW, as_matrix, orthogonal
from tokcodec.training.train import Judge, run
from tokcodec.training.trainer import Trainer, TrainSettings, lr_scale

TINY = TokenizerConfig(dims=8, planes=2, channels=(16, 32), encoder_blocks=(1, 1), decoder_blocks=(1, 1))
SETTINGS = TrainSettings(steps=20, batch=2, crop_px=32, warmup_steps=4, frames=(5, 9))
CPU = torch.device("cpu")


class Distance(nn.Module):
    """Stands in for LPIPS."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def moving_segments(count: int = 4, frames: int = 17, size: int = 48) -> np.ndarray:
    """uint8 `[count, frames, size, size, 3]`: stripes that drift, each segment in another direction."""
    y, x = np.mgrid[:size, :size] / size
    time = np.arange(frames)[:, None, None] / 16
    angles = np.arange(count)[:, None, None, None] * 0.7
    wave = np.sin(2 * np.pi * (np.cos(angles) * x + np.sin(angles) * y + time))
    return np.stack([128 + 100 * wave, 128 - 90 * wave, 60 + 40 * wave], axis=-1).astype(np.uint8)


def trainer(kind: type[Trainer] = Trainer, init: Path | None = None, **changes: Any) -> Trainer:
    settings = dataclasses.replace(SETTINGS, **changes)
    if kind is AdversarialTrainer:
        settings = AdversarialSettings(**dataclasses.asdict(settings) | {"discriminator_channels": 4})
    sampler = ClipSampler([moving_segments()], settings.crop_px, settings.seed)
    return kind(TINY, settings, sampler, Distance(), CPU, torch.float32, init)


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
    begun = trainer()
    batch = begun.sampler.batch(99, range(2), 9)

    def error(model: Tokenizer) -> float:
        with torch.no_grad():
            clip = to_pixels(batch)
            return reconstruction_loss(model.decode(model.encode(clip)), clip).item()

    before = error(begun.model)
    run(begun, tmp_path)
    assert (begun.step, begun.position) == (20, 1.0)
    assert error(begun.model) < 0.9 * before
    assert Tokenizer.load(tmp_path / "weights.safetensors").config == TINY


def test_one_clip_is_learned_by_heart() -> None:
    """The gate before a long run: whatever stops the network or the quantizer from carrying a clip shows here."""
    frames = np.stack(moving_frames(9, 32, 32))
    settings = TrainSettings(
        steps=250, batch=1, crop_px=32, warmup_steps=10, image_share=0.0, full_rate_share=1.0, adam_lr=0.003
    )
    config = TokenizerConfig(channels=(48, 96), encoder_blocks=(1, 1), decoder_blocks=(2, 1))
    begun = Trainer(config, settings, ClipSampler([], 32, 0), Distance(), CPU, torch.float32)
    batch = torch.from_numpy(frames[None]).permute(0, 4, 1, 2, 3)
    for step in range(settings.steps):
        begun.position = step / settings.steps
        terms = begun.train_step(batch)
    (output,) = reconstruct(begun.model.eval(), frames, [begun.model.config.token_bits])
    assert psnr_db(output, frames) > 32
    assert terms["imbalance_mean"] < 0.5


@pytest.mark.parametrize("kind", [Trainer, AdversarialTrainer])
def test_resume_equals_an_uninterrupted_run(kind: type[Trainer], tmp_path: Path) -> None:
    def start() -> Trainer:
        return trainer(kind, steps=6)

    whole, parts = start(), start()
    run(whole, tmp_path / "whole")
    step = parts.train_step

    def interrupted(batch: Tensor) -> dict[str, float]:
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


def test_finish_reaches_the_end_of_the_schedule_in_time(tmp_path: Path) -> None:
    begun = trainer(steps=10**6)
    began = time.monotonic()
    run(begun, tmp_path, minutes=1.5 / 60, finish=True)
    assert begun.position == 1.0
    assert 0.5 < time.monotonic() - began < 3
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
    clips = {"a": moving_segments(1)[0, :9], "b": moving_segments(1, size=40)[0, :1]}
    run(begun, tmp_path, Judge({"val": clips}, Distance(), tmp_path), eval_every=25)
    (line,) = [json.loads(text) for text in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {"rec", "lpips", "entropy_single", "entropy_average", "imbalance_mean", "imbalance_max", "changed"} < set(
        line
    )
    assert {"loss", "grad_norm", "steps_per_s", "pixels_per_s", "data_wait", "pixels", "position"} < set(line)
    assert line["step"] == 50
    assert line["pixels"] == sum(np.prod(begun.batch_shape(step)) for step in range(50)) * 32 * 32
    evaluations = [json.loads(text) for text in (tmp_path / "eval.jsonl").read_text().splitlines()]
    assert [e["step"] for e in evaluations] == [25, 50, 50]  # the last: at the end
    assert evaluations[0]["rates"] == [8, 16]
    assert evaluations[0]["val"]["psnr_db"][1] == pytest.approx(
        np.mean([evaluations[0]["val"]["clips"][name]["psnr_db"][1] for name in clips]), abs=1e-3
    )
    assert (tmp_path / "val.png").stat().st_size > 1000


def test_a_loss_that_is_not_finite_ends_the_run_before_the_checkpoint_is_harmed(tmp_path: Path) -> None:
    broken = trainer(lpips_weight=math.nan)
    with pytest.raises(TokcodecError, match="the loss is nan at step 1"):
        run(broken, tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("damage", [b"", b"PK nonsense", None])
def test_a_damaged_checkpoint_is_one_clear_error(damage: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    trainer().save(path)
    path.write_bytes(path.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        trainer().load(path)
    with pytest.raises(ModelError, match=re.escape(str(path))):
        trainer(init=path)


def test_a_checkpoint_of_another_shape_or_stage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    trainer().save(path)
    with pytest.raises(ModelError, match="stage base"):
        trainer(AdversarialTrainer).load(path)
    other = Trainer(dataclasses.replace(TINY, dims=4), SETTINGS, ClipSampler([], 32, 0), Distance(), CPU, torch.float32)
    with pytest.raises(ModelError, match="another configuration"):
        other.load(path)


def test_the_first_checkpoints_had_no_stage(tmp_path: Path) -> None:
    begun, path = trainer(), tmp_path / "checkpoint.pt"
    state = begun.state()
    del state["stage"]
    torch.save(state, path)
    trainer().load(path)
    with pytest.raises(ModelError, match="stage base"):
        trainer(AdversarialTrainer).load(path)


# the adversarial stage


@pytest.mark.parametrize("start", ["checkpoint.pt", "weights.safetensors"])
def test_the_adversarial_stage_leaves_encoder_and_quantizer_untouched(start: str, tmp_path: Path) -> None:
    base = trainer(steps=4)
    run(base, tmp_path / "base")
    init = tmp_path / "base" / start
    second = trainer(AdversarialTrainer, init=init, steps=4)
    before = {k: v.clone() for k, v in second.model.state_dict().items()}
    ema = {k: v.clone() for k, v in base.ema.state_dict().items()}
    assert all(torch.allclose(before[k], ema[k], atol=1e-3) for k in ema), "it starts from the EMA weights"
    judged = [p.clone() for p in second.discriminator.parameters()]  # type: ignore[attr-defined]
    run(second, tmp_path / "second")
    for weights in (second.model.state_dict(), second.ema.state_dict()):
        moved = {name for name, value in weights.items() if not torch.equal(value, before[name])}
        assert {"decoder.stem.conv.weight", "decoder.head.weight"} <= moved
        assert all(name.startswith("decoder.") for name in moved)
    assert not any(map(torch.equal, judged, second.discriminator.parameters()))  # type: ignore[attr-defined]
    shipped = load_file(tmp_path / "base/weights.safetensors")
    after = load_file(tmp_path / "second/weights.safetensors")
    assert all(torch.equal(shipped[k], after[k]) for k in shipped if k.startswith("encoder."))


def test_the_discriminator_learns_to_tell_and_the_decoder_does_not_teach_it() -> None:
    second = trainer(AdversarialTrainer, adam_lr=0.0, muon_lr=0.0, image_share=0.0)
    terms = [second.train_step(second.sampler.batch(0, range(2), 9)) for _ in range(12)]
    assert terms[-1]["discriminator"] < terms[0]["discriminator"]
    assert terms[-1]["logit_real"] > terms[-1]["logit_decoded"]
    assert terms[0]["discriminator"] == pytest.approx(1.0, abs=0.3), "undecided at first"


def test_the_discriminator_s_patches_for_clips_and_images() -> None:
    network = Discriminator(4)
    for frames, patches in ((1, 1), (5, 2), (9, 3), (33, 9)):
        assert network(torch.zeros(2, 3, frames, 32, 48)).shape == (2, 1, patches, 4, 6)


def test_blur_pool_is_a_strided_convolution() -> None:
    x = torch.randn(2, 3, 5, 6, 7)
    taps = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.einsum("i,j,k->ijk", taps, taps, taps).expand(3, 1, 3, 3, 3)
    padded = F.pad(x, (1,) * 6, mode="replicate")
    assert torch.allclose(blur_pool(x), F.conv3d(padded, kernel, stride=2, groups=3), atol=1e-6)


# losses


def test_reconstruction_loss() -> None:
    output, target = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    smooth = (math.sqrt(0.25 + 1e-6) + math.sqrt(4 + 1e-6) + 1e-3) / 3
    assert reconstruction_loss(output, target).item() == pytest.approx(smooth + 4.25 / 3)


def test_frame_perceptual_loss_sees_the_chosen_frames_of_each_clip() -> None:
    a, b = torch.randn(2, 2, 3, 5, 4, 6)
    chosen = [[0, 3], [4, 1]]
    direct = np.mean([(a[i, :, f] - b[i, :, f]).abs().mean().item() for i in (0, 1) for f in chosen[i]])
    assert frame_perceptual_loss(Distance(), a, b, torch.tensor(chosen)).item() == pytest.approx(direct)


def test_adversarial_losses() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 0.5])
    assert discriminator_hinge(real, fake).item() == pytest.approx((2.5 / 3 + 2.5 / 3) / 2)
    assert generator_hinge(fake).item() == pytest.approx(2.5 / 3)
    # excesses: real over .25 by 1.75, .25, 0; fake under 1 by 4, 1, .5
    expected = (1.75**2 + 0.25**2) / 3 + (16 + 1 + 0.25) / 3
    assert lecam(real, fake, torch.tensor(1.0), torch.tensor(0.25)).item() == pytest.approx(expected)


def test_the_loss_of_a_step_is_the_sum_of_its_terms() -> None:
    begun = trainer(lpips_weight=0.7, entropy_boost_steps=1, image_share=0.0, frames=(5,))
    seen = {}
    forward = begun.model.quantizer.forward

    def spy(*args: Any) -> Any:
        seen["quantized"] = forward(*args)
        return seen["quantized"]

    begun.model.quantizer.forward = spy  # type: ignore[method-assign]
    for boost in (3, 1):
        terms = begun.train_step(begun.sampler.batch(0, range(2), 5))
        entropy = terms["entropy_single"] - terms["entropy_average"]
        commitment = seen["quantized"].commitment.item()
        expected = terms["rec"] + 0.7 * terms["lpips"] + 0.02 * boost * entropy + 0.1 * commitment
        assert terms["loss"] == pytest.approx(expected, rel=1e-5)
        single, average = entropy_terms(seen["quantized"].margins)
        assert (terms["entropy_single"], terms["entropy_average"]) == pytest.approx((single.item(), average.item()))


def test_commitment_is_the_distance_to_the_own_code() -> None:
    u = torch.randn(2, 4, 1, 2, 2)
    quantizer = LFQ(4, 2)
    z = torch.tanh(u)
    code = torch.sign(z) / 2
    code = code + torch.sign(z - code) / 4
    assert quantizer(u).commitment.item() == pytest.approx((z - code).square().mean().item(), rel=1e-5)


def test_squeezenet_lpips_teaches(shared: Path) -> None:
    lpips = load_lpips("squeeze", shared / "lpips")
    target = to_pixels(torch.from_numpy(moving_segments(1, 5, 64))).permute(0, 4, 1, 2, 3)
    output = (target + 0.3 * torch.randn_like(target)).requires_grad_()
    loss = frame_perceptual_loss(lpips, output, target, torch.tensor([[1, 4]]))
    loss.backward()
    assert output.grad is not None
    assert loss.item() > 0.1
    assert frame_perceptual_loss(lpips, target, target, torch.tensor([[1, 4]])).item() == pytest.approx(0, abs=1e-6)
    used = output.grad.abs().amax(dim=(0, 1, 3, 4)) > 0
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
    model = Tokenizer(TINY)
    optimizer = MuonAdamW(dict(model.named_parameters()), muon_lr=0.01, adam_lr=0.001)
    (group,) = optimizer.muon.param_groups
    kernels = {id(kernel) for kernel in group["params"]}
    assert len(kernels) > 10
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step(1.0)
    moved = {name: (p - before[name]).square().mean().sqrt().item() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        assert moved[name] == pytest.approx(0.002 if id(p) in kernels else 0.001, rel=0.35), name
    assert "encoder.down.weight" in moved
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_momentum_is_the_runs_and_not_the_checkpoints() -> None:
    kernel = nn.Parameter(torch.ones(4, 4, 1, 1, 1))
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
    kernel = nn.Parameter(torch.randn(16, 8, 3, 3, 3).to(memory_format=torch.channels_last_3d))
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
    assert kernel.is_contiguous(memory_format=torch.channels_last_3d)
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


def test_a_clip_is_a_pure_function_of_seed_step_and_place() -> None:
    def sampler(seed: int) -> ClipSampler:
        return ClipSampler([moving_segments()], 32, seed)

    batch = sampler(3).batch(7, range(4), 9)
    assert batch.shape == (4, 3, 9, 32, 32)
    assert batch.dtype == torch.uint8
    assert torch.equal(batch[2:], sampler(3).batch(7, range(2, 4), 9))
    assert not torch.equal(batch, sampler(3).batch(8, range(4), 9))
    assert not torch.equal(batch, sampler(4).batch(7, range(4), 9))


def test_clips_are_whole_crops_of_one_segment_in_order() -> None:
    """Every pixel of these segments says where it lies."""
    where = np.stack(np.broadcast_arrays(*np.ogrid[:12, :40, :48]), axis=-1).astype(np.uint8)
    sampler = ClipSampler([where[None], 100 + where[None]], 32, 0)
    strides, flips, tops, segments = set(), set(), set(), set()
    for step in range(60):
        clip = sampler.clip(step, 0, 5).astype(int)
        segments.add(clip[0, 0, 0, 0] >= 100)
        clip = clip % 100
        times = clip[:, 0, 0, 0]
        strides.add(int(times[1] - times[0]))
        flips.add(bool(clip[0, 0, 0, 2] > clip[0, 0, 1, 2]))
        tops.add(int(clip[0, 0, 0, 1]))
        assert (np.diff(times) == times[1] - times[0]).all()
        assert (clip[..., 0] == times[:, None, None]).all()
        assert (np.diff(clip[..., 1], axis=1) == 1).all()
        assert (np.abs(np.diff(clip[..., 2], axis=2)) == 1).all()
    assert strides == {1, 2, -1, -2}
    assert flips == {False, True}
    assert (min(tops), max(tops)) == (0, 8)
    assert segments == {False, True}


def test_a_share_of_the_clips_is_scaled_down() -> None:
    """These segments are ramps of slope 2: at half the size their slope is 4."""
    ramp = np.broadcast_to(2 * np.arange(64, dtype=np.uint8)[:, None], (1, 9, 64, 64, 3))
    for share, least, most in ((0.0, 0.0, 0.0), (0.5, 0.35, 0.65), (1.0, 0.9, 1.0)):
        sampler = ClipSampler([ramp], 32, 0, shrink_share=share)
        clips = [sampler.clip(step, 0, 5).astype(float) for step in range(100)]
        slopes = np.array([np.abs(np.diff(clip[:, :, 8:-8], axis=2)).mean() for clip in clips])
        assert least <= (slopes > 2.05).mean() <= most, share
        assert slopes.max() <= 4.05
    assert slopes.max() > 3.5


def test_single_frames_come_from_photographs_and_video_alike() -> None:
    photographs = np.full((3, 1, 32, 32, 3), 7, np.uint8)
    sampler = ClipSampler([moving_segments(50), photographs], 32, 0)
    drawn = sampler.batch(0, range(200), 1)
    assert drawn.shape == (200, 3, 1, 32, 32)
    share = (drawn == 7).all(dim=1).flatten(1).all(dim=1).float().mean().item()
    assert 0.4 < share < 0.65
    assert not (sampler.batch(0, range(50), 9) == 7).all()


def test_all_segments_are_equally_likely_in_every_place() -> None:
    segments = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None, None], (10, 9, 16, 16, 3))
    begun = Trainer(
        TINY,
        dataclasses.replace(SETTINGS, crop_px=16, frames=(9,)),
        ClipSampler([segments], 16, 0),
        Distance(),
        CPU,
        torch.float32,
    )
    videos = [step for step in range(600) if begun.batch_shape(step)[1] == 9]
    drawn = np.bincount([int(begun.sampler.clip(step, 0, 9)[0, 0, 0, 0]) for step in videos], minlength=10)
    assert drawn.min() > 0.5 * len(videos) / 10


def test_no_segment_is_long_enough() -> None:
    with pytest.raises(TokcodecError, match="33 frames of 32 pixels"):
        ClipSampler([moving_segments()], 32, 0).clip(0, 0, 33)


def test_longer_clips_take_as_many_pixels() -> None:
    begun = trainer(batch=8, frames=(9, 17, 33), image_share=0.25)
    shapes = {begun.batch_shape(step) for step in range(200)}
    assert shapes == {(32, 1), (8, 9), (4, 17), (2, 33)}


def test_bits_are_dropped_and_samples_pass_unquantized_until_the_warm_start_ends() -> None:
    begun = trainer()
    kept, unquantized, seen = begun.draws(range(400), 9)
    assert set(kept.tolist()) == {8, 16}
    assert 0.15 < (kept == 8).float().mean() < 0.35
    assert 0.4 < unquantized.float().mean() < 0.6
    assert seen.shape == (400, 2)
    assert (seen[:, 0] != seen[:, 1]).all()
    begun.position = 0.15
    assert 0.15 < begun.draws(range(400), 9)[1].float().mean() < 0.35
    begun.position = 0.3
    assert not begun.draws(range(400), 9)[1].any()
    assert begun.draws(range(4), 1)[2].tolist() == [[0]] * 4


@pytest.mark.parametrize("fields", [{"frames": (9, 16)}, {"crop_px": 40}])
def test_sizes_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        TrainSettings(**fields)


# evaluation


def test_evaluation_judges_every_rate_of_a_clip() -> None:
    model = Tokenizer(TINY).eval()
    clip = moving_segments(1)[0, :6, :40]  # neither 1 + 4n frames nor whole tiles
    result = evaluate(model, Distance(), {"a": clip})
    pixels = to_pixels(torch.from_numpy(np.pad(clip, ((0, 3), (0, 8), (0, 0), (0, 0)), mode="edge")))
    bits = model.encode(pixels.permute(3, 0, 1, 2)[None])
    for index, k in enumerate((8, 16)):
        output = model.decode(bits[:, :k])[0, :, :6, :40].permute(1, 2, 3, 0).detach()
        decoded = (output * 127.5 + 127.5).round().clamp(0, 255).numpy()
        mse = np.square(decoded - clip).mean(axis=(1, 2, 3))
        assert result.clips["a"]["psnr_db"][index] == pytest.approx(np.mean(10 * np.log10(255**2 / mse)), abs=2e-3)
        distance = np.abs(decoded[::3] - clip[::3]).mean() / 127.5
        assert result.clips["a"]["lpips"][index] == pytest.approx(distance, abs=2e-4)
    assert result.picture.shape[1:] == (960, 3)


def test_rates_end_with_all_bits() -> None:
    assert rates(64) == [8, 16, 32, 64]
    assert rates(32) == [8, 16, 32]
    assert rates(6) == [6]
    equal = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr_db(equal, equal) == 100


# the command's defaults


def test_the_command_shows_the_defaults_of_the_settings() -> None:
    defaults = dataclasses.asdict(TrainSettings()) | dataclasses.asdict(TokenizerConfig()) | {"adaptive": "adaptive"}
    shown = {p.name: p.show_default for p in train_command.params if isinstance(getattr(p, "show_default", 0), str)}
    assert len(shown) == 19
    for name, text in shown.items():
        value = defaults[name]
        assert text == (",".join(map(str, value)) if isinstance(value, tuple) else str(value)), name
