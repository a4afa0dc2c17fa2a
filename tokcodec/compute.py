"""What computes a run's pictures: named once, where a run begins, and handed on as one thing."""

from __future__ import annotations

import dataclasses

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16")
RESTORERS = ("auto", "full", "fast", "off")


def check_known(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a choice that there is not.

    Raises:
        ValueError: the value is unknown; the message says which there are.
    """
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}: {', '.join(known[:-1])} or {known[-1]}")


@dataclasses.dataclass(frozen=True)
class Compute:
    """Device, arithmetic, restorer and threads, checked when it is made.

    Attributes:
        device: of networks: "auto" (CUDA where there is one), "cpu" or "cuda".
        dtype: of their arithmetic: "auto" (bfloat16 where the device has it in hardware), "float32" or "bfloat16".
        restorer: the network behind the decoding loop: "full", "fast" (a fifth of its work), "off" (the loop's own
            pictures) or "auto": the best that the weights hold.
        threads: of the CPU, for all parts of a run; None for all cores that this process may use.

    Raises:
        ValueError: one is unknown or out of range; the message says which.
    """

    device: str = "auto"
    dtype: str = "auto"
    restorer: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_known("device", self.device, DEVICES)
        check_known("dtype", self.dtype, DTYPES)
        check_known("restorer", self.restorer, RESTORERS)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads are at least 1, not {self.threads}")


AUTO = Compute()
