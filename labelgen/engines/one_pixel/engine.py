"""One pixel per class as a label engine (Li, Ma, Yi and Chen: one annotated pixel per category, driving scenes).

OUT/engine/one-pixel/network/     the classes' vectors
OUT/engine/one-pixel/features/    what is known of each image's superpixels

Shapes: C classes, S superpixels, h w cells of a map.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from labelgen.clr import Regions, refine
from labelgen.engines.engine import EngineSpec, Inputs, OnStep
from labelgen.engines.fit import NETWORK
from labelgen.engines.one_pixel.config import OnePixelConfig
from labelgen.engines.one_pixel.equations import cosine, similarity
from labelgen.engines.one_pixel.features import FeatureFolder, Features, compute_features
from labelgen.engines.one_pixel.fit import fit_vectors, load_vectors
from labelgen.engines.one_pixel.refinement import bands_of, choose
from labelgen.engines.one_pixel.representation import ClassVectors
from labelgen.engines.one_pixel.semantics import SemanticNetwork, fusion_slices, whole_image
from labelgen.label import Asked, Batch, Prepared
from labelgen.maskclip import DenseCLIP, digest_weights
from labelgen.samples import ClassSet, Sample
from labelgen.training.processes import make_accelerator

NAME = "one-pixel"
FEATURES = "features"  # folder
CELL_PX = 4  # side of what one score stands for: superpixels are larger
MEASURES = {"cosine": cosine, "intersection": similarity}
CHOSEN = 1.0  # is added to the score of a superpixel's label, which then is its best score


class OnePixelEngine:
    """Superpixels compared with the classes' vectors: whole images; no image-level labels, unless they are used."""

    patch_px = CELL_PX

    def __init__(
        self, vectors: ClassVectors, classes: ClassSet, config: OnePixelConfig, features: FeatureFolder
    ) -> None:
        """Raises InputError for settings that name unknown classes."""
        self.vectors, self.config, self.features, self.classes = vectors, config, features, len(classes)
        self.needs_labels = config.use_labels
        self.is_object_C = np.array(config.is_object(classes))
        self.is_allowed_BC = np.array(config.is_allowed(classes))
        self.weights = {"vectors": vectors.digest(), "features": features.key}
        self._pool = ThreadPoolExecutor(config.readers)

    def ask(self, images: Sequence[Prepared], text_TD: torch.Tensor) -> Asked:
        """Maps of all classes, or of those present; begun now, on threads. Words say nothing to it."""
        coming = self._pool.map(self._maps, images)
        return Asked(
            images,
            (
                Batch([(i, v)], torch.from_numpy(map_Chw)[None], None)
                for i, maps in enumerate(coming)
                for v, map_Chw in enumerate(maps)
            ),
        )

    def _maps(self, image: Prepared) -> list[NDArray[np.float32]]:
        """(C, h, w) for each view, all of which show the whole image: it is looked at as it lies on the disk."""
        features = self.features.of(image.image_path)
        present = range(self.classes) if image.image_labels is None else image.image_labels
        scores_SC = self.scores(features, np.isin(np.arange(self.classes), list(present)))
        return [_on_grid(scores_SC, features.map_HW, view.grid(CELL_PX)) for view in image.views]

    def scores(self, features: Features, is_present_C: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(S, C): in 0..1, and one more for a superpixel's label by Eq. 5; NaN where a class or a label is not."""
        scores_SC = self.vectors.scores(features, self.classes, MEASURES[self.config.measure])
        if self.config.context:
            scores_SC = refine(scores_SC, features.context() ** self.config.context_power)
        is_allowed_SC = self.is_allowed_BC[bands_of(features.map_HW, len(self.is_allowed_BC))] & is_present_C
        label_S = choose(scores_SC, is_allowed_SC, self.is_object_C, self.config.threshold, self.config.object_margin)
        has_label_S = label_S >= 0
        scores_SC[~is_allowed_SC | ~has_label_S[:, None]] = np.nan
        scores_SC[has_label_S, label_S[has_label_S]] += CHOSEN
        return scores_SC


def _on_grid(scores_SC: NDArray[np.float32], map_HW: NDArray[np.integer], grid: tuple[int, int]) -> NDArray[np.float32]:
    """(C, h, w): the scores of the superpixel in the middle of each cell."""
    rows, columns = (
        ((np.arange(cells) + 0.5) * side / cells).astype(int) for side, cells in zip(map_HW.shape, grid, strict=True)
    )
    return np.ascontiguousarray(scores_SC[map_HW[rows[:, None], columns]].transpose(2, 0, 1))


def feature_folder(config: OnePixelConfig, folder: Path, dense: DenseCLIP) -> FeatureFolder:
    """Where features are kept, and how they are computed: on the device of the run's CLIP, or by it.

    Raises InputError for a network that is not at hand.
    """
    decided_by: dict[str, Any] = {"superpixels": config.superpixels}
    network = None
    if config.needs_network:
        network = SemanticNetwork.begin(config.features, config.semantics, dense, config.dtype)
        decided_by |= {"semantics": config.semantics, "dtype": config.dtype, "scale": config.scale, "mosf": config.mosf}
        decided_by["network_sha256"] = digest_weights(network)

    def pooled(image_HW3: NDArray[np.uint8], map_HW: NDArray[np.int32]) -> NDArray[np.float32]:
        if network is None:
            return np.zeros((int(map_HW.max()) + 1, 0), np.float32)
        slices = (fusion_slices if config.mosf else whole_image)(*map_HW.shape)
        return network.pooled(image_HW3, map_HW, slices, config.scale)

    def compute(image_HW3: NDArray[np.uint8]) -> Features:
        return compute_features(image_HW3, config.superpixels, pooled)

    return FeatureFolder(folder, decided_by, compute)


class OnePixelRefiner:
    """The engine's superpixels, context and bands, for what a network says of their pixels: see `labelgen.clr`."""

    def __init__(self, config: OnePixelConfig, classes: ClassSet, features: FeatureFolder) -> None:
        self.config, self.features = config, features
        self.is_allowed_BC = np.array(config.is_allowed(classes))

    @property
    def about(self) -> dict[str, Any]:
        """What decides it."""
        config = self.config
        context = config.context_power if config.context else None
        return {NAME: {"features": self.features.key, "context_power": context, "allowed": self.is_allowed_BC.tolist()}}

    def regions(self, image_path: str, image_HW3: NDArray[np.uint8]) -> Regions:
        """Of an image file, kept as those of the labels."""
        features = self.features.of(image_path)
        context_SS = np.eye(features.number, dtype=np.float32)
        if self.config.context:
            context_SS = features.context() ** self.config.context_power
        is_allowed_SC = self.is_allowed_BC[bands_of(features.map_HW, len(self.is_allowed_BC))]
        return Regions(features.map_HW, context_SS, is_allowed_SC)


def _begin(inputs: Inputs) -> OnePixelEngine:
    config: OnePixelConfig = inputs.settings.one_pixel
    vectors, _ = load_vectors(inputs.folder / NAME / NETWORK)
    return OnePixelEngine(vectors, inputs.classes, config, _features(inputs))


def _refiner(inputs: Inputs) -> OnePixelRefiner:
    return OnePixelRefiner(inputs.settings.one_pixel, inputs.classes, _features(inputs))


def _fit(inputs: Inputs, samples: Sequence[Sample], on_step: OnStep) -> None:
    config, accelerator = inputs.settings.one_pixel, make_accelerator("no")
    config.is_allowed(inputs.classes)  # a typo should not wait for the fit
    folder = inputs.folder / NAME / NETWORK
    vectors = fit_vectors(samples, inputs.classes, folder, config, _features(inputs), accelerator.is_main_process)
    accelerator.wait_for_everyone()
    on_step(1, 1)
    without = [name for train_id, name in enumerate(inputs.classes.names) if train_id not in vectors.found]
    if without and accelerator.is_main_process:
        print(f"no labelled pixel of {', '.join(without)}: nothing will be labelled so", file=sys.stderr)


def _features(inputs: Inputs) -> FeatureFolder:
    return feature_folder(inputs.settings.one_pixel, inputs.folder / NAME / FEATURES, inputs.dense)


ENGINE = EngineSpec(
    about="superpixels that resemble those of one labelled pixel per class (Li, Ma, Yi and Chen)",
    needs="a file of labelled pixels, --points; an ImageNet classifier, one_pixel.features; no image-level labels",
    cost="superpixels and 15 passes of the classifier over a sixth of the image, once; what they see is kept",
    settings=OnePixelConfig,
    asks_clip=False,
    begin=_begin,
    fit=_fit,
    refiner=_refiner,
    uses_labels=lambda settings: bool(settings.one_pixel.use_labels),
    is_compared=lambda settings: bool(settings.one_pixel.points),
)
