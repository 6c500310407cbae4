import pytest
import torch

from labelgen.training.processes import make_accelerator


def test_auto_takes_bf16_only_where_the_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_accelerator().mixed_precision == "no"
    monkeypatch.setattr("labelgen.training.processes.Accelerator", lambda cpu, mixed_precision: mixed_precision)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has_it, precision in ((True, "bf16"), (False, "no")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, it=has_it: it)
        assert make_accelerator() == precision
        assert make_accelerator("fp16") == "fp16"
