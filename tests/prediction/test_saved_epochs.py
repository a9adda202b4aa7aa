from dataclasses import replace

import numpy as np
import pytest

from src.prediction.predictions import PredictionsError, join_predictions
from src.prediction.saved_epochs import common_epochs, load_epoch, saved_epochs
from tests.made_predictions import make_fold, save_folds, save_run


def test_saved_epochs_are_in_order(tmp_path):
    assert saved_epochs(save_run(tmp_path, 10, 2, 3)) == [2, 3, 10]


def test_saved_epochs_name_what_is_missing(tmp_path):
    with pytest.raises(PredictionsError, match="nothing: no such folder"):
        saved_epochs(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PredictionsError, match=r"empty/predictions: .*--action train"):
        saved_epochs(tmp_path / "empty")


def test_an_epoch_that_is_not_saved_is_named_with_those_that_are(tmp_path):
    with pytest.raises(PredictionsError, match=r"demo_fold_0: .*epoch 4.*\[0, 1\]"):
        load_epoch([save_run(tmp_path, 0, 1)], 4)


def test_an_epoch_of_several_runs_is_joined(tmp_path):
    joined = load_epoch(save_folds(tmp_path), 1)
    expected = join_predictions([make_fold(fold, 1) for fold in range(4)])
    np.testing.assert_array_equal(joined.ids, expected.ids)
    np.testing.assert_array_equal(joined.boxes_xyxy, expected.boxes_xyxy)
    assert joined.provenance == expected.provenance


def test_predictions_of_another_epoch_under_its_name_are_refused(tmp_path):
    (run_dir,) = save_folds(tmp_path, folds=[0])
    make_fold(0, epoch=7).save(run_dir / "predictions" / "001.npz")
    with pytest.raises(PredictionsError, match=r"001\.npz: .*epoch 7"):
        load_epoch([run_dir], 1)


def test_predictions_that_do_not_name_their_epoch_are_taken(tmp_path):
    unnamed = make_fold(0)
    unnamed = replace(unnamed, provenance=replace(unnamed.provenance, epoch=None))
    unnamed.save(tmp_path / "predictions" / "001.npz")
    np.testing.assert_array_equal(load_epoch([tmp_path], 1).ids, unnamed.ids)


def test_common_epochs_are_those_of_all_runs(tmp_path):
    run_dirs = save_folds(tmp_path, folds=[0], epochs=[0, 1, 3]) + save_folds(
        tmp_path, folds=[1], epochs=[1, 2, 3]
    )
    assert common_epochs(run_dirs) == [1, 3]


def test_folds_without_a_common_epoch_are_refused(tmp_path):
    run_dirs = save_folds(tmp_path, folds=[0], epochs=[0]) + save_folds(
        tmp_path, folds=[1], epochs=[1]
    )
    with pytest.raises(PredictionsError, match=r"no epoch in common: .*demo_fold_0 has \[0\]"):
        common_epochs(run_dirs)
