"""Several processes on one run: they learn what one process would have learned, and none waits for the dead."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from test_training import trainer

from tokcodec.errors import TokcodecError
from tokcodec.training import processes

STEPS = 2
SETTINGS = {"batch": 4, "frames": (9,), "image_share": 0.0, "warmup_steps": 1}


def two_steps() -> dict[str, Any]:
    """The log terms of two steps, the gradients of the first and the weights after both."""
    begun = trainer(**SETTINGS)
    terms, gradients = [], {}
    for step in range(STEPS):
        windows, frames, first = begun.batch_shape(step)
        terms.append(begun.train_step(begun.sampler.batch(step, begun.places(windows), frames, first)))
        if not step:
            gradients = {name: p.grad.clone() for name, p in begun.model.named_parameters() if p.grad is not None}
    return {"terms": terms, "gradients": gradients, "weights": begun.model.state_dict(), "pixels": begun.pixels}


def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Root of the summed squared differences between weights."""
    return sum((a[name] - b[name]).square().sum().item() for name in a) ** 0.5


def work(rank: int, port: int, out: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    result: dict[str, Any] = {}
    try:
        with processes.joined(torch.device("cpu")):
            assert (processes.count(), processes.rank()) == (2, rank)
            result |= two_steps()
            mark = out / "mark"

            def make() -> tuple[int, bool]:
                found = mark.exists()
                mark.touch()
                return rank, found

            result["turns"] = processes.in_turn(make)
            result["agreed"] = processes.agree(0.25 + rank, stopped=rank == 1)
            if rank == 1:
                raise ZeroDivisionError("this process fails")
            processes.mean(torch.zeros(1))
    except (TokcodecError, ZeroDivisionError) as error:
        result["error"] = f"{type(error).__name__}: {error}"
    torch.save(result, out / f"{rank}.pt")


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone, start = two_steps(), trainer(**SETTINGS).model.state_dict()
    shapes = [trainer(**SETTINGS).batch_shape(step) for step in range(STEPS)]
    pixels = sum(windows * frames * 32 * 32 for windows, frames, _ in shapes)
    assert first["pixels"] == alone["pixels"] == pixels
    weights, expected = first["weights"], alone["weights"]
    assert distance(weights, second["weights"]) == 0
    assert distance(weights, expected) < 0.05 * distance(start, expected), "sums are rounded in another order"
    assert first["gradients"].keys() == alone["gradients"].keys()
    for name, value in alone["gradients"].items():
        assert torch.allclose(first["gradients"][name], value, rtol=1e-3, atol=1e-6), name
    for together, one in zip(first["terms"], alone["terms"], strict=True):
        assert together.keys() == one.keys()
        for name in set(one) - {"gain_db"}:  # a logarithm of a mean
            assert abs(together[name] - one[name]) < 1e-4 * max(1, abs(one[name])), name
    torch.set_num_threads(threads)
    for result in (first, second):
        assert result["agreed"] == (0.25, True)
    assert (first["turns"], second["turns"]) == ((0, False), (1, True))
    assert second["error"] == "ZeroDivisionError: this process fails"
    assert first["error"] == "TokcodecError: another process of this run has ended"


def test_one_process_needs_no_group() -> None:
    x = torch.tensor([1.0, 2.0])
    assert processes.mean(x) is x
    assert (processes.count(), processes.rank()) == (1, 0)
    assert processes.agree(0.5, stopped=False) == (0.5, False)
