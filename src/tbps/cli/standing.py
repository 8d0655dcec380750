"""Table of retrieval metrics of a model, with chance and ceiling for comparison."""

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from tbps.evaluation import Standing

_COLUMNS = (("Rank-1", "r1"), ("Rank-5", "r5"), ("Rank-10", "r10"), ("mAP", "map"), ("mINP", "minp"))


def standing_table(standing: "Standing", title: str) -> Table:
    """Table of Rank-1/5/10, mAP and mINP in percent: rows model, ceiling (where known) and chance."""
    table = Table(title=f"{title}: {standing.model.queries:,} queries, {standing.model.gallery:,} images, %", title_justify="left")
    table.add_column("")
    for heading, _ in _COLUMNS:
        table.add_column(heading, justify="right")
    rows = [("model", standing.model), ("ceiling", standing.ceiling), ("chance", standing.chance)]
    for name, report in rows:
        if report is not None:
            values = report.as_dict()
            table.add_row(name, *(f"{values[key]:.2f}" for _, key in _COLUMNS))
    if standing.share_of_ceiling is not None:
        table.caption = f"Rank-1 is {100 * standing.share_of_ceiling:.1f} % of the ceiling's"
    return table
