"""Streams as they are, without the network: described and verified (inspect.py), cut and joined (splice.py).

Pixels are never touched, and torch is never imported.
"""

from __future__ import annotations

from tokcodec.edit.inspect import describe, verify
from tokcodec.edit.splice import concat, trim

__all__ = ["concat", "describe", "trim", "verify"]
