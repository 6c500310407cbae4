"""carbseg tags: image-level labels as files, and which of them are likely wrong."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelgen.samples import InputError
from pipeline.commands.options import run_options
from pipeline.names import printable

if TYPE_CHECKING:
    from labelgen.store import PseudoLabelStore
    from pipeline.stages.run import Run


@click.group()
def tags() -> None:
    """Image-level labels: guess them, and find those that are likely wrong."""


@tags.command()
@run_options
@click.option("--split", default="train", show_default=True, help="Split to look at.")
@click.option(
    "--to",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="tags.csv",
    show_default=True,
    help="File to write; must be new.",
)
def guess(run: "Run", split: str, file: Path) -> None:
    """Let a tagger (--set tagger.model=FOLDER_OR_HUB_ID) say what images show; read, correct, then give --tags FILE."""
    from pipeline.stages.tagging import guess_tags

    images, scores = guess_tags(run, split, file)
    click.echo(f"what {images} images show in {file}")
    if scores is not None:
        click.echo(
            "against the image-level labels that there are: "
            f"precision {100 * scores.precision:.1f}, recall {100 * scores.recall:.1f}"
        )


@tags.command()
@click.argument("where")
@click.option("--split", help="Split of a run folder.  [default: train]")
@click.option("--top", default=50, show_default=True, type=click.IntRange(1), help="How many to print.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, lines image,class,kind,score.")
@click.option("--json", "form", flag_value="json", help="Print JSON, a list of objects with these fields.")
def suspicious(where: str, split: str | None, top: int, form: str | None) -> None:
    """Print the image-level labels that are likely wrong, the most suspicious first, from the cached logits.

    WHERE is a run folder (OUT) or a store (folder or URL). "missing": the class is likely there; the score is the share
    of the image that it would win, times how likely that is. "false": it is likely not there. The first call reads all
    logits of whole images; the result is kept beside a store in a folder.
    """
    from labelgen.suspicion import kept_evidence, suspects
    from pipeline.progress import progress

    store = _store(where, split)
    with progress(len(store), "looking for wrong tags", "images") as bar:
        evidence = kept_evidence(store, bar.update)
    found = suspects(store, evidence, top=top)
    rows = [(s.image_id, store.class_names[s.class_index], s.kind, round(s.score, 4)) for s in found]
    header = ("image", "class", "kind", "score")
    if form == "json":
        click.echo(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=1))
    elif form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        click.echo(text.getvalue().encode(errors="backslashreplace"), nl=False)
    else:
        click.echo(_table([header, *((*map(_on_one_line, row[:3]), f"{row[3]:.4f}") for row in rows)]))


def _store(where: str, split: str | None) -> "PseudoLabelStore":
    """The store of a split of a run folder, or the one that is named."""
    from labelgen.layout import is_begun
    from labelgen.store import PseudoLabelStore

    if is_begun(where):
        if split is not None:
            raise InputError(f"{where} is a store, of one split; leave out --split, or name the run folder")
        return PseudoLabelStore.open(where)
    split = split or "train"
    path = f"{where.rstrip('/')}/labels/{split}.zarr"
    if not is_begun(path):
        raise InputError(f"{path} does not exist; make the pseudo-labels with 'carbseg labels --split {split}' first")
    return PseudoLabelStore.open(path)


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = ("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in cells)


def _on_one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n")
