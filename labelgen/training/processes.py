"""The processes of a run: their device and precision, and how a signal stops all of them after the same step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState


class StoppedError(SystemExit):
    """A signal asked the run to stop; what it had is saved."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(128 + number)  # as shells report a process that a signal ended
        self.message = f"stopped by {signal.Signals(number).name} after step {step}, which is saved"


def make_accelerator(mixed_precision: str = "auto") -> Accelerator:
    """The processes, the device and the precision of this run. auto: bf16 on GPUs that have it.

    One that was made before with another precision is not to be used any more.
    """
    if mixed_precision == "auto":
        # Older GPUs would imitate it, slowly.
        has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        mixed_precision = "bf16" if has_bf16 else "no"
    # accelerate keeps the precision for the whole process, but a command may fit an engine, then train a student.
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()
    # Without cpu=True accelerate takes each process of a CPU launch for the only one.
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=mixed_precision)


def asking(accelerator: Accelerator) -> Callable[[int], int]:
    """A function that says which signal any process has been sent, 0 for none: all have to stop after the same step."""
    if accelerator.num_processes == 1:
        return lambda number: number
    group = torch.distributed.new_group(backend="gloo")  # between CPUs: GPUs would be waited for

    def asked_of_anyone(number: int) -> int:
        highest = torch.tensor(number)
        torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX, group)
        return int(highest)

    return asked_of_anyone


def is_of_lost_process(error: RuntimeError) -> bool:
    """Whether this is how a process hears that another one of its run has died. gloo has no class for it."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """A list that fills with the signals that ask this process to stop (SIGTERM, SIGINT)."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield asked
        return
    before = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
