import csv
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from src.challenge.submission_check import check_submission
from src.challenge.submission_file import SubmissionError
from src.experiments.runs import Run
from src.experiments.table import EXPERIMENTS
from src.prediction.outputs import (
    describe_networks,
    place_in_folder,
    place_in_run,
    prediction_strings,
    write_boxes,
    write_prediction_experiment,
    write_provenance,
    write_submission,
)
from src.prediction.postprocess import choose_boxes, shrink_boxes
from src.prediction.presets import Postprocess
from src.prediction.provenance import Combination, Member, NetworkId, NetworkSet, Provenance
from tests import oracles
from tests.made_predictions import FILE_SIDE, random_predictions, three_boxes

IN_FILE = ((192, 192),) * 2  # sizes of files whose pixels are those of the input


def strings_of(predictions, postprocess=None, *, threshold=0.0, nms=1.0):
    postprocess = postprocess or Postprocess(threshold=threshold, nms=nms)
    return prediction_strings(predictions, choose_boxes(predictions, postprocess))


def save_submission(path, predictions, postprocess, **options):
    chosen = choose_boxes(predictions, postprocess)
    write_submission(path, predictions, chosen, path.with_name("p.npz"), **options)


def test_a_string_holds_confidence_x_y_width_height_of_each_box():
    assert strings_of(three_boxes(IN_FILE))["first"] == (
        "0.9000 16.0 32.0 32.0 64.0 0.8000 16.0 40.0 32.0 56.0 0.1235 100.0 0.0 60.1 192.0"
    )


def test_boxes_are_in_pixels_of_the_file():
    sizes = ((1920, 960), (192, 192))  # height, width: a factor of 10 down, of 5 across
    assert strings_of(three_boxes(sizes), nms=0.05)["first"].split()[:5] == [
        "0.9000", "80.0", "320.0", "160.0", "640.0"
    ]  # fmt: skip


def test_an_image_without_boxes_has_an_empty_string():
    assert strings_of(three_boxes())["second"] == ""


def test_a_box_counts_when_its_score_times_five_is_greater_than_the_threshold():
    predictions = three_boxes(scores=(0.75, 0.5, 0.25))
    assert len(strings_of(predictions, threshold=2.5)["first"].split()) == 5
    assert len(strings_of(predictions, threshold=2.4999)["first"].split()) == 10


def test_the_weaker_of_two_overlapping_boxes_goes():
    confidences = strings_of(three_boxes(), nms=0.5)["first"].split()[::5]
    assert confidences == ["0.9000", "0.1235"]


def test_strings_agree_with_the_plain_loops():
    predictions, postprocess = random_predictions(2, n_images=20), Postprocess(threshold=1.0)
    strings = strings_of(predictions, postprocess)
    assert list(strings) == predictions.ids.tolist()
    for image, patient in enumerate(predictions.ids):
        expected = []
        for row, box, _ in oracles.chosen_boxes(predictions, image, postprocess):
            in_file = [value * FILE_SIDE / predictions.img_size for value in box]
            expected += [float(predictions.scores[row]), *in_file]
        found = [float(number) for number in strings[patient].split()]
        np.testing.assert_allclose(found, expected, atol=0.0501)


def test_every_string_is_in_the_format_of_the_challenge():
    box = r"[01]\.\d{4}( \d+\.\d){4}"
    for text in strings_of(random_predictions(), nms=0.5).values():
        assert text == "" or re.fullmatch(f"{box}( {box})*", text)


def test_a_gate_can_be_chosen():
    predictions = replace(three_boxes(), class_probs=np.array([[0, 0.9, 0.1]] * 2, np.float32))
    strings = strings_of(predictions, Postprocess(threshold=0.5, gate="score_category"))
    assert strings["first"].split()[0::5] == ["0.9000"]  # .9 x .1 x 10 > .5; .12 x .1 x 10 < .5


def test_a_shrunk_box_keeps_its_centre():
    text = strings_of(three_boxes(IN_FILE), Postprocess(threshold=0.0, nms=0.5, shrink=0.5))
    assert text["first"].split()[:5] == ["0.9000", "24.0", "48.0", "16.0", "32.0"]


def test_shrinking_is_that_of_the_sweep_in_every_image():
    predictions = random_predictions(3)
    full = strings_of(predictions, nms=0.05)
    shrunk = strings_of(predictions, Postprocess(threshold=0.0, shrink=0.875))
    for patient, text in full.items():
        boxes = np.array(text.split(), float).reshape(-1, 5)
        found = np.array(shrunk[patient].split(), float).reshape(-1, 5)
        np.testing.assert_allclose(found[:, 1:], shrink_boxes(boxes[:, 1:], 0.875), atol=0.101)
        np.testing.assert_array_equal(found[:, 0], boxes[:, 0])


def test_a_submission_keeps_the_order_of_the_images(tmp_path):
    path = tmp_path / "new" / "submission.csv"
    save_submission(path, three_boxes(IN_FILE), Postprocess(threshold=4.2, nms=0.05))
    assert path.read_bytes() == (
        b"patientId,PredictionString\nfirst,0.9000 16.0 32.0 32.0 64.0\nsecond,\n"
    )


def test_a_submission_follows_the_order_of_the_sample(tmp_path):
    sample, path = tmp_path / "sample.csv", tmp_path / "submission.csv"
    sample.write_text("patientId,PredictionString\nsecond,\nfirst,0.5 0 0 100 100\n")
    save_submission(path, three_boxes(), Postprocess(threshold=9.0), sample_path=sample)
    assert path.read_bytes() == b"patientId,PredictionString\nsecond,\nfirst,\n"


def test_a_submission_that_fails_leaves_the_older_one(tmp_path):
    sample, path = tmp_path / "sample.csv", tmp_path / "submission.csv"
    sample.write_text("patientId,PredictionString\nfirst,\nother,\n")
    path.write_text("old")
    with pytest.raises(SubmissionError, match=r"sample\.csv: .*other"):
        save_submission(path, three_boxes(), Postprocess(), sample_path=sample)
    assert path.read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {sample.name, path.name}


def test_what_is_written_passes_the_check(tmp_path):
    predictions = random_predictions(5, n_images=40)
    path = tmp_path / "own.csv"
    for shrink in (1.0, 0.875):
        save_submission(path, predictions, Postprocess(threshold=0.0, nms=0.5, shrink=shrink))
        parsed = check_submission(path, path)
        assert parsed.faults == []
        assert sum(map(len, parsed.boxes.values())) > 40


def test_a_table_of_boxes_has_a_row_for_each_box_and_for_an_image_without(tmp_path):
    path = tmp_path / "boxes.csv"
    probs = np.array([[0.25, 0.5, 0.25], [0, 0.125, 0.875]], np.float32)
    predictions = replace(three_boxes(IN_FILE), class_probs=probs)
    chosen = choose_boxes(predictions, Postprocess(threshold=0.0, nms=0.5))
    files = ["first.dcm", "second.dcm"]
    write_boxes(path, predictions, chosen, tmp_path / "p.npz", files=files)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    own = ["0.2500", "0.5000", "0.2500"]
    assert rows == [
        ["file", "patientId", "x", "y", "width", "height", "score",
         "P(No Lung Opacity / Not Normal)", "P(Normal)", "P(Lung Opacity)"],
        ["first.dcm", "first", "16.0", "32.0", "32.0", "64.0", "0.9000", *own],
        ["first.dcm", "first", "100.0", "0.0", "60.1", "192.0", "0.1235", *own],
        ["second.dcm", "second", "", "", "", "", "", "0.0000", "0.1250", "0.8750"],
    ]  # fmt: skip
    assert json.loads((tmp_path / "boxes_made_by.json").read_text())["predictions"] == "p.npz"


ENSEMBLE = Provenance(
    img_size=192,
    model="demo+other",
    tag="ensemble",
    ensemble=Combination(
        members=(
            NetworkId(model="demo", tag="", fold=0, epoch=3, weight=0.75),
            NetworkId(model="other", tag="", fold=0, epoch=2, weight=0.25),
        ),
        hflip=True,
        size_rule="percentile",
        k=1.6,
    ),
)


def test_provenance_names_file_networks_and_settings(tmp_path):
    postprocess = Postprocess(threshold=0.7, threshold_from="check_metric, epoch 3", shrink=0.9)
    npz_path = tmp_path / "predictions" / "003.npz"
    provenance = random_predictions(epoch=3).provenance
    write_provenance(tmp_path / "a.csv", provenance, postprocess, npz_path)
    assert json.loads((tmp_path / "a_made_by.json").read_text()) == {
        "predictions": "predictions/003.npz",
        "members": [{"model": "demo", "tag": "", "fold": 0, "epoch": 3, "weight": 1.0}],
        "hflip": False,
        "postprocess": asdict(postprocess),
    }


def test_the_networks_of_an_ensemble_are_described_with_their_weights():
    assert describe_networks(ENSEMBLE) == {
        "members": [
            {"model": "demo", "tag": "", "fold": 0, "epoch": 3, "weight": 0.75},
            {"model": "other", "tag": "", "fold": 0, "epoch": 2, "weight": 0.25},
        ],
        "hflip": True,
    }


def test_experiment_json_tells_networks_settings_and_images(tmp_path):
    place, postprocess = place_in_folder(tmp_path), Postprocess(threshold=0.7)
    write_prediction_experiment(place, ENSEMBLE, postprocess, Path("/data/images"))
    content = json.loads((tmp_path / "experiment.json").read_text())
    expected = {
        "model": "demo+other", "tag": "ensemble", "fold": None, "images": "/data/images",
        "postprocess": asdict(postprocess), **describe_networks(ENSEMBLE),
    }  # fmt: skip
    assert content | expected == content
    assert {"command", "versions"} <= set(content)


def networks(*epochs, hflip=False):
    run = Run("demo", 1, "", Path("output"))
    members = tuple(
        Member(run=run, experiment=EXPERIMENTS["demo"], epoch=e, path=run.checkpoint_path(e))
        for e in epochs
    )
    return NetworkSet(members=members, hflip=hflip)


@pytest.mark.parametrize(
    ("split", "predictions", "submission"),
    [
        ("valid", "predictions/007.npz", "submission_valid_007.csv"),
        ("test", "predictions/test_007.npz", "submission_test_007.csv"),
    ],
)
def test_a_split_has_its_place_in_the_run(split, predictions, submission):
    for own, name in ((networks(7), "demo_fold_1"), (networks(3, 7), "demo_ensemble_fold_1")):
        place = place_in_run(own, split)
        assert place.folder == Path("output", name)
        assert place.predictions == place.folder / predictions
        assert place.submission == place.folder / submission
        assert place.experiment == place.folder / "experiment.json"
        assert place.is_run
        assert place.boxes is None


def test_a_folder_of_results_holds_all_of_them():
    place = place_in_folder(Path("out"))
    names = {path.name for path in (place.predictions, place.submission, place.boxes or Path(),
                                    place.experiment, place.overlays)}  # fmt: skip
    assert names == {"predictions.npz", "submission.csv", "boxes.csv", "experiment.json",
                     "overlays"}  # fmt: skip
    assert not place.is_run
