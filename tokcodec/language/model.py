"""The masked model: what stands at a position, given what is known of the others.

A trunk of attention over time at a position and over windows of 8x8 positions of a span reads a window of spans of four
frames, in which some positions are hidden. A head speaks a hidden position factor by factor: each depends on the trunk
and on the factors of that position before it, and positions on one another through the trunk alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tokcodec.errors import ModelError
from tokcodec.language.words import (
    ABOVE,
    COPIES,
    ESCAPE,
    FIRST_MEANS,
    LEFT,
    MOTION,
    REACH,
    RIGHT,
    SPAN,
    TEMPORAL,
    VALUES,
    Layout,
)

WINDOW = 8  # positions a side of attention within a span
PLACES = 9  # numbers of spans that are distinguished; later ones count as the last
MOST_SPANS = 8  # of a window
VERSION = 3  # of the words that a model speaks
STEP_CENTRE = math.log(64.0)  # of the steps in use


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """The shape of a model, and whose tokens it speaks; stored as JSON in the metadata of its weights."""

    blocks: tuple[int, int]  # dimensions of the loop's blocks: of first frames and of others
    basis_sha256: str  # of the loop's transforms
    channels: int = 64
    layers: int = 2
    heads: int = 4
    head_channels: int = 64
    spans: int = 4  # of four frames, in a window

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> LanguageConfig:
        """Raises ValueError if the text is not a configuration this version knows."""
        fields = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        version = fields.pop("version", 1) if isinstance(fields, dict) else None
        if version != VERSION:
            raise ValueError(f"it speaks words of version {version}, not {VERSION}: learn it again")
        if not isinstance(fields, dict) or set(fields) != names or not isinstance(fields["basis_sha256"], str):
            raise ValueError("not a configuration of this version")
        blocks, sizes = fields["blocks"], [fields[n] for n in names - {"blocks", "basis_sha256"}]
        numbers = [*blocks, *sizes] if isinstance(blocks, list) and len(blocks) == 2 else [0]
        if (
            not all(type(n) is int and 0 < n <= 4096 for n in numbers)
            or fields["channels"] % fields["heads"]
            or fields["spans"] > MOST_SPANS
        ):
            raise ValueError("a number is out of range")
        return cls(**fields | {"blocks": tuple(blocks)})


class Window(NamedTuple):
    """Consecutive spans of four frames of B chunks, on the model's device.

    Attributes:
        first: float32 `[B, 24, h, w]`, of the first frame (see `Layout.first`) if the window begins with it, else None.
        levels: int64 `[B, T, L, h, w]`, factors of the spans.
        merges: int64 `[B, T, 4, h, w]`.
        vectors: int64 `[B, T, 4, 2, h, w]`.
        place: int64 `[B]`, number in its chunk of the first of the T spans, from 1.
        step: float32 `[B]`, of the chunk, in levels.
    """

    first: Tensor | None
    levels: Tensor
    merges: Tensor
    vectors: Tensor
    place: Tensor
    step: Tensor

    def to(self, device: torch.device) -> Window:
        first, *rest = self
        return Window(None if first is None else first.to(device), *(x.to(device) for x in rest))

    @classmethod
    def joined(cls, windows: list[Window]) -> Window:
        """Windows of one shape, that all have a first frame or all have none."""
        firsts, *rest = zip(*windows, strict=True)
        return cls(None if firsts[0] is None else torch.cat(firsts), *map(torch.cat, rest))


def resolved(window: Window, known: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors that follow from what is known, through all that takes over from one another.

    Args:
        window: what stands outside of it counts as known, and is what the position itself holds.
        known: bool `[B, T, h, w]`.

    Returns:
        int64 `[B, T, 4, 2, h, w]`, and where they are such, bool `[B, T, 4, h, w]`.
    """
    merges = window.merges
    b, t, roles, h, w = merges.shape
    numbers = torch.arange(t * roles * h * w, device=merges.device).view(t, roles, h, w)
    source = numbers.expand(b, -1, -1, -1, -1)
    # All of a position's source, as far as it lies in the window; the temporal one is always of an anchor.
    temporal, left, above, right = numbers.clone(), numbers.clone(), numbers.clone(), numbers.clone()
    temporal[:, 1:] = numbers[:, :1]
    temporal[1:, 0] = numbers[:-1, 0]
    left[..., 1:] = numbers[..., :-1]
    above[..., 1:, :] = numbers[..., :-1, :]
    right[..., 1:, :-1] = numbers[..., :-1, 1:]
    for merge, there in ((TEMPORAL, temporal), (LEFT, left), (ABOVE, above), (RIGHT, right)):
        source = torch.where((merges == merge) & known[:, :, None], there, source)
    source = source.flatten(1)
    for _ in range(source.shape[1].bit_length()):  # twice as far each time
        source = source.gather(1, source)
    has = known[:, :, None].expand_as(merges).flatten(1).gather(1, source).view_as(merges)
    flat = window.vectors.transpose(2, 3).reshape(b, t, 2, -1).transpose(1, 2).flatten(2)
    vectors = flat.gather(2, source[:, None].expand(-1, 2, -1)).view(b, 2, t, roles, h, w)
    return vectors.permute(0, 2, 3, 1, 4, 5), has


def references(vectors: Tensor, has: Tensor) -> Tensor:
    """The vectors likeliest to be those of a position, int64 `[B, T, 4, 2, h, w]`.

    Those of the position next to it in the frame (of left, above, right, below the first that has one). Without one,
    for the anchor's: the last at that position in a span before; then one two steps away; else 0. For one between: the
    anchor's.

    Args:
        vectors: int64 `[B, T, 4, 2, h, w]`.
        has: bool `[B, T, 4, h, w]`, which of them there are.
    """
    near, is_near = _from_neighbours(torch.zeros_like(vectors), torch.zeros_like(has), vectors, has)
    far, is_far = _from_neighbours(near[:, :, :1], is_near[:, :, :1], near[:, :, :1], is_near[:, :, :1])
    anchors, past, has_past = [], torch.zeros_like(vectors[:, 0, 0]), torch.zeros_like(has[:, 0, 0])
    for t in range(vectors.shape[1]):
        choice = torch.where(has_past[:, None], past, far[:, t, 0] * is_far[:, t])
        anchors.append(torch.where(is_near[:, t, :1], near[:, t, 0], choice))
        past = torch.where(has[:, t, :1], vectors[:, t, 0], past)
        has_past = has_past | has[:, t, 0]
    anchor = torch.stack(anchors, 1)[:, :, None]
    return torch.cat([anchor, torch.where(is_near[:, :, 1:, None], near[:, :, 1:], anchor)], 2)


def against(reference: Tensor, merges: Tensor, vectors: Tensor) -> Tensor:
    """What explicit vectors are differences to: the reference, or the anchor's own vector where that is explicit.

    Args:
        reference, vectors: int64 `[..., 4, 2, h, w]`.
        merges: int64 `[..., 4, h, w]`.
    """
    is_explicit = (merges[..., :1, :, :] >= COPIES).unsqueeze(-3)
    others = torch.where(is_explicit, vectors[..., :1, :, :, :], reference[..., 1:, :, :, :])
    return torch.cat([reference[..., :1, :, :, :], others], -4)


def _from_neighbours(value: Tensor, has: Tensor, source: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Fill values `[B, T, n, 2, h, w]` where there are none yet, `[B, T, n, h, w]`, from neighbours in a source."""
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):  # from left, above, right, below
        shifted, there = _moved(source, dy, dx), _moved(known, dy, dx)
        value = torch.where((there & ~has).unsqueeze(-3), shifted, value)
        has = has | there
    return value, has


def _moved(x: Tensor, dy: int, dx: int) -> Tensor:
    """Zeros (or False) come in at the border."""
    padded = F.pad(x, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    h, w = x.shape[-2:]
    return padded[..., max(-dy, 0) : max(-dy, 0) + h, max(-dx, 0) : max(-dx, 0) + w]


def values_of(window: Window, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of all positions, int64 `[B, T, h, w, factors]`, and how many vectors' components are out of reach.

    Args:
        window: its explicit vectors are written as differences; factors of others have the value of none.
        reference: to what, as of `references`.
    """
    difference = window.vectors - against(reference, window.merges, window.vectors)
    is_explicit = (window.merges >= COPIES).unsqueeze(-3)
    difference = difference * is_explicit
    is_out = difference.abs() > REACH
    coded = torch.where(is_out, ESCAPE, difference + REACH + 1).flatten(2, 3)
    values = torch.cat([window.merges, coded, window.levels], 2).permute(0, 1, 3, 4, 2)
    return values, is_out.sum((2, 3))


def counting(values: Tensor) -> Tensor:
    """Which factors `[..., factors]` say something, bool: not those of vectors that are taken over."""
    is_explicit = (values[..., :SPAN] >= COPIES).repeat_interleave(2, -1)
    others = torch.ones_like(values[..., MOTION:], dtype=torch.bool)
    return torch.cat([others[..., :1].expand_as(values[..., :SPAN]), is_explicit, others], -1)


class _Table(nn.Module):
    """A vector for each value of each factor: one of its own, and the sum of those of its marks.

    Values that differ in a bit have much in common: without marks, rare values would not be learned.

    Args:
        marks: float32 `[n, 256, 8]`, of n factors.
        channels: of the vectors.
    """

    marks: Tensor

    def __init__(self, marks: Tensor, channels: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(*marks.shape[:2], channels))
        self.of_marks = nn.Parameter(torch.randn(len(marks), marks.shape[2], channels) * 0.05)
        self.register_buffer("marks", marks, persistent=False)

    def forward(self) -> Tensor:
        """`[n, 256, channels]`."""
        table: Tensor = torch.baddbmm(self.own, self.marks, self.of_marks)
        return table


class _Attention(nn.Module):
    """Self-attention with a learned bias for each offset.

    Args:
        channels, heads: of it.
        offsets: int64 `[n, n]`, number of the offset between each two of at most n places.
    """

    offsets: Tensor

    def __init__(self, channels: int, heads: int, offsets: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros(heads, int(offsets.max()) + 1))
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Of sequences `[N, n, C]`; `hidden` bool `[N, n]` are places that are not there."""
        count, n, channels = x.shape
        q, k, v = self.qkv(self.norm(x)).view(count, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.bias[:, self.offsets[:n, :n]][None].to(q.dtype)
        if hidden is not None:
            bias = bias.masked_fill(hidden[:, None, None], -1e4)
        y = F.scaled_dot_product_attention(q, k, v, bias.expand(count, -1, -1, -1))
        out: Tensor = self.out(y.transpose(1, 2).reshape(count, n, channels))
        return out


class _Layer(nn.Module):
    """Attention over time, over a window of positions, and an MLP; in odd layers the windows are shifted by half."""

    def __init__(self, channels: int, heads: int, shifted: bool) -> None:
        super().__init__()
        time = torch.arange(MOST_SPANS + 1)
        side = torch.arange(WINDOW)
        y, x = (g.flatten() for g in torch.meshgrid(side, side, indexing="ij"))
        width = 2 * WINDOW - 1
        around = (y[:, None] - y + WINDOW - 1) * width + x[:, None] - x + WINDOW - 1
        self.time = _Attention(channels, heads, time[:, None] - time + MOST_SPANS)
        self.space = _Attention(channels, heads, around)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )
        self.shift = WINDOW // 2 if shifted else 0

    def forward(self, x: Tensor) -> Tensor:
        b, t, h, w, c = x.shape
        flat = x.permute(0, 2, 3, 1, 4).reshape(b * h * w, t, c)
        x = x + self.time(flat).view(b, h, w, t, c).permute(0, 3, 1, 2, 4)
        x = x + self._windows(x)
        out: Tensor = x + self.mlp(x)
        return out

    def _windows(self, x: Tensor) -> Tensor:
        b, t, h, w, c = x.shape
        top = left = self.shift
        rows, columns = -(-(h + top) // WINDOW), -(-(w + left) // WINDOW)
        pad = (left, columns * WINDOW - w - left, top, rows * WINDOW - h - top)
        cells = F.pad(x.reshape(b * t, h, w, c), (0, 0, *pad))
        hidden = F.pad(x.new_zeros(h, w, dtype=torch.bool), pad, value=True)
        tiles = cells.view(b * t, rows, WINDOW, columns, WINDOW, c).transpose(2, 3).reshape(-1, WINDOW**2, c)
        mask = hidden.view(rows, WINDOW, columns, WINDOW).transpose(1, 2).reshape(-1, WINDOW**2)
        y: Tensor = self.space(tiles, mask.repeat(b * t, 1) if hidden.any() else None)
        y = y.view(b * t, rows, columns, WINDOW, WINDOW, c).transpose(2, 3)
        y = y.reshape(b * t, rows * WINDOW, columns * WINDOW, c)[:, top : top + h, left : left + w]
        return y.reshape(b, t, h, w, c)


class LanguageModel(nn.Module):
    """Trunk and head.

    Args:
        config: shape.

    Attributes:
        layout: which levels the factors hold.
    """

    allowed: Tensor

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config, self.layout = config, Layout(config.blocks)
        c, h, factors = config.channels, config.head_channels, self.layout.factors
        marks = torch.from_numpy(self.layout.marks())
        self.of_words = _Table(torch.cat([marks[:SPAN], marks[MOTION:]]), c)  # vectors are read as numbers
        self.of_vectors = nn.Linear(3 * SPAN, c)  # and whether they are known
        self.of_first = nn.Linear(FIRST_MEANS, c)
        self.of_place = nn.Embedding(PLACES, c)
        self.of_step = nn.Linear(1, c)
        self.hidden = nn.Parameter(torch.zeros(c))
        self.layers = nn.ModuleList(_Layer(c, config.heads, bool(i % 2)) for i in range(config.layers))
        self.norm = nn.LayerNorm(c)
        self.into = nn.Linear(c, h)
        self.spoken = _Table(marks, h)
        self.turn = nn.Parameter(torch.zeros(factors, h))
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(h, h), nn.GELU(), nn.Linear(h, h))
        self.out = _Table(marks, h)
        self.out_bias = nn.Parameter(torch.zeros(factors, VALUES))
        self.register_buffer("allowed", torch.from_numpy(self.layout.allowed()), persistent=False)
        nn.init.normal_(self.of_place.weight, std=0.02)

    @property
    def parameters_in_all(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def set_odds(self, counts: Tensor) -> None:
        """Begin with how often each value of each factor occurs, float `[factors, 256]`."""
        shares = (counts + 0.5) / (counts + 0.5).sum(1, keepdim=True)
        self.out_bias.copy_(shares.log())

    def trunk(self, window: Window, known: Tensor) -> Tensor:
        """Features of all positions, `[B, T, h, w, C]`; with a first frame in the window, it is the first of T.

        Args:
            window: what is hidden in it has no influence.
            known: bool `[B, T, h, w]`, of the spans.
        """
        b, t, factors, h, w = window.levels.shape
        if not 0 < t <= MOST_SPANS:
            raise ValueError(f"a window has 1 to {MOST_SPANS} spans, not {t}")
        vectors, has = resolved(window, known)
        vectors = torch.where(has.unsqueeze(-3), vectors, references(vectors, has))
        motion = torch.cat([torch.asinh(vectors.float() / 4).flatten(2, 3), has], 2).permute(0, 1, 3, 4, 2)
        numbers = torch.cat([window.merges, window.levels], 2)
        numbers = numbers + torch.arange(SPAN + factors, device=known.device)[:, None, None] * VALUES
        flat = numbers.permute(0, 1, 3, 4, 2).reshape(-1, SPAN + factors)
        spoken = F.embedding_bag(flat, self.of_words().flatten(0, 1).float(), mode="sum").view(b, t, h, w, -1)
        x = torch.where(known[..., None], spoken, self.hidden) + self.of_vectors(motion)
        numbers = (window.place[:, None] + torch.arange(t, device=known.device)).clamp(max=PLACES - 1)
        x = x + self.of_place(numbers)[:, :, None, None]
        if window.first is not None:
            levels = window.first.sign() * window.first.abs().log1p()
            first = self.of_first(levels.permute(0, 2, 3, 1)) + self.of_place.weight[0]
            x = torch.cat([first[:, None], x], 1)
        x = x + self.of_step((window.step.log() - STEP_CENTRE)[:, None])[:, None, None, None]
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.norm(x)
        return out

    def bits(self, features: Tensor, values: Tensor) -> Tensor:
        """What positions cost, float32 `[N, factors]`.

        Args:
            features: `[N, C]`, of the trunk.
            values: int64 `[N, factors]`.
        """
        numbers = values + torch.arange(values.shape[1], device=values.device) * VALUES
        said = F.embedding(numbers, self.spoken().flatten(0, 1))
        said = F.pad(said.cumsum(1), (0, 0, 1, 0))[:, :-1]
        z = self.into(features)[:, None] + said + self.turn
        z = (z + self.mix(z)).transpose(0, 1)
        bias = self.out_bias.masked_fill(~self.allowed, -1e4)[:, None]
        logits = torch.bmm(z, self.out().transpose(1, 2).to(z.dtype)).float() + bias
        nats = F.cross_entropy(logits.flatten(0, 1), values.T.flatten(), reduction="none")
        return nats.view(values.T.shape).T / math.log(2) * counting(values)

    def speak(self, features: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the factors of positions.

        Args:
            features: `[N, C]`, of the trunk.
            temperature: 0 takes the likeliest value of each factor.
            generator: of the draws, on the CPU.

        Returns:
            int64 `[N, factors]`, and the log probability that the model gives to each position, float32 `[N]`.
        """
        hidden, said = self.into(features), torch.zeros((), device=features.device)
        out, spoken = self.out(), self.spoken()
        values: list[Tensor] = []
        score = torch.zeros(len(features), device=features.device)
        for i in range(self.layout.factors):
            z = hidden + said + self.turn[i]
            logits = F.linear(z + self.mix(z), out[i], self.out_bias[i]).float()
            logits = logits.masked_fill(~self.allowed[i], -torch.inf)
            if SPAN <= i < MOTION:
                logits[:, ESCAPE] = -torch.inf
            chances = logits.log_softmax(1)
            if temperature > 0:
                uniform = torch.rand(logits.shape, generator=generator).to(logits.device).clamp(1e-9, 1 - 1e-7)
                drawn = (chances / temperature - (-uniform.log()).log()).argmax(1)
            else:
                drawn = chances.argmax(1)
            chance = chances.gather(1, drawn[:, None])[:, 0]
            if SPAN <= i < MOTION:
                is_explicit = values[(i - SPAN) // 2] >= COPIES
                drawn, chance = torch.where(is_explicit, drawn, REACH + 1), chance * is_explicit
            values.append(drawn)
            score = score + chance
            said = said + spoken[i, drawn]
        return torch.stack(values, 1), score


def save_model(path: Path, model: LanguageModel) -> None:
    """Write a model as safetensors, float16, its configuration in the metadata."""
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    path.write_bytes(save(tensors, {"language": model.config.to_json()}))


def load_model(path: Path) -> LanguageModel:
    """The model of a file, or of the folder of a run; float32, on the CPU, in eval mode.

    Raises:
        ModelError: it is missing, damaged, or of another version.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    try:
        with safe_open(file, "pt") as opened:
            config = LanguageConfig.from_json((opened.metadata() or {})["language"])
            model = LanguageModel(config)
            model.load_state_dict({name: opened.get_tensor(name).float() for name in opened.keys()})  # noqa: SIM118
    except OSError as error:
        raise ModelError(f"{file}: cannot read the model: {error.strerror or 'no such file'}") from error
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{file}: not a language model: {str(error).partition(chr(10))[0]}") from error
    return model.eval()


def window_of(words: Any, first: Any, begin: int, end: int, step: float) -> Window:
    """Spans [begin, end) of a chunk's spans of four (numbers from 0) as a window of one, on the CPU.

    Args:
        words: of the chunk.
        first: int16 `[24, h, w]`, of its first frame; used where `begin` is 0.
        begin, end: of the window.
        step: of the chunk, in levels.
    """
    part = [torch.from_numpy(x[begin:end].copy()).long()[None] for x in (words.levels.swapaxes(0, 1), words.merges)]
    vectors = torch.from_numpy(words.vectors[begin:end].astype("int64"))[None]
    opening = torch.from_numpy(first.astype("float32"))[None] if begin == 0 else None
    return Window(opening, part[0], part[1], vectors, torch.tensor([1 + begin]), torch.tensor([step]))
