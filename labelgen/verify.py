"""Whether a store still holds what was written: every array of every shard against its checksum."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from labelgen.codec import checksum
from labelgen.layout import CHECKSUM, MARKER
from labelgen.samples import InputError
from labelgen.store import PseudoLabelStore


@dataclass(frozen=True)
class Damage:
    """A shard whose images must be made again, and why."""

    rows: range
    reason: str


def verify(store: PseudoLabelStore, on_images: Callable[[int], object] = lambda count: None) -> list[Damage]:
    """Damaged shards. A shard without marker is no damage: it has not been written yet."""
    found = []
    for rows in store.shards():
        try:
            reason = _what_is_wrong(store, rows)
        except InputError as error:  # an array or its shard cannot be read at all
            reason = str(error).partition(";")[0]
        if reason:
            found.append(Damage(rows, reason))
        on_images(len(rows))
    return found


def _what_is_wrong(store: PseudoLabelStore, rows: range) -> str:
    shard = slice(rows.start, rows.stop)
    is_written = store.read(MARKER, shard)
    if not is_written.any():
        return ""
    blocks = [store.read(name, shard) for name in store.data_arrays]
    sums = store.read(CHECKSUM, shard)
    found = np.array([checksum(block[i] for block in blocks) for i in range(len(rows))], np.uint32)
    wrong = int((sums != found).sum() + (~is_written).sum())
    return f"{wrong} of {len(rows)} images are not as they were written" if wrong else ""
