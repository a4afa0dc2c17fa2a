"""tokcodec: a neural video codec. Video to a compact stream of visual tokens, and back.

    import tokcodec

    tokcodec.encode_video("in.mp4", "in.tokc")
    tokcodec.decode_video("in.tokc", "out.mp4")
    with tokcodec.open_stream("in.tokc") as stream:
        for tokens in stream.tokens(0.0, 2.0):  # of a chunk: levels int16 [D, F, h, w], motion, spans and numbers
            ...

torch is imported on the first use of what needs it, not by `import tokcodec`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokcodec.errors import BitstreamError, ExistsError, ModelError, TokcodecError, TruncatedError, VideoError

if TYPE_CHECKING:
    from tokcodec.codec import decode_video, encode_video
    from tokcodec.compute import Compute
    from tokcodec.edit import concat, trim, verify
    from tokcodec.rate import Rate
    from tokcodec.report import Report
    from tokcodec.stream_reader import Stream, open_stream
    from tokcodec.tokens.arrays import export_tokens, import_tokens
    from tokcodec.tokens.shards import export_shards

__version__ = "0.1.0"
__all__ = [
    "BitstreamError",
    "Compute",
    "ExistsError",
    "ModelError",
    "Rate",
    "Report",
    "Stream",
    "TokcodecError",
    "TruncatedError",
    "VideoError",
    "__version__",
    "concat",
    "decode_video",
    "encode_video",
    "export_shards",
    "export_tokens",
    "import_tokens",
    "open_stream",
    "trim",
    "verify",
]

_HOMES = {
    "tokens.arrays": ("export_tokens", "import_tokens"),
    "codec": ("decode_video", "encode_video"),
    "compute": ("Compute",),
    "edit": ("concat", "trim", "verify"),
    "stream_reader": ("Stream", "open_stream"),
    "rate": ("Rate",),
    "report": ("Report",),
    "tokens.shards": ("export_shards",),
}
_ROOMS = ("batch", "tokens")  # imported when they are named: a batch needs torch


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"tokcodec.{home}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"tokcodec.{name}")
    raise AttributeError(f"module 'tokcodec' has no attribute {name!r}")
