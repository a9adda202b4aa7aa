"""Predictions as COCO results, and any COCO results as a submission."""

import contextlib
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from src import submission
from src.challenge.leaderboard import score_submission
from src.challenge.submission_file import read_submission
from tests.made_predictions import FILE_SIDE, random_predictions

N_IMAGES = 8
THRESHOLD = ("--threshold", "0.5")


def annotations(predictions):
    """Return the truth of predictions as a COCO file; ids are not the order of the images."""
    images: list[Any] = []
    boxes: list[Any] = []
    for index, patient in enumerate(predictions.patient_ids):
        image = {"id": 900 - index, "file_name": f"{patient}.png"}
        images.append(image | {"width": FILE_SIDE, "height": FILE_SIDE})
        true = predictions.true_boxes_xyxy[predictions.truth_of(index)]
        for x, y, x2, y2 in predictions.in_file_pixels(index, true).tolist():
            boxes.append({"id": len(boxes) + 1, "image_id": 900 - index, "category_id": 3,
                          "bbox": [x, y, x2 - x, y2 - y], "area": (x2 - x) * (y2 - y),
                          "iscrowd": 0})  # fmt: skip
    return {"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "opacity"}]}


@pytest.fixture
def place(tmp_path):
    """Make a folder with predictions, and with their truth as COCO's and as the challenge's."""
    predictions = random_predictions(4, n_images=N_IMAGES)
    predictions.save(tmp_path / "p.npz")
    truth = annotations(predictions)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    names = {image["id"]: image["file_name"][:-4] for image in truth["images"]}
    boxed = {each["image_id"] for each in truth["annotations"]}
    rows = [",".join(map(str, [names[each["image_id"]], *each["bbox"], 1]))
            for each in truth["annotations"]]  # fmt: skip
    rows += [f"{name},,,,,0" for key, name in names.items() if key not in boxed]
    text = "\n".join(["patientId,x,y,width,height,Target", *rows])
    (tmp_path / "labels.csv").write_text(text)
    sample = [f"{name}," for name in sorted(names.values())]
    (tmp_path / "sample.csv").write_text("\n".join(["patientId,PredictionString", *sample]))
    return tmp_path


@pytest.fixture
def run(place, call_main):
    """Return a function that runs submission.py; by default it must work."""

    def call(*words, ok=True):
        outcome = call_main(submission.main, *words)
        assert outcome.code == (0 if ok else 2), outcome
        assert ok or (outcome.err.startswith("error: ") and outcome.err.count("\n") == 1)
        return outcome

    return call


def write_results(run, place, *flags):
    out = place / "results.json"
    run("coco", place / "p.npz", "--out", out, *THRESHOLD, *flags)
    return out


def test_faster_coco_eval_reads_the_results(place, run):
    library = pytest.importorskip("faster_coco_eval")
    flags = ("--images", place / "truth.json", "--category-id", "3")
    out = write_results(run, place, *flags)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = library.COCO(str(place / "truth.json"))
        found = truth.loadRes(str(out))
        evaluation = library.COCOeval_faster(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert len(found.anns) == len(json.loads(out.read_text()))
    assert 0.1 < evaluation.stats[1] <= 1  # average precision at IoU .5: some boxes are hits


@pytest.mark.parametrize("with_images", [True, False])
def test_results_come_back_as_the_same_submission(place, run, with_images):
    flags = ("--images", place / "truth.json") if with_images else ()
    out = write_results(run, place, *flags)
    run("write", place / "p.npz", "--out", place / "direct.csv", *THRESHOLD)
    sample = ("--sample", place / "sample.csv")
    run("from-coco", out, "--out", place / "back.csv", *(flags or sample))
    direct, back = read_submission(place / "direct.csv"), read_submission(place / "back.csv")
    assert any(direct.values())
    assert back.keys() == direct.keys()
    for patient, boxes in direct.items():
        np.testing.assert_allclose(back[patient], boxes, atol=0.051)
    own, theirs = (score_submission(place / name, place / "labels.csv").score
                   for name in ("direct.csv", "back.csv"))  # fmt: skip
    assert own == pytest.approx(theirs, abs=0.01)


def test_images_that_are_files_keep_their_names(place, run):
    predictions = random_predictions(4, n_images=N_IMAGES)
    names = np.array([f"folder/{patient}.png" for patient in predictions.ids])
    made_by = replace(predictions.provenance, named_by="file")
    replace(predictions, ids=names, provenance=made_by).save(place / "p.npz")
    out = write_results(run, place)
    assert {each["image_id"] for each in json.loads(out.read_text())} <= set(names.tolist())
    truth = json.loads((place / "truth.json").read_text())
    for image in truth["images"]:
        image["file_name"] = f"folder/{image['file_name']}"
    (place / "truth.json").write_text(json.dumps(truth))
    out = write_results(run, place, "--images", place / "truth.json")
    keys = {image["id"] for image in truth["images"]}
    assert {each["image_id"] for each in json.loads(out.read_text())} <= keys


def test_results_say_beside_where_they_come_from(place, run):
    write_results(run, place)
    made_by = json.loads((place / "results_made_by.json").read_text())
    assert made_by["predictions"] == "p.npz"
    assert made_by["postprocess"]["threshold"] == 0.5


def test_a_perfect_detector_scores_one(place, run):
    truth = json.loads((place / "truth.json").read_text())
    perfect = [{**each, "score": 0.9} for each in truth["annotations"]]
    weak = {"image_id": 900, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.1}
    other = weak | {"category_id": 4, "score": 0.95}
    (place / "r.json").write_text(json.dumps([*perfect, weak, other]))
    run("from-coco", place / "r.json", "--out", place / "s.csv", "--images", place / "truth.json",
        "--threshold", "0.2", "--category-ids", "3")  # fmt: skip
    assert len(read_submission(place / "s.csv")) == N_IMAGES
    assert score_submission(place / "s.csv", place / "labels.csv").score == 1


def test_file_names_are_ids_and_boxes_are_cut_to_their_image(place, run):
    images = {"images": [{"id": "a b.png", "width": 50, "height": 40}, {"id": "c.dcm"}]}
    (place / "images.json").write_text(json.dumps(images))
    result = {"image_id": "a b.png", "category_id": 1, "bbox": [-5, 10, 100, 100], "score": 0.5}
    outside = result | {"bbox": [60, 0, 9, 9]}
    (place / "r.json").write_text(json.dumps([result, outside]))
    run("from-coco", place / "r.json", "--out", place / "s.csv", "--images", place / "images.json")
    text = (place / "s.csv").read_text()
    assert text == "patientId,PredictionString\na b,0.5000 0.0 10.0 50.0 30.0\nc,\n"


RESULT = {"image_id": 900, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": []}, "COCO results are a list"),
        ([5], "result 0: 5 is not an object"),
        ([RESULT, RESULT | {"image_id": 7}], "result 1: image 7 is not in the COCO file"),
        ([RESULT | {"image_id": None}], "None is not an id"),
        ([RESULT | {"image_id": [1]}], "[1] is not an id"),
        ([RESULT | {"bbox": [1, 2, 3]}], "bbox [1, 2, 3] is not x, y, w, h"),
        ([RESULT | {"bbox": [1, 2, -3, 4]}], "bbox [1, 2, -3, 4] is not x, y, w, h"),
        ([RESULT | {"bbox": [1, 2, 3, 10**400]}], "is not x, y, w, h"),
        ([RESULT | {"score": 2}], "score 2 is not between 0 and 1"),
        ([RESULT | {"score": float("nan")}], "score nan is not between 0 and 1"),
        ([{}], "None is not an id"),
    ],
)
def test_wrong_results_are_refused_in_one_line(place, run, content, words):
    (place / "r.json").write_text(json.dumps(content))
    flags = ("--images", place / "truth.json")
    outcome = run("from-coco", place / "r.json", "--out", place / "s.csv", *flags, ok=False)
    assert str(place / "r.json") in outcome.err
    assert words in outcome.err
    assert not (place / "s.csv").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "needs --images or --sample"),
        (("--sample", "sample.csv"), "1 patients are not listed there, the first is 900"),
        (("--images", "labels.csv"), "labels.csv: not a readable JSON file"),
        (("--images", "none.json"), "none.json: cannot be read"),
    ],
)
def test_results_need_the_right_images(place, run, monkeypatch, flags, words):
    monkeypatch.chdir(place)
    (place / "r.json").write_text(json.dumps([RESULT]))
    assert words in run("from-coco", "r.json", "--out", "s.csv", *flags, ok=False).err


def test_coco_needs_its_images_in_the_file(place, run):
    content = json.loads((place / "truth.json").read_text())
    content["images"].pop()
    (place / "truth.json").write_text(json.dumps(content))
    flags = ("--images", place / "truth.json", *THRESHOLD)
    outcome = run("coco", place / "p.npz", "--out", place / "r.json", *flags, ok=False)
    assert "image 'patient-7' is not in the COCO file" in outcome.err


def test_coco_results_are_json(place, run):
    outcome = run("coco", place / "p.npz", "--out", place / "r.csv", *THRESHOLD, ok=False)
    assert "r.csv: does not end in .json" in outcome.err
