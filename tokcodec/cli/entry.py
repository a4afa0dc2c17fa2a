"""The group of all commands, and the one place that turns errors into a line and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import click

import tokcodec
from tokcodec import signals
from tokcodec.cli import batch, compare, compiling, files, language, learning, play, streams
from tokcodec.cli.options import examples
from tokcodec.cli.terminal import Lines, Warnings, set_up_output, tell
from tokcodec.errors import ExistsError, TokcodecError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples("encode in.mp4", "decode in.tokc", "COMMAND --help"),
)
@click.version_option(tokcodec.__version__, prog_name="tokcodec")
def cli() -> None:
    """A neural video codec: video to a compact stream of visual tokens (.tokc), and back."""


for command in (
    files.encode,
    files.decode,
    files.roundtrip,
    play.play,
    streams.info,
    streams.verify,
    streams.trim,
    streams.concat,
    streams.tokens,
    compare.compare,
    batch.batch,
    compiling.compile_loop,
    learning.train,
    language.lm,
):
    cli.add_command(command)


def _run() -> int:
    """Run the command that the arguments name; its exit code."""
    try:
        return cli.main(prog_name="tokcodec", standalone_mode=False) or 0
    except click.Abort as abort:
        if isinstance(abort.__cause__, EOFError):  # which click takes for the end of what is typed; here it is a bug
            raise abort.__cause__ from None
        raise
    except Exception:
        signals.check()  # as where a system call that a signal ended is the error
        raise


def main() -> None:
    """Entry point: the one place that turns errors into a line and an exit code. A bug keeps its traceback."""
    while (spare := os.open(os.devnull, os.O_RDWR)) < 3:
        pass  # the number of a closed stdin, stdout or stderr would go to the next file, and FFmpeg print into that
    os.close(spare)
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    set_up_output()
    handler = Warnings()
    handler.setFormatter(Lines("tokcodec: warning: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it was ignored from the beginning
        signal.signal(signal.SIGINT, signals.stop)
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signals.stop)
    try:
        code = _run()
    except TokcodecError as error:
        hint = "; -f overwrites it" if isinstance(error, ExistsError) else ""
        tell(f"tokcodec: {error}{hint}", err=True)
        code = 1
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("tokcodec: interrupted", err=True)
        code = 130
    except (MemoryError, RuntimeError) as error:  # the latter after click.Abort, which is one
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":  # torch's, of a GPU
            raise
        click.echo("tokcodec: out of memory", err=True)
        code = 1
    except SystemExit as stop:  # by a signal
        code = int(stop.code or 0)
    except OSError as error:  # of stdout: every other file has a name in its own error
        if not isinstance(error, BrokenPipeError):  # then whoever read it had enough
            tell(f"tokcodec: {error.filename or 'stdout'}: {error.strerror or error}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
    if any(thread.name.startswith("tokcodec") for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(code)  # all files are in order, but a thread sits in a read that may never return
    sys.exit(code)
