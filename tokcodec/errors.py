"""The errors of tokcodec: one base class and a child for each thing that can be at fault.

The command line turns any of them into one line on stderr and exit code 1. A caller's mistake in
Python (a wrong shape, a bad argument) is a plain ValueError instead.
"""


class TokcodecError(Exception):
    """Something outside the program is at fault: a file, a device, a set of weights."""


class ExistsError(TokcodecError):
    """A target exists, and the caller did not ask to overwrite it."""


class VideoError(TokcodecError):
    """A media file cannot be read or written."""


class ModelError(TokcodecError):
    """Weights or a checkpoint cannot be used, or do not belong to the stream."""


class BitstreamError(TokcodecError):
    """A .tokc stream breaks its format."""


class TruncatedError(BitstreamError):
    """A .tokc stream ends before it should."""
