"""The batch on a real Ray cluster of two nodes, one of which is killed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeClip, moving_frames
from tokcodec.batch.cluster import RayTasks
from tokcodec.batch.driver import Driver
from tokcodec.batch.selection import select
from tokcodec.batch.storage import Tree
from tokcodec.batch.summary import Note
from tokcodec.batch.units import Settings
from tokcodec.batch.workers import ThisProcess
from tokcodec.compute import Compute
from tokcodec.weights import Weights

PATIENCE_S = 600  # for what should take seconds, on a machine that may be busy

ray_cluster = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: pip install ray")

pytestmark = [
    # Ray leaves sockets and processes for the collector, and announces changes of its own.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, so that it lives through the test, and two nodes of one CPU each."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    store = 80 * 2**20
    cluster = ray_cluster.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": store, "include_dashboard": False},
    )
    try:
        yield [cluster, *(cluster.add_node(num_cpus=1, object_store_memory=store) for _ in range(2))]
    finally:
        cluster.shutdown()


def test_a_batch_survives_the_loss_of_a_node(cluster: Any, make_clip: MakeClip, tmp_path: Path, weights: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for i in range(12):
        make_clip(f"{i:02}.mp4", moving_frames(70 + i, 144, 176)).rename(source / f"{i:02}.mp4")
    settings = Settings(
        weights=weights, weights_sha256=Weights.load(weights).sha256, compute=Compute("cpu", "float32"), piece_chunks=1
    )
    src, notes = Tree(str(source)), list[Note]()
    chosen = select(src.items().values(), {".mp4"})

    network, first, _ = cluster
    crew = RayTasks(network.address, 1, "cpu")
    try:
        assert crew.limit == 4

        done_before: list[int] = []

        def unplug() -> None:
            while not done_before or done_before[-1] < 2:
                time.sleep(0.05)
                done_before.append(len(list((tmp_path / "ray").glob("*.tokc"))))
            network.remove_node(first, allow_graceful=False)

        killer = threading.Thread(target=unplug, daemon=True)
        killer.start()
        driver = Driver(
            src, Tree(str(tmp_path / "ray")), settings, retries=0, settled=lambda note, _: notes.append(note)
        )
        summary = driver.run(chosen, crew)
        killer.join(PATIENCE_S)
        assert done_before[-1] < 12
        patience = time.monotonic() + PATIENCE_S  # the cluster learns of a lost node a little later
        while crew.limit != 2 and time.monotonic() < patience:
            time.sleep(0.1)
        assert crew.limit == 2  # the node is gone
    finally:
        crew.close()
    assert (summary.done, summary.failed) == (12, {})
    assert not any(note.worker is None or note.worker.endswith(f":{os.getpid()}") for note in notes)

    Driver(src, Tree(str(tmp_path / "alone")), settings).run(chosen, ThisProcess())
    for item in chosen.chosen:
        name = Path(item.name).with_suffix(".tokc")
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
