"""carbseg tags: image-level labels as files."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import run_options

if TYPE_CHECKING:
    from pipeline.stages.run import Run


@click.group()
def tags() -> None:
    """Image-level labels: files of lines image,labels."""


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
