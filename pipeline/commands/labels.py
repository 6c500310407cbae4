"""carbseg labels: make pseudo-labels, and look after the stores they are in."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelgen.samples import InputError, is_whole_number
from pipeline.commands.options import DefaultCommand, run_options
from pipeline.names import printable

if TYPE_CHECKING:
    from pipeline.stages.run import Run


@click.group(cls=DefaultCommand)
def labels() -> None:
    """Pseudo-labels: make them ('labels --dataset ...' is short for 'labels make --dataset ...'), check, export."""


@labels.command("make")
@run_options
@click.option("--split", default="train", show_default=True, help="Split to label.")
@click.option("--shard", metavar="I/N", default="1/1", help="Make only the I-th of N parts, as one job of an array.")
def make(run: "Run", split: str, shard: str) -> None:
    """Make dense pseudo-labels of a split with CLIP; run again to resume."""
    from pipeline.stages.labels import make_labels

    click.echo(repr(make_labels(run, split, _part(shard))))


@labels.command()
@click.argument("store")
def info(store: str) -> None:
    """Say what is in the STORE (folder or URL) and what made it."""
    import json

    from labelgen.store import PseudoLabelStore

    opened = PseudoLabelStore.open(store)
    click.echo(repr(opened))
    click.echo(f"{'array':18} {'shape':28} {'type':8} axes")
    for name, shape, dtype, axes in opened.arrays():
        click.echo(f"{name:18} {' x '.join(map(str, shape)):28} {dtype:8} {', '.join(axes)}")
    for name, count in zip(opened.class_names, opened.image_labels.sum(0), strict=True):
        click.echo(f"  {name:16} in {count} images")
    about = {key: value for key, value in opened.provenance.items() if key != "classes"}
    click.echo(printable(json.dumps(about, indent=1, ensure_ascii=False)))


@labels.command()
@click.argument("store")
@click.option("--redo", is_flag=True, help="Take back the markers of damaged shards: 'labels' makes them again.")
def verify(store: str, redo: bool) -> None:
    """Check every array of the STORE (folder or URL) against its checksums; say what to make again."""
    from labelgen.store import AGAIN, PseudoLabelStore
    from labelgen.verify import verify as check
    from pipeline.progress import progress

    opened = PseudoLabelStore.open(store, writable=redo)
    with progress(len(opened), "verifying", "images") as bar:
        damages = check(opened, bar.update)
    for damage in damages:
        names = [opened.image_ids[row] for row in damage.rows]
        click.echo(printable(f"{names[0]} ... {names[-1]} ({len(names)} images): {damage.reason}"))
        if redo:
            opened.forget(damage.rows)
    missing = len(opened) - int(opened.is_written().sum())
    if damages and not redo:
        raise InputError(f"{len(damages)} shards are damaged; 'labels verify --redo', then 'labels', makes them again")
    if missing and not redo:
        raise InputError(f"{opened!r}: as written, but {missing} images are still to be made; {AGAIN}")
    click.echo(f"{len(damages)} shards to make again" if redo else f"{opened!r}: as written")


@labels.command()
@run_options
@click.option("--split", default="train", show_default=True, help="Split whose pseudo-labels to score; needs truth.")
def score(run: "Run", split: str) -> None:
    """Score pseudo-labels (IoU, precision, recall) and image-level labels against truth, where there is some."""
    from evaluation.scores import percent
    from evaluation.tables import markdown_by_class
    from labelgen.store import PseudoLabelStore
    from pipeline.progress import progress
    from pipeline.runs import write_json
    from pipeline.stages.inspection import score_labels

    store = PseudoLabelStore.open(run.store_path(split))
    store.require_complete()
    samples = run.samples(split, with_truth=True)
    with progress(len(samples), f"scoring {split}", "images") as bar:
        tallies, image_labels = score_labels(run.spec, samples, store, bar.update)
    rows = {view: tally.as_dict(store.class_names) for view, tally in tallies.items()}
    click.echo(f"Pseudo-labels in {store.path} against truth, percent; {len(samples)} images")
    click.echo(markdown_by_class(rows, store.class_names))
    right, found = percent(image_labels.precision), percent(image_labels.recall)
    about = {
        "auto": " (guessed by CLIP)",
        "model": " (guessed by a tagger)",
        "none": " (none given: every class may be in every image)",
    }
    source = about.get(store.provenance["image_labels"]["source"], "")
    click.echo(f"\nimage-level labels{source}: precision {right}, recall {found}")
    file = run.out / f"labels-{split}.json"
    write_json(file, {"rows": rows, "image_labels": {"precision": right, "recall": found}})
    click.echo(f"scores in {file}")


@labels.command()
@run_options
@click.option("--split", default="train", show_default=True, help="Split to show.")
@click.option("--images", default=8, show_default=True, type=click.IntRange(1), help="How many.")
def sheet(run: "Run", split: str, images: int) -> None:
    """Draw a contact sheet: some images with their global, local and fused pseudo-labels."""
    from labelgen.images import write_png
    from labelgen.store import PseudoLabelStore
    from pipeline.stages.inspection import contact_sheet, masks_by_view

    store = PseudoLabelStore.open(run.store_path(split))
    samples = run.samples(split)
    absent = set(store.missing(sample["image_id"] for sample in samples))
    written = [sample for sample in samples if sample["image_id"] not in absent]
    if not written:
        raise InputError(f"{store.path} holds no image of {split} yet; run 'make pseudolabels' first")
    file = run.out / "sheets" / f"{split}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_png(file, contact_sheet(run.spec, written, masks_by_view(store), images))
    click.echo(f"contact sheet in {file}")


@labels.command()
@click.argument("store")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--view", type=click.Choice(["global", "local", "fused"]), default="fused", show_default=True, help="Which."
)
@click.option(
    "--layout",
    type=click.Choice(["plain", "cityscapes"]),
    default="plain",
    show_default=True,
    help="plain: NAME.png with train ids; cityscapes: CITY/NAME_gtFine_labelIds.png with Cityscapes' label ids.",
)
def export(store: str, folder: Path, view: str, layout: str) -> None:
    """Write the masks of the STORE (folder or URL) into FOLDER as indexed PNGs, for other trainers and tools."""
    from labelgen.store import PseudoLabelStore
    from pipeline.progress import progress
    from pipeline.stages.inspection import cityscapes_ids, cityscapes_name, export_masks

    if "://" in str(folder) or ":/" in str(folder):
        raise InputError(f"masks are exported to a folder, not to a URL, got {str(folder)!r}")
    opened = PseudoLabelStore.open(store)
    with progress(len(opened), "exporting", "images") as bar:
        if layout == "cityscapes":
            ids = cityscapes_ids(opened.class_names)
            count = export_masks(opened, folder, view, cityscapes_name, ids, bar.update)  # type: ignore[arg-type]
        else:
            count = export_masks(opened, folder, view, on_images=bar.update)  # type: ignore[arg-type]
    click.echo(f"{count} masks in {folder}")


@labels.command()
@click.argument("image", type=click.Path(path_type=Path))
@run_options
@click.option("--show", help="Classes that the image shows, with commas between. Default: all.")
@click.option("--to", "file", type=click.Path(path_type=Path), default="views.png", show_default=True)
def views(run: "Run", image: Path, show: str | None, file: Path) -> None:
    """Show what each kind of view sees in one IMAGE.

    Original, resized x2, cropped, both (CARB, Fig. 3).
    """
    from labelgen.images import write_png
    from pipeline.names import look_up
    from pipeline.stages.labels import view_pictures

    by_name = {name: place for place, name in enumerate(run.spec.classes.names)}
    names = [name.strip() for name in show.split(",")] if show else list(by_name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_png(file, view_pictures(run, image, [look_up(by_name, name, "class") for name in names]))
    click.echo(f"views in {file}")


def _part(text: str) -> tuple[int, int]:
    """(i, n) of "i/n"."""
    index, slash, count = text.partition("/")
    if not (slash and is_whole_number(index) and is_whole_number(count) and 1 <= int(index) <= int(count)):
        raise InputError(f"--shard takes I/N with 1 <= I <= N, such as 2/8, got {text!r}")
    return int(index), int(count)
