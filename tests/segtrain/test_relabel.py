"""Predictions as pseudo-labels, refined in superpixels: what a store then says, and where it is silent."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from labelgen.clr import IterateConfig, Refinement, SlicRefiner, class_shares, refine, silence
from labelgen.images import read_image
from labelgen.store import PseudoLabelStore
from labelgen.verify import verify
from pipeline.datasets import DATASETS
from segtrain.predict import predict
from segtrain.relabel import relabel

CLASSES = DATASETS["toy"].classes
REFINER = SlicRefiner(IterateConfig(superpixels=200), len(CLASSES))


class ByColour(nn.Module):
    """Calls a pixel one of eleven classes by its colour alone: superpixels of texture hold several."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(11, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, pixel_values: Tensor) -> SemanticSegmenterOutput:
        return SemanticSegmenterOutput(logits=torch.einsum("kc,bchw->bkhw", self.weight, pixel_values[..., 2::4, 2::4]))


def test_masks_are_refined_shares_of_the_predicted_classes_and_silent_below_the_threshold(
    toy_root: Path, toy_stores: Path, tmp_path: Path
) -> None:
    samples, source = DATASETS["toy"].list_samples(toy_root, "train"), PseudoLabelStore.open(toy_stores / "train.zarr")
    student = ByColour()
    store = relabel(student, samples, source, tmp_path / "a.zarr", refinement=Refinement(REFINER, 0.7))  # type: ignore[arg-type]
    assert verify(store) == []
    silent = list[bool]()
    for sample in samples[:3]:
        image_HW3, is_present_C = read_image(sample["image_path"]), source.labels_of(sample["image_id"])
        classes_HW = predict(student, image_HW3, is_present_C=is_present_C)  # type: ignore[arg-type]
        superpixels_HW, context_SS, is_allowed_SC = REFINER.regions(sample["image_path"], image_HW3)
        scores_SC = refine(class_shares(classes_HW, superpixels_HW, len(CLASSES)), context_SS)
        is_silent_S = np.isnan(silence(scores_SC, is_allowed_SC, 0.7)[:, 0])
        labels_HW = np.where(is_silent_S, 255, scores_SC.argmax(1))[superpixels_HW]
        for view in store.mask_views:
            mask_HW = store.mask(sample["image_id"], view)
            assert (mask_HW == labels_HW).mean() > 0.9  # borders between superpixels lie on cells of two pixels
            assert set(np.unique(mask_HW)) <= {255, *np.flatnonzero(is_present_C)}
        silent += is_silent_S.tolist()
    assert 0 < np.mean(silent) < 1
