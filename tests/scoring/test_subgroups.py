"""Numbers of parts of the images."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from src.metric import image_scores
from src.prediction.postprocess import choose_boxes, gate_scores
from src.prediction.predictions import take_images
from src.prediction.presets import Postprocess
from src.scoring.number_tables import describe_groups, write_group_numbers
from src.scoring.quoted_numbers import compute_numbers
from src.scoring.scored_images import scored_predictions
from src.scoring.subgroups import UNKNOWN, group_numbers, take_scored
from src.scoring.sweep import Choice, ScoresError
from tests import oracles
from tests.made_predictions import make_predictions, random_predictions, with_weak_boxes

SETTING = Postprocess(nms=0.3, threshold=0.5, shrink=0.9)
PREDICTIONS = with_weak_boxes(random_predictions(5, n_images=80))
DATA = scored_predictions(PREDICTIONS, SETTING)
SCORES = image_scores(choose_boxes(PREDICTIONS, SETTING).boxes, PREDICTIONS.truth())


def values_of(results):
    return {(one.name, one.image_score): tuple(one[2:5]) for one in results}


def test_some_images_have_the_numbers_of_predictions_of_these_alone():
    rows = np.array([3, 7, 11, 12, 40, 41, 42, 60])
    alone = scored_predictions(take_images(PREDICTIONS, rows.tolist()), SETTING)
    ours, expected = (compute_numbers(each, 20) for each in (take_scored(DATA, rows), alone))
    for key, values in values_of(ours).items():
        np.testing.assert_array_equal(values, values_of(expected)[key])


def test_groups_are_those_of_the_table_and_the_rest_is_unknown():
    names = {image: "AP" if i % 3 else "PA" for i, image in enumerate(DATA.ids) if i < 70}
    names["another patient"], names[DATA.ids[0]] = "LAT", ""
    groups = list(group_numbers(DATA, SCORES, {"view": names}, n_draws=20))
    assert [(group.column, group.name) for group in groups] == [
        ("view", "AP"), ("view", "PA"), ("view", UNKNOWN)
    ]  # fmt: skip
    assert [group.n_images for group in groups] == [46, 23, 11]
    assert sum(group.n_opacities for group in groups) == DATA.has_opacity.sum()
    assert [group.is_small for group in groups] == [False, True, True]
    rows = [i for i, image in enumerate(DATA.ids) if names.get(image) == "AP"]
    of_ap = values_of(groups[0].results)
    expected = values_of(compute_numbers(take_scored(DATA, np.array(rows)), 20))
    np.testing.assert_array_equal(of_ap["ap_50", ""], expected["ap_50", ""])
    assert of_ap["score", ""][0] == pytest.approx(np.nanmean(SCORES[rows]))


def test_groups_are_written_with_their_counts_and_told(tmp_path):
    names = {image: "AP" if i % 2 else "PA" for i, image in enumerate(DATA.ids)}
    groups = list(group_numbers(DATA, SCORES, {"view": names}, n_draws=5))
    write_group_numbers(tmp_path / "groups.csv", groups, Choice(3, None))
    with (tmp_path / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(groups[0].results)
    assert {(row["epoch"], row["gate"], row["threshold"]) for row in rows} == {
        ("3", "score", "0.3")
    }
    assert rows[0]["column"] == "view" and rows[0]["group"] == "AP" and rows[0]["images"] == "40"
    assert float(rows[0]["value"]) == pytest.approx(groups[0].results[0].value, abs=1e-6)
    lines = list(describe_groups(groups))
    assert lines[0].startswith(f"view AP: 40 images, {groups[0].n_opacities} with an opacity")
    assert ("small" in lines[0]) == groups[0].is_small


def test_a_table_of_other_images_is_refused():
    table = {"view": {f"0{image}": "AP" for image in DATA.ids}}
    with pytest.raises(ScoresError, match=f"names none of the images, {DATA.ids[0]} among them"):
        list(group_numbers(DATA, SCORES, table))


def test_a_group_without_an_image_that_counts_has_no_score():
    predictions = with_weak_boxes(make_predictions(([], []), ([], [])))
    data = scored_predictions(predictions, SETTING)
    (group,) = group_numbers(data, np.full(2, np.nan), {"view": {data.ids[0]: ""}}, n_draws=5)
    assert np.isnan(group.results[0].value)
    assert len(list(describe_groups([group]))) < len(group.results)


def test_predictions_are_ranked_by_the_gate_after_the_suppression_of_all_boxes():
    setting = replace(SETTING, gate="score_category", shrink=1.0)
    data = scored_predictions(PREDICTIONS, setting)
    gates = gate_scores(PREDICTIONS, "score_category")
    boxes, scores = PREDICTIONS.with_weak().candidates(), PREDICTIONS.with_weak().scores
    for image in range(len(PREDICTIONS)):
        own = slice(*boxes.offsets[image : image + 2].tolist())
        xyxy = np.hstack([boxes.xywh[own, :2], boxes.xywh[own, :2] + boxes.xywh[own, 2:]])
        kept = oracles.nms(xyxy, scores[own], setting.nms)
        its = slice(*data.predicted.offsets[image : image + 2].tolist())
        np.testing.assert_array_equal(data.predicted.xywh[its], boxes.xywh[own][kept])
        n_candidates = len(PREDICTIONS.scores[PREDICTIONS.candidates_of(image)])
        strong = [row for row in kept if row < n_candidates]
        expected = gates[PREDICTIONS.candidates_of(image)][strong]
        np.testing.assert_allclose(data.scores[its][: len(strong)], expected, rtol=1e-12)
        best = scores[own][0] if len(kept) else 0.0
        assert data.image_scores["best box"][image] == best


def test_predictions_without_weaker_boxes_give_no_average_precision_but_the_rest():
    data = scored_predictions(random_predictions(5, n_images=40), SETTING)
    assert not data.is_complete
    values = values_of(compute_numbers(data, 5))
    assert all(np.isnan(own[0]) == (score == "") for (_, score), own in values.items())
