"""The network of CAM and CLIMS: its maps, worked out by hand; saving and loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from labelgen.backbones import RESNET_DEPTHS
from labelgen.engines.cam import CamConfig, build_network
from labelgen.engines.network import CamNetwork, CamNetworkConfig, class_maps, load_network
from labelgen.samples import ClassSet, InputError

LIGHT = CamConfig(backbone="light", width=4)
IMAGE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


class Features(nn.Module):
    """A backbone that gives the next of these features, whatever it sees."""

    def __init__(self, *features_DHW: list[list[list[float]]]) -> None:
        super().__init__()
        self.coming = [torch.tensor([one]) for one in features_DHW]

    def forward(self, pixels: Tensor) -> tuple[None, Tensor]:
        return None, self.coming.pop(0)


def by_hand(weights_CD: list[list[float]], *features_DHW: list[list[list[float]]]) -> CamNetwork:
    network = CamNetwork(CamNetworkConfig(width=4, num_labels=len(weights_CD))).eval()
    network.backbone = Features(*features_DHW)
    network.head.weight = nn.Parameter(torch.tensor(weights_CD)[:, :, None, None])
    return network


def test_a_map_is_what_a_class_finds_in_the_features_divided_by_its_maximum() -> None:
    features = [[[1.0, 2.0, 0.0], [3.0, 1.0, 0.0]], [[0.0, 1.0, 4.0], [0.0, 3.0, 1.0]]]
    network = by_hand([[2.0, 0.0], [1.0, -1.0], [0.0, 1.0]], features)
    maps = class_maps(network, np.zeros((16, 24, 3), np.uint8))
    np.testing.assert_allclose(maps[0], [[2 / 6, 4 / 6, 0], [1, 2 / 6, 0]])
    np.testing.assert_allclose(maps[1], [[1 / 3, 1 / 3, 0], [1, 0, 0]])
    np.testing.assert_allclose(maps[2], [[0, 1 / 4, 1], [0, 3 / 4, 1 / 4]])


def test_classes_that_are_absent_and_places_where_no_class_is_active_are_nan() -> None:
    network = by_hand([[1.0], [-1.0], [1.0]], [[[1.0, -2.0, 0.0]]])
    maps = class_maps(network, np.zeros((8, 24, 3), np.uint8), np.array([True, True, False]))
    np.testing.assert_array_equal(maps, [[[1, 0, np.nan]], [[0, 1, np.nan]], [[np.nan] * 3]])


def test_activations_of_scales_and_of_the_mirrored_image_are_summed_before_the_division() -> None:
    network = by_hand([[1.0]], [[[1.0, 0.0, -9.0]]], [[[2.0, 1.0, 5.0]]])
    maps = class_maps(network, np.zeros((8, 24, 3), np.uint8), flip=True)
    np.testing.assert_allclose(maps, [[[1, 1 / 6, 2 / 6]]])  # 1 + 5, 0 + 1, 0 + 2: the -9 takes nothing away
    network = by_hand([[1.0]], [[[1.0, 0.0, 2.0]]], [[[0.0, 2.0, 0.0]]])
    maps = class_maps(network, np.zeros((8, 24, 3), np.uint8), scales=(1.0, 2.0))
    np.testing.assert_allclose(maps, [[[0.5, 1, 1]]])


def test_maps_cover_the_image_at_the_features_stride_or_in_a_grid_that_is_asked_for(classes: ClassSet) -> None:
    network = build_network(LIGHT, classes).eval()
    assert class_maps(network, IMAGE, scales=(0.5, 1.5), flip=True).shape == (11, 5, 7)
    maps = class_maps(network, IMAGE, grid=(3, 4))
    assert maps.shape == (11, 3, 4)
    assert maps.dtype == np.float32


def test_a_class_score_is_that_of_pooling_before_the_convolution(classes: ClassSet) -> None:
    network = build_network(LIGHT, classes).eval()
    pixels = torch.randn(2, 3, 40, 56)
    pooled = network.backbone(pixels)[1].mean((2, 3), keepdim=True)
    torch.testing.assert_close(network(pixels).logits.mean((2, 3)), network.head(pooled).flatten(1))


def test_a_saved_network_gives_the_same_maps(tmp_path: Path, classes: ClassSet) -> None:
    network = build_network(LIGHT, classes).eval()
    network.save_pretrained(tmp_path)
    loaded = load_network(tmp_path)
    np.testing.assert_array_equal(class_maps(loaded, IMAGE), class_maps(network, IMAGE))
    assert list(loaded.config.id2label.values()) == list(classes.names)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="the fitted network in .* cannot be read; delete that folder to fit it anew"):
        load_network(tmp_path)


def test_imagenet_weights_keep_their_strides_and_statistics(
    tmp_path: Path, classes: ClassSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESNET_DEPTHS, "resnet50", (1, 1, 1, 1))
    plain = ResNetModel(ResNetConfig(depths=[1, 1, 1, 1], downsample_in_bottleneck=True)).eval()
    plain.save_pretrained(tmp_path / "imagenet")
    network = build_network(CamConfig(backbone="resnet50", pretrained=str(tmp_path / "imagenet")), classes)
    network.train()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        found = network.backbone(pixels)[1]
        torch.testing.assert_close(found[:, :, ::2, ::2], plain(pixels).last_hidden_state, atol=1e-4, rtol=1e-4)
        assert found.shape[2:] == (4, 4)
        network.save_pretrained(tmp_path / "fitted")
        loaded = load_network(tmp_path / "fitted").train()
        torch.testing.assert_close(loaded(pixels).logits, network(pixels).logits)
