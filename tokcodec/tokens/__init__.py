"""Tokens for others: as arrays, shards, a data set, and as the integers that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokcodec.tokens.clips import decode, encode

__all__ = ["decode", "encode"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # numba takes a while to import, and most commands do without
        from tokcodec.tokens import clips

        return getattr(clips, name)
    raise AttributeError(f"module 'tokcodec.tokens' has no attribute {name!r}")
