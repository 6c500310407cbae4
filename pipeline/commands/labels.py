"""carbseg labels: make pseudo-labels, and look after the stores they are in."""

from typing import TYPE_CHECKING

import click

from pipeline.commands.options import DefaultCommand, run_options

if TYPE_CHECKING:
    from pipeline.stages import Run


@click.group(cls=DefaultCommand)
def labels() -> None:
    """Pseudo-labels: make them ('labels --dataset ...' is short for 'labels make --dataset ...'), check, export."""


@labels.command("make")
@run_options
@click.option("--split", default="train", show_default=True, help="Split to label.")
def make(run: "Run", split: str) -> None:
    """Make dense pseudo-labels of a split with CLIP; run again to resume."""
    from pipeline.stages import make_labels

    click.echo(repr(make_labels(run, split)))
