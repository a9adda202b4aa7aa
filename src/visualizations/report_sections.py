"""The parts of a run's report as HTML; every text that comes from a file is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from src.datasets.data_folder import StoredImages
from src.experiments.history import COSTS, read_history
from src.metric import bootstrap_interval
from src.prediction.presets import GATES, Postprocess
from src.radiographs.pixels import as_float
from src.scoring.honest import HonestScore
from src.scoring.matching import HIT_IOU, Findings
from src.scoring.sweep import AXES, NEAR_BEST, Sweep
from src.structures import CLASS_NAMES, LOSS_NAMES
from src.system.errors import InputError
from src.visualizations.gallery import (
    Entry,
    best_hits,
    loosest_hits,
    missed_boxes,
    worst_false_positives,
)
from src.visualizations.inline_pictures import draw_entry, embed_figure
from src.visualizations.plot_sweep import plot_sweep
from src.visualizations.plot_val_loss import plot_losses
from src.visualizations.report_settings import in_words, write_table

LOSS_PANELS = [LOSS_NAMES[i : i + 2] for i in range(0, len(LOSS_NAMES), 2)]  # of one figure each
AXIS_NAMES = {
    "epoch": "epoch",
    "gate": "gate",
    "shrink": "box size",
    "nms": "NMS",
    "threshold": "threshold",
}


def write_headline(findings: Findings, epoch: int, honest: HonestScore | None) -> str:
    """Write the numbers that one looks for first.

    Args:
        honest: the score at settings that other images chose, if it can be computed.
    """
    n_true, n_found = len(findings.true.xywh), len(findings.matches)
    n_hits = n_true - len(findings.missed)
    counts = findings.true.counts()
    false_alarms = int(((counts == 0) & (findings.boxes.counts() > 0)).sum())
    score, interval = "–", "no image counts: none has boxes, true or found"
    if np.isfinite(findings.image_scores).any():
        low, high = bootstrap_interval(findings.image_scores, findings.predictions.patients)
        score = f"{np.nanmean(findings.image_scores):.3f}"
        interval = f"95 % interval {low:.3f} to {high:.3f}"
    numbers = [
        (score, "challenge's score", interval),
        (str(epoch), "epoch", describe_postprocess(findings.postprocess)),
        (f"{n_hits} of {n_true}", "true boxes hit", f"recall {_share(n_hits, n_true)}"),
        (f"{n_found - n_hits} of {n_found}", "found boxes false",
         f"precision {_share(n_hits, n_found)}"),
        (f"{false_alarms} of {(counts == 0).sum()}", "false alarms",
         "images without true boxes where one was found"),
    ]  # fmt: skip
    cards = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(note)}</small></div>"
        for value, name, note in numbers
    )
    return (
        f'<div class="numbers">{cards}</div>'
        f"<p class='note'>{len(findings.predictions)} validation images. A hit is a match at IoU "
        f"{HIT_IOU:.2f}; the score is the mean over IoU {HIT_IOU:.2f} to 0.75. The interval is by "
        f"drawing patients anew. Epoch and threshold were chosen on these same images, which "
        f"flatters the score. {_describe_honest(honest)}</p>"
    )


def _describe_honest(honest: HonestScore | None) -> str:
    if honest is None or np.isnan(honest.score):
        return ""
    low, high = honest.interval()
    return (
        f"<b>Honest score: {honest.score:.3f}</b> (95 % interval {low:.3f} to {high:.3f}): each of "
        f"{len(honest.settings)} parts of the images at the epoch and threshold that are best on "
        f"the others."
    )


def describe_postprocess(postprocess: Postprocess) -> str:
    """Say in words which boxes count."""
    gate = GATES[postprocess.gate].formula
    text = f"{gate} > {postprocess.threshold:g}, NMS {postprocess.nms:g}"
    return text if postprocess.shrink == 1 else f"{text}, boxes × {postprocess.shrink:g}"


def write_curves(history_path: Path) -> str:
    """Draw the losses of training and validation by epoch, and say what an epoch cost."""
    if not history_path.exists():
        return "<p>history.csv is not in the run's folder; --action train writes it.</p>"
    columns = [f"{part}_{name}" for part in ("valid", "train") for name in LOSS_NAMES]
    history = read_history(history_path, columns, optional=COSTS)
    training = history[["epoch", *(f"train_{name}" for name in LOSS_NAMES)]]
    training = training.rename(columns=lambda name: name.replace("train_", "valid_"))
    curves = {"validation": [history], "training": [training]}
    figures = []
    for panel in LOSS_PANELS:
        figure = plot_losses(curves, panel)
        for axes in figure.axes:  # both kinds of curves are here
            title = axes.get_title("left").removeprefix("Validation ")
            axes.set_title(title[:1].upper() + title[1:], loc="left", fontsize="medium")
        figures.append(embed_figure(figure, f"{' and '.join(panel)} by epoch"))
    return "".join(figures) + _describe_costs(history)


def _describe_costs(history: pd.DataFrame) -> str:
    """Say what the median epoch took; an older history does not tell."""
    if not set(COSTS) <= set(history) or history[list(COSTS)].isna().all().any():
        return ""
    cost = history[list(COSTS)].median()
    return (
        f"<p class='note'>The median epoch took {cost['seconds']:,.1f} seconds, "
        f"{cost['valid_seconds']:,.1f} of them for validation. Training took "
        f"{cost['images_per_second']:,.1f} images a second and waited for data "
        f"{cost['waiting_share']:.0%} of its time; the peak of memory was "
        f"{history['peak_memory_mb'].max():,.0f} MB.</p>"
    )


def write_scores(sweep: Sweep, notes: Iterable[str], *, wider: Sweep | None, hint: str) -> str:
    """Show the scores of every epoch and threshold, and what a wider sweep found.

    Args:
        sweep: at the paper's grid.
        notes: what the reader should know of it.
        wider: over NMS, box size and gate too, if there is one.
        hint: how to make one.
    """
    best = sweep.best()
    rows = "".join(
        f"<tr{' class=best' if best and epoch == best.epoch else ''}><td>{epoch}</td>"
        f"<td>{score:.3f}</td><td>{threshold:g}</td></tr>"
        for epoch, score, threshold in _best_by_epoch(sweep)
    )
    figure = embed_figure(plot_sweep(sweep, "Score"), "Score by epoch and threshold")
    return (
        "".join(f"<p>{escape(note)}</p>" for note in notes)
        + f'{figure}<div class="sweeps"><div><h3>Best of each epoch</h3><table><thead><tr>'
        f"<th>epoch</th><th>score</th><th>threshold</th></tr></thead><tbody>{rows}</tbody></table>"
        f"</div><div><h3>Wider sweep</h3>"
        + (f"<p>{escape(hint)}</p>" if wider is None else _write_wider(wider, sweep.epochs))
        + "</div></div>"
    )


def write_gallery(findings: Findings, images: StoredImages, n_images: int) -> str:
    """Show the images that are worth a look, list by list, with the rule of each."""
    lists = (
        ("Worst false positives", worst_false_positives,
         "Found boxes that hit no true box, the surest first."),
        ("Missed boxes", missed_boxes,
         f"True boxes that no found box hits. First those where the best candidate that reaches "
         f"IoU {HIT_IOU:.2f}, counted or not, scores least; of equals the largest."),
        ("Loosest hits", loosest_hits,
         "Found boxes that hit with the least overlap; they fail at stricter IoU thresholds."),
        ("Best hits", best_hits,
         "Images with the highest score, of equals the highest mean IoU of their hits."),
    )  # fmt: skip
    sections = []
    for title, choose, rule in lists:
        entries = choose(findings, n_images)
        figures = "".join(_write_entry(findings, entry, images) for entry in entries)
        body = f'<div class="gallery">{figures}</div>' if entries else "<p>None.</p>"
        sections.append(f'<section><h3>{title}</h3><p class="note">{rule}</p>{body}</section>')
    return "".join(sections)


def _write_entry(findings: Findings, entry: Entry, images: StoredImages) -> str:
    predictions, i = findings.predictions, entry.image
    name = str(predictions.ids[i])
    path = images.image_path(name)
    image = as_float(images.read(name))
    size = tuple(predictions.image_sizes[i].tolist())
    if image.shape != size:
        raise InputError(
            f"{path}: is {image.shape[1]} x {image.shape[0]} pixels, the predictions are of an "
            f"image of {size[1]} x {size[0]}"
        )
    score = findings.image_scores[i]
    probs = "".join(
        _write_probability(class_name, float(prob), is_true=k == predictions.true_categories[i])
        for k, (class_name, prob) in enumerate(
            zip(CLASS_NAMES, predictions.class_probs[i], strict=True)
        )
    )
    return (
        f"<figure>{draw_entry(findings, entry, image)}<figcaption><code>{escape(name)}</code>"
        f"<p>{escape(entry.reason)}; image scores {'–' if math.isnan(score) else f'{score:.2f}'}"
        f"</p>{probs}</figcaption></figure>"
    )


def _write_probability(name: str, prob: float, *, is_true: bool) -> str:
    return (
        f'<div class="prob{" is-true" if is_true else ""}"><span>{escape(name)}</span>'
        f'<i><i style="width:{100 * prob:.0f}%"></i></i><span>{prob:.2f}</span></div>'
    )


def _write_wider(sweep: Sweep, epochs: Sequence[int]) -> str:
    """Name the best of a wide sweep, and along each axis what comes close to it.

    Args:
        epochs: that have scores at the paper's grid.
    """
    best = sweep.best()
    if best is None:
        return f"<p>{escape(sweep.why_no_best())}</p>"
    near = sweep.near_best(best)
    rows = [
        (AXIS_NAMES[name], in_words(getattr(best, name)), ", ".join(map(in_words, near[name])))
        for name in AXES
    ]
    table = write_table(
        rows, header=("", "best", f"costs at most {NEAR_BEST:g}, all else as the best")
    )
    lack = sweep.lack(epochs) and f" This sweep {sweep.lack(epochs)}."
    n_settings = f"{int(np.isfinite(sweep.scores).sum()):,}"
    return f"<p>Best of {n_settings} settings: {best.score:.3f}.{lack}</p>{table}"


def _best_by_epoch(sweep: Sweep) -> list[tuple[int, float, float]]:
    """Return epoch, best score and its threshold, for every epoch that has a score."""
    scored = sweep.table().dropna(subset="score")
    best = scored.loc[scored.groupby("epoch")["score"].idxmax()]
    columns = (best[name].tolist() for name in ("epoch", "score", "threshold"))
    return list(zip(*columns, strict=True))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "–"
