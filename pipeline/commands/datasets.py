"""carbseg datasets: what data sets there are, and where to get them."""

from pathlib import Path

import click

from labelgen.samples import InputError


@click.group()
def datasets() -> None:
    """The data sets that carbseg knows."""


@datasets.command("list")
def list_datasets() -> None:
    """Name them, and say how to get each."""
    from pipeline.datasets import DATASETS

    for spec in DATASETS.values():
        click.echo(f"{spec.name:8} {len(spec.classes)} classes; {spec.how_to_get}")


@datasets.command("draw-toy")
@click.argument("root", type=click.Path(path_type=Path))
def draw_toy(root: Path) -> None:
    """Draw the toy driving scenes into the folder ROOT, in CamVid's layout."""
    from pipeline.stages import draw_toy as draw

    if root.exists():
        raise InputError(f"{root} exists already; choose another folder")
    draw(root)
    click.echo(f"toy scenes in {root}")
