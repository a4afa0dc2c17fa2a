"""Where the network runs, and in which arithmetic."""

import pytest
import torch

from tokcodec.restorer.device import pick_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bfloat16_is_taken_where_the_cpu_has_it(
    feature: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, feature: True})
    assert [pick_dtype(name, CPU) for name in ("auto", "bfloat16")] == [torch.bfloat16] * 2
    assert pick_dtype("float32", CPU) == torch.float32
    assert caplog.records == []


def test_emulated_bfloat16_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert pick_dtype("auto", CPU) == torch.float32
    assert caplog.records == []
    assert pick_dtype("bfloat16", CPU) == torch.bfloat16
    assert [record.getMessage() for record in caplog.records] == [
        "this device has no bfloat16 arithmetic and emulates it, many times slower than float32"
    ]
