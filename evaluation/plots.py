"""Plots of a run and of image-level labels, as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.statistics import LabelStatistics

GREEN, ORANGE, BLUE, PURPLE, GREY = "#3ca05a", "#e65a28", "#2f6fb5", "#9a4fb0", "#444444"
# Kinds of tags that have no rate: kind, caption, colour, line.
LEVELS = (("exact", "exact", GREEN, "-"), ("auto", "automatic", PURPLE, "--"), ("none", "none: all classes", GREY, ":"))


def plot_regions(rows: Sequence[Mapping[str, Any]], path: str | Path) -> bool:
    """Loss and area of the consistent and the inconsistent region, and w, over the steps (CARB, Fig. 5).

    Below, where the run was diagnosed, how right both regions are, and which classes the student agrees with.
    rows: lines of metrics.jsonl; the warm-up has no regions. Returns whether there was anything to plot.
    """
    balanced = [row for row in rows if row.get("agreed") is not None]
    diagnosed = [row for row in rows if row.get("diagnosis")]
    parts = [part for part in ((_plot_balance, balanced), (_plot_diagnosis, diagnosed)) if part[1]]
    if not parts:
        return False
    plt = _pyplot()
    figure, axes = plt.subplots(len(parts), 3, figsize=(12, 3 * len(parts)), layout="constrained", squeeze=False)
    for (plot, some), line in zip(parts, axes, strict=True):
        plot(line, some)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)
    return True


def _plot_balance(axes: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    losses, areas, weight = axes
    steps = [row["step"] for row in rows]
    for axis, title, consistent, inconsistent in (
        (losses, "loss", [r["consistent_loss"] for r in rows], [r["inconsistent_loss"] for r in rows]),
        (areas, "area", [r["agreed"] for r in rows], [1 - r["agreed"] for r in rows]),
    ):
        axis.plot(steps, consistent, color=GREEN, label="consistent")
        axis.plot(steps, inconsistent, color=ORANGE, label="inconsistent")
        axis.set(title=title, xlabel="step", ylim=(0, None))
        axis.legend()
    for place, name in enumerate(rows[-1].get("class_weights") or ()):
        weight.plot(steps, [row["class_weights"][name] for row in rows], color=f"C{place % 10}", linewidth=0.8)
    weight.plot(steps, [row["weight"] for row in rows], color=GREY)
    weight.set(title="balance weight w", xlabel="step", ylim=(0, None))


def _plot_diagnosis(axes: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> None:
    right, agreed, by_class = axes
    steps, found = [row["step"] for row in rows], [row["diagnosis"] for row in rows]
    names, last = list(found[-1]["classes"]), found[-1]["classes"]
    regions = (("right_consistent", "consistent", GREEN), ("right_inconsistent", "inconsistent", ORANGE))
    for key, label, colour in regions:
        right.plot(steps, [_or_nan(shares[key]) for shares in found], ".-", color=colour, label=label)
        offset = 0.2 if key == "right_consistent" else -0.2
        places = [place - offset for place in range(len(names))]
        by_class.barh(places, [_or_nan(last[name][key]) for name in names], 0.4, color=colour)
    right.set(title="right pseudo-labels (share)", xlabel="step", ylim=(0, 1.02))
    right.legend()
    for place, name in enumerate(names):
        shares_of = [_or_nan(shares["classes"][name]["consistent"]) for shares in found]
        dashes = ("-", "--", ":")[place // 10 % 3]
        agreed.plot(steps, shares_of, dashes, color=f"C{place % 10}", label=name, linewidth=1)
    agreed.set(title="consistent share of each class", xlabel="step", ylim=(0, 1.02))
    agreed.legend(fontsize="xx-small", ncols=1 + len(names) // 12, loc="center left", bbox_to_anchor=(1, 0.5))
    by_class.set(title=f"right pseudo-labels (share), step {steps[-1]}", xlim=(0, 1))
    by_class.set_yticks(range(len(names)), names, fontsize="x-small")
    by_class.invert_yaxis()


def plot_statistics(statistics: LabelStatistics, title: str, path: str | Path) -> None:
    """Three panels as in CARB's Fig. 1: classes per image, co-occurrence, images with and without each class."""
    plt = _pyplot()
    counts, names = statistics.classes_per_image, statistics.names
    figure, (per_image, together, by_class) = plt.subplots(
        1, 3, figsize=(15, max(4, 0.26 * len(names) + 1.2)), layout="constrained"
    )
    figure.suptitle(f"{title}: {statistics.images} images, {len(names)} classes")
    # Bars on whole numbers, over the whole range: a data set of few classes an image should look like one.
    per_image.hist(counts, bins=[k - 0.5 for k in range(len(names) + 2)], color=GREEN, rwidth=0.85)
    per_image.set(title="(a) classes per image", xlabel="classes shown in an image", ylabel="images")
    per_image.set_xlim(-0.6, len(names) + 0.6)
    per_image.xaxis.get_major_locator().set_params(integer=True)
    together.hist(statistics.ratios, bins=20, range=(0, 1), color=GREEN, rwidth=0.85)
    together.set(
        title="(b) co-occurrence",
        xlabel="share of the images with class i that show class j, too",
        ylabel="pairs of classes (i, j)",
        xlim=(0, 1),
    )
    by_class.barh(names, statistics.positives, color=GREEN, label="with")
    by_class.barh(names, statistics.negatives, left=statistics.positives, color=ORANGE, label="without")
    by_class.set(title="(c) images with and without each class", xlabel="images", xlim=(0, max(statistics.images, 1)))
    by_class.invert_yaxis()
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def plot_tags(rows: Sequence[Mapping[str, Any]], title: str, path: str | Path) -> None:
    """The mIoU of each view's pseudo-labels over the rate at which tags are dropped or added.

    Exact, automatic and no tags are levels.

    rows: dicts of "kind", "rate" (0..1) and "miou" (percent or None by view), one of the kind "exact" among them.
    """
    plt = _pyplot()
    views = list(rows[0]["miou"])
    size = (4 * len(views), 3.8)
    figure, ((*axes,),) = plt.subplots(1, len(views), figsize=size, sharey=True, squeeze=False, layout="constrained")
    figure.suptitle(title)
    exact = [row for row in rows if row["kind"] == "exact"]
    for axis, view in zip(axes, views, strict=True):
        for kind, label, colour in (("dropped", "tags dropped", ORANGE), ("added", "tags added", BLUE)):
            line = exact + [row for row in rows if row["kind"] == kind]  # rate 0 of both is exact
            rates, scores = [100 * row["rate"] for row in line], [_or_nan(row["miou"][view]) for row in line]
            axis.plot(rates, scores, "o-", color=colour, label=label)
        for kind, label, colour, dashes in LEVELS:
            for row in rows:
                if row["kind"] == kind:
                    axis.axhline(_or_nan(row["miou"][view]), color=colour, linestyle=dashes, label=label, zorder=0)
        axis.set(title=f"{view} pseudo-labels", xlabel="true tags dropped, absent classes added (%)")
    axes[0].set_ylabel("mIoU (%)")
    axes[0].set_ylim(bottom=0)  # of all: once every panel has been drawn, so that none is cut at the top
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _pyplot() -> Any:
    """Imported late: it takes long, and few commands plot."""
    import matplotlib

    matplotlib.use("Agg")  # no window is wanted, and there may be no display
    import matplotlib.pyplot as plt

    plt.rcParams["text.parse_math"] = False  # a class may be called "$1"
    return plt
