"""What is hidden: the cosine schedule, masks to learn from, and a span spoken in a few parallel steps (MaskGIT)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.language.model import LanguageModel, Window, against, references, resolved, values_of
from tokcodec.language.words import COPIES, MOTION, REACH, SPAN

ESCAPED_BITS = 12  # of a vector's component that the factors do not hold: -1023 to 1023 less another
Masks = NDArray[np.bool_]


def hidden_share(position: float) -> float:
    """The share that is hidden at a position of the schedule: cos(pi / 2 * position), from 1 at 0 to 0 at 1."""
    return math.cos(math.pi / 2 * position)


def hidden_counts(count: int, steps: int) -> list[int]:
    """How many of `count` positions are still hidden after each step: it falls by at least 1 a step, to 0.

    With more steps than positions the last ones have nothing to do.
    """
    counts = []
    for step in range(1, steps + 1):
        wanted = 0 if step == steps else math.floor(count * hidden_share(step / steps))
        counts.append(max(0, min(wanted, count - step)))
    return counts


def draw_mask(spans: int, h: int, w: int, rng: np.random.Generator) -> tuple[Masks, Masks]:
    """A mask to learn from.

    One of three kinds: the last span is partly hidden (to predict; half of them); one is partly hidden, and so are
    all of 0 to 2 spans behind it, but not the last (to fill); every span is partly hidden, each as much as it comes.
    The share of a span that is partly hidden is cos(pi / 2 u), u uniform in [0, 1).

    Args:
        spans: of four frames, in the window.
        h, w: of the grid.
        rng: of the draws.

    Returns:
        What is known and what is asked for, bool `[spans, h, w]`.
    """
    known, asked = np.ones((spans, h, w), bool), np.zeros((spans, h, w), bool)
    kind = rng.random()
    at = [spans - 1] if kind < 0.5 else [int(rng.integers(spans))] if kind < 0.7 else list(range(spans))
    for t in at:
        hidden = max(1, round(h * w * hidden_share(rng.random())))
        asked[t].reshape(-1)[rng.permutation(h * w)[:hidden]] = True
    known &= ~asked
    if 0.5 <= kind < 0.7:
        known[at[0] + 1 : min(at[0] + 1 + int(rng.integers(3)), spans - 1)] = False
    return known, asked


def _shown(window: Window, span: int, chosen: Tensor, values: Tensor, reference: Tensor) -> None:
    """Write factors into positions of a window of one chunk.

    Args:
        window: is changed.
        span: of the window.
        chosen: bool `[h, w]`, N of them.
        values: int64 `[N, factors]`.
        reference: of the window, before.
    """
    merges = values[:, :SPAN].T
    window.merges[0, span, :, chosen] = merges
    window.levels[0, span, :, chosen] = values[:, MOTION:].T
    differences = (values[:, SPAN:MOTION] - REACH - 1).T.reshape(SPAN, 2, -1)
    for role in (slice(0, 1), slice(1, SPAN)):  # the frames between may be differences to the anchor
        base = against(reference[0], window.merges[0], window.vectors[0])[span, role][:, :, chosen]
        window.vectors[0, span, role, :, chosen] = (base + differences[role]) * (merges[role, None] >= COPIES)


@torch.inference_mode()
def speak_span(
    model: LanguageModel, window: Window, known: Tensor, span: int, steps: int, temperature: float, seed: int
) -> None:
    """Write a span of a window, the most certain positions first.

    Args:
        model: in eval mode.
        window: of one chunk; the span is overwritten.
        known: bool `[1, T, h, w]`; the span's become True.
        span: of the window.
        steps: passes through the trunk.
        temperature: of the factors, and of the choice of what is certain; 0 draws nothing.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    known[:, span] = False
    lead = int(window.first is not None)
    for left in hidden_counts(known[0, span].numel(), steps):
        hidden = ~known[0, span]
        if not hidden.any():
            return
        reference = references(*resolved(window, known))
        features = model.trunk(window, known)[0, lead + span]
        values, score = model.speak(features[hidden], temperature, generator)
        if temperature > 0:
            uniform = torch.rand(score.shape, generator=generator).to(score.device).clamp(1e-9, 1 - 1e-7)
            score = score - temperature * (left / hidden.numel()) * (-uniform.log()).log()
        best = score.argsort(descending=True, stable=True)[: len(score) - left]
        flat = hidden.flatten().nonzero()[:, 0][best]
        chosen = torch.zeros_like(hidden).flatten()
        chosen[flat] = True
        order = torch.zeros(hidden.numel(), dtype=torch.long, device=hidden.device)
        order[flat] = best
        chosen = chosen.view(hidden.shape)
        _shown(window, span, chosen, values[order.view(hidden.shape)[chosen]], reference)
        known[0, span] |= chosen


@torch.inference_mode()
def span_bits(model: LanguageModel, window: Window, known: Tensor, span: int, steps: int, seed: int) -> Tensor:
    """What a span costs when it is written in parallel steps, its positions in random order.

    A coder that had these probabilities in integers would write as many bits: every step knows only what the steps
    before do. A vector out of reach is charged 12 bits a component in addition to its escape.

    Args:
        model: in eval mode.
        window, known, span, steps: as for `speak_span`; what is there is taken, not drawn.
        seed: of the order.

    Returns:
        float32 `[factors]`, bits.
    """
    known = known.clone()
    known[:, span] = False
    h, w = known.shape[2:]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(h * w)).to(known.device)
    total = torch.zeros(model.layout.factors, device=known.device)
    lead, done = int(window.first is not None), 0
    for left in hidden_counts(h * w, steps):
        part = order[done : h * w - left]
        done = h * w - left
        values, out = values_of(window, references(*resolved(window, known)))
        features = model.trunk(window, known)[0, lead + span].flatten(0, 1)[part]
        total += model.bits(features, values[0, span].flatten(0, 1)[part]).sum(0)
        total[SPAN] += ESCAPED_BITS * out[0, span].flatten()[part].sum()
        known[0, span].view(-1)[part] = True
    return total
