"""The page that compares runs and links their reports; every text from a file is escaped here."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.experiments.history import read_history
from src.experiments.run_facts import differing_settings
from src.scoring.run_tables import GroupRow, RunRow, group_columns, run_columns
from src.structures import LOSS_NAMES
from src.visualizations.curves import panel_height
from src.visualizations.figures import new_figure
from src.visualizations.inline_pictures import embed_figure
from src.visualizations.plot_metrics import draw_by_epoch, draw_by_threshold
from src.visualizations.plot_val_loss import draw_loss
from src.visualizations.report_settings import write_table
from src.visualizations.sortable_table import write_sortable

STYLE_PATHS = [Path(__file__).with_name(name) for name in ("report.css", "runs_page.css")]
SCRIPT_PATH = Path(__file__).with_name("runs_page.js")
# The policy allows this one script by its hash, and nothing else that a file's text could name.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
<script>{script}</script>
</body>
</html>
"""
PANEL_WIDTH = 5.0  # inches; so small that its letters can be read in a narrow window
ABOUT_RUNS = """A click on a heading sorts. <b>Score</b>: the challenge's, at the epoch and
threshold that are best on the same images, which flatters it. <b>Honest score</b>: each of four
parts of the images at the epoch and threshold that are best on the others. Small numbers: 95 % of
bootstrap draws of patients. Whether a difference could be chance,
<code>python src/compare.py RUN RUN</code> tests on the same images."""
ABOUT_GROUPS = """Mean ± standard deviation over the runs of a row. <b>Out-of-fold score</b>: of the
images of all folds as one set, each fold at the epoch and threshold that are best on the others."""
ABOUT_CURVES = """A line is a run, or the mean of runs that belong together, in a band from the
least to the greatest. Values far from all others are marked at the edge of a panel; they belong to
no mean and no band."""


def build_page(
    runs: Sequence[RunRow], groups: Sequence[GroupRow], links: Sequence[str | None]
) -> str:
    """Write the page.

    Args:
        links: address of each run's report, if it has one.

    Raises:
        HistoryError: a history.csv is something else.
    """
    script = SCRIPT_PATH.read_text(encoding="utf-8")
    sections = {
        "Runs": _note(ABOUT_RUNS) + write_sortable(run_columns(runs)[:-1], links),
        "Runs that belong together": _write_groups(groups),
        "Curves": _draw_curves(groups),
        "Commands": write_table(
            ([run.name, run.facts.command] for run in runs), header=("run", "command")
        ),
        "The same in all": _write_shared(runs),
    }
    return PAGE.format(
        title=f"{len(runs)} runs",
        style="".join(path.read_text(encoding="utf-8") for path in STYLE_PATHS),
        body="\n".join(f"<h2>{name}</h2>\n{html}" for name, html in sections.items() if html),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _note(html: str) -> str:
    return f'<p class="note">{html}</p>'


def _write_groups(groups: Sequence[GroupRow]) -> str:
    """Write a row for each group; nothing where every run stands alone."""
    if all(len(group.runs) == 1 for group in groups):
        return ""
    table = write_sortable(group_columns(groups)[:-1], [None] * len(groups))
    return _note(ABOUT_GROUPS) + table


def _draw_curves(groups: Sequence[GroupRow]) -> str:
    """Draw the losses and scores of runs; nothing where they have none."""
    panels = "".join(_draw_panels(groups))
    return f'{_note(ABOUT_CURVES)}<div class="panels">{panels}</div>' if panels else ""


def _draw_panels(groups: Sequence[GroupRow]) -> Iterator[str]:
    columns = [f"valid_{name}" for name in LOSS_NAMES]
    histories, sweeps = {}, {}
    for group in groups:
        paths = [run.facts.run_dir / "history.csv" for run in group.runs]
        histories[group.name] = [read_history(path, columns) for path in paths if path.exists()]
        found = [run.result.sweep for run in group.runs]
        sweeps[group.name] = [sweep for sweep in found if sweep is not None]
    height = panel_height(len(groups))
    for loss in LOSS_NAMES if any(histories.values()) else ():
        figure = new_figure(PANEL_WIDTH, height)
        draw_loss(figure.subplots(), histories, loss)
        yield embed_figure(figure, f"Validation {loss.replace('_', ' ')} by epoch")
    for draw, what in ((draw_by_epoch, "epoch"), (draw_by_threshold, "threshold")):
        if any(sweeps.values()):
            figure = new_figure(PANEL_WIDTH, height)
            draw(figure.subplots(), sweeps)
            yield embed_figure(figure, f"Score by {what}")


def _write_shared(runs: Sequence[RunRow]) -> str:
    """Write the settings that no two runs differ in."""
    facts = [run.facts for run in runs]
    differing = differing_settings(facts)
    known = next((each.settings for each in facts if each.settings), {})
    rows = [(name, value) for name, value in known.items() if name not in differing]
    return f'<div class="settings shared">{write_table(rows)}</div>' if rows else ""
