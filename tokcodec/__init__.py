"""tokcodec: a neural video codec. Video to a compact stream of visual tokens, and back.

    import tokcodec

    tokcodec.encode_video("in.mp4", "in.tokc")
    tokcodec.decode_video("in.tokc", "out.mp4")
    with tokcodec.open_stream("in.tokc") as stream:
        for bits in stream.bits(0.0, 2.0):  # bool [K, t, h, w], one array a chunk
            ...

torch is imported on the first use of what needs it, not by `import tokcodec`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tokcodec.errors import BitstreamError, ModelError, TokcodecError, TruncatedError, VideoError

if TYPE_CHECKING:
    from tokcodec.codec import Stream, decode_video, encode_video, open_stream
    from tokcodec.edit import Rate, Report, concat, export_tokens, import_tokens, thin, trim, verify

__version__ = "0.1.0"
__all__ = [
    "BitstreamError",
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
    "export_tokens",
    "import_tokens",
    "open_stream",
    "thin",
    "trim",
    "verify",
]

_HOMES = {
    "codec": ("Stream", "decode_video", "encode_video", "open_stream"),
    "edit": ("Rate", "Report", "concat", "export_tokens", "import_tokens", "thin", "trim", "verify"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"tokcodec.{home}"), name)
    raise AttributeError(f"module 'tokcodec' has no attribute {name!r}")
