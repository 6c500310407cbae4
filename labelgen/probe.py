"""In which type CLIP's vision tower computes fastest on its device, and sees what it sees in float32.

Shapes: B batch, N tokens, D width, C classes, h w patches.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labelgen.maskclip import DenseCLIP

TIMES_AS_FAST, AGREEMENT = 1.2, 0.99  # what another type than float32 must reach
PROBE_S, MOST_ROUNDS = 0.5, 20
FEW_TOKENS, TOKENS, GPU_BATCH = 16, 512, 16
HOPELESS = 0.5  # times as fast with few tokens: some CPUs take seconds in a type that they only imitate


@dataclass(frozen=True)
class Choice:
    """What was chosen, how many times as fast as float32 the others are, and how far those agree that were asked."""

    dtype: torch.dtype
    times_as_fast: Mapping[torch.dtype, float]
    agreement: Mapping[torch.dtype, float]

    def __str__(self) -> str:
        found = []
        for dtype, times in self.times_as_fast.items():
            found.append(f"{name_of(dtype)} is {times:.2f} times as fast as float32")
            if dtype in self.agreement:
                found.append(f"{self.agreement[dtype]:.1%} of an image's patches keep their class")
        return f"labels.dtype={name_of(self.dtype)}: " + ", ".join(found)


def name_of(dtype: torch.dtype) -> str:
    """As the settings call it."""
    return str(dtype).removeprefix("torch.")


def probe(
    dense: DenseCLIP, pixels_HW3: NDArray[np.uint8], text_CD: Tensor, present: Sequence[int] | None = None
) -> Choice:
    """The type for a CLIP that computes in float32, which is left as it is.

    pixels_HW3: what CLIP sees of a whole image, (h * patch, w * patch, 3). present: the classes that it shows; None or
    none: a patch may be of any.
    """
    pixels_B3HW = dense.normalise(torch.from_numpy(pixels_HW3)[None])
    shown = list(present or range(len(text_CD)))

    def agreement(dtype: torch.dtype) -> float:
        exact, other = (
            clip.logits(pixels_B3HW, text_CD)[0, shown].argmax(0) for clip in (dense, in_type(dense, dtype))
        )
        return float((exact == other).double().mean())

    return choose(times_as_fast(dense), agreement)


def choose(times_as_fast: Mapping[torch.dtype, float], agreement: Callable[[torch.dtype], float]) -> Choice:
    """The fastest type that reaches both marks, else float32. agreement: asked of types that are fast enough only."""
    agreed: dict[torch.dtype, float] = {}
    for dtype in sorted(times_as_fast, key=times_as_fast.__getitem__, reverse=True):
        if times_as_fast[dtype] >= TIMES_AS_FAST:
            agreed[dtype] = agreement(dtype)
            if agreed[dtype] >= AGREEMENT:
                return Choice(dtype, times_as_fast, agreed)
    return Choice(torch.float32, times_as_fast, agreed)


def candidates(device: torch.device) -> list[torch.dtype]:
    """The types besides float32 that may be faster on a device."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return [torch.float16]
    return [torch.bfloat16]


@torch.inference_mode()
def times_as_fast(dense: DenseCLIP) -> dict[torch.dtype, float]:
    """How many times as fast as in float32 one block of the tower is in each other type, taken in turns."""
    block = dense.model.vision_model.encoder.layers[0]
    blocks = {dtype: copy.deepcopy(block).to(dtype) for dtype in (torch.float32, *candidates(dense.device))}
    batch, width = 1 if dense.device.type == "cpu" else GPU_BATCH, dense.model.config.vision_config.hidden_size
    found: dict[torch.dtype, float] = {}
    for tokens in (FEW_TOKENS, TOKENS):
        x_BND = torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(0)).to(dense.device)
        inputs = {dtype: x_BND.to(dtype) for dtype in blocks}
        best = {dtype: seconds(blocks[dtype], inputs[dtype]) for dtype in blocks}  # warms up, too
        until = time.perf_counter() + PROBE_S / 2
        for _ in range(MOST_ROUNDS):
            for dtype, x in inputs.items():
                best[dtype] = min(best[dtype], seconds(blocks[dtype], x))
            if time.perf_counter() > until:
                break
        found |= {dtype: best[torch.float32] / taken for dtype, taken in best.items() if dtype != torch.float32}
        blocks = {dtype: block for dtype, block in blocks.items() if found.get(dtype, 1.0) >= HOPELESS}
    return found


def seconds(block: nn.Module, x_BND: Tensor) -> float:
    """How long a block takes."""
    started = time.perf_counter()
    float(block(x_BND, attention_mask=None)[0, 0, 0])  # waits for a GPU
    return time.perf_counter() - started


def in_type(dense: DenseCLIP, dtype: torch.dtype) -> DenseCLIP:
    """Another CLIP, the same but for what it computes in."""
    other = copy.deepcopy(dense)
    other.compute_in(dtype)
    return other
