"""labels.dtype=auto: the rules of the choice, with times that are made up; speeds are asserted nowhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labelgen import probe as probe_module
from labelgen.maskclip import DenseCLIP
from labelgen.probe import FEW_TOKENS, Choice, choose, probe, times_as_fast

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("times", "agreement", "chosen"),
    [
        ({BF16: 1.2}, {BF16: 0.99}, BF16),
        ({BF16: 1.19}, {}, F32),  # too slow: nobody asks whether it agrees
        ({BF16: 5.0}, {BF16: 0.989}, F32),
        ({BF16: 1.5, F16: 3.0}, {F16: 1.0}, F16),  # the fastest is asked first
        ({BF16: 1.5, F16: 3.0}, {F16: 0.9, BF16: 1.0}, BF16),
        ({}, {}, F32),
    ],
)
def test_the_fastest_type_that_agrees_is_chosen(
    times: dict[torch.dtype, float], agreement: dict[torch.dtype, float], chosen: torch.dtype
) -> None:
    choice = choose(times, agreement.__getitem__)
    assert choice.dtype == chosen
    assert choice.agreement == agreement


def test_a_choice_says_what_was_found() -> None:
    assert str(Choice(BF16, {BF16: 1.871}, {BF16: 0.9981})) == (
        "labels.dtype=bfloat16: bfloat16 is 1.87 times as fast as float32, 99.8% of an image's patches keep their class"
    )
    assert str(Choice(F32, {BF16: 0.6}, {})) == ("labels.dtype=float32: bfloat16 is 0.60 times as fast as float32")


@pytest.fixture
def dense(clip_folder: Path) -> DenseCLIP:
    return DenseCLIP.from_pretrained(clip_folder)


def test_the_best_times_of_each_type_are_compared_and_a_hopeless_one_sees_few_tokens(
    dense: DenseCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {F32: [9.0, 4.0, 5.0], BF16: [8.0, 2.0, 3.0], F16: [9.0]}
    seen: list[tuple[torch.dtype, int]] = []

    def seconds(block: nn.Module, x_BND: Tensor) -> float:
        assert next(block.parameters()).dtype == x_BND.dtype
        seen.append((x_BND.dtype, x_BND.shape[1]))
        return taken[x_BND.dtype][len(seen) % len(taken[x_BND.dtype])]

    monkeypatch.setattr(probe_module, "seconds", seconds)
    monkeypatch.setattr(probe_module, "candidates", lambda device: [BF16, F16])
    times = times_as_fast(dense)
    assert times == {BF16: 2.0, F16: pytest.approx(4 / 9)}
    assert {tokens for dtype, tokens in seen if dtype == F16} == {FEW_TOKENS}
    assert len({tokens for dtype, tokens in seen if dtype == BF16}) == 2
    assert dense.dtype == F32


def test_agreement_is_that_of_the_patches_of_one_image_among_the_classes_it_shows(
    dense: DenseCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "times_as_fast", lambda dense: {BF16: 2.0})
    image_HW3 = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    text_CD = nn.functional.normalize(torch.randn(11, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    pixels = dense.normalise(torch.from_numpy(image_HW3)[None])
    half = probe_module.in_type(dense, BF16)
    for present, among in ((None, list(range(11))), ([], list(range(11))), ([2, 7], [2, 7])):
        exact, other = (clip.logits(pixels, text_CD)[0, among].argmax(0) for clip in (dense, half))
        choice = probe(dense, image_HW3, text_CD, present)
        assert choice.agreement[BF16] == float((exact == other).double().mean())
    assert probe(dense, image_HW3, text_CD, [3]).dtype == BF16  # of one class, all keep it
    assert (dense.dtype, half.dtype) == (F32, BF16)


def test_a_real_probe_takes_about_half_a_second_and_finds_a_number(dense: DenseCLIP) -> None:
    assert all(times > 0 for times in times_as_fast(dense).values())
