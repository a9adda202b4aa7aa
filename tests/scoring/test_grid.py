"""Scores at every combination of settings, of one run and of the folds of a model as one."""

from dataclasses import replace

import numpy as np
import pytest

from src.datasets.annotations import read_label_files
from src.datasets.box_sizes import CHALLENGE_SIZE
from src.prediction.predictions import (
    Predictions,
    PredictionsError,
    join_predictions,
    optional_arrays,
)
from src.prediction.presets import GATES, Postprocess
from src.prediction.provenance import Provenance
from src.scoring.grid import SCORE_THRESHOLDS, Grid, sweep_epoch, sweep_pooled, sweep_run
from src.scoring.sweep import ScoredRun, ScoresError
from tests import oracles
from tests.made_predictions import (
    make_fold,
    offsets_of,
    random_predictions,
    save_epoch,
    save_folds,
    save_run,
)
from tests.paths import shared

THRESHOLDS = (0.0, 0.3, 1.0, 2.0, 4.0, 6.0)


def plain_score(predictions, postprocess):
    """The challenge's score of one combination, image by image and box by box."""
    images = []
    for image in range(len(predictions)):
        chosen = oracles.chosen_boxes(predictions, image, postprocess)
        true = oracles.xywh(predictions.true_boxes_xyxy[predictions.truth_of(image)])
        images.append((true, [box for _, box, _ in chosen], [gate for _, _, gate in chosen]))
    return oracles.dataset_score(images, postprocess.threshold)


@pytest.mark.parametrize("seed", range(5))
def test_sweep_epoch_equals_the_plain_loops(seed):
    predictions = random_predictions(seed, n_images=20)
    shrinks, nms = (1.0, 0.875), (0.05, 0.4)
    grid = Grid(thresholds=THRESHOLDS, nms=nms, shrinks=shrinks, gates=tuple(GATES))
    fast = sweep_epoch(predictions, grid)
    slow = [
        [
            [
                [
                    plain_score(predictions, Postprocess(gate=g, shrink=s, nms=n, threshold=t))
                    for t in THRESHOLDS
                ]
                for n in nms
            ]
            for s in shrinks
        ]
        for g in GATES
    ]
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-12)
    assert len(np.unique(fast)) > 20, "the settings must matter for this to say anything"


def test_a_perfect_detector_scores_one_on_the_real_labels():
    folder = shared("annotations")
    records = read_label_files(
        folder / "stage_2_train_labels.csv", folder / "stage_2_detailed_class_info.csv"
    )
    boxes = np.concatenate([record.boxes_xywh for record in records]).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    offsets = offsets_of([len(record.boxes_xywh) for record in records])
    predictions = Predictions(
        ids=np.array([record.patient_id for record in records]),
        image_sizes=np.full((len(records), 2), CHALLENGE_SIZE[0]),
        class_probs=np.full((len(records), 3), 1 / 3, np.float32),
        offsets=offsets,
        boxes_xyxy=boxes,
        scores=np.full(len(boxes), 0.9, np.float32),
        **optional_arrays(len(records)),
        true_offsets=offsets,
        true_boxes_xyxy=boxes,
        true_categories=np.array([record.category for record in records]),
        provenance=Provenance(img_size=CHALLENGE_SIZE[0]),
    )
    # Real boxes overlap here and there, so nothing may be suppressed.
    score = sweep_epoch(predictions, Grid(thresholds=(0.3,), nms=(1.0,))).item()
    assert score == pytest.approx(1.0, abs=1e-12)
    assert len(boxes) == 9555


def test_predictions_without_truth_are_not_scored():
    unlabelled = replace(random_predictions(), true_categories=np.full(8, -1))
    with pytest.raises(ScoresError, match="no true boxes"):
        sweep_epoch(unlabelled)


def test_the_thresholds_are_those_of_the_original():
    assert SCORE_THRESHOLDS[:8] == (0.05, 0.1, 0.15, 0.2, 0.25, 0.28, 0.3, 0.35)
    assert len(SCORE_THRESHOLDS) == 18


def test_sweep_run_scores_the_saved_epochs_in_order(tmp_path):
    grid = Grid(thresholds=THRESHOLDS)
    sweep = sweep_run(save_run(tmp_path, 10, 2, 3), grid=grid)
    assert sweep.epochs == (2, 3, 10)
    assert sweep.run == ScoredRun(model="demo", fold=0, tag="")
    for i, epoch in enumerate(sweep.epochs):
        single = sweep_epoch(random_predictions(epoch), grid)
        np.testing.assert_array_equal(sweep.scores[i], single)


def test_sweep_run_takes_the_epochs_that_are_named(tmp_path):
    assert sweep_run(save_run(tmp_path, 0, 1, 2), [2, 0, 2]).epochs == (0, 2)


def test_sweep_run_names_what_is_missing(tmp_path):
    with pytest.raises(PredictionsError, match="nothing: "):
        sweep_run(tmp_path / "nothing")
    with pytest.raises(PredictionsError, match=r"epoch 4.*\[0, 1\]"):
        sweep_run(save_run(tmp_path, 0, 1), [0, 4])


def test_pooled_scores_are_those_of_all_images_together(tmp_path):
    run_dirs = save_folds(tmp_path)
    pooled = sweep_pooled(run_dirs)
    assert pooled.epochs == (0, 1)
    assert pooled.run == ScoredRun(model="demo", fold=None, tag="")
    for e, epoch in enumerate(pooled.epochs):
        everything = join_predictions([make_fold(fold, epoch) for fold in range(4)])
        np.testing.assert_array_equal(pooled.scores[e], sweep_epoch(everything))


def test_folds_without_a_common_epoch_are_not_pooled(tmp_path):
    run_dirs = save_folds(tmp_path, folds=[0], epochs=[0]) + save_folds(
        tmp_path, folds=[1], epochs=[1]
    )
    with pytest.raises(PredictionsError, match=r"no epoch in common: .*demo_fold_0 has \[0\]"):
        sweep_pooled(run_dirs)


def test_predictions_of_another_run_in_the_folder_are_refused(tmp_path):
    (run_dir,) = save_folds(tmp_path, folds=[0])
    save_epoch(run_dir, make_fold(2, epoch=1))
    with pytest.raises(ScoresError, match="epoch 1 is of another run than epoch 0"):
        sweep_run(run_dir)


def test_predictions_of_another_epoch_under_its_name_are_refused(tmp_path):
    (run_dir,) = save_folds(tmp_path, folds=[0])
    make_fold(0, epoch=7).save(run_dir / "predictions" / "001.npz")
    with pytest.raises(PredictionsError, match=r"001\.npz: .*epoch 7"):
        sweep_run(run_dir)
