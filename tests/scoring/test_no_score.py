"""NaN means that there is no score, because no image counts."""

import math

import numpy as np
import pytest

from src.metric import bootstrap_interval
from src.prediction.presets import Postprocess
from src.scoring.grid import sweep_epoch
from src.scoring.matching import find_boxes, match_predictions, precision_recall
from src.visualizations.eda_labels import cover_shares
from src.visualizations.gallery import (
    best_hits,
    loosest_hits,
    missed_boxes,
    worst_false_positives,
)
from tests.made_predictions import WHOLE, make_predictions, make_sweep

pytestmark = pytest.mark.filterwarnings("error")

NOTHING = make_predictions(([], []), ([], []))
FALSE_ALARMS = make_predictions(([], [(WHOLE, 0.5)]), ([], []))


def test_no_image_gives_no_interval():
    for scores in (np.full(3, np.nan), np.empty(0)):
        assert all(map(math.isnan, bootstrap_interval(scores)))
    assert bootstrap_interval(np.array([0.5, np.nan])) == (0.5, 0.5)


def test_images_without_boxes_have_no_score_where_nothing_is_found():
    assert np.isnan(sweep_epoch(NOTHING)).all()
    scores = sweep_epoch(FALSE_ALARMS)
    assert np.nanmax(scores) == 0  # below the false box's score
    assert np.isnan(scores[..., -1]).all()


@pytest.mark.parametrize("predictions", [NOTHING, FALSE_ALARMS], ids=["nothing", "false alarms"])
def test_a_fold_without_boxes_has_findings(predictions):
    findings = find_boxes(predictions, Postprocess())
    assert np.nanmax(findings.image_scores, initial=0) == 0
    assert [len(choose(findings, 9)) for choose in (missed_boxes, loosest_hits, best_hits)] == [
        0
    ] * 3
    assert len(worst_false_positives(findings, 9)) == len(predictions.scores)
    matches = match_predictions(predictions, nms=0.5)
    precision, recall = precision_recall(matches, np.array([0.0, 0.9]))
    assert np.isnan(recall).all()
    assert np.isnan(precision).tolist() == [len(predictions.scores) == 0, True]


def test_a_sweep_knows_whether_there_was_something_to_hit():
    without, with_boxes = make_sweep([[0.0, np.nan]]), make_sweep([[0.0, 0.0]])
    assert (without.has_true_boxes, with_boxes.has_true_boxes) == (False, True)
    assert without.best() is with_boxes.best() is None
    assert without.why_no_best() == "no image has true boxes, so there is nothing to score"
    assert with_boxes.why_no_best("epoch").startswith("no epoch scores above 0: no box hits")


def test_no_boxes_cover_nothing():
    assert not cover_shares(np.zeros((0, 4)), (8, 8)).any()
