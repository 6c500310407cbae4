"""The command line: parse, call a stage, say errors in one line."""

import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labelgen.samples import InputError

# torch and transformers are imported inside the commands, so that --help and a typo answer at once.
if TYPE_CHECKING:
    import torch

    from pipeline.stages import Run

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


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every stage; the command gets a Run."""

    @wraps(command)
    def with_run(
        dataset: str,
        data_root: str | None,
        clip: str | None,
        out: str | None,
        config: str | None,
        settings: tuple[str, ...],
        **others: Any,
    ) -> Any:
        from pipeline.datasets import dataset as known_dataset

        known_dataset(dataset)  # a typo should not wait for torch
        quiet_libraries()
        from pipeline.config import load_config
        from pipeline.stages import Run

        run = Run.of(dataset, data_root, clip, out, load_config(dataset, config, settings))
        return command(run=run, **others)

    options = [
        click.option("--dataset", required=True, help="Data set; 'carbseg datasets list' names them."),
        click.option("--data-root", help="Its folder. Toy scenes are drawn into data/toy when left out."),
        click.option("--clip", help="CLIP folder or hub id. Default: what OUT was begun with, else the tiny one."),
        click.option("--out", help="Run folder. Default: runs/DATASET."),
        click.option("--config", help="TOML file of settings, on top of the data set's preset."),
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


@main.command()
@run_options
@click.option("--split", default="train", show_default=True, help="Split to label.")
def labels(run: "Run", split: str) -> None:
    """Make dense pseudo-labels of a split with CLIP; run again to resume."""
    from pipeline.stages import make_labels

    click.echo(repr(make_labels(run, split)))


@main.command()
@run_options
@click.option("--steps", type=int, help="Short for --set train.steps=N (and a warm-up of at most half of it).")
def train(run: "Run", steps: int | None) -> None:
    """Train a student on the pseudo-labels of the training split; run again to resume."""
    from dataclasses import replace

    from pipeline.stages import train_student

    config = run.config.train
    if steps is not None:
        config = replace(config, steps=steps, warmup_steps=min(config.warmup_steps, steps // 2))
    folder = train_student(run, config)
    click.echo(f"student in {folder / 'student'}")


@main.command()
@run_options
@click.option("--split", default="val", show_default=True, help="Split with truth to score on.")
def evaluate(run: "Run", split: str) -> None:
    """Score pseudo-labels and every trained student against truth; write metrics.json and panels."""
    from pipeline.stages import evaluate as score

    _show(run.out, score(run, split))


@main.command()
@run_options
@click.option("--split", default="val", show_default=True, help="Split with truth to score on.")
@click.option("--students", default="base,local+carb", show_default=True, help="Rows of CARB's Table 1 to train.")
def run(run: "Run", split: str, students: str) -> None:
    """All stages in one go: labels, students, scores."""
    from pipeline.stages import run_all, variants

    metrics = run_all(run, split, variants(run.config.train, [name.strip() for name in students.split(",")]))
    _show(run.out, metrics)
    click.echo(f"{metrics['seconds']} s in all")


@main.command()
@click.argument("student", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the class maps.")
def predict(student: Path, images: tuple[Path, ...], out: Path) -> None:
    """Write the class map of each image, as a colour PNG, with the STUDENT folder of a run."""
    from evaluation.overlay import colourise
    from labelgen.images import read_image, write_png
    from segtrain.model import load_student
    from segtrain.predict import predict as classes_of

    model, about = load_student(student)
    if len({path.stem for path in images}) < len(images) or out.resolve() in {path.resolve().parent for path in images}:
        raise InputError("class maps are named after their images: give images of different names, and another --out")
    out.mkdir(parents=True, exist_ok=True)
    for path in images:
        write_png(out / f"{path.stem}.png", colourise(classes_of(model, read_image(path)), about["classes"]["palette"]))
    click.echo(f"{len(images)} class maps in {out}")


@main.group()
def datasets() -> None:
    """The data sets that carbseg knows."""


@datasets.command("list")
def list_datasets() -> None:
    """Name them, and say how to get each."""
    from pipeline.datasets import DATASETS

    for spec in DATASETS.values():
        click.echo(f"{spec.name:8} {len(spec.classes)} classes; {spec.how_to_get}")


@datasets.command("draw-toy")
@click.argument("root", type=click.Path(path_type=Path))
def draw_toy(root: Path) -> None:
    """Draw the toy driving scenes into the folder ROOT, in CamVid's layout."""
    from pipeline.stages import draw_toy as draw

    if root.exists():
        raise InputError(f"{root} exists already; choose another folder")
    draw(root)
    click.echo(f"toy scenes in {root}")


@main.command()
def doctor() -> None:
    """Say what carbseg runs on."""
    from pipeline.runs import versions

    for package, number in versions().items():
        click.echo(f"{package:14} {number}")
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    click.echo(f"{'devices':14} {', '.join(devices) or f'CPU, {torch.get_num_threads()} threads'}")
    for dtype in (torch.float32, torch.bfloat16):
        rate = _matmul_gflops(dtype, "cuda" if devices else "cpu")
        click.echo(f"{'matmul':14} {rate:.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}")


def _matmul_gflops(dtype: "torch.dtype", device: str, size: int = 2048, repeats: int = 10) -> float:
    """Rate of a size x size matrix product."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    float((a @ b).sum())  # warm up, and wait for the device
    started = time.perf_counter()
    for _ in range(repeats):
        product = a @ b
    float(product.sum())
    return 2 * size**3 * repeats / (time.perf_counter() - started) / 1e9


def _show(out: Path, metrics: dict[str, Any]) -> None:
    from evaluation.scores import markdown_table

    rows = metrics["rows"]
    names = list(next(iter(rows.values()))["iou"])
    click.echo(f"\nIoU in percent on {metrics['images']} images of {metrics['dataset']} {metrics['split']}")
    click.echo(markdown_table(rows, names))
    click.echo(f"\nscores in {out / 'metrics.json'}, pictures in {out / 'panels'}")
