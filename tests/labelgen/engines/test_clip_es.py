from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPModel

from labelgen.engines.clip_es import (
    BACKGROUND_WORDS,
    Activation,
    ClipES,
    ClipESConfig,
    background_words,
    box_mask,
    fused_names,
    keep_confident,
    refine,
)
from labelgen.samples import ClassSet, InputError

GOLDEN = Path(__file__).parent.parent / "golden"


def golden_engine(**settings: Any) -> ClipES:
    return ClipES.from_pretrained(GOLDEN / "tiny_clip_patch16", device="cpu", config=ClipESConfig(**settings))


def golden_activation(engine: ClipES) -> Activation:
    golden = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "clipes.npz").items()}
    return engine.activate(
        golden["pixel_values"], golden["class_vectors"][golden["labels"]], golden["background_vectors"]
    )


def class_set(*prompts: tuple[str, ...]) -> ClassSet:
    return ClassSet(tuple(some[0] for some in prompts), prompts, ((0, 0, 0),) * len(prompts))


def test_activation_equals_the_authors_code() -> None:
    golden = np.load(GOLDEN / "clipes.npz")
    found = golden_activation(golden_engine())
    np.testing.assert_allclose(found.scores_T, golden["scores"], atol=1e-6)
    np.testing.assert_allclose(found.attention_PP, golden["attention"], atol=1e-6)
    np.testing.assert_allclose(found.cam_Chw, golden["cam"], atol=1e-5)
    np.testing.assert_allclose(found.refined_Chw, golden["refined_scaled"], atol=1e-4)


def test_refining_equals_the_authors_code() -> None:
    golden = np.load(GOLDEN / "clipes.npz")
    masks = [box_mask(map_hw, 0.4) for map_hw in golden["cam"]]
    np.testing.assert_array_equal(masks, golden["box_mask"].astype(bool))
    refined = refine(torch.from_numpy(golden["cam"]), torch.from_numpy(golden["attention"]), 0.4)
    np.testing.assert_allclose(refined, golden["refined"], atol=1e-6)


def plain_cam(engine: ClipES, pixels: torch.Tensor, text: torch.Tensor, class_id: int) -> torch.Tensor:
    """One class, by a backward pass through the last block as it stands in the paper."""
    model = engine.dense.model
    *blocks, last = model.vision_model.encoder.layers
    x = model.vision_model.pre_layrnorm(model.vision_model.embeddings(pixels, interpolate_pos_encoding=True))
    for block in blocks:
        x = block(x, attention_mask=None)
    tokens = last.layer_norm1(x).detach().requires_grad_()
    z = x + last.self_attn(tokens)[0]
    z = z + last.mlp(last.layer_norm2(z))
    image = model.visual_projection(model.vision_model.post_layernorm(z)[0, 1:].mean(0))
    score = (model.logit_scale.exp() * F.cosine_similarity(image, text, dim=-1)).softmax(0)[class_id]
    (gradient,) = torch.autograd.grad(score, tokens)
    weights = gradient[0, 1:].mean(0)
    cam = (tokens[0, 1:] @ weights).clamp(min=0).detach()
    return (cam - cam.min()) / (cam.max() - cam.min())


def test_gradients_of_all_classes_equal_a_backward_pass_for_each(clip_folder: Path) -> None:
    engine = ClipES.from_pretrained(clip_folder)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, 24, 40, generator=generator)  # not the size that CLIP was made for
    text = torch.randn(5, engine.dense.model.config.projection_dim, generator=generator)
    found = engine.activate(pixels, text[:3], text[3:])
    assert found.cam_Chw.shape == found.refined_Chw.shape == (3, 3, 5)
    for class_id in range(3):
        expected = plain_cam(engine, pixels, text, class_id)
        torch.testing.assert_close(found.cam_Chw[class_id].flatten(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("blocks", [1, 3, 8])
def test_attention_is_that_of_the_last_blocks(blocks: int) -> None:
    pixels = torch.from_numpy(np.load(GOLDEN / "clipes.npz")["pixel_values"])
    eager = CLIPModel.from_pretrained(GOLDEN / "tiny_clip_patch16", attn_implementation="eager")
    with torch.inference_mode():
        attentions = eager.vision_model(pixels, output_attentions=True).attentions
    assert len(attentions) == 4
    expected = torch.stack([weights[0].mean(0) for weights in attentions[-blocks:]]).mean(0)
    found = golden_activation(golden_engine(attention_blocks=blocks))
    torch.testing.assert_close(found.attention_PP, expected[1:, 1:])


def test_inference_mode_and_its_tensors_are_no_hindrance(clip_folder: Path) -> None:
    engine = ClipES.from_pretrained(clip_folder)
    with torch.inference_mode():
        pixels = engine.dense.normalise(torch.zeros(1, 16, 24, 3, dtype=torch.uint8))
        class_vectors, background_vectors = engine.encode_words(class_set(("car",), ("road",)))
        inside = engine.activate(pixels, class_vectors, background_vectors)
    outside = engine.activate(pixels, class_vectors, background_vectors)
    torch.testing.assert_close(inside.refined_Chw, outside.refined_Chw)
    assert not any(parameter.requires_grad for parameter in engine.dense.model.parameters())


def test_bfloat16_stays_close(clip_folder: Path) -> None:
    full, half = (ClipES.from_pretrained(clip_folder, dtype=dtype) for dtype in (None, torch.bfloat16))
    pixels = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    words = full.encode_words(class_set(("car",), ("road",)))
    torch.testing.assert_close(
        half.activate(pixels, *words).cam_Chw, full.activate(pixels, *words).cam_Chw, atol=0.1, rtol=0
    )


def test_without_background_words_classes_compete_among_themselves(clip_folder: Path) -> None:
    engine = ClipES.from_pretrained(clip_folder, config=ClipESConfig(background=()))
    class_vectors, background_vectors = engine.encode_words(class_set(("car",), ("road",)))
    assert background_vectors.shape == (0, class_vectors.shape[1])
    found = engine.activate(torch.zeros(1, 3, 16, 16), class_vectors, background_vectors)
    assert found.scores_T.sum() == pytest.approx(1)
    assert found.scores_T.shape == (2,)


def test_faithful_positions_are_half_precise_and_bilinear() -> None:
    golden = np.load(GOLDEN / "clipes.npz")
    exact, faithful = golden_engine(), golden_engine(faithful=True)
    embeddings = exact.dense.model.vision_model.embeddings
    position_N = embeddings.position_embedding.weight.clone()
    found = golden_activation(faithful)
    left = faithful.dense.model.vision_model.embeddings.position_embedding.weight
    assert torch.equal(left, position_N)  # the model is left as it was
    embeddings.position_embedding.weight.data = position_N.half().float()
    torch.testing.assert_close(golden_activation(exact).scores_T, found.scores_T)  # at CLIP's own size only rounded
    assert np.abs(found.attention_PP.numpy() - golden["attention"]).max() > 1e-7
    pixels, text = torch.zeros(1, 3, 16, 32), torch.from_numpy(golden["class_vectors"])
    row = F.interpolate(position_N[1:].T.reshape(1, -1, 7, 7), size=(1, 2), mode="bilinear").flatten(2)[0].T
    embeddings.position_embedding.weight.data = torch.cat([position_N[:1], row]).half().float()
    expected_NE = exact.dense.model.vision_model.pre_layrnorm(
        torch.cat([embeddings.class_embedding[None], torch.zeros(2, 128)]) + embeddings.position_embedding.weight
    )
    torch.testing.assert_close(faithful._embed(pixels)[0], expected_NE)
    assert faithful.activate(pixels, text[:1], text[1:]).cam_Chw.shape == (1, 1, 2)


def test_size_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(InputError, match="multiples of 16, got 40 x 64"):
        golden_engine().activate(torch.zeros(1, 3, 40, 64), torch.ones(1, 32), torch.ones(1, 32))


def test_image_without_a_class_is_refused() -> None:
    with pytest.raises(InputError, match="at least one class"):
        golden_engine().activate(torch.zeros(1, 3, 16, 16), torch.ones(0, 32), torch.ones(1, 32))


def test_boxes_go_around_regions_and_end_before_the_last_row_and_column() -> None:
    map_hw = np.zeros((5, 7), np.float32)
    map_hw[1, 1] = map_hw[2, 2] = 1.0  # neighbours by a corner are one region
    map_hw[3:, 4:] = 0.5
    map_hw[0, 6] = 0.4  # not above 0.4 of the maximum
    expected = np.zeros((5, 7), bool)
    expected[1:3, 1:3] = expected[3, 4:6] = True
    np.testing.assert_array_equal(box_mask(map_hw, 0.4), expected)
    assert not box_mask(np.zeros((5, 7), np.float32), 0.4).any()


def test_map_spreads_along_attention_from_its_boxes_only() -> None:
    cam = torch.tensor([[[1.0, 0.0, 0.3, 0.0]] * 2])  # on a 2 x 4 grid; 0.3 lies outside of the box
    refined = refine(cam, torch.full((8, 8), 1 / 8), 0.4)
    torch.testing.assert_close(refined, torch.full((1, 2, 4), 1 / 8))  # of one patch, evenly; the box has no last row
    itself = refine(cam, torch.eye(8), 0.4)
    torch.testing.assert_close(itself, torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0, 0]]]))


def test_unsure_patches_say_nothing() -> None:
    maps = torch.tensor([[[0.9, 0.2]], [[0.1, 0.4]]])
    assert keep_confident(maps, 0.5).isnan().tolist() == [[[False, True]], [[False, True]]]
    assert torch.equal(keep_confident(maps, 0.0), maps)


def test_maps_are_the_refined_ones_without_what_is_unsure(clip_folder: Path) -> None:
    engine = ClipES.from_pretrained(clip_folder, config=ClipESConfig(confidence=0.8))
    words = engine.encode_words(class_set(("car",), ("road",)))
    pixels = torch.randn(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    refined = engine.activate(pixels, *words).refined_Chw
    maps = engine.maps(pixels, *words)
    assert torch.equal(maps.isnan()[0], refined.amax(0) < 0.8)
    assert 0 < maps.isnan().sum() < maps.numel()


def test_synonyms_are_one_name_and_classes_no_background() -> None:
    classes = class_set(("person with clothes", "people", "human"), ("Road", "street"))
    assert fused_names(classes) == ["person with clothes,people,human", "Road,street"]
    left = background_words(classes)
    assert len(BACKGROUND_WORDS) == 25
    assert set(BACKGROUND_WORDS) - set(left) == {"road", "street"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "origami"}, r"template needs exactly one \{\}, got 'origami'"),
        ({"attention_blocks": 0}, "attention_blocks must be at least 1, got 0"),
        ({"box_threshold": 1.5}, r"box_threshold must be in \[0, 1\], got 1.5"),
        ({"confidence": -0.1}, r"confidence must be in \[0, 1\], got -0.1"),
    ],
)
def test_settings_are_checked_at_birth(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipESConfig(**settings)
