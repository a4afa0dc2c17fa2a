"""What several commands take: kinds of values, and sets of options."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tokcodec.arguments import check_stream_name
from tokcodec.compute import DEVICES, DTYPES, RESTORERS, Compute
from tokcodec.io import suffixes
from tokcodec.rate import Rate
from tokcodec.stream.profile import DEFAULT, LFQ, MAX_BITS, MAX_DEPTH, Profile, checked

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
        if not math.isfinite(total):
            self.fail(f"{value!r} is too long", param, ctx)
        return total


class Within(click.FloatRange):
    """A number in a range; click lets pass what is none (nan)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


SEEDS = click.IntRange(0, 2**63 - 1)


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


class Size(click.ParamType[tuple[int, int]]):
    """Width and height as FFmpeg's scale takes them: 640:360; 640:-2 is even and keeps the shape."""

    name = "w:h"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        match = re.fullmatch(r"(-?\d+)[:x](-?\d+)", str(value))
        if not match:
            self.fail(f"{value!r} is not a size such as 640:360 or 640:-2", param, ctx)
        return int(match[1]), int(match[2])


class FrameRate(click.ParamType[Fraction]):
    """Frames a second: 30, 29.97 or 30000/1001."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/([1-9]\d*))?", str(value))
        if not match:
            self.fail(f"{value!r} is not a frame rate such as 30 or 30000/1001", param, ctx)
        return Fraction(match[1]) / int(match[2] or 1)


class FileName(click.Path):
    """A name of a file, that the shell can complete; whether there is one is not looked at.

    Args:
        ends: offer files with these suffixes, and folders; any file where there are none, and without suffixes.
        path_type: of the value.
    """

    def __init__(self, *ends: str, path_type: type[str] | type[Path] = Path) -> None:
        super().__init__(readable=False, path_type=path_type)
        self._suffixes = ends

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        folder, slash, begin = incomplete.rpartition("/")
        entries: list[os.DirEntry[str]] = []
        with contextlib.suppress(OSError):
            entries = [e for e in os.scandir(folder + slash or ".") if e.name.startswith(begin)]
        entries = [e for e in entries if begin.startswith(".") or not e.name.startswith(".")]
        files = [e.name for e in entries if e.name.lower().endswith(self._suffixes) and not e.is_dir()]
        names = sorted([*files, *(f"{e.name}/" for e in entries if e.is_dir())])
        if not self._suffixes or not files or any(shlex.quote(name) != name for name in names):
            return [CompletionItem(incomplete, type="file")]  # the shell knows what to put in quotes
        return [CompletionItem(folder + slash + name) for name in names]


class StreamName(FileName):
    """A name for a stream to write: not one that says that it is a video, an image or arrays."""

    def __init__(self, path_type: type[str] | type[Path] = str) -> None:
        super().__init__(suffixes.STREAM, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name = super().convert(value, param, ctx)
        try:
            check_stream_name(str(name))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return name


class FolderName(click.Path):
    """A name of a folder, that the shell can complete; or a URL."""

    def __init__(self) -> None:
        super().__init__(readable=False)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


def examples(*lines: str) -> str:
    """The end of a command's help: command lines, without the program's name."""
    return "\n".join(["\b", "Examples:", *(f"  tokcodec {line}" for line in lines)])


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


def _one_of(name: str, known: tuple[str, ...], text: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", type=click.Choice(known), default="auto", show_default=True, help=text)


COMPUTE = {
    "device": _one_of("device", DEVICES, "Where networks run; auto is CUDA if there is a GPU."),
    "dtype": _one_of("dtype", DTYPES, "Arithmetic of the network; auto is bfloat16 where the device has it."),
    "restorer": _one_of(
        "restorer",
        RESTORERS,
        "Network that improves decoded frames; fast has a fifth of the work of full; auto is the best there is.",
    ),
    "threads": click.option(
        "--threads",
        type=click.IntRange(1),
        help="CPU threads [default: all cores; in a batch, each worker's share].",
    ),
}


def gathered(
    name: str, make: Callable[..., Any], keys: Iterable[str], *options: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Options, whose parameters are `keys`, that reach the command as one argument, `name`, which `make` makes."""

    def decorate(command: Any) -> Any:
        @functools.wraps(command)
        def run(**given: Any) -> Any:
            made = make(**{key: given.pop(key) for key in keys})  # before the rest is handed on
            return command(**given, **{name: made})

        return shared(*options)(run)

    return decorate


def compute_options(*names: str) -> Callable[[Any], Any]:
    """Options of COMPUTE, which reach the command as `compute`."""
    return gathered("compute", Compute, names, *(COMPUTE[name] for name in names))


device_options = compute_options("device", "dtype", "threads")


def refuse_unused(why: str, *names: str) -> None:
    """Refuse options of the present command that were given, but mean nothing.

    Raises:
        click.UsageError: one was given.
    """
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} is {why}")


span_options = shared(
    click.option("--start", "start_s", type=Seconds(), default=0.0, help="Begin here: seconds or HH:MM:SS."),
    click.option("--duration", "duration_s", type=Seconds(), help="Take this much: seconds or HH:MM:SS."),
)


def _profile_of(profile: str, bits: int, depth: int) -> Profile | None:
    """The profile that options name; None is the default one."""
    if profile == DEFAULT:
        refuse_unused("for --profile lfq", "bits", "depth")
        return None
    try:
        return checked(bits, depth)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _rate_of(
    quality: int | None,
    step: float | None,
    bitrate: float | None,
    target_size: float | None,
    target_lpips: float | None,
    target_psnr: float | None,
) -> Rate | None:
    """The rate that options name, None if they name none."""
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


rate_options = gathered(
    "rate",
    _rate_of,
    ("quality", "step", "bitrate", "target_size", "target_lpips", "target_psnr"),
    click.option("-q", "--quality", type=click.IntRange(1, 8), help="1 (small) to 8 (best) [default: 4]."),
    click.option("--step", type=Within(1 / 16, 4095), help="Quantizer step, in levels of 255."),
    click.option("--bitrate", type=Amount(), help="Bits per second of the video, at most, as in 300k."),
    click.option("--target-size", type=Amount(), help="Bytes of the whole file, at most, as in 2M."),
    click.option("--target-lpips", type=Within(0, min_open=True), help="LPIPS of every chunk, at most."),
    click.option("--target-psnr", type=Within(0, min_open=True), help="PSNR of every chunk in dB, at least."),
)
profile_options = gathered(
    "profile",
    _profile_of,
    ("profile", "bits", "depth"),
    click.option(
        "--profile",
        type=click.Choice([DEFAULT, LFQ]),
        default=DEFAULT,
        show_default=True,
        help="lfq: tokens are integers of a fixed vocabulary.",
    ),
    click.option(
        "--bits", type=click.IntRange(2, MAX_BITS), default=Profile().bits, show_default=True,
        help="Of an integer of lfq; an even number.",
    ),
    click.option(
        "--depth", type=click.IntRange(1, MAX_DEPTH), default=Profile().depth, show_default=True,
        help="Integers of lfq for 16x16 pixels, as well as one of motion.",
    ),
)  # fmt: skip
deinterlace_option = click.option(
    "--deinterlace", is_flag=True, help="Turn the fields of interlaced video into whole frames (bwdif)."
)
progress_option = click.option(
    "--progress",
    "progress",
    type=click.Choice(["auto", "json", "none"]),
    default="auto",
    show_default=True,
    help="Progress on stderr: auto is a bar on a terminal, else a line every 30 s; json is one object per line.",
)
weights_option = click.option(
    "--weights", type=FileName(".safetensors"), help="Weights file to use instead of the released one."
)
network_options = shared(weights_option, compute_options("device", "dtype", "restorer", "threads"))


def use_threads(threads: int | None) -> None:
    """Let torch and NumPy take so many threads; None leaves that to them."""
    if threads:
        import torch
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(threads)
        threadpool_limits(threads, user_api="blas")
