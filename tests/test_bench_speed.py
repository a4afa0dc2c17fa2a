"""benchmarks/speed.py: what it measures adds up, and stands in the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MakeClip, moving_frames

from benchmarks.speed import entropy_shares, in_memory
from benchmarks.texts import speed_rows


def test_a_chunk_in_memory_is_timed_by_parts(
    make_clip: MakeClip, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKCODEC_WEIGHTS", str(weights))
    parts = in_memory(make_clip("a.mp4", moving_frames(10)), 16.0, 1, "float32", "cpu")
    assert set(parts) == {"encode_loop", "encode_entropy", "decode_entropy", "decode_loop_and_network"}
    assert min(parts.values()) > 0
    shares = entropy_shares(parts | {"encode_loop": 9 * parts["encode_entropy"]})
    assert shares["encode"] == 0.1
    assert 0 < shares["decode"] < 1


def test_the_table_names_clip_setting_and_machine() -> None:
    run = {"name": "x265 medium, crf 37", "bytes": 4321}
    run |= {f"{way}_{what}": 12.34 for way in ("encode", "decode") for what in ("fps", "peak_rss_mib")}
    result = {
        "clip": {"name": "flower", "width": 640, "height": 360},
        "frames": 250,
        "threads": 2,
        "machine": {"cpu": "a processor"},
        "runs": [run],
        "entropy_share": {"encode": 0.05, "decode": 0.021},
    }
    rows = speed_rows(result)
    assert "| x265 medium, crf 37 | 12.3 | 12.3 | 12.34 / 12.34 MiB | 4321 |" in rows
    assert "flower, 250 frames of 640x360" in rows
    assert "on 2 cores of a processor" in rows
    assert "is 5% of encoding and 2% of decoding" in rows
