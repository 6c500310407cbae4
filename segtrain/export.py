"""A student as an ONNX file, checked against PyTorch before anybody relies on it."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from labelgen.samples import InputError

TOLERANCE = 1e-3  # on logits of size 1 to 10


class _Logits(nn.Module):
    """A student that returns a plain tensor."""

    def __init__(self, student: PreTrainedModel) -> None:
        super().__init__()
        self.student = student

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        logits: Tensor = self.student(pixel_values=pixel_values).logits
        return logits


def export_onnx(student: PreTrainedModel, path: Path, height: int, width: int) -> float:
    """Write the student for pixels (batch, 3, height, width); the batch is free. Returns the largest difference.

    Pixels are RGB in 0..1, normalised with ImageNet's mean and deviation. Raises InputError without onnx and
    onnxruntime, or if ONNX and PyTorch differ by more than TOLERANCE; then no file is left.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError("ONNX export needs more packages: pip install 'carbseg[onnx]'") from error
    model = _Logits(student.cpu().eval())  # type: ignore[no-untyped-call]
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    partial = path.with_name(path.name + ".partial")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # The exporter prints its steps and warns of its own insides.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (pixels,),
            str(partial),
            input_names=["pixel_values"],
            output_names=["logits"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
        )
    session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixel_values": pixels.numpy()})
    with torch.inference_mode():
        difference = float(np.abs(found - model(pixels).numpy()).max())
    if not difference <= TOLERANCE:
        partial.unlink()
        raise InputError(f"the ONNX file differs from PyTorch by {difference:.2g}; please report the student's config")
    partial.replace(path)
    return difference
