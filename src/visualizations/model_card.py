"""The card of a model that is shared: a README.md in the Hugging Face form, from the run's files.

What the files do not tell is "not measured", never left out in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from src.experiments.checkpoints import SharedFacts
from src.experiments.experiment_file import StoredTraining, read_stored_training
from src.experiments.runs import Run, read_description
from src.metric import image_scores
from src.prediction.postprocess import choose_boxes
from src.prediction.predictions import Predictions
from src.prediction.presets import GATES
from src.prediction.saved_epochs import load_epoch
from src.scoring.honest import honest_score
from src.scoring.number_tables import WITHOUT_WEAK
from src.scoring.quoted_numbers import NumberResult, count_cases
from src.scoring.subgroups import Group, group_numbers, score_result
from src.scoring.sweep import Choice, load_sweep
from src.structures import CLASS_NAMES
from src.visualizations.run_numbers import in_digits, run_numbers

NOT_MEASURED = "not measured"
N_DRAWS = 1000  # for the intervals
SHOWN_OF_GROUPS = (("score", ""), ("ap_50", ""), ("auroc", "global head"))
CARD = """---
license: {licence}
library_name: pytorch
pipeline_tag: object-detection
tags:
- chest-x-ray
- pneumonia
- object-detection
- retinanet
{model_index}---

# {name}

A RetinaNet that finds lung opacities, as pneumonia makes them, in frontal chest radiographs, and
says how probable each of three classes of the whole image is: {classes}.

**For research, not for diagnosis.** It was scored on the images described below and nowhere else.

## Predict

With the code that made it, a re-implementation of "Deep Learning for Automatic Pneumonia Detection"
(Gabruseva, Poplavskiy, Kalinin; CVPR Workshops 2020), and no other file:

```bash
python src/train_runner.py --action generate_predictions --weights {file} --input my_images
```

or, from the hub, `--weights hf:OWNER/NAME@REVISION`. {choosing}

## Training

{training}

## Scores on the held-out fold

{scores}

### Numbers that papers quote

{numbers}

### Subgroups

{groups}

## How it was made

{origin}
"""


def write_card(
    run: Run,
    choice: Choice,
    shared: SharedFacts,
    *,
    file_name: str,
    group_table: Mapping[str, Mapping[str, str]],
) -> str:
    """Write the card.

    Args:
        choice: the epoch that is shared, and its best setting.
        shared: what the file of weights says.
        file_name: of that file.
        group_table: column -> id -> the name of the image's group; see `group_numbers`.

    Raises:
        InputError: files of the run cannot be read.
    """
    stored = read_stored_training(run.experiment_path)
    predictions = None
    if choice.epoch in run.epochs_with_predictions():
        predictions = load_epoch([run.dir], choice.epoch)
    groups: list[Group] = []
    numbers = NOT_MEASURED
    if predictions is not None:
        quoted = run_numbers("", predictions, choice.postprocess, N_DRAWS)
        numbers = _write_numbers(quoted.results, quoted.data.is_complete)
        numbers = f"Of {_counts(count_cases(quoted.data))}.\n\n{numbers}"
        scores = _scores_of(predictions, choice)
        groups = list(group_numbers(quoted.data, scores, group_table))
    return CARD.format(
        licence=json.dumps(shared.licence),
        model_index=_model_index(run, stored, choice),
        name=_plain(run.name),
        classes=", ".join(CLASS_NAMES),
        file=file_name,
        choosing=_describe_choosing(choice),
        training=_describe_training(stored, read_description(run.experiment_path), shared),
        scores=_describe_scores(run, predictions, choice),
        numbers=numbers,
        groups=_write_groups(groups) if groups else NOT_MEASURED,
        origin=_describe_origin(stored, shared, choice),
    )


def _describe_choosing(choice: Choice) -> str:
    postprocess = choice.postprocess
    return (
        f"A box counts when {GATES[postprocess.gate].formula} is greater than "
        f"{postprocess.threshold:g} ({postprocess.threshold_from}), after non-maximum suppression "
        f"at IoU {postprocess.nms:g}; `--threshold` and `--nms` change that."
    )


def _describe_training(
    stored: StoredTraining, description: Mapping[str, Any], shared: SharedFacts
) -> str:
    counts = [description.get(name, NOT_MEASURED) for name in ("n_train", "n_valid")]
    facts = {
        "experiment": stored.model,
        "held-out fold": stored.fold,
        "training images": counts[0],
        "validation images": counts[1],
        "fingerprint of labels and images": shared.data_fingerprint,
        "began with": shared.pretraining,
        "seed": stored.seed,
        "arithmetic": stored.precision,
    }
    settings = {name: _in_words(value) for name, value in asdict(stored.settings).items()}
    return (
        f"{_table(('', ''), facts.items())}\n\n<details><summary>All settings</summary>\n\n"
        f"{_table(('setting', 'value'), settings.items())}\n\n</details>"
    )


def _describe_scores(run: Run, predictions: Predictions | None, choice: Choice) -> str:
    """Give the challenge's score at the best setting, and the one that is not chosen on itself."""
    best = None
    if predictions is not None:
        best = score_result(_scores_of(predictions, choice), predictions.patients)
    rows = [("at the setting that is best on these images", in_digits(best) if best else None)]
    honest = None
    if run.scores_path.exists():
        sweep = load_sweep(run.scores_path)
        if set(sweep.epochs) <= set(run.epochs_with_predictions()):
            honest = honest_score([run.dir], sweep)
    text = None
    if honest is not None and not np.isnan(honest.score):
        low, high = honest.interval()
        text = f"{honest.score:.3f} ({low:.3f} to {high:.3f})"
    rows.append(("at settings that other images chose (to be quoted)", text))
    return (
        "The challenge's score: mean over IoU thresholds .40 to .75 of TP / (TP + FP + FN); in "
        "brackets the 95 % interval of the bootstrap.\n\n"
        f"{_table(('', 'score'), ((name, text or NOT_MEASURED) for name, text in rows))}"
    )


def _scores_of(predictions: Predictions, choice: Choice) -> np.ndarray[Any, np.dtype[np.float64]]:
    return image_scores(choose_boxes(predictions, choice.postprocess).boxes, predictions.truth())


def _write_numbers(results: Sequence[NumberResult], is_complete: bool) -> str:
    rows = [
        (row.text + (f" ({row.image_score})" if row.image_score else ""), _measured(row))
        for row in results
        if row.image_score or is_complete
    ]
    missing = "" if is_complete else f"\n\nOf boxes: {NOT_MEASURED}, because {WITHOUT_WEAK}."
    return _table(("number", "value (95 % interval)"), rows) + missing


def _write_groups(groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        known = {(row.name, row.image_score): row for row in group.results}
        values = [_measured(known[key]) for key in SHOWN_OF_GROUPS]
        name = f"{group.column} {group.name}{' (small)' if group.is_small else ''}"
        rows.append((name, group.n_images, group.n_opacities, *values))
    header = ("group", "images", "with an opacity", "challenge's score", "AP at IoU .50", "AUROC")
    return _table(header, rows)


def _describe_origin(stored: StoredTraining, shared: SharedFacts, choice: Choice) -> str:
    facts = {
        "epoch": choice.epoch,
        "licence of the weights": shared.licence,
        "commit of the code": shared.git_commit or "unknown",
        "input": f"{stored.settings.img_size} x {stored.settings.img_size}, one grey channel",
        **{f"version of {name}": version for name, version in shared.versions.items()},
    }
    return _table(("", ""), facts.items())


def _model_index(run: Run, stored: StoredTraining, choice: Choice) -> str:
    """Write the scores as the hub reads them; nothing where there is none."""
    if choice.best is None:
        return ""
    return (
        "model-index:\n"
        f"- name: {json.dumps(run.name)}\n"
        "  results:\n"
        "  - task:\n"
        "      type: object-detection\n"
        "    dataset:\n"
        f"      name: {json.dumps(f'held-out fold {stored.fold} of the training data')}\n"
        f"      type: {json.dumps(stored.data_fingerprint[:12])}\n"
        "    metrics:\n"
        "    - type: score\n"
        "      name: RSNA challenge score, at the setting that is best on these images\n"
        f"      value: {choice.best.score:.4f}\n"
    )


def _measured(row: NumberResult) -> str:
    text = in_digits(row)
    return NOT_MEASURED if text == "–" else text


def _counts(cases: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in cases.items())


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(value: object) -> str:
    """Write a value so that Markdown shows it as it is, in one cell of a table."""
    text = " ".join(str(value).split())
    return "".join(f"\\{letter}" if letter in r"\`*_<>[]|#" else letter for letter in text)


def _in_words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
