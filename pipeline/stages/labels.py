"""carbseg labels: the pseudo-labels of a split, made or completed in OUT/labels/SPLIT.zarr; what CLIP's views see."""

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labelgen.images import read_image
from labelgen.layout import is_begun
from labelgen.samples import InputError, Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.names import look_up
from pipeline.progress import follow, progress, warn
from pipeline.stages.inspection import compare_views, views_panel
from pipeline.stages.run import TINY_CLIP, TINY_CLIP_NAME, Run, own_device, process_state
from pipeline.stages.tagging import about_tagger, load_tagger

if TYPE_CHECKING:
    import torch

    from labelgen.engines.engine import Engine, EngineSpec, Inputs
    from labelgen.maskclip import DenseCLIP
    from labelgen.tagger import Tagger

MASKCLIP = {"name": "maskclip"}  # what a store means that says nothing of its engine


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
    spec = _engine_spec(run, split)
    state, dense = process_state(), _load(run)
    samples = _labelled_samples(run, spec, split)
    unknown = next((sample["image_id"] for sample in samples if sample["image_labels"] is None), None)
    if unknown is not None and not run.config.tags.is_guessed:
        raise InputError(
            f"{unknown} has no image-level labels; give a labels file, or let CLIP guess them with --tags auto"
        )
    tagger = load_tagger(run) if run.config.tags.source == "model" else None
    if state.is_main_process:
        run.keep_suggestion()
        if spec.asks_clip:
            _warn_of_clip(run, dense)
    _settle_dtype(run, dense, samples[0], split)
    engine = _begin_engine(run, spec, dense, part)
    state.wait_for_everyone()
    from labelgen.generate import generate

    config = run.config.labels
    config = replace(config, views=replace(config.views, local=gives_local_views(run)))
    index, count = part
    trained_on = run.store_path(TRAIN_SPLIT)
    with progress(len(samples), f"pseudo-labels of {split}", "images", shown=state.is_main_process) as bar:
        move = follow(bar)

        def on_count(count: int) -> None:
            move(count)
            on_images(count)

        try:
            store = generate(
                samples,
                run.spec.classes,
                dense,
                run.store_path(split),
                config,
                engine=engine,
                tagger=tagger,
                like=PseudoLabelStore.open(trained_on) if split != TRAIN_SPLIT and is_begun(trained_on) else None,
                about={
                    "dataset": run.spec.name,
                    "split": split,
                    "clip_id": run.clip,
                    "image_labels": _about_image_labels(run, spec, tagger),
                }
                | _provenance(run, engine),
                part=(index - 1) * state.num_processes + state.process_index,
                parts=count * state.num_processes,
                on_images=on_count,
            )
        except KeyboardInterrupt:
            bar.write(
                "stopped by SIGINT; finished shards are saved; give the same command again to go on", file=sys.stderr
            )
            raise SystemExit(128 + signal.SIGINT) from None  # as training does
        state.wait_for_everyone()
        bar.update(int(store.is_written().sum()) - bar.n)
    return store


def _warn_of_clip(run: Run, dense: "DenseCLIP") -> None:
    """Say what of this run its CLIP is not made for."""
    from labelgen.generate import read_words

    classes, _ = read_words(run.spec.classes, run.config.labels)
    unknown = dense.unknown_words(name for names in classes.prompts for name in names)
    if unknown:
        warn(
            f"the CLIP {run.clip} does not know {', '.join(unknown)}, and takes all unknown words for one; choose "
            "other words (--set labels.prompts=FILE), or another CLIP (--clip)"
        )
    if run.clip == TINY_CLIP_NAME and run.spec.name != "toy":
        warn(
            f"the tiny CLIP has seen nothing but toy scenes: expect poor masks of {run.spec.name}; name a real one "
            "with --clip, such as openai/clip-vit-base-patch16"
        )


def gives_local_views(run: Run) -> bool:
    """Whether the run's pseudo-labels are to hold local views. Raises InputError for an unknown engine."""
    config = run.config.labels
    return engine_spec(config.engine).is_dense and config.views.local


def engine_spec(name: str) -> "EngineSpec":
    """The row of an engine, or of two as one (FIRST+SECOND). Raises InputError for a name that there is not."""
    from labelgen.engines.fusion import fused_spec
    from labelgen.engines.table import ENGINES

    specs = [look_up(ENGINES, part, "label engine") for part in name.split("+")]
    if len(specs) > 2:
        raise InputError(f"only two engines can be made one, such as maskclip+sam3, got {name}")
    return specs[0] if len(specs) == 1 else fused_spec(*specs)


def _engine_spec(run: Run, split: str) -> "EngineSpec":
    """The run's row of the table. Raises InputError for what it cannot do, and where labels are another engine's."""
    config = run.config.labels
    spec = engine_spec(config.engine)
    for name, asked in (("per_prompt", config.per_prompt), ("precision=int8", config.precision == "int8")):
        if asked and not spec.is_dense:
            raise InputError(f"labels.{name} is for engines that compare patches with words; {config.engine} does not")
    for path in (run.store_path(split), run.store_path(TRAIN_SPLIT)):
        was = PseudoLabelStore.open(path).provenance.get("engine", MASKCLIP)["name"] if is_begun(path) else None
        if was not in (None, config.engine):
            raise InputError(
                f"{path} was made with engine {was}, not {config.engine}; delete it, or choose another OUT"
            )
    return spec


def _labelled_samples(run: Run, spec: "EngineSpec", split: str) -> list[Sample]:
    """A split with its image-level labels; all classes in every image, where the engine uses none.

    Raises InputError for labels that were given to no avail.
    """
    from labelgen.engines.table import section

    if not spec.uses_labels(run.config):
        if run.config.tags.file or run.config.tags.is_guessed:
            own = f"{section(run.config.labels.engine)}.use_labels"
            raise InputError(
                f"--tags are image-level labels, which {own}=false leaves unused: set it to true, or drop them"
            )
        everything = list(range(len(run.spec.classes)))
        return [{**sample, "image_labels": everything} for sample in run.samples(split)]
    with process_state().main_process_first():  # the others find image-level labels derived
        return run.samples(split, with_tags=True)


def _about_image_labels(run: Run, spec: "EngineSpec", tagger: "Tagger | None") -> dict[str, Any]:
    """Where image-level labels are from, for provenance."""
    if not spec.uses_labels(run.config):
        return {"source": "none"}
    about = asdict(run.config.tags) | {"file": Path(run.config.tags.file).name}
    return about if tagger is None else about | {"tagger": about_tagger(run, tagger)}


def engine_inputs(run: Run, dense: "DenseCLIP") -> "Inputs":
    """What the engine of a run is begun with."""
    from labelgen.engines.engine import Inputs
    from labelgen.generate import read_words

    classes, _ = read_words(run.spec.classes, run.config.labels)
    return Inputs(dense, classes, run.config.labels.batch, run.config, run.out / "engine")


def _begin_engine(run: Run, spec: "EngineSpec", dense: "DenseCLIP", part: tuple[int, int]) -> "Engine":
    """The engine of the run, fitted first where it has to be. Raises InputError for what it lacks."""
    from labelgen.engines.regions import refined

    config, state, inputs = run.config.labels, process_state(), engine_inputs(run, dense)
    if spec.fit is not None:
        from labelgen.engines.fit import NETWORK
        from labelgen.training.processes import StoppedError

        if part[0] > 1 and not (inputs.folder / config.engine / NETWORK).is_dir():
            raise InputError(f"{config.engine} is fitted first, by --shard 1/{part[1]}; begin the others after that")
        samples = _labelled_samples(run, spec, TRAIN_SPLIT)
        with progress(0, f"fitting {config.engine}", "steps", shown=state.is_main_process) as bar:

            def on_step(step: int, steps: int) -> None:
                bar.total = steps
                bar.update(step - bar.n)

            try:
                spec.fit(inputs, samples, on_step)
            except StoppedError as stop:
                bar.write(f"{stop.message}; give the same command again to go on", file=sys.stderr)
                raise
    return refined(spec.begin(inputs), run.config.regions, dense.device)


def _provenance(run: Run, engine: "Engine") -> dict[str, Any]:
    """What is to be said of regions and engine; of MaskCLIP alone nothing, as in stores of before there were others."""
    from labelgen.engines.regions import WEIGHTS
    from labelgen.engines.table import settings_of

    name, regions = run.config.labels.engine, run.config.regions
    said: dict[str, Any] = {"regions": regions.about()} if regions.source else {}
    weights = dict(engine.weights)
    if WEIGHTS in weights:
        said["regions"]["weights_sha256"] = weights.pop(WEIGHTS)
    if name != MASKCLIP["name"]:
        said["engine"] = {"name": name, "settings": settings_of(run.config, name), "weights_sha256": weights}
    return said


def view_pictures(run: Run, image: Path, present: Sequence[int]) -> NDArray[np.uint8]:
    """A panel of what each kind of view sees in one image (CARB, Fig. 3), of the classes that it shows."""
    image_HW3 = read_image(image)
    from labelgen.generate import read_words
    from labelgen.prompts import sentences

    shown: Sample = {
        "image_id": image.stem,
        "image_path": str(image),
        "label_path": None,
        "image_labels": list(present),
    }
    dense, config = load_dense(run, shown), run.config.labels
    classes, templates = read_words(run.spec.classes, config)
    text_CD = dense.encode_text(sentences(classes.prompts, templates))
    return views_panel(image_HW3, compare_views(image, dense, text_CD, config.views, config.batch), classes, present)


def load_dense(run: Run, sample: Sample) -> "DenseCLIP":
    """The frozen CLIP of a run, on this process's device.

    With labels.dtype=auto it computes as the training labels were made; where there are none, as a probe on the sample
    says.
    """
    dense = _load(run)
    _settle_dtype(run, dense, sample, TRAIN_SPLIT)
    return dense


def _load(run: Run) -> "DenseCLIP":
    from labelgen.generate import load_clip

    folder_or_id = TINY_CLIP if run.clip == TINY_CLIP_NAME else run.clip
    return load_clip(folder_or_id, run.config.labels, own_device())


def _settle_dtype(run: Run, dense: "DenseCLIP", sample: Sample, split: str) -> None:
    """With labels.dtype=auto: compute as the split's store or the training labels were made, else as a probe says.

    One process decides for all: what it finds, another one might not.
    """
    if run.config.labels.dtype != "auto":
        return
    from accelerate.utils import broadcast_object_list

    is_main = process_state().is_main_process
    (dtype,) = broadcast_object_list([(_made_in(run, split) or _probe(run, dense, sample)) if is_main else None])
    dense.compute_in(dtype)


def _made_in(run: Run, split: str) -> "torch.dtype | None":
    """What CLIP computed in for the store of a split, or else for the training labels, if there is any."""
    import torch

    for path in (run.store_path(split), run.store_path(TRAIN_SPLIT)):
        if is_begun(path):
            settings = PseudoLabelStore.open(path).provenance["labels"]
            while "round_before" in settings:  # a student's predictions, made from another store
                settings = settings["round_before"]
            dtype: torch.dtype = getattr(torch, settings["dtype"])
            return dtype
    return None


def _probe(run: Run, dense: "DenseCLIP", sample: Sample) -> "torch.dtype":
    from labelgen.generate import read_words
    from labelgen.label import prepare
    from labelgen.probe import probe
    from labelgen.prompts import sentences

    classes, templates = read_words(run.spec.classes, run.config.labels)
    text_CD = dense.encode_text(sentences(classes.prompts, templates[:1]))  # with all of them it would take seconds
    whole_HW3 = prepare(sample, run.config.labels.views, dense.patch_px).pixels_HW3[0]
    choice = probe(dense, whole_HW3, text_CD, sample["image_labels"])
    print(choice, file=sys.stderr)
    return choice.dtype
