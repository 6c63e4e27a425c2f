"""Plots of the figures: growth with the number of DAGs, parts of each figure, and comparison with alternatives."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from tests.benchmarks.report import shown

Row = Mapping[str, Any]


def growth(rows: Iterable[Row]) -> Mapping[str, Sequence[Row]]:
    """Return the rows of each series with more than one size, sorted by size."""
    series: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["size"] is not None:
            series[row["series"]].append(row)
    return {name: sorted(found, key=lambda row: row["size"]) for name, found in series.items() if len(found) > 1}


def factor(found: Sequence[Row]) -> tuple[float, float]:
    """Return the ratios of cost and size between the largest size and the size before it."""
    before, last = found[-2], found[-1]
    return last["median"] / before["median"], last["size"] / before["size"]


def draw_growth(series: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw each series by the number of DAGs, with logarithmic axes and a line of proportional growth."""
    figure, every = plt.subplots(1, len(series), figsize=(5 * len(series), 4), squeeze=False, layout="constrained")
    for axes, (name, found) in zip(every[0], series.items(), strict=True):
        sizes, middles = [row["size"] for row in found], [row["median"] for row in found]
        below = [row["median"] - min(row["values"]) for row in found]
        above = [max(row["values"]) - row["median"] for row in found]
        axes.errorbar(sizes, middles, yerr=[below, above], marker="o", capsize=3, label="median, minimum to maximum")
        linear = [middles[-1] * size / sizes[-1] for size in sizes]
        axes.plot(sizes, linear, linestyle=":", color="grey", label="proportional to the DAGs")
        goals = [(row["size"], row["goal"]) for row in found if row["goal"] is not None]
        if goals:
            axes.plot(*zip(*goals, strict=True), linestyle="", marker="v", color="tab:red", label="goal")
        axes.set(xscale="log", yscale="log", xlabel="DAGs", ylabel=found[0]["unit"], title=name)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_parts(rows: Iterable[Row], path: Path) -> None:
    """Draw a stacked bar for each row with parts: the share of each part's median, and of the rest, in the median."""
    found = [row for row in rows if row["parts"]]
    if not found:
        return
    names = list(dict.fromkeys(name for row in found for name in row["parts"]))
    rest = "outside of these"
    figure, axes = plt.subplots(figsize=(13, 1.5 + 0.7 * len(found)), layout="constrained")
    labels = [fill(f"{row['what']}: {shown(row['median'])} {row['unit']}", 45) for row in found]
    left = [0.0] * len(found)
    for number, name in enumerate([*names, rest]):
        shares = [
            max(0.0, 100 - before)
            if name == rest
            else 100 * statistics.median(row["parts"].get(name) or [0.0]) / row["median"]
            for row, before in zip(found, left, strict=True)
        ]
        colour = "lightgrey" if name == rest else mpl.colormaps["tab20"](number % 20)
        drawn = axes.barh(labels, shares, left=left, label=name, color=colour)
        axes.bar_label(drawn, [f"{share:.0f}" if share >= 3 else "" for share in shares], label_type="center")
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set(xlabel="%", xlim=(0, 100))
    axes.invert_yaxis()
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_ratios(rows: Iterable[Row], path: Path) -> None:
    """Draw the ratios of the alternatives to the provider, on a logarithmic axis."""
    bars = [
        (f"{row['what']}\n{peer} ({shown(statistics.median(row['peers'][peer]))} {row['unit']})", ratio)
        for row in rows
        for peer, ratio in row["ratios"].items()
    ]
    if not bars:
        return
    figure, axes = plt.subplots(figsize=(10, 1 + 0.6 * len(bars)), layout="constrained")
    middles = [ratio["median"] for _, ratio in bars]
    spread = [
        [ratio["median"] - ratio["min"] for _, ratio in bars],
        [ratio["max"] - ratio["median"] for _, ratio in bars],
    ]
    drawn = axes.barh([name for name, _ in bars], middles, xerr=spread, capsize=3)
    axes.bar_label(drawn, labels=[f"{shown(middle)} times" for middle in middles], padding=6)
    axes.axvline(1, color="black")
    axes.set(xscale="log", xlabel="times the provider's figure", xlim=(min(0.5, *middles) / 2, max(middles) * 20))
    axes.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)
