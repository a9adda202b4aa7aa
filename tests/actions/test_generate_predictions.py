"""A trained run over anybody's own files and the test images, alone and as an ensemble."""

import csv
import shutil

import cv2
import numpy as np
import pytest
import torch

from src import train_runner
from src.prediction.predictions import load_predictions
from src.radiographs.dicom import read_image

PREDICT = ("--action", "generate_predictions", "--model", "demo", "--num-workers", "0")
LOW = ("--threshold", "0.0001")


@pytest.fixture
def predict(call_main, talkative, phantoms, tmp_path):
    """Return a function that runs generate_predictions and gives back what it wrote."""

    def run(*flags, ok=True):
        out_dir = tmp_path / "out put"
        folders = ("--data-dir", phantoms, "--output-dir", talkative, "--out", out_dir)
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
    by_file = {name: [[*r.values()][2:] for r in rows if r["file"] == name] for name in
               ("x.dcm", "deep er/y.png")}  # fmt: skip
    assert by_file["x.dcm"] and by_file["x.dcm"] == by_file["deep er/y.png"]
    assert {r["file"]: r["patientId"] for r in rows} == {"x.dcm": "x", "deep er/y.png": ""}
    overlays = out_dir / "001" / "overlays"
    drawn = {path.relative_to(overlays).as_posix() for path in overlays.rglob("*.png")}
    assert drawn == {"x.dcm.png", "deep er/y.png.png"}


def test_boxes_are_in_the_pixels_of_each_file(predict, tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (300, 900)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), grey)
    _, out_dir = predict("--input", tmp_path / "wide.png", "--epoch", "1", *LOW)
    boxes = [[float(r[c]) for c in ("x", "y", "width", "height")] for r in
             rows_of(out_dir / "001" / "boxes.csv") if r["x"]]  # fmt: skip
    predictions = load_predictions(out_dir / "001" / "predictions.npz")
    assert predictions.image_sizes.tolist() == [[300, 900]]
    assert all(x + w <= 900.1 and y + h <= 300.1 for x, y, w, h in boxes)
    assert max(x + w for x, _, w, _ in boxes) > 600


def test_a_file_that_is_no_radiograph_is_named(predict, phantoms, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "notes.txt").write_text("notes")
    dicom = sorted((phantoms / "stage_2_test_images").iterdir())[0]
    (mixed / "x.dcm").write_bytes(dicom.read_bytes())
    outcome, out_dir = predict("--input", mixed, "--epoch", "1", ok=False)
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    assert "notes.txt" in last and "--skip-unreadable" in last
    assert not out_dir.exists()

    outcome, out_dir = predict("--input", mixed, "--epoch", "1", "--skip-unreadable")
    assert "skipped: " in outcome.err
    assert load_predictions(out_dir / "001" / "predictions.npz").ids.tolist() == ["x.dcm"]


def test_the_test_images_are_predicted_by_an_ensemble_with_mirrored_views(predict):
    outcome, out_dir = predict("--split", "test", "--epoch", "0", "1", "--tta", "hflip")
    assert "2 members: 3 images" in outcome.out
    made_by = load_predictions(out_dir / "predictions.npz").provenance
    assert [(network.fold, network.epoch) for network in made_by.networks] == [(0, 0), (0, 1)]
    assert made_by.hflip
    assert len(rows_of(out_dir / "submission.csv")) == 3


def test_files_named_after_patients_become_a_submission(predict, phantoms, tmp_path):
    _, out_dir = predict("--input", phantoms / "stage_2_test_images", "--epoch", "1", *LOW)
    strings = {r["patientId"]: r["PredictionString"] for r in
               rows_of(out_dir / "001" / "submission.csv")}  # fmt: skip
    boxes: dict[str, list[str]] = {name: [] for name in strings}
    for row in rows_of(out_dir / "001" / "boxes.csv"):
        assert row["file"] == f"{row['patientId']}.dcm"
        boxes[row["patientId"]] += [row[c] for c in ("score", "x", "y", "width", "height")]
    assert strings == {name: " ".join(numbers) for name, numbers in boxes.items()}
    assert any(strings.values())


def test_what_came_out_is_told_with_its_place(predict, phantoms):
    images = phantoms / "stage_2_test_images"
    outcome, out_dir = predict("--input", images, "--epoch", "0", "1", *LOW)
    lines = iter(outcome.out.splitlines())
    for epoch in (0, 1):
        rows = rows_of(out_dir / f"{epoch:03}" / "submission.csv")
        n_with_boxes = sum(bool(row["PredictionString"]) for row in rows)
        told = f"epoch {epoch}: 3 images, {n_with_boxes} with boxes at threshold 0.0001"
        assert [next(lines), next(lines)] == [told, str(out_dir / f"{epoch:03}")]
    assert list(lines) == []


def test_files_of_other_names_become_no_submission(predict, tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((300, 300), 90, np.uint8))
    nowhere = ("--data-dir", tmp_path / "nowhere")  # the challenge's data need not be there
    _, out_dir = predict("--input", tmp_path / "grey.png", "--epoch", "1", *nowhere)
    written = {path.name for path in (out_dir / "001").iterdir()}
    assert written == {"predictions.npz", "boxes.csv", "boxes_made_by.json", "experiment.json"}


def test_no_submission_is_left_of_images_that_lay_in_the_folder_before(predict, phantoms, tmp_path):
    images = shutil.copytree(phantoms / "stage_2_test_images", tmp_path / "images")
    flags = ("--input", images, "--epoch", "1")
    _, out_dir = predict(*flags)
    assert (out_dir / "001" / "submission.csv").exists()
    cv2.imwrite(str(images / "grey.png"), np.full((300, 300), 90, np.uint8))
    predict(*flags)
    assert not list((out_dir / "001").glob("submission*"))
    (out_dir / "001" / "submission.csv").write_text("my own")
    predict(*flags)
    assert (out_dir / "001" / "submission.csv").read_text() == "my own"


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--folds", "0", "--epoch", "1"), "--out needs --input"),
        (("--split", "test", "--folds", "0", "3", "--epoch", "1"), "no such checkpoint"),
        (("--split", "test", "--folds", "20"), "0 and 19"),
        (("--input", "nowhere", "--epoch", "1"), "no such file or folder"),
        (("--input", "nowhere", "--epoch", "1", "5"), "005.safetensors: no such checkpoint"),
        (("--split", "test", "--epoch", "1"), "--out needs --input"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(predict, flags, cause):
    outcome, _ = predict(*flags, ok=False)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert cause in outcome.err


def test_a_gpu_without_enough_memory_is_told_in_one_line(predict, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("src.prediction.inference.predict", fail)
    outcome, _ = predict(
        "--epoch", "0", "1", "--tta", "hflip", "--split", "test", "--batch-size", "6", ok=False
    )
    assert outcome.code == 2
    assert "memory is too small for 6 images of 192 px" in outcome.err
    assert "--batch-size" in outcome.err
