"""The part of a run's report that holds the numbers that papers quote, and their curves."""

from __future__ import annotations

from html import escape

import numpy as np

from src.scoring.quoted_numbers import NumberResult, count_cases
from src.visualizations.figures import new_figure
from src.visualizations.inline_pictures import embed_figure
from src.visualizations.number_panels import NO_WEAK, PANELS, Panel, draw_panel
from src.visualizations.report_settings import write_table
from src.visualizations.run_numbers import RunNumbers, interval

N_DRAWS = 200  # fewer than scores.py takes: a page is made in a moment
PANEL_SIZE = (5.0, 4.9)  # inches; so small that its letters can be read in a narrow window


def write_numbers(run: RunNumbers) -> str:
    """Write the numbers of boxes and of images as tables, and draw the curves behind them."""
    counts = ", ".join(f"{count:,} {what}" for what, count in count_cases(run.data).items())
    of_boxes = [_cells(row) for row in run.results if not row.image_score]
    of_images = [(row.image_score, *_cells(row)) for row in run.results if row.image_score]
    box_table = f"<p>{escape(NO_WEAK)}</p>"
    if run.data.is_complete:
        box_table = write_table(of_boxes, header=("number", "value", "95 % interval"))
    image_table = write_table(of_images, header=("score", "number", "value", "95 % interval"))
    return (
        f'<p class="note">{escape(counts)}. All boxes count, whatever their scores. '
        f"The intervals are by {run.n_draws} draws of patients; python src/scores.py --numbers "
        f"takes more.</p>"
        f'<div class="panels quoted"><div><h3>Of boxes</h3>{box_table}</div>'
        f"<div><h3>Of images: which have an opacity</h3>{image_table}</div></div>"
        f'<div class="panels">{"".join(_write_panel(panel, run) for panel in PANELS)}</div>'
    )


def _cells(row: NumberResult) -> tuple[str, str, str]:
    value = "–" if np.isnan(row.value) else f"{row.value:.3f}"
    return row.text, value, interval(row).strip("()")


def _write_panel(panel: Panel, run: RunNumbers) -> str:
    """Draw one panel with the sentence on how to read it, or say why it cannot be drawn."""
    reason = panel.why_not(run)
    if reason:
        body = f"<p>{escape(reason)}</p>"
    else:
        figure = new_figure(*PANEL_SIZE)
        draw_panel(figure.subplots(), panel, [run])
        body = embed_figure(figure, panel.title) + f'<p class="note">{escape(panel.reading)}</p>'
    return f"<section><h3>{escape(panel.title)}</h3>{body}</section>"
