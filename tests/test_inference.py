"""A trained run over anybody's own files, alone and as an ensemble."""

import csv

import cv2
import numpy as np
import pytest

from src import train_runner
from src.datasets.dicom import read_image
from src.predictions import load_predictions

PREDICT = ("--action", "generate_predictions", "--model", "demo", "--num-workers", "0")
LOW = ("--threshold", "0.0001")


@pytest.fixture
def predict(call_main, trained, phantoms, tmp_path):
    """Return a function that runs generate_predictions and gives back what it wrote."""

    def run(*flags, ok=True):
        out_dir = tmp_path / "out put"
        folders = ("--data-dir", phantoms, "--output-dir", trained.output_dir, "--out", out_dir)
        outcome = call_main(train_runner.main, *PREDICT, *folders, *flags)
        assert not ok or outcome.code == 0, outcome.err
        return outcome, out_dir

    return run


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_picture_gives_what_its_dicom_file_gives(predict, phantoms, tmp_path):
    dicom = sorted((phantoms / "stage_2_test_images").iterdir())[0]
    mixed = tmp_path / "mixed files"
    (mixed / "deep er").mkdir(parents=True)
    (mixed / "x.dcm").write_bytes(dicom.read_bytes())
    cv2.imwrite(str(mixed / "deep er" / "y.png"), np.rint(read_image(dicom) * 255))
    _, out_dir = predict("--input", mixed, "--epoch", "1", *LOW, "--overlays")
    rows = rows_of(out_dir / "001" / "boxes.csv")
    by_file = {name: [[*r.values()][1:] for r in rows if r["file"] == name] for name in
               ("x.dcm", "deep er/y.png")}  # fmt: skip
    assert by_file["x.dcm"] and by_file["x.dcm"] == by_file["deep er/y.png"]
    drawn = {path.name for path in (out_dir / "001" / "overlays").iterdir()}
    assert drawn == {"x.dcm.png", "deep er_y.png.png"}


def test_boxes_are_in_the_pixels_of_each_file(predict, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (300, 900)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), grey)
    _, out_dir = predict("--input", tmp_path / "wide.png", "--epoch", "1", *LOW)
    boxes = [[float(r[c]) for c in ("x", "y", "width", "height")] for r in
             rows_of(out_dir / "001" / "boxes.csv") if r["x"]]  # fmt: skip
    predictions = load_predictions(out_dir / "001" / "predictions.npz")
    assert predictions.image_sizes.tolist() == [[300, 900]]
    assert all(x + w <= 900.1 and y + h <= 300.1 for x, y, w, h in boxes)


def test_results_do_not_depend_on_batch_size_or_workers(predict, phantoms):
    images = phantoms / "stage_2_train_images"
    found = []
    for flags in (("--batch-size", "1"), ("--batch-size", "7", "--num-workers", "2")):
        _, out_dir = predict("--input", images, "--epoch", "1", *flags)
        found.append(load_predictions(out_dir / "001" / "predictions.npz"))
    assert found[0].ids.tolist() == found[1].ids.tolist()
    np.testing.assert_allclose(found[0].class_probs, found[1].class_probs, atol=1e-5)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-5)


def test_a_file_that_is_no_radiograph_is_named(predict, phantoms, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "notes.txt").write_text("notes")
    dicom = sorted((phantoms / "stage_2_test_images").iterdir())[0]
    (mixed / "x.dcm").write_bytes(dicom.read_bytes())
    outcome, out_dir = predict("--input", mixed, "--epoch", "1", ok=False)
    assert outcome.code == 2
    assert "notes.txt" in outcome.err.splitlines()[-1]
    assert not out_dir.exists()

    outcome, out_dir = predict("--input", mixed, "--epoch", "1", "--skip-unreadable")
    assert "skipped: " in outcome.err
    assert load_predictions(out_dir / "001" / "predictions.npz").ids.tolist() == ["x.dcm"]


def test_an_ensemble_of_one_gives_what_the_model_gives(predict, phantoms):
    images = phantoms / "stage_2_test_images"
    _, out_dir = predict("--input", images, "--epoch", "1", *LOW)
    alone = (out_dir / "001" / "boxes.csv").read_text()
    _, out_dir = predict("--input", images, "--epoch", "1", "--folds", "0", *LOW)
    assert (out_dir / "boxes.csv").read_text() == alone


def test_an_ensemble_joins_epochs_and_says_so(predict):
    outcome, out_dir = predict(
        "--split", "test", "--folds", "0", "--epoch", "0", "1", "--tta", "hflip"
    )
    assert "2 members" in outcome.out
    described = load_predictions(out_dir / "predictions.npz").header["ensemble"]
    assert described["members"] == [[0, 0], [0, 1]]
    assert described["hflip"] is True
    assert len(rows_of(out_dir / "submission.csv")) == 3


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--folds", "0", "--epoch", "1"), "need --split test"),
        (("--split", "test", "--folds", "0", "3", "--epoch", "1"), "no such checkpoint"),
        (("--split", "test", "--folds", "7"), "folds 0 to 3"),
        (("--input", "nowhere", "--epoch", "1"), "no such file or folder"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(predict, flags, cause):
    outcome, _ = predict(*flags, ok=False)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert cause in outcome.err
