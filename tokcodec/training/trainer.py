"""A step of training: the network learns to restore what the coding loop left of a clip.

The loop is run ahead of time (coded.py) and never learns, so a step is restoration alone. The loop around a step
is train.py's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokcodec.coding.planes import GROUP
from tokcodec.dtypes import Array
from tokcodec.errors import ModelError, TokcodecError
from tokcodec.io.output import writing
from tokcodec.restorer.network import Restorer, RestorerConfig, State, to_rgb
from tokcodec.training import processes
from tokcodec.training.coded import STRIDE, Batch, WindowSampler, unpack
from tokcodec.training.losses import frame_perceptual_loss, reconstruction_loss, temporal_loss
from tokcodec.training.optim import MuonAdamW
from tokcodec.weights import Weights

GAIN_EVERY = 10  # steps: it costs as much as a loss


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What a run does. `batch` counts windows of the shortest length, longer ones take as many pixels."""

    steps: int = 20_000
    batch: int = 4  # of all processes together
    frames: tuple[int, ...] = (9,)  # of windows from a chunk's start; later windows have one less
    crop_px: int = 192
    seed: int = 0
    step_range: tuple[float, float] = (4, 120)  # of the quantizer, in levels
    passes: int = 1  # over the segments, each at other quantizer steps
    moving: int = 0  # clips made of photographs, in addition to the segments
    smaller: int = 0  # clips made of segments scaled down
    focus: float = 0.0  # segments are drawn as often as the loop's error to this power
    muon_lr: float = 0.003
    muon_momentum: float = 0.95
    adam_lr: float = 0.001
    warmup_steps: int = 100
    decay_share: float = 0.3  # of the schedule: constant before, cosine to 0 inside
    image_share: float = 0.1  # of the steps: single first frames, four times as many
    late_share: float = 0.5  # of the other steps: windows from a later group
    rec_weight: float = 0.3
    lpips_weight: float = 1.0
    lpips_frames: int = 2
    temporal_weight: float = 0.5
    ema: float = 0.999

    def __post_init__(self) -> None:
        if any(n % GROUP != 1 for n in self.frames):
            raise ValueError(f"windows have 1 + {GROUP}n frames, not {self.frames}")
        if self.crop_px % STRIDE:
            raise ValueError(f"a crop is a multiple of {STRIDE} pixels, not {self.crop_px}")
        if len(self.step_range) != 2 or not 0 < self.step_range[0] <= self.step_range[1]:
            raise ValueError(f"steps go from one above 0 to one as large, not {self.step_range}")


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


def advanced(position: float, steps: int) -> float:
    """The position one step later in a schedule of so many; the last step ends at 1, whatever the sum of all is."""
    position += 1 / steps
    return 1.0 if position > 1 - 1e-9 else position


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


def resume(path: Path, device: torch.device, config: str, restore: Callable[[dict[str, Any]], None]) -> None:
    """Give the contents of a checkpoint of this configuration to `restore`.

    Raises:
        ModelError: it is damaged, of another configuration, or does not fit.
    """
    state = read_checkpoint(path, device)
    try:
        if state["config"] != config:
            raise ModelError(f"{path}: checkpoint of another configuration: {state['config']}")
        restore(state)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: not a checkpoint of this version: {str(error).splitlines()[0]}") from error


def starting_network(path: Path) -> Restorer | None:
    """What `--init` names: weights, or a checkpoint (.pt), of which the EMA weights are taken in full precision.

    None for weights that hold tables alone.

    Raises:
        ModelError: it is neither, or damaged.
    """
    if path.suffix != ".pt":
        weights = Weights.load(path)
        return weights.restorer() if weights.configs else None
    state = read_checkpoint(path, torch.device("cpu"))
    try:
        network = Restorer(RestorerConfig.from_json(state["config"]))
        network.load_state_dict(state["ema"])
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: not a checkpoint of this version: {str(error).splitlines()[0]}") from error
    return network


def restore(network: Callable[..., tuple[Tensor, State]], batch: Batch) -> Tensor:
    """Windows through the network, group by group: float32 `[B, T, 3, H, W]`, not clamped."""
    base, prediction = (unpack(batch.planes[:, kind]) for kind in (1, 2))
    state: State | None = None
    outputs, begin, frames = [], 0, batch.planes.shape[2]
    while begin < frames:
        first = batch.first and not begin
        end = begin + (1 if first else GROUP)
        group = [plane[:, begin:end] for plane in (*base, *prediction)]
        of_frames = (batch.step, batch.own[:, begin:end], batch.kind[:, begin:end])
        output, state = network(*group, *of_frames, first, state)
        outputs.append(output)
        begin = end
    return torch.cat(outputs, 1)


def picture(batch: Batch, kind: int) -> Tensor:
    """The windows as they were (0) or as the loop left them (1): float32 `[B, T, 3, H, W]`, in [-1, 1]."""
    return to_rgb(*unpack(batch.planes[:, kind])).clamp_(-1, 1)


class Trainer:
    """Network, EMA, optimizers and schedule position: all that a checkpoint holds.

    Args:
        config: of a new network.
        settings: of the run.
        sampler: where windows come from.
        lpips: the teacher.
        device: to train on.
        dtype: of the networks' arithmetic (autocast); losses stay float32.
        started: a network to go on with instead, as `starting_network` gives it.
        compiled: use torch.compile.
        arrays: the loop's tables, to be written with the network.

    Attributes:
        step: steps done.
        position: in the schedule, 0 to 1; the loop moves it.
        pixels: seen, of all processes and frames.
    """

    def __init__(
        self,
        config: RestorerConfig,
        settings: TrainSettings,
        sampler: WindowSampler,
        lpips: nn.Module,
        device: torch.device,
        dtype: torch.dtype,
        started: Restorer | None = None,
        compiled: bool = False,
        arrays: dict[str, Array] | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.sampler, self.device, self.dtype = settings, sampler, device, dtype
        self.model = (Restorer(config) if started is None else started).to(device).train()
        self.ema = Restorer(self.model.config).to(device).eval().requires_grad_(False)
        self.ema.load_state_dict(self.model.state_dict())
        self.lpips = lpips.to(device)
        self.optimizer = MuonAdamW(
            dict(self.model.named_parameters()), settings.muon_lr, settings.adam_lr, settings.muon_momentum
        )
        self.network = torch.compile(self.model) if compiled else self.model
        self.arrays = arrays or {}
        self.step = 0
        self.position = 0.0
        self.pixels = 0

    # what one step draws, all from (seed, step, place)

    def batch_shape(self, step: int) -> tuple[int, int, bool]:
        """(windows in the whole batch, frames of one, whether from the start); processes get equal shares."""
        # NumPy fills a short seed with zeros: without the last number this would be the generator of place 0.
        rng = np.random.default_rng([self.settings.seed, step, 0, 2])
        world = processes.count()
        first = True
        if rng.random() < self.settings.image_share:
            windows, frames = 4 * self.settings.batch, 1
        else:
            frames = int(rng.choice(self.settings.frames))
            windows = self.settings.batch * min(self.settings.frames) // frames
            if frames > 1 and rng.random() < self.settings.late_share:
                frames, first = frames - 1, False
        return max(1, windows // world) * world, frames, first

    def places(self, windows: int) -> range:
        """The part of the batch that is this process's."""
        share = windows // processes.count()
        return range(processes.rank() * share, (processes.rank() + 1) * share)

    def batches(self) -> Generator[Batch, None, None]:
        """The batches of all steps from the present one on."""
        step = self.step
        while True:
            windows, frames, first = self.batch_shape(step)
            yield self.sampler.batch(step, self.places(windows), frames, first)
            step += 1

    def seen(self, places: range, frames: int) -> Tensor:
        """The frames LPIPS sees of each window, int64 `[B, n]`."""
        drawn = []
        for place in places:
            rng = np.random.default_rng([self.settings.seed, self.step, place, 1])
            drawn.append(rng.choice(frames, min(frames, self.settings.lpips_frames), replace=False))
        return torch.from_numpy(np.stack(drawn)).to(self.device)

    def autocast(self) -> torch.autocast:
        """The arithmetic of the networks."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step.

        Args:
            batch: this process's part.

        Returns:
            The terms of the log, averaged over the processes. `gain_db` is the PSNR of the batch over its base's,
            NaN in most steps.

        Raises:
            TokcodecError: the loss or its gradient is not finite.
        """
        settings = self.settings
        batch = batch.to(self.device)
        target = picture(batch, 0)
        windows, frames, _ = self.batch_shape(self.step)
        with self.autocast():
            output = restore(self.network, batch)
            perceptual = frame_perceptual_loss(self.lpips, output, target, self.seen(self.places(windows), frames))
        rec, temporal = reconstruction_loss(output, target), temporal_loss(output, target)
        loss = settings.rec_weight * rec + settings.lpips_weight * perceptual + settings.temporal_weight * temporal
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self.update(batch)
        with torch.no_grad():
            gain = loss.new_tensor(math.nan)
            if self.step % GAIN_EVERY == 1:  # the update has counted it
                before, after = ((x - target).square().mean() for x in (picture(batch, 1), output.clamp(-1, 1)))
                gain = 10 * torch.log10((before + 1e-9) / (after + 1e-9))
        return self.averages(
            {
                "loss": loss,
                "rec": rec,
                "lpips": perceptual,
                "temporal": temporal,
                "gain_db": gain,
                "grad_norm": norm,
            }
        )

    def update(self, batch: Batch) -> Tensor:
        """Average gradients over processes, clip them to norm 1, update weights and EMA; returns the norm before."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        processes.average_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step(lr_scale(self.settings, self.step, self.position))
        keep = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.model.parameters()), 1 - keep)
        self.step += 1
        self.pixels += processes.count() * batch.planes[:, 0].numel() * 2 // 3
        return norm

    def averages(self, terms: dict[str, Tensor]) -> dict[str, float]:
        """Average scalar terms over the processes and bring them to the CPU, in one exchange.

        Raises:
            TokcodecError: the term "loss" or "grad_norm" is not finite (on every process alike).
        """
        means = processes.mean(torch.stack([value.detach().float() for value in terms.values()]))
        values = dict(zip(terms, means.tolist(), strict=True))
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise TokcodecError(
                    f"the {name} is {values[name]} at step {self.step}; start again from the checkpoint"
                )
        return values

    def state(self) -> dict[str, Any]:
        """All that a checkpoint holds."""
        return {
            "config": self.model.config.to_json(),
            "settings": dataclasses.asdict(self.settings),
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "position": self.position,
            "pixels": self.pixels,
            "tables": self.tables_sha256(),
        }

    def tables_sha256(self) -> str:
        """Of the loop's tables, which the network stands behind."""
        digest = hashlib.sha256()
        for name, array in sorted(self.arrays.items()):
            digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; the settings stay those of this trainer.

        Raises:
            ModelError: it is of a network behind other tables.
        """
        if state.get("tables", self.tables_sha256()) != self.tables_sha256():
            raise ModelError("the run was trained behind other tables: name them again, by --tables or --init")
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
            ModelError: it is damaged or of another configuration.
        """
        resume(path, self.device, self.model.config.to_json(), self.restore)
