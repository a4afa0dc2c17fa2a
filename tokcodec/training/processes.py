"""Several processes on one run, started by torchrun: the only file that knows torch.distributed.

Without torchrun there is one process, and what is averaged or agreed on is its own.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tokcodec.errors import TokcodecError

T = TypeVar("T")
PATIENCE = datetime.timedelta(hours=6)  # the first process decodes data and evaluates while the others wait


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the processes torchrun started, for the time of a block; nothing where it started none.

    Raises:
        TokcodecError: another process of the run has ended.
    """
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise TokcodecError("another process of this run has ended") from error
    finally:
        dist.destroy_process_group()


def count() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 is the one that writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def mean(x: Tensor) -> Tensor:
    """The average of a tensor over the processes; every process must ask for it."""
    if count() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / count()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its average over the processes, in one exchange."""
    owners = [p for p in parameters if p.grad is not None]
    if count() == 1 or not owners:
        return
    flat = torch.cat([p.grad.flatten() for p in owners if p.grad is not None])
    dist.all_reduce(flat)
    flat /= count()
    for p, part in zip(owners, torch.split(flat, [p.numel() for p in owners]), strict=True):
        p.grad = part.view(p.shape)


def in_turn(make: Callable[[], T]) -> T:
    """Make something on every process, on the first before the others: what it leaves on disk they find there."""
    if count() == 1:
        return make()
    if rank() == 0:
        made = make()
        dist.broadcast_object_list([None])
    else:
        dist.broadcast_object_list([None])
        made = make()
    return made


def agree(position: float, stopped: bool) -> tuple[float, bool]:
    """The first process's position (clocks differ), and whether any process is to stop."""
    if count() == 1:
        return position, stopped
    votes = torch.tensor([position if rank() == 0 else 0.0, float(stopped)], dtype=torch.float64)
    dist.all_reduce(votes)
    return votes[0].item(), bool(votes[1])
