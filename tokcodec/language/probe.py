"""What tokens know of a scene: linear and attention probes on the model's embeddings, compared with small pictures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tokcodec.coding.planes import Planes, cell_means
from tokcodec.compute import AUTO, Compute
from tokcodec.errors import TokcodecError
from tokcodec.io.find import find_streams
from tokcodec.language.generate import check, spans_of_four
from tokcodec.language.model import LanguageModel, load_model, window_of
from tokcodec.language.words import SPAN
from tokcodec.rate import STEP_UNITS
from tokcodec.restorer.device import pick_device
from tokcodec.stream_reader import chunks_of, reading, tokenizer_of, tokens_of

FOLDS = 5
EPOCHS = 200


class Sample(NamedTuple):
    """A stream: features of its positions float32 `[n, C]`, by the tokens and by pixels; its class and clip."""

    tokens: Tensor
    pixels: Tensor
    label: int
    clip: str


@torch.inference_mode()
def _embedded(model: LanguageModel, name: Path, path: Path, weights: str | Path | None) -> tuple[Tensor, Tensor]:
    """Features of the positions of a stream's first spans, `[n, C]` and `[n, 24]`; messages call the model `name`."""
    with reading(path) as reader:
        tokenizer = tokenizer_of(reader, weights)
        check(model, tokenizer, name)
        chunk = next(chunks_of(reader))
        tokens = tokens_of(chunk, reader.header, tokenizer.tables)
        step = chunk.step / STEP_UNITS
        spans = min(model.config.spans, spans_of_four(tokens, path))
        if not spans:
            raise TokcodecError(f"{path}: a probe needs five frames at least")
        words, first = model.layout.words(tokens), model.layout.first(tokens, step)
        window = window_of(words, first, 0, spans, step).to(next(model.parameters()).device)
        known = torch.ones_like(window.merges[:, :, 0], dtype=torch.bool)
        features = model.trunk(window, known)[0].flatten(0, 2).cpu()
        decoded = itertools.islice(tokenizer.loop.decode(tokens.in_order(), step), 0, 1 + SPAN * spans, SPAN)
        shown = [_small(frame.base) for frame in decoded]
    return features, torch.from_numpy(np.concatenate(shown))


def _small(base: Planes) -> NDArray[np.float32]:
    """A frame by positions, float32 `[h * w, 24]` in [-1, 1]."""
    means = cell_means(base)
    return means.reshape(len(means), -1).T / np.float32(127.5) - 1


class _Attending(nn.Module):
    """A learned query looks at all positions; what it gathers is divided linearly."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, 4)
        self.out = nn.Linear(4 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, classes]` of `[B, n, C]`."""
        weights = self.query(x).softmax(1)
        logits: Tensor = self.out((weights.transpose(1, 2) @ x).flatten(1))
        return logits


def _fit(module: nn.Module, x: Tensor, labels: Tensor, classes: int) -> nn.Module:
    """Full-batch AdamW; classes weigh alike, however many streams they have."""
    weight = len(labels) / (classes * torch.bincount(labels, minlength=classes).clamp(min=1).float())
    optimizer = torch.optim.AdamW(module.parameters(), 0.01, weight_decay=0.1)
    for _ in range(EPOCHS):
        loss = F.cross_entropy(module(x), labels, weight)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return module


def folds_of(samples: list[Sample], seed: int) -> NDArray[np.int64]:
    """Which fold each sample is judged in: clips stay together, and each class is spread over the folds."""
    rng = np.random.default_rng(seed)
    fold: dict[tuple[int, str], int] = {}
    for label in sorted({sample.label for sample in samples}):
        clips = sorted({sample.clip for sample in samples if sample.label == label})
        for n, i in enumerate(rng.permutation(len(clips))):
            fold[label, clips[i]] = n % FOLDS
    return np.array([fold[sample.label, sample.clip] for sample in samples])


def _accuracy(kind: str, features: list[Tensor], labels: Tensor, folds: NDArray[np.int64], seed: int) -> float:
    """Mean over classes of the share that is recognized, over all folds."""
    classes = int(labels.max()) + 1
    if kind == "linear":
        x = torch.stack([torch.cat([f.mean(0), f.std(0)]) for f in features])
    else:
        count = min(len(f) for f in features)
        x = torch.stack([f[torch.linspace(0, len(f) - 1, min(count, 256)).long()] for f in features])
    right = torch.zeros(len(labels))
    for n in range(FOLDS):
        judged = torch.from_numpy(folds == n)
        if not judged.any() or judged.all():
            continue
        torch.manual_seed(seed)
        dims = tuple(range(x.ndim - 1))
        mean, scale = x[~judged].mean(dims), x[~judged].std(dims) + 1e-5
        z = (x - mean) / scale
        module = nn.Linear(z.shape[-1], classes) if kind == "linear" else _Attending(z.shape[-1], classes)
        _fit(module, z[~judged], labels[~judged], classes)
        with torch.inference_mode():
            right[judged] = (module(z[judged]).argmax(1) == labels[judged]).float()
    return float(np.mean([right[labels == c].mean().item() for c in range(classes)]))


def probe(
    classes: Path, *, model: Path, seed: int = 0, weights: str | Path | None = None, compute: Compute = AUTO
) -> dict[str, Any]:
    """Judge embeddings by how well they tell classes apart.

    Args:
        classes: folder with a folder of .tokc streams for each class. Streams whose names are equal up to the last "-"
            are of one clip, and never on both sides of a division.
        model: a language model, or the folder of the run it was learned in.
        seed: of the division and the probes.
        weights: those of the streams; the released ones if None.
        compute: device of the model.

    Returns:
        Counts, and the mean share over classes that is recognized in five divisions: by chance, by a linear probe on
        mean and deviation over positions and by an attention probe over positions, on tokens and on pixels (each
        position's 16x16 pixels as 4x4 of luma and 2x2 of either chroma).

    Raises:
        TokcodecError: there are fewer than two classes, or one with fewer than two clips.
    """
    speaker = load_model(model).to(pick_device(compute.device))
    files = [path for _, path in find_streams(classes) if path.parent.parent == classes]
    names = sorted({path.parent.name for path in files})
    samples = []
    for path in files:
        seen = _embedded(speaker, model, path, weights)
        clip = path.stem.rpartition("-")[0] or path.stem
        samples.append(Sample(*seen, names.index(path.parent.name), clip))
    clips = [len({s.clip for s in samples if s.label == label}) for label in range(len(names))]
    if len(names) < 2 or min(clips) < 2:
        raise TokcodecError(f"{classes}: a probe needs folders of streams, two at least, of two clips each at least")
    labels, folds = torch.tensor([s.label for s in samples]), folds_of(samples, seed)
    result: dict[str, Any] = {"classes": len(names), "streams": len(samples), "clips": sum(clips)}
    result["chance"] = round(1 / len(names), 4)
    for kind in ("linear", "attention"):
        for name in ("tokens", "pixels"):
            features = [getattr(s, name) for s in samples]
            result[f"{kind}_{name}"] = round(_accuracy(kind, features, labels, folds, seed), 4)
    return result
