"""The settings of a run as HTML: what experiment.json holds, every text of it escaped."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from src.experiments.pretraining import note_on_rsna

SUMMARY = ("encoder", "img_size", "augmentation_level", "optimizer", "learning_rate", "n_epochs")


def summarise_experiment(experiment: Mapping[str, Any]) -> str:
    """Name the settings that matter most, in one line."""
    settings = experiment.get("settings")
    if not isinstance(settings, dict):
        return ""
    shown = [f"{name} {settings[name]}" for name in SUMMARY if name in settings]
    return ", ".join(filter(None, (*shown, note_on_rsna(experiment))))


def write_settings(experiment: Mapping[str, Any]) -> str:
    """Write everything that experiment.json holds, its groups side by side."""
    if not experiment:
        return "<p>experiment.json is not in the run's folder; --action train writes it.</p>"
    groups = {name: value for name, value in experiment.items() if isinstance(value, dict)}
    plain = {name: value for name, value in experiment.items() if name not in groups}
    blocks = "".join(
        f"<div><h3>{escape(title)}</h3>{write_table(rows.items())}</div>"
        for title, rows in {**groups, "run": plain}.items()
    )
    return f'<div class="settings">{blocks}</div>'


def write_table(rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Write a table of values; texts are escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(in_words(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
    )


def in_words(value: object) -> str:
    """Write a value of a JSON file for a reader."""
    if isinstance(value, list | tuple):
        texts = [str(part) for part in value]
        return (
            shlex.join(texts) if all(isinstance(part, str) for part in value) else ", ".join(texts)
        )
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
