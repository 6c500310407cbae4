"""The command line: the groups of commands, and errors said in one line."""

import os
import re
from typing import Any

import click

from labelgen.samples import InputError
from pipeline.commands.datasets import datasets
from pipeline.commands.doctor import doctor
from pipeline.commands.engines import engines
from pipeline.commands.evaluation import evaluate, report
from pipeline.commands.labels import labels
from pipeline.commands.points import points
from pipeline.commands.run import ablation, export_onnx, iterate, predict, run, train
from pipeline.commands.tags import tags
from pipeline.names import printable

DEBUG = "CARBSEG_DEBUG"
LONGEST = 1000  # characters of a message that quotes a stranger's file


class Commands(click.Group):
    """Says expected errors in one line on standard error, with exit code 1; set CARBSEG_DEBUG=1 for tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (InputError, OSError, MemoryError, RuntimeError) as error:
            if os.environ.get(DEBUG) or not _is_expected(error):
                raise
            said = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, InputError | OSError):
                said = f"out of memory ({said}); make images, zooms, crops, batches or the model smaller"
            raise click.ClickException(_in_short(printable(said))) from error


def _in_short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _is_expected(error: Exception) -> bool:
    """Anything but a mistake of ours. torch has no error of its own for a CPU's memory."""
    return not isinstance(error, RuntimeError) or re.search("(out of|allocate|enough) memory", str(error)) is not None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="carbseg")
def main() -> None:
    """Segment driving scenes without pixel labels: dense CLIP pseudo-labels, a CARB trainer, scores and pictures."""


for command in (
    *(labels, tags, engines, points, train, evaluate, report, run),
    *(ablation, iterate, predict, export_onnx, datasets, doctor),
):
    main.add_command(command)
