"""How results name files, patients and pictures, whatever these are called."""

import csv
import json
import warnings

import cv2
import numpy as np
import pandas as pd
import pytest

from src import submission, train_runner
from src.challenge.submission_check import check_submission
from src.prediction.predictions import load_predictions
from src.visualizations.overlays import FOUND_COLOUR, MAX_SIDE
from tests.dicom_files import write_dicom

PREDICT = ("--action", "generate_predictions", "--model", "demo", "--epoch", "1")
ALL = ("--threshold", "0.0001")
GREY = np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.uint8)


@pytest.fixture
def images(tmp_path):
    """Return a function that makes image files of some names, and gives back their folder."""

    def make(*names):
        for name in names:
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() == ".dcm":
                write_dicom(path, GREY)
            else:
                path.write_bytes(cv2.imencode(".png", GREY)[1].tobytes())
        return tmp_path / "images"

    return make


@pytest.fixture
def predict(call_main, talkative, tmp_path):
    """Return a function that predicts files, and gives back the folder of the results."""

    def call(place, *flags, says=""):
        out = tmp_path / f"out {len(list(tmp_path.iterdir()))}"
        folders = ("--output-dir", talkative, "--data-dir", tmp_path / "nowhere", "--out", out)
        arguments = (*PREDICT, "--input", place, *folders, "--num-workers", "0", *ALL, *flags)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            outcome = call_main(train_runner.main, *arguments)
        assert outcome.code == 0, outcome.err
        told_of_names = [
            str(one.message) for one in told if "makes no submission" in str(one.message)
        ]
        assert len(told_of_names) == bool(says)
        assert all(says in text for text in told_of_names)
        return out / "001"

    return call


def names_in(folder):
    """Return the patient of each file, as boxes.csv names both."""
    table = pd.read_csv(folder / "boxes.csv", dtype=str, keep_default_na=False)
    return dict(zip(table["file"], table["patientId"], strict=True))


def test_a_file_has_one_name_whatever_lies_beside_it(images, predict):
    place = images("dcm/img0.dcm")
    assert names_in(predict(place)) == {"dcm/img0.dcm": "img0"}
    assert names_in(predict(place / "dcm")) == {"img0.dcm": "img0"}
    assert names_in(predict(place / "dcm" / "img0.dcm")) == {"img0.dcm": "img0"}
    images("dcm/img1.dcm")
    assert names_in(predict(place)) == {"dcm/img0.dcm": "img0", "dcm/img1.dcm": "img1"}
    images("other/img0.dcm", "x.png", "no ending")
    assert names_in(predict(place)) == {
        "dcm/img0.dcm": "img0", "dcm/img1.dcm": "img1", "other/img0.dcm": "img0", "x.png": "",
        "no ending": "",
    }  # fmt: skip


HARD_NAMES = ["a,b.png", 'a"b.png', "a\nb.png", "a\rb.png", "a\r\nb", " a", "NA", "1e5",
              "null", "#a", "é.png", "a\\b", "a\x1b[2Jb", "=1+1", "\ufeffa", "a\u2028b",
              "tab\tb"]  # fmt: skip


def test_boxes_are_read_back_exactly_whatever_files_are_called(images, predict):
    out = predict(images(*HARD_NAMES, "p,1.dcm", "007.dcm"))
    expected = dict.fromkeys(HARD_NAMES, "") | {"p,1.dcm": "p,1", "007.dcm": "007"}
    assert names_in(out) == expected
    with (out / "boxes.csv").open(newline="", encoding="utf-8") as file:
        assert {row["file"]: row["patientId"] for row in csv.DictReader(file)} == expected
    assert sorted(load_predictions(out / "predictions.npz").ids) == sorted(expected)


def test_a_table_of_boxes_is_utf_8_in_any_locale(images, predict, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    monkeypatch.setattr("locale.getencoding", lambda: "ascii", raising=False)
    assert "é.png" in names_in(predict(images("é.png")))


def test_files_named_after_patients_become_a_submission(images, predict, tmp_path, call_main):
    out = predict(images("p1.dcm", "deep/p2.DCM"))
    assert check_submission(out / "submission.csv").faults == []
    rows = (out / "submission.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["patientId", "p2", "p1"]
    again = tmp_path / "again.csv"
    arguments = ("write", out / "predictions.npz", "--out", again, *ALL)
    assert call_main(submission.main, *arguments).code == 0
    assert again.read_bytes() == (out / "submission.csv").read_bytes()


@pytest.mark.parametrize(
    ("names", "fault", "is_told"),
    [
        (("p1.dcm", "p,2.dcm"), "patientId 'p,2' holds a comma", True),
        (("p1.dcm", 'p"2.dcm'), "patientId 'p\"2' holds a comma or a quotation mark", True),
        (("p1.dcm", "p\n2.dcm"), r"patientId 'p\n2' holds a line break", True),
        (("p1.dcm", "deep/p1.dcm"), "two images have the patientId 'p1'", True),
        (("p1.dcm", "x.png"), "patientId is empty", False),
    ],
)
def test_files_that_no_submission_can_name_become_none(
    images, predict, tmp_path, call_main, names, fault, is_told
):
    out = predict(images(*names), says=f"makes no submission.csv: {fault}" if is_told else "")
    assert not (out / "submission.csv").exists()
    assert len(names_in(out)) == 2
    arguments = ("write", out / "predictions.npz", "--out", tmp_path / "s.csv", *ALL)
    outcome = call_main(submission.main, *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "predictions.npz: makes no submission: " in outcome.err
    assert " ".join(fault.split()) in outcome.err
    assert not (tmp_path / "s.csv").exists()


def test_predictions_say_that_they_are_named_by_files(images, predict):
    path = predict(images("p1.dcm")) / "predictions.npz"
    assert load_predictions(path).provenance.named_by == "file"
    with np.load(path) as saved:
        assert json.loads(str(saved["header"]))["named_by"] == "file"


def pictures_in(out):
    place = out / "overlays"
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def test_pictures_have_safe_names_of_their_own(images, predict):
    long = "x" * 251 + ".png"
    place = images("a.dcm", "a.png", "x", "x.png/y.png", long, f"deep/{'é' * 127}", "a\nb.png")
    names = pictures_in(predict(place, "--overlays"))
    assert len(names) == 7
    assert {"a.dcm.png", "a.png.png", "x-2.png", "x.png/y.png.png", "a_b.png.png"} <= names
    assert all(name.isprintable() and len(name.encode()) < 240 for name in names)


@pytest.mark.parametrize(
    ("size", "expected"), [((1200, 400), (1200, 400)), ((1000, 4000), (384, MAX_SIDE))]
)
def test_pictures_keep_the_shape_of_the_file(predict, tmp_path, read_picture, size, expected):
    cv2.imwrite(str(tmp_path / "a.png"), np.full(size, 90, np.uint8))
    out = predict(tmp_path / "a.png", "--overlays")
    picture = read_picture(out / "overlays" / "a.png.png")
    height, width = expected
    assert picture.shape[1] == width
    assert 0 <= picture.shape[0] - height < 100  # the line of text
    table = pd.read_csv(out / "boxes.csv")
    orange = (np.abs(picture[:height].astype(int) - FOUND_COLOUR) < 40).all(axis=-1)
    best = table.iloc[int(table["score"].to_numpy().argmax())]
    scale = width / size[1]
    x, y, w, h = (round(best[name] * scale) for name in ("x", "y", "width", "height"))
    for row, column in ((y + h // 2, x), (y + h // 2, x + w), (y + h, x + w // 2)):
        near = orange[max(0, row - 4) : row + 4, max(0, column - 4) : column + 4]
        assert near.any()
