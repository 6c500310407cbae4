"""carbseg labels: the pseudo-labels of a split, made or completed in OUT/labels/SPLIT.zarr; what CLIP's views see."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labelgen.images import read_image
from labelgen.layout import store_exists
from labelgen.samples import InputError
from labelgen.store import PseudoLabelStore
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.progress import follow, progress
from pipeline.stages.inspection import compare_views, views_panel
from pipeline.stages.run import TINY_CLIP, TINY_CLIP_NAME, Run, process_state

if TYPE_CHECKING:
    from labelgen.maskclip import DenseCLIP


def make_labels(
    run: Run,
    split: str,
    part: tuple[int, int] = (1, 1),
    on_images: Callable[[int], object] = lambda count: None,
) -> PseudoLabelStore:
    """Pseudo-labels of a split, made or completed. part: (i, n) makes the i-th of n parts, counted from 1.

    on_images hears how many images are done.
    """
    run.samples(split)  # what is missing should be said before CLIP is loaded and label maps are read
    state, dense = process_state(), load_dense(run)
    with state.main_process_first():  # the others find image-level labels derived
        samples = run.samples(split, with_tags=True)
    unknown = next((sample["image_id"] for sample in samples if sample["image_labels"] is None), None)
    if unknown is not None and run.config.tags.source != "auto":
        raise InputError(
            f"{unknown} has no image-level labels; give a labels file, or let CLIP guess them with --tags auto"
        )
    if state.is_main_process:
        run.keep_suggestion()
    from labelgen.generate import generate

    index, count = part
    trained_on = run.store_path(TRAIN_SPLIT)
    with progress(len(samples), f"pseudo-labels of {split}", "images", shown=state.is_main_process) as bar:
        move = follow(bar)

        def on_count(count: int) -> None:
            move(count)
            on_images(count)

        store = generate(
            samples,
            run.spec.classes,
            dense,
            run.store_path(split),
            run.config.labels,
            like=PseudoLabelStore.open(trained_on) if split != TRAIN_SPLIT and store_exists(trained_on) else None,
            about={
                "dataset": run.spec.name,
                "split": split,
                "clip_id": run.clip,
                "image_labels": asdict(run.config.tags) | {"file": Path(run.config.tags.file).name},
            },
            part=(index - 1) * state.num_processes + state.process_index,
            parts=count * state.num_processes,
            on_images=on_count,
        )
        state.wait_for_everyone()
        bar.update(int(store.is_written().sum()) - bar.n)
    return store


def view_pictures(run: Run, image: Path, present: Sequence[int]) -> NDArray[np.uint8]:
    """A panel of what each kind of view sees in one image (CARB, Fig. 3), of the classes that it shows."""
    image_HW3 = read_image(image)
    from labelgen.generate import read_words
    from labelgen.prompts import sentences

    dense, config = load_dense(run), run.config.labels
    classes, templates = read_words(run.spec.classes, config)
    text_CD = dense.encode_text(sentences(classes.prompts, templates))
    return views_panel(image_HW3, compare_views(image, dense, text_CD, config.views, config.batch), classes, present)


def load_dense(run: Run) -> "DenseCLIP":
    """The frozen CLIP of a run, on this process's device."""
    from labelgen.generate import load_clip

    folder_or_id = TINY_CLIP if run.clip == TINY_CLIP_NAME else run.clip
    return load_clip(folder_or_id, run.config.labels, process_state().device)
