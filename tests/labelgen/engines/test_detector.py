from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from labelgen.engines.detector import Detector, as_text
from labelgen.samples import InputError
from tests.models import save_detector, save_sam

KINDS = ("grounding-dino", "mm-grounding-dino", "owlv2")
WORDS = ["sky", "traffic sign", "car"]


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / request.param
    save_detector(path, request.param)
    return path


def asked_of_the_library(folder: Path, image_HW3: NDArray[np.uint8], text: Any) -> tuple[Any, Any]:
    """The processor and the model's answer."""
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=[image_HW3], text=text, return_tensors="pt")
    with torch.inference_mode():
        return processor, AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()(**inputs)


def test_boxes_and_scores_are_those_of_the_library(folder: Path) -> None:
    image_HW3 = noise(40, 60)
    (found,) = Detector.from_pretrained(str(folder), "test").detect([image_HW3], [WORDS])
    text = [WORDS] if folder.name == "owlv2" else as_text(WORDS)
    processor, answer = asked_of_the_library(folder, image_HW3, text)
    threshold = float(found.scores_NW.median())
    options = {} if folder.name == "owlv2" else {"text_threshold": threshold}
    (theirs,) = processor.post_process_grounded_object_detection(
        answer, target_sizes=[(40, 60)], threshold=0.0, **options
    )
    torch.testing.assert_close(found.boxes_N4, theirs["boxes"])
    if folder.name == "owlv2":
        torch.testing.assert_close(found.scores_NW.max(1).values, theirs["scores"])
        assert found.scores_NW.argmax(1).tolist() == theirs["labels"].tolist()
        return
    # The library names the tokens above a threshold; a word is named where one of its tokens is.
    for scores_W, phrase in zip(found.scores_NW, theirs["text_labels"], strict=True):
        tokens = phrase.replace(".", " ").split()
        named = [any(token in tokens for token in word.split()) for word in WORDS]
        assert (scores_W > threshold).tolist() == named


def test_images_and_words_of_a_batch_do_not_mix(folder: Path) -> None:
    detector = Detector.from_pretrained(str(folder), "test")
    images, words = [noise(40, 60, seed) for seed in range(3)], [WORDS, ["road"], ["car", "sky"]]
    together = detector.detect(images, words)
    for image_HW3, asked, found in zip(images, words, together, strict=True):
        (alone,) = detector.detect([image_HW3], [asked])
        assert found.scores_NW.shape[1] == len(asked)
        torch.testing.assert_close(found.boxes_N4, alone.boxes_N4, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(found.scores_NW, alone.scores_NW, atol=1e-4, rtol=1e-3)


def test_words_that_fit_into_no_single_text_are_asked_in_several(tmp_path: Path) -> None:
    save_detector(tmp_path, max_text_len=8)  # two ends, and a full stop for each word
    detector = Detector.from_pretrained(str(tmp_path), "test")
    words = [*WORDS, "road"]
    (found,) = detector.detect([noise(40, 60)], [words])
    parts = [detector.detect([noise(40, 60)], [some])[0] for some in (words[:2], words[2:])]
    torch.testing.assert_close(found.boxes_N4, torch.cat([part.boxes_N4 for part in parts]), atol=1e-2, rtol=1e-3)
    boxes = len(parts[0].boxes_N4)
    torch.testing.assert_close(found.scores_NW[:boxes, :2], parts[0].scores_NW, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found.scores_NW[boxes:, 2:], parts[1].scores_NW, atol=1e-4, rtol=1e-3)
    assert not found.scores_NW[:boxes, 2:].any()
    assert not found.scores_NW[boxes:, :2].any()


def test_a_text_is_lower_case_and_keeps_full_stops_for_the_ends_of_words() -> None:
    assert as_text(["Sky", "St. Paul's"]) == "sky. st  paul's."


def test_what_is_no_detector_is_refused(tmp_path: Path, clip_folder: Path) -> None:
    with pytest.raises(InputError, match=r"no grounded_sam.detector weights at .* IDEA-Research/grounding-dino-tiny"):
        Detector.from_pretrained(str(clip_folder), "grounded_sam.detector")
    with pytest.raises(InputError, match="no grounded_sam.detector weights at 'no/such'"):
        Detector.from_pretrained("no/such", "grounded_sam.detector")
    save_sam(tmp_path / "sam")
    with pytest.raises(InputError, match="no grounded_sam.detector weights"):
        Detector.from_pretrained(str(tmp_path / "sam"), "grounded_sam.detector")
    save_detector(tmp_path / "bare")
    (tmp_path / "bare" / "processor_config.json").unlink()
    with pytest.raises(InputError, match="has no whole processor; its folder needs processor_config.json"):
        Detector.from_pretrained(str(tmp_path / "bare"), "grounded_sam.detector")
