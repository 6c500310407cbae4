"""carbseg doctor: what carbseg runs on, and whether the folder of a run is whole."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import torch


@click.command()
@click.option(
    "--run",
    "out",
    type=click.Path(path_type=Path),
    help="Look over this run folder (an --out) instead; see docs/trust.md.",
)
def doctor(out: Path | None) -> None:
    """Say what carbseg runs on; with --run, what is wrong in the folder of a run, and what to do about it."""
    if out is None:
        describe_machine()
    else:
        look_over(out)


def look_over(out: Path) -> None:
    """One line a finding; exit code 1 if there is any. Raises InputError for no run folder."""
    from pipeline.commands.options import quiet_libraries
    from pipeline.stages.doctor import RunFolder, examine

    quiet_libraries()
    run = RunFolder(out)
    click.echo(str(run))
    findings = examine(run)
    click.echo("\n".join(findings) or "nothing to complain about")
    raise SystemExit(bool(findings))


def describe_machine() -> None:
    """Versions, devices, and how fast they multiply."""
    from pipeline.runs import versions

    for package, number in versions().items():
        click.echo(f"{package:14} {number}")
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    click.echo(f"{'devices':14} {', '.join(devices) or f'CPU, {torch.get_num_threads()} threads'}")
    for dtype in (torch.float32, torch.bfloat16):
        rate = matmul_gflops(dtype, "cuda" if devices else "cpu")
        click.echo(f"{'matmul':14} {rate:.3g} GFLOP/s in {str(dtype).removeprefix('torch.')}")


def matmul_gflops(dtype: "torch.dtype", device: str, size: int = 1024, seconds: float = 0.5) -> float:
    """Rate of size x size matrix products, one after the other for so long: some CPUs take seconds for one in bf16."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    float((a @ b).sum())  # warm up, and wait for the device
    started, repeats = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        for _ in range(1 if device == "cpu" else 100):  # a GPU is fed faster than it can be asked
            product = a @ b
            repeats += 1
        float(product.sum())
    return 2 * size**3 * repeats / (time.perf_counter() - started) / 1e9
