import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from src.experiments.run_groups import load_groups
from src.metric import bootstrap_interval, image_scores
from src.prediction.postprocess import choose_boxes
from src.prediction.saved_epochs import load_epoch
from src.scoring.grid import sweep_pooled, sweep_run
from src.scoring.honest import honest_score
from src.scoring.quoted_numbers import compute_numbers
from src.scoring.run_results import (
    UNKNOWN,
    Estimate,
    RunResult,
    Spread,
    read_result,
    summarise_group,
)
from src.scoring.scored_images import scored_predictions
from src.scoring.sweep import ScoresError
from tests.made_predictions import (
    make_sweep,
    random_predictions,
    save_epoch,
    save_folds,
    save_run,
    with_weak_boxes,
)
from tests.made_runs import describe_run, save_losses


def test_scores_are_those_of_the_best_epoch_and_threshold(tmp_path):
    run_dir = save_run(tmp_path, 0, 1)
    sweep = sweep_run(run_dir)
    best = sweep.best()
    assert best is not None
    result = read_result(run_dir)
    assert (result.epoch, result.threshold) == (best.epoch, best.threshold)
    assert result.score.value == pytest.approx(best.score)
    assert result.score.low < best.score < result.score.high
    honest = honest_score([run_dir], sweep)
    expected = Estimate(honest.score, *bootstrap_interval(honest.image_scores))
    assert result.honest_score == pytest.approx(expected)


def test_intervals_are_by_draws_of_patients(tmp_path):
    predictions = random_predictions(0)
    first = np.array(["a"] * 4 + ["b"] * 4)
    run_dir = tmp_path / "run"
    save_epoch(run_dir, replace(predictions, group_ids=first))
    shown = sweep_run(run_dir).choose([0])
    chosen = choose_boxes(predictions, shown.postprocess)
    scores = image_scores(chosen.boxes, predictions.truth())
    low, high = bootstrap_interval(scores, np.repeat([0, 1], 4))
    assert read_result(run_dir).score[1:] == (low, high) != bootstrap_interval(scores)


def test_average_precision_needs_weaker_boxes(tmp_path):
    run_dir = save_run(tmp_path, 0)
    assert math.isnan(read_result(run_dir).ap_50.value)
    save_epoch(run_dir, with_weak_boxes(random_predictions(0)))
    shown = sweep_run(run_dir).choose([0])
    data = scored_predictions(load_epoch([run_dir], 0), shown.postprocess)
    expected = next(row for row in compute_numbers(data, 200) if row.name == "ap_50")
    assert read_result(run_dir).ap_50 == (expected.value, expected.low, expected.high)


def test_scores_that_are_saved_count_where_predictions_were_removed(tmp_path):
    run_dir = save_run(tmp_path, 0, 1)
    make_sweep([[0.1, 0.2, 0.3], [0.6, 0.5, 0.4]]).save(run_dir / "scores.npz")
    (run_dir / "predictions" / "001.npz").unlink()
    saved = read_result(run_dir)
    shutil.rmtree(run_dir / "predictions")
    for result in (saved, read_result(run_dir)):
        assert (result.epoch, result.threshold, result.score.value) == (1, 0.1, 0.6)
        assert math.isnan(result.score.low)
        assert math.isnan(result.honest_score.value)


def test_a_run_that_was_stopped_before_its_first_epoch_has_no_results(tmp_path):
    assert read_result(describe_run(tmp_path)) == RunResult()


def test_epochs_that_are_done_are_counted(tmp_path):
    assert read_result(save_losses(describe_run(tmp_path), [1.0, 0.5])).epochs == 2


def test_costs_are_summed_over_the_epochs(tmp_path):
    columns = {
        "seconds": [60, 30, 40],
        "images_per_second": [5, 11, 10],
        "peak_memory_mb": [100, 300, 200],
    }
    result = read_result(save_losses(describe_run(tmp_path), [3, 2, 1], **columns))
    assert (result.seconds, result.images_per_second, result.peak_memory_mb) == (130, 10, 300)


def test_costs_of_which_an_epoch_does_not_tell_are_unknown(tmp_path):
    run_dir = save_losses(describe_run(tmp_path), [2, 1], seconds=[float("nan"), 30])
    result = read_result(run_dir)
    assert math.isnan(result.seconds)
    assert math.isnan(result.peak_memory_mb)


def test_a_broken_file_is_an_error(tmp_path):
    run_dir = save_run(tmp_path, 0)
    (run_dir / "scores.npz").write_text("nothing")
    with pytest.raises(ScoresError, match=r"scores\.npz"):
        read_result(run_dir)


def fold_runs(folder, **changes):
    """Save four folds with descriptions, and group them."""
    for fold in range(4):
        describe_run(folder, fold=fold, **changes)
    (group,) = load_groups(save_folds(folder), "folds")
    return group


def test_a_group_has_mean_and_deviation_of_its_runs(tmp_path):
    group = fold_runs(tmp_path)
    results = [RunResult(score=Estimate(value), seconds=60 * value) for value in (1, 2, 3, 6)]
    summary = summarise_group(group, results)
    assert summary.score == pytest.approx(Spread(3, math.sqrt(14 / 3)))
    assert summary.seconds.mean == 180
    assert math.isnan(summary.ap_50.mean)


def test_a_result_that_is_unknown_is_left_out_of_the_mean(tmp_path):
    results = [RunResult(score=Estimate(0.5)), *[RunResult()] * 3]
    summary = summarise_group(fold_runs(tmp_path), results)
    assert summary.score.mean == 0.5
    assert math.isnan(summary.score.deviation)


def test_folds_are_scored_as_one_set(tmp_path):
    group = fold_runs(tmp_path)
    run_dirs = [run.run_dir for run in group.runs]
    expected = honest_score(run_dirs, sweep_pooled(run_dirs))
    result = summarise_group(group, [RunResult()] * 4)
    assert result.out_of_fold.value == pytest.approx(expected.score)
    assert result.out_of_fold.low < expected.score < result.out_of_fold.high
    assert result.note == ""


def test_runs_of_the_same_fold_are_no_set(tmp_path):
    runs = [describe_run(tmp_path, tag=tag) for tag in "ab"]
    (group,) = load_groups(runs, "seeds")
    result = summarise_group(group, [RunResult()] * 2)
    assert (result.out_of_fold, result.note) == (UNKNOWN, "")


def test_folds_that_cannot_be_scored_as_one_set_say_why(tmp_path):
    group = fold_runs(tmp_path)
    for epoch in (0, 1):
        (group.runs[2].run_dir / "predictions" / f"{epoch:03}.npz").unlink()
    result = summarise_group(group, [RunResult()] * 4)
    assert np.isnan(result.out_of_fold.value)
    assert "demo_fold_2" in result.note
