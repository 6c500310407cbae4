"""carbseg points: the labelled pixels of the engine that needs one per class."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FILE = click.Path(dir_okay=False, path_type=Path)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which images."""
    for option in (
        click.option("--split", default="train", show_default=True, help="Split to take images from."),
        click.option("--data-root", required=True, help="Its folder."),
        click.option("--dataset", "name", required=True, help="Data set; 'carbseg datasets list' names them."),
    ):
        command = option(command)
    return command


@click.group()
def points() -> None:
    """One labelled pixel per class, for a whole data set: a file of lines image,x,y,class."""


@points.command()
@data_options
@click.option("--images", default=40, show_default=True, type=click.IntRange(1), help="Images to look at.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another one, other pixels.")
@click.option("--to", "file", type=FILE, default="points.csv", show_default=True, help="File to write; must be new.")
def propose(name: str, data_root: str, split: str, images: int, seed: int, file: Path) -> None:
    """Propose one pixel per class from truth: deep inside a large region of an image drawn by the seed.

    It LOOKS AT THE PIXEL LABELS of some images: for experiments, and to measure with several seeds what luck does.
    Without pixel labels, or to be honest, click the pixels: 'carbseg points page'.
    """
    from pipeline.datasets import dataset
    from pipeline.progress import progress
    from pipeline.stages.points import drawn_images, write_points
    from pipeline.stages.points import propose as propose_points

    spec = dataset(name, data_root)
    items = drawn_images(spec, data_root, split, images, seed)
    with progress(len(items), "reading truth", "label maps") as bar:
        found = propose_points(spec, items, seed, bar.update)
    write_points(file, found, spec)
    click.echo(f"{len(found)} points in {file}")
    with_point = {point.train_id for point in found}
    without = [class_name for train_id, class_name in enumerate(spec.classes.names) if train_id not in with_point]
    if without:
        click.echo(
            f"no pixel for {', '.join(without)}: none of the {len(items)} images looked at shows it; look at more "
            f"with --images, or click it: 'carbseg points page --points {file}'",
            err=True,
        )


@points.command()
@data_options
@click.argument("names", nargs=-1, metavar="[IMAGE]...")
@click.option("--images", default=12, show_default=True, type=click.IntRange(1), help="How many, if none is named.")
@click.option("--points", "points_file", type=FILE, help="Points to begin with; their images come first.")
@click.option("--tags", help="Image-level labels, a CSV or JSON file: images that show many classes are taken.")
@click.option("--to", "file", type=FILE, default="points.html", show_default=True, help="Page to write.")
def page(
    name: str,
    data_root: str,
    split: str,
    names: tuple[str, ...],
    images: int,
    points_file: Path | None,
    tags: str | None,
    file: Path,
) -> None:
    """Write an HTML page on which you click one pixel per class, and save points.csv.

    It holds the IMAGEs (ids or file names), or some that show many classes if their image-level labels are known, and
    opens from disk, on a telephone too.
    """
    from pipeline.datasets import dataset
    from pipeline.datasets.tags import TagConfig
    from pipeline.stages.points import write_page

    config = TagConfig(file=tags or "")
    count = write_page(file, dataset(name), data_root, split, images, names, points_file, config)
    click.echo(f"{count} images on {file}; open it in a browser, click one pixel per class, save points.csv")
