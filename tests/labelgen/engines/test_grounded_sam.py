from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from labelgen.engines.detector import Boxes
from labelgen.engines.grounded_sam import GroundedSAM, GroundedSAMConfig, boxes_of_classes
from labelgen.samples import ClassSet, InputError, Sample
from tests.oracles import TOY, Oracle, Part, scenes_of, score, whole_images

CONFIG = GroundedSAMConfig(patch_px=2, batch=2)
SIZE = (10, 20)


@pytest.fixture(scope="module")
def known(toy_root: Path) -> list[Sample]:
    """Scenes with truth."""
    return TOY.list_samples(toy_root, "val", with_truth=True, with_tags=True)


@pytest.fixture(scope="module")
def scenes(known: list[Sample]) -> dict[bytes, list[Part]]:
    return scenes_of(known)


def grounded(oracle: Oracle, config: GroundedSAMConfig = CONFIG) -> GroundedSAM:
    return GroundedSAM(oracle, oracle, oracle.classes, config)


def found(boxes: list[list[float]], scores: list[list[float]]) -> Boxes:
    return Boxes(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores).reshape(len(boxes), -1))


# ---- Boxes ---------------------------------------------------------------------------------------------------------


def test_a_box_counts_by_its_best_word_and_speaks_for_each_class_above_the_other_threshold() -> None:
    answer = found([[0, 0, 4, 4]] * 3, [[0.31, 0.26, 0.2], [0.29, 0.28, 0.1], [0.1, 0.2, 0.9]])
    boxes_N4, scores_NC = boxes_of_classes(answer, [0, 1, 3], 4, SIZE, CONFIG)
    assert len(boxes_N4) == 2
    torch.testing.assert_close(scores_NC, torch.tensor([[0.31, 0.26, 0, 0], [0, 0, 0, 0.9]]))


def test_a_class_takes_the_best_of_its_words() -> None:
    _, scores_NC = boxes_of_classes(found([[0, 0, 4, 4]], [[0.4, 0.7, 0.5]]), [2, 2, 0], 3, SIZE, CONFIG)
    torch.testing.assert_close(scores_NC, torch.tensor([[0.5, 0, 0.7]]))


def test_boxes_are_cut_to_the_image_and_those_beyond_it_do_not_count() -> None:
    answer = found([[-5, -5, 4, 4], [15, 5, 40, 40], [20, 0, 30, 5], [0, -9, 5, 0], [3, 3, 3, 8]], [[0.9]] * 5)
    boxes_N4, _ = boxes_of_classes(answer, [0], 1, SIZE, CONFIG)
    assert boxes_N4.tolist() == [[0, 0, 4, 4], [15, 5, 20, 10]]


def test_a_box_of_one_pixel_counts() -> None:
    boxes_N4, _ = boxes_of_classes(found([[7, 3, 8, 4]], [[0.9]]), [0], 1, SIZE, CONFIG)
    assert boxes_N4.tolist() == [[7, 3, 8, 4]]


def test_no_boxes_are_no_boxes() -> None:
    answer = Boxes(torch.zeros(0, 4), torch.zeros(0, 2))
    boxes_N4, scores_NC = boxes_of_classes(answer, [0, 1], 2, SIZE, CONFIG)
    assert (boxes_N4.shape, scores_NC.shape) == ((0, 4), (0, 2))


# ---- With models that know the truth -------------------------------------------------------------------------------


def test_a_detector_and_a_segmenter_that_know_the_truth_give_it_back(
    known: list[Sample], scenes: dict[bytes, list[Part]], classes: ClassSet
) -> None:
    oracle = Oracle(scenes, classes)
    assert score(grounded(oracle, replace(CONFIG, patch_px=1)), known).miou > 0.999
    assert score(grounded(oracle), known).miou >= 0.95


def test_jittered_and_missed_boxes_cost_what_they_take_away(
    known: list[Sample], scenes: dict[bytes, list[Part]], classes: ClassSet
) -> None:
    perfect, jittered, missed, both = (
        score(grounded(Oracle(scenes, classes, jitter, share)), known)
        for jitter, share in ((0.0, 0.0), (0.1, 0.0), (0.0, 0.2), (0.1, 0.2))
    )
    assert perfect.miou > jittered.miou > 0.8
    assert perfect.miou > missed.miou > both.miou > 0.55
    # What is missed is left open, not given to another class.
    assert np.nanmean(missed.precision) > 0.95


def test_the_order_of_classes_and_boxes_changes_no_mask(
    known: list[Sample], scenes: dict[bytes, list[Part]], classes: ClassSet
) -> None:
    order = np.random.default_rng(0).permutation(len(classes))
    turned = replace(
        classes,
        names=tuple(classes.names[c] for c in order),
        prompts=tuple(classes.prompts[c] for c in order),
        palette=tuple(classes.palette[c] for c in order),
    )
    place = np.argsort(order)
    turned_samples = [{**s, "image_labels": [int(place[c]) for c in s["image_labels"] or []]} for s in known]
    turned_scenes = {
        image: [part._replace(class_id=int(place[part.class_id])) for part in reversed(parts)]
        for image, parts in scenes.items()
    }
    zeros = torch.zeros(0)
    plain = grounded(Oracle(scenes, classes)).ask(whole_images(known, 2), zeros).logits()
    other = grounded(Oracle(turned_scenes, turned)).ask(whole_images(turned_samples, 2), zeros).logits()  # type: ignore[arg-type]
    for (one,), (two,) in zip(plain, other, strict=True):
        np.testing.assert_array_equal(two[place], one)


def test_a_class_that_is_found_nowhere_and_an_image_without_classes_say_nothing(
    known: list[Sample], scenes: dict[bytes, list[Part]], classes: ClassSet
) -> None:
    without_cars = {image: [p for p in parts if p.class_id != 8] for image, parts in scenes.items()}
    first, second, *others = whole_images(known, 2)
    assert 8 in (first.image_labels or ())
    images = [first, replace(second, image_labels=[]), *others]
    maps = grounded(Oracle(without_cars, classes)).ask(images, torch.zeros(0)).logits()
    assert np.isnan(maps[0][0][8]).all()
    assert not np.isnan(maps[0][0][0]).all()
    assert np.isnan(maps[1][0]).all()
    assert maps[1][0].shape == (11, 80, 160)
    nothing = {image: list[Part]() for image in scenes}
    assert np.isnan(grounded(Oracle(nothing, classes)).ask(images, torch.zeros(0)).logits()[0][0]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"detector": ""}, "grounded_sam.detector must be a model folder or a hub id"),
        ({"box_threshold": 1.5}, r"grounded_sam.box_threshold must be in \[0, 1\], got 1.5"),
        ({"patch_px": 0}, "grounded_sam.patch_px must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GroundedSAMConfig(**settings)  # type: ignore[arg-type]
