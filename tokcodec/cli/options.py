"""What several commands take: kinds of values, and groups of options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tokcodec.rate import Rate

SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class Amount(click.ParamType[float]):
    """A positive number with FFmpeg's suffixes: 300k is 300,000, 2Mi is 2 * 2**20."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]i?)?", str(value), re.IGNORECASE)
        amount = float(match[1]) * SCALES[(match[2] or "").lower()] if match else 0.0
        if not 0 < amount < math.inf:
            self.fail(f"{value!r} is not an amount such as 800, 300k or 2M", param, ctx)
        return amount


class Seconds(click.ParamType[float]):
    """A time as FFmpeg writes it: 12.5, 01:30 or 00:01:30.25."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if not re.fullmatch(r"(?:(?:\d+:)?\d+:)?\d+(?:\.\d+)?", str(value)):
            self.fail(f"{value!r} is not a time such as 12.5 or 00:01:30", param, ctx)
        total = 0.0
        for part in str(value).split(":"):
            total = 60 * total + float(part)
        return total


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers between commas, such as 9,17,33."""

    name = "n,n,..."

    def __init__(self, count: int | None = None) -> None:
        self.count = count  # how many there must be (None: any)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if not re.fullmatch(r"\d+(,\d+)*", str(value)):
            self.fail(f"{value!r} is not a list of numbers such as 9,17,33", param, ctx)
        numbers = tuple(int(n) for n in str(value).split(","))
        if self.count not in (None, len(numbers)):
            self.fail(f"{value!r} is not {self.count} numbers", param, ctx)
        return numbers


def shared(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


output_options = shared(
    click.option("-f", "--force", is_flag=True, help="Overwrite the output."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
)
device_options = shared(
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Arithmetic of the network; auto is bfloat16 where the device has it.",
    ),
    click.option("--threads", type=click.IntRange(1), help="CPU threads [default: all cores]."),
)
span_options = shared(
    click.option("--start", "start_s", type=Seconds(), default=0.0, help="Begin here: seconds or HH:MM:SS."),
    click.option("--duration", "duration_s", type=Seconds(), help="Take this much: seconds or HH:MM:SS."),
)
rate_options = shared(
    click.option("-q", "--quality", type=click.IntRange(1, 8), help="1 (small) to 8 (best) [default: 4]."),
    click.option("--step", type=click.FloatRange(1 / 16, 4095), help="Of the quantizer, in levels of 255."),
    click.option("--bitrate", type=Amount(), help="Bits per second of the video, at most: 300k."),
    click.option("--target-size", type=Amount(), help="Bytes of the whole file, at most: 2M."),
    click.option("--target-lpips", type=click.FloatRange(0, min_open=True), help="LPIPS of every chunk, at most."),
    click.option("--target-psnr", type=click.FloatRange(0, min_open=True), help="PSNR of every chunk in dB, at least."),
)
progress_option = click.option(
    "--progress",
    "progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="On stderr; auto is a bar on a terminal, else a line every 30 s; json is an object a line, for programs.",
)
weights_option = click.option("--weights", type=click.Path(path_type=Path), help="Weights, if not the released ones.")
network_options = shared(weights_option, device_options)


def rate_of(
    quality: int | None,
    step: float | None,
    bitrate: float | None,
    target_size: float | None,
    target_lpips: float | None,
    target_psnr: float | None,
) -> Rate | None:
    """The rate the options name, None if they name none."""
    given = [x for x in (quality, step, bitrate, target_size, target_lpips, target_psnr) if x is not None]
    if len(given) > 1:
        raise click.UsageError(
            "give one of --quality, --step, --bitrate, --target-size, --target-lpips and --target-psnr"
        )
    if not given:
        return None
    if target_size is not None and target_size < 1:
        raise click.UsageError("--target-size is at least a byte")
    try:
        return Rate(
            step=step,
            quality=quality,
            bitrate_kbps=None if bitrate is None else bitrate / 1000,
            target_size_bytes=None if target_size is None else int(target_size),
            target_lpips=target_lpips,
            target_psnr_db=target_psnr,
        )
    except ValueError as error:  # not a number, or infinite
        raise click.UsageError(str(error)) from error


def use_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
