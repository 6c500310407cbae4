"""carbseg evaluate as a user meets it: rows of all kinds, comparisons, errors."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, expect
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from evaluation.tally import load_tallies
from labelgen.images import read_class_map, write_indexed_png, write_png
from pipeline.datasets import DATASETS
from segtrain.model import StudentConfig, build_student, save_student
from tests.conftest import ROOT, carbseg
from tests.conftest import refused as refused_by

SPEC = DATASETS["toy"]


@pytest.fixture(scope="module")
def out(toy_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with pseudo-labels of val and two students that have learned nothing."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    for seed, name in enumerate(("base", "local+carb")):
        torch.manual_seed(seed)
        student = build_student(StudentConfig(width=4, aspp_channels=8), SPEC.classes, torch.randn(11, 8))
        save_student(student, folder / name / "student", {})
    shutil.copytree(toy_stores / "val.zarr", folder / "labels" / "val.zarr")
    return folder


def options(out: Path, toy_root: Path) -> list[Any]:
    return ["--dataset", "toy", "--data-root", toy_root, "--out", out, "--stores", out / "labels"]


def evaluated(out: Path, toy_root: Path, clip_folder: Path, *others: object) -> dict[str, Any]:
    carbseg("evaluate", *options(out, toy_root), "--clip", clip_folder, *others)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def refused(*arguments: object) -> str:
    return refused_by("evaluate", *arguments)


def segformer(folder: Path, labels: list[str]) -> Path:
    """A tiny SegFormer with random weights."""
    config = SegformerConfig(
        hidden_sizes=[4, 4, 4, 4],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=4,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    torch.manual_seed(0)
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder


def test_truth_as_predictions_scores_a_hundred_and_every_file_says_the_same(
    out: Path, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    for sample in SPEC.list_samples(toy_root, "val"):
        truth = SPEC.read_truth(sample["label_path"] or "")
        write_indexed_png(tmp_path / "mine" / "sub" / f"{sample['image_id']}.png", truth, SPEC.classes.palette)
    metrics = evaluated(out, toy_root, clip_folder, "--predictions", tmp_path / "mine")
    jsonschema.validate(metrics, json.loads((ROOT / "evaluation" / "metrics.schema.json").read_text()))
    perfect = metrics["rows"]["predictions mine"]
    assert perfect["miou"] == perfect["boundary_miou"] == perfect["pixel_accuracy"] == 100
    assert list(metrics["rows"])[3:] == ["predictions mine", "student base", "student local+carb"]
    tallies = load_tallies(out / "counts-val.npz")
    for row, scores in metrics["rows"].items():
        assert tallies[row].confusion.sum(0).tolist() == scores["confusion"]
    lines = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    by_cell = {(line["row"], line["class"]): line["iou"] for line in lines}
    assert float(by_cell["student base", "road"]) == metrics["rows"]["student base"]["iou"]["road"]
    assert float(by_cell["predictions mine", "mean"]) == 100
    assert "| predictions mine     | 100.0 |" in (out / "metrics.md").read_text()
    maps = sorted((out / "maps" / "val" / "student-base").iterdir())
    assert [path.stem for path in maps] == [s["image_id"] for s in SPEC.list_samples(toy_root, "val")]
    with Image.open(maps[0]) as image:
        assert image.mode == "P"
    assert "holds what evaluate itself writes" in refused(
        *options(out, toy_root), "--predictions", out / "maps" / "val" / "student-base"
    )
    shutil.copytree(out / "maps" / "val" / "student-base", tmp_path / "copy")
    rows = evaluated(out, toy_root, clip_folder, "--predictions", tmp_path / "copy")["rows"]
    assert rows["predictions copy"]["confusion"] == rows["student base"]["confusion"]


def test_a_folder_without_a_student_is_scored_and_said(
    out: Path, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(out / "labels", tmp_path / "typo" / "labels")
    line = ["evaluate", "--clip", clip_folder, *options(tmp_path / "typo", toy_root)]
    done = carbseg(*line)
    assert done.stderr.startswith(f"no student in {tmp_path / 'typo'}: only pseudo-labels are scored\n")
    assert "| pseudo-labels fused" in done.stdout
    said = carbseg(*line, "--model", out / "base").stderr
    assert f"no student in {tmp_path / 'typo'}: only pseudo-labels and model base are scored\n" in said
    assert "no student" not in carbseg("evaluate", "--clip", clip_folder, *options(out, toy_root)).stderr


def test_a_models_classes_are_found_by_name_and_others_count_as_misses(
    out: Path, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    folder = segformer(tmp_path / "other", ["Road", "traffic sign", "dragon"])
    metrics = evaluated(out, toy_root, clip_folder, "--model", folder)
    scores = metrics["rows"]["model other"]
    assert scores["source"] == f"{folder} (no class of toy: dragon)"
    predicted = np.unique([read_class_map(path) for path in (out / "maps" / "val" / "model-other").iterdir()])
    assert set(predicted.tolist()) <= {SPEC.classes.names.index("road"), SPEC.classes.names.index("sign"), 255}
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    assert "was not trained with ImageNet's image_mean" in refused(*options(out, toy_root), "--model", folder)
    strange = segformer(tmp_path / "strange", ["dragon", "elf"])
    assert "no class of the model" in refused(*options(out, toy_root), "--model", strange)


def test_predictions_that_do_not_fit_are_refused(out: Path, toy_root: Path, clip_folder: Path, tmp_path: Path) -> None:
    base = [*options(out, toy_root), "--clip", clip_folder, "--predictions", tmp_path / "maps"]
    evaluated(out, toy_root, clip_folder)
    before = (out / "metrics.json").read_bytes()
    assert "no folder" in refused(*base)
    (tmp_path / "maps").mkdir()
    ids = [sample["image_id"] for sample in SPEC.list_samples(toy_root, "val")]
    for image_id in ids[1:]:
        write_png(tmp_path / "maps" / f"{image_id}.png", np.zeros((160, 320), np.uint8))
    assert f"has no class map of 1 of 3 images, such as {ids[0]}.png" in refused(*base)
    write_png(tmp_path / "maps" / f"{ids[0]}.png", np.full((160, 320), 33, np.uint8))
    assert f"{ids[0]}.png holds 33, but train ids of toy end at 10" in refused(*base)
    write_png(tmp_path / "maps" / f"{ids[0]}.png", np.zeros((160, 320, 3), np.uint8))
    assert "holds colours (RGB)" in refused(*base)
    write_png(tmp_path / "maps" / f"{ids[0]}.png", np.zeros((100, 100), np.uint8))
    assert "a class map of 100 x 100 does not fit 160 x 320 pixels" in refused(*base)
    assert "two folders would be one row" in refused(*base, "--predictions", tmp_path / "maps")
    (tmp_path / "maps" / "other").mkdir()
    shutil.copy(tmp_path / "maps" / f"{ids[0]}.png", tmp_path / "maps" / "other")
    assert "have one name; name the folder of one prediction" in refused(*base)
    assert before == (out / "metrics.json").read_bytes()


def test_smaller_predictions_are_resized_to_their_truth(
    out: Path, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "half").mkdir()
    for sample in SPEC.list_samples(toy_root, "val"):
        truth = SPEC.read_truth(sample["label_path"] or "")
        write_png(tmp_path / "half" / f"{sample['image_id']}.png", np.ascontiguousarray(truth[::2, ::2]))
    scores = evaluated(out, toy_root, clip_folder, "--predictions", tmp_path / "half")["rows"]["predictions half"]
    assert 90 < scores["pixel_accuracy"] < 100


def test_report_of_a_run_shows_its_scores_curves_and_images(
    out: Path, toy_root: Path, clip_folder: Path, browser: Browser
) -> None:
    line = {"step": 10, "loss": 1.5, "weight": None, "agreed": None, "learning_rate": 0.1}
    (out / "base" / "metrics.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line | {"step": 20}) + "\n")
    carbseg("evaluate", "tags", *options(out, toy_root))
    said = carbseg("report", *options(out, toy_root), "--clip", clip_folder, "--width", 160).stdout
    assert f"open {out / 'report.html'} in a browser" in said
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto((out / "report.html").as_uri())
    expect(page.get_by_role("heading", name="toy val")).to_be_visible()
    metrics = json.loads((out / "metrics.json").read_text())
    text = page.locator("body").inner_text()
    for row, scores in metrics["rows"].items():
        assert row in text
        assert f"{scores['pixel_accuracy']:.1f}" in text
    for word in ("3 of 3 images", "rule out", "10 % dropped", "learning rate"):
        assert word in text
    canvases = page.locator("canvas:visible")
    expect(canvases.first).to_be_visible()
    for layer in ("image", "truth", "global", "local", "fused", "agreement", "prediction"):
        page.get_by_role("button", name=layer, exact=True).first.click()
    assert not problems
    page.close()


def test_report_says_what_each_student_was_trained_with_and_not_the_commands_own_settings(
    whole_run: Path, toy_root: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole_run, tmp_path / "run")
    shutil.copytree(run / "local+carb", run / "other")
    (run / "other" / "run.json").unlink()
    carbseg("report", *options(run, toy_root), "--set", "train.steps=900", "--set", "student.width=8")
    about = json.loads((run / "run.json").read_text())
    assert set(about["students"]) == {"local+carb", "other"}
    assert about["students"]["other"] is None
    trained = about["students"]["local+carb"]
    own = json.loads((run / "local+carb" / "run.json").read_text())
    assert (trained["command"], trained["time"]) == (own["command"], own["time"])
    settings = trained["settings"]
    assert (settings["train"]["steps"], settings["student"]["width"], settings["augment"]["crop_width"]) == (6, 4, 96)
    assert not set(settings) & set(about["settings"])
    page = (run / "report.html").read_text()
    assert json.loads(page.partition('id="report">')[2].partition("<")[0])["about"] == about
    (run / "local+carb" / "run.json").write_text("{}")
    assert "does not say how its student was trained" in refused(*options(run, toy_root))


def test_report_shows_what_comparing_engines_gave_in_its_folder_or_the_one_above(
    out: Path, toy_root: Path, clip_folder: Path, tmp_path: Path
) -> None:
    scores = {split: {"miou": 40.0, "precision": 50.0, "recall": 60.0} for split in ("train", "val")}
    rows = {"maskclip": {"seconds": {"train": 0.1}, "labels": scores, "students": {}}}
    compared = {"dataset": "toy", "split": "test", "rows": rows}
    run = tmp_path / "compared" / "maskclip"
    shutil.copytree(out / "labels", run / "labels")
    arguments = (*options(run, toy_root), "--clip", clip_folder, "--width", 32)

    def shown() -> Any:
        carbseg("report", *arguments)
        page = (run / "report.html").read_text()
        return json.loads(page.partition('id="report">')[2].partition("<")[0])["engines"]

    assert shown() is None
    (run.parent / "engines.json").write_text(json.dumps(compared))
    assert shown() == compared
    (run / "engines.json").write_text(json.dumps(compared | {"dataset": "camvid"}))
    assert shown() == compared
    own = compared | {"split": "val"}
    (run / "engines.json").write_text(json.dumps(own))
    assert shown() == own
    for broken in ("{", "{}", "[]"):
        (run / "engines.json").write_text(broken)
        told = refused_by("report", *arguments)
        assert f"{run / 'engines.json'} cannot be read; delete it, or run 'carbseg engines compare' again" in told


def test_comparison_of_runs_and_of_students(out: Path, toy_root: Path, clip_folder: Path, tmp_path: Path) -> None:
    evaluated(out, toy_root, clip_folder)
    said = carbseg("evaluate", "--compare", out / "base", out / "local+carb").stdout
    assert f"A: {out / 'base'}, student base" in said
    assert f"B: {out / 'local+carb'}, student local+carb" in said
    assert len([line for line in said.splitlines() if line.startswith("| ")]) == 1 + 1 + 11
    whole = carbseg("evaluate", "--compare", out, out).stdout
    assert whole.count("| mIoU ") == 5  # every row that both have: three views, two students
    assert "+0.0" in whole
    assert " .. " not in whole  # three images are too few for an interval
    assert "was not scored" in refused("--compare", tmp_path, out)
    assert "has no scored 'student nobody'" in refused("--compare", out / "nobody", out)
    (tmp_path / "metrics.json").write_text((out / "metrics.json").read_text().replace('"val"', '"test"'))
    (tmp_path / "counts-test.npz").write_bytes((out / "counts-val.npz").read_bytes())
    assert "were scored on another split" in refused("--compare", out, tmp_path)
    (tmp_path / "counts-test.npz").write_bytes(b"PK broken")
    assert "cannot be read" in refused("--compare", out, tmp_path)
    (tmp_path / "metrics.json").write_text('{"rows": {}}')
    assert "was scored by another version of carbseg" in refused("--compare", out, tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    assert "cannot be read" in refused("--compare", out, tmp_path)
