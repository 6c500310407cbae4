"""The fitting loop: crops, resuming, what it refuses."""

import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelgen.engines.cam import CamConfig, fit_cam
from labelgen.engines.fit import NETWORK, FitStep, draw_crop
from labelgen.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from labelgen.samples import ClassSet, InputError, Sample
from labelgen.training.checkpoints import last_checkpoint, saved_step
from pipeline.datasets import DATASETS
from tests.conftest import FORKS

CONFIG = CamConfig(
    backbone="light",
    width=4,
    optimizer="adamw",
    learning_rate=3e-3,
    epochs=2,
    batch=4,
    crop=(32, 64),
    long_side=(64, 96),
    checkpoint_every=2,
    readers=1,
)
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)


class Cut(Exception):
    pass


def weights(folder: Path) -> bytes:
    return (folder / NETWORK / "model.safetensors").read_bytes()


def test_a_small_image_lies_whole_in_the_crop_with_mean_colour_around_it() -> None:
    places, mirrored = set(), set()
    for seed in range(200):
        crop = draw_crop(IMAGE, np.random.default_rng(seed), (40, 40), (24, 44))
        assert crop.shape == (3, 24, 44)
        rows, columns = (np.flatnonzero(crop.any((0, axis))) for axis in (2, 1))
        assert (len(rows), len(columns)) == (20, 40)
        found = crop[:, rows[0] : rows[0] + 20, columns[0] : columns[0] + 40]
        whole = normalise(IMAGE, IMAGENET_MEAN, IMAGENET_STD)
        mirrored.add(np.array_equal(found, whole[:, :, ::-1]))
        assert np.array_equal(found, whole) or np.array_equal(found, whole[:, :, ::-1])
        places.add((int(rows[0]), int(columns[0])))
    assert mirrored == {False, True}
    assert {row for row, _ in places} == {column for _, column in places} == set(range(5))


def test_a_large_image_is_cut_at_every_place_and_every_size() -> None:
    image = np.tile(np.arange(40, dtype=np.uint8)[:, None, None], (1, 40, 3))
    first = set()
    for seed in range(200):
        crop = draw_crop(image, np.random.default_rng(seed), (40, 40), (36, 36))
        rows = np.round((crop[0, :, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255)
        assert np.array_equal(rows, np.arange(rows[0], rows[0] + 36))
        first.add(int(rows[0]))
    assert first == set(range(5))  # the last place can be reached
    heights = {
        int(np.any(draw_crop(IMAGE + 1, np.random.default_rng(seed), (40, 44), (40, 80)), (0, 2)).sum())
        for seed in range(50)
    }
    assert heights == {20, 21, 22}


def test_a_fit_is_kept_whole_and_asked_for_again_it_is_there(
    samples: list[Sample], classes: ClassSet, tmp_path: Path
) -> None:
    steps: list[FitStep] = []
    network = fit_cam(samples, classes, tmp_path, CONFIG, on_step=steps.append)
    assert [(one.step, one.steps) for one in steps] == [(n, 5) for n in range(1, 6)]
    assert steps[-1].terms["cross_entropy"] < steps[0].terms["cross_entropy"]
    assert [path.name for path in tmp_path.iterdir()] == [NETWORK]
    again = fit_cam(samples, classes, tmp_path, replace(CONFIG, scales=(1.0,), readers=2), on_step=steps.append)
    assert len(steps) == 5
    assert not network.training
    assert all((a == b).all() for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_a_cut_fit_goes_on_as_if_it_had_not_been(samples: list[Sample], classes: ClassSet, tmp_path: Path) -> None:
    whole: list[FitStep] = []
    later: list[FitStep] = []

    def cut(step: FitStep) -> None:
        if step.step == 3:
            raise Cut

    fit_cam(samples, classes, tmp_path / "whole", CONFIG, on_step=whole.append)
    with pytest.raises(Cut):
        fit_cam(samples, classes, tmp_path / "cut", CONFIG, on_step=cut)
    assert saved_step(tmp_path / "cut") == 2
    fit_cam(samples, classes, tmp_path / "cut", CONFIG, on_step=later.append)
    assert later == whole[2:]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def fit_slowly(samples: Sequence[Sample], folder: Path) -> None:
    """For a process of its own, to be stopped in the middle."""
    fit_cam(samples, DATASETS["toy"].classes, folder, CONFIG_LONG, on_step=lambda step: time.sleep(0.05))


CONFIG_LONG = replace(CONFIG, epochs=12, checkpoint_every=1)  # 30 steps


@pytest.mark.slow
def test_a_fit_that_was_stopped_and_killed_ends_as_an_uninterrupted_one(
    samples: list[Sample], classes: ClassSet, tmp_path: Path
) -> None:
    folder = tmp_path / "cut"
    for number, after in ((signal.SIGTERM, 3), (signal.SIGKILL, 12)):
        run = FORKS.Process(target=fit_slowly, args=(samples, folder))
        run.start()
        while run.is_alive() and str(last_checkpoint(folder) or "") < str(folder / f"checkpoint-{after:08d}.pt"):
            time.sleep(0.01)
        if number == signal.SIGTERM:
            run.terminate()
        else:
            run.kill()
        run.join()
        assert run.exitcode == (128 + number if number == signal.SIGTERM else -number)
        assert after <= saved_step(folder) < 30
    assert not (folder / NETWORK).exists()
    fit_cam(samples, classes, folder, CONFIG_LONG)
    fit_cam(samples, classes, tmp_path / "whole", CONFIG_LONG)
    assert weights(folder) == weights(tmp_path / "whole")


def test_a_fit_of_other_settings_or_labels_is_refused(samples: list[Sample], classes: ClassSet, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    fit_cam(samples, classes, tmp_path, config)
    with pytest.raises(InputError, match="trained with cam.epochs = 1, not 3; delete that folder to start anew"):
        fit_cam(samples, classes, tmp_path, replace(CONFIG, epochs=3))
    others = [Sample(**sample | {"image_labels": [0]}) for sample in samples]
    with pytest.raises(InputError, match="trained with image_labels_sha256"):
        fit_cam(others, classes, tmp_path, config)
    with pytest.raises(InputError, match="trained with backbone = None, not 'mine'"):
        fit_cam(samples, classes, tmp_path, config, about={"backbone": "mine"})


def test_images_whose_labels_nobody_has_said_are_left_out(
    samples: list[Sample], classes: ClassSet, tmp_path: Path
) -> None:
    unknown = [Sample(**sample | {"image_labels": None, "image_path": "nowhere"}) for sample in samples]
    fit_cam([*unknown, *samples], classes, tmp_path / "mixed", replace(CONFIG, epochs=1))
    with pytest.raises(InputError, match="none of 10 images has image-level labels, which cam is fitted to"):
        fit_cam(unknown, classes, tmp_path / "unknown", CONFIG)


def test_images_that_show_no_class_are_fitted_to_that(samples: list[Sample], classes: ClassSet, tmp_path: Path) -> None:
    empty = [Sample(**sample | {"image_labels": []}) for sample in samples]
    steps: list[FitStep] = []
    fit_cam(empty, classes, tmp_path, CONFIG, on_step=steps.append)
    assert steps[-1].terms["cross_entropy"] < steps[0].terms["cross_entropy"]


def test_a_loss_that_is_not_finite_names_the_images_and_leaves_nothing(
    samples: list[Sample], classes: ClassSet, tmp_path: Path
) -> None:
    steep = replace(CONFIG, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(
        InputError, match=r"the loss is (nan|inf) at step \d, on toy_\d+(, toy_\d+){3}; .* lower learning_rate \(now 1e"
    ):
        fit_cam(samples, classes, tmp_path, steep)
    assert not (tmp_path / NETWORK).exists()
