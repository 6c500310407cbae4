"""MaskCLIP's refinements, worked out by hand on a view of three patches and two classes."""

from pathlib import Path

import torch

from labelgen.maskclip import DenseCLIP
from labelgen.refine import DROPPED, drop_classes, smooth_by_keys, unlikely_classes

# Confidences at temperature 10: patch 0 and 1 are sure (0.982 and 0.731), patch 2 is torn (0.5).
LOGITS = torch.tensor([[0.5, 0.1, 0.3], [0.1, 0.2, 0.3]]).view(1, 2, 1, 3)


def test_a_class_that_is_nowhere_likely_is_dropped_in_the_whole_view() -> None:
    is_dropped = unlikely_classes(LOGITS, 10, threshold=0.9)
    assert is_dropped.tolist() == [[False, True]]
    dropped = drop_classes(LOGITS, is_dropped)
    assert dropped[0, 0].tolist() == LOGITS[0, 0].tolist()
    assert set(dropped[0, 1].flatten().tolist()) == {DROPPED}


def test_only_unsure_patches_are_smoothed_and_by_similar_keys() -> None:
    keys = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [2.0, 2.0]]])  # patch 2: cosine 0.707 with 0, -0.707 with 1
    smoothed = smooth_by_keys(LOGITS, keys, 10, threshold=0.6)
    torch.testing.assert_close(smoothed[..., :2], LOGITS[..., :2])
    share = 0.5**0.5 / (1 + 0.5**0.5)
    expected = share * LOGITS[..., 0] + (1 - share) * LOGITS[..., 2]
    torch.testing.assert_close(smoothed[..., 2], expected)


def test_refinements_act_in_the_model_and_zero_is_off(clip_folder: Path) -> None:
    pixels = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    plain = DenseCLIP.from_pretrained(clip_folder)
    text = plain.encode_text([["a car"], ["a road"], ["the sky"]])
    smooth = DenseCLIP.from_pretrained(clip_folder, key_smoothing=1.0).logits(pixels, text)
    assert smooth.std() < plain.logits(pixels, text).std()  # every patch takes a mean
    denoised = DenseCLIP.from_pretrained(clip_folder, prompt_denoising=1.0).logits(pixels, text)
    assert set(denoised.flatten().tolist()) == {DROPPED}
