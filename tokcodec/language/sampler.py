"""Tokens that were never coded: spans of a chunk written by the model, one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from tokcodec.coding.lookahead import MOST
from tokcodec.language.mask import speak_span
from tokcodec.language.model import LanguageModel, resolved, window_of
from tokcodec.language.words import SPAN, Words, whole_spans
from tokcodec.stream.entropy import Tokens
from tokcodec.stream.pyramid import pyramid


@dataclasses.dataclass(frozen=True)
class Speech:
    """How spans are drawn.

    Raises ValueError if a value is out of range.
    """

    steps: int = 8  # passes through the trunk for a span
    temperature: float = 0.0  # 0 takes what is likeliest
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 <= self.temperature <= 10 or self.seed < 0:
            raise ValueError(f"steps are at least 1, temperature 0 to 10, a seed a natural number, not {self}")


def longer(tokens: Tokens, spans: int) -> Tokens:
    """A chunk with so many spans of four behind its last, all zero; frames that are no span of four are left out."""
    old, new = SPAN * whole_spans(tokens), SPAN * spans
    numbers = np.array([MOST[place.kind] for place in sorted(pyramid(0, SPAN, -1))], np.uint8)
    return Tokens(
        np.pad(tokens.levels[:, : 1 + old], ((0, 0), (0, new), (0, 0), (0, 0))),
        np.pad(tokens.motion[:old], ((0, new), (0, 0), (0, 0), (0, 0))),
        np.full((old + new) // SPAN, SPAN, np.uint8),
        np.concatenate([tokens.numbers[: 1 + old], np.tile(numbers, spans)]),
    )


def spoken(
    model: LanguageModel,
    tokens: Tokens,
    step: float,
    begin: int,
    end: int,
    speech: Speech,
    on_frame: Callable[[int], None] | None = None,
) -> Tokens:
    """A chunk with spans written anew. The model sees the spans before, and those behind if they are near.

    What the words do not hold is zero in the new spans: levels past the first dimensions, and motion within 16x16.

    Args:
        model: in eval mode; of the loop that the tokens are of.
        tokens: of a chunk.
        step: of the chunk, in levels.
        begin, end: the spans of four to write, from 0.
        speech: how.
        on_frame: called with the number of frames that are newly written.
    """
    layout, device = model.layout, next(model.parameters()).device
    words, first = layout.words(tokens), layout.first(tokens, step)
    total, most = len(words.merges), model.config.spans
    for g in range(begin, end):
        behind = end + 1 if end < total and end - g < most - 1 else g + 1
        low = max(0, behind - most)
        window = window_of(words, first, low, behind, step).to(device)
        known = torch.ones_like(window.merges[:, :, 0], dtype=torch.bool)
        known[:, g - low : end - low] = False
        seed = int(np.random.SeedSequence([speech.seed, g]).generate_state(1)[0])
        speak_span(model, window, known, g - low, speech.steps, speech.temperature, seed)
        words.levels[:, g] = window.levels[0, g - low].cpu().numpy()
        words.merges[g] = window.merges[0, g - low].cpu().numpy()
        # Whole: what these take over may lie before the next window.
        words.vectors[g] = resolved(window, known)[0][0, g - low].cpu().numpy()
        if on_frame:
            on_frame(SPAN)
    part = Words(words.levels[:, begin:end], words.merges[begin:end], words.vectors[begin:end])
    levels, motion = tokens.levels.copy(), tokens.motion.copy()
    low, high = SPAN * begin, SPAN * end
    levels[:, 1 + low : 1 + high], motion[low:high] = layout.tokens(part, len(levels), motion[:low])
    return tokens._replace(levels=levels, motion=motion)
