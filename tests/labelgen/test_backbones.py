"""Backbones: strides and dilations, ImageNet weights of every kind."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetModel

from labelgen.backbones import DilatedResNet, _hf_name
from labelgen.samples import InputError

# One block a stage and narrow: the same code as ResNet-50, in a hundredth of the time.
NARROW: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 2, 2, 2],
    "layer_type": "bottleneck",
}


def test_resnet_has_stride_8_and_the_dilations_of_the_paper() -> None:
    backbone = DilatedResNet((1, 2, 2, 2), first_width=8)
    fine, deep = backbone.eval()(torch.randn(1, 3, 64, 96))
    assert fine is None
    assert deep.shape == (1, backbone.channels, 8, 12)
    assert backbone.channels == 256
    spatial = [
        [m.dilation[0] for m in stage.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
        for stage in backbone.resnet.encoder.stages
    ]
    assert spatial == [[1], [1, 1], [1, 2], [2, 4]]


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_dilated_resnet_sees_what_the_plain_one_sees_at_its_places(
    stride_in_1x1: bool, output_stride: Literal[8, 16], tmp_path: Path
) -> None:
    """Dilation keeps what a filter sees: where strides are dropped, every n-th feature is the plain network's."""
    torch.manual_seed(0)
    plain = ResNetModel(ResNetConfig(**NARROW, downsample_in_bottleneck=stride_in_1x1)).eval()
    plain.save_pretrained(tmp_path)
    backbone = DilatedResNet((1, 2, 2, 2), first_width=8, output_stride=output_stride).eval()
    backbone.load_imagenet(str(tmp_path))
    assert backbone.stride_in_1x1 is stride_in_1x1
    pixels = torch.randn(1, 3, 128, 128)
    every = 32 // output_stride
    with torch.inference_mode():
        expected = plain(pixels).last_hidden_state
        found = backbone(pixels)[1]
    assert found.shape[2:] == (128 // output_stride, 128 // output_stride)
    torch.testing.assert_close(found[:, :, ::every, ::every], expected, atol=1e-4, rtol=1e-4)


def test_imagenet_weights_come_from_a_hf_folder(tmp_path: Path) -> None:
    source = ResNetModel(ResNetConfig(**NARROW))
    source.save_pretrained(tmp_path)
    backbone = DilatedResNet((1, 2, 2, 2), first_width=8)
    backbone.load_imagenet(str(tmp_path))
    assert torch.equal(
        backbone.resnet.encoder.stages[3].layers[1].layer[1].convolution.weight,
        source.encoder.stages[3].layers[1].layer[1].convolution.weight,
    )
    with pytest.raises(InputError, match="do not fit this backbone: mmseg's v1c weights need student.deep_stem=true"):
        DilatedResNet((1, 1, 1, 1), first_width=8).load_imagenet(str(tmp_path))
    with pytest.raises(InputError, match="no ImageNet weights at 'nobody/resnet'"):
        backbone.load_imagenet("nobody/resnet")
    ResNetModel(ResNetConfig(**NARROW, downsample_in_first_stage=True)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="strides in its first stage, which no backbone here does"):
        backbone.load_imagenet(str(tmp_path))


def test_frozen_stages_stay_as_they_are_and_the_others_learn() -> None:
    backbone = DilatedResNet((1, 2, 2, 2), first_width=8)
    backbone.freeze(2)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone.train()(torch.randn(2, 3, 32, 32))[1].square().mean().backward()
    optimizer.step()
    moved = {name for name, tensor in backbone.state_dict().items() if not torch.equal(tensor, before[name])}
    frozen = ("resnet.embedder.", "resnet.encoder.stages.0.", "resnet.encoder.stages.1.")
    assert moved
    assert not [name for name in moved if name.startswith(frozen)]  # batch statistics neither
    assert all(name in moved for name in before if "stages.2." in name and name.endswith("running_mean"))


def mmseg_names(depths: tuple[int, ...]) -> list[str]:
    """Modules of mmseg's ResNet-v1c, in its own words."""
    names = [f"stem.{3 * i + j}" for i in range(3) for j in (0, 1)]
    for stage, depth in enumerate(depths, 1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            names += [f"{prefix}.{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn")]
            names += [f"{prefix}.downsample.0", f"{prefix}.downsample.1"] if block == 0 else []
    return names


def test_weights_with_mmseg_names_fill_a_deep_stem_resnet(tmp_path: Path) -> None:
    backbone = DilatedResNet((1, 2, 2, 2), deep_stem=True, first_width=8)
    ours = dict(backbone.resnet.state_dict())
    theirs = {}
    for module in mmseg_names((1, 2, 2, 2)):
        for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            if (name := _hf_name(f"{module}.{leaf}")) in ours:
                theirs[f"backbone.{module}.{leaf}"] = torch.randn_like(ours[name].float())
    assert len(theirs) == len(ours)  # every tensor has a name of theirs
    save_file(theirs | {"fc.weight": torch.zeros(10, 256)}, tmp_path / "resnet_v1c.safetensors")
    backbone.load_imagenet(str(tmp_path / "resnet_v1c.safetensors"))
    torch.testing.assert_close(backbone.resnet.embedder.embedder[1][0].weight, theirs["backbone.stem.3.weight"])
    torch.testing.assert_close(
        backbone.resnet.encoder.stages[2].layers[0].shortcut.normalization.bias,
        theirs["backbone.layer3.0.downsample.1.bias"],
    )
    torch.save({"state_dict": theirs}, tmp_path / "resnet_v1c.pth")
    with pytest.raises(
        InputError, match="resnet_v1c.pth is no safetensors file, .* convert it with Python: safetensors"
    ):
        backbone.load_imagenet(str(tmp_path / "resnet_v1c.pth"))
