"""The training loop: one command, resumable to the step, on a CPU, a GPU or several processes.

A run is a folder: checkpoint.pt (to train on), weights.safetensors (EMA, to use), train.jsonl, eval.jsonl
and a picture a set of clips. Run it under torchrun for several processes that share the batch; the folder
must be one that all of them see, and the first of them writes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from tokcodec import signals
from tokcodec.coding.planes import from_rgb
from tokcodec.compute import AUTO, Compute
from tokcodec.dtypes import Array, Frames
from tokcodec.errors import TokcodecError
from tokcodec.io.output import replacing
from tokcodec.pipeline import in_background
from tokcodec.rate import whole_units
from tokcodec.restorer.device import pick_device, pick_dtype
from tokcodec.restorer.network import RestorerConfig
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.tokenizer import Tokenizer, steps_and_kinds
from tokcodec.training import processes
from tokcodec.training.coded import (
    Code,
    CodedClip,
    WindowSampler,
    code_cache,
    code_segments,
    digest_of,
    digest_of_tables,
    draw_step,
)
from tokcodec.training.data import CACHE_PX, SEGMENT_FRAMES, build_cache
from tokcodec.training.evaluate import CLIP_FRAMES, Scores, evaluate, load_clips, means
from tokcodec.training.losses import MeanDistance
from tokcodec.training.moving import MADE_FRAMES, MovingPhotographs, SmallerSegments
from tokcodec.training.trainer import Trainer, TrainSettings, advanced, starting_network
from tokcodec.weights import Weights, find_weights, save_weights

LOG_EVERY = 50
HOLDOUT_EVERY = 9  # segments of the held-out arrays: every ninth is evaluated


def append_line(path: Path, fields: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(fields) + "\n")


class Evaluator:
    """Evaluates the EMA weights now and then: JSON lines, a picture.

    Args:
        sets: records of coded clips by name, by the name of their set.
        lpips: the AlexNet LPIPS.
        out: folder of the run.
    """

    def __init__(self, sets: dict[str, dict[str, Any]], lpips: nn.Module, out: Path) -> None:
        self.sets, self.lpips, self.out = sets, lpips, out
        self.base: dict[str, dict[str, Scores]] = {name: {} for name in sets}

    def __call__(self, trainer: Trainer) -> None:
        self.lpips.to(trainer.device)
        line: dict[str, Any] = {"step": trainer.step, "pixels": trainer.pixels}
        for name, clips in self.sets.items():
            with trainer.autocast():
                result = evaluate(trainer.ema, self.lpips, clips, self.base[name])
            line[name] = means(result.clips)
            print(f"{name} {json.dumps(line[name])}", file=sys.stderr, flush=True)
            line[name]["clips"] = result.clips
            with replacing(self.out / f"{name}.png", [], overwrite=True) as partial:
                Image.fromarray(result.picture).save(partial)
        append_line(self.out / "eval.jsonl", line)


class RunningMeans:
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
    evaluator: Evaluator | None = None,
    minutes: float | None = None,
    finish: bool = False,
    eval_every: int = 1000,
    save_every: int = 500,
) -> None:
    """Train until the schedule or the time ends; SIGINT and SIGTERM stop cleanly, with a checkpoint.

    Args:
        trainer: continues from `out/checkpoint.pt` if that exists.
        out: folder of the run.
        evaluator: for evaluations.
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
    if (out / "checkpoint.pt").exists():
        trainer.load(out / "checkpoint.pt")
    first = processes.rank() == 0
    if first and trainer.step:
        print(f"{out} goes on at step {trainer.step}", file=sys.stderr, flush=True)
    begin_position, stopped = trainer.position, False
    keeper = _Keeper(trainer, out, evaluator, eval_every, save_every) if first else None
    batches = in_background(trainer.batches(), depth=2)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with signals.noted() as is_ended:
            while trainer.position < 1 and not stopped:
                step_began = time.monotonic()
                batch = next(batches)
                waited_s = time.monotonic() - step_began
                terms = trainer.train_step(batch)
                now = time.monotonic()
                # the share of the time that is gone when one more step is done
                used = 0.0 if minutes is None else ((now - started) + (now - step_began)) / (60 * minutes)
                if finish:
                    position = begin_position + (1 - begin_position) * min(1.0, used)
                else:
                    position = advanced(trainer.position, trainer.settings.steps)
                # all processes stop after the same step
                trainer.position, stopped = processes.agree(position, is_ended() or used >= 1)
                if keeper:
                    keeper.step(terms, waited_s)
            if keeper:
                keeper.end()
    except OSError as error:
        raise TokcodecError(f"{out}: cannot write: {error.strerror or error}") from error
    finally:
        batches.close()


class _Keeper:
    """Keeps what a run comes to: logs, checkpoints, evaluations and, at its end, the weights."""

    def __init__(
        self, trainer: Trainer, out: Path, evaluator: Evaluator | None, eval_every: int, save_every: int
    ) -> None:
        self._trainer, self._out, self._evaluator = trainer, out, evaluator
        self._eval_every, self._save_every = eval_every, save_every
        self._means = RunningMeans(trainer)

    def step(self, terms: dict[str, float], waited_s: float) -> None:
        """A step is done, as `RunningMeans.add` has it."""
        trainer = self._trainer
        self._means.add(terms, waited_s)
        if trainer.step % LOG_EVERY == 0:
            line = self._means.line(trainer)
            append_line(self._out / "train.jsonl", line)
            print(" ".join(f"{k} {v}" for k, v in line.items()), file=sys.stderr, flush=True)
            self._means = RunningMeans(trainer)
        if trainer.step % self._save_every == 0:
            trainer.save(self._out / "checkpoint.pt")
        if self._evaluator is not None and trainer.step % self._eval_every == 0:
            evaluation_began = time.monotonic()
            self._evaluator(trainer)
            self._means.since += time.monotonic() - evaluation_began  # rates are of training alone

    def end(self) -> None:
        """No step follows."""
        trainer = self._trainer
        trainer.save(self._out / "checkpoint.pt")
        with replacing(self._out / "weights.safetensors", [], overwrite=True) as partial:
            note = {"steps": str(trainer.step), "pixels": str(trainer.pixels)}
            save_weights(partial, trainer.ema, trainer.arrays, note)
        if self._evaluator is not None and trainer.position >= 1:
            self._evaluator(trainer)


def open_data(
    source: Path, cache: Path, code: Code, settings: TrainSettings, holdout: tuple[str, ...] = (), tables: str = ""
) -> tuple[list[Array], dict[str, Any]]:
    """Build the caches, of frames and of coded segments, and divide them.

    Args:
        source: folder of videos and images.
        cache: folder of arrays; coded ones go below `coded`.
        code: the coding loop.
        settings: say at which steps to code, and how often.
        holdout: patterns of file names that are never trained on.
        tables: digest of those that the loop uses.

    Returns:
        Memory-mapped records to train on; and records to evaluate on, by name: the first 17 frames of every
        ninth segment held out.

    Raises:
        TokcodecError: a pattern matches nothing, nothing is left, or photographs are to move and there is none.
    """
    paths = build_cache(source, cache)
    held_out: dict[str, Path] = {}
    for pattern in holdout:
        names = {name for name in paths if fnmatch.fnmatch(Path(name).name, pattern)}
        if not names:
            raise TokcodecError(f"{source}: no file matches the holdout pattern {pattern}")
        held_out |= {name: paths[name] for name in names}
    left = {name: path for name, path in paths.items() if name not in held_out}
    if not left:
        raise TokcodecError(f"{source}: all files are held out, none is left to train on")
    clips = {}
    ordered = dict(sorted(held_out.items()))
    coded = code_cache(ordered, cache / "coded/val", code, settings.step_range, 1, HOLDOUT_EVERY, CLIP_FRAMES, tables)
    for name, path in zip(ordered, coded, strict=True):
        for index, segment in enumerate(np.load(path, mmap_mode="r")):
            clips[f"{name}-{HOLDOUT_EVERY * index:03d}"] = segment
    coded = code_cache(left, cache / "coded", code, settings.step_range, settings.passes, tables=tables)
    sources = digest_of(list(left), tuple(map(float, settings.step_range)), tables)
    frames = [np.load(path, mmap_mode="r") for path in left.values()]
    photographs, segments = ([a for a in frames if (a.shape[1] == 1) is still] for still in (True, False))
    if settings.moving and not photographs:
        raise TokcodecError(f"{source}: no photograph that could be moved")
    if settings.smaller and not segments:
        raise TokcodecError(f"{source}: no video that could be scaled down")
    for name, kind, parts, count in (
        ("moving", MovingPhotographs, photographs, settings.moving),
        ("smaller", SmallerSegments, segments, settings.smaller),
    ):
        target = cache / "coded" / f"{name}-{count}x{MADE_FRAMES}x{settings.crop_px}-{sources}.npy"
        if count and not target.exists():
            made = kind(parts, count, settings.crop_px)
            code_segments(made, target, code, functools.partial(draw_step, settings.step_range, count))
        coded += [target] if count else []
    return [np.load(path, mmap_mode="r") for path in coded], clips


def code_clips(folder: Path, cache: Path, code: Code, steps: tuple[float, ...], tables: str = "") -> dict[str, Any]:
    """The clips of a folder, coded at each of some steps: records by the name of clip and step.

    Args:
        folder: of videos.
        cache: folder of records; delete it when the clips or the loop change.
        code: the coding loop.
        steps: of the quantizer, in levels.
        tables: digest of those that the loop uses.

    Raises:
        TokcodecError: there is no video, or the cache cannot be written.
    """
    coded: dict[str, Any] = {}
    for name, clip in load_clips(folder).items():
        for step in steps:
            target = cache / f"{name}-{step:g}-{digest_of(tables)}.npy"
            if not target.exists():
                code_segments(clip[None], target, code, lambda _, step=step: step)  # type: ignore[misc]
            coded[f"{name} {step:g}"] = np.load(target, mmap_mode="r")[0]
    return coded


def coding_loop(weights: Weights) -> Code:
    """The loop that a decoder runs, with the tables of these weights, as a function of frames and step.

    Raises:
        ModelError: the weights hold no transform.
    """
    loop = Tokenizer(weights).loop

    def code(frames: Frames, step: float) -> CodedClip:
        coding = loop.encode(frames, whole_units(step))
        planes = from_rgb(frames), coding.base, coding.prediction
        return CodedClip(planes, *steps_and_kinds(coding, whole_units(step)))

    return code


def settings_of(given: dict[str, Any]) -> tuple[TrainSettings, RestorerConfig | None]:
    """Divide the fields given by name into the run's settings and the network's shape (None if none is given).

    Raises:
        ValueError: a value does not fit.
    """
    shape = {f.name for f in dataclasses.fields(RestorerConfig)} & set(given)
    settings = TrainSettings(**{name: value for name, value in given.items() if name not in shape})
    if not shape:
        return settings, None
    config = RestorerConfig(**{name: given[name] for name in shape})
    return settings, RestorerConfig.from_json(config.to_json())  # which checks it


def _check_segments(settings: TrainSettings) -> None:
    longest = max(settings.frames)
    if longest > SEGMENT_FRAMES or settings.crop_px > CACHE_PX:
        raise TokcodecError(
            f"no segment has {longest} frames of {settings.crop_px} pixels: {SEGMENT_FRAMES} of {CACHE_PX} are the most"
        )


def _loop_of(tables: Path | None, code: Code | None) -> tuple[dict[str, Array], Code]:
    """The tables of some weights and the loop that has them, or another one, which needs none."""
    if code is not None and tables is None:
        return {}, code
    weights = Weights.load(find_weights(tables))
    return weights.arrays, code or coding_loop(weights)


def train(
    source: Path,
    out: Path,
    config: RestorerConfig | None,
    settings: TrainSettings,
    *,
    cache: Path | None = None,
    holdout: tuple[str, ...] = (),
    eval_folder: Path | None = None,
    eval_steps: tuple[float, ...] = (12, 40),
    init: Path | None = None,
    tables: Path | None = None,
    minutes: float | None = None,
    finish: bool = False,
    eval_every: int = 1000,
    compute: Compute = AUTO,
    lpips_dir: Path | None = None,
    code: Code | None = None,
) -> Trainer | None:
    """Train on a folder of videos and images, in one process or in those torchrun started.

    Args:
        source: folder of videos and images.
        out: folder of the run; its checkpoint, if it has one, is continued.
        config: of a new network; None for that of `init` or the default.
        settings: of the run.
        cache: folder for decoded and coded data (None: inside `out`).
        holdout: patterns of file names to evaluate on instead of training (the set "val").
        eval_folder: videos to evaluate on (the set "eval").
        eval_steps: the quantizer steps they are coded at.
        init: weights or a checkpoint to start from.
        tables: weights with the loop's tables (None: `init` if it is weights, else as `find_weights` finds).
        minutes, finish, eval_every: as for `run`.
        compute: device and arithmetic.
        lpips_dir: folder of LPIPS backbones, as for `load_lpips`.
        code: the coding loop, if it is not that of `tables`.

    Returns:
        The trainer at the end of the run; None in the processes that are not the first.

    Raises:
        TokcodecError: data, weights, checkpoint, folder or another process failed.
    """
    _check_segments(settings)
    arrays, loop = _loop_of(init if tables is None and init is not None and init.suffix != ".pt" else tables, code)
    started = starting_network(init) if init else None  # now: data may take hours
    if started and config:
        raise TokcodecError(f"{init} brings its own shape; leave out the options that give one")
    teacher = MeanDistance([load_lpips(net, lpips_dir) for net in ("alex", "squeeze")])
    folder = cache or out / "cache"
    target = pick_device(compute.device)
    with processes.joined(target):

        def data() -> tuple[list[Array], dict[str, dict[str, Any]]]:
            judging = eval_folder if processes.rank() == 0 else None
            digest = digest_of_tables(arrays)
            shown = code_clips(judging, folder / "coded/eval", loop, eval_steps, digest) if judging else {}
            coded, held_out = open_data(source, folder, loop, settings, holdout, digest)
            return coded, {name: clips for name, clips in (("val", held_out), ("eval", shown)) if clips}

        # The first process codes what is missing, the others then find it.
        coded, sets = processes.in_turn(data)
        with contextlib.closing(WindowSampler(coded, settings.crop_px, settings.seed, settings.focus)) as sampler:
            trainer = Trainer(
                config or RestorerConfig(),
                settings,
                sampler,
                teacher,
                target,
                pick_dtype(compute.dtype, target),
                started,
                compiled=target.type == "cuda",
                arrays=arrays,
            )
            evaluator = None
            if processes.rank() == 0 and sets:
                evaluator = Evaluator(sets, load_lpips("alex", lpips_dir), out)
            run(trainer, out, evaluator, minutes, finish, eval_every)
            return trainer if processes.rank() == 0 else None
