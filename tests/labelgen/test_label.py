"""Asking CLIP about images: what makes a batch, and who waits for whom. A GPU is played by the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelgen.label import Labeller, Prepared, fitting_batch, label
from labelgen.maskclip import DenseCLIP
from labelgen.views import View

VIT_B16 = {"width": 768, "mlp_width": 3072, "patch_px": 16}
GIB = 2**30


@pytest.mark.parametrize(
    ("free", "tokens", "value_bytes", "views"),
    [
        (80 * GIB, 513, 2, 64),  # 512 x 256: 20 MB a view
        (2 * GIB, 513, 2, 52),
        (2 * GIB, 513, 4, 29),
        (4 * GIB, 8193, 2, 6),  # 1024 x 2048: 327 MB a view
        (0, 513, 2, 1),
    ],
)
def test_a_batch_fits_into_half_of_the_free_memory(free: int, tokens: int, value_bytes: int, views: int) -> None:
    assert fitting_batch(free, tokens, value_bytes=value_bytes, **VIT_B16) == views


def test_comparing_all_patches_takes_memory_of_its_own() -> None:
    sizes = [fitting_batch(8 * GIB, 2701, value_bytes=2, compares_patches=c, **VIT_B16) for c in (False, True)]
    assert sizes == [39, 21]


@pytest.fixture
def dense(clip_folder: Path) -> DenseCLIP:
    return DenseCLIP.from_pretrained(clip_folder)


@pytest.fixture(name="text_TD")
def unit_vectors(dense: DenseCLIP) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(3, dense.model.config.projection_dim), dim=1)


@pytest.fixture
def images() -> list[Prepared]:
    """Of each, a whole of 32 x 48 and three views of 32 x 32."""
    rng = np.random.default_rng(0)
    views = [View((0, 0, 32, width), 1.0) for width in (48, 32, 32, 32)]
    return [
        Prepared(str(i), (32, 48), views, [rng.integers(0, 255, (*view.box[2:], 3), np.uint8) for view in views])
        for i in range(3)
    ]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that CLIP has seen."""
    sizes: list[int] = []
    whole = DenseCLIP.logits

    def logits(self: DenseCLIP, pixels_B3HW: torch.Tensor, text_CD: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels_B3HW))
        return whole(self, pixels_B3HW, text_CD)

    monkeypatch.setattr(DenseCLIP, "logits", logits)
    return sizes


class Event:
    """Of a GPU that has always done what it was asked."""

    waited_for = 0

    def __init__(self, blocking: bool) -> None:
        assert blocking

    def record(self, stream: object) -> None:
        assert stream == "stream"

    def synchronize(self) -> None:
        Event.waited_for += 1


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each tensor was to lie in pinned memory, which only a GPU has."""
    asked: list[bool] = []
    for name in ("empty", "empty_like"):
        whole = getattr(torch, name)

        def unpinned(*args: Any, whole: Any = whole, pin_memory: bool, **others: Any) -> torch.Tensor:
            asked.append(pin_memory)
            tensor: torch.Tensor = whole(*args, **others)
            return tensor

        monkeypatch.setattr(torch, name, unpinned)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    monkeypatch.setattr(Event, "waited_for", 0)
    return asked


def test_a_cpu_works_when_it_is_read_and_tells_what_is_done(
    dense: DenseCLIP, text_TD: torch.Tensor, images: list[Prepared], batches: list[int]
) -> None:
    asked = Labeller(dense).ask(images, text_TD)
    assert batches == []
    heard: list[tuple[float, int]] = []
    logits = asked.logits(lambda share: heard.append((share, len(batches))))
    assert batches == [3, 8, 1]
    pixels = 3 * (48 + 3 * 32)
    assert heard == [(3 * 48 / pixels, 1), ((3 * 48 + 8 * 32) / pixels, 2), (1.0, 3)]
    assert [[maps.shape for maps in views] for views in logits] == [[(3, 4, 6), *[(3, 4, 4)] * 3]] * 3
    alone = label(images[1:2], dense, text_TD, batch=1)
    for together, one in zip(logits[1], alone[0], strict=True):
        np.testing.assert_allclose(together, one, atol=1e-5)


def test_a_gpu_has_all_of_the_work_before_the_first_result_is_waited_for(
    dense: DenseCLIP, text_TD: torch.Tensor, images: list[Prepared], batches: list[int], pinned: list[bool]
) -> None:
    labeller = Labeller(dense, batch=8)
    in_turns = labeller.ask(images, text_TD).logits()
    assert pinned == [False] * 3
    pinned.clear(), batches.clear()
    labeller.on_gpu = True
    asked = labeller.ask(images, text_TD)
    assert (batches, Event.waited_for) == ([3, 8, 1], 0)
    logits = asked.logits()
    assert (batches, Event.waited_for) == ([3, 8, 1], 3)
    assert pinned == [True] * 6  # pixels and logits of each batch
    for views, same in zip(logits, in_turns, strict=True):
        for maps, other in zip(views, same, strict=True):
            np.testing.assert_array_equal(maps, other)


def test_a_gpu_s_batch_comes_from_its_memory(dense: DenseCLIP, text_TD: torch.Tensor) -> None:
    labeller = Labeller(dense)
    assert labeller.views_at_once(512, 256) == 8
    labeller.on_gpu, labeller.free_bytes = True, 80 * GIB
    assert labeller.views_at_once(512, 256) == 64
    labeller.free_bytes = 0
    assert labeller.views_at_once(512, 256) == 1
    assert Labeller(dense, batch=5).views_at_once(512, 256) == 5
