"""carbseg evaluate: scores against truth, whether one is better than another, what noisy image-level labels cost."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.options import DefaultCommand, run_options
from pipeline.names import printable

if TYPE_CHECKING:
    from pipeline.stages.run import Run

FOLDER = click.Path(path_type=Path)


@click.group(cls=DefaultCommand)
def evaluate() -> None:
    """Score against truth.

    'evaluate --dataset ...' is short for 'evaluate scores --dataset ...'; 'evaluate scores --help' lists its options.
    """


def scoring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is to be scored: the options of a run, a split, other class maps."""
    for option in (
        click.option(
            "--model", "models", multiple=True, type=FOLDER, help="Folder of a HF segmentation model to score."
        ),
        click.option(
            "--predictions", multiple=True, type=FOLDER, help="Folder of class maps (ID.png) to score as well."
        ),
        click.option("--split", default="val", show_default=True, help="Split with truth to score on."),
        run_options,
    ):
        command = option(command)
    return command


def _compare(ctx: click.Context, _: click.Parameter, runs: tuple[Path, Path] | None) -> None:
    """Compare instead of scoring; an eager option, for no data set is needed."""
    if not runs or ctx.resilient_parsing:
        return
    from pipeline.stages.comparing import compare_runs

    click.echo(printable(compare_runs(*runs)))
    ctx.exit()


@evaluate.command()
@click.option(
    "--compare",
    nargs=2,
    type=FOLDER,
    is_eager=True,
    expose_value=False,
    callback=_compare,
    metavar="A B",
    help="Score nothing: say how B's scores differ from A's, two run folders or students (runs/toy/base).",
)
@scoring_options
def scores(run: "Run", split: str, predictions: tuple[Path, ...], models: tuple[Path, ...]) -> None:
    """Score pseudo-labels, every trained student and others against truth; write metrics and panels."""
    from pipeline.stages.run import process_state
    from pipeline.stages.scoring import evaluate as score

    scored = score(run, split, predictions=predictions, models=models)
    if process_state().is_main_process:
        show(run.out, scored.metrics)


@click.command()
@scoring_options
@click.option("--width", type=click.IntRange(32), help="Of the pictures, in pixels. Default: 480.")
@click.option("--anonymous", is_flag=True, help="A page to share: without paths, and names of user and machine.")
def report(
    run: "Run",
    split: str,
    predictions: tuple[Path, ...],
    models: tuple[Path, ...],
    width: int | None,
    anonymous: bool,
) -> None:
    """Evaluate, and write OUT/report.html: scores, curves, and every image with its maps, worst first."""
    from evaluation.report import WIDTH
    from pipeline.stages.reporting import report as write
    from pipeline.stages.run import process_state
    from pipeline.stages.scoring import evaluate as score

    scored = score(run, split, predictions=predictions, models=models)
    if process_state().is_main_process:
        show(run.out, scored.metrics, write(run, scored, width or WIDTH, nameless=anonymous))


def show(out: Path, metrics: dict[str, Any], page: Path | None = None) -> None:
    """Print the tables, and where the rest is. page: the report, if there is one."""
    from evaluation.tables import markdown_summary, markdown_table

    rows = metrics["rows"]
    click.echo(f"\nIoU in percent on {metrics['images']} images of {metrics['dataset']} {metrics['split']}")
    click.echo(printable(markdown_table(rows, metrics["classes"]["names"])))
    click.echo("\nMeans")
    click.echo(printable(markdown_summary(rows)))
    click.echo(f"\nscores in {out / 'metrics.json'}, .md and .csv, pictures in {out / 'panels'}")
    if page is not None:
        click.echo(f"open {page} in a browser ({page.stat().st_size / 1e6:.1f} MB)")


@evaluate.command()
@run_options
@click.option("--split", default="val", show_default=True, help="Split with truth whose pseudo-labels are made.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of what is dropped and added.")
def tags(run: "Run", split: str, seed: int) -> None:
    """Score pseudo-labels under noisy image-level labels, from the cached logits: exact ... dropped, added, none."""
    from pipeline.stages.tag_sweep import as_markdown, evaluate_tags

    result = evaluate_tags(run, split, seed)
    click.echo(
        f"Image-level labels against exact ones, and the pseudo-labels they give, percent; "
        f"{result['images']} images of {result['dataset']} {split}"
    )
    click.echo(as_markdown(result["rows"]))
    click.echo(f"\nscores in {run.out / f'tags-{split}'}.json and .md, picture beside them")
