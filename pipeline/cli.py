"""The command line: the groups of commands, and errors said in one line."""

import contextlib
import errno
import io
import os
import re
import select
import sys
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
from pipeline.commands.tags import tags
from pipeline.names import printable

DEBUG = "CARBSEG_DEBUG"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STORAGE = ("aiohttp", "botocore", "gcsfs", "adlfs", "azure", "google")  # clients of object stores, and their errors
OUT_OF_MEMORY = re.compile("(out of|allocate|enough) memory")
LONGEST = 1000  # characters of a message that quotes a stranger's file


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
            raise click.ClickException(_in_short(printable(" ".join(said.split())))) from error


def _say(error: Exception) -> str | None:
    """What to say of an error that is the user's or the world's; None for one that is ours, or to be passed over."""
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error}; make room, and give the same command again"
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return None  # click ends such a command in silence, with exit code 1
    if isinstance(error, InputError | OSError):
        return str(error) or type(error).__name__
    if type(error).__module__.partition(".")[0] in STORAGE:
        return f"the storage cannot be reached, or fails: {error}; give the same command again when it is back"
    # torch has no error of its own for a CPU's memory
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))):
        said = str(error) or type(error).__name__
        return f"out of memory ({said}); make images, zooms, crops, batches or the model smaller"
    if isinstance(error, RuntimeError):
        from labelgen.training.processes import is_of_lost_process

        if is_of_lost_process(error):
            return "another process of this run has died, and says why itself; give the same command again to go on"
    return None


def _nobody_reads() -> bool:
    """Whether standard output goes to a program that has ended, such as head, and not another pipe is broken."""
    poll = select.poll()
    with contextlib.suppress(io.UnsupportedOperation):  # of what is no file
        poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _in_short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="carbseg")
def main() -> None:
    """Segment driving scenes without pixel labels: dense CLIP pseudo-labels, a CARB trainer, scores and pictures."""


for command in (
    *(labels, tags, engines, points, train, evaluate, report, run),
    *(ablation, iterate, predict, export_onnx, datasets, explore, doctor),
):
    main.add_command(command)
