"""The command line: the groups of commands, and errors said in one line."""

import os
from typing import Any

import click

from labelgen.samples import InputError
from pipeline.commands.datasets import datasets
from pipeline.commands.doctor import doctor
from pipeline.commands.engines import engines
from pipeline.commands.evaluation import evaluate, report
from pipeline.commands.explore import explore
from pipeline.commands.labels import labels
from pipeline.commands.points import points
from pipeline.commands.run import ablation, export_onnx, iterate, predict, run, train

DEBUG = "CARBSEG_DEBUG"


class Commands(click.Group):
    """Says expected errors in one line on standard error, with exit code 1; set CARBSEG_DEBUG=1 for tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (InputError, OSError) as error:
            if os.environ.get(DEBUG):
                raise
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="carbseg")
def main() -> None:
    """Segment driving scenes without pixel labels: dense CLIP pseudo-labels, a CARB trainer, scores and pictures."""


for command in (
    *(labels, engines, points, train, evaluate, report, run),
    *(ablation, iterate, predict, export_onnx, datasets, explore, doctor),
):
    main.add_command(command)
