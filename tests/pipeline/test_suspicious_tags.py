"""`carbseg tags suspicious`: what it prints of a run folder or a store, for people and for programs."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from labelgen.layout import StoreLayout
from labelgen.store import ImageLogits, PseudoLabelStore
from tests.conftest import carbseg, refused

NAMES = ["sky", "the | road"]
IDS = ["a", "b,c", 'd"\n\x1b[31me']


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run with three images, all half sky, half road; the last one's tags forget the road."""
    layout = StoreLayout(IDS, np.eye(2, dtype=np.float32), [(1, 2)], (1, 1), 0)
    store = PseudoLabelStore.create(tmp_path / "labels" / "train.zarr", layout, {"classes": {"names": NAMES}})
    logits = np.eye(2, dtype=np.float32)[:, None]
    tags = ([0, 1], [0, 1], [0])
    images = [ImageLogits(name, (8, 16), shown, [logits], []) for name, shown in zip(IDS, tags, strict=True)]
    store.write_shard(range(3), images)
    return tmp_path


def test_the_most_suspicious_tags_are_printed_for_people_with_names_that_do_no_harm(out: Path) -> None:
    lines = carbseg("tags", "suspicious", out, "--top", 1).stdout.splitlines()
    # Two of three images carry the road, shares tell nothing: (2 + 1) / (3 + 2), times half of the image.
    assert lines[0].split() == ["image", "class", "kind", "score"]
    assert lines[1:] == [r'd"\n\x1b[31me  the | road  missing  0.3000']


def test_programs_get_csv_or_json_with_the_same_rows(out: Path) -> None:
    text = carbseg("tags", "suspicious", out, "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    read = json.loads(carbseg("tags", "suspicious", out / "labels" / "train.zarr", "--json").stdout)
    assert [row | {"score": float(row["score"])} for row in rows] == read
    assert read[0] == {"image": IDS[2], "class": NAMES[1], "kind": "missing", "score": 0.3}
    # The road may be claimed in vain: unlikely by 1 - 3/5, times half of the mean share of a class. Sky is not doubted.
    assert [(row["class"], row["score"]) for row in read[1:]] == [(NAMES[1], 0.1)] * 2


def test_what_is_no_run_is_refused_with_what_to_do(out: Path) -> None:
    assert "val.zarr does not exist; make the pseudo-labels with 'carbseg labels --split val' first" in refused(
        "tags", "suspicious", out, "--split", "val"
    )
    assert "leave out --split" in refused("tags", "suspicious", out / "labels" / "train.zarr", "--split", "val")
    assert "does not exist" in refused("tags", "suspicious", out / "nothing")
    assert "--top" in refused("tags", "suspicious", out, "--top", 0)
