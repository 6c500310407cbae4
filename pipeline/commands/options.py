"""What several commands share: the options of a stage, quiet libraries, a group with a default command."""

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from labelgen.samples import InputError

# torch and transformers are imported inside the commands, so that --help and a typo answer at once.


class DefaultCommand(click.Group):
    """A group whose first command is meant when none is named: `labels --dataset x` is `labels make --dataset x`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command in front of bare options."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every stage; the command gets a Run."""

    @wraps(command)
    def with_run(
        dataset: str,
        data_root: str | None,
        clip: str | None,
        engine: str | None,
        out: str | None,
        stores: str | None,
        config: str | None,
        tags: str | None,
        points: str | None,
        settings: tuple[str, ...],
        **others: Any,
    ) -> Any:
        from pipeline.datasets import dataset as known_dataset
        from pipeline.datasets.tags import as_setting

        known_dataset(dataset)  # a typo should not wait for torch
        quiet_libraries()
        from pipeline.stages.run import Run

        if stores is not None and stores.startswith("memory:"):
            raise InputError("stores in memory end with this command; give --stores a folder or another URL")
        if tags is not None:
            settings = (*settings, as_setting(tags))
        if points is not None:
            settings = (*settings, f"one_pixel.points={json.dumps(points)}")
        return command(run=Run.of(dataset, data_root, clip, out, stores, config, settings, engine), **others)

    options = [
        click.option("--dataset", required=True, help="Data set; 'carbseg datasets list' names them."),
        click.option("--data-root", help="Its folder. Toy scenes are drawn into data/toy when left out."),
        click.option("--clip", help="CLIP folder or hub id. Default: what OUT was begun with, else the tiny one."),
        click.option("--engine", help="What makes the labels; 'carbseg engines' lists it. Default: as OUT was begun."),
        click.option("--out", help="Run folder. Default: runs/DATASET."),
        click.option("--stores", help="Folder or fsspec URL (s3://...) of the pseudo-labels. Default: OUT/labels."),
        click.option("--config", help="TOML file of settings, on top of the data set's preset."),
        click.option("--tags", help="Image-level labels: a CSV or JSON file; guessed: 'auto' (CLIP) or 'model'."),
        click.option("--points", help="One labelled pixel per class, a CSV file: what --engine one-pixel starts from."),
        click.option(
            "--set", "settings", multiple=True, metavar="NAME=VALUE", help="One setting, e.g. train.steps=100."
        ),
    ]
    for option in reversed(options):
        with_run = option(with_run)
    return with_run


def quiet_libraries() -> None:
    """No weight-loading bars and hub notices between our own lines."""
    from transformers.utils import logging

    library: Any = logging  # without type hints
    library.set_verbosity_error()
    library.disable_progress_bar()
