"""What `segtrain.data` and `segtrain.batch` must come to: sample by sample, with numpy and OpenCV."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from labelgen.images import bilinear_weights, read_image
from labelgen.samples import IGNORE_INDEX
from labelgen.store import LocalView
from labelgen.training.order import Place
from labelgen.views import Box, to_mask
from segtrain.augment import Geometry, sample_colours, sample_geometry, warp_classes
from segtrain.data import FILL, PseudoLabelledImages, _visible_view


def warp_image(image_HW3: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.float32]:
    """The crop (crop_height, crop_width, 3) in 0..255, not rounded; FILL where there is no image."""
    g = geometry
    # Pixel centres: x_crop + 0.5 = (x + 0.5) * scale - left, mirrored for a flip.
    sign, offset = (-1, g.crop_width + g.left - 0.5 * g.scale - 0.5) if g.flip else (1, 0.5 * g.scale - 0.5 - g.left)
    forward = np.array([[sign * g.scale, 0, offset], [0, g.scale, 0.5 * g.scale - 0.5 - g.top]])
    return cv2.warpAffine(
        image_HW3.astype(np.float32),
        forward,
        (g.crop_width, g.crop_height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=FILL,
    ).astype(np.float32)


def warp_logits(
    logits_Chw: NDArray[np.float32], box: Box, geometry: Geometry, rows: int, columns: int
) -> tuple[NDArray[np.float32], slice, slice]:
    """Logits of a view, seen through the geometry on a crop divided into rows x columns.

    box: what the logits cover, in source pixels. Returns (C, n, m) and the slices of rows and columns they fill:
    those whose centres lie in the box.
    """
    slices, weights = [], []
    for positions, start, stop, cells in (
        (geometry.source_rows(rows), box[0], box[2], logits_Chw.shape[1]),
        (geometry.source_columns(columns), box[1], box[3], logits_Chw.shape[2]),
    ):
        inside = np.flatnonzero((positions >= start) & (positions < stop))
        slices.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0))
        weights.append(bilinear_weights((positions[inside] - start) * cells / (stop - start), cells))
    return np.asarray(weights[0] @ logits_Chw @ weights[1].T, np.float32), slices[0], slices[1]


def pseudo_labels(
    view: LocalView, geometry: Geometry, is_present_C: NDArray[np.bool_], rows: int, columns: int
) -> NDArray[np.uint8]:
    """Pseudo-labels of a view on the crop, 255 outside it."""
    logits, in_rows, in_columns = warp_logits(view.logits, view.box, geometry, rows, columns)
    pseudo = np.full((rows, columns), IGNORE_INDEX, np.uint8)
    pseudo[in_rows, in_columns] = to_mask(logits, is_present_C)
    return pseudo


def change_colours(image_HW3: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Other brightness, contrast, saturation and hue: RGB in 0..255, through OpenCV's HSV."""
    brightness, contrast, saturation, hue = colours
    changed_HW3 = np.clip(image_HW3 * contrast + brightness, 0, 255).astype(np.float32)
    hsv_HW3 = cv2.cvtColor(changed_HW3 / 255, cv2.COLOR_RGB2HSV)  # degrees, 0..1, 0..1
    hsv_HW3[..., 0] = (hsv_HW3[..., 0] + hue) % 360
    hsv_HW3[..., 1] = np.minimum(hsv_HW3[..., 1] * saturation, 1)
    return np.asarray(255 * cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB), np.float32)


class Augmented(NamedTuple):
    """One sample; images are RGB in 0..255."""

    image_HW3: NDArray[np.float32]
    global_HW: NDArray[np.uint8]
    local_HW: NDArray[np.uint8]
    local_image_HW3: NDArray[np.float32] | None


def augmented(data: PseudoLabelledImages, place: Place) -> Augmented:
    """A sample of a data set, with the same draws."""
    sample, store, config = data.samples[place.row], data._store, data.config
    rng = np.random.default_rng([data.seed, place.step, place.slot])
    image_HW3 = read_image(sample["image_path"])
    size = image_HW3.shape[0], image_HW3.shape[1]
    geometry = sample_geometry(rng, config, *size)
    present_C = store.labels_of(sample["image_id"])
    crop_HW3 = warp_image(image_HW3, geometry)
    local_image_HW3 = None
    if data.views == "truth":
        assert data.read_truth is not None
        global_HW = warp_classes(data.read_truth(sample), geometry, data.rows, data.columns, IGNORE_INDEX)
    else:
        whole = LocalView((0, 0, *size), 1.0, store.global_logits(sample["image_id"]))
        global_HW = pseudo_labels(whole, geometry, present_C, data.rows, data.columns)
    local_HW = np.full_like(global_HW, IGNORE_INDEX)
    if data.views == "local":
        views = store.local_views(sample["image_id"])
        if data.local_crops:
            view = views[rng.integers(len(views))]
            y0, x0, y1, x1 = view.box
            alone = Geometry(1.0, y0, x0, geometry.flip, y1 - y0, x1 - x0)
            rows, columns = (-(-side // data.loss_stride) for side in (y1 - y0, x1 - x0))
            local_HW = pseudo_labels(view, alone, present_C, rows, columns)
            colours = sample_colours(rng, config.photometric)
            local_image_HW3 = change_colours(warp_image(image_HW3, alone), colours)
        elif (seen := _visible_view(rng, views, geometry)) is not None:
            local_HW = pseudo_labels(seen, geometry, present_C, data.rows, data.columns)
    image = change_colours(crop_HW3, sample_colours(rng, config.photometric))
    return Augmented(image, global_HW, local_HW, local_image_HW3)
