"""A fold whose images have no true boxes has no score, and everything works without one."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

from src import export, scores, submission, train_runner
from src.experiments.runs import Run
from src.prediction.predictions import load_predictions
from src.scoring.sweep import load_sweep
from src.visualizations import (
    plot_detections,
    plot_global_head,
    plot_metrics,
    plot_numbers,
    plot_sweep,
    report,
)

LAST = 1

# NumPy's, of means of nothing; the user is told that the fold has no box.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture
def data(phantoms, tmp_path):
    """Return a data folder whose fold 0 has no boxes."""
    data = shutil.copytree(phantoms, tmp_path / "data")
    with (data / "stage_2_detailed_class_info.csv").open(newline="") as file:
        classes = {row["patientId"]: row["class"] for row in csv.DictReader(file)}
    healthy = [patient for patient, name in classes.items() if name != "Lung Opacity"][:4]
    rows = (f"{patient},{0 if patient in healthy else 1}\n" for patient in classes)
    (data / "folds.csv").write_text("patientId,fold\n" + "".join(rows))
    return data


@pytest.fixture(params=["finds nothing", "finds false boxes"])
def run(request, trained, talkative, tmp_path):
    """Return a run of two epochs, whose networks find nothing, or boxes where none are."""
    source = trained if request.param == "finds nothing" else Run("demo", 0, "", talkative)
    made = Run("demo", 0, "", tmp_path / "runs")
    made.checkpoint_path(0).parent.mkdir(parents=True)
    shutil.copy2(trained.experiment_path, made.experiment_path)
    shutil.copy2(trained.history_path, made.history_path)
    for epoch in (0, LAST):
        made.checkpoint_path(epoch).hardlink_to(source.checkpoint_path(epoch))
    return made


@pytest.fixture
def act(call_main, data, run):
    """Return a function that acts on the run, and gives back what is said."""

    def call(action, *flags):
        folders = ("--data-dir", data, "--output-dir", run.output_dir, "--num-workers", "0")
        command = ("--action", action, "--model", "demo", *folders, *flags)
        outcome = call_main(train_runner.main, *command)
        assert outcome.code == 0, outcome.err
        return outcome.out

    return call


def test_every_step_works_without_a_score(act, run, data, call_main, tmp_path):
    act("generate_predictions", "--epoch", "0", "1")
    assert len(load_predictions(run.predictions_path(LAST)).true_boxes_xyxy) == 0

    told = act("check_metric")
    sweep = load_sweep(run.scores_path)
    assert sweep.best() is None
    assert np.nanmax(sweep.scores, initial=0) == 0
    no_score = "no image has true boxes, so there is nothing to score\n"
    assert (no_score in told) == bool(np.isnan(sweep.scores).any())

    said = act("generate_predictions", "--overwrite")
    assert re.match(rf"epoch {LAST}: 4 images, \d with boxes at threshold 0\.3\n", said)
    assert f"epoch {LAST}: 3 images" in act("generate_predictions", "--split", "test")
    assert f"epoch {LAST}: 4 pictures" in act("test_model")

    out = tmp_path / "pics" / "a.png"
    for main, arguments in (
        (scores.main, (run.dir,)),
        (plot_metrics.main, (run.dir, "--out", out)),
        (plot_sweep.main, (run.dir, "--out", out)),
        (plot_detections.main, (run.dir, "--out", out)),
        (plot_global_head.main, (run.dir, "--out", out)),
        (plot_numbers.main, (run.dir, "--out", out)),
        (report.main, (run.dir, "--data-dir", data)),
        (submission.main, ("stats", run.submission_path("valid", LAST))),
    ):
        outcome = call_main(main, *arguments)
        assert (outcome.code, outcome.err) == (0, "")
    page = (run.dir / "report.html").read_text()
    assert f"<b>{LAST}</b><span>epoch</span><small>score × 5 &gt; 0.3" in page
    assert "nan" not in page.split("<h2>")[0].split("<h1>")[1]


def test_an_export_takes_the_last_epoch_and_the_default_threshold(
    act, run, call_main, tmp_path, monkeypatch
):
    told = {}

    def keep(path, detector, facts):
        told.update(facts)
        raise SystemExit(0)

    act("generate_predictions", "--epoch", "0", "1")
    act("check_metric")
    monkeypatch.setattr(export, "_check_packages", lambda: None)
    monkeypatch.setattr("src.onnx_export.graph.write_graph", keep)
    call_main(export.main, run.dir, "--out", tmp_path / "a.onnx")
    assert (json.loads(told["epoch"]), json.loads(told["threshold"])) == (LAST, 0.3)
