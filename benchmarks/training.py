"""How long a training step takes and where the time goes, at true size: ResNet-50 student, ViT-B/16, CamVid's crops.

Weights are random, images and logits made up. Prints Markdown; compare shares between machines, not seconds.
Run by `make bench`.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray

from benchmarks.labels import EMBEDDING, GLOBAL, LOCAL, seconds, vit_b16
from labelgen.images import resize_image, write_png
from labelgen.layout import StoreLayout
from labelgen.maskclip import DenseCLIP
from labelgen.samples import Sample
from labelgen.store import ImageLogits, LocalView, PseudoLabelStore
from labelgen.views import ViewConfig, local_views
from pipeline.commands.options import quiet_libraries
from pipeline.datasets.classes import CAMVID_CLASSES
from pipeline.toy.scenes import driving_scene
from segtrain.augment import AugmentConfig
from segtrain.carb import region_losses
from segtrain.data import Order, Place, PseudoLabelledImages, Views, batches, collate, each
from segtrain.model import StudentConfig, build_student
from segtrain.online import OnlineLabels
from segtrain.train import make_accelerator
from segtrain.trainer import TrainConfig, Trainer

CLASSES = len(CAMVID_CLASSES)
AUGMENT = AugmentConfig(crop_height=GLOBAL[0], crop_width=GLOBAL[1], scales=(1.0, 2.0))
VIEWS = ViewConfig(local_height=LOCAL[0], local_width=LOCAL[1], local_zooms=(1.0, 2.0))


def make_store(folder: Path, images: int) -> list[Sample]:
    """Images of 720 x 960 and a store of random logits, shaped as CamVid's."""
    rng = np.random.default_rng(0)
    samples: list[Sample] = []
    for i in range(images):
        path = folder / f"{i}.png"
        write_png(path, resize_image(driving_scene(i)[0], *GLOBAL))
        present = list(range(CLASSES))
        samples.append({"image_id": str(i), "image_path": str(path), "label_path": None, "image_labels": present})
    ids = [sample["image_id"] for sample in samples]
    views = {i: local_views(VIEWS, i, *GLOBAL) for i in ids}
    count, grid = max(map(len, views.values())), (64, 32)
    vectors = np.linalg.qr(rng.standard_normal((EMBEDDING, CLASSES)))[0].T.astype(np.float32)
    layout = StoreLayout(ids, vectors, [(45, 60)], grid, count, images_per_shard=4)
    classes = {"names": list(CAMVID_CLASSES.names)}
    store = PseudoLabelStore.create(folder / "s.zarr", layout, {"classes": classes, "clip": {"patch_px": 16}})

    def logits(h: int, w: int) -> NDArray[np.float32]:
        return rng.standard_normal((CLASSES, h, w)).astype(np.float32)

    def image(image_id: str) -> ImageLogits:
        seen = [LocalView(view.box, view.zoom, logits(*view.grid(16))) for view in views[image_id]]
        return ImageLogits(image_id, GLOBAL, list(range(CLASSES)), [logits(45, 60)], seen)

    for rows in store.shards():
        store.write_shard(rows, [image(ids[row]) for row in rows])
    return samples


def step_times(
    accelerator: Accelerator, samples: Sequence[Sample], store: Path, batch: int, repeats: int
) -> tuple[float, float]:
    """Seconds of a step with cached labels and with CLIP in the loop; prints where they go."""
    text_CD = torch.from_numpy(PseudoLabelStore.open(store).text_vectors)
    config = TrainConfig(steps=1000, warmup_steps=0, batch=batch, workers=0)
    steps = {}
    for views in ("local", "dual"):
        data = dataset(samples, store, views)
        places = [Place(0, slot, slot % len(samples)) for slot in range(batch)]
        loading = seconds(lambda d=data, p=places: [d[place] for place in p], repeats)  # type: ignore[misc]
        tensors = collate([data[place] for place in places]).to(accelerator.device)
        student = build_student(StudentConfig(backbone="resnet50"), CAMVID_CLASSES, text_CD)
        trainer = Trainer(student, replace(config, views=views), accelerator)
        trainer.student.train()
        clip = 0.0
        if views == "dual":
            online = OnlineLabels(DenseCLIP(vit_b16()).to(accelerator.device), text_CD)
            clip = seconds(lambda o=online, t=tensors: o.relabel(t).global_pseudo_BHW.sum().item(), repeats)  # type: ignore[misc]
            tensors = online.relabel(tensors)
        step = seconds(lambda t=trainer, x=tensors: t.train_step(x), repeats)  # type: ignore[misc]
        carb = seconds(lambda x=tensors: balance(x), repeats)  # type: ignore[misc]
        total = loading + clip + step
        steps[views] = total
        cells = [f"{part / total:.1%}" for part in (loading, clip, step - carb, carb)]
        print(f"| {views} | {1 / total:.3f} | " + " | ".join(cells) + f" | {peak_gib():.1f} GiB |")
    return steps["local"], steps["dual"]


def balance(batch: object) -> None:
    """Resizing, both losses and their backward pass on logits as a ResNet student gives them."""
    from segtrain.data import TrainBatch

    assert isinstance(batch, TrainBatch)
    h, w = (side // 8 for side in GLOBAL)
    logits = torch.randn(len(batch.image_B3HW), CLASSES, h, w, device=batch.image_B3HW.device, requires_grad=True)
    resized = F.interpolate(logits, size=batch.global_pseudo_BHW.shape[-2:], mode="bilinear")
    g = region_losses(resized, batch.global_pseudo_BHW, batch.is_present_BC)
    local = region_losses(resized, batch.local_pseudo_BHW, batch.is_present_BC)
    (g.consistent + g.inconsistent + local.consistent + local.inconsistent).backward()  # type: ignore[no-untyped-call]


def dataset(samples: Sequence[Sample], store: Path, views: Views) -> PseudoLabelledImages:
    """Training samples as `train` loads them."""
    return PseudoLabelledImages(samples, store, AUGMENT, seed=0, views=views, dual=VIEWS)


def loader_rates(samples: Sequence[Sample], store: Path, steps: int) -> None:
    """Samples per second that loader processes give when nobody holds them up."""
    print("\n| loader processes | samples/s |\n|---|---|")
    for workers in (0, 1, 2):
        data, order = dataset(samples, store, "local"), Order(len(samples), 4, 0)
        loader = each(batches(data, order, 0, steps + 1, workers=workers, rank=0, ranks=1))
        next(loader)  # starting the processes is paid once
        started = time.perf_counter()
        for _ in loader:
            pass
        print(f"| {workers} | {4 * steps / (time.perf_counter() - started):.1f} |")


def peak_gib() -> float:
    """Largest memory so far: of the GPU, or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat of everything, to see that it runs")
    parser.add_argument("--batch", type=int, default=1, help="images a step")
    options = parser.parse_args()
    quiet_libraries()
    torch.manual_seed(0)
    accelerator = make_accelerator(TrainConfig())
    print(f"# Training, ResNet-50, crops of {GLOBAL[0]} x {GLOBAL[1]}, batch {options.batch}, {accelerator.device}\n")
    print("| views | steps/s | data | CLIP | student | CARB | peak memory |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        samples = make_store(Path(folder), 8)
        repeats = 1 if options.quick else 3
        cached, online = step_times(accelerator, samples, Path(folder) / "s.zarr", options.batch, repeats)
        print(f"\ncached labels: {online / cached:.2f} times as fast as CLIP in the loop")
        loader_rates(samples, Path(folder) / "s.zarr", 2 if options.quick else 10)


if __name__ == "__main__":
    main()
