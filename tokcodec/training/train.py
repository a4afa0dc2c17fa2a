"""The training loop: one command, resumable to the step, on a CPU, a GPU or several processes.

Stage "base" trains the whole tokenizer: reconstruction, LPIPS, entropy penalty, commitment. Bits are
dropped from the end at random, so that every prefix of the K bits decodes. Clips pass unquantized at
first with a share that falls to zero (warm start).

Run under torchrun for several processes: each takes its part of the batch, gradients are averaged.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from tokcodec.errors import ModelError, TokcodecError
from tokcodec.lfq import entropy_terms
from tokcodec.model import Tokenizer, TokenizerConfig
from tokcodec.pipeline import in_background
from tokcodec.training.data import ClipSampler, to_pixels
from tokcodec.training.evaluate import RATES, evaluate, picture
from tokcodec.training.losses import frame_perceptual_loss, reconstruction_loss
from tokcodec.training.optim import MuonAdamW

LOG_EVERY = 50
KEPT_STEP = 8  # bits are dropped in groups of this many


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What a run does. `batch` counts clips of the shortest length, longer ones take as many pixels."""

    steps: int = 20_000
    batch: int = 8
    frames: tuple[int, ...] = (9,)
    crop_px: int = 128
    seed: int = 0
    muon_lr: float = 0.01
    adam_lr: float = 0.001
    warmup_steps: int = 100
    decay_share: float = 0.3  # of the schedule: constant before, cosine to 0 inside
    warm_start_share: float = 0.3  # of the schedule: some clips pass unquantized
    image_share: float = 0.1  # of the steps
    full_rate_share: float = 0.5  # of the clips: all K bits kept
    lpips_weight: float = 1.0
    lpips_frames: int = 2
    entropy_weight: float = 0.02
    entropy_boost_steps: int = 2_000  # three times the weight
    commitment_weight: float = 0.1
    ema: float = 0.999


def lr_scale(settings: TrainSettings, step: int, position: float) -> float:
    """Learning-rate factor in [0, 1]: linear warm-up, constant, cosine to 0 over the last `decay_share`.

    Args:
        settings: of the run.
        step: steps done.
        position: in the schedule, 0 to 1.
    """
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    late = (position - (1 - settings.decay_share)) / settings.decay_share
    return warm * (1.0 if late <= 0 else 0.5 * (1 + math.cos(math.pi * min(1.0, late))))


def mean_of_processes(x: Tensor) -> Tensor:
    """The average over processes, with gradient; the tensor itself where there is one process."""
    if not dist.is_initialized():
        return x
    total: Tensor = dist_nn.all_reduce(x)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()


class Trainer:
    """Model, EMA, optimizers and schedule position: all that a checkpoint holds.

    Args:
        config: of the tokenizer.
        settings: of the run.
        sampler: where clips come from.
        lpips: the teacher.
        device: to train on.
        dtype: of the networks' arithmetic (autocast); quantizer and losses stay float32.
        init: weights to start from.
        compiled: use torch.compile.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        settings: TrainSettings,
        sampler: ClipSampler,
        lpips: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        init: Path | None = None,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.sampler, self.device, self.dtype = settings, sampler, device, dtype
        self.model = (Tokenizer.load(init) if init else Tokenizer(config)).to(device).train()
        self.ema = Tokenizer(self.model.config).to(device).eval().requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self.lpips = lpips.to(device)
        self.optimizer = MuonAdamW(dict(self.model.named_parameters()), settings.muon_lr, settings.adam_lr)
        self.encoder = torch.compile(self.model.encoder) if compiled else self.model.encoder
        self.decoder = torch.compile(self.model.decoder) if compiled else self.model.decoder
        self.step = 0
        self.position = 0.0
        self.pixels = 0

    # what one step draws, all from (seed, step, place)

    def batch_shape(self, step: int) -> tuple[int, int]:
        """(clips in the whole batch, frames a clip) of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        if rng.random() < self.settings.image_share:
            return 4 * self.settings.batch, 1
        shortest = min(self.settings.frames)
        frames = int(rng.choice(self.settings.frames))
        world = dist.get_world_size() if dist.is_initialized() else 1
        return max(world, self.settings.batch * shortest // frames // world * world), frames

    def places(self, clips: int) -> range:
        """The part of the batch that is this process's."""
        if not dist.is_initialized():
            return range(clips)
        share = clips // dist.get_world_size()
        return range(dist.get_rank() * share, (dist.get_rank() + 1) * share)

    def batches(self) -> Generator[Tensor, None, None]:
        step = self.step
        while True:
            clips, frames = self.batch_shape(step)
            yield self.sampler.batch(step, self.places(clips), frames)
            step += 1

    def draws(self, places: range, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Per clip: bits kept `[B]`, whether it passes unquantized `[B]`, frames LPIPS sees `[B, n]`."""
        bits = self.model.config.token_bits
        warm = 1 - self.position / self.settings.warm_start_share
        kept, unquantized, seen = [], [], []
        for place in places:
            rng = np.random.default_rng([self.settings.seed, self.step, place, 1])
            full = rng.random() < self.settings.full_rate_share
            kept.append(bits if full else min(bits, KEPT_STEP * int(rng.integers(1, -(-bits // KEPT_STEP) + 1))))
            unquantized.append(bool(rng.random() < 0.5 * warm))
            seen.append(rng.choice(frames, min(frames, self.settings.lpips_frames), replace=False))
        return torch.tensor(kept), torch.tensor(unquantized), torch.from_numpy(np.stack(seen))

    def train_step(self, batch: Tensor) -> dict[str, Tensor]:
        """One step on uint8 `[B, 3, T, H, W]`; returns its terms as scalars (detached)."""
        settings, device = self.settings, self.device
        clip = to_pixels(batch.to(device, non_blocking=True))
        clips, frames = self.batch_shape(self.step)
        kept, unquantized, seen = (x.to(device) for x in self.draws(self.places(clips), frames))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            u = self.encoder(clip)
            quantized = self.model.quantizer(u, kept, unquantized)
            output = self.decoder(quantized.latent)
            perceptual = frame_perceptual_loss(self.lpips, output, clip, seen)
        rec = reconstruction_loss(output, clip)
        single, average = entropy_terms(quantized.margins, mean_of_processes=mean_of_processes)
        boost = 3 if self.step < settings.entropy_boost_steps else 1
        loss = (
            rec
            + settings.lpips_weight * perceptual
            + settings.entropy_weight * boost * (single - average)
            + settings.commitment_weight * quantized.commitment
        )
        self.optimizer.zero_grad()
        loss.backward()
        norm = self.apply_gradients()
        with torch.no_grad():
            on = quantized.bits.float()
            changed = (on[:, :, 1:] - on[:, :, :-1]).abs().mean() if on.shape[2] > 1 else torch.tensor(math.nan)
            balance = (2 * on.mean(dim=(0, 2, 3, 4)) - 1).abs()
        terms = {
            "loss": loss,
            "rec": rec,
            "lpips": perceptual,
            "entropy_single": single,
            "entropy_average": average,
            "imbalance_mean": balance.mean(),
            "imbalance_max": balance.max(),
            "changed": changed,
            "grad_norm": norm,
        }
        self.pixels += batch.numel() // 3
        return {name: value.detach() for name, value in terms.items()}

    def apply_gradients(self) -> Tensor:
        """Average over processes, clip to norm 1, update weights and EMA; returns the norm before."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if dist.is_initialized():
            flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            for p, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
                p.grad = part.view(p.shape)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step(lr_scale(self.settings, self.step, self.position))
        keep = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - keep)
        self.step += 1
        return norm

    def save(self, path: Path) -> None:
        """Write a checkpoint, by rename."""
        state = {
            "config": self.model.config.to_json(),
            "settings": dataclasses.asdict(self.settings),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "position": self.position,
            "pixels": self.pixels,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            ModelError: it is damaged or of another configuration.
        """
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            if state["config"] != self.model.config.to_json():
                raise ModelError(f"{path}: checkpoint of another configuration: {state['config']}")
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.position, self.pixels = state["step"], state["position"], state["pixels"]
        except (OSError, KeyError, RuntimeError, EOFError, ValueError) as error:
            raise ModelError(f"{path}: cannot read checkpoint: {str(error).splitlines()[0]}") from error


class Judge:
    """Evaluates the EMA weights now and then: JSON lines, a picture.

    Args:
        sets: clips by the name of their set.
        lpips: the AlexNet LPIPS.
        out: folder of the run.
    """

    def __init__(self, sets: dict[str, dict[str, np.ndarray]], lpips: nn.Module, out: Path) -> None:
        self.sets, self.lpips, self.out = sets, lpips, out

    def __call__(self, trainer: Trainer) -> dict[str, Any]:
        self.lpips.to(trainer.device)
        line: dict[str, Any] = {"step": trainer.step, "pixels": trainer.pixels, "rates": list(RATES)}
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=trainer.dtype == torch.bfloat16):
            for name, clips in self.sets.items():
                report = evaluate(trainer.ema, self.lpips, clips)
                line[name] = {
                    key: [round(float(np.mean([r[key][i] for r in report.values()])), 4) for i in range(len(RATES))]
                    for key in ("lpips", "psnr_db")
                }
                line[name]["clips"] = report
                picture(trainer.ema, clips, self.out / f"{name}.png")
        with (self.out / "eval.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return line


def run(
    trainer: Trainer,
    out: Path,
    judge: Judge | None = None,
    minutes: float | None = None,
    finish: bool = False,
    eval_every: int = 1000,
    save_every: int = 500,
) -> None:
    """Train until the schedule or the time ends; SIGINT and SIGTERM stop cleanly, with a checkpoint.

    Args:
        trainer: continues from `out/checkpoint.pt` if that exists.
        out: folder for checkpoint.pt, train.jsonl, eval.jsonl, weights.safetensors (EMA) and pictures.
        judge: for evaluations.
        minutes: stop after this time.
        finish: let the schedule, learning-rate decay included, reach its end within `minutes`.
        eval_every: steps between evaluations.
        save_every: steps between checkpoints.
    """
    if finish and minutes is None:
        raise ValueError("finish needs minutes")
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    settings = trainer.settings
    first_position, started, stopped = trainer.position, time.monotonic(), False
    main = not dist.is_initialized() or dist.get_rank() == 0

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    handlers = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    batches = in_background(trainer.batches(), depth=2)
    sums: dict[str, float] = {}
    count, waited, pixels, since = 0, 0.0, trainer.pixels, time.monotonic()
    try:
        while trainer.position < 1 and not stopped:
            begin = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - begin
            terms = {name: value.item() for name, value in trainer.train_step(batch).items()}
            if not math.isfinite(terms["loss"]):
                raise TokcodecError(f"the loss is {terms['loss']} at step {trainer.step}; resume from {checkpoint}")
            for name, value in terms.items():
                if not math.isnan(value):
                    sums[name] = sums.get(name, 0.0) + value
                    sums[name + "#"] = sums.get(name + "#", 0) + 1
            count += 1
            elapsed = (time.monotonic() - started) / 60
            if finish and minutes:
                trainer.position = first_position + (1 - first_position) * min(1.0, elapsed / minutes)
            else:
                trainer.position = min(1.0, trainer.position + 1 / settings.steps)
                stopped = stopped or (minutes is not None and elapsed >= minutes)
            if trainer.step % LOG_EVERY == 0 and main:
                took = time.monotonic() - since
                line: dict[str, Any] = {"step": trainer.step, "position": round(trainer.position, 4)}
                line |= {k: float(f"{v / sums[k + '#']:.4g}") for k, v in sums.items() if not k.endswith("#")}
                line |= {
                    "steps_per_s": round(count / took, 3),
                    "pixels_per_s": round((trainer.pixels - pixels) / took),
                    "data_wait": round(waited / took, 3),
                }
                with (out / "train.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(" ".join(f"{k} {v}" for k, v in line.items()), file=sys.stderr, flush=True)
                sums, count, waited, pixels, since = {}, 0, 0.0, trainer.pixels, time.monotonic()
            if trainer.step % save_every == 0 and main:
                trainer.save(checkpoint)
            if judge is not None and trainer.step % eval_every == 0 and main:
                begin = time.monotonic()
                judge(trainer)
                since += time.monotonic() - begin  # rates are of training alone
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if main:
        trainer.save(checkpoint)
        trainer.ema.save(out / "weights.safetensors", {"steps": str(trainer.step), "pixels": str(trainer.pixels)})
        if judge is not None and trainer.position >= 1:
            judge(trainer)
