"""carbseg engines: the ways to pseudo-labels, and a table that compares them on a data set."""

from typing import TYPE_CHECKING

import click

from pipeline.commands.options import run_options

if TYPE_CHECKING:
    from pipeline.stages.run import Run


@click.group(invoke_without_command=True)
@click.pass_context
def engines(ctx: click.Context) -> None:
    """Label engines: 'engines' lists them, 'engines compare' says which is best on your data."""
    if ctx.invoked_subcommand is not None:
        return
    from labelgen.engines.table import ENGINES

    width = max(map(len, ENGINES))
    for name, spec in ENGINES.items():
        click.echo(f"{name:{width}}  {spec.about}")
        click.echo(f"{'':{width}}  needs: {spec.needs}")
        click.echo(f"{'':{width}}  costs: {spec.cost}")


@engines.command()
@run_options
@click.option(
    "--engines",
    "names",
    help="Which, with commas between. Default: those that need no large models besides CLIP; one-pixel with --points.",
)
@click.option("--students", default="base,local+carb", show_default=True, help="Rows of CARB's Table 1 to train.")
@click.option("--split", default="val", show_default=True, help="Split with truth to score on, beside train.")
def compare(run: "Run", names: str | None, students: str, split: str) -> None:
    """Label with every engine, train students on each, print one table (CARB, Tables 2-4). Run again to resume."""
    from labelgen.engines.table import ENGINES
    from pipeline.stages.engines import as_markdown, compare_engines
    from pipeline.stages.run import process_state

    compared = [name for name, spec in ENGINES.items() if spec.is_compared(run.config)]
    asked = [name.strip() for name in names.split(",")] if names else compared
    result = compare_engines(run, split, asked, [name.strip() for name in students.split(",") if name.strip()])
    if process_state().is_main_process:
        click.echo(f"\nScores in percent, {run.spec.name}")
        click.echo(as_markdown(result))
        click.echo(f"\nscores in {run.out / 'engines.json'}, pictures in engines.png beside it")
