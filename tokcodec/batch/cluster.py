"""Workers of a cluster: the same units as Ray tasks. Ray knows nothing of files, only of units and outcomes."""

from __future__ import annotations

import importlib
from concurrent.futures import Future
from typing import Any

from tokcodec.batch.units import Outcome, Settings, Unit, work
from tokcodec.batch.workers import OnUnitFrames
from tokcodec.errors import TokcodecError


class RayTasks:
    """Tasks on a Ray cluster. Its machines have tokcodec and the weights, and reach source and target.

    A task that is lost with its machine is not run again by Ray: its future raises, and the driver sees to it.

    Args:
        address: of the cluster; "" finds the one of this machine, or starts one.
        threads: CPU cores of a task.
        device: "cpu" asks for no GPU; "auto" for one if the cluster has any, "cuda" for one.

    Raises:
        TokcodecError: Ray is not installed, or there is no cluster there.
    """

    def __init__(self, address: str, threads: int, device: str) -> None:
        try:
            ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise TokcodecError("Ray is not installed: pip install ray") from error
        try:
            ray.init(address=address or None, logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise TokcodecError(f"Ray: {error}") from error
        self._ray = ray
        self.on_frames: OnUnitFrames = lambda unit, frames: None  # no task tells: frames count when it is done
        has_gpus = bool(ray.cluster_resources().get("GPU"))
        self._needs = {"CPU": threads, "GPU": int(device == "cuda" or (device == "auto" and has_gpus))}
        # max_calls: a worker keeps its network; with a GPU it would end after each task.
        options = {"num_cpus": threads, "num_gpus": self._needs["GPU"], "max_retries": 0, "max_calls": 0}
        self._work = ray.remote(**options)(work)

    @property
    def limit(self) -> int:
        """Units that are worth having under way: two for each place the cluster has now."""
        has = self._ray.cluster_resources()
        return 2 * max(1, min(int(has.get(kind, 0) // need) for kind, need in self._needs.items() if need))

    def submit(self, unit: Unit, settings: Settings) -> Future[Outcome]:
        """Queue a unit; the result is its outcome, or one of Ray's exceptions."""
        future: Future[Outcome] = self._work.remote(unit, settings.limited(self._needs["CPU"])).future()
        return future

    def close(self) -> None:
        """Leave the cluster; what is not finished is stopped."""
        self._ray.shutdown()
