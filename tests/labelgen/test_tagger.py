"""Taggers: small random models of each kind beside transformers' own pipelines, and the tiny CLIP on toy scenes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelgen.images import read_image
from labelgen.samples import ClassSet, InputError
from labelgen.tagger import Tagger, TaggerConfig, views
from pipeline.datasets import DATASETS
from pipeline.stages.run import TINY_CLIP
from tests.models import save_tagger

CLASSES = ClassSet(("sky", "car", "sign"), (("sky",), ("car",), ("traffic sign",)), ((0, 0, 0),) * 3)
TEMPLATE = "a photo of a {}."
NOISE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)


def tagger(folder: Path, **settings: object) -> Tagger:
    return Tagger.from_pretrained(CLASSES, TaggerConfig(model=str(folder), **settings), (TEMPLATE,))


def probabilities(tagger: Tagger, image: np.ndarray) -> np.ndarray:
    return tagger.probabilities(tagger.prepare(image)).numpy()


@pytest.mark.parametrize(("kind", "side"), [("clip", 64), ("siglip", 32), ("siglip2", 256)])
def test_zero_shot_models_say_what_transformers_own_pipeline_says(
    kind: str, side: int, clip_folder: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    folder = clip_folder if kind == "clip" else tmp_path
    if kind != "clip":
        save_tagger(folder, kind)
    image = NOISE[:side, :side]
    words = [prompts[0] for prompts in CLASSES.prompts]
    ask = pipeline("zero-shot-image-classification", model=str(folder), device="cpu")
    if kind != "clip":
        ask.tokenizer.model_input_names = ["input_ids"]  # as theirs
    said = ask(Image.fromarray(image), candidate_labels=words, hypothesis_template=TEMPLATE)
    wanted = {answer["label"]: answer["score"] for answer in said}
    likely_C = probabilities(tagger(folder, crops=0), image)
    np.testing.assert_allclose(likely_C, [wanted[word] for word in words], atol=2e-6)
    assert (likely_C.sum() == pytest.approx(1)) == (kind == "clip")  # a SigLIP judges each class by itself
    assert likely_C.min() < likely_C.max()


@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize(("kind", "side"), [("vit", 32), ("resnet", 256)])
def test_labels_of_a_classifier_mean_classes_of_that_name_or_prompt(
    kind: str, side: int, many: bool, tmp_path: Path
) -> None:
    from transformers import pipeline

    settings = {"problem_type": "multi_label_classification"} if many else {}
    save_tagger(tmp_path, kind, ["zebra", "Traffic Sign", "cab, car", "car"], **settings)
    image = NOISE[:side, :side]
    found = tagger(tmp_path, crops=0)
    ask = pipeline("image-classification", model=str(tmp_path), device="cpu")
    if kind == "resnet":  # its own rule would cut off the border
        ask.image_processor.crop_pct = 1.0
        image = np.array(Image.fromarray(image))
    wanted = {answer["label"]: answer["score"] for answer in ask(Image.fromarray(image), top_k=4)}
    likely_C = probabilities(found, image)
    np.testing.assert_allclose(
        likely_C[1:], [max(wanted["cab, car"], wanted["car"]), wanted["Traffic Sign"]], atol=1e-5
    )
    assert found.unknown == ["sky"]
    assert likely_C[0] == 1.0  # nobody can say that it is not there


def test_the_best_of_all_views_decides_and_the_likeliest_class_is_always_there(tmp_path: Path) -> None:
    save_tagger(tmp_path, "siglip")
    image = NOISE[:64, :128]
    each = [probabilities(tagger(tmp_path, crops=0), view) for view in views(image, 2, 32)]
    assert len(each) == 1 + 2 * 4
    likely_C = probabilities(tagger(tmp_path, crops=2), image)
    np.testing.assert_allclose(likely_C, np.max(each, axis=0), atol=1e-6)
    assert (likely_C > each[0]).any()
    Image.fromarray(image).save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png")] * 7
    between = float(np.sort(likely_C)[:2].mean())
    some = sorted(np.argsort(likely_C)[1:].tolist())
    assert list(tagger(tmp_path, crops=2, threshold=between).guess(paths)) == [some] * 7
    assert list(tagger(tmp_path, crops=2, threshold=0.999).guess(paths)) == [[int(likely_C.argmax())]] * 7


@pytest.mark.parametrize(("size", "tiles"), [((80, 160), 3 * 6), ((37, 90), 3 * 7), ((2, 5), 2 * 5), ((1, 1), 1)])
def test_tiles_cover_the_image_and_are_about_square(size: tuple[int, int], tiles: int) -> None:
    height, width = size
    # Every pixel of its own colour; a side that no tile has, so that each is resized.
    image = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1).repeat(3, 2)
    seen = views(image, 3, 256)
    assert len(seen) == 1 + tiles
    assert {view.shape for view in seen} == {(256, 256, 3)}
    assert views(image, 0, 8)[0].shape == (8, 8, 3)
    corners = {int(view[y, x, 0]) for view in seen[1:] for y in (0, -1) for x in (0, -1)}
    assert {int(image[y, x, 0]) for y in (0, -1) for x in (0, -1)} <= corners


def test_the_tiny_clip_knows_patches_of_toy_scenes(toy_root: Path) -> None:
    spec = DATASETS["toy"]
    config = TaggerConfig(model=str(TINY_CLIP), crops=0)
    found = Tagger.from_pretrained(spec.classes, config)
    right, seen = 0, 0
    for sample in spec.list_samples(toy_root, "val", with_truth=True):
        image, truth = read_image(sample["image_path"]), spec.read_truth(str(sample["label_path"]))
        for y in range(0, truth.shape[0] - 31, 32):
            for x in range(0, truth.shape[1] - 31, 32):
                (*others, c) = sorted(set(truth[y : y + 32, x : x + 32].ravel().tolist()))
                if not others and c < len(spec.classes):
                    seen += 1
                    right += int(probabilities(found, image[y : y + 32, x : x + 32]).argmax()) == c
    assert seen >= 30
    assert right > 0.5 * seen  # one in eleven by chance


def rewritten(folder: Path, name: str, **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_models_that_cannot_be_used_are_refused_in_one_line(clip_folder: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import ViTModel

    with pytest.raises(InputError, match="hub id such as google/siglip2-base-patch16-224 on a connected machine"):
        tagger(Path("somebody/some-tagger"))
    with pytest.raises(InputError, match=r"is no tagger\.model model folder: it has no config\.json"):
        tagger(tmp_path)
    save_tagger(tmp_path / "vit", "vit", ["zebra", "horse"])
    with pytest.raises(InputError, match="no label of tagger.model .* is called like a class; rename its id2label"):
        tagger(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    rewritten(tmp_path / "vit", "config.json", id2label={"0": "sky", "1": "car"})
    with pytest.raises(InputError, match="has no whole processor"):
        tagger(tmp_path / "vit")
    torch.manual_seed(0)
    ViTModel.from_pretrained(tmp_path / "vit").save_pretrained(tmp_path / "backbone")
    with pytest.raises(InputError, match="no tagger.model weights at .*Unrecognized configuration class"):
        tagger(tmp_path / "backbone")
    shutil.copytree(clip_folder, tmp_path / "wordless")
    save_tagger(tmp_path / "siglip", "siglip")
    for folder in (tmp_path / "wordless", tmp_path / "siglip"):
        for file in folder.glob("tokenizer*"):
            file.unlink()
        with pytest.raises(InputError, match="has no whole processor.*tokenizer's files"):
            tagger(folder)


def test_weights_that_could_hold_code_and_code_beside_them_are_not_taken(tmp_path: Path) -> None:
    save_tagger(tmp_path, "vit", ["sky"])
    weights = torch.nn.Linear(1, 1).state_dict()
    (tmp_path / "model.safetensors").rename(tmp_path / "other")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"is a pickle.*transformers\.AutoModelForImageClassification\."):
        tagger(tmp_path)
    (tmp_path / "other").rename(tmp_path / "model.safetensors")
    rewritten(tmp_path, "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (tmp_path / "mine.py").write_text("raise SystemExit('executed')")
    with pytest.raises(InputError, match="no tagger.model weights at"):
        tagger(tmp_path)


def test_settings_are_checked() -> None:
    for settings, message in (
        ({"model": ""}, "tagger.model must be a model folder or a hub id"),
        ({"threshold": 1.0}, r"tagger.threshold must be in \[0, 1\), got 1.0"),
        ({"crops": -1}, "tagger.crops must be at least 0, got -1"),
    ):
        with pytest.raises(InputError, match=message):
            TaggerConfig(**settings)
