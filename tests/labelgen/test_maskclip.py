import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labelgen.images import IMAGENET_MEAN, normalise
from labelgen.maskclip import VARIANTS, DenseCLIP, Variant, neighbour_prior
from labelgen.samples import InputError

GOLDEN = Path(__file__).parent / "golden"


def test_logits_equal_the_authors_code() -> None:
    golden = np.load(GOLDEN / "maskclip.npz")
    dense = DenseCLIP.from_pretrained(GOLDEN / "tiny_clip_gelu")
    logits = dense.logits(torch.from_numpy(golden["pixel_values"]), torch.from_numpy(golden["text"]))
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5)


def attention(q: torch.Tensor, k: torch.Tensor, prior: torch.Tensor | None = None) -> torch.Tensor:
    scores = q @ k.T / q.shape[-1] ** 0.5
    return (scores if prior is None else scores + prior).softmax(-1)


def plain_last_block(dense: DenseCLIP, x_ND: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """One image, one head at a time, straight from the papers."""
    block = dense.model.vision_model.encoder.layers[-1]
    layer, y = block.self_attn, block.layer_norm1(x_ND)
    q, k, v = layer.q_proj(y), layer.k_proj(y), layer.v_proj(y)
    prior = torch.zeros(h * w + 1, h * w + 1)
    for i in range(h * w):
        for j in range(h * w):
            distance = (i // w - j // w) ** 2 + (i % w - j % w) ** 2
            prior[1 + i, 1 + j] = np.exp(-distance / (2 * 5.0**2))
    out = []
    for qh, kh, vh in zip(*(t.chunk(layer.num_heads, -1) for t in (q, k, v)), strict=True):
        if dense.variant in ("maskclip", "value"):
            out.append(vh)
        elif dense.variant == "sclip":
            out.append(attention(qh, qh) @ vh + attention(kh, kh) @ vh)
        elif dense.variant == "clearclip":
            out.append(attention(qh, qh) @ vh)
        else:
            out.append(attention(kh, kh, prior) @ vh)
    z = layer.out_proj(torch.cat(out, -1))
    if dense.variant in ("maskclip", "sclip"):
        z = x_ND + z
        z = z + block.mlp(block.layer_norm2(z))
    return z


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_equals_a_plain_loop(variant: Variant) -> None:
    dense = DenseCLIP.from_pretrained(GOLDEN / "tiny_clip_gelu", variant=variant)
    pixels = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    vision = dense.model.vision_model
    with torch.inference_mode():
        x = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))
        for block in vision.encoder.layers[:-1]:
            x = block(x, attention_mask=None)
        z = plain_last_block(dense, x[0], 2, 3)
        expected = F.normalize(dense.model.visual_projection(vision.post_layernorm(z)[1:]), dim=-1)
    features = dense.features(pixels)
    assert features.shape == (1, 32, 2, 3)
    torch.testing.assert_close(features[0].flatten(1).T, expected, atol=1e-5, rtol=1e-4)


def test_neighbour_prior_leaves_the_cls_token_alone() -> None:
    prior = neighbour_prior(2, 2)
    assert prior[0].tolist() == prior[:, 0].tolist() == [0.0] * 5
    assert prior[1, 1] == 1
    assert prior[1, 2] == pytest.approx(np.exp(-1 / 50))


def test_size_that_is_no_multiple_of_the_patch_is_refused() -> None:
    dense = DenseCLIP.from_pretrained(GOLDEN / "tiny_clip_gelu")
    with pytest.raises(InputError, match="multiples of 16, got 40 x 64"):
        dense.features(torch.zeros(1, 3, 40, 64))


def test_unknown_variant_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="variant must be one of maskclip, value.* got 'mask'"):
        DenseCLIP.from_pretrained(GOLDEN / "tiny_clip_gelu", variant="mask")  # type: ignore[arg-type]


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no config.json"):
        DenseCLIP.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((GOLDEN / "tiny_clip_gelu" / "config.json").read_text())
    with pytest.raises(InputError, match="no CLIP weights at .*give a local folder"):
        DenseCLIP.from_pretrained(tmp_path)


def test_broken_files_of_a_model_are_said_in_one_line(clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="the tokenizer of .* cannot be read"):
        DenseCLIP.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="no CLIP weights at"):
        DenseCLIP.from_pretrained(folder)


def test_words_that_the_tokenizer_does_not_know_are_named_once(clip_folder: Path) -> None:
    dense = DenseCLIP.from_pretrained(clip_folder)
    assert dense.unknown_words(["traffic sign", "zebra", "a zebra", "Car"]) == ["zebra"]
    dense.tokenizer = None
    assert dense.unknown_words(["zebra"]) == []


def test_folder_without_tokenizer_refuses_text_only() -> None:
    dense = DenseCLIP.from_pretrained(GOLDEN / "tiny_clip_gelu")
    with pytest.raises(InputError, match="no tokenizer"):
        dense.encode_text([["a car"]])


def test_faithful_repeats_the_slips_of_the_authors_code(tmp_path: Path) -> None:
    """A checkpoint that asks for QuickGELU and eps 1e-5, run faithfully, equals the authors' GELU and 1e-6."""
    golden = np.load(GOLDEN / "maskclip.npz")
    pixels, text = torch.from_numpy(golden["pixel_values"]), torch.from_numpy(golden["text"])
    folder = tmp_path / "clip"
    shutil.copytree(GOLDEN / "tiny_clip_gelu", folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["vision_config"]["hidden_act"] == "gelu"
    config["vision_config"] |= {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    (folder / "config.json").write_text(json.dumps(config))
    dense = DenseCLIP.from_pretrained(folder, faithful=True)
    np.testing.assert_allclose(dense.logits(pixels, text), golden["logits"], atol=1e-5)
    assert dense.image_mean == IMAGENET_MEAN
    assert np.abs(DenseCLIP.from_pretrained(folder).logits(pixels, text).numpy() - golden["logits"]).max() > 1e-4


def test_bfloat16_stays_close_and_texts_stay_exact(clip_folder: Path) -> None:
    pixels = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    full, half = (DenseCLIP.from_pretrained(clip_folder, dtype=dtype) for dtype in (None, torch.bfloat16))
    text = full.encode_text([["a car"], ["a road", "the road"]])
    torch.testing.assert_close(half.encode_text([["a car"], ["a road", "the road"]]), text)
    assert half.logits(pixels, text).dtype == torch.float32
    torch.testing.assert_close(half.logits(pixels, text), full.logits(pixels, text), atol=0.03, rtol=0)


def test_normalised_pixels_are_those_of_the_array_function(clip_folder: Path) -> None:
    dense = DenseCLIP.from_pretrained(clip_folder)
    image = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    expected = normalise(image, dense.image_mean, dense.image_std)
    np.testing.assert_allclose(dense.normalise(torch.from_numpy(image)[None])[0], expected, atol=1e-5)
