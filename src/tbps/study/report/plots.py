"""Plots of a report: differences to the base, contributions of modules, and accuracy against cost.

SVG plots are drawn in the colour `INK`, which the HTML page replaces by its own text colour.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure

from tbps.model.surgery import PARTS
from tbps.study.ablations import TAUGHT
from tbps.study.report.grids import COSTS, HEADINGS, title
from tbps.study.report.tables import MAIN, RowReport, TableReport

INK = "#123456"  # placeholder for the text colour of the page
_OURS, _PAPER = "#2f7ed8", "#d9822b"  # both readable on white and on black
_COLOURED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
_DRAWING: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif", "text.parse_math": False}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot that can be drawn as SVG or PNG. `name`: part of the file name; `label`: what the plot shows."""

    name: str
    label: str
    draw: Callable[[Figure], None]
    size: tuple[float, float]

    def svg(self, salt: str) -> str:
        """Draw the plot as SVG. Its ids depend on `salt` only, so the same plot gives the same text."""
        out = io.StringIO()
        self._saved(out, INK, {"svg.hashsalt": salt}, format="svg", transparent=True, metadata=_NO_METADATA)
        return out.getvalue()

    def png(self) -> bytes:
        """Draw the plot as PNG, black on white."""
        out = io.BytesIO()
        self._saved(out, "black", {}, format="png", dpi=150)
        return out.getvalue()

    def _saved(self, out: io.StringIO | io.BytesIO, ink: str, style: dict[Any, Any], **how: Any) -> None:
        with rc_context(dict.fromkeys(_COLOURED, ink) | _DRAWING | style):
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure)
            figure.savefig(out, **how)


def plots(report: TableReport) -> list[Plot]:
    """Make all plots for which the table has results."""
    return [*_differences(report), *_contributions(report), *_trade_off(report)]


def _differences(report: TableReport) -> Iterator[Plot]:
    """Difference of every row to its base in Rank-1: our seeds, mean and interval, and the paper's."""
    rows = [row for row in report.rows if MAIN in row.differences or row.paper_difference(MAIN) is not None]
    if not any(MAIN in row.differences for row in rows):
        return

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=_ink(), linewidth=0.8)
        for height, row in enumerate(rows):
            _draw_difference(axes, row, height, report)
        axes.plot([], [], "o", color=_OURS, label="ours: mean, 95 % interval, seeds")
        if any(row.paper_difference(MAIN) is not None for row in rows):
            axes.plot([], [], "D", color=_PAPER, markerfacecolor="none", label="paper")
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("difference to base in Rank-1, points")
        axes.grid(axis="x", color=_ink(), alpha=0.15, linewidth=0.6)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)

    yield Plot("differences", f"{title(report)}: difference to base in Rank-1", draw, (8, 1.1 + 0.32 * len(rows)))


def _draw_difference(axes: Any, row: RowReport, height: int, report: TableReport) -> None:
    theirs, found = row.paper_difference(MAIN), row.differences.get(MAIN)
    if theirs is not None:
        axes.plot([theirs], [height], "D", color=_PAPER, markerfacecolor="none")
    if found is None:
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [height, height], color=_OURS, linewidth=3, alpha=0.45, solid_capstyle="round")
    base = next(other for other in report.rows if other.name == row.base)
    for seed in sorted(row.runs.keys() & base.runs.keys()):
        ours, of_base = row.runs[seed].values[MAIN], base.runs[seed].values[MAIN]
        if ours is not None and of_base is not None:
            axes.plot([ours - of_base], [height], "|", color=_OURS, markersize=9)
    axes.plot([found.mean], [height], "o", color=_OURS)


_MODULES = {"attention": "self-attention", "feed_forward": "feed-forward", "layer": "whole layer"}


def _contributions(report: TableReport) -> Iterator[Plot]:
    """Heat maps of C1 and C2 in both towers, means over seeds, one plot per row."""
    for row in report.rows:
        towers = {tower: _depth(row, tower) for tower in ("image", "text")}
        if not all(towers.values()):
            continue

        def draw(figure: Figure, row: RowReport = row, towers: dict[str, int] = towers) -> None:
            grid = figure.subplots(2, 2, squeeze=False, width_ratios=list(towers.values()))
            for place, probe in enumerate(("c1", "c2")):
                for column, (tower, depth) in enumerate(towers.items()):
                    axes = grid[place][column]
                    _draw_heat(axes, row, probe, tower, depth)
                    axes.set_title(f"{probe.upper()}, {tower} tower", fontsize=9, loc="left")
                    axes.set_yticks(range(len(PARTS)), [_MODULES[part] for part in PARTS] if column == 0 else [])
                    axes.set_xlabel("layer" if place else "")

        about = f"{title(report)}: {row.name}, mean over seeds {', '.join(map(str, row.seeds))}"
        yield Plot(row.name, about, draw, (2.4 + 0.52 * sum(towers.values()), 3.8))


def _depth(row: RowReport, tower: str) -> int:
    return sum(name.startswith(f"c1.{tower}.") and name.endswith(".layer") for name in row.spreads)


def _draw_heat(axes: Any, row: RowReport, probe: str, tower: str, depth: int) -> None:
    values = np.array([[row.spreads[f"{probe}.{tower}.{layer}.{name}"].mean for layer in range(1, depth + 1)] for name in PARTS])
    edges = (np.arange(depth + 1) + 0.5, np.arange(len(PARTS) + 1) - 0.5)
    axes.pcolormesh(*edges, values, vmin=0, vmax=1, cmap="Blues", edgecolors="white", linewidth=0.5)
    for (part, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.55 else "black"
        axes.text(column + 1, part, f"{value:z.2f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(1, depth + 1))
    axes.invert_yaxis()
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


_SIZES = ("parameters", "encode_flops", "encode_seconds")


def _trade_off(report: TableReport) -> Iterator[Plot]:
    """Rank-1 against parameters, operations and time: the unpruned model, and smaller ones without and with a teacher."""
    rows = [row for row in report.rows if all(name in row.spreads for name in (MAIN, *_SIZES))]
    taught = [row for row in rows if row.name.endswith(TAUGHT)]
    alone = [row for row in rows if row.base is not None and row not in taught]
    if not taught:
        return

    def draw(figure: Figure) -> None:
        for axes, size in zip(figure.subplots(1, len(_SIZES), sharey=True), _SIZES, strict=True):
            for label, marker, colour, series in (
                ("whole", "s", _ink(), [row for row in rows if row.base is None]),
                ("smaller, alone", "D", _PAPER, alone),
                ("smaller, taught", "o", _OURS, taught),
            ):
                _draw_series(axes, size, series, label=label, marker=marker, color=colour)
            axes.set_xlabel(COSTS[size].heading)
            axes.set_xlim(left=0)
            axes.grid(color=_ink(), alpha=0.15, linewidth=0.6)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        figure.axes[0].set_ylabel(HEADINGS[MAIN])
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False, fontsize=9)

    yield Plot("trade-off", f"{title(report)}: {HEADINGS[MAIN]} against parameters, operations and time", draw, (10, 3.4))


def _draw_series(axes: Any, size: str, rows: Sequence[RowReport], **style: Any) -> None:
    """Draw mean and standard deviation over seeds, from the smallest to the largest model."""
    ordered = sorted(rows, key=lambda row: row.spreads[size].mean)
    across = [row.spreads[size].mean * COSTS[size].factor for row in ordered]
    up, spread = [row.spreads[MAIN].mean for row in ordered], [row.spreads[MAIN].std or 0.0 for row in ordered]
    axes.errorbar(across, up, yerr=spread, markersize=5, linewidth=1, capsize=2, **style)


def _ink() -> str:
    return str(rcParams["text.color"])
