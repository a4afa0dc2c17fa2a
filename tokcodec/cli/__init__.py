"""The command line, thin: arguments in, one call, one line out (or JSON with --json).

Results go to stdout; progress, warnings and errors to stderr. Exit code 0 is success, 1 an error, 2 wrong
usage, 130 an interrupt. What needs torch is imported inside the command that uses it.
"""

from tokcodec.cli.entry import cli, main

__all__ = ["cli", "main"]
