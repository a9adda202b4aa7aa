"""Everything that looks at one epoch of a run takes the same one, and the same threshold.

It is the epoch that is named, else the best of check_metric, else the last one saved; and its best
threshold, or .3 where nothing is known of it or nothing hits.
"""

import json
import re
import shutil
import warnings
from dataclasses import replace

import numpy as np
import pytest

from src import export, train_runner
from src.experiments.runs import Run
from src.prediction.predictions import load_predictions
from src.scoring.run_scores import choose_scores
from src.system.errors import InputError
from src.visualizations import plot_global_head, report
from src.visualizations.plot_detections import load_detections
from src.visualizations.plot_numbers import load_numbers
from tests.made_predictions import offsets_of, save_epoch

FLAGS = ("--model", "demo")
LAST = 2


def find(known, *, shift=0.0, scale=1.0, false_score=None):
    """Find the true boxes of every image, moved or scaled; with `false_score` a false one too."""
    boxes, scores, counts = [], [], []
    for image in range(len(known)):
        own = known.true_boxes_xyxy[known.truth_of(image)] * scale
        sides = own[:, 2:] - own[:, :2]
        boxes += [*(own + shift * np.tile(sides, 2))]
        scores += [0.9] * len(own)
        if false_score is not None:
            boxes.append(np.array([0, 0, 4, 4]))
            scores.append(false_score)
        counts.append(len(own) + (false_score is not None))
    return replace(
        known,
        offsets=offsets_of(counts),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
    )


def without_truth_or_boxes(known):
    healthy = replace(
        known,
        true_offsets=np.zeros_like(known.true_offsets),
        true_boxes_xyxy=known.true_boxes_xyxy[:0],
        true_categories=np.ones_like(known.true_categories),
    )
    return find(healthy)


FINDERS = {  # what is found in each epoch
    "scores": (find, lambda known: find(known, shift=0.1, false_score=0.15),
               lambda known: find(known, scale=0)),
    "every score is 0": (lambda known: find(known, scale=0, false_score=0.5),) * 3,
    "no score exists": (without_truth_or_boxes,) * 3,
}  # fmt: skip
CASES = [
    ("scores", None, (0, 0.05)),
    ("scores", 1, (1, 0.8)),  # above the false boxes' .15 x 5
    ("scores", LAST, (LAST, 0.3)),
    ("every score is 0", None, (LAST, 0.3)),
    ("every score is 0", 1, (1, 0.3)),
    ("no score exists", None, (LAST, 0.3)),
    ("no score exists", 1, (1, 0.3)),
]


@pytest.fixture
def folders(phantoms, tmp_path):
    return ("--data-dir", phantoms, "--output-dir", tmp_path)


@pytest.fixture
def scored(trained, tmp_path, folders, call_main):
    """Return a function that makes a run of three epochs of some kind, and lets it be scored."""

    def make(kind, *, is_scored=True):
        run = Run("demo", 0, "", tmp_path)
        run.checkpoint_path(0).parent.mkdir(parents=True)
        shutil.copy2(trained.experiment_path, run.experiment_path)
        known = load_predictions(trained.predictions_path(0))
        for epoch, finder in enumerate(FINDERS[kind]):
            found = finder(known)
            save_epoch(run.dir, replace(found, provenance=replace(known.provenance, epoch=epoch)))
            run.checkpoint_path(epoch).hardlink_to(trained.checkpoint_path(0))  # any weights do
        if is_scored:
            outcome = call_main(train_runner.main, "--action", "check_metric", *FLAGS, *folders)
            assert (outcome.code, outcome.err) == (0, "")
            if kind == "scores":
                assert "at epoch 0, threshold 0.05\n" in outcome.out
            elif kind == "every score is 0":
                assert "no epoch scores above 0" in outcome.out
            else:
                assert "no image has true boxes" in outcome.out
        return run

    return make


def flags_of(epoch):
    return () if epoch is None else ("--epoch", epoch)


def check_choice(run, asked, expected, call_main, folders, monkeypatch):
    """Ask everything that chooses an epoch, and hold it to what is expected."""
    epoch, threshold = expected
    outcome = call_main(
        train_runner.main, "--action", "generate_predictions", *FLAGS, *folders, *flags_of(asked)
    )
    line, *places = outcome.out.splitlines()
    words = rf"epoch {epoch}: 5 images, \d with boxes at threshold {threshold}, as they were "
    assert re.match(words, line)
    assert places == [str(run.predictions_path(epoch)), str(run.submission_path("valid", epoch))]

    shown = choose_scores(run.dir, asked)
    assert (shown.epoch, shown.postprocess.threshold) == expected

    detections = load_detections(run.dir, "a", epoch=asked, threshold=None, nms=0.05)
    assert (detections.name, detections.min_score) == (f"a, epoch {epoch}", threshold / 5)

    numbers = load_numbers(run.dir, "a", epoch=asked, n_draws=0)
    assert numbers.name == f"a, epoch {epoch}: boxes by score × 5, NMS 0.05"

    drawn = []

    def record(runs):
        drawn.extend(runs)
        raise InputError("enough was seen")

    with monkeypatch.context() as patch:
        patch.setattr(plot_global_head, "plot_global_head", record)
        call_main(plot_global_head.main, run.dir, *flags_of(asked))
    assert drawn == [f"demo_fold_0, epoch {epoch}"]

    told = []

    def tell(path, detector, metadata):
        told.append((json.loads(metadata["epoch"]), json.loads(metadata["threshold"])))
        raise InputError("enough was seen")

    with monkeypatch.context() as patch:
        patch.setattr("src.onnx_export.graph.write_graph", tell)
        patch.setattr(export, "write_graph", tell, raising=False)
        outcome = call_main(export.main, run.dir, *flags_of(asked))
    assert told == [expected] or "exporting needs" in outcome.err


@pytest.mark.parametrize(("kind", "asked", "expected"), CASES)
def test_the_same_epoch_and_threshold_everywhere(
    scored, call_main, folders, monkeypatch, kind, asked, expected
):
    check_choice(scored(kind), asked, expected, call_main, folders, monkeypatch)


@pytest.mark.parametrize(("asked", "epoch"), [(None, LAST), (1, 1)])
def test_the_last_epoch_is_taken_where_nothing_was_scored(
    scored, call_main, folders, monkeypatch, asked, epoch
):
    # The report alone scores what is not scored: of these nothing hits.
    run = scored("every score is 0", is_scored=False)
    check_choice(run, asked, (epoch, 0.3), call_main, folders, monkeypatch)


@pytest.mark.parametrize("kind", FINDERS)
def test_the_report_of_any_run_is_written_without_a_word(scored, call_main, phantoms, kind):
    run = scored(kind)
    with warnings.catch_warnings(action="error"):  # not those of what the fixtures import
        outcome = call_main(report.main, run.dir, "--data-dir", phantoms)
    assert (outcome.code, outcome.err) == (0, "")
    page = (run.dir / "report.html").read_text()
    headline = page.split("<h2>")[0]
    assert f"<b>{0 if kind == 'scores' else LAST}</b><span>epoch</span>" in headline
    assert "nan" not in headline.split("<h1>")[1]
