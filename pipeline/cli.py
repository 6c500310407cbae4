"""The command line: the groups of commands, and errors said in one line."""

import errno
import os
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

DEBUG = "CARBSEG_DEBUG"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STORAGE = ("aiohttp", "botocore", "gcsfs", "adlfs", "azure", "google")  # clients of object stores, and their errors


class Commands(click.Group):
    """Says expected errors in one line on standard error, with exit code 1; set CARBSEG_DEBUG=1 for tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            said = None if os.environ.get(DEBUG) else _say(error)
            if said is None:
                raise
            raise click.ClickException(" ".join(said.split())) from error


def _say(error: Exception) -> str | None:
    """What to say of an error that is the user's or the world's; None for one that is ours."""
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error}; make room, and give the same command again"
    if isinstance(error, InputError | OSError):
        return str(error)
    if type(error).__module__.partition(".")[0] in STORAGE:
        return f"the storage cannot be reached, or fails: {error}; give the same command again when it is back"
    if isinstance(error, RuntimeError):
        from labelgen.training.processes import is_of_lost_process

        if is_of_lost_process(error):
            return "another process of this run has died, and says why itself; give the same command again to go on"
    return None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="carbseg")
def main() -> None:
    """Segment driving scenes without pixel labels: dense CLIP pseudo-labels, a CARB trainer, scores and pictures."""


for command in (
    *(labels, engines, points, train, evaluate, report, run),
    *(ablation, iterate, predict, export_onnx, datasets, doctor),
):
    main.add_command(command)
