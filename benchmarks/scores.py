"""How fast pixels are counted: the confusion matrix beside Hugging Face `evaluate`'s mean_iou, in one run.

Maps are blocks of random classes with void, 1024 x 2048 pixels, 19 classes. Prints Markdown. Run by `make bench`;
`evaluate` is no dependency: `pip install evaluate`, and --metric FOLDER for its mean_iou script where there is no hub.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.boundary import count_boundaries
from evaluation.confusion import ConfusionMatrix

CLASSES, HEIGHT, WIDTH = 19, 1024, 2048


def maps(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Truth with an eighth of void, and a prediction that is right three times out of four."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, (HEIGHT // 32, WIDTH // 32)).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.75, truth, (truth + 1) % CLASSES).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.125] = 255
    truth, prediction = (
        cv2.resize(m, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST).astype(np.uint8) for m in (truth, prediction)
    )
    return truth, prediction


def timed(images: int, update: Callable[[NDArray[np.uint8], NDArray[np.uint8]], object]) -> float:
    """Seconds for all images; making them does not count."""
    total = 0.0
    for seed in range(images):
        truth, prediction = maps(seed)
        started = time.perf_counter()
        update(truth, prediction)
        total += time.perf_counter() - started
    return total


def hugging_face(images: int, folder_or_name: str) -> tuple[float, float]:
    """Seconds and mean IoU of `evaluate`, told image by image, as its users do."""
    import datasets
    import evaluate

    datasets.disable_progress_bars()
    metric: Any = evaluate.load(folder_or_name)
    seconds = timed(images, lambda truth, prediction: metric.add(prediction=prediction, reference=truth))
    started = time.perf_counter()
    result = metric.compute(num_labels=CLASSES, ignore_index=255)
    return seconds + time.perf_counter() - started, float(result["mean_iou"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--metric", default="mean_iou", help="folder of evaluate's metric, or its name on the hub")
    options = parser.parse_args(arguments)

    matrix = ConfusionMatrix(CLASSES)
    ours = timed(options.images, matrix.update)
    boundary = timed(options.images, lambda truth, prediction: count_boundaries(truth, prediction, CLASSES))
    print(f"\n{options.images} predictions of {HEIGHT} x {WIDTH}, {CLASSES} classes\n")
    print("| | seconds | ms/image | mIoU | times as fast |\n|---|---|---|---|---|")

    def line(name: str, seconds: float, miou: str, ratio: str) -> None:
        print(f"| {name} | {seconds:.2f} | {1000 * seconds / options.images:.1f} | {miou} | {ratio} |")

    ratio = ""
    try:
        theirs, miou = hugging_face(options.images, options.metric)
        line("Hugging Face evaluate, mean_iou", theirs, f"{100 * miou:.4f}", "1")
        ratio = f"{theirs / ours:.1f}"
    except (ImportError, OSError, ValueError) as error:  # not installed, or no hub
        print(f"| Hugging Face evaluate: not measured ({' '.join(str(error).split())[:80]}) | | | | |")
    line("confusion matrix", ours, f"{100 * matrix.scores().miou:.4f}", ratio)
    line("boundary IoU, on top of it", boundary, "", "")


if __name__ == "__main__":
    main()
