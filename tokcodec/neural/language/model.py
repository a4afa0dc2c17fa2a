"""The masked model: what stands at a position, given what is known of the others.

A trunk of attention over time at a position and over windows of 8x8 positions of a group reads a window of groups, in
which some positions are hidden. A head speaks a hidden position factor by factor: each depends on the trunk and on the
factors of that position before it, and positions on one another through the trunk alone.
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
from tokcodec.neural.language.tokens import ESCAPE, FIRST, MOTION, REACH, VALUES, Layout
from tokcodec.neural.loop import GROUP

WINDOW = 8  # positions a side of attention within a group
PLACES = 9  # numbers of groups that are told apart; later ones count as the last
SPAN = 8  # the most groups of a window
STEP_CENTRE = math.log(64.0)  # of the steps in use


@dataclasses.dataclass(frozen=True)
class LanguageConfig:
    """The shape of a model, and whose tokens it speaks; stored as JSON in the metadata of its weights."""

    blocks: tuple[int, int, int]  # dimensions of the loop's intra, key and between
    basis_sha256: str  # of the loop's transforms
    channels: int = 64
    layers: int = 2
    heads: int = 4
    head_channels: int = 64
    groups: int = 4  # of four, in a window

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LanguageConfig:
        """Raises ValueError if the text is not a configuration this version knows."""
        fields = json.loads(text)
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, dict) or set(fields) != names or not isinstance(fields["basis_sha256"], str):
            raise ValueError("not a configuration of this version")
        blocks, sizes = fields["blocks"], [fields[n] for n in names - {"blocks", "basis_sha256"}]
        numbers = [*blocks, *sizes] if isinstance(blocks, list) and len(blocks) == 3 else [0]
        if (
            not all(type(n) is int and 0 < n <= 4096 for n in numbers)
            or fields["channels"] % fields["heads"]
            or fields["groups"] > SPAN
        ):
            raise ValueError("a number is out of range")
        return cls(**fields | {"blocks": tuple(blocks)})


class Window(NamedTuple):
    """Consecutive groups of B chunks, on the model's device.

    Attributes:
        first: float32 `[B, 24, h, w]`, of the first group (see `Layout.first`) if the window begins with it, else None.
        levels: int64 `[B, T, L, h, w]`, factors of the groups of four.
        kinds: int64 `[B, T, h, w]`.
        vectors: int64 `[B, T, 4, 2, h, w]`.
        place: int64 `[B]`, number in its chunk of the first of the T groups, from 1.
        step: float32 `[B]`, of the chunk, in levels.
    """

    first: Tensor | None
    levels: Tensor
    kinds: Tensor
    vectors: Tensor
    place: Tensor
    step: Tensor

    def to(self, device: torch.device) -> Window:
        first, *rest = self
        return Window(None if first is None else first.to(device), *(x.to(device) for x in rest))

    @classmethod
    def joined(cls, windows: list[Window]) -> Window:
        """Windows of one shape, that all have a first group or all have none."""
        firsts, *rest = zip(*windows, strict=True)
        return cls(None if firsts[0] is None else torch.cat(firsts), *map(torch.cat, rest))


class Reference(NamedTuple):
    """What vectors are told against.

    Attributes:
        vectors: int64 `[B, T, 4, 2, h, w]`.
        is_near: bool `[B, T, h, w]`, where they are of a position beside in the same group. Elsewhere those of the
            three frames between are 0, and do not count: the key frame's own vector takes their place.
    """

    vectors: Tensor
    is_near: Tensor

    def against(self, vectors: Tensor) -> Tensor:
        """The reference of all frames, where these are the vectors `[B, T, 4, 2, h, w]`."""
        key = self.vectors[:, :, :1]
        others = torch.where(self.is_near[:, :, None, None], self.vectors[:, :, 1:], vectors[:, :, :1])
        return torch.cat([key, others], 2)


def references(vectors: Tensor, known: Tensor) -> Reference:
    """Of what is known, the vectors likeliest to be those of a position.

    Those of the known position next to it in the group (of left, above, right, below the first). Without one, for the
    key frame's: the last known at that position in a group before; then one two steps away in the group; else 0.

    Args:
        vectors: int64 `[B, T, 4, 2, h, w]`.
        known: bool `[B, T, h, w]`.
    """
    flat = vectors.flatten(2, 3)
    near, is_near = _beside(torch.zeros_like(flat), torch.zeros_like(known), flat, known)
    far, is_far = _beside(near[:, :, :2], is_near, near[:, :, :2], is_near)
    keys, past, has_past = [], torch.zeros_like(flat[:, 0, :2]), torch.zeros_like(known[:, 0])
    for t in range(vectors.shape[1]):
        choice = torch.where(has_past[:, None], past, far[:, t] * is_far[:, t, None])
        keys.append(torch.where(is_near[:, t, None], near[:, t, :2], choice))
        past = torch.where(known[:, t, None], flat[:, t, :2], past)
        has_past = has_past | known[:, t]
    return Reference(torch.cat([torch.stack(keys, 1), near[:, :, 2:]], 2).view_as(vectors), is_near)


def _beside(value: Tensor, has: Tensor, source: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Fill values `[B, T, n, h, w]` where there are none yet from neighbours in a source."""
    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):  # from left, above, right, below
        shifted, there = _moved(source, dy, dx), _moved(known, dy, dx)
        value = torch.where((there & ~has)[:, :, None], shifted, value)
        has = has | there
    return value, has


def _moved(x: Tensor, dy: int, dx: int) -> Tensor:
    """Zeros (or False) come in at the border."""
    padded = F.pad(x, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
    h, w = x.shape[-2:]
    return padded[..., max(-dy, 0) : max(-dy, 0) + h, max(-dx, 0) : max(-dx, 0) + w]


def values_of(window: Window, reference: Reference) -> tuple[Tensor, Tensor]:
    """The factors of all positions, int64 `[B, T, h, w, factors]`, and how many vectors' components are out of reach.

    Args:
        window: its vectors are told as differences.
        reference: to what.
    """
    difference = window.vectors - reference.against(window.vectors)
    is_out = difference.abs() > REACH
    coded = torch.where(is_out, ESCAPE, difference + REACH + 1).flatten(2, 3)
    values = torch.cat([window.kinds[:, :, None], coded, window.levels], 2).permute(0, 1, 3, 4, 2)
    return values, is_out.sum((2, 3))


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
        time = torch.arange(SPAN + 1)
        side = torch.arange(WINDOW)
        y, x = (g.flatten() for g in torch.meshgrid(side, side, indexing="ij"))
        width = 2 * WINDOW - 1
        around = (y[:, None] - y + WINDOW - 1) * width + x[:, None] - x + WINDOW - 1
        self.time = _Attention(channels, heads, time[:, None] - time + SPAN)
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
        self.of_words = _Table(torch.cat([marks[:1], marks[MOTION:]]), c)  # vectors are read as numbers
        self.of_vectors = nn.Linear(2 * GROUP, c)
        self.of_first = nn.Linear(FIRST, c)
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
        """Features of all positions, `[B, T, h, w, C]`; with a first group in the window, it is the first of T.

        Args:
            window: what is hidden in it has no influence.
            known: bool `[B, T, h, w]`, of the groups of four.
        """
        b, t, factors, h, w = window.levels.shape
        if not 0 < t <= SPAN:
            raise ValueError(f"a window has 1 to {SPAN} groups of four, not {t}")
        reference = references(window.vectors, known)
        vectors = torch.where(known[:, :, None, None], window.vectors, reference.against(reference.vectors))
        motion = torch.asinh(vectors.float() / 4).flatten(2, 3).permute(0, 1, 3, 4, 2)
        numbers = torch.cat([window.kinds[:, :, None], window.levels], 2)
        numbers = numbers + torch.arange(1 + factors, device=known.device)[:, None, None] * VALUES
        flat = numbers.permute(0, 1, 3, 4, 2).reshape(-1, 1 + factors)
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
        return nats.view(values.T.shape).T / math.log(2)

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
        values, score = [], torch.zeros(len(features), device=features.device)
        for i in range(self.layout.factors):
            z = hidden + said + self.turn[i]
            logits = F.linear(z + self.mix(z), out[i], self.out_bias[i]).float()
            logits = logits.masked_fill(~self.allowed[i], -torch.inf)
            if 1 <= i < MOTION:
                logits[:, ESCAPE] = -torch.inf
            chances = logits.log_softmax(1)
            if temperature > 0:
                uniform = torch.rand(logits.shape, generator=generator).to(logits.device).clamp(1e-9, 1 - 1e-7)
                drawn = (chances / temperature - (-uniform.log()).log()).argmax(1)
            else:
                drawn = chances.argmax(1)
            values.append(drawn)
            score = score + chances.gather(1, drawn[:, None])[:, 0]
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
    """Groups [begin, end) of a chunk's groups of four (numbers from 0) as a window of one, on the CPU.

    Args:
        words: of the chunk.
        first: int16 `[24, h, w]`, of its first group; used where `begin` is 0.
        begin, end: of the window.
        step: of the chunk, in levels.
    """
    part = [torch.from_numpy(x[begin:end].copy()).long()[None] for x in (words.levels.swapaxes(0, 1), words.kinds)]
    vectors = torch.from_numpy(words.vectors[begin:end].astype("int64"))[None]
    opening = torch.from_numpy(first.astype("float32"))[None] if begin == 0 else None
    return Window(opening, part[0], part[1], vectors, torch.tensor([1 + begin]), torch.tensor([step]))
