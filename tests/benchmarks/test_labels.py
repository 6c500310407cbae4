"""The benchmark of pseudo-labels runs, in small; what it measures is asserted nowhere."""

import pytest
import torch

from benchmarks import labels


@pytest.fixture(autouse=True)
def _in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"WIDTH": 768, "BLOCKS": 1, "GLOBAL": (64, 96), "LOCAL": (32, 32), "PRODUCT": 64, "EMULATED": 0.0}
    for name, value in small.items():
        monkeypatch.setattr(labels, name, value)


def test_the_speed_of_clip_is_a_row_for_each_type_and_view(capsys: pytest.CaptureFixture[str]) -> None:
    labels.speed_of_clip("cpu", [torch.float32, torch.bfloat16], 1)
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == [
        ["| 64 x 96, batch 1", "float32"],
        ["| 32 x 32, batch 8", "float32"],
        ["| 64 x 96, batch 1", "bfloat16"],
        ["| 32 x 32, batch 8", "bfloat16"],
    ]


def test_a_labelling_run_is_one_line_and_clip_takes_a_part_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    labels.labelling_run("cpu", torch.float32, images=3, a_shard=2)
    said = capsys.readouterr().out
    assert said.startswith("\n3 images in float32, each 1 global and ")
    outside = float(said.partition("% of the time outside CLIP")[0].rpartition(" ")[2])
    assert 0 < outside < 100


def test_fewer_bits_are_compared_with_float32(capsys: pytest.CaptureFixture[str]) -> None:
    labels.agreement("cpu", 1)
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split(" | ")[0] for row in rows] == ["| bfloat16 in CLIP", "| int8 in the store"]
