"""A table of runs as HTML, whose headings are buttons that sort it: runs_page.js."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta
from html import escape

from src.scoring.run_results import Estimate, Spread
from src.scoring.run_tables import Column, is_unknown
from src.system.texts import printable
from src.visualizations.report_settings import in_words

HEADINGS = {
    "n_runs": "runs",
    "n_epochs": "of",
    "ended_by": "ended by",
    "epoch": "best epoch",
    "honest_score": "honest score",
    "out_of_fold": "out-of-fold score",
    "ap_50": "AP .50",
    "seconds": "time",
    "images_per_second": "images/s",
    "peak_memory_mb": "peak memory, MB",
    "date": "began",
}
FORMATS: dict[str, Callable[[float], str]] = {
    "seconds": lambda seconds: str(timedelta(seconds=round(seconds))),
    "images_per_second": "{:,.1f}".format,
    "peak_memory_mb": "{:,.0f}".format,
}


def write_sortable(columns: Sequence[Column], links: Sequence[str | None]) -> str:
    """Write a table, without columns in which nothing is known; texts are escaped.

    Args:
        links: where the first cell of each row leads, if anywhere.
    """
    first, *others = columns
    shown = [each for each in others if not all(map(is_unknown, each.cells))]
    head = "".join(
        f'<th><button type="button">{escape(HEADINGS.get(each.name, each.name))}</button></th>'
        for each in (first, *shown)
    )
    cells = [
        [_write_link(cell, link) for cell, link in zip(first.cells, links, strict=True)],
        *([_write_cell(each.name, cell) for cell in each.cells] for each in shown),
    ]
    rows = "".join(f"<tr>{''.join(row)}</tr>" for row in zip(*cells, strict=True))
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _write_link(cell: Hashable, link: str | None) -> str:
    text = escape(printable(str(cell)))
    shown = text.replace("_", "_<wbr>")  # where a narrow window may break a name
    if link is not None:
        shown = f'<a href="{escape(link)}">{shown}</a>'
    return f'<td data-key="{text}">{shown}</td>'


def _write_cell(name: str, cell: Hashable) -> str:
    if is_unknown(cell):
        return '<td data-key="">–</td>'
    key = cell[0] if isinstance(cell, Estimate | Spread) else cell
    text = escape(printable(str(key)))
    return f'<td data-key="{text}">{_show(name, cell)}</td>'


def _show(name: str, cell: Hashable) -> str:
    """Write a cell that holds something as HTML."""
    write = FORMATS.get(name, "{:.3f}".format)
    if isinstance(cell, Spread):
        return " ± ".join(write(part) for part in cell if not math.isnan(part))
    if isinstance(cell, Estimate):
        is_known = not math.isnan(cell.low)
        interval = f"<small>{cell.low:.3f} to {cell.high:.3f}</small>" if is_known else ""
        return f"{cell.value:.3f}{interval}"
    if isinstance(cell, float) and name in FORMATS:
        return write(cell)
    return escape(printable(in_words(cell)))
