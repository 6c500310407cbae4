"""carbseg evaluate: scores of pseudo-labels and students, and what noisy image-level labels cost."""

from typing import TYPE_CHECKING

import click

from pipeline.commands import run as run_commands
from pipeline.commands.options import DefaultCommand, run_options

if TYPE_CHECKING:
    from pipeline.stages import Run


@click.group(cls=DefaultCommand)
def evaluate() -> None:
    """Scores against truth ('evaluate --dataset ...' is short for 'evaluate scores --dataset ...'), cost of noise."""


evaluate.add_command(run_commands.evaluate, "scores")  # first: the default


@evaluate.command()
@run_options
@click.option("--split", default="val", show_default=True, help="Split with truth whose pseudo-labels are made.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is dropped and added.")
def tags(run: "Run", split: str, seed: int) -> None:
    """Score pseudo-labels under noisy image-level labels, from the cached logits: exact ... dropped, added, none."""
    from pipeline.tag_sweep import as_markdown, evaluate_tags

    result = evaluate_tags(run, split, seed)
    click.echo(
        f"Image-level labels against exact ones, and the pseudo-labels they give, percent; "
        f"{result['images']} images of {result['dataset']} {split}"
    )
    click.echo(as_markdown(result["rows"]))
    click.echo(f"\nscores in {run.out / f'tags-{split}'}.json and .md, picture beside them")
