"""Where a benchmark runs, as its `--device` says."""

import sys

import torch

DEVICES = ("auto", "cpu", "cuda")


def device_named(name: str) -> str:
    """Cpu or cuda, auto being a GPU where there is one. Ends the program with one line if cuda is asked for in vain."""
    if name == "cuda" and not torch.cuda.is_available():
        sys.exit("Error: there is no CUDA GPU here; without DEVICE=cuda (--device cuda) the CPU is measured")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
