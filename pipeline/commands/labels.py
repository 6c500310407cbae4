"""carbseg labels: make pseudo-labels, and look after the stores they are in."""

from typing import TYPE_CHECKING

import click

from labelgen.samples import InputError
from pipeline.commands.options import DefaultCommand, run_options

if TYPE_CHECKING:
    from pipeline.stages import Run


@click.group(cls=DefaultCommand)
def labels() -> None:
    """Pseudo-labels: make them ('labels --dataset ...' is short for 'labels make --dataset ...'), check, export."""


@labels.command("make")
@run_options
@click.option("--split", default="train", show_default=True, help="Split to label.")
@click.option("--shard", metavar="I/N", default="1/1", help="Make only the I-th of N parts, as one job of an array.")
def make(run: "Run", split: str, shard: str) -> None:
    """Make dense pseudo-labels of a split with CLIP; run again to resume."""
    from pipeline.stages import make_labels

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
    click.echo(json.dumps(about, indent=1, ensure_ascii=False))


@labels.command()
@click.argument("store")
@click.option("--redo", is_flag=True, help="Take back the markers of damaged shards: 'labels' makes them again.")
def verify(store: str, redo: bool) -> None:
    """Check every array of the STORE (folder or URL) against its checksums; say what to make again."""
    from labelgen.store import PseudoLabelStore
    from labelgen.verify import verify as check
    from pipeline.progress import progress

    opened = PseudoLabelStore.open(store, writable=redo)
    with progress(len(opened), "verifying", "images") as bar:
        damages = check(opened, bar.update)
    for damage in damages:
        names = [opened.image_ids[row] for row in damage.rows]
        click.echo(f"{names[0]} ... {names[-1]} ({len(names)} images): {damage.reason}")
        if redo:
            opened.forget(damage.rows)
    if damages and not redo:
        raise InputError(f"{len(damages)} shards are damaged; 'labels verify --redo', then 'labels', makes them again")
    click.echo(f"{len(damages)} shards to make again" if redo else f"{opened!r}: as written")


def _part(text: str) -> tuple[int, int]:
    """(i, n) of "i/n"."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise InputError(f"--shard takes I/N with 1 <= I <= N, such as 2/8, got {text!r}")
    return int(index), int(count)
