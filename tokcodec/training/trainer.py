"""The base stage: the whole tokenizer learns from reconstruction, LPIPS, entropy penalty and commitment.

Bits are dropped from the end at random, so that every prefix of the K bits decodes. Clips pass
unquantized at first with a share that falls to zero (warm start). The loop around a step is train.py's.
"""

from __future__ import annotations

import dataclasses
import math
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokcodec.bitstream import SPACE_STRIDE, TIME_STRIDE
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.lfq import entropy_terms
from tokcodec.model import Tokenizer, TokenizerConfig
from tokcodec.output import writing
from tokcodec.training import processes
from tokcodec.training.data import ClipSampler, to_pixels
from tokcodec.training.losses import frame_perceptual_loss, reconstruction_loss
from tokcodec.training.optim import MuonAdamW

KEPT_STEP = 8  # bits are dropped in groups of this many


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What a run does. `batch` counts clips of the shortest length, longer ones take as many pixels."""

    steps: int = 20_000
    batch: int = 8  # of all processes together
    frames: tuple[int, ...] = (9,)
    crop_px: int = 128
    seed: int = 0
    muon_lr: float = 0.005
    muon_momentum: float = 0.95
    adam_lr: float = 0.003
    warmup_steps: int = 100
    decay_share: float = 0.3  # of the schedule: constant before, cosine to 0 inside
    warm_start_share: float = 0.3  # of the schedule: some clips pass unquantized
    image_share: float = 0.1  # of the steps
    shrink_share: float = 0.5  # of the clips: scaled down to the crop
    full_rate_share: float = 0.5  # of the clips: all K bits kept
    lpips_weight: float = 1.0
    lpips_frames: int = 2
    entropy_weight: float = 0.02
    entropy_boost_steps: int = 2_000  # three times the weight
    commitment_weight: float = 0.1
    ema: float = 0.999

    def __post_init__(self) -> None:
        if any(n % TIME_STRIDE != 1 for n in self.frames):
            raise ValueError(f"clips have 1 + {TIME_STRIDE}n frames, not {self.frames}")
        if self.crop_px % SPACE_STRIDE:
            raise ValueError(f"a crop is a multiple of {SPACE_STRIDE} pixels, not {self.crop_px}")


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


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """The contents of a checkpoint.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise ModelError(f"{path}: not a checkpoint")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the unpickler lets through whatever a damaged byte makes it do
        raise ModelError(f"{path}: cannot read checkpoint: {str(error).partition(chr(10))[0]}") from error
    return state


def starting_model(path: Path) -> Tokenizer:
    """What `--init` names: weights, or a checkpoint (.pt), of which the EMA weights are taken in full precision.

    Raises:
        ModelError: it is neither, or damaged.
    """
    if path.suffix != ".pt":
        return Tokenizer.load(path)
    state = read_checkpoint(path, torch.device("cpu"))
    try:
        model = Tokenizer(TokenizerConfig.from_json(state["config"]))
        model.load_state_dict(state["ema"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: not a checkpoint of this version: {str(error).splitlines()[0]}") from error
    return model


class Trainer:
    """Model, EMA, optimizers and schedule position: all that a checkpoint holds.

    Args:
        config: of the tokenizer; `init` brings its own.
        settings: of the run.
        sampler: where clips come from.
        lpips: the teacher.
        device: to train on.
        dtype: of the networks' arithmetic (autocast); quantizer and losses stay float32.
        init: weights or a checkpoint to start from.
        compiled: use torch.compile.

    Raises:
        ModelError: `init` cannot be used.

    Attributes:
        step: steps done.
        position: in the schedule, 0 to 1; the loop moves it.
        pixels: seen, of all processes and frames.
    """

    stage = "base"

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
        self.model = (starting_model(init) if init else Tokenizer(config)).to(device).train()
        self.ema = Tokenizer(self.model.config).to(device).eval().requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self.lpips = lpips.to(device)
        self.optimizer = self.new_optimizer()
        self.encoder = torch.compile(self.model.encoder) if compiled else self.model.encoder
        self.decoder = torch.compile(self.model.decoder) if compiled else self.model.decoder
        self.step = 0
        self.position = 0.0
        self.pixels = 0

    def new_optimizer(self) -> MuonAdamW:
        """For the tokenizer's parameters that need a gradient."""
        settings = self.settings
        named = dict(self.model.named_parameters())
        return MuonAdamW(named, settings.muon_lr, settings.adam_lr, settings.muon_momentum)

    # what one step draws, all from (seed, step, place)

    def batch_shape(self, step: int) -> tuple[int, int]:
        """(clips in the whole batch, frames a clip) of a step; every process gets the same number of clips."""
        # NumPy fills a short seed with zeros: without the last number this would be the generator of place 0.
        rng = np.random.default_rng([self.settings.seed, step, 0, 2])
        world = processes.count()
        if rng.random() < self.settings.image_share:
            clips, frames = 4 * self.settings.batch, 1
        else:
            frames = int(rng.choice(self.settings.frames))
            clips = self.settings.batch * min(self.settings.frames) // frames
        return max(1, clips // world) * world, frames

    def places(self, clips: int) -> range:
        """The part of the batch that is this process's."""
        share = clips // processes.count()
        return range(processes.rank() * share, (processes.rank() + 1) * share)

    def batches(self) -> Generator[Tensor, None, None]:
        """The batches of all steps from the present one on."""
        step = self.step
        while True:
            clips, frames = self.batch_shape(step)
            yield self.sampler.batch(step, self.places(clips), frames)
            step += 1

    def draws(self, places: range, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Per clip: bits kept `[B]`, whether it passes unquantized `[B]`, frames LPIPS sees `[B, n]`."""
        bits = self.model.config.token_bits
        share = self.settings.warm_start_share
        warm = 1 - self.position / share if share else 0.0
        kept, unquantized, seen = [], [], []
        for place in places:
            rng = np.random.default_rng([self.settings.seed, self.step, place, 1])
            full = rng.random() < self.settings.full_rate_share
            kept.append(bits if full else min(bits, KEPT_STEP * int(rng.integers(1, -(-bits // KEPT_STEP) + 1))))
            unquantized.append(bool(rng.random() < 0.5 * warm))
            seen.append(rng.choice(frames, min(frames, self.settings.lpips_frames), replace=False))
        drawn = torch.tensor(kept), torch.tensor(unquantized), torch.from_numpy(np.stack(seen))
        return tuple(x.to(self.device) for x in drawn)  # type: ignore[return-value]

    def autocast(self) -> torch.autocast:
        """The arithmetic of the networks."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def train_step(self, batch: Tensor) -> dict[str, float]:
        """One step.

        Args:
            batch: uint8 `[B, 3, T, H, W]`: this process's part.

        Returns:
            The terms of the log, averaged over the processes; a term that a batch does not have is NaN.

        Raises:
            TokcodecError: the loss is not finite.
        """
        settings = self.settings
        clip = to_pixels(batch.to(self.device, non_blocking=True))
        clips, frames = self.batch_shape(self.step)
        kept, unquantized, seen = self.draws(self.places(clips), frames)
        with self.autocast():
            u = self.encoder(clip)
            quantized = self.model.quantizer(u, kept, unquantized)
            output = self.decoder(quantized.latent)
            perceptual = frame_perceptual_loss(self.lpips, output, clip, seen)
        rec = reconstruction_loss(output, clip)
        single, average = entropy_terms(quantized.margins, mean_of_processes=processes.mean)
        boost = 3 if self.step < settings.entropy_boost_steps else 1
        loss = (
            rec
            + settings.lpips_weight * perceptual
            + settings.entropy_weight * boost * (single - average)
            + settings.commitment_weight * quantized.commitment
        )
        self.optimizer.zero_grad()
        loss.backward()
        norm = self.update(clip)
        with torch.no_grad():
            on = quantized.bits.float()
            changed = (on[:, :, 1:] != on[:, :, :-1]).float().mean()  # NaN where there is one latent frame
            imbalance = (2 * processes.mean(on.mean(dim=(0, 2, 3, 4))) - 1).abs()
        return self.report(
            {
                "loss": loss,
                "rec": rec,
                "lpips": perceptual,
                "entropy_single": single,
                "entropy_average": average,
                "imbalance_mean": imbalance.mean(),
                "imbalance_max": imbalance.max(),
                "changed": changed,
                "grad_norm": norm,
            }
        )

    def update(self, clip: Tensor) -> Tensor:
        """Average gradients over processes, clip them to norm 1, update weights and EMA; returns the norm before."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        processes.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step(lr_scale(self.settings, self.step, self.position))
        keep = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - keep)
        self.step += 1
        self.pixels += processes.count() * clip.numel() // 3
        return norm

    def report(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Average scalar terms over the processes and bring them to the CPU, in one exchange.

        Raises:
            TokcodecError: the term "loss" is not finite (on every process alike).
        """
        means = processes.mean(torch.stack([value.detach().float() for value in terms.values()]))
        values = dict(zip(terms, means.tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise TokcodecError(f"the loss is {values['loss']} at step {self.step}; start again from the checkpoint")
        return values

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds."""
        return {
            "stage": self.stage,
            "config": self.model.config.to_json(),
            "settings": dataclasses.asdict(self.settings),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "position": self.position,
            "pixels": self.pixels,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; the settings stay those of this trainer."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.position, self.pixels = state["step"], state["position"], state["pixels"]

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            TokcodecError: it cannot be written.
        """
        with writing(path, [], overwrite=True) as file:
            torch.save(self.state(), file)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            ModelError: it is damaged, of another configuration or of another stage.
        """
        state = read_checkpoint(path, self.device)
        try:
            if state["config"] != self.model.config.to_json():
                raise ModelError(f"{path}: checkpoint of another configuration: {state['config']}")
            stage = state.get("stage", Trainer.stage)
            if stage != self.stage:
                raise ModelError(
                    f"{path}: checkpoint of stage {stage}; to go on from it, name it as --init of a new run"
                )
            self.restore(state)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ModelError(f"{path}: not a checkpoint of this version: {str(error).splitlines()[0]}") from error
