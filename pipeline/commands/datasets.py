"""carbseg datasets: what data sets there are, where to get them, and whether yours is in order."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelgen.samples import InputError
from pipeline.commands.options import run_options
from pipeline.names import printable

if TYPE_CHECKING:
    from pipeline.datasets.check import Report
    from pipeline.stages.run import Run


@click.group()
def datasets() -> None:
    """The data sets that carbseg knows: list them, fetch one, check yours, see what its image-level labels say."""


@datasets.command("list")
def list_datasets() -> None:
    """Name them, and say how to get each."""
    from pipeline.datasets import DATASETS

    for spec in DATASETS.values():
        classes = "your" if spec.is_users else str(len(spec.classes))
        click.echo(f"{spec.name:10} {classes:>4} classes; {spec.how_to_get}")


@datasets.command("draw-toy")
@click.argument("root", type=click.Path(path_type=Path))
def draw_toy(root: Path) -> None:
    """Draw the toy driving scenes into the folder ROOT, in CamVid's layout."""
    _draw_toy(root)


def _draw_toy(root: Path) -> None:
    from pipeline.runs import require_folder
    from pipeline.stages.run import draw_toy as draw

    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists already; choose another folder")
    require_folder(root)
    draw(root)  # renames its own folder over an empty one
    click.echo(f"toy scenes in {root}")


@datasets.command()
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--url", help="Address of another copy: a zip or tar archive. Default: a public one.")
def fetch(name: str, root: Path, url: str | None) -> None:
    """Fetch the data set NAME into the folder ROOT; where that takes an account, say what to get and put where."""
    from pipeline.datasets import dataset
    from pipeline.datasets.fetch import COPIES
    from pipeline.datasets.fetch import fetch as fetch_copy

    spec = dataset(name)
    if name == "toy":
        return _draw_toy(root)
    if name not in COPIES:
        if url is not None:
            raise InputError(f"{name} cannot be fetched from an address; leave --url out to read how to get it")
        click.echo(f"{name} cannot be fetched by a program: {spec.how_to_get}.\n\nWhat {root} has to hold:\n")
        click.echo("\n".join("  " + line for line in spec.layout.picture.splitlines()))
        click.echo(f"\nThen: carbseg datasets check --dataset {name} --data-root {root}")
        raise SystemExit(1)
    copy = COPIES[name] if url is None else replace(COPIES[name], url=url)
    with _byte_bar(f"fetching {name}") as bar:

        def on_bytes(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fetch_copy(copy, root, on_bytes)
    counts = ", ".join(f"{count} {folder}" for folder, count in copy.counts.items() if not folder.endswith("annot"))
    click.echo(f"{name} in {root}: {counts} images")


def _byte_bar(what: str) -> Any:
    from tqdm import tqdm

    return tqdm(desc=what, unit="B", unit_scale=True, unit_divisor=1024, mininterval=1)


@datasets.command()
@click.option("--dataset", "name", required=True, help="Data set; 'carbseg datasets list' names them.")
@click.option("--data-root", required=True, help="Its folder.")
@click.option("--split", default="train", show_default=True, help="Split to look through.")
@click.option("--tags", help="Image-level labels, as for 'carbseg labels': a CSV or JSON file, 'auto' or 'model'.")
@click.option("--points", help="Labelled pixels in its images, one per class: a CSV file of lines image,x,y,class.")
def check(name: str, data_root: str, split: str, tags: str | None, points: str | None) -> None:
    """Look through the files of a split: ids, sizes, missing and broken files. Exit code 1 if there are errors."""
    from pipeline.datasets import dataset
    from pipeline.datasets.check import check as look_through
    from pipeline.datasets.tags import GUESSED, TagConfig
    from pipeline.progress import progress

    bars = []

    def on_images(items: list[Any]) -> Any:
        bars.append(progress(len(items), f"reading {split}", "images"))
        return bars[0].update

    try:
        config = TagConfig(source=tags) if tags in GUESSED else TagConfig(file=tags or "")
        report = look_through(dataset(name), data_root, split, config, on_images, points)
    finally:
        for bar in bars:
            bar.close()
    _show(report, f"{name} {split}")
    if report.has_errors:
        raise SystemExit(1)


@datasets.command()
@run_options
@click.option("--split", default="train", show_default=True, help="Split to count.")
def statistics(run: "Run", split: str) -> None:
    """Count what the image-level labels of a split say.

    The counts are written to OUT/statistics-SPLIT.json, and drawn beside it (CARB, Fig. 1).
    """
    from pipeline.stages.statistics import write_statistics

    counted, unknown = write_statistics(run, split)
    left_out = f" ({unknown} more have no image-level labels and are left out)" if unknown else ""
    click.echo(f"{run.spec.name} {split}: {counted.images} images{left_out}\n\n{counted}\n")
    click.echo(f"statistics in {run.out / f'statistics-{split}'}.json, picture beside them")


@datasets.command()
@run_options
def suggest(run: "Run") -> None:
    """Say which settings fit your images and this machine, and how long labels and training will take with them.

    They are what a user's own data (folder, hf:...) start from; for others, save them for --config.
    """
    from pipeline.progress import duration
    from pipeline.stages.estimates import estimate
    from pipeline.stages.run import suggestion

    click.echo(suggestion(run.spec, run.require_data(), run.clip)[1])
    times = estimate(run)
    click.echo(
        f"# With the settings of this run: labels {times.image_s:.2g} s an image, {duration(times.labels_s)} in all; "
        f"training {times.step_s:.2g} s a step, {duration(times.training_s)} for {run.config.train.steps} steps."
    )


def _show(report: "Report", what: str) -> None:
    sizes = ", ".join(f"{count} of {h} x {w}" for (h, w), count in report.sizes.most_common(5))
    more = f", {len(report.sizes) - 5} more sizes" if len(report.sizes) > 5 else ""
    click.echo(f"{what}: {report.images} images ({sizes}{more}), {report.labelled} with pixel labels\n")
    if report.histogram:
        click.echo(f"{'value':>8}  {'class':16} {'pixels':>7} {'images':>7}")
        for row in report.histogram:
            click.echo(f"{row.value:>8}  {row.meaning:16} {row.share:>7.2%} {row.images:>7}")
    else:
        click.echo("\n".join(f"{name:16} {count:>7} images" for name, count in report.shown.items()))
    click.echo()
    for finding in report.findings:
        click.echo(printable(f"{finding.level}: {finding.what}\n    {finding.hint}"))
    if not report.findings:
        click.echo("nothing to complain about")
