"""carbseg explore: words, tags and masks on a local page."""

import re
from pathlib import Path

import click

from labelgen.samples import InputError


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--dataset", "name", help="Data set. Default: the one that OUT was made of.")
@click.option("--data-root", help="Its folder. Default: data/DATASET.")
@click.option("--split", default="train", show_default=True, help="Split to look at.")
@click.option("--compare", "others", multiple=True, metavar="OUT", help="Another run folder to look at beside it.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Default: any that is free.")
@click.option("--no-browser", is_flag=True, help="Only say where it listens.")
def explore(
    out: Path, name: str | None, data_root: str | None, split: str, others: tuple[str, ...], port: int, no_browser: bool
) -> None:
    """Look at the pseudo-labels of a run folder OUT on a local page; change words and tags, and see the masks change."""
    try:
        from pipeline.explorer.server import serve
    except ModuleNotFoundError as error:
        raise InputError(f"the explorer needs {error.name}: pip install 'carbseg[explore]'") from error
    from labelgen.store import PseudoLabelStore
    from pipeline.datasets import dataset
    from pipeline.explorer.session import Session

    stores = [
        (str(folder), PseudoLabelStore.open(f"{folder}/labels/{split}.zarr")) for folder in (str(out), *others)
    ]
    name = name or str(stores[0][1].provenance["dataset"])
    root = Path(data_root or "data/" + re.sub(r"[^\w.-]+", "-", name))
    session = Session(out.name, dataset(name, root), root, split, stores)
    serve(session, port, not no_browser)
