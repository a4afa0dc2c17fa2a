"""The training loop: one command, resumable to the step, on a CPU, a GPU or several processes.

A run is a folder: checkpoint.pt (to train on), weights.safetensors (EMA, to use), train.jsonl, eval.jsonl
and a picture a set of clips. Run it under torchrun for several processes that share the batch; the folder
must be one that all of them see, and the first of them writes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
import math
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from tokcodec.errors import TokcodecError
from tokcodec.model import TokenizerConfig, pick_device, pick_dtype
from tokcodec.output import replacing
from tokcodec.perceptual import load_lpips
from tokcodec.pipeline import in_background
from tokcodec.training import processes
from tokcodec.training.adversarial import AdversarialSettings, AdversarialTrainer
from tokcodec.training.data import ClipSampler, build_cache
from tokcodec.training.evaluate import CLIP_FRAMES, evaluate, load_clips, rates
from tokcodec.training.trainer import Trainer, TrainSettings

LOG_EVERY = 50
HOLDOUT_EVERY = 9  # segments of the held-out arrays: every ninth is evaluated


def append_line(path: Path, fields: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(fields) + "\n")


class Judge:
    """Evaluates the EMA weights now and then: JSON lines, a picture.

    Args:
        sets: clips by the name of their set.
        lpips: the AlexNet LPIPS.
        out: folder of the run.
    """

    def __init__(self, sets: dict[str, dict[str, np.ndarray]], lpips: nn.Module, out: Path) -> None:
        self.sets, self.lpips, self.out = sets, lpips, out

    def __call__(self, trainer: Trainer) -> None:
        self.lpips.to(trainer.device)
        judged = rates(trainer.model.config.token_bits)
        line: dict[str, Any] = {"step": trainer.step, "pixels": trainer.pixels, "rates": judged}
        for name, clips in self.sets.items():
            with trainer.autocast():
                result = evaluate(trainer.ema, self.lpips, clips)
            line[name] = {
                key: [round(float(np.mean([c[key][i] for c in result.clips.values()])), 4) for i in range(len(judged))]
                for key in ("lpips", "psnr_db")
            }
            line[name]["clips"] = result.clips
            with replacing(self.out / f"{name}.png", [], overwrite=True) as partial:
                Image.fromarray(result.picture).save(partial)
        append_line(self.out / "eval.jsonl", line)


class Meter:
    """Means of the terms, and rates, since the last log line."""

    def __init__(self, trainer: Trainer) -> None:
        self.steps, self.pixels, self.waited_s = 0, trainer.pixels, 0.0
        self.since = time.monotonic()
        self.terms: dict[str, list[float]] = {}

    def add(self, terms: dict[str, float], waited_s: float) -> None:
        """Count one step; `waited_s` is the time it waited for data."""
        self.steps += 1
        self.waited_s += waited_s
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value)

    def line(self, trainer: Trainer) -> dict[str, Any]:
        """The fields of a log line; a term is the mean over the steps that had it."""
        took_s = time.monotonic() - self.since
        fields: dict[str, Any] = {"step": trainer.step, "position": round(trainer.position, 4)}
        fields["pixels"] = trainer.pixels
        for name, values in self.terms.items():
            had = [v for v in values if not math.isnan(v)]
            if had:
                fields[name] = float(f"{np.mean(had):.4g}")
        return fields | {
            "steps_per_s": round(self.steps / took_s, 3),
            "pixels_per_s": round((trainer.pixels - self.pixels) / took_s),
            "data_wait": round(self.waited_s / took_s, 3),
        }


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
        out: folder of the run.
        judge: for evaluations.
        minutes: train no longer than this. An evaluation counts, but not the one after the end.
        finish: let the schedule, learning-rate decay included, reach its end within `minutes`.
        eval_every: steps between evaluations.
        save_every: steps between checkpoints.

    Raises:
        TokcodecError: the loss is not finite, or the folder cannot be written.
        ModelError: the checkpoint is damaged or of another kind.
        ValueError: `finish` without `minutes`.
    """
    if finish and minutes is None:
        raise ValueError("finish needs minutes")
    started = time.monotonic()
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
    first = processes.rank() == 0
    begin_position, last_step_s, stopped = trainer.position, 0.0, False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    handlers = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    batches = in_background(trainer.batches(), depth=2)
    meter = Meter(trainer)
    try:
        out.mkdir(parents=True, exist_ok=True)
        while trainer.position < 1 and not stopped:
            step_began = time.monotonic()
            batch = next(batches)
            waited_s = time.monotonic() - step_began
            meter.add(trainer.train_step(batch), waited_s)
            now = time.monotonic()
            last_step_s = now - step_began
            # the share of the time that is gone when one more step is done
            used = 0.0 if minutes is None else (now - started + last_step_s) / (60 * minutes)
            if finish:
                position = begin_position + (1 - begin_position) * min(1.0, used)
            else:
                position = trainer.position + 1 / trainer.settings.steps
            over = position > 1 - 1e-9  # a sum of many 1 / steps
            trainer.position, stopped = processes.agree(1.0 if over else position, stopped or used >= 1)
            if not first:
                continue
            if trainer.step % LOG_EVERY == 0:
                line = meter.line(trainer)
                append_line(out / "train.jsonl", line)
                print(" ".join(f"{k} {v}" for k, v in line.items()), file=sys.stderr, flush=True)
                meter = Meter(trainer)
            if trainer.step % save_every == 0:
                trainer.save(checkpoint)
            if judge is not None and trainer.step % eval_every == 0:
                evaluation_began = time.monotonic()
                judge(trainer)
                meter.since += time.monotonic() - evaluation_began  # rates are of training alone
        if first:
            trainer.save(checkpoint)
            with replacing(out / "weights.safetensors", [], overwrite=True) as partial:
                trainer.ema.save(partial, {"steps": str(trainer.step), "pixels": str(trainer.pixels)})
            if judge is not None and trainer.position >= 1:
                judge(trainer)
    except OSError as error:
        raise TokcodecError(f"{out}: cannot write: {error.strerror or error}") from error
    finally:
        batches.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def open_data(
    source: Path, cache: Path, holdout: tuple[str, ...] = ()
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Build the cache and divide it.

    Args:
        source: folder of videos and images.
        cache: folder of arrays.
        holdout: patterns of file names that are never trained on.

    Returns:
        Memory-mapped arrays to train on; and clips to evaluate on, by name: the first 17 frames of every
        ninth segment held out.

    Raises:
        TokcodecError: a pattern matches nothing, or nothing is left.
    """
    paths = processes.from_first(lambda: build_cache(source, cache))
    held_out: set[str] = set()
    for pattern in holdout:
        names = {name for name in paths if fnmatch.fnmatch(Path(name).name, pattern)}
        if not names:
            raise TokcodecError(f"{source}: no file matches --holdout {pattern}")
        held_out |= names
    clips = {}
    for name in sorted(held_out):
        segments = np.load(paths[name], mmap_mode="r")
        for index in range(0, len(segments), HOLDOUT_EVERY):
            clips[f"{name}-{index:03d}"] = np.array(segments[index, :CLIP_FRAMES])
    arrays = [np.load(path, mmap_mode="r") for name, path in paths.items() if name not in held_out]
    if not arrays:
        raise TokcodecError(f"{source}: all files are held out, none is left to train on")
    return arrays, clips


def settings_of(stage: str, given: dict[str, Any]) -> tuple[TrainSettings, TokenizerConfig | None]:
    """Divide the fields given by name into the stage's settings and the tokenizer's shape (None if none is given).

    Raises:
        ValueError: a value does not fit.
    """
    shape = {f.name for f in dataclasses.fields(TokenizerConfig)} & set(given)
    kind = AdversarialSettings if stage == AdversarialTrainer.stage else TrainSettings
    settings = kind(**{name: value for name, value in given.items() if name not in shape})
    if not shape:
        return settings, None
    config = TokenizerConfig(**{name: given[name] for name in shape})
    return settings, TokenizerConfig.from_json(config.to_json())  # which checks it


def train(
    source: Path,
    out: Path,
    config: TokenizerConfig | None,
    settings: TrainSettings,
    *,
    cache: Path | None = None,
    holdout: tuple[str, ...] = (),
    eval_folder: Path | None = None,
    init: Path | None = None,
    minutes: float | None = None,
    finish: bool = False,
    eval_every: int = 1000,
    device: str = "auto",
    dtype: str = "auto",
    lpips_dir: Path | None = None,
) -> Trainer | None:
    """Train on a folder of videos and images, in one process or in those torchrun started.

    Args:
        source: folder of videos and images.
        out: folder of the run; its checkpoint, if it has one, is continued.
        config: of a new tokenizer; None for that of `init` or the default.
        settings: of the run; their class says which stage.
        cache: folder for decoded data (None: inside `out`).
        holdout: patterns of file names to evaluate on instead of training (the set "val").
        eval_folder: videos to evaluate on (the set "eval").
        init: weights or a checkpoint to start from.
        minutes, finish, eval_every: as for `run`.
        device, dtype: names, as for `pick_device` and `pick_dtype`.
        lpips_dir: folder of LPIPS backbones, as for `load_lpips`.

    Returns:
        The trainer at the end of the run; None in the processes that are not the first.

    Raises:
        TokcodecError: data, weights, checkpoint, folder or another process failed.
    """
    if init and config:
        raise TokcodecError(f"{init} brings its own shape; leave out the options that give one")
    if isinstance(settings, AdversarialSettings) and not init and not (out / "checkpoint.pt").exists():
        raise TokcodecError("the adversarial stage needs --init: weights or a checkpoint of the base stage")
    target = pick_device(device)
    with processes.joined(target):
        arrays, held_out = open_data(source, cache or out / "cache", holdout)
        sampler = ClipSampler(arrays, settings.crop_px, settings.seed, settings.shrink_share)
        with contextlib.closing(sampler):
            teacher = load_lpips("squeeze", lpips_dir)
            kind: type[Trainer] = AdversarialTrainer if isinstance(settings, AdversarialSettings) else Trainer
            trainer = kind(
                config or TokenizerConfig(),
                settings,
                sampler,
                teacher,
                target,
                pick_dtype(dtype, target),
                init,
                compiled=target.type == "cuda",
            )
            sets = {"val": held_out} if held_out else {}
            judge = None
            if processes.rank() == 0 and (sets or eval_folder):
                if eval_folder:
                    sets["eval"] = load_clips(eval_folder)
                judge = Judge(sets, load_lpips("alex", lpips_dir), out)
            run(trainer, out, judge, minutes, finish, eval_every)
            return trainer if processes.rank() == 0 else None
