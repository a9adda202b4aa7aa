"""The folds of a model scored as one data set, and how sure and flat the best setting is."""

from dataclasses import replace

import numpy as np
import pytest

from src import scores
from src.prediction.predictions import PredictionsError, join_predictions
from src.scoring.sweep import ScoresError, load_sweep, sweep_epoch, sweep_pooled, sweep_run
from tests.prediction.test_predictions import random_predictions
from tests.test_scores import make_sweep


def fold_predictions(fold, epoch=0, **changes):
    """Eight images of their own for each fold."""
    part = random_predictions(10 * fold + epoch, epoch=epoch)
    ids = np.array([f"patient-{fold}-{i}" for i in range(len(part))])
    return replace(part, ids=ids, header=part.header | {"fold": fold} | changes)


def save_folds(folder, folds=range(4), epochs=(0, 1)):
    run_dirs = [folder / f"demo_fold_{fold}" for fold in folds]
    for fold, run_dir in zip(folds, run_dirs, strict=True):
        for epoch in epochs:
            predictions = fold_predictions(fold, epoch)
            predictions.save(run_dir / "predictions" / f"{epoch:03}.npz")
    return run_dirs


def test_joined_predictions_keep_every_image_as_it_was():
    parts = [fold_predictions(fold) for fold in range(3)]
    joined = join_predictions(parts)
    assert len(joined) == 24
    assert joined.header == {"img_size": 192, "model": "demo", "tag": "", "epoch": 0}
    for p, part in enumerate(parts):
        for image in range(len(part)):
            ours, its = joined.candidates_of(8 * p + image), part.candidates_of(image)
            np.testing.assert_array_equal(joined.boxes_xyxy[ours], part.boxes_xyxy[its])
            np.testing.assert_array_equal(joined.scores[ours], part.scores[its])
            ours, its = joined.truth_of(8 * p + image), part.truth_of(image)
            np.testing.assert_array_equal(joined.true_boxes_xyxy[ours], part.true_boxes_xyxy[its])


def test_an_image_in_two_folds_is_refused():
    with pytest.raises(PredictionsError, match=r"patient-1-0 is in demo fold 1 and in demo fold 1"):
        join_predictions([fold_predictions(0), fold_predictions(1), fold_predictions(1)])


def test_folds_of_different_inputs_are_refused():
    with pytest.raises(PredictionsError, match="192 and of 256 px"):
        join_predictions([fold_predictions(0), fold_predictions(1, img_size=256)])


def test_pooled_scores_are_those_of_all_images_together(tmp_path):
    run_dirs = save_folds(tmp_path)
    pooled = sweep_pooled(run_dirs)
    for e, epoch in enumerate((0, 1)):
        everything = join_predictions([fold_predictions(fold, epoch) for fold in range(4)])
        np.testing.assert_array_equal(pooled.scores[e], sweep_epoch(everything))


def test_folds_without_a_common_epoch_are_refused(tmp_path):
    run_dirs = save_folds(tmp_path, folds=[0], epochs=[0]) + save_folds(
        tmp_path, folds=[1], epochs=[1]
    )
    with pytest.raises(PredictionsError, match=r"no epoch in common: demo_fold_0 has \[0\]"):
        sweep_pooled(run_dirs)


def test_predictions_of_another_run_in_the_folder_are_refused(tmp_path):
    (run_dir,) = save_folds(tmp_path, folds=[0])
    fold_predictions(2, epoch=1).save(run_dir / "predictions" / "001.npz")
    with pytest.raises(ScoresError, match="epoch 1 is of another run than epoch 0"):
        sweep_run(run_dir)


def test_predictions_of_another_epoch_under_its_name_are_refused(tmp_path):
    (run_dir,) = save_folds(tmp_path, folds=[0])
    fold_predictions(0, epoch=7).save(run_dir / "predictions" / "001.npz")
    with pytest.raises(PredictionsError, match=r"001\.npz: is of epoch 7"):
        sweep_run(run_dir)


def test_the_command_pools_exactly_when_all_folds_are_there(tmp_path, call_main):
    run_dirs = save_folds(tmp_path)
    quick = ["--nms", "0.05", "--shrinks", "1", "--gates", "score"]
    assert call_main(scores.main, *run_dirs[:3], *quick).code == 0
    assert not (tmp_path / "demo_all_folds").exists()

    outcome = call_main(scores.main, *run_dirs, *quick)
    assert outcome.code == 0, outcome.err
    assert "demo_all_folds: best score" in outcome.out
    pooled = load_sweep(tmp_path / "demo_all_folds" / "sweep.npz")
    assert pooled.best()["score"] == sweep_pooled(run_dirs).best()["score"]


def test_near_best_names_the_values_that_cost_little():
    sweep = make_sweep([[0.400, 0.397], [0.100, 0.2]], epochs=(3, 4))
    near = sweep.near_best(tolerance=0.005)
    assert near["epoch"] == [3]
    assert near["threshold"] == [0.1, 0.3]
    assert sweep.near_best(tolerance=0.001)["threshold"] == [0.1]
