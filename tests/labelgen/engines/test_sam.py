from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForMaskGeneration, AutoProcessor

from labelgen.engines.hub import load_square_processor
from labelgen.engines.sam import Sam
from labelgen.samples import InputError
from tests.models import SIDE, save_detector, save_sam

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 3.0, 50.0, 30.0], [5.0, 5.0, 6.0, 6.0]])


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module", params=["sam", "sam_hq", "sam2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam") / request.param
    save_sam(path, request.param)
    return path


def of_the_library(folder: Path, image_HW3: NDArray[np.uint8]) -> torch.Tensor:
    """Probabilities (N, H, W), with the library's own steps from the image to its masks."""
    model = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    height, width = image_HW3.shape[:2]
    with torch.inference_mode():
        if folder.name == "sam2":  # its processor needs torchvision
            pixels = torch.from_numpy(image_HW3).permute(2, 0, 1)[None]
            small = torch.nn.functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
            boxes = BOXES / torch.tensor([width, height, width, height]) * SIDE
            answer = model((small / 255 - 0.5) / 0.5, input_boxes=boxes[None], multimask_output=False)
            size = (height, width)
            return torch.nn.functional.interpolate(answer.pred_masks[0], size=size, mode="bilinear")[:, 0].sigmoid()
        processor = AutoProcessor.from_pretrained(folder)
        inputs: Any = processor(images=image_HW3, input_boxes=[BOXES.tolist()], return_tensors="pt")
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        answer = model(**inputs | {"input_boxes": inputs["input_boxes"].float()}, multimask_output=False)
        (masks,) = processor.post_process_masks(list(answer.pred_masks), *sizes, binarize=False)
        return masks[:, 0].sigmoid()


@pytest.mark.parametrize("size", [(40, 60), (90, 30)])
@pytest.mark.parametrize("at_once", [1, 2, 32])
def test_masks_are_those_of_the_library_however_boxes_are_batched(
    size: tuple[int, int], at_once: int, folder: Path
) -> None:
    image_HW3 = noise(*size)
    parts = list(Sam.from_pretrained(str(folder), "test", at_once=at_once).masks(image_HW3, BOXES))
    assert [len(part) for part in parts] == {1: [1, 1, 1], 2: [2, 1], 32: [3]}[at_once]
    torch.testing.assert_close(torch.cat(parts), of_the_library(folder, image_HW3), atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [(37, 53), (301, 203), (65, 64)])
def test_the_plain_processor_resizes_as_torchvision_would(size: tuple[int, int], tmp_path: Path) -> None:
    save_sam(tmp_path, "sam2")
    image_HW3 = noise(*size)
    pixels = load_square_processor(str(tmp_path), "test", SIDE)(images=[image_HW3], return_tensors="pt")["pixel_values"]
    bytes_13HW = torch.from_numpy(image_HW3).permute(2, 0, 1)[None]
    # What torchvision calls.
    theirs = torch.nn.functional.interpolate(bytes_13HW, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    torch.testing.assert_close(255 * (pixels / 2 + 0.5), theirs.float(), atol=1.001, rtol=0)


def test_an_image_is_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sam = Sam.from_pretrained(str(folder), "test", at_once=1)
    seen, look = list[int](), sam.model.get_image_embeddings
    monkeypatch.setattr(sam.model, "get_image_embeddings", lambda pixels: seen.append(len(pixels)) or look(pixels))
    assert len(list(sam.masks(noise(40, 60), BOXES))) == 3
    assert seen == [1]


def test_what_is_no_sam_is_refused(tmp_path: Path) -> None:
    save_detector(tmp_path / "detector")
    for source in (str(tmp_path / "detector"), "no/such"):
        with pytest.raises(InputError, match=r"no grounded_sam.sam weights at .* facebook/sam-vit-base"):
            Sam.from_pretrained(source, "grounded_sam.sam")
    save_sam(tmp_path / "sam2", "sam2")
    (tmp_path / "sam2" / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="has no whole processor"):
        Sam.from_pretrained(str(tmp_path / "sam2"), "grounded_sam.sam")
