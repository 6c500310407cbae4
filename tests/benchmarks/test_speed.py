"""The benchmarks of speed run, in small and on the CPU, so that they do where somebody has a GPU."""

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
)

from benchmarks import engines, growth, labels, scores, training
from benchmarks.scaleout import Cost, table
from benchmarks.training import Run, accelerator_on, cases, covered, device_seconds, gpu_waits, make_store
from labelgen.engines.network import CamNetwork, CamNetworkConfig
from pipeline.datasets.classes import CAMVID_CLASSES
from tests.conftest import ROOT, fresh_state

COSTS = {"labels": 50.0, "training": 60.0, "training, more": 60.0, "matrix products": None}


def rows(said: str) -> list[list[str]]:
    """Cells of the tables' lines, without titles."""
    lines = [line for line in said.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def run_bench(bench: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What it says."""
    monkeypatch.setattr(sys, "argv", [bench.__name__, *words])
    with fresh_state():
        bench.main()
    return capfd.readouterr().out


def small_vit() -> CLIPModel:
    """One block of the ViT that is measured, and hardly any text tower."""
    vision = {"patch_size": labels.PATCH, "hidden_size": labels.WIDTH, "num_hidden_layers": 1}
    text = {"num_hidden_layers": 1, "vocab_size": 100, "hidden_size": 64}
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=labels.EMBEDDING))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small CLIP, and images that it sees at once."""
    for module in (labels, training):
        monkeypatch.setattr(module, "vit_b16", small_vit)
        monkeypatch.setattr(module, "GLOBAL", (64, 96))
        monkeypatch.setattr(module, "LOCAL", (64, 32))


def test_labels(small: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    said = run_bench(labels, monkeypatch, capfd, "--quick")
    assert re.search(r"\d images/s, .*% of the time outside CLIP", said)
    assert [cells[0] for cells in rows(said)][-2:] == ["bfloat16 in CLIP", "int8 in the store"]


def test_engines(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    small_dino = Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
    small_cam = CamNetworkConfig(width=4, num_labels=len(CAMVID_CLASSES))
    small_resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    monkeypatch.setattr(engines, "vit_b16", small_vit)
    monkeypatch.setattr(engines, "dinov2_base", lambda: Dinov2Model(small_dino))
    monkeypatch.setattr(engines, "resnet50", lambda: CamNetwork(small_cam))
    monkeypatch.setattr(engines, "imagenet_classifier", lambda: ResNetForImageClassification(small_resnet))
    monkeypatch.setattr(engines, "SIZE", (64, 96))
    _, maskclip, *others = rows(run_bench(engines, monkeypatch, capfd, "--quick", "--device", "cpu"))
    assert (maskclip[0], maskclip[2]) == ("maskclip", "1.00")
    assert [cells[0] for cells in others] == ["clip-es", "proxyclip", "cam", "one-pixel"]
    for _, taken, times, _ in others:
        assert float(times) == pytest.approx(float(taken) / float(maskclip[1]), rel=0.05)


@pytest.mark.slow
def test_training(small: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    said = run_bench(training, monkeypatch, capfd, "--quick", "--device", "cpu")
    titles, *students = rows(said)[-4:]
    assert [cells[1] for cells in students] == ["local", "local", "dual"]
    shares = slice(titles.index("waiting for data"), titles.index("peak memory"))
    for cells in students:
        assert len(cells) == len(titles)
        assert sum(float(cell.rstrip("%")) for cell in cells[shares]) == pytest.approx(100, abs=1)
    # Only dual views ask CLIP; how long that takes is nobody's business here.
    assert students[1][titles.index("CLIP")] == "0.0%" != students[2][titles.index("CLIP")]


@pytest.mark.slow
def test_growth(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(growth, "SIZES", (48, 480))
    lines = rows(run_bench(growth, monkeypatch, capfd))
    assert {len(cells) for cells in lines} == {3}
    assert all(float(cell) >= 0 for cells in lines[1:] for cell in cells[1:])


def test_scores(capfd: pytest.CaptureFixture[str]) -> None:
    scores.main(["--images", "1"])
    assert [cells[0] for cells in rows(capfd.readouterr().out)][-2:] == [
        "confusion matrix",
        "boundary IoU, on top of it",
    ]


@pytest.mark.slow
@pytest.mark.xdist_group("two processes")
def test_scaleout_in_two_processes() -> None:
    line = [sys.executable, "-m", "benchmarks.scaleout", "--quick", "--device", "cpu"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    titles, *lines = rows(done.stdout)
    assert titles[1:4] == ["1 process", "2 processes", "times"]
    assert [cells[0].split(",")[0] for cells in lines] == ["labels", "training", "training", "matrix products"]
    for _, one, two, times, *_ in lines:
        assert float(times) == pytest.approx(float(two) / float(one), rel=0.02, abs=0.006)  # two digits are printed


def test_scaleout_of_one_gpu_is_a_table_of_one() -> None:
    titles, labelling, *_, products = rows(table({1: {title: Cost(2.0, cost) for title, cost in COSTS.items()}}))
    assert titles[1:] == ["1 process", "times", "aim of two", "CPU ms an image, 1 process"]
    assert (labelling[1:], products[1:]) == (["2", "1.00", "1.9", "50"], ["2", "1.00", "-", "-"])


@pytest.mark.parametrize("name", ["training", "scaleout", "engines"])
def test_a_gpu_that_is_asked_for_and_missing_is_told_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [name, "--device", "cuda"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{name}").main()
    assert re.fullmatch("Error: there is no CUDA GPU here; .*", str(ended.value.code))


def test_make_bench_measures_a_gpu_by_what_one_changes() -> None:
    def started(*words: str) -> list[str]:
        line = ["make", "--dry-run", "bench", *words]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
        return re.findall(r"-m benchmarks\.(.*)", done.stdout)

    gpu = ("labels", "engines", "training", "scaleout")
    assert started("DEVICE=cuda") == [f"{name} --device cuda" for name in gpu]
    cpu = (*gpu, "foundation", "scores", "growth", "explorer", "tests")
    assert [command.split()[0] for command in started()] == list(cpu)


def test_the_device_is_busy_for_less_than_all_of_the_time_and_what_was_trained_is_let_go(tmp_path: Path) -> None:
    case, _ = cases(1)
    samples = make_store(tmp_path / "a", case, 4)
    with fresh_state():
        accelerator = accelerator_on("cpu")
        run = Run(accelerator, samples, tmp_path / "a" / "s.zarr", case, "local", workers=0)
        run.warm_up()
        measured: list[float] = []
        steps = run.steps
        run.steps = lambda count: measured.append(steps(count)) or measured[-1]  # type: ignore[method-assign, func-returns-value]
        busy = device_seconds(run, 2)
        assert 0 < busy < measured[0]
        run.close()
        assert accelerator._models == []


def test_what_a_device_does_at_once_counts_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 6), (1, 3), (0, 2), (1, 2)]) == 4


def test_waits_are_counted_without_the_warning_of_the_counter_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def steps(count: int) -> None:
        assert modes == ["warn"]
        warnings.warn("Synchronization debug mode does not yet detect all synchronizing operations", stacklevel=1)
        for _ in range(count):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    run: Any = SimpleNamespace(steps=steps)
    assert gpu_waits(run, 3) == 3
    assert modes == ["warn", "default"]
