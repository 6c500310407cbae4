"""Work on many images in the background, with its progress."""

import threading
from collections.abc import Callable
from typing import Any

from labelgen.samples import InputError

Step = Callable[[], None]


class _StoppedError(Exception):
    """Nobody waits for the result any more."""


class Job:
    """A thread that works. work(step) calls step() after each of `total` pieces, and returns the result."""

    def __init__(self, total: int, work: Callable[[Step], Any]) -> None:
        self.total, self.done, self.state, self.error = total, 0, "running", ""
        self.result: Any = None
        self._work, self._is_stopped = work, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work(self._step)
            self.state = "done"
        except (InputError, OSError) as error:
            self.error, self.state = " ".join(str(error).split()), "failed"
        except _StoppedError:
            self.error, self.state = "stopped", "failed"
        except Exception:
            self.error, self.state = "failed; the terminal says why", "failed"
            raise

    def _step(self) -> None:
        self.done += 1
        if self._is_stopped.is_set():
            raise _StoppedError

    def stop(self, wait_s: float = 0) -> bool:
        """End it after the piece that it works at; wait so long for that, and say whether it has ended."""
        self._is_stopped.set()
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "done": self.done,
            "total": self.total,
            "state": self.state,
            "error": self.error,
            "result": self.result,
        }
