from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, Sam3Model

from labelgen.engines.painting import paint
from labelgen.engines.sam3 import SAM3, SAM3Config
from labelgen.label import Prepared
from labelgen.samples import ClassSet, InputError
from labelgen.views import View
from tests.models import SIDE, save_detector, save_sam3

HEIGHT, WIDTH = 40, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam3")
    save_sam3(path)
    return path


def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def config(folder: Path, **settings: float) -> SAM3Config:
    return SAM3Config(model=str(folder), box_threshold=0.1, **settings)  # type: ignore[arg-type]


def plain(folder: Path, word: str, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks (n, H, W) and scores (n,) of one word, straight from the model."""
    model, tokens = Sam3Model.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    pixels = torch.from_numpy(image()).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    inputs = tokens([word], padding="max_length", return_tensors="pt")
    with torch.inference_mode():
        answer = model(
            (small / 255 - 0.5) / 0.5, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
    presence = answer.presence_logits.sigmoid()[0]
    scores = answer.pred_logits.sigmoid()[0] * presence
    logits = torch.cat([answer.semantic_seg[0], answer.pred_masks[0][scores > threshold]])
    masks = torch.nn.functional.interpolate(logits[None], size=(HEIGHT, WIDTH), mode="bilinear")[0].sigmoid()
    return masks, torch.cat([presence, scores[scores > threshold]])


@pytest.mark.parametrize("words_at_once", [1, 3])
def test_masks_of_each_word_are_those_of_the_model(words_at_once: int, folder: Path, classes: ClassSet) -> None:
    engine = SAM3.from_pretrained(classes, config(folder, words_at_once=words_at_once))
    parts = list(engine.masks(image(), [0, 6]))
    words = [(c, word) for c in (0, 6) for word in classes.prompts[c]]
    assert len(parts) == len(words) == 3
    assert max(len(masks) for masks, _ in parts) > 1
    for (c, word), (masks_nHW, scores_nC) in zip(words, parts, strict=True):
        expected_masks, expected_scores = plain(folder, word, 0.1)
        torch.testing.assert_close(masks_nHW, expected_masks, atol=5e-3, rtol=0)
        torch.testing.assert_close(scores_nC[:, c], expected_scores, atol=1e-3, rtol=0)
        assert not scores_nC[:, [k for k in range(len(classes)) if k != c]].any()


def test_maps_are_painted_from_them_and_no_class_means_silence(folder: Path, classes: ClassSet) -> None:
    engine = SAM3.from_pretrained(classes, config(folder, patch_px=4))
    view = View((0, 0, HEIGHT, WIDTH), 1.0)
    images = [Prepared("a", (HEIGHT, WIDTH), [view], [image()], labels) for labels in ([6, 0], [])]
    (shown,), (empty,) = engine.ask(images, torch.zeros(0)).logits()
    expected = paint(engine.masks(image(), [0, 6]), len(classes), (10, 15), 0.5).numpy()
    np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert empty.shape == (11, 10, 15)
    assert np.isnan(empty).all()
    assert np.isnan(shown[[c for c in range(11) if c not in (0, 6)]]).all()


def test_what_is_no_sam3_is_refused(tmp_path: Path, classes: ClassSet) -> None:
    save_detector(tmp_path / "detector")
    for source in (tmp_path / "detector", Path("no/such")):
        with pytest.raises(InputError, match=r"no sam3.model weights at .* facebook/sam3"):
            SAM3.from_pretrained(classes, config(source))
    save_sam3(tmp_path / "wordless")
    for file in (tmp_path / "wordless").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match=r"sam3.model .* has no whole processor.*tokenizer's files"):
        SAM3.from_pretrained(classes, config(tmp_path / "wordless"))
    with pytest.raises(InputError, match=r"sam3.words_at_once must be at least 1, got 0"):
        SAM3Config(words_at_once=0)
