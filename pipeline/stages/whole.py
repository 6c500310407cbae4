"""carbseg run: all stages in one go. It says what comes next and how long that takes, and shows masks early.

OUT/sheets/first.png    the first images with their pseudo-labels, as soon as there are some
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from labelgen.images import write_png
from labelgen.layout import is_begun
from labelgen.samples import Sample
from labelgen.store import PseudoLabelStore
from pipeline.datasets.layouts import TRAIN_SPLIT
from pipeline.progress import duration, say
from pipeline.stages.engines import trainable
from pipeline.stages.estimates import seconds_per_step
from pipeline.stages.inspection import contact_sheet, masks_by_view
from pipeline.stages.labels import make_labels
from pipeline.stages.reporting import report
from pipeline.stages.run import Run, process_state
from pipeline.stages.scoring import Scored, evaluate
from pipeline.stages.students import require_local_views, train_student, variants

FIRST = 6  # images of the first picture
USUAL = ("base", "local+carb")  # students, rows of CARB's Table 1


def run_all(run: Run, split: str, names: Sequence[str] = ()) -> tuple[Scored, Path]:
    """Labels, the named students, scores on `split`, report; returns the scores and the path of the report.

    Without names, USUAL students: on whole images where there are no local views.
    """
    names = names or [trainable(run, name) for name in USUAL]
    configs = variants(run.config.train, names)
    require_local_views(run, configs)
    scored_on = run.samples(split, with_truth=True)  # a missing split should not wait for the training
    samples = run.samples_to_look_at(TRAIN_SPLIT)
    is_main = process_state().is_main_process

    def next_is(what: str) -> None:
        if is_main:
            say(f"next: {what}")

    next_is(f"pseudo-labels of {len(samples)} images; then {len(names)} students, scores and the report")
    make_labels(run, TRAIN_SPLIT, on_images=_first_look(run, samples) if is_main else lambda count: None)
    step_s = seconds_per_step(run)
    for name, config in configs.items():
        next_is(f"student {name}, {config.steps} steps, about {duration(step_s * config.steps)}")
        train_student(run, config, name)
    next_is(f"scores of pseudo-labels and students on {len(scored_on)} images of {split}, and the report")
    scored = evaluate(run, split, names)
    return scored, report(run, scored) if is_main else run.out


def _first_look(run: Run, samples: Sequence[Sample]) -> Callable[[int], None]:
    """What to call now and then while labels are made: it draws the first images once they are in the store."""
    started, first = time.monotonic(), samples[:FIRST]
    path, file = run.store_path(TRAIN_SPLIT), run.out / "sheets" / "first.png"

    def look(count: int) -> None:
        if file.exists() or count < len(first) or not is_begun(path):
            return
        store = PseudoLabelStore.open(path)
        if store.missing(sample["image_id"] for sample in first):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        write_png(file, contact_sheet(run.spec, first, masks_by_view(store), FIRST))
        waited = duration(time.monotonic() - started)
        say(f"first pseudo-labels after {waited}: {file} (image | truth | global | local | fused)")

    return look
