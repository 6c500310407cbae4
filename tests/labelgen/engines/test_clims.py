"""CLIMS: the public code's numbers, the paper's form by hand, its words, its fit."""

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from labelgen.engines.cam import CamConfig, build_network
from labelgen.engines.clims import (
    CODE_WEIGHTS,
    PAPER_WEIGHTS,
    ClimsConfig,
    ClimsLosses,
    clims_losses,
    cooccurring_words,
    fit_clims,
    image_encoder,
)
from labelgen.engines.fit import FitStep
from labelgen.maskclip import DenseCLIP
from labelgen.samples import ClassSet, InputError, Sample

GOLDEN = Path(__file__).parent.parent / "golden"


def test_terms_and_gradient_equal_the_public_code() -> None:
    golden = {name: torch.from_numpy(np.asarray(array)) for name, array in np.load(GOLDEN / "clims.npz").items()}
    dense = DenseCLIP.from_pretrained(GOLDEN / "tiny_clip_patch16")
    activation = golden["activation"].requires_grad_()
    losses = clims_losses(
        golden["images"],
        activation,
        golden["labels"],
        golden["class_vectors"],
        golden["background_vectors"],
        image_encoder(dense, 64),
        int(golden["clip_size"]),
        float(golden["threshold"]),
    )
    for name, term in losses._asdict().items():
        assert term.item() == pytest.approx(golden[name].item(), abs=1e-5), name
    total = sum(weight * term for weight, term in zip(CODE_WEIGHTS, losses, strict=True))
    assert isinstance(total, Tensor)
    total.backward()
    torch.testing.assert_close(activation.grad, golden["gradient"], atol=1e-5, rtol=1e-4)


def test_images_in_parts_have_the_same_vectors_and_gradients() -> None:
    dense = DenseCLIP.from_pretrained(GOLDEN / "tiny_clip_patch16")
    results = []
    for batch in (64, 2):
        pixels = torch.randn(5, 3, 112, 112, generator=torch.Generator().manual_seed(0)).requires_grad_()
        vectors = image_encoder(dense, batch)(pixels)
        vectors.square().sum().backward()
        results.append((vectors, pixels.grad))
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(whole, parts)


# One image of 2 x 2 pixels, red on the left and green on the right; CLIP sees the mean colour.
IMAGE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])[None, :, None, :].expand(1, 3, 2, 2)
LEFT = [[1.0, 0.0], [1.0, 0.0]]
CLASSES = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]])  # cosine 0.6 with red, 0.8 with green
BACKGROUNDS = torch.tensor([[8.0, 6.0, 0.0], [0.5, 0.0, 0.5**0.5 * 1.5**0.5], [-1.0, 0.0, 0.0]])  # red: 0.8, 0.5, -1


def mean_colour(pixels_N3SS: Tensor) -> Tensor:
    return pixels_N3SS.mean((2, 3))


def losses(
    labels: list[int], faithful: bool, *, threshold: float = 0.26, words: list[bool] | None = None
) -> ClimsLosses:
    activation = torch.tensor([[LEFT, [[0.1, 0.1], [0.1, 0.1]]]])
    own = None if words is None else torch.tensor([words, [False] * 3])
    said = torch.tensor([labels])
    return clims_losses(IMAGE, activation, said, CLASSES, BACKGROUNDS, mean_colour, 2, threshold, faithful, own)


@pytest.mark.parametrize("faithful", [True, False])
def test_object_background_and_area_worked_out_by_hand(faithful: bool) -> None:
    found = losses([1, 0], faithful)
    assert found.object_text.item() == pytest.approx(-log(0.6))
    assert found.background_text.item() == pytest.approx(-log(1 - 0.8))
    assert found.area.item() == pytest.approx((0.5 + 0.1) / 2)  # of all classes


def test_cooccurring_backgrounds_are_a_sum_above_the_threshold_in_the_code_and_a_mean_in_the_paper() -> None:
    high, low, clamped = -log(1 - 0.8), -log(1 - 0.5), -log(1 - 1e-4)
    assert losses([1, 0], True).cooccurring.item() == pytest.approx(high + low)
    assert losses([1, 0], True, threshold=0.6).cooccurring.item() == pytest.approx(high)
    assert losses([1, 0], True, threshold=0.9).cooccurring.item() == 0
    assert losses([1, 0], False).cooccurring.item() == pytest.approx((high + low + clamped) / 3)
    own = losses([1, 0], False, words=[True, False, True])
    assert own.cooccurring.item() == pytest.approx((high + clamped) / 2)
    assert losses([1, 0], False, words=[False] * 3).cooccurring.item() == 0


def test_a_class_that_clip_does_not_see_is_clamped() -> None:
    found = losses([0, 1], False)  # its vector is at right angles to both colours
    assert found.object_text.item() == pytest.approx(-log(1e-4), rel=1e-4)
    assert found.background_text.item() == pytest.approx(-log(1 - 1e-4), rel=1e-3)


def test_an_image_that_shows_no_class_has_an_area_only() -> None:
    assert [term.item() for term in losses([0, 0], False)] == pytest.approx([0, 0, 0, 0.3])


def test_words_of_backgrounds_are_no_classes_and_can_be_given(tmp_path: Path) -> None:
    grey = (0, 0, 0)
    two = ClassSet(("person", "bench", "kiosk"), (("pedestrian",), ("bench",), ("kiosk",)), (grey,) * 3)
    words, cooccurs = cooccurring_words(two)
    assert words == ["umbrella", "stroller", "shop window"]  # of pedestrian; bench is a class here
    assert cooccurs.tolist() == [[True] * 3, [False] * 3, [False] * 3]
    path = tmp_path / "words.toml"
    path.write_text('kiosk = ["newspaper", "umbrella"]')
    words, cooccurs = cooccurring_words(two, str(path))
    assert words == ["umbrella", "stroller", "shop window", "newspaper"]
    assert cooccurs[2].tolist() == [True, False, False, True]
    path.write_text('tank = ["desert"]')
    with pytest.raises(InputError, match="unknown class 'tank'; known: person, bench, kiosk"):
        cooccurring_words(two, str(path))
    nothing, cooccurs = cooccurring_words(ClassSet(("cat",), (("cat",),), (grey,)))
    assert (nothing, cooccurs.shape) == ([], (1, 0))


CONFIG = ClimsConfig(epochs=1, batch=2, crop=(32, 64), long_side=(64, 96), clip_batch=8, readers=1)


@pytest.mark.parametrize("faithful", [False, True])
def test_a_fit_begins_with_cam_and_leaves_it_as_it_was(
    faithful: bool, samples: list[Sample], classes: ClassSet, clip_folder: Path, tmp_path: Path
) -> None:
    cam = build_network(CamConfig(backbone="light", width=4), classes).eval()
    before = {name: value.clone() for name, value in cam.state_dict().items()}
    dense = DenseCLIP.from_pretrained(clip_folder)
    steps: list[FitStep] = []
    config = replace(CONFIG, faithful=faithful)
    network = fit_clims(samples[:4], classes, dense, cam, tmp_path, config, on_step=steps.append)
    assert [step.step for step in steps] == [1, 2]
    assert list(steps[0].terms) == ["object_text", "background_text", "cooccurring", "area"]
    assert steps[0].terms["area"] == pytest.approx(config.term_weights[3] * 0.5, rel=0.3)  # sigmoid of nearly nothing
    assert all(torch.equal(before[name], value) for name, value in cam.state_dict().items())
    assert not torch.equal(network.head.weight, cam.head.weight)
    cam.config.fitted = {"cam": {"epochs": 3}}
    with pytest.raises(InputError, match="trained with cam network.cam = None, not"):
        fit_clims(samples[:4], classes, dense, cam, tmp_path, config)


def test_weights_are_the_paper_s_the_code_s_or_given() -> None:
    assert ClimsConfig().term_weights == PAPER_WEIGHTS
    assert ClimsConfig(faithful=True).term_weights == CODE_WEIGHTS
    assert ClimsConfig(faithful=True, weights=(1, 2, 3, 4)).term_weights == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1.0, 2.0, -1.0, 0.0)}, "clims.weights must be four weights that are not negative"),
        ({"weights": (1.0, 2.0)}, "clims.weights must be four weights that are not negative"),
        ({"threshold": 2.0}, r"clims.threshold must be a cosine in \[-1, 1\], got 2.0"),
        ({"clip_batch": 0}, "clims.clip_batch must be at least 1, got 0"),
        ({"batch": 0}, "clims.batch must be at least 1, got 0"),
    ],
)
def test_settings_that_fit_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClimsConfig(**settings)  # type: ignore[arg-type]
