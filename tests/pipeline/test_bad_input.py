"""What users' files and settings do to the command: a table of bad and odd input, through the real command line.

Each case changes one thing in a sound run of two images. "fine" means that labelling goes through; anything else is
part of the one-line error, and then nothing that was there before is lost.
"""

import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from labelgen.store import PseudoLabelStore
from pipeline.cli import main
from tests.conftest import ROOT, carbseg, command

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 48, 3), np.uint8)
Arrange = Callable[[Path], object]
CLASSES = '["sky", "road", "car"]'


def sound(folder: Path) -> Path:
    """Two images of one's own, and what they show."""
    root = folder / "mine"
    (root / "images").mkdir(parents=True)
    (root / "classes.toml").write_text(f"classes = {CLASSES}\n")
    for name in ("a", "b"):
        Image.fromarray(PIXELS).save(root / "images" / f"{name}.png")
    (root / "labels.csv").write_text("image,labels\na.png,sky;road\nb.png,road;car\n")
    return root


def run(root: Path, clip: Path, *more: str) -> tuple[int, str]:
    """(exit code, last line of what was said)."""
    views = ("--set", "labels.views.local_height=16", "--set", "labels.views.local_width=16")
    options = ["--dataset", "folder", "--data-root", str(root), "--clip", str(clip), "--out", str(root.parent / "out")]
    done = CliRunner().invoke(main, ["labels", *options, *views, *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output.strip().splitlines()[-1]


def cut(name: str, share: float = 0.5) -> Arrange:
    def arrange(root: Path) -> None:
        file = root / "images" / name
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    return arrange


def replace_a(save: Callable[[Path], object], suffix: str = ".png") -> Arrange:
    def arrange(root: Path) -> None:
        (root / "images" / "a.png").unlink()
        save(root / "images" / f"a{suffix}")

    return arrange


def cut_jpeg(path: Path) -> None:
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-200])


def turned_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(path, exif=exif)


def labels(text: str) -> Arrange:
    return lambda root: (root / "labels.csv").write_text(text, encoding="utf-8")


def write(name: str, text: str) -> Arrange:
    return lambda root: (root / name).write_text(text, encoding="utf-8")


def truth(array: np.ndarray, mode: str | None = None) -> Arrange:
    def arrange(root: Path) -> None:
        (root / "labels.csv").unlink()
        (root / "truth").mkdir()
        for name in ("a", "b"):
            Image.fromarray(array, mode).save(root / "truth" / f"{name}.png")

    return arrange


def rename_a(name: str) -> Arrange:
    def arrange(root: Path) -> None:
        (root / "images" / "a.png").rename(root / "images" / name)
        (root / "labels.csv").write_text(f"image,labels\n{name},sky\nb.png,road\n", encoding="utf-8")

    return arrange


def in_the_way(root: Path) -> None:
    folder = root.parent / "out" / "labels" / "train.zarr"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")


def nothing(root: Path) -> None:
    pass


PNG_16 = replace_a(lambda p: Image.fromarray(np.full((32, 48), 60000, np.uint16)).save(p))
CASES: dict[str, tuple[Arrange, tuple[str, ...], str]] = {
    "truncated PNG": (cut("a.png"), (), "a.png is truncated; copy it again or take it out of the split"),
    "empty file": (cut("a.png", 0), (), "a.png cannot be read as an image"),
    "truncated JPEG": (replace_a(cut_jpeg, ".jpg"), ("--tags", "auto"), "a.jpg is truncated"),
    "text named PNG": (write("images/a.png", "hello"), (), "a.png cannot be read as an image"),
    "16-bit image": (PNG_16, (), "fine"),
    "RGBA image": (replace_a(lambda p: Image.fromarray(PIXELS).convert("RGBA").save(p)), (), "fine"),
    "grey image": (replace_a(lambda p: Image.fromarray(PIXELS).convert("L").save(p)), (), "fine"),
    "EXIF-rotated JPEG": (replace_a(turned_jpeg, ".jpg"), ("--tags", "auto"), "fine"),
    "one-pixel image": (replace_a(lambda p: Image.fromarray(PIXELS[:1, :1]).save(p)), (), "fine"),
    "no labels for an image": (labels("image,labels\na.png,sky\n"), (), "b has no image-level labels; give a labels"),
    "no labels, guessed": (labels("image,labels\na.png,sky\n"), ("--tags", "auto"), "fine"),
    "unknown class": (labels("image,labels\na.png,raod\n"), (), "did you mean 'road'?"),
    "image that is not there": (labels("image,labels\nc.png,road\n"), (), "names 'c.png', but"),
    "path with ..": (labels("image,labels\n../images/a.png,road\n"), (), "names '../images/a.png', but"),
    "image listed twice": (labels("image,labels\na.png,road\na.png,sky\n"), (), "names 'a.png' twice"),
    "duplicate ids": (lambda r: Image.fromarray(PIXELS).save(r / "images" / "a.jpg"), (), "would have one image id"),
    "non-ASCII name": (rename_a("straße ñ 街.png"), (), "fine"),
    "label maps of colours": (truth(PIXELS), (), "must hold one 8-bit id a pixel"),
    "16-bit label maps": (truth(np.zeros((32, 48), np.uint16)), (), "must hold one 8-bit id a pixel, got uint16"),
    "no classes": (lambda r: (r / "classes.toml").unlink(), (), "classes.toml: put your images and a classes.toml"),
    "class twice": (write("classes.toml", 'classes = ["sky", "sky"]'), (), "lists the class 'sky' twice"),
    "templates without {}": (write("t.txt", "a photo"), ("--set", "labels.templates=TEMPLATES"), "exactly one {}"),
    "broken tags file": (write("t.json", "{"), ("--tags", "TAGS"), "is no valid JSON"),
    "part out of range": (nothing, ("--shard", "3/2"), "--shard takes I/N with 1 <= I <= N, such as 2/8, got '3/2'"),
    "no such precision": (nothing, ("--set", "labels.precision=int4"), "must be one of float16, int8, got 'int4'"),
    "crop of no size": (nothing, ("--set", "labels.views.local_width=0"), "must be positive, got 16 x 0"),
    "output is a file": (lambda r: (r.parent / "out").write_text("mine"), (), "out is a file; choose another OUT"),
    "output is something else": (
        in_the_way,
        (),
        "exists and is no pseudo-label store; choose another OUT",
    ),
    "read-only target": (nothing, ("--out", "/proc/carbseg"), "No such file or directory"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_and_odd_input(case: str, clip_folder: Path, tmp_path: Path) -> None:
    arrange, options, outcome = CASES[case]
    root = sound(tmp_path)
    arrange(root)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    places = {"TEMPLATES": str(root / "t.txt"), "TAGS": str(root / "t.json")}
    given = [option.replace(name, place) for option in options for name, place in places.items() if name in option]
    code, said = run(root, clip_folder, *((given and [options[0], *given]) or options))
    if outcome == "fine":
        assert code == 0, said
        PseudoLabelStore.open(tmp_path / "out" / "labels" / "train.zarr").require_complete()
    else:
        assert (code, outcome in said) == (1, True), said
        assert said.startswith("Error: ")
    assert {path: path.read_bytes() for path in before} == before


def test_stale_provenance_and_another_patch_size_are_refused(clip_folder: Path, tmp_path: Path) -> None:
    root = sound(tmp_path)
    assert run(root, clip_folder)[0] == 0
    assert "labels.variant = 'maskclip', not 'value'" in run(root, clip_folder, "--set", "labels.variant=value")[1]
    (root / "labels.csv").write_text("image,labels\na.png,sky\nb.png,road;car\n")
    assert "was made with other image-level labels of 'a'; delete it" in run(root, clip_folder)[1]
    coarser = tmp_path / "coarser"
    coarser.mkdir()
    for file in clip_folder.iterdir():
        (coarser / file.name).write_bytes(file.read_bytes())
    config = json.loads((coarser / "config.json").read_text())
    config["vision_config"]["patch_size"] = 16  # the weights are of another geometry
    (coarser / "config.json").write_text(json.dumps(config))
    assert "no CLIP weights at" in run(root, coarser)[1]


@pytest.mark.slow
def test_a_full_disk_stops_the_run_in_one_line_and_it_resumes(clip_folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the midst of a shard."""
    root = sound(tmp_path)
    words = ("labels", "--dataset", "folder", "--data-root", root, "--clip", clip_folder, "--out", tmp_path / "out")
    done = subprocess.run(
        command(*words),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("Error: [Errno 27] File too large")
    carbseg(*words)
    PseudoLabelStore.open(tmp_path / "out" / "labels" / "train.zarr").require_complete()
