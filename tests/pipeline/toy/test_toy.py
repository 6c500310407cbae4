"""The toy world: reproducible, exact, and good enough to learn from."""

import json
from pathlib import Path

import numpy as np
import torch

from evaluation.confusion import ConfusionMatrix
from labelgen.images import normalise, read_image, read_label_map, resize_logits
from labelgen.maskclip import DenseCLIP
from labelgen.prompts import TEMPLATES, sentences
from labelgen.views import to_mask
from pipeline.datasets import DATASETS
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.stages.run import TINY_CLIP
from pipeline.toy.canvas import ToyClass
from pipeline.toy.pretrain import collage, contrast, cut_collage
from pipeline.toy.scenes import SPLIT_SEEDS, driving_scene, write_scenes
from pipeline.toy.web import caption, web_image


def test_same_seed_draws_the_same_scene_and_another_seed_another() -> None:
    first, again, other = driving_scene(5), driving_scene(5), driving_scene(6)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert len(set(SPLIT_SEEDS.values())) == 3


def test_scenes_show_all_classes_and_nothing_else() -> None:
    seen = np.unique(np.concatenate([driving_scene(s)[1].ravel() for s in range(12)]))
    assert seen.tolist() == list(range(11))
    assert [c.name.lower() for c in ToyClass] == list(CAMVID_CLASSES.names)


def test_written_scenes_are_read_back_by_the_ordinary_code(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()  # an empty folder is filled
    write_scenes(tmp_path / "toy", {"train": 2, "val": 1})
    image, label = driving_scene([0, SPLIT_SEEDS["train"], 1])
    sample = DATASETS["toy"].samples(tmp_path / "toy", "train", with_truth=True)[1]
    np.testing.assert_array_equal(read_image(sample["image_path"]), image)
    np.testing.assert_array_equal(read_label_map(sample["label_path"]), label)
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]  # nothing half-drawn is left


def test_captions_name_the_subject_first_and_only_what_is_named() -> None:
    rng = np.random.default_rng(0)
    drawn = [web_image(rng) for _ in range(60)]
    assert all(d.image_HW3.shape == (80, 80, 3) for d in drawn)
    assert len({d.named[0] for d in drawn}) == 11
    assert caption(rng, (ToyClass.SKY,), ["a photo of a {}."]) == "a photo of a sky."
    text = caption(rng, (ToyClass.ROAD, ToyClass.SKY, ToyClass.SKY), ["a {}."])
    assert text.endswith(", a sky and a sky.")


def test_a_collage_is_cut_into_the_pictures_it_was_made_of() -> None:
    pictures = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 6)
    sheet = collage(pictures, 2)
    assert sheet.shape == (2, 3, 8, 12)
    assert sheet[1, 0, [0, 0, 7, 7], [0, 11, 0, 11]].tolist() == [4, 5, 6, 7]
    patches = sheet[:, 0].reshape(2, 8 * 12, 1)  # one-pixel patches
    assert torch.equal(cut_collage(patches, 2, 4, 6)[:, :, 0], pictures[:, 0].reshape(8, 24))


def test_contrast_is_least_when_every_picture_finds_its_texts() -> None:
    matches = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    right, wrong = contrast(20 * matches, matches), contrast(20 * (1 - matches), matches)
    assert right < 0.7 < 10 < wrong


def test_the_shipped_clip_finds_classes_in_scenes_it_never_saw() -> None:
    dense = DenseCLIP.from_pretrained(TINY_CLIP)
    text = dense.encode_text(sentences(CAMVID_CLASSES.prompts))
    assert text.shape == (11, 128)
    matrix = ConfusionMatrix(11)
    for seed in range(6):
        image, label = driving_scene([0, 99, seed])
        logits = dense.logits(torch.from_numpy(normalise(image, dense.image_mean, dense.image_std))[None], text)
        present = np.isin(np.arange(11), label)
        matrix.update(label, to_mask(resize_logits(logits[0].numpy(), *label.shape), present))
    assert matrix.scores().miou > 0.3


def test_the_shipped_tokenizer_knows_every_word_of_our_prompts() -> None:
    dense = DenseCLIP.from_pretrained(TINY_CLIP)
    words = [t for texts in sentences(CAMVID_CLASSES.prompts, TEMPLATES) for t in texts]
    assert not any(dense.tokenizer.unk_token_id in ids for ids in dense.tokenizer(words)["input_ids"])


def test_the_model_card_says_how_it_was_made() -> None:
    assert json.loads((TINY_CLIP / "pretraining.json").read_text())["seed"] == 0
    card = (TINY_CLIP / "README.md").read_text()
    assert "python -m pipeline.toy.pretrain" in card
