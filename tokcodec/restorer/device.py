"""Where the network runs, and in which arithmetic."""

from __future__ import annotations

import logging

import torch

from tokcodec.compute import DEVICES, DTYPES, check_known
from tokcodec.errors import ModelError

log = logging.getLogger("tokcodec")


def pick_device(name: str = "auto") -> torch.device:
    """The device a user means: `auto` is CUDA where there is one, else the CPU.

    Raises:
        ModelError: CUDA is asked for and absent.
        ValueError: the name is unknown.
    """
    check_known("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device is available; choose the CPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic a user means: `auto` is bfloat16 where the device has it in hardware, else float32.

    Raises:
        ValueError: the name is unknown.
    """
    check_known("dtype", name, DTYPES)
    if name == "float32":
        return torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        fast = bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
    if name == "bfloat16" and not fast:
        log.warning("this device has no bfloat16 arithmetic and emulates it, many times slower than float32")
    return torch.bfloat16 if fast or name == "bfloat16" else torch.float32
