"""carbseg explore: words, tags and masks on a local page."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelgen.samples import InputError
from pipeline.commands.options import quiet_libraries

if TYPE_CHECKING:
    from labelgen.samples import Sample
    from labelgen.store import PseudoLabelStore
    from pipeline.explorer.looking import Looker


@click.command()
@click.argument("out", required=False, type=click.Path(file_okay=False))
@click.option("--dataset", help="Data set. Default: the one that OUT was made of.")
@click.option("--data-root", help="Its folder. Default: data/DATASET.")
@click.option("--split", help="Split to look at. Default: train, or another one that OUT holds.")
@click.option("--compare", "others", multiple=True, metavar="OUT", help="Another run folder, to look at beside it.")
@click.option("--clip", help="CLIP folder or hub id. Default: the one that OUT was made with.")
@click.option("--stores", help="Folder or fsspec URL (s3://...) of the pseudo-labels. Default: OUT/labels.")
@click.option("--config", help="TOML file of settings that OUT was made with.")
@click.option("--tags", help="Image-level labels that OUT was made with: a CSV or JSON file, or 'auto' or 'model'.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One setting that OUT was made with.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Default: any that is free.")
@click.option("--no-browser", is_flag=True, help="Only say where it listens.")
def explore(
    out: str | None,
    dataset: str | None,
    data_root: str | None,
    split: str | None,
    others: tuple[str, ...],
    clip: str | None,
    stores: str | None,
    config: str | None,
    tags: str | None,
    settings: tuple[str, ...],
    port: int,
    no_browser: bool,
) -> None:
    """Look at pseudo-labels on a local page, and change words and tags there. OUT: the run folder, or runs/DATASET.

    Masks follow at once. Save writes prompts.toml and tags.csv into OUT, and says the command that takes them.
    """
    try:
        from pipeline.explorer.server import serve
    except ModuleNotFoundError as error:
        raise InputError(f"the explorer needs {error.name}: pip install 'carbseg[explore]'") from error
    from pipeline.datasets import dataset as known_dataset
    from pipeline.explorer.reproduction import Options
    from pipeline.explorer.session import Session
    from pipeline.runs import folder_name

    if out is None and dataset is None:
        raise click.UsageError("name a run folder, such as 'carbseg explore runs/toy', or a --dataset")
    out = out or f"runs/{folder_name(str(dataset))}"
    folder = (stores or f"{out}/labels").rstrip("/")
    split = split or _first_split(folder)
    opened = {out: _open(folder, split)} | {other: _open(f"{other}/labels", split) for other in others}
    store = opened[out]
    made_of = store.provenance.get("dataset")
    dataset = dataset or made_of
    if dataset is None:
        raise InputError(f"{store.path} does not say of what data set it is; name that with --dataset")
    clip = clip or store.provenance.get("clip_id")
    options = Options(dataset, data_root, clip, out, stores, config, settings, tags)
    root = Path(data_root or f"data/{folder_name(dataset)}")

    def open_looker(sample: "Sample") -> "Looker":
        quiet_libraries()
        from pipeline.explorer.looking import Looker

        return Looker.load(options.run(), store, sample)

    spec = known_dataset(dataset, root)
    if made_of not in (None, spec.name):
        raise InputError(f"{store.path} was made of {made_of}, not of {spec.name}: leave out --dataset")
    serve(Session(options, spec, root, split, opened, open_looker), port, opens_browser=not no_browser)


def _first_split(folder: str) -> str:
    """Train, where there is nothing or no saying."""
    found = sorted(path.stem for path in Path(folder).glob("*.zarr"))
    return "train" if "train" in found or not found else found[0]


def _open(folder: str, split: str) -> "PseudoLabelStore":
    from labelgen.store import PseudoLabelStore

    return PseudoLabelStore.open(f"{folder}/{split}.zarr")
