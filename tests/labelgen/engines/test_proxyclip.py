import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    BertConfig,
    BertModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from labelgen.engines.proxyclip import Proxy, ProxyCLIP, ProxyCLIPConfig, fit, proxy_attention
from labelgen.images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from labelgen.samples import InputError

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def proxy_model(kind: str, patch: int = 8) -> Any:
    torch.manual_seed(0)
    match kind:
        case "vit":
            return ViTModel(ViTConfig(**SMALL, patch_size=patch, image_size=32))
        case "dinov2":
            return Dinov2Model(Dinov2Config(**SMALL, patch_size=patch, image_size=32))
        case "registers":
            return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL, patch_size=patch, image_size=32))
        case "dinov3":
            return DINOv3ViTModel(DINOv3ViTConfig(**SMALL, patch_size=patch, image_size=32, num_register_tokens=4))
        case _:
            return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))


def plain_attention(features: list[torch.Tensor], beta: float, gamma: float) -> list[list[float]]:
    """Patch by patch, straight from the paper."""
    patches = range(len(features))
    similarity = [[float(F.cosine_similarity(features[i], features[j], dim=0)) for j in patches] for i in patches]
    mean = sum(map(sum, similarity)) / len(features) ** 2
    rows = []
    for i in patches:
        scores = [gamma * (similarity[i][j] - beta * mean) for j in patches]
        powers = [math.exp(score) if score >= 0 or i == j else 0.0 for j, score in enumerate(scores)]
        rows.append([power / sum(powers) for power in powers])
    return rows


def plain_features(engine: ProxyCLIP, pixels: torch.Tensor, proxy: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Features (D, h, w) of one image, with the values of CLIP brought to a finer grid of the proxy or the reverse."""
    model = engine.dense.model
    patch = engine.dense.patch_px
    vision = model.vision_model
    *blocks, last = vision.encoder.layers
    with torch.inference_mode():
        x = vision.pre_layrnorm(vision.embeddings(fit(pixels, patch), interpolate_pos_encoding=True))
        for block in blocks:
            x = block(x, attention_mask=None)
        value = last.self_attn.v_proj(last.layer_norm1(x))[0, 1:]
        rows = round(pixels.shape[2] / patch)
        value = F.interpolate(value.T.reshape(1, -1, rows, len(value) // rows), size=(h, w), mode="bilinear")[0]
        proxy = F.interpolate(proxy, size=(h, w), mode="bilinear")[0]
        places = [(row, column) for row in range(h) for column in range(w)]
        weights = plain_attention([proxy[:, row, column] for row, column in places], 1.2, 3.0)
        out = torch.zeros(model.config.projection_dim, h, w)
        for (row, column), attended in zip(places, weights, strict=True):
            mixed = sum((a * value[:, r, c] for a, (r, c) in zip(attended, places, strict=True)), torch.zeros(1))
            z = vision.post_layernorm(last.self_attn.out_proj(mixed))
            out[:, row, column] = F.normalize(model.visual_projection(z), dim=0)
    return out


def noise(height: int, width: int, images: int = 1) -> torch.Tensor:
    return torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))


def for_proxy(pixels: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    def column(values: Any) -> torch.Tensor:
        return torch.tensor(values)[:, None, None]

    return (pixels * column(CLIP_STD) + column(CLIP_MEAN) - column(mean)) / column(std)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "registers", "dinov3"])
def test_features_equal_a_plain_loop(kind: str, clip_folder: Path, tmp_path: Path) -> None:
    model = proxy_model(kind)
    model.save_pretrained(tmp_path)
    engine = ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy=str(tmp_path)))
    pixels = noise(24, 40)
    options = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.inference_mode():
        tokens = model.eval()(for_proxy(pixels, IMAGENET_MEAN, IMAGENET_STD), **options).last_hidden_state
    before = {"vit": 1, "dinov2": 1}.get(kind, 5)
    assert tokens.shape[1] == before + 15
    expected = plain_features(engine, pixels, tokens[:, before:].transpose(1, 2).reshape(1, -1, 3, 5), 3, 5)
    torch.testing.assert_close(engine.features(pixels)[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("patch", "size", "grid"),
    [(4, (24, 40), (6, 10)), (6, (24, 42), (4, 7)), (16, (24, 40), (3, 5)), (14, (8, 40), (1, 5))],
)
def test_the_finer_grid_wins(
    patch: int, size: tuple[int, int], grid: tuple[int, int], clip_folder: Path, tmp_path: Path
) -> None:
    """CLIP's patches are 8 pixels; images come in multiples of the smaller patch."""
    model = proxy_model("dinov2", patch)
    model.save_pretrained(tmp_path)
    engine = ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy=str(tmp_path)))
    assert engine.patch_px == min(patch, 8)
    pixels = noise(*size)
    seen = fit(for_proxy(pixels, IMAGENET_MEAN, IMAGENET_STD), patch)
    with torch.inference_mode():
        tokens = model.eval()(seen).last_hidden_state[:, 1:]
    proxy = tokens.transpose(1, 2).reshape(1, -1, seen.shape[2] // patch, seen.shape[3] // patch)
    features = engine.features(pixels)
    assert features.shape[2:] == grid
    torch.testing.assert_close(features[0], plain_features(engine, pixels, proxy, *grid), atol=1e-5, rtol=1e-4)


def test_logits_are_cosines(clip_folder: Path) -> None:
    engine = ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy="clip", layer=1))
    pixels, text = noise(16, 24, images=2), engine.dense.encode_text([["a car"], ["a road"], ["the sky"]])
    logits = engine.logits(pixels, text)
    assert logits.shape == (2, 3, 2, 3)
    assert logits.abs().max() <= 1
    expected = torch.einsum("bdhw,cd->bchw", engine.features(pixels), text)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("layer", [0, 1, 2, -1])
def test_clip_is_its_own_proxy(layer: int, clip_folder: Path) -> None:
    engine = ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy="clip", layer=layer))
    vision = engine.dense.model.vision_model
    assert len(vision.encoder.layers) == 3
    pixels = noise(24, 40)
    with torch.inference_mode():
        x = vision.pre_layrnorm(vision.embeddings(pixels, interpolate_pos_encoding=True))
        for block in vision.encoder.layers[: layer % 3]:
            x = block(x, attention_mask=None)
    expected = plain_features(engine, pixels, x[:, 1:].transpose(1, 2).reshape(1, -1, 3, 5), 3, 5)
    torch.testing.assert_close(engine.features(pixels)[0], expected, atol=1e-5, rtol=1e-4)


def test_convnet_is_asked_for_the_feature_map_of_a_stage() -> None:
    model = proxy_model("resnet").eval()
    last, stem = Proxy(model), Proxy(model, layer=0)
    assert (last.patch_px, stem.patch_px) == (8, 4)
    image = torch.rand(1, 3, 33, 46, generator=torch.Generator().manual_seed(0))
    assert last(image).shape == (1, 16, 4, 6)
    assert stem(image).shape == (1, 8, 8, 12)  # 33 x 46 is seen as 32 x 48


def test_inner_layer_of_a_vit_is_that_hidden_state() -> None:
    model = proxy_model("vit")
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (image - mean) / std
    with torch.inference_mode():
        states = model.eval()(pixels, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    expected = states[1][:, 1:].transpose(1, 2).reshape(1, 32, 2, 3)
    torch.testing.assert_close(Proxy(model, layer=1)(image), expected)


def test_pixels_are_normalised_as_the_proxy_wants(clip_folder: Path, tmp_path: Path) -> None:
    proxy_model("vit").save_pretrained(tmp_path)
    plain = ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy=str(tmp_path)))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}')
    own = ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy=str(tmp_path)))
    assert plain.proxy is not None
    assert own.proxy is not None
    assert (plain.proxy.image_mean, plain.proxy.image_std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert own.proxy.image_mean == own.proxy.image_std == (0.5, 0.5, 0.5)
    assert (own.features(noise(16, 24)) - plain.features(noise(16, 24))).abs().max() > 1e-5


def test_patches_that_resemble_no_other_keep_their_own_value() -> None:
    attention = proxy_attention(torch.eye(4).view(1, 4, 2, 2), 1.2, 3.0)
    torch.testing.assert_close(attention, torch.eye(4)[None])


def test_image_that_looks_alike_everywhere_keeps_its_own_values() -> None:
    """The similarity is 1 everywhere, and so below 1.2 times its mean."""
    attention = proxy_attention(torch.ones(1, 3, 1, 4), 1.2, 3.0)
    torch.testing.assert_close(attention, torch.eye(4)[None])


def test_attention_of_an_image_does_not_depend_on_its_batch() -> None:
    batch = torch.stack([torch.ones(4, 2, 2), torch.eye(4).view(4, 2, 2)])
    torch.testing.assert_close(proxy_attention(batch, 1.2, 3.0), torch.eye(4).expand(2, 4, 4))


def test_attention_is_worked_out_by_hand() -> None:
    """Two like patches beside one that is orthogonal: mean 5 / 9, so 3 * (1 - 1.2 * 5 / 9) = 1 for the likes."""
    features = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]).view(1, 2, 1, 3)
    expected = torch.tensor([[[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]])
    torch.testing.assert_close(proxy_attention(features, 1.2, 3.0), expected)


def test_bfloat16_stays_close(clip_folder: Path, tmp_path: Path) -> None:
    proxy_model("dinov2").save_pretrained(tmp_path)
    config = ProxyCLIPConfig(proxy=str(tmp_path))
    full, half = (ProxyCLIP.from_pretrained(clip_folder, None, dtype, config) for dtype in (None, torch.bfloat16))
    assert half.features(noise(24, 40)).dtype == torch.float32
    torch.testing.assert_close(half.features(noise(24, 40)), full.features(noise(24, 40)), atol=0.05, rtol=0)


def test_size_that_is_no_multiple_of_the_smaller_patch_is_refused(clip_folder: Path) -> None:
    engine = ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy="clip"))
    with pytest.raises(InputError, match="multiples of 8, got 20 x 40"):
        engine.features(noise(20, 40))


def test_missing_proxy_says_how_to_get_one(clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no proxy model folder: it has no config.json"):
        ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy=str(tmp_path)))
    with pytest.raises(
        InputError, match="no proxy weights at 'no/such': .*hub id such as facebook/dinov2-base"
    ) as error:
        ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy="no/such"))
    assert "\n" not in str(error.value)


def test_model_that_is_no_vision_backbone_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    BertModel(BertConfig(**SMALL, vocab_size=16)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a bert is no proxy: it must be a ViT or ConvNet"):
        ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy=str(tmp_path)))
    with pytest.raises(InputError, match="a clip is no proxy"):
        ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy=str(clip_folder)))


def test_layer_that_is_not_there_is_refused(clip_folder: Path) -> None:
    with pytest.raises(InputError, match=r"layer must be in \[-3, 2\] for this proxy, got 3"):
        ProxyCLIP.from_pretrained(clip_folder, config=ProxyCLIPConfig(proxy="clip", layer=3))
    with pytest.raises(InputError, match=r"layer must be in \[-3, 2\] for this proxy, got -4"):
        Proxy(proxy_model("vit"), layer=-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"proxy": ""}, "proxy must be a model folder, a hub id, or clip, got ''"),
        ({"beta": 0.0}, "beta must be positive, got 0.0"),
        ({"gamma": -1.0}, "gamma must be positive, got -1.0"),
    ],
)
def test_settings_are_checked_at_birth(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProxyCLIPConfig(**settings)
