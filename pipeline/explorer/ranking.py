"""Images by how suspicious their tags are; judged in the background, once somebody asks."""

from collections import defaultdict
from typing import Any

from labelgen.store import PseudoLabelStore
from labelgen.suspicion import Suspect, kept_evidence, suspects
from pipeline.explorer.jobs import Job, Step


class Ranking:
    """Of the tags that a store holds."""

    def __init__(self, store: PseudoLabelStore) -> None:
        self._store = store
        self._job: Job | None = None

    def start(self) -> dict[str, Any]:
        """Begin, unless that was done; how far it is, for JSON."""
        if self._job is None:
            self._job = Job(int(self._store.is_written().sum()), self._judge)
        return {key: value for key, value in self._job.as_dict().items() if key != "result"}

    def rows(self) -> list[int]:
        """The largest sums of scores first, then those without suspects; in order, until that is known."""
        return [*self._found, *(row for row in range(len(self._store)) if row not in self._found)]

    def of(self, row: int) -> list[dict[str, Any]]:
        """The suspects of an image, best first."""
        return [{"class": s.class_index, "kind": s.kind, "score": s.score} for s in self._found.get(row, ())]

    def stop(self) -> None:
        """Give up."""
        if self._job is not None:
            self._job.stop()

    @property
    def _found(self) -> dict[int, list[Suspect]]:
        return (self._job and self._job.result) or {}

    def _judge(self, step: Step) -> dict[int, list[Suspect]]:
        evidence = kept_evidence(self._store, lambda count: step())
        by_row: dict[int, list[Suspect]] = defaultdict(list)
        for suspect in suspects(self._store, evidence):
            by_row[suspect.row].append(suspect)
        return dict(sorted(by_row.items(), key=lambda found: -sum(suspect.score for suspect in found[1])))
