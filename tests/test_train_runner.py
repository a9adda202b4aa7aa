"""The command line from end to end, on a few phantoms; one run is trained for all of the file."""

import csv
import os
import re
import shutil
import signal
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

import src.training.loop
from src.datasets.data_folder import ImageFolder
from src.datasets.pixel_cache import PixelCache
from src.experiments.runs import Run, load_run
from src.experiments.table import EXPERIMENTS
from src.prediction.predictions import load_predictions
from src.scoring.grid import SCORE_THRESHOLDS
from src.scoring.sweep import load_sweep
from src.train_runner import main
from src.training.ending import Ending
from src.visualizations import plot_metrics, plot_val_loss
from tests.conftest import TRAINING, run_main
from tests.paths import ROOT

RUNNER = ROOT / "src" / "train_runner.py"


@pytest.fixture(scope="module")
def folders(phantoms, trained):
    return ("--data-dir", phantoms, "--output-dir", trained.output_dir)


@pytest.fixture(scope="module")
def scored(trained, folders):
    """Score the trained run, and return what check_metric printed."""
    with redirect_stdout(StringIO()) as out:
        assert run_main(main, "--action", "check_metric", "--model", "demo", *folders) == 0
    return out.getvalue()


@pytest.fixture
def copied(trained, tmp_path):
    """Return a copy of the trained run whose files may change; large files are shared."""
    run = Run("demo", 0, "", tmp_path / "output")
    shutil.copytree(trained.dir, run.dir, copy_function=link_weights)
    return run


def link_weights(source, target):
    if str(source).endswith(".safetensors"):
        return os.link(source, target)
    return shutil.copy2(source, target)


@pytest.fixture
def perfect(copied):
    """Return a run that found every true box in epoch 0, and nothing in epoch 1."""
    for epoch, scale in ((0, 1), (1, 0)):
        path = copied.predictions_path(epoch)
        found = load_predictions(path)
        true = found.true_boxes_xyxy
        scores = np.full(len(true), 0.9, np.float32)
        found = replace(found, offsets=found.true_offsets, boxes_xyxy=true * scale, scores=scores)
        found.save(path)
    return copied


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_train_leaves_a_whole_run(trained):
    assert trained.epochs_with_checkpoint() == [0, 1]
    assert trained.epochs_with_predictions() == [0, 1]
    assert [row[0] for row in rows_of(trained.history_path)] == ["epoch", "0", "1"]
    assert trained.experiment_path.exists()
    assert trained.last_checkpoint_path.exists()
    assert any(trained.tensorboard_dir.iterdir())


def test_train_shows_its_losses_and_says_where_the_run_lies(phantoms, tmp_path, call_main):
    outcome = call_main(
        main, *TRAINING, "--num-epochs", "1", "--data-dir", phantoms, "--output-dir", tmp_path,
        "--num-workers", "0", "--fold", "3", "--run", "short", "--learning-rate", "1e-4",
    )  # fmt: skip
    run = Run("demo", 3, "short", tmp_path)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == str(run.dir)
    assert re.search(r"epoch 0 train: .*loss \d+\.\d{4} cls \d", outcome.err)
    assert '"learning_rate": 0.0001' in run.experiment_path.read_text()


def test_an_interrupted_training_goes_on_by_resume(
    phantoms, trained, tmp_path, call_main, monkeypatch
):
    arguments = (*TRAINING, "--data-dir", phantoms, "--output-dir", tmp_path, "--num-workers", "0")
    train_epoch = src.training.loop.train_epoch

    def interrupted(learner, batches, progress, **options):
        if progress.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        train_epoch(learner, batches, progress, **options)

    with monkeypatch.context() as patch:
        patch.setattr(src.training.loop, "train_epoch", interrupted)
        outcome = call_main(main, *arguments)
    assert outcome.code == 128 + signal.SIGTERM
    assert outcome.err.splitlines()[-1] == (
        "stopped by SIGTERM in epoch 1, 1 of 5 batches; --resume goes on from there"
    )

    outcome = call_main(main, *arguments, "--resume")
    assert outcome.code == 0
    assert "epochs 1 to 1, after 1 of 5 batches" in outcome.out
    run = Run("demo", 0, "", tmp_path)
    assert [row[0] for row in rows_of(run.history_path)] == ["epoch", "0", "1"]


def test_a_training_whose_time_is_up_goes_on_by_resume_and_ends_by_patience(
    phantoms, tmp_path, call_main, monkeypatch
):
    arguments = (*TRAINING, "--data-dir", phantoms, "--output-dir", tmp_path, "--num-workers", "0")
    outcome = call_main(main, *arguments, "--max-hours", "1e-9")
    assert outcome.code == 75
    assert outcome.err.splitlines()[-1] == (
        "stopped by --max-hours in epoch 0, 1 of 5 batches; --resume goes on from there"
    )
    monkeypatch.setattr("src.training.ending.epochs_since_least", lambda rows, _: len(rows))
    outcome = call_main(main, *arguments, "--resume", "--max-hours", "99", "--patience", "1")
    assert outcome.code == 0
    began, ended, place = outcome.out.splitlines()
    assert began.endswith("epochs 0 to 1, after 1 of 5 batches")
    assert ended.startswith("ended by --patience 1 after epoch 0: ")
    assert place == str(Run("demo", 0, "", tmp_path).dir)


def test_tensorboard_shows_examples_of_validation(trained):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(trained.tensorboard_dir)).Reload().Images("validation")
    assert [(event.step, event.width) for event in events] == [(0, 4 * 384), (1, 4 * 384)]


def test_train_goes_on_from_an_epoch_in_another_folder(phantoms, trained, tmp_path, call_main):
    outcome = call_main(
        main, *TRAINING, "--from-epoch", "1", "--weights_dir", trained.output_dir,
        "--data-dir", phantoms, "--output-dir", tmp_path, "--num-workers", "0",
    )  # fmt: skip
    assert outcome.code == 0
    assert Run("demo", 0, "", tmp_path).epochs_with_checkpoint() == [1]


@pytest.mark.parametrize(
    ("flags", "tag"),
    [(["--debug"], "debug"), (["--debug", "True"], "debug"), (["--debug", "False"], ""),
     (["--debug", "--run", "a"], "a_debug")],
)  # fmt: skip
def test_debug_does_what_it_says(phantoms, tmp_path, call_main, monkeypatch, flags, tag):
    monkeypatch.setattr("src.datasets.loaders.N_DEBUG_TRAIN", 4)
    monkeypatch.setattr("src.datasets.loaders.N_DEBUG_VALID", 2)
    outcome = call_main(
        main, *flags, "--model", "demo", "--num-epochs", "1", "--data-dir", phantoms,
        "--output-dir", tmp_path, "--num-workers", "0",
    )  # fmt: skip
    assert outcome.code == 0
    counts = "4 training images, 2 for" if tag else "11 training images, 5 for"
    assert counts in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == [Run("demo", 0, tag, tmp_path).name]


def test_check_metric_prints_a_table_of_epochs_and_thresholds(scored, trained):
    lines = scored.splitlines()
    assert [float(word) for word in lines[0].split()[1:]] == list(SCORE_THRESHOLDS)
    sweep = load_sweep(trained.scores_path)
    assert sweep.epochs == (0, 1)
    for line, scores in zip(lines[2:4], sweep.scores.reshape(2, -1), strict=True):
        np.testing.assert_allclose([float(w) for w in line.split()[1:]], scores, atol=5.1e-4)
    assert "no epoch scores above 0: no box hits a true one" in scored  # so short as it was


def test_check_metric_saves_scores_table_and_pictures(scored, trained, read_picture):
    for path in (trained.scores_path, trained.dir / "scores.csv"):
        assert str(path) in scored
        assert path.exists()
    assert read_picture(trained.pics_dir / "scores.png").std() > 0
    assert (trained.pics_dir / "scores.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("flags", "epochs"),
    [(["--epoch", "1"], (1,)), (["--from-epoch", "1"], (1,)), (["--num-epochs", "1"], (0,)),
     (["--epoch", "1", "0", "1"], (0, 1))],
)  # fmt: skip
def test_check_metric_takes_the_epochs_of_the_flags(copied, call_main, flags, epochs):
    outcome = call_main(
        main, "--action", "check_metric", "--model", "demo", *flags,
        "--output-dir", copied.output_dir,
    )  # fmt: skip
    assert outcome.code == 0
    assert load_sweep(copied.scores_path).epochs == epochs


def test_generate_predictions_writes_every_test_image_in_kaggles_order(
    trained, phantoms, folders, call_main
):
    sample = rows_of(phantoms / "stage_2_sample_submission.csv")
    outcome = call_main(
        main, "--action", "generate_predictions", "--split", "test", "--model", "demo",
        "--epoch", "1", "--threshold", "0", *folders,
    )  # fmt: skip
    path = trained.submission_path("test", 1)
    assert str(path) in outcome.out
    rows = rows_of(path)
    assert rows[0] == ["patientId", "PredictionString"]
    assert [row[0] for row in rows] == [row[0] for row in sample]
    assert [row[0] for row in rows[1:]] != sorted(row[0] for row in rows[1:])
    for _, text in rows[1:]:
        numbers = text.split(" ") if text else []
        assert len(numbers) % 5 == 0
        for score, x, y, width, height in zip(*[map(float, numbers)] * 5, strict=True):
            assert 0 < score <= 1
            assert 0 <= x < x + width <= 1024.1
            assert 0 <= y < y + height <= 1024.1
    predictions = load_predictions(trained.test_predictions_path(1))
    assert len(predictions) == 3
    assert not predictions.has_truth


def test_predictions_out_of_the_cache_are_those_from_the_files(copied, phantoms, call_main):
    expected = load_predictions(copied.predictions_path(1))
    flags = (
        "--model", "demo", "--epoch", "1", "--cache", "--data-dir", phantoms,
        "--output-dir", copied.output_dir, "--num-workers", "0",
    )  # fmt: skip
    outcome = call_main(main, "--action", "generate_predictions", "--overwrite", *flags)
    assert "cache of 16 images: 0.02 GB in" in outcome.err
    again = load_predictions(copied.predictions_path(1))
    np.testing.assert_allclose(again.class_probs, expected.class_probs, atol=1e-4)

    outcome = call_main(main, "--action", "test_model", "--num-images", "1", *flags)
    assert outcome.code == 0
    assert "cache of" not in outcome.err
    assert len(list((copied.output_dir / "cache").glob("pixels_*"))) == 1


def test_train_reads_out_of_the_cache_if_asked(phantoms, tmp_path, call_main, monkeypatch):
    sources = []
    monkeypatch.setattr(
        src.training.loop.Training, "__init__", lambda *given: sources.append(given[3])
    )
    monkeypatch.setattr(src.training.loop.Training, "describe", lambda _: "")
    monkeypatch.setattr(src.training.loop.Training, "start", lambda _: None)
    ending = Ending("all epochs", "all 2 epochs are done")
    monkeypatch.setattr(src.training.loop.Training, "run", lambda _: ending)
    flags = (*TRAINING, "--data-dir", phantoms, "--output-dir", tmp_path)
    assert call_main(main, *flags, "--cache").code == call_main(main, *flags).code == 0
    assert [type(images.source) for images in sources] == [PixelCache, ImageFolder]


def test_generate_predictions_takes_several_epochs_of_the_validation_fold(
    copied, phantoms, call_main
):
    expected = load_predictions(copied.predictions_path(0))
    outcome = call_main(
        main, "--action", "generate_predictions", "--model", "demo", "--epoch", "0", "1",
        "--overwrite", "--data-dir", phantoms, "--output-dir", copied.output_dir,
        "--num-workers", "0",
    )  # fmt: skip
    assert outcome.code == 0
    for epoch in (0, 1):
        rows = rows_of(copied.submission_path("valid", epoch))
        assert [row[0] for row in rows[1:]] == expected.ids.tolist()
    # The weights that were saved predict what training saw.
    again = load_predictions(copied.predictions_path(0))
    np.testing.assert_allclose(again.class_probs, expected.class_probs, atol=1e-4)
    np.testing.assert_array_equal(again.true_boxes_xyxy, expected.true_boxes_xyxy)


def test_generate_predictions_takes_the_weights_of_the_folder_that_is_named(
    copied, phantoms, trained, tmp_path, call_main
):
    other = Run("demo", 0, "", tmp_path / "other")
    other.checkpoint_path(1).parent.mkdir(parents=True)
    shutil.copy2(trained.checkpoint_path(1), other.checkpoint_path(1))
    arguments = (
        "--action", "generate_predictions", "--model", "demo", "--epoch", "1", "--overwrite",
        "--data-dir", phantoms, "--output-dir", tmp_path / "new", "--num-workers", "0",
    )  # fmt: skip
    assert call_main(main, *arguments).code == 2
    assert call_main(main, *arguments, "--weights_dir", other.output_dir).code == 0
    new = Run("demo", 0, "", tmp_path / "new")
    assert load_run(new.dir) == new  # by its experiment.json
    found = load_predictions(new.predictions_path(1))
    expected = load_predictions(trained.predictions_path(1))
    np.testing.assert_allclose(found.class_probs, expected.class_probs, atol=1e-4)


def test_generate_predictions_does_not_take_old_ones_for_those_of_other_weights(
    copied, phantoms, trained, tmp_path, call_main
):
    # Epoch 0 of the other folder holds other weights than epoch 0 here.
    other = Run("demo", 0, "", tmp_path / "other")
    other.checkpoint_path(0).parent.mkdir(parents=True)
    shutil.copy2(trained.checkpoint_path(1), other.checkpoint_path(0))
    own = load_predictions(copied.predictions_path(0)).class_probs
    outcome = call_main(
        main, "--action", "generate_predictions", "--model", "demo", "--epoch", "0",
        "--weights_dir", other.output_dir, "--data-dir", phantoms,
        "--output-dir", copied.output_dir, "--num-workers", "0",
    )  # fmt: skip
    if outcome.code == 0:
        assert not np.allclose(load_predictions(copied.predictions_path(0)).class_probs, own)
    else:
        assert "--overwrite" in outcome.err


def test_generate_predictions_uses_what_is_saved_unless_told(
    copied, phantoms, call_main, monkeypatch
):
    before = copied.predictions_path(1).stat().st_mtime_ns
    monkeypatch.setattr("src.prediction.inference.predict", None)  # nothing can be predicted
    outcome = call_main(
        main, "--action", "generate_predictions", "--model", "demo", "--epoch", "1",
        "--data-dir", phantoms, "--output-dir", copied.output_dir,
    )  # fmt: skip
    assert outcome.code == 0
    assert copied.predictions_path(1).stat().st_mtime_ns == before


def test_generate_predictions_takes_the_best_epoch_and_threshold_of_check_metric(
    perfect, phantoms, call_main
):
    run = ("--model", "demo", "--data-dir", phantoms, "--output-dir", perfect.output_dir)
    outcome = call_main(main, "--action", "check_metric", *run)
    assert "best score 1.0000 at epoch 0, threshold 0.05" in outcome.out
    outcome = call_main(main, "--action", "generate_predictions", *run)
    assert "epoch 0: 5 images" in outcome.out
    assert "at threshold 0.05" in outcome.out


def test_test_model_draws_truth_and_predictions(trained, folders, call_main, read_picture):
    outcome = call_main(
        main, "--action", "test_model", "--model", "demo", "--epoch", "1", "--num-images", "2",
        *folders, "--num-workers", "0",
    )  # fmt: skip
    folder = trained.pics_dir / "001"
    assert str(folder) in outcome.out
    pictures = sorted(path for path in folder.glob("*.png") if path.stem != "overview")
    ids = load_predictions(trained.predictions_path(1)).ids.tolist()
    assert len(pictures) == 2
    assert {path.stem for path in pictures} <= set(ids)
    for path in pictures:
        picture = read_picture(path)
        assert picture.shape[1] == 1024  # as many as the file has; below stands a line of text
        assert 1024 < picture.shape[0] < 1100


def test_plots_of_a_run_are_drawn_by_their_commands(
    trained, scored, call_main, read_picture, tmp_path
):
    for plot, extra in ((plot_metrics, ()), (plot_val_loss, ("--loss", "loss", "regression"))):
        out = tmp_path / "pics of runs" / f"{plot.__name__.split('.')[-1]}.png"
        outcome = call_main(plot.main, trained.dir, trained.dir, *extra, "--out", out)
        assert outcome.out.splitlines() == [str(out), str(out.with_suffix(".pdf"))]
        assert read_picture(out).std() > 0
        assert out.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_list_models_names_every_experiment(call_main, monkeypatch):
    # One is enough: building every network is slow.
    monkeypatch.setattr("src.actions.list_models.EXPERIMENTS", {"demo": EXPERIMENTS["demo"]})
    outcome = call_main(main, "--list-models")
    assert outcome.code == 0
    assert any(line.startswith("demo ") for line in outcome.out.splitlines())
