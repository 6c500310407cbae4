"""Class maps of images: windows, scales, flips, filters, forms of files; pseudo-labels for another round; ONNX."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, read_image
from labelgen.samples import InputError
from labelgen.store import PseudoLabelStore
from pipeline.datasets import DATASETS
from segtrain.export import export_onnx
from segtrain.model import StudentConfig, build_student, save_student
from segtrain.predict import PredictConfig, predict, probabilities
from tests.conftest import carbseg, refused

CLASSES = DATASETS["toy"].classes
RNG = np.random.default_rng(0)
# Every pixel has one colour that is clearly the strongest.
IMAGE = RNG.integers(0, 100, (64, 96, 3), np.uint8) + 120 * np.eye(3, dtype=np.uint8)[RNG.integers(0, 3, (64, 96))]


class ByColour(nn.Module):
    """Calls a pixel what its strongest colour is; looks at each pixel alone, so windows and flips change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, pixel_values: Tensor) -> SemanticSegmenterOutput:
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return SemanticSegmenterOutput(logits=self.scale * (pixel_values * std + mean))


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "student"
    save_student(build_student(StudentConfig(width=4, aspp_channels=8), CLASSES, torch.randn(11, 128)), folder, {})
    return folder


@pytest.mark.parametrize(
    "config", [PredictConfig(window=(40, 48)), PredictConfig(flip=True), PredictConfig(window=(500, 48), overlap=0.0)]
)
def test_windows_and_flips_put_every_pixel_back_in_its_place(config: PredictConfig) -> None:
    np.testing.assert_array_equal(predict(ByColour(), IMAGE, config), IMAGE.argmax(2))  # type: ignore[arg-type]


def test_scales_are_averaged_as_probabilities() -> None:
    smooth = np.kron(IMAGE[:8, :12], np.ones((8, 8, 1), np.uint8))
    found = probabilities(ByColour(), smooth, PredictConfig(scales=(0.5, 1.0, 2.0), flip=True))  # type: ignore[arg-type]
    torch.testing.assert_close(found.sum(0), torch.ones(64, 96))
    inner = found.argmax(0)[4::8, 4::8]  # block centres, away from borders that resizing blurs
    np.testing.assert_array_equal(inner, IMAGE[:8, :12].argmax(2))


def test_classes_that_are_filtered_out_are_not_predicted() -> None:
    only_blue_and_red = np.array([True, False, True])
    found = predict(ByColour(), IMAGE, is_present_C=only_blue_and_red)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, 2 * (IMAGE[..., 2] > IMAGE[..., 0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": ()}, "scales must be one or more positive factors"),
        ({"window": (8, 8)}, "at least 32 x 32 pixels, got 8 x 8"),
        ({"overlap": 1.0}, r"overlap must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PredictConfig(**settings)  # type: ignore[arg-type]


def test_a_folder_is_predicted_into_indexed_maps(student_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    options = ("--scales", "0.5,1", "--flip", "--window", "96x128", "--show", "sky,road")
    shown = carbseg("predict", student_folder, toy_root / "val", "--out", tmp_path / "maps", *options).stdout
    assert "3 class maps" in shown
    with Image.open(tmp_path / "maps" / "toy_0000.png") as image:
        assert image.mode == "P"
        assert image.size == (320, 160)
        assert set(np.unique(np.array(image))) <= {0, 3}
    carbseg("predict", student_folder, toy_root / "val", "--out", tmp_path / "city", "--layout", "cityscapes")
    with Image.open(tmp_path / "city" / "toy_0000_pred_labelIds.png") as image:
        assert set(np.unique(np.array(image))) <= {23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 25}


def test_predictions_become_pseudo_labels_of_another_round(
    student_folder: Path, toy_root: Path, toy_stores: Path, tmp_path: Path
) -> None:
    source, target = toy_stores / "train.zarr", tmp_path / "labels" / "train.zarr"
    again = ("predict", student_folder, toy_root / "train", "--as-pseudo-labels", source, "--out", target)
    assert "10 of 10 images" in carbseg(*again).stdout
    store = PseudoLabelStore.open(target)
    assert store.provenance["labels"]["round_before"] == PseudoLabelStore.open(source).provenance["labels"]
    from segtrain.model import load_student

    image = read_image(toy_root / "train" / "toy_0003.png")
    present = store.labels_of("toy_0003")
    same = store.mask("toy_0003") == predict(load_student(student_folder), image, is_present_C=present)
    assert same.mean() > 0.99  # float16
    np.testing.assert_array_equal(store.mask("toy_0003", "local"), store.mask("toy_0003"))
    quick = ("--set", "train.batch=2", "--set", "train.workers=0", "--set", "student.width=4", "--steps", 2)
    carbseg("train", "--dataset", "toy", "--data-root", toy_root, "--out", tmp_path, *quick)
    assert "is not in the split" in refused(*again[:2], toy_root / "val", *again[3:])


def test_what_cannot_be_predicted_is_said(student_folder: Path, toy_root: Path, tmp_path: Path) -> None:
    image, out = toy_root / "val" / "toy_0000.png", ("--out", tmp_path / "maps")
    assert "name at least one image" in refused("predict", student_folder, *out)
    assert "give images of different names" in refused("predict", student_folder, image, image, *out)
    assert "holds the images themselves" in refused("predict", student_folder, image, "--out", image.parent)
    assert "--scales takes numbers" in refused("predict", student_folder, image, *out, "--scales", "big")
    assert "a size is HEIGHTxWIDTH" in refused("predict", student_folder, image, *out, "--window", "512")
    assert "did you mean 'road'?" in refused("predict", student_folder, image, *out, "--show", "raod")
    assert not (tmp_path / "maps").exists()


def test_onnx_says_what_pytorch_says_for_any_batch(student_folder: Path, tmp_path: Path) -> None:
    import onnxruntime

    from segtrain.model import load_student

    student = load_student(student_folder)
    assert export_onnx(student, tmp_path / "student.onnx", 64, 96) < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"))
    pixels = torch.randn(3, 3, 64, 96)
    (logits,) = session.run(None, {"pixel_values": pixels.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, student(pixel_values=pixels).logits, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]
