"""A language model of tokens, judged: bits a token beside the context coder's, and a predicted span beside a copy.

`python -m benchmarks.language make VIDEO OUT` cuts a video into clips of equal length and codes each as a stream;
`python -m benchmarks.language judge VIDEO STREAMS --lm LM --out FILE` measures on such streams that were not learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from tokcodec.cli.options import Numbers
from tokcodec.coding.planes import to_rgb
from tokcodec.compute import Compute
from tokcodec.dtypes import Frames
from tokcodec.io.output import writing
from tokcodec.language.generate import check, spans_of_four
from tokcodec.language.mask import span_bits
from tokcodec.language.model import LanguageModel, load_model, window_of
from tokcodec.language.sampler import Speech, longer, spoken
from tokcodec.language.words import MOTION, SPAN, Words
from tokcodec.rate import STEP_UNITS, whole_units
from tokcodec.scoring.perceptual import load_lpips
from tokcodec.scoring.scores import lpips_distance
from tokcodec.stream.container import write_stream
from tokcodec.stream.entropy import Tokens, encode_chunk
from tokcodec.stream.records import Chunk, Header
from tokcodec.stream_reader import chunks_of, reading, tokens_of
from tokcodec.tokenizer import Tokenizer
from tokcodec.video import VideoReader
from tokcodec.weights import Weights

RATE = Fraction(30)  # frames/s that the clips are given


def clips_of(video: Path, length: int, wanted: set[int]) -> Iterator[tuple[int, Frames]]:
    """Clips of a row of clips: frames [n length, (n + 1) length) for each n that is wanted."""
    left, held = set(wanted), []
    with VideoReader(video) as reader:
        for i, (frame, _) in enumerate(reader):
            if not left:
                return
            if i // length in left:
                held.append(frame)
                if len(held) == length:
                    left.remove(i // length)
                    yield i // length, np.stack(held)
                    held = []


def code_clip(tokenizer: Tokenizer, frames: Frames, step: float, target: Path) -> None:
    """Write a clip as a stream of one chunk, of spans of four."""
    units = round(step * STEP_UNITS)
    coder, *payloads = tokenizer.pack(frames, step, spans=SPAN)
    height, width = frames.shape[1:3]
    header = Header(width, height, len(frames), tokenizer.weights.sha256, 1 / RATE, RATE)
    chunk = Chunk(len(frames), coder, units, tuple(range(len(frames))), 1, *payloads)
    with writing(target, [], overwrite=True) as file:
        write_stream(file, header, [chunk])


def cut(tokens: Tokens, spans: int) -> Tokens:
    """The first frame of a chunk and so many spans of four."""
    frames = SPAN * spans
    return Tokens(
        tokens.levels[:, : 1 + frames], tokens.motion[:frames], tokens.spans[:spans], tokens.numbers[: 1 + frames]
    )


def coder_bits(tokenizer: Tokenizer, tokens: Tokens, units: int) -> tuple[float, float]:
    """What the context coder writes for a chunk's spans of four: bits of motion and of levels."""
    _, motion, levels = encode_chunk(tokens, units, tokenizer.tables)
    _, _, first = encode_chunk(cut(tokens, 0), units, tokenizer.tables)
    return 8.0 * len(motion), 8.0 * (len(levels) - len(first))


def model_bits(model: LanguageModel, words: Words, first: Any, step: float, steps: int) -> tuple[float, float]:
    """What the model would need for them, told one after another: bits of motion and of levels."""
    total = torch.zeros(model.layout.factors)
    for g in range(len(words.merges)):
        low = max(0, g + 1 - model.config.spans)
        window = window_of(words, first, low, g + 1, step)
        total += span_bits(model, window, torch.ones_like(window.merges[:, :, 0], dtype=torch.bool), g - low, steps, g)
    return total[:MOTION].sum().item(), total[MOTION:].sum().item()


def predicted(
    tokenizer: Tokenizer,
    model: LanguageModel,
    tokens: Tokens,
    original: Frames,
    step: float,
    known: int,
    lpips: nn.Module,
) -> dict[str, float]:
    """LPIPS of the span behind `known` spans of four, as the loop has its frames.

    `copy` is no motion and no levels; `motion` repeats the last span's motion without levels; `coded` is what the
    stream has there.
    """
    height, width = original.shape[1:3]
    begin = 1 + SPAN * known
    context = cut(tokens, known)
    grown = longer(context, 1)
    again = grown.motion.copy()
    again[SPAN * known :] = context.motion[-SPAN:]
    tries = {
        "copy": grown,
        "motion": grown._replace(motion=again),
        "predicted": spoken(model, grown, step, known, known + 1, Speech()),
        "drawn": spoken(model, grown, step, known, known + 1, Speech(temperature=1.0)),
        "coded": cut(tokens, 1 + known),
    }
    found = {}
    for name, made in tries.items():
        bases = [frame.base for frame in tokenizer.loop.decode(made.in_order(), step)]
        shown = np.concatenate([to_rgb(base, height, width) for base in bases[begin:]])
        found[name] = lpips_distance(lpips, original[begin : begin + SPAN], shown, 1)
    return found


@click.group()
def main() -> None:
    """Make streams of clips, and judge a language model on them."""


@main.command()
@click.argument("video", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--length", default=33, show_default=True, help="Frames of a clip of the video.")
@click.option("--frames", type=int, help="Of each clip to code [default: all].")
@click.option("--clips", type=Numbers(), required=True, help="Their numbers.")
@click.option("--step", default=64.0, show_default=True)
def make(video: Path, out: Path, length: int, frames: int | None, clips: tuple[int, ...], step: float) -> None:
    """Code clips of VIDEO, which is a row of clips, to streams in OUT."""
    tokenizer = Tokenizer(Weights.find())
    out.mkdir(parents=True, exist_ok=True)
    for number, pixels in clips_of(video, length, set(clips)):
        code_clip(tokenizer, pixels[:frames], whole_units(step), out / f"{video.stem}-{number:03d}.tokc")


@main.command()
@click.argument("video", type=click.Path(exists=True, path_type=Path))
@click.argument("streams", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--lm", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--length", default=33, show_default=True, help="Frames of a clip of the video.")
@click.option("--steps", default=8, show_default=True, help="Passes for a span.")
@click.option("--known", default=4, show_default=True, help="Spans of four before the predicted one.")
@click.option("--lpips-dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def judge(
    video: Path,
    streams: tuple[Path, ...],
    lm: Path,
    length: int,
    steps: int,
    known: int,
    lpips_dir: Path | None,
    out: Path,
) -> None:
    """Judge on STREAMS that `make` made of VIDEO."""
    tokenizer, model, lpips = Tokenizer(Weights.find(), Compute("cpu")), load_model(lm), load_lpips("alex", lpips_dir)
    check(model, tokenizer, lm)
    numbers = {int(path.stem.rpartition("-")[2]): path for path in streams}
    points = []
    for number, original in clips_of(video, length, set(numbers)):
        with reading(numbers[number]) as reader:
            chunk = next(chunks_of(reader))
            tokens = tokens_of(chunk, reader.header, tokenizer.tables)
        step, layout = chunk.step / STEP_UNITS, model.layout
        tokens = cut(tokens, spans_of_four(tokens, numbers[number]))
        words, first = layout.words(tokens), layout.first(tokens, step)
        levels, motion = layout.tokens(words, len(tokens.levels), tokens.motion[:0])
        held = tokens._replace(levels=np.concatenate([tokens.levels[:, :1], levels], 1), motion=motion)
        size = words.levels[0].size
        point: dict[str, float] = {"clip": number, "tokens": size}
        for name, bits in (
            ("coder_all", coder_bits(tokenizer, tokens, chunk.step)),
            ("coder", coder_bits(tokenizer, held, chunk.step)),
            ("model", model_bits(model, words, first, step, steps)),
        ):
            point |= {f"{name}_motion_bits": round(bits[0] / size, 3), f"{name}_levels_bits": round(bits[1] / size, 3)}
        scores = predicted(tokenizer, model, tokens, original, step, known, lpips)
        point |= {f"lpips_{name}": round(value, 4) for name, value in scores.items()}
        points.append(point)
        click.echo(json.dumps(point))
    means = {k: round(float(np.mean([p[k] for p in points])), 4) for k in points[0] if k not in ("clip", "tokens")}
    click.echo(json.dumps(means))
    about = {"passes": steps, "known_spans": known, "step": step, "parameters": model.parameters_in_all}
    out.write_text(json.dumps({**about, "means": means, "points": points}, indent=1) + "\n")


if __name__ == "__main__":
    main()
