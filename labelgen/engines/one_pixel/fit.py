"""From labelled pixels to the vectors of each class, kept in a folder.

FOLDER/vectors.safetensors     the vectors, and whose they are
FOLDER/fitted.json             what they were made with
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from labelgen.engines.one_pixel.config import OnePixelConfig
from labelgen.engines.one_pixel.equations import similarity
from labelgen.engines.one_pixel.features import FeatureFolder, Features
from labelgen.engines.one_pixel.representation import ClassVectors, object_vector, scene_vectors
from labelgen.points import Point, locate, read_points
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.training.checkpoints import require_made_with, whole_folder

VECTORS, FITTED = "vectors.safetensors", "fitted.json"
COLOUR = slice(0, 96)  # of the imaging vectors
TEXTURE = slice(96, 128)
# Settings that decide vectors; the others are about what is made of them.
DECIDING = ("representation", "top_share", "groups", "neighbour_threshold", "objects")


def fit_vectors(
    samples: Sequence[Sample],
    classes: ClassSet,
    folder: Path,
    config: OnePixelConfig,
    features: FeatureFolder,
    is_main: bool = True,
) -> ClassVectors:
    """The vectors of the classes that have a point in `config.points`, which are of images among the samples.

    They are kept in `folder`: where that is, nothing is fitted; is_main: whether this process is the one that writes.
    Raises InputError for points or settings that are others than the folder's, and for points that there are not.
    """
    if not config.points:
        raise InputError(
            "one-pixel starts from one labelled pixel per class: give a CSV file, image,x,y,class, with --points"
        )
    points = read_points(config.points, classes)
    made_with = _describe(points, classes, config, features)
    if folder.is_dir():
        vectors, fitted = load_vectors(folder)
        require_made_with(folder, fitted, made_with)
        return vectors
    by_path = {sample["image_id"]: sample["image_path"] for sample in samples}
    located = locate(points, samples)
    vectors = represent([(features.of(by_path[name]), own) for name, own in located.items()], classes, config)
    if is_main:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as partial:
            partial.mkdir()
            save_file(vectors._asdict(), partial / VECTORS)
            (partial / FITTED).write_text(json.dumps(made_with, indent=1), encoding="utf-8")
    return vectors


def load_vectors(folder: Path) -> tuple[ClassVectors, dict[str, Any]]:
    """What `fit_vectors` left, and what it was made with. Raises InputError for a folder that cannot be read."""
    try:
        return ClassVectors(**load_file(folder / VECTORS)), json.loads((folder / FITTED).read_text(encoding="utf-8"))
    except Exception as error:  # broken files raise safetensors' and json's own errors
        raise InputError(f"the class vectors in {folder} cannot be read; delete that folder to fit anew") from error


def represent(
    labelled: Sequence[tuple[Features, Sequence[Point]]], classes: ClassSet, config: OnePixelConfig
) -> ClassVectors:
    """The vectors of all classes from the labelled pixels of each image (paper, 4.2).

    A class that config.representation tells by semantics has one vector a point, one that it tells by imaging a vector
    for each group of the point's neighbourhood.
    """
    by_semantics_C = [
        {"semantics": True, "imaging": False, "both": is_object}[config.representation]
        for is_object in config.is_object(classes)
    ]
    semantic: list[tuple[int, NDArray[np.float32]]] = []
    imaging: list[tuple[int, NDArray[np.float32]]] = []
    for features, points in labelled:
        for point in points:
            own = int(features.map_HW[point.y, point.x])
            if by_semantics_C[point.train_id]:
                semantic.append((point.train_id, object_vector(features.semantic_SD, own, config.top_share)))
            else:
                near = neighbourhood(features, own, config.neighbour_threshold)
                vectors_GK = scene_vectors(features.imaging_SK[near], near.index(own), config.groups)
                imaging.append((point.train_id, vectors_GK))
    first, _ = labelled[0]
    semantic_width, imaging_width = first.semantic_SD.shape[1], first.imaging_SK.shape[1]
    return ClassVectors(*_stacked(semantic, semantic_width), *_stacked(imaging, imaging_width))


def neighbourhood(features: Features, labelled: int, threshold: float) -> list[int]:
    """The superpixels in the labelled one's context that look like it, itself among them, in order (paper, 4.2)."""
    context_S = features.context()[labelled]
    colour_S, texture_S = (
        similarity(features.imaging_SK[labelled, part][None], features.imaging_SK[:, part])[0]
        for part in (COLOUR, TEXTURE)
    )
    is_near_S = (context_S > threshold) & (colour_S * texture_S > threshold)
    is_near_S[labelled] = True
    return np.flatnonzero(is_near_S).tolist()


def _stacked(
    found: Sequence[tuple[int, NDArray[np.float32]]], width: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors (V, width) and their classes (V,); also where there is none."""
    vectors_VK = np.concatenate([np.zeros((0, width), np.float32), *(vectors for _, vectors in found)])
    return vectors_VK, np.array([train_id for train_id, vectors in found for _ in vectors], np.int64)


def _describe(
    points: Sequence[Point], classes: ClassSet, config: OnePixelConfig, features: FeatureFolder
) -> dict[str, Any]:
    """All that decides the vectors."""
    settings = asdict(config)
    text = json.dumps([list(point) for point in points])
    made_with = {
        "points_sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
        "classes": list(classes.names),
        "one_pixel": {name: settings[name] for name in DECIDING},
        "features": features.decided_by,
    }
    return dict(json.loads(json.dumps(made_with)))  # tuples and lists compare alike
