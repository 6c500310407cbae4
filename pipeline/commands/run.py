"""carbseg train, run, ablation, iterate, predict, export-onnx: from pseudo-labels to a student and its class maps."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import run_options

if TYPE_CHECKING:
    from pipeline.stages.run import Run


@click.command()
@run_options
@click.option("--steps", type=int, help="Short for --set train.steps=N (and a warm-up of at most half of it).")
def train(run: "Run", steps: int | None) -> None:
    """Train a student on the pseudo-labels of the training split; run again to resume."""
    from dataclasses import replace

    from pipeline.stages.students import train_student

    config = run.config.train
    if steps is not None:
        config = replace(config, steps=steps, warmup_steps=min(config.warmup_steps, steps // 2))
    folder = train_student(run, config)
    click.echo(f"student in {folder / 'student'}")


@click.command()
@run_options
@click.option("--split", default="val", show_default=True, help="Split with truth to score on.")
@click.option(
    "--students",
    help="Rows of CARB's Table 1 to train. Default: base,local+carb, or base,base+carb where there are no local views.",
)
def run(run: "Run", split: str, students: str | None) -> None:
    """All stages in one go: labels, students, scores, report."""
    import time

    from pipeline.commands.evaluation import show
    from pipeline.stages.run import process_state
    from pipeline.stages.whole import run_all

    started = time.monotonic()
    scored, page = run_all(run, split, [name.strip() for name in students.split(",")] if students else ())
    if process_state().is_main_process:
        show(run.out, scored.metrics, page)
        click.echo(f"{time.monotonic() - started:.0f} s in all")


@click.command()
@run_options
@click.option("--split", help="Split with truth to score on. Default: test, or val where test is not public.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="How often to train each student.")
@click.option(
    "--students",
    help="Which, with commas between. Default: CARB's Table 1, CARB as in the paper and corrected, and truth.",
)
def ablation(run: "Run", split: str | None, seeds: int, students: str | None) -> None:
    """Train every kind of student for several seeds; print mean and spread (CARB, Table 1). Run again to resume."""
    from pipeline.stages.ablation import ablation as compare
    from pipeline.stages.ablation import as_markdown, gains_as_markdown
    from pipeline.stages.run import process_state
    from pipeline.stages.students import TABLE

    names = [name.strip() for name in students.split(",")] if students else list(TABLE)
    split = split or ("test" if "test" in run.spec.splits and "test" not in run.spec.hidden else "val")
    result = compare(run, split, names, seeds)
    if not process_state().is_main_process:
        return
    over = "1 seed" if seeds == 1 else f"mean and standard deviation of {seeds} seeds"
    click.echo(f"\nIoU in percent on {run.spec.name} {split}, {over}")
    click.echo(as_markdown(result))
    if result["carb"]:
        click.echo(f"\nWhat CARB gains, in points\n{gains_as_markdown(result)}")
    click.echo(f"\nscores in {run.out / 'ablation.json'}")


@click.command()
@run_options
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="How often to look again.")
@click.option("--split", default="val", show_default=True, help="Split with truth to score students on.")
@click.option(
    "--students",
    default="base",
    show_default=True,
    help="Which to train in each round; the first one's predictions are the next round's pseudo-labels.",
)
def iterate(run: "Run", rounds: int, split: str, students: str) -> None:
    """Train, refine what the student says of the training images, train on that, and so on. Run again to resume."""
    from pipeline.stages.iteration import as_markdown
    from pipeline.stages.iteration import iterate as alternate
    from pipeline.stages.run import process_state

    result = alternate(run, split, [name.strip() for name in students.split(",")], rounds)
    if process_state().is_main_process:
        click.echo(f"\nPseudo-labels of {run.spec.name} train, and mIoU of students on {split}, in percent")
        click.echo(as_markdown(result))
        click.echo(f"\nscores in {run.out / 'iterations.json'}")


@click.command()
@click.argument("student", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the class maps, or a store.")
@click.option("--scales", default="1", show_default=True, help="Resize the image by each of these, e.g. 0.75,1,1.25.")
@click.option("--flip", is_flag=True, help="Look at the mirrored image, too.")
@click.option("--window", metavar="HxW", help="Slide a window of so many pixels instead of the whole image at once.")
@click.option("--show", help="Classes that the images show, with commas between; no other is predicted.")
@click.option(
    "--layout",
    type=click.Choice(["plain", "cityscapes"]),
    default="plain",
    show_default=True,
    help="plain: NAME.png with train ids; cityscapes: NAME_pred_labelIds.png with its label ids, for its test server.",
)
@click.option(
    "--as-pseudo-labels",
    "source",
    metavar="STORE",
    help="Write no maps, but a store like STORE into --out, for another round of training. IMAGES: one folder.",
)
def predict(
    student: Path,
    images: tuple[Path, ...],
    out: Path,
    scales: str,
    flip: bool,
    window: str | None,
    show: str | None,
    layout: str,
    source: str | None,
) -> None:
    """Write the class map of each image (or of all in a folder) as an indexed PNG, with the STUDENT folder of a run."""
    from pipeline.stages.prediction import find_images, parse_scales, parse_window, predict_files, relabel_files
    from pipeline.stages.run import own_device
    from segtrain.model import load_student
    from segtrain.predict import PredictConfig

    model = load_student(student).to(own_device())
    files = find_images(images)
    if source is not None:
        click.echo(repr(relabel_files(model, files, source, out)))
        return
    config = PredictConfig(scales=parse_scales(scales), flip=flip, window=parse_window(window))
    names = [name.strip() for name in show.split(",")] if show else None
    predict_files(model, files, out, config, names, layout)
    click.echo(f"{len(files)} class maps in {out}")


@click.command("export-onnx")
@click.argument("student", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--size", metavar="HxW", default="512x1024", show_default=True, help="Size of the images.")
def export_onnx(student: Path, file: Path, size: str) -> None:
    """Write the STUDENT folder of a run as an ONNX FILE, checked against PyTorch."""
    from pipeline.stages.prediction import parse_window
    from segtrain.export import export_onnx as export
    from segtrain.model import load_student

    height, width = parse_window(size) or (512, 1024)
    difference = export(load_student(student), file, height, width)
    click.echo(
        f"{file}: pixel_values (batch, 3, {height}, {width}) -> logits; differs from PyTorch by {difference:.1g}"
    )
