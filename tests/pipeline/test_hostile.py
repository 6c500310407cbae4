"""Hostile input through the real command line. What is said of each case stands in the table of docs/trust.md.

There a message in `code` is the last line of the error, or a finding of `datasets check`, without the case's folder;
"…" stands for anything. Other words say how something is made harmless.
"""

import csv
import gzip
import json
import os
import pickle
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zarr
from PIL import Image
from safetensors.numpy import load_file, save_file

from labelgen.images import write_png
from labelgen.store import PseudoLabelStore
from tests.conftest import ROOT, carbseg, made_once
from tests.files import own_folder
from tests.models import save_detector, save_sam

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 48, 3), np.uint8)
HUGE = 1 << 40


class Here(NamedTuple):
    """Where a case lies: its own folder, and models and a store that it may copy from."""

    folder: Path
    clip: Path
    student: Path
    store: Path

    @property
    def images(self) -> Path:
        return self.folder / "mine" / "images"


Arrange = Callable[[Here], object]
Look = Callable[[Here, str], bool]


class Case(NamedTuple):
    """look: of what is made harmless, whether it was, from the folder and standard output. begun: what may be left."""

    arrange: Arrange
    words: str
    look: Look | None = None
    begun: str = ""


# ---- Commands; :NAME is a path in the case's folder, or what the cases share ----------------------------------------

DATA = "--dataset folder --data-root :mine"
CHECK = f"datasets check {DATA}"
SMALL = "--set labels.views.local_height=16 --set labels.views.local_width=16"
LABELS = f"labels {DATA} --clip :clip --out :out {SMALL}"
FETCH = "datasets fetch camvid :data --url :archive"
PREDICT = "predict :student :mine/images/a.png --out :maps"


# ---- How the files are made ------------------------------------------------------------------------------------------


def nothing(here: Here) -> None:
    pass


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, colour: int = 0) -> bytes:
    """A PNG that says that it has so many pixels, and holds next to none."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def image(data: bytes) -> Arrange:
    return lambda here: (here.images / "a.png").write_bytes(data)


def truth(data: bytes) -> Arrange:
    def arrange(here: Here) -> None:
        (here.folder / "mine" / "truth").mkdir()
        (here.folder / "mine" / "truth" / "a.png").write_bytes(data)

    return arrange


def sparse(name: str) -> Arrange:
    """A file of a terabyte that takes no room."""

    def arrange(here: Here) -> None:
        path = here.folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(HUGE)

    return arrange


def write(name: str, text: str | bytes) -> Arrange:
    data = text.encode() if isinstance(text, str) else text
    return lambda here: (here.folder / name).write_bytes(data)


def classes(*names: str) -> Arrange:
    return write("mine/classes.toml", "classes = " + json.dumps(names))


def rename_a(name: str) -> Arrange:
    def arrange(here: Here) -> None:
        (here.images / "a.png").rename(here.images / name)
        labels = json.dumps({name: ["sky"], "b.png": ["road"]})
        (here.folder / "mine" / "labels.csv").unlink()
        (here.folder / "mine" / "labels.json").write_text(labels)

    return arrange


def link(name: str, target: str) -> Arrange:
    def arrange(here: Here) -> None:
        path = here.folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return arrange


def pipe(here: Here) -> None:
    (here.images / "a.png").unlink()
    os.mkfifo(here.images / "a.png")


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Arrange:
    def arrange(here: Here) -> None:
        with zipfile.ZipFile(here.folder / "archive", "w", method) as packed:
            for name, data in files:
                packed.writestr(name, data)

    return arrange


def zip_bomb(here: Here) -> None:
    """10 MB of zeros in 10 kB."""
    with zipfile.ZipFile(here.folder / "archive", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("train/a.png", bytes(10 << 20))


def locked_zip(here: Here) -> None:
    zipped(("train/a.png", b"data"))(here)
    data = bytearray((here.folder / "archive").read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1  # "encrypted"
    (here.folder / "archive").write_bytes(data)


def cut_zip(here: Here) -> None:
    """A zip whose deflated bytes are none."""
    zipped(("train/a.png", bytes(1000)))(here)
    data = bytearray((here.folder / "archive").read_bytes())
    start = 30 + len("train/a.png")
    data[start : start + 4] = b"\xff" * 4
    (here.folder / "archive").write_bytes(data)


def tarred(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> Arrange:
    """A gzipped tar of one member, of which only the header is there."""

    def arrange(here: Here) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, target, size
        (here.folder / "archive").write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))

    return arrange


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def own(here: Here, name: str) -> Path:
    """A copy of a model or of the store, to be spoilt."""
    return Path(shutil.copytree(getattr(here, name), here.folder / name))


def clip_config(change: Callable[[dict[str, Any]], object]) -> Arrange:
    return lambda here: edit_json(own(here, "clip") / "config.json", change)


def student_config(change: Callable[[dict[str, Any]], object]) -> Arrange:
    return lambda here: edit_json(own(here, "student") / "config.json", change)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def weights(name: str, value: float) -> Arrange:
    def arrange(here: Here) -> None:
        file = own(here, name) / "model.safetensors"
        tensors = load_file(file)
        next(tensor for tensor in tensors.values() if tensor.ndim > 1)[0, 0] = value
        save_file(tensors, file, metadata={"format": "pt"})

    return arrange


def pickled(name: str) -> Arrange:
    """A model folder of pickled weights, which leave a file behind when they are opened."""

    def arrange(here: Here) -> None:
        folder = own(here, name)
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(here.folder / "ran")))

    return arrange


def with_code(here: Here, folder: Path, *loaders: str) -> None:
    """Let a model folder ask for code of its own, which leaves a file behind when it runs."""
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(here.folder / 'ran')!r}).touch()\n")
    asked = dict.fromkeys(("AutoConfig", "AutoModel", *loaders), "evil.Evil")
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        path = folder / name
        about = json.loads(path.read_text()) if path.is_file() else {}
        about |= {"auto_map": asked | {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoProcessor": "evil.Evil"}}
        if name == "config.json":
            about |= {"model_type": "evil"}
        else:
            about |= {"tokenizer_class": "Evil", "processor_class": "Evil", "image_processor_type": "Evil"}
        path.write_text(json.dumps(about))


def code(name: str) -> Arrange:
    return lambda here: with_code(here, own(here, name), "AutoModelForSemanticSegmentation")


def save_resnet(folder: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4)).save_pretrained(folder)


def pickled_file(here: Here) -> None:
    begun(here)
    (here.folder / "model.pth").write_bytes(pickle.dumps(Evil(here.folder / "ran")))


def pickled_checkpoint(here: Here) -> None:
    begun(here)
    (here.folder / "out" / "local+carb").mkdir()
    pickled = pickle.dumps(Evil(here.folder / "ran"))
    (here.folder / "out" / "local+carb" / "checkpoint-00000001.pt").write_bytes(pickled)


def begun(here: Here) -> None:
    """A run that has its pseudo-labels."""
    shutil.copytree(here.store.parent.parent, here.folder / "out")


def script(here: Here) -> None:
    """A folder as Hugging Face datasets once ran it."""
    (here.folder / "evil").mkdir()
    (here.folder / "evil" / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(here.folder / 'ran')!r}).touch()\n"
    )


def pixel_statistics(text: str) -> Arrange:
    return lambda here: (own(here, "clip") / "preprocessor_config.json").write_text(text)


def broken(name: str) -> Arrange:
    """An image of that name which is none."""

    def arrange(here: Here) -> None:
        rename_a(name)(here)
        (here.images / name).write_text("no image")

    return arrange


def code_of(save: Callable[[Path], None], *loaders: str) -> Arrange:
    """The same of a detector or SAM in the folder "model"."""

    def arrange(here: Here) -> None:
        begun(here)
        save(here.folder / "model")
        with_code(here, here.folder / "model", *loaders)

    return arrange


def store(change: Callable[[dict[str, Any]], object]) -> Arrange:
    """A store whose attributes are changed."""
    return lambda here: edit_json(own(here, "store") / "zarr.json", lambda data: change(data["attributes"]))


def array(name: str, change: Callable[[Any], object]) -> Arrange:
    """A store whose array is changed, checksums and all."""
    return lambda here: change(zarr.open_group(str(own(here, "store")), mode="r+")[name])


def fill(value: float) -> Callable[[Any], object]:
    def change(values: Any) -> None:
        values[:] = value

    return change


@pytest.fixture(scope="session")
def given(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Here:
    """What the cases share: the two models, and a store of the sound images."""

    def make(folder: Path) -> None:
        import torch

        from pipeline.datasets import dataset
        from segtrain.model import StudentConfig, build_student, save_student

        sound(folder)
        spec = dataset("folder", folder / "mine")
        text_CD = torch.eye(3, 4)
        save_student(
            build_student(StudentConfig(width=4, aspp_channels=8), spec.classes, text_CD), folder / "student", {}
        )
        carbseg(*LABELS.replace(":clip", str(clip_folder)).replace(":", f"{folder}/").split())

    folder = made_once(tmp_path_factory, "hostile", make)
    return Here(folder, clip_folder, folder / "student", folder / "out" / "labels" / "train.zarr")


def sound(folder: Path) -> None:
    """Two images of one's own, and what they show."""
    root = own_folder(folder / "mine", classes='["sky", "road", "car"]')
    (root / "images").mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(PIXELS).save(root / "images" / f"{name}.png")
    (root / "labels.csv").write_text("image,labels\na.png,sky;road\nb.png,road;car\n")


def run(case: Case, here: Here) -> tuple[int, str, str]:
    """(exit code, standard output, the last line of standard error) of a case that has been arranged."""
    shared = {"clip": here.clip, "student": here.student, "store": here.store}

    def path(match: re.Match[str]) -> str:
        own, name = here.folder / match[2], match[2]
        return match[1] + (own.as_uri() if name == "archive" else str(own if own.exists() else shared.get(name, own)))

    words = [re.sub("(^|=|^hf:):(.+)", path, word) for word in case.words.split()]
    done = carbseg(*words, check=False)
    said = done.stderr.strip().splitlines() or [""]
    return done.returncode, done.stdout, said[-1]


# ---- The table -------------------------------------------------------------------------------------------------------

BOMB = png(60_000, 60_000)
NESTED = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5000
EXPORT = "labels export :store :maps --view local"
TRAIN = f"train {LABELS.removeprefix('labels ')}"
BACKBONE = f"{TRAIN} --set student.backbone=resnet50 --set student.pretrained=:model"
SET = f"{LABELS} --set"


def labelled(here: Here, said: str) -> bool:
    return len(PseudoLabelStore.open(here.folder / "out" / "labels" / "train.zarr")) == 2


def ignored(here: Here, said: str) -> bool:
    return bool((np.asarray(Image.open(here.folder / "maps" / "a.png")) == 255).all())


def shown(*texts: str) -> Look:
    """Standard output holds these texts, and no control character."""
    return lambda here, said: (
        all(text in said for text in texts) and all(sign.isprintable() for sign in said if sign != "\n")
    )


CASES: dict[str, Case] = {
    "a PNG that claims 60,000 x 60,000 pixels, checked": Case(image(BOMB), CHECK),
    "the same, labelled": Case(image(BOMB), LABELS),
    "the same, predicted": Case(image(BOMB), PREDICT),
    "the same, as a label map": Case(truth(BOMB), CHECK),
    "10,000 x 8,000 pixels": Case(image(png(10000, 8000)), CHECK),
    "a row of 60 million pixels": Case(image(png(60000000, 1)), CHECK),
    "a comment that unpacks to 80 MB": Case(
        image(png(48, 32, chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(80 << 20))))), LABELS
    ),
    "an image of a terabyte": Case(sparse("mine/images/a.png"), CHECK),
    "a link to itself": Case(link("mine/images/a.png", "a.png"), CHECK),
    "a folder that links to itself": Case(link("mine/images/loop", "."), LABELS, labelled),
    "classes.toml of a terabyte": Case(sparse("mine/classes.toml"), LABELS),
    "settings of a terabyte": Case(sparse("s.toml"), f"{LABELS} --config :s.toml"),
    "labels.csv of a terabyte": Case(sparse("mine/labels.csv"), LABELS),
    "a quote that never ends": Case(write("mine/labels.csv", b'image,labels\n"' + b"x" * 100000000), LABELS),
    "100,000 brackets, settings": Case(write("s.toml", f"a = {NESTED}"), f"{LABELS} --config :s.toml"),
    "100,000 brackets, labels.json": Case(write("t.json", NESTED), f"{LABELS} --tags :t.json"),
    "a number of 5,000 digits, settings": Case(write("s.toml", f"a = {DIGITS}"), f"{LABELS} --config :s.toml"),
    "a number of 5,000 digits, points": Case(
        write("p.csv", f"image,x,y,class\na,{DIGITS},1,sky\n"), f"{CHECK} --points :p.csv"
    ),
    "a zip of 10 MB of zeros": Case(zip_bomb, FETCH),
    "a tar that claims a terabyte": Case(tarred("train/a.png", size=HUGE), FETCH),
    "a zip with ../": Case(zipped(("../evil", b"")), FETCH),
    "a zip with an absolute path": Case(zipped(("/evil", b"")), FETCH),
    "a tar with ../": Case(tarred("a/../../evil"), FETCH),
    "a tar with a symbolic link": Case(tarred("train", tarfile.SYMTYPE, "."), FETCH),
    "a tar with a hard link": Case(tarred("train", tarfile.LNKTYPE, "../../etc/passwd"), FETCH),
    "a tar with a device": Case(tarred("train", tarfile.CHRTYPE), FETCH),
    "a zip with a password": Case(locked_zip, FETCH),
    "a zip of bytes that are no deflate": Case(cut_zip, FETCH),
    "a zoom of 1e9": Case(nothing, f"{SET} labels.views.global_zooms=[1e9]"),
    "a zoom that is no number": Case(nothing, f"{SET} labels.views.global_zooms=[nan]"),
    "an infinite zoom": Case(nothing, f"{SET} labels.views.local_zooms=[1.0,inf]"),
    "10^12 levels of zoom": Case(nothing, f"{SET} labels.views.zoom_levels=999999999999"),
    "crops of a billion pixels a side": Case(nothing, f"{SET} augment.crop_height=1000000000"),
    "a student of ten million channels": Case(nothing, f"{SET} student.width=10000000"),
    "--scales 1e9": Case(nothing, f"{PREDICT} --scales 1e9"),
    "--scales 1,nan": Case(nothing, f"{PREDICT} --scales 1,nan"),
    "--window of 5,000 digits": Case(nothing, f"{PREDICT} --window {DIGITS}x64"),
    "--size 10000000x10000000": Case(nothing, "export-onnx :student :s.onnx --size 10000000x10000000"),
    "--shard of 5,000 digits": Case(nothing, f"{LABELS} --shard 1/{DIGITS}"),
    "--out is a file": Case(write("out", "mine"), LABELS),
    "--out is below a file": Case(write("mine.txt", "mine"), LABELS.replace(":out", ":mine.txt/run")),
    "--out links to itself": Case(link("out", "out"), LABELS),
    "--stores is a file": Case(write("s", "mine"), f"{LABELS} --stores :s"),
    "class maps into a file": Case(write("maps", "mine"), PREDICT),
    "masks into a file": Case(write("maps", "mine"), EXPORT),
    "a data set below a file": Case(write("s", "mine"), FETCH.replace(":data", ":s/data")),
    "pickled CLIP weights": Case(pickled("clip"), LABELS),
    "a pickled student": Case(pickled("student"), PREDICT),
    "pickled ImageNet weights": Case(pickled_file, BACKBONE + ".pth", begun="out/local+carb"),
    "a pickled checkpoint": Case(pickled_checkpoint, f"{TRAIN} --steps 2"),
    "code of its own in a CLIP folder": Case(code("clip"), LABELS),
    "code in a student's folder": Case(code("student"), PREDICT),
    "code in a backbone's folder": Case(code_of(save_resnet), BACKBONE, begun="out/local+carb"),
    "code in a detector's folder": Case(
        code_of(save_detector, "AutoModelForZeroShotObjectDetection"),
        f"{LABELS.replace(':out', ':new')} --engine grounded-sam --set grounded_sam.detector=:model",
        begun="new",
    ),
    "code in a SAM's folder": Case(
        code_of(save_sam, "AutoModelForMaskGeneration"),
        f"{LABELS.replace(':out', ':new')} --set regions.source=:model",
        begun="new",
    ),
    "a data set that is a script": Case(script, f"{LABELS} --dataset hf::evil"),
    "NaN in CLIP's weights": Case(weights("clip", float("nan")), LABELS),
    "infinity in CLIP's weights": Case(weights("clip", float("inf")), LABELS),
    "NaN in a student's weights": Case(weights("student", float("nan")), PREDICT),
    "a billion layers": Case(clip_config(lambda c: c["vision_config"].update(num_hidden_layers=10**9)), LABELS),
    "10^12 channels": Case(clip_config(lambda c: c["vision_config"].update(hidden_size=10**12)), LABELS),
    "patches of no pixel": Case(clip_config(lambda c: c["vision_config"].update(patch_size=0)), LABELS),
    "unknown settings in config.json": Case(
        clip_config(lambda c: c.update(evil="evil", quantization_config={"quant_method": "evil"})), LABELS, labelled
    ),
    "pixels divided by 0": Case(pixel_statistics('{"image_std": [0, 0, 0]}'), LABELS),
    "pixels less a word": Case(pixel_statistics('{"image_mean": "abc"}'), LABELS),
    "10,000 dilation rates": Case(student_config(lambda c: c["student"].update(aspp_rates=[1] * 10_000)), PREDICT),
    "an unknown setting of a student": Case(student_config(lambda c: c["student"].update(evil=1)), PREDICT),
    "colours that are none": Case(student_config(lambda c: c.update(palette=[["red"]])), PREDICT),
    "two colours for three classes": Case(student_config(lambda c: c.update(palette=[[0, 0, 0]] * 2)), PREDICT),
    "NaN in a store": Case(array("local_logits", fill(np.nan)), EXPORT, ignored),
    "infinity in a store": Case(array("local_logits", fill(np.inf)), EXPORT),
    "an image of 10^9 pixels a side": Case(
        array("views", lambda v: v.__setitem__((slice(None), 0, slice(2, 4)), 1000000000.0)), EXPORT
    ),
    "views that are no numbers": Case(array("views", fill(np.nan)), EXPORT),
    "a view beyond the image": Case(array("views", lambda v: v.__setitem__((slice(None), 1, 2), 10000)), EXPORT),
    "no provenance": Case(store(lambda a: a.update(provenance=None)), "labels info :store"),
    "provenance of other classes": Case(store(lambda a: a["provenance"]["classes"].update(names=["a"])), EXPORT),
    "a billion images": Case(store(lambda a: a.update(images=10**9)), EXPORT),
    "shards of no image": Case(store(lambda a: a.update(images_per_shard=0)), EXPORT),
    "settings that are a word": Case(store(lambda a: a["provenance"].update(labels="evil")), EXPORT),
    "an image id with ../": Case(
        array("image_id", lambda v: v.__setitem__(slice(1), np.array(["../../evil"], np.dtypes.StringDType()))), EXPORT
    ),
    "a terminal's code in a class of a store": Case(
        store(lambda a: a["provenance"]["classes"].update(names=["\x1b[31m", "road", "car"])), "labels info :store"
    ),
    "and in its settings": Case(
        store(lambda a: a["provenance"].update(dataset="\x9b31m\u202e")), "labels info :store", shown("\\x9b31m\\u202e")
    ),
    "a terminal's code in a class name": Case(classes("\x1b[31m", "road"), LABELS),
    "a formula as a class name": Case(classes("=1+1", "road"), LABELS),
    "a terminal's code in a file name, labelled": Case(broken("\x1b[31m.png"), LABELS),
    "the same, checked": Case(broken("\x1b[31m.png"), CHECK, shown("\\x1b[31m.png")),
    "a file name of 255 bytes, labelled": Case(rename_a("x" * 251 + ".png"), LABELS, labelled),
    "a file name of 255 bytes, predicted": Case(
        rename_a("x" * 251 + ".png"),
        PREDICT.replace("/a.png", ""),
        lambda here, said: (here.folder / "maps" / f"{'x' * 251}.png").is_file(),
    ),
}


# ---- The tests -------------------------------------------------------------------------------------------------------


def messages() -> dict[str, str]:
    """The table: name -> message."""
    text = (ROOT / "docs" / "trust.md").read_text("utf-8").partition("| what comes in | what is said |")[2]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", text.partition("\n## ")[0], re.MULTILINE)
    return {name: said for name, said in rows if not name.startswith("**")}


def test_the_table_in_the_docs_holds_these_cases() -> None:
    assert list(messages()) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_hostile_input_is_said_in_one_line_or_made_harmless(name: str, given: Here, tmp_path: Path) -> None:
    case, expected, here = CASES[name], messages()[name].strip("`"), given._replace(folder=tmp_path)
    sound(tmp_path)
    case.arrange(here)
    before = listed(tmp_path)
    code, shown, said = run(case, here)
    assert not (tmp_path / "ran").exists()
    if case.words.startswith(CHECK):
        assert code == 1
        found = [line.removeprefix("error: ") for line in shown.splitlines() if line.startswith("error: ")]
        assert any(matches(expected, line, tmp_path) for line in found), shown
    elif case.look is None:
        assert (code, shown) == (1, "")
        assert matches(f"Error: {expected}", said, tmp_path), said
    else:
        assert code == 0, said
    if case.look is not None:
        assert case.look(here, shown)
    else:
        # What suits the images is whole, and kept for the next try.
        left = {path for path in listed(tmp_path) - before if not (case.begun and path.startswith(case.begun))}
        assert left <= {"out", "out/suggested.toml"}


def listed(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def matches(expected: str, said: str, folder: Path) -> bool:
    """Whether it was said, but for the case's folder, and what an ellipsis leaves open."""
    pattern = ".*".join(map(re.escape, expected.split("…")))
    return re.fullmatch(pattern, said.replace(f"{folder}/", "")) is not None


def test_names_are_text_in_every_output(given: Here, tmp_path: Path) -> None:
    """HTML, Markdown, formulas of TeX: tables for people, tables for programs, the page and the plots."""
    names = ("</script><img src=x>", "a|b [c](d)`e`", "$\\evil$")
    sound(tmp_path)
    (tmp_path / "mine" / "labels.csv").unlink()
    classes(*names)(given._replace(folder=tmp_path))
    (tmp_path / "mine" / "truth").mkdir()
    for name in "ab":
        write_png(tmp_path / "mine" / "truth" / f"{name}.png", RNG.integers(0, 3, (32, 48), np.uint8))
    here = given._replace(folder=tmp_path)
    words = LABELS.removeprefix("labels ")
    for command in (f"report {words} --split train", f"datasets statistics {words}"):
        code, _, said = run(Case(nothing, command), here)
        assert code == 0, said
    out = tmp_path / "out"
    in_markdown = "\\</script>\\<img src=x> | a\\|b \\[c](d)\\`e\\` | $\\\\evil$ |"
    assert in_markdown in (out / "metrics.md").read_text()
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert {row[1] for row in rows[1:]} == {*names, "mean"}
    assert "<img" not in (out / "report.html").read_text()
    assert (out / "statistics-train.png").is_file()
