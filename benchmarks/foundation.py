"""What one image costs the engines with large models of their own, at true size with random weights.

Each writes its model folders, labels an image of 360 x 480 by the command in a fresh process, and has the store
verified. Prints Markdown: CPU time of the whole command (loading and hashing the weights are in it) and the process's
peak memory.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pipeline.commands.options import quiet_libraries
from pipeline.datasets.classes import CAMVID_CLASSES

SIZE = (360, 480)
SHOWN = 5  # classes that the image shows
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}  # BERT's, which the model knows
# Random weights are sure of nothing: so that as much is computed as for boxes and masks that are found.
TAKE = ("grounded_sam.box_threshold=0.5", "grounded_sam.mask_threshold=0.0", "sam3.mask_threshold=0.0")


def grounding_dino_tiny(folder: Path) -> None:
    """Grounding DINO with a Swin-T, 172 M parameters."""
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
        GroundingDinoProcessor,
    )

    words = dict.fromkeys(word for names in CAMVID_CLASSES.prompts for name in names for word in name.split())
    tokens = [SPECIAL.get(place, f"[unused{place}]") for place in range(max(SPECIAL) + 1)] + list(words)
    tokenizer = BertTokenizer(vocab={token: place for place, token in enumerate(tokens)})
    GroundingDinoForObjectDetection(GroundingDinoConfig()).save_pretrained(folder)
    GroundingDinoProcessor(GroundingDinoImageProcessorPil(), tokenizer).save_pretrained(folder)


def sam_vit_b(folder: Path) -> None:
    """SAM with a ViT-B, 94 M parameters."""
    from transformers import SamConfig, SamImageProcessorPil, SamModel, SamProcessor

    SamModel(SamConfig()).save_pretrained(folder)
    SamProcessor(SamImageProcessorPil()).save_pretrained(folder)


def sam3(folder: Path) -> None:
    """SAM 3, 840 M parameters; its words in the toy CLIP's tokens."""
    from transformers import Sam3Config, Sam3Model
    from transformers.image_processing_backends import PilBackend

    from pipeline.toy.pretrain import build_tokenizer

    Sam3Model(Sam3Config()).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    half = [0.5] * 3
    PilBackend(
        do_resize=True,
        resample=2,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=half,
        image_std=half,
    ).save_pretrained(folder)


MODELS: dict[str, dict[str, Callable[[Path], None]]] = {
    "grounded-sam": {"grounded_sam.detector": grounding_dino_tiny, "grounded_sam.sam": sam_vit_b},
    "sam3": {"sam3.model": sam3},
}


def write_data(folder: Path, image: Path | None) -> None:
    """A user's folder of one image: the one given, or noise."""
    names = ", ".join(f'"{name}"' for name in CAMVID_CLASSES.names)
    (folder / "images").mkdir(parents=True)
    (folder / "classes.toml").write_text(f"classes = [{names}]\n", encoding="utf-8")
    (folder / "labels.csv").write_text(f"image,labels\na.png,{';'.join(CAMVID_CLASSES.names[:SHOWN])}\n")
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    cv2.imwrite(str(folder / "images" / "a.png"), noise if image is None else cv2.imread(str(image)))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="instead of noise")
    parser.add_argument("--engines", default=",".join(MODELS), help="with commas between")
    options = parser.parse_args()
    quiet_libraries()
    print(f"# Engines with large models, {SHOWN} classes present, random weights, CPU\n")
    print("| engine | CPU s | peak memory GB | verify |\n|---|---|---|---|")
    for name in options.engines.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_data(folder / "data", options.image)
            settings = [f"{setting}={folder / setting}" for setting in MODELS[name]]
            for setting, save in MODELS[name].items():
                save(folder / setting)
            line = ["labels", "--dataset", "folder", "--data-root", str(folder / "data"), "--out", str(folder / "out")]
            line += [word for setting in (*settings, *TAKE) for word in ("--set", setting)]
            code = (
                "import resource, sys; from pipeline.cli import main; main(sys.argv[1:], standalone_mode=False); "
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
            )
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, "-c", code, *line, "--engine", name], stdout=subprocess.PIPE, text=True, check=True
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            store = folder / "out" / "labels" / "train.zarr"
            verified = subprocess.run(
                [sys.executable, "-m", "pipeline", "labels", "verify", str(store)],
                capture_output=True,
                text=True,
                check=True,
            )
            said = verified.stdout.strip().rpartition(": ")[2]
            print(f"| {name} | {seconds:.0f} | {int(done.stdout.split()[-1]) / 2**20:.1f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
