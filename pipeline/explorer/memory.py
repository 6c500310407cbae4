"""The last few values that were asked for, each made once, though several threads ask at once."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Memory(Generic[T]):
    """At most so many values; the one that was asked for longest ago is forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key. What `make` raises is raised, to all who wait for it, and not remembered."""
        with self._lock:
            known = self._kept.pop(key, None)
            value = self._kept[key] = known or Future()
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        if known is None:
            try:
                value.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._kept.get(key) is value:
                        del self._kept[key]
                value.set_exception(error)
        return value.result()
