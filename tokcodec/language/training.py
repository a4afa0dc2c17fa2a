"""Learn a language model of tokens from streams: one process, resumable to the step.

A run is a folder: checkpoint.pt (to learn on), model.safetensors (to use) and train.jsonl.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tokcodec import signals
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import TokcodecError
from tokcodec.io.find import find_streams
from tokcodec.io.output import replacing, writing
from tokcodec.language.generate import spans_of_four
from tokcodec.language.mask import draw_mask
from tokcodec.language.model import (
    LanguageConfig,
    LanguageModel,
    Window,
    counting,
    references,
    resolved,
    save_model,
    values_of,
    window_of,
)
from tokcodec.language.words import VALUES, Layout, Words, basis_sha256
from tokcodec.rate import STEP_UNITS
from tokcodec.restorer.device import pick_device, pick_dtype
from tokcodec.stream_reader import chunks_of, reading, tokenizer_of, tokens_of
from tokcodec.training.trainer import advanced, resume

LOG_EVERY = 20
SAVE_EVERY = 200


class Text(NamedTuple):
    """A chunk to learn from: its words, its first frame int16 `[24, h, w]`, its step in levels."""

    words: Words
    first: NDArray[np.int16]
    step: float


@dataclasses.dataclass(frozen=True)
class LearnSettings:
    """What a run does."""

    steps: int = 2000  # length of the schedule
    batch: int = 6  # windows a step
    side: int = 16  # positions a side of a window, at most
    asked: int = 768  # positions a step that the head sees, at most
    lr: float = 0.003
    warmup_steps: int = 30
    seed: int = 0


def read_texts(streams: Sequence[Path], weights: str | Path | None = None) -> tuple[list[Text], tuple[int, int], str]:
    """All chunks of some streams that have a span of four frames.

    Args:
        streams: files, and folders of .tokc files.
        weights: those of the streams; the released ones if None.

    Returns:
        The chunks; the blocks and the digest of the basis that their levels stand for.

    Raises:
        TokcodecError: a stream cannot be read or is of other spans, or there is none.
        ModelError: the weights are not theirs.
    """
    texts: list[Text] = []
    blocks, basis = None, ""
    for _, file in find_streams(streams):
        with reading(file) as reader:
            tokenizer = tokenizer_of(reader, weights)
            if blocks is None:
                blocks, basis = tokenizer.loop.blocks, basis_sha256(tokenizer.weights.arrays)
            layout = Layout(blocks)
            for chunk in chunks_of(reader):
                tokens = tokens_of(chunk, reader.header, tokenizer.tables)
                if spans_of_four(tokens, file):
                    step = chunk.step / STEP_UNITS
                    texts.append(Text(layout.words(tokens), layout.first(tokens, step), step))
    if blocks is None or not texts:
        raise TokcodecError(f"{', '.join(map(str, streams))}: no streams of five frames or more to learn from")
    return texts, blocks, basis


def _counts(texts: list[Text]) -> Tensor:
    """How often each value of each factor says something, float32 `[factors, 256]`."""
    total = torch.zeros(())
    for text in texts:
        window = window_of(text.words, text.first, 0, len(text.words.merges), text.step)
        known = torch.ones_like(window.merges[:, :, 0], dtype=torch.bool)
        values, _ = values_of(window, references(*resolved(window, known)))
        factors = values.shape[-1]
        numbers = values + VALUES * torch.arange(factors)
        total = total + numbers[counting(values)].bincount(minlength=factors * VALUES).view(factors, VALUES)
    return total


class Learner:
    """Model, optimizer and position in the schedule: all that a checkpoint holds.

    What a step draws follows from the seed and its number alone.
    """

    def __init__(
        self,
        config: LanguageConfig,
        settings: LearnSettings,
        texts: list[Text],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.texts, self.device, self.dtype = settings, texts, device, dtype
        self.model = LanguageModel(config).to(device).train()
        self.model.set_odds(_counts(texts))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.lr, (0.9, 0.98), weight_decay=0.01)
        self.step, self.position = 0, 0.0

    def batch(self, step: int) -> tuple[Window, Tensor, Tensor]:
        """Windows, what is known of them and what is asked, of a step."""
        rng = np.random.default_rng([self.settings.seed, step])
        texts = [self.texts[i] for i in rng.integers(len(self.texts), size=self.settings.batch)]
        shapes = [text.words.levels.shape[1:] for text in texts]
        spans, h, w = (min(size) for size in zip(*shapes, strict=True))
        spans, h, w = min(spans, self.model.config.spans), min(h, self.settings.side), min(w, self.settings.side)
        at_start = bool(rng.random() < 0.5) or any(shape[0] == spans for shape in shapes)
        windows, masks = [], []
        for text, shape in zip(texts, shapes, strict=True):
            begin = 0 if at_start else int(rng.integers(1, shape[0] - spans + 1))
            i, j = (int(rng.integers(full - part + 1)) for full, part in zip(shape[1:], (h, w), strict=True))
            crop = (..., slice(i, i + h), slice(j, j + w))
            words = Words(*(x[crop] for x in text.words))
            windows.append(window_of(words, text.first[crop], begin, begin + spans, text.step))
            masks.append(draw_mask(spans, h, w, rng))
        known, asked = (torch.from_numpy(np.stack(x)).to(self.device) for x in zip(*masks, strict=True))
        return Window.joined(windows).to(self.device), known, asked

    def loss(self, window: Window, known: Tensor, asked: Tensor) -> Tensor:
        """Bits a position asked for, a scalar."""
        values, _ = values_of(window, references(*resolved(window, known)))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            features = self.model.trunk(window, known)[:, int(window.first is not None) :]
            places = asked.flatten().nonzero()[:, 0]
            if len(places) > self.settings.asked:
                places = places[:: -(-len(places) // self.settings.asked)]
            bits = self.model.bits(features.flatten(0, 3)[places], values.flatten(0, 3)[places])
        return bits.sum(1).mean()

    def train_step(self) -> float:
        """One update; returns the loss.

        Raises:
            TokcodecError: the loss or its gradient is not finite.
        """
        settings = self.settings
        loss = self.loss(*self.batch(self.step))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        warm = min(1.0, (self.step + 1) / settings.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * warm * (0.02 + 0.98 * math.cos(math.pi / 2 * min(1.0, self.position)) ** 2)
        self.optimizer.step()
        self.step += 1
        if not math.isfinite(loss.item() + norm.item()):
            raise TokcodecError(
                f"the loss is {loss.item()}, the norm of its gradient {norm.item()} at step {self.step}"
            )
        return loss.item()

    def state(self) -> dict[str, Any]:
        return {
            "config": self.model.config.to_json(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "position": self.position,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.position = state["step"], state["position"]

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            ModelError: it is damaged or of another configuration.
        """
        resume(path, self.device, self.model.config.to_json(), self.restore)


def learn(
    streams: Sequence[Path],
    out: Path,
    *,
    settings: LearnSettings | None = None,
    minutes: float | None = None,
    weights: str | Path | None = None,
    compute: Compute = AUTO,
    shape: dict[str, int] | None = None,
) -> tuple[LanguageModel, int]:
    """Learn a model of the tokens of some streams.

    SIGINT and SIGTERM stop it cleanly, with a checkpoint.

    Args:
        streams: files, and folders of .tokc files.
        out: folder of the run; its checkpoint, if it has one, is continued.
        settings: of the run.
        minutes: let the schedule end after so long, whatever its steps; where it stands is kept.
        weights: those of the streams; the released ones if None.
        compute: device and arithmetic.
        shape: fields of `LanguageConfig` that are not to be its defaults.

    Returns:
        The model, in eval mode, and the steps that it has had.

    Raises:
        TokcodecError: a stream or the checkpoint cannot be read, the folder cannot be written, or the loss is not
            finite.
    """
    started = time.monotonic()
    settings = settings or LearnSettings()
    texts, blocks, basis = read_texts(streams, weights)
    target = pick_device(compute.device)
    config = LanguageConfig(blocks, basis, **shape or {})
    learner = Learner(config, settings, texts, target, pick_dtype(compute.dtype, target))
    if (out / "checkpoint.pt").exists():
        learner.load(out / "checkpoint.pt")
    words = sum(text.words.levels[0].size for text in texts)
    print(
        f"{len(texts)} chunks, {words} words, {learner.model.parameters_in_all} parameters", file=sys.stderr, flush=True
    )
    begin_position = learner.position
    losses: list[float] = []
    try:
        with signals.noted() as is_ended:
            out.mkdir(parents=True, exist_ok=True)
            while learner.position < 1 and not is_ended():
                losses.append(learner.train_step())
                if minutes is None:
                    learner.position = advanced(learner.position, settings.steps)
                else:
                    used = (time.monotonic() - started) / (60 * minutes)
                    learner.position = begin_position + (1 - begin_position) * min(1.0, used)
                if learner.step % LOG_EVERY == 0:
                    fields = {"step": learner.step, "bits": round(float(np.mean(losses)), 3)}
                    fields |= {"position": round(learner.position, 4), "seconds": round(time.monotonic() - started, 1)}
                    with (out / "train.jsonl").open("a") as file:
                        file.write(json.dumps(fields) + "\n")
                    print(" ".join(f"{k} {v}" for k, v in fields.items()), file=sys.stderr, flush=True)
                    losses = []
                if learner.step % SAVE_EVERY == 0:
                    _save(learner, out)
            _save(learner, out)
    except OSError as error:
        raise TokcodecError(f"{out}: cannot write: {error.strerror or error}") from error
    return learner.model.eval(), learner.step


def _save(learner: Learner, out: Path) -> None:
    with writing(out / "checkpoint.pt", [], overwrite=True) as file:
        torch.save(learner.state(), file)
    with replacing(out / "model.safetensors", [], overwrite=True) as partial:
        save_model(partial, learner.model)
