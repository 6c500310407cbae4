"""Plots of a run, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def plot_regions(rows: Sequence[Mapping[str, Any]], path: str | Path) -> bool:
    """Loss and area of the consistent and the inconsistent region, and w, over the steps (CARB, Fig. 5).

    rows: lines of metrics.jsonl; the warm-up has no regions. Returns whether there was anything to plot.
    """
    rows = [row for row in rows if row.get("agreed") is not None]
    if not rows:
        return False
    import matplotlib

    matplotlib.use("Agg")  # no window is wanted, and there may be no display
    import matplotlib.pyplot as plt

    steps = [row["step"] for row in rows]
    figure, (losses, areas, weight) = plt.subplots(1, 3, figsize=(12, 3), layout="constrained")
    for axis, title, consistent, inconsistent in (
        (losses, "loss", [r["consistent_loss"] for r in rows], [r["inconsistent_loss"] for r in rows]),
        (areas, "area", [r["agreed"] for r in rows], [1 - r["agreed"] for r in rows]),
    ):
        axis.plot(steps, consistent, color="#3ca05a", label="consistent")
        axis.plot(steps, inconsistent, color="#e65a28", label="inconsistent")
        axis.set(title=title, xlabel="step", ylim=(0, None))
        axis.legend()
    weight.plot(steps, [row["weight"] for row in rows], color="#444444")
    weight.set(title="balance weight w", xlabel="step", ylim=(0, None))
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)
    return True
