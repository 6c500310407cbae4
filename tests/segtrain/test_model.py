"""Students: architecture, saving and loading as Hugging Face models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForSemanticSegmentation,
    ResNetConfig,
    ResNetModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from labelgen.backbones import RESNET_DEPTHS
from labelgen.samples import InputError
from pipeline.datasets import DATASETS
from segtrain.model import StudentConfig, TextClassifier, build_student, load_student, palette_of, save_student
from segtrain.predict import predict

CLASSES = DATASETS["toy"].classes
LIGHT = StudentConfig(width=4, aspp_channels=8)
IMAGE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


@pytest.mark.parametrize("classifier", ["text", "linear"])
def test_saved_student_predicts_the_same_in_the_image_s_size(tmp_path: Path, classifier: str) -> None:
    torch.manual_seed(0)
    student = build_student(replace(LIGHT, classifier=classifier), CLASSES, torch.randn(11, 8)).eval()
    for run in (1, 2):  # over an older one, too
        save_student(student, tmp_path / "student", {"run": run})
    assert predict(student, IMAGE).shape == (37, 53)
    for folder in (tmp_path / "student", tmp_path):  # the model's, and the training's that holds it
        loaded = load_student(folder)
        np.testing.assert_array_equal(predict(loaded, IMAGE), predict(student, IMAGE))
    assert list(loaded.config.id2label.values()) == list(CLASSES.names)
    assert palette_of(loaded) == list(CLASSES.palette)
    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "student").eval()
    np.testing.assert_array_equal(predict(again, IMAGE), predict(student, IMAGE))
    card = (tmp_path / "student" / "README.md").read_text()
    assert '"run": 2' in card
    assert "sky, building" in card
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student"]


def test_missing_and_broken_students_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trained student in"):
        load_student(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="student in .* cannot be read"):
        load_student(tmp_path)


def test_text_classifier_is_a_product_with_fixed_text_vectors() -> None:
    classifier = TextClassifier(4, 3, 5)
    classifier.text_CD.copy_(torch.randn(3, 5))
    features = torch.randn(2, 4, 6, 7)
    expected = torch.einsum("bdhw,cd->bchw", classifier.project(features), classifier.text_CD)
    torch.testing.assert_close(classifier(features), expected)
    assert {name for name, p in classifier.named_parameters()} == {"project.weight", "project.bias"}


def test_resnet_50_is_the_paper_s_student() -> None:
    with torch.device("meta"):
        student = build_student_on_meta(StudentConfig(backbone="resnet50"))
    assert student.aspp.branches[3][0].dilation == (24, 24)
    assert [branch[0].out_channels for branch in student.aspp.branches] == [512] * 4
    assert student.aspp.branches[0][0].in_channels == 2048
    assert not hasattr(student, "head")
    parameters = sum(p.numel() for p in student.backbone.parameters())
    assert parameters == 23_508_032  # ResNet-50 without its classifier


def test_a_saved_student_strides_where_its_imagenet_weights_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESNET_DEPTHS, "resnet50", (1, 1, 1, 1))
    ResNetModel(ResNetConfig(depths=[1, 1, 1, 1], downsample_in_bottleneck=True)).save_pretrained(tmp_path / "imagenet")
    config = StudentConfig(backbone="resnet50", pretrained=str(tmp_path / "imagenet"), aspp_channels=8)
    student = build_student(config, CLASSES, torch.randn(11, 8)).eval()
    save_student(student, tmp_path / "student", {})
    loaded = load_student(tmp_path / "student")
    assert loaded.backbone.stride_in_1x1
    np.testing.assert_array_equal(predict(loaded, IMAGE), predict(student, IMAGE))


def test_a_student_at_stride_16_keeps_frozen_stages_through_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESNET_DEPTHS, "resnet50", (1, 1, 1, 1))
    ResNetModel(ResNetConfig(depths=[1, 1, 1, 1])).save_pretrained(tmp_path / "imagenet")
    config = StudentConfig(
        backbone="resnet50", pretrained=str(tmp_path / "imagenet"), aspp_channels=8, output_stride=16, frozen_stages=3
    )
    student = build_student(config, CLASSES, torch.randn(11, 8)).train()
    imagenet = ResNetModel.from_pretrained(tmp_path / "imagenet").state_dict()
    trained = {name for name, p in student.named_parameters() if p.requires_grad}
    assert {name.split(".")[4] for name in trained if "stages" in name} == {"3"}
    student(pixel_values=torch.randn(2, 3, 64, 64))  # batch statistics would move
    for name, tensor in student.backbone.resnet.state_dict().items():
        if "stages.3" not in name:
            assert torch.equal(tensor, imagenet[name]), name
    assert student(pixel_values=torch.randn(2, 3, 64, 64)).logits.shape[2:] == (4, 4)
    save_student(student, tmp_path / "student", {})
    np.testing.assert_array_equal(predict(load_student(tmp_path / "student"), IMAGE), predict(student.eval(), IMAGE))


def build_student_on_meta(config: StudentConfig) -> torch.nn.Module:
    from segtrain.model import CarbsegConfig, Student

    return Student(CarbsegConfig(student=vars(config), embedding_dim=512, num_labels=11))


def test_any_hf_segmentation_model_can_be_the_student(tmp_path: Path) -> None:
    config = SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, decoder_hidden_size=16, num_attention_heads=[1, 1, 2, 2]
    )
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "hub")
    student = build_student(StudentConfig(model=str(tmp_path / "hub")), CLASSES, torch.zeros(11, 8))
    logits = student(pixel_values=torch.randn(1, 3, 64, 64)).logits
    assert logits.shape[:2] == (1, 11)
    assert F.cross_entropy(logits, torch.zeros(1, *logits.shape[2:], dtype=torch.long)).isfinite()
    save_student(student, tmp_path / "student", {})
    loaded = load_student(tmp_path / "student")
    assert palette_of(loaded) == list(CLASSES.palette)
    np.testing.assert_array_equal(predict(loaded, IMAGE), predict(student.eval(), IMAGE))
    with pytest.raises(InputError, match="no semantic segmentation model at 'nobody/segformer'"):
        build_student(StudentConfig(model="nobody/segformer"), CLASSES, torch.zeros(11, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet18"}, "student.backbone must be light, resnet50 or resnet101, got 'resnet18'"),
        ({"pretrained": "microsoft/resnet-50"}, "student.pretrained needs student.backbone=resnet50"),
        ({"aspp_rates": (0,)}, "aspp_rates must be positive"),
        ({"output_stride": 16}, "student.output_stride needs student.backbone=resnet50"),
        ({"backbone": "resnet50", "output_stride": 4}, "student.output_stride must be 8 or 16, got 4"),
        ({"backbone": "resnet50", "frozen_stages": 5}, "student.frozen_stages must be 0 to 4, got 5"),
        ({"backbone": "resnet50", "frozen_stages": 1}, "frozen_stages keeps ImageNet's weights"),
    ],
)
def test_settings_that_make_no_student_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudentConfig(**settings)  # type: ignore[arg-type]
