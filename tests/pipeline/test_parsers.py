"""Parsers of what users and strangers write: any input gives a value or InputError, and what is written reads back."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelgen.points import Point, as_csv, read_points
from labelgen.prompts import read_prompts, read_templates
from labelgen.samples import ClassSet, InputError
from pipeline.commands.labels import _part
from pipeline.config import load_config
from pipeline.datasets.classes import read_classes
from pipeline.datasets.layouts import read_list
from pipeline.datasets.tags import as_typed, read_tags
from pipeline.names import printable
from pipeline.stages.prediction import parse_scales, parse_window
from pipeline.suggestion import Situation, as_toml, suggest

CLASSES = ClassSet(("sky", "traffic light", "car"), (("sky",), ("light",), ("car",)), ((0, 0, 0),) * 3)
always = settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example overwrites the same file
)
# Bytes of a file, and text that begins as the parser wants it, or nearly so.
anything = st.binary(max_size=60) | st.builds(
    lambda start, rest: (start + rest).encode("utf-8", "surrogatepass"),
    st.sampled_from(["image,labels\n", "image,x,y,class\n", 'classes = ["', "sky = [", "{", '{"a": ["', "a {} b\n"]),
    st.text(st.sampled_from("a0.,;:\"'\n\r[]{}= \\\x00\x1b#-é\ud800") | st.characters(), max_size=40),
)
file_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
FILES: dict[str, Callable[[Path], object]] = {
    "t.csv": lambda path: read_tags(path, CLASSES),
    "t.json": lambda path: read_tags(path, CLASSES),
    "p.csv": lambda path: read_points(path, CLASSES),
    "prompts.toml": lambda path: read_prompts(path, CLASSES),
    "templates.txt": read_templates,
    "classes.toml": read_classes,
    "train.txt": read_list,
    "s.toml": lambda path: load_config("toy", path),
}


@pytest.mark.parametrize("name", FILES)
@always
@given(data=anything)
def test_any_file_is_read_or_refused(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    _value_or_refusal(FILES[name], tmp_path / name)


WORDS: dict[str, Callable[[str], object]] = {
    "--set": lambda text: load_config("toy", settings=[text]),
    "--shard": _part,
    "--window": parse_window,
    "--scales": parse_scales,
}
numbers = st.text(st.sampled_from("0123456789/x,.-+e naif_²५"), max_size=12) | st.integers().map(
    lambda n: "9" * (n % 6000)
)
options = st.builds(
    "{}={}".format, st.sampled_from(["train.steps", "labels.views.global_zooms", "tags", "a.b"]), numbers
)


@pytest.mark.parametrize("option", WORDS)
@always
@given(text=st.text(max_size=30) | numbers | options)
def test_any_word_is_taken_or_refused(option: str, text: str) -> None:
    _value_or_refusal(WORDS[option], text)


def _value_or_refusal(parse: Callable[[Any], object], given: object) -> None:
    with contextlib.suppress(InputError):
        parse(given)


@always
@given(
    tags=st.dictionaries(file_names.map(as_typed), st.lists(st.sampled_from(CLASSES.names), min_size=1, unique=True))
)
def test_image_level_labels_read_back(tags: dict[str, list[str]], tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(tags))
    expected = {image: sorted(map(CLASSES.names.index, names)) for image, names in tags.items()}
    assert read_tags(tmp_path / "t.json", CLASSES) == expected


points = st.builds(Point, file_names.map(str.strip).filter(bool), *[st.integers(0, 10**6)] * 2, st.integers(0, 2))


@always
@given(points=st.lists(points, min_size=1, unique_by=lambda point: point[:3]))
def test_points_read_back_and_none_is_a_formula(points: list[Point], tmp_path: Path) -> None:
    text = as_csv(points, CLASSES)
    (tmp_path / "p.csv").write_bytes(text.encode())
    assert read_points(tmp_path / "p.csv", CLASSES) == points
    rows = csv.reader(io.StringIO(text, newline=""))
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)


@always
@given(
    rate=st.floats(1e-9, 1), steps=st.integers(1000, 10**9), zooms=st.lists(st.floats(1e-3, 9), min_size=1, max_size=4)
)
def test_settings_read_back(rate: float, steps: int, zooms: list[float]) -> None:
    given = [f"train.learning_rate={rate!r}", f"train.steps={steps}", f"labels.views.global_zooms={zooms}"]
    config = load_config("toy", settings=given)
    assert (config.train.learning_rate, config.train.steps) == (rate, steps)
    assert config.labels.views.global_zooms == tuple(zooms)


@always
@given(height=st.integers(1, 5000), width=st.integers(1, 5000), images=st.integers(1, 10**6))
def test_suggested_settings_read_back(height: int, width: int, images: int, tmp_path: Path) -> None:
    situation = Situation(height=height, width=width, images=images, has_gpu=False)
    tree = suggest(situation)
    (tmp_path / "s.toml").write_text(as_toml(tree, situation))
    assert load_config("folder", tmp_path / "s.toml") == load_config("folder", suggested=tree)


@always
@given(index=st.integers(1, 10**9), more=st.integers(0, 10**9), height=st.integers(1, 8192), width=st.integers(1, 8192))
def test_shards_and_sizes_read_back(index: int, more: int, height: int, width: int) -> None:
    assert _part(f"{index}/{index + more}") == (index, index + more)
    assert parse_window(f"{height}x{width}") == (height, width)


@always
@given(text=st.text())
def test_what_is_shown_moves_no_cursor_and_plain_text_stays(text: str) -> None:
    assert all(sign.isprintable() or sign == "\n" or sign.isspace() or not sign.isascii() for sign in printable(text))
    assert "\x1b" not in printable(text)
    if text.isprintable():
        assert printable(text) == text
