"""What is known of an image's superpixels: computed once, kept in a folder, and the context that follows from it.

FOLDER/KEY/ab/cdef....npz      one file an image; KEY: what decides features, ab cdef...: a hash of the image's path

Shapes: H W pixels, S superpixels, M pairs of neighbours, K bins, D dimensions.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelgen.engines.one_pixel.edges import edge_similarity, with_edges
from labelgen.engines.one_pixel.equations import normalise_rows, similarity
from labelgen.engines.one_pixel.imaging import imaging_features
from labelgen.images import read_image

Pooled = Callable[[NDArray[np.uint8], NDArray[np.int32]], NDArray[np.float32]]  # (image_HW3, map_HW) -> (S, D)


class Features(NamedTuple):
    """An image's superpixels; floats are float16, rows of the three kinds of vectors sum to 1."""

    map_HW: NDArray[np.uint16]  # number of each pixel's superpixel, from 0
    pairs_M2: NDArray[np.uint16]  # superpixels that touch
    edge_M: NDArray[np.float16]  # strength of the edge between them, 0..1
    imaging_SK: NDArray[np.float16]  # 128: colour and texture, half of the sum each
    saliency_3SK: NDArray[np.float16]  # 32 each: of the whole image, and of it in two ways of cropping
    semantic_SD: NDArray[np.float16]

    @property
    def number(self) -> int:
        """S."""
        return len(self.imaging_SK)

    def context(self) -> NDArray[np.float32]:
        """Sim_c (S, S) in 0..1: no edge between two superpixels, and alike in saliency (Eq. 3)."""
        whole_SS, *cropped = (similarity(x_SK, x_SK) for x_SK in self.saliency_3SK)
        edge_SS = edge_similarity(self.pairs_M2, self.edge_M.astype(np.float32), self.number)
        return np.asarray(edge_SS * whole_SS * np.maximum(*cropped), np.float32)


def compute_features(image_HW3: NDArray[np.uint8], count: int, pooled: Pooled) -> Features:
    """The features of uint8 RGB, of about `count` superpixels."""
    found = with_edges(image_HW3, count)
    imaging = imaging_features(image_HW3, found.map_HW)
    # Negative activations speak of other classes.
    semantic_SD = normalise_rows(np.maximum(pooled(image_HW3, found.map_HW), 0))
    return Features(
        found.map_HW.astype(np.uint16),
        found.pairs_M2.astype(np.uint16),
        found.edge_M.astype(np.float16),
        (np.concatenate([imaging.colour_SK, imaging.texture_SK], axis=1) / 2).astype(np.float16),
        imaging.saliency_3SK.astype(np.float16),
        semantic_SD.astype(np.float16),
    )


class FeatureFolder:
    """Features of images, kept on the disk: of the file of that path, size and time of change.

    Whoever is cut leaves no half-written file; a broken one is made again.
    """

    def __init__(
        self, folder: Path, decided_by: dict[str, Any], compute: Callable[[NDArray[np.uint8]], Features]
    ) -> None:
        """decided_by: all that decides features besides the image, ready for JSON."""
        self.decided_by, self.compute = decided_by, compute
        self.key = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / self.key

    def of(self, path: str | Path) -> Features:
        """The features of an image file. Raises InputError for one that is no whole image."""
        file, source = self.file_of(path), _source(path)
        kept = _read(file, source)
        if kept is not None:
            return kept
        features = self.compute(read_image(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}.partial")  # labelled images are several processes' affair
        with partial.open("wb") as target:
            np.savez_compressed(target, source=source, **features._asdict())
        partial.replace(file)
        return features

    def file_of(self, path: str | Path) -> Path:
        """Where the features of an image are kept: folders hold a 256th of a million files each."""
        name = hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name[2:]}.npz"


def _source(path: str | Path) -> NDArray[np.int64]:
    """What tells an image file from what was there before."""
    about = os.stat(path)
    return np.array([about.st_size, about.st_mtime_ns])


def _read(file: Path, source: NDArray[np.int64]) -> Features | None:
    """What a file holds; None where there is none, or a broken one, or one of an image that has changed."""
    try:
        with np.load(io.BytesIO(file.read_bytes())) as arrays:  # numpy leaves a broken file open
            if not np.array_equal(arrays["source"], source):
                return None
            return Features(**{name: arrays[name] for name in Features._fields})
    except FileNotFoundError:
        return None
    except Exception:  # zipfile's, zlib's and numpy's own errors
        return None
