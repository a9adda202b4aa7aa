"""What can be checked before the first image is predicted is checked before it."""

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from src import train_runner
from src.experiments.runs import Run
from src.prediction.predictions import load_predictions
from tests.dicom_files import write_dicom
from tests.made_predictions import make_sweep

PREDICT = ("--action", "generate_predictions", "--model", "demo", "--num-workers", "0")
GREY = np.random.default_rng(0).integers(0, 256, (64, 48)).astype(np.uint8)
SAMPLE = "stage_2_sample_submission.csv"


@pytest.fixture
def data(phantoms, tmp_path):
    """Return a data folder that may be changed."""
    return shutil.copytree(phantoms, tmp_path / "data")


@pytest.fixture
def run(talkative, tmp_path):
    """Return a run with two checkpoints; nothing is predicted yet."""
    made, source = (Run("demo", 0, "", place) for place in (tmp_path / "runs", talkative))
    for epoch in (0, 1):
        made.checkpoint_path(epoch).parent.mkdir(parents=True, exist_ok=True)
        made.checkpoint_path(epoch).hardlink_to(source.checkpoint_path(epoch))
    return made


@pytest.fixture
def predict(call_main, data, run):
    """Return a function that predicts and gives back what came of it."""

    def call(*flags):
        folders = ("--data-dir", data, "--output-dir", run.output_dir)
        return call_main(train_runner.main, *PREDICT, *folders, *flags)

    return call


@pytest.fixture
def refuse(predict, run, listing, monkeypatch):
    """Return a function that expects one line before any image is predicted, and no new file."""

    def predict_too_early(*_, **__):
        raise AssertionError("an image is predicted")

    def call(*flags, words):
        before = listing(run.output_dir)
        with monkeypatch.context() as patch:
            patch.setattr("src.prediction.inference.predict", predict_too_early)
            outcome = predict(*flags)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert words in outcome.err
        assert listing(run.output_dir) == before

    return call


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sample: sample + b"other,\n", "1 patients have no image, the first is other"),
        (lambda sample: sample[: sample.rindex(b"\n", 0, -1) + 1], "are not listed there"),
        (lambda sample: sample + sample.splitlines(keepends=True)[-1], "again"),
        (lambda sample: sample + b'"a,b",\n', "patientId 'a,b' holds a comma"),
        (lambda sample: b"id,text\na,\n", "has no column patientId, PredictionString"),
        (lambda sample: b"", "not a readable CSV file"),
        (lambda sample: b"\xff\xfe" + sample, "not a readable CSV file"),
    ],
)
def test_a_wrong_sample_submission_is_refused_first(data, refuse, change, words):
    edit(data / SAMPLE, change)
    for flags in ((), ("--folds", "0")):
        refuse("--split", "test", "--epoch", "0", *flags, words=words)


def test_a_byte_order_mark_of_the_sample_is_passed_over(data, predict, run):
    edit(data / SAMPLE, lambda sample: b"\xef\xbb\xbf" + sample)
    outcome = predict("--split", "test", "--epoch", "0")
    assert outcome.code == 0, outcome.err
    assert run.submission_path("test", 0).read_bytes().startswith(b"patientId,PredictionString\n")


def test_test_images_are_named_by_their_files_and_patients(data, predict, run):
    """An ensemble writes a table of boxes of them."""
    images = data / "stage_2_test_images"
    first = sorted(images.iterdir())[0]
    first.rename(first.with_suffix(".DCM"))
    outcome = predict("--split", "test", "--folds", "0", "--epochs", "0", "1")
    assert outcome.code == 0, outcome.err
    with (run.output_dir / "demo_ensemble" / "test" / "boxes.csv").open(newline="") as file:
        names = {(row["file"], row["patientId"]) for row in csv.DictReader(file)}
    assert names == {(path.name, path.stem) for path in images.iterdir()}


@pytest.mark.parametrize("patient", ["a,b", 'a"b', "a\nb", " a", "a\\b", "a\x1bb"])
def test_test_images_that_no_submission_can_name_are_refused_first(data, refuse, patient):
    write_dicom(data / "stage_2_test_images" / f"{patient}.dcm", GREY)
    (data / SAMPLE).unlink()
    refuse("--split", "test", "--epoch", "0", words=f"patientId {patient!r}")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("demo_fold_0/submission_test_000.csv/x", "a folder is in its place"),
        ("demo_fold_0/submission_test_000_made_by.json/x", "a folder is in its place"),
        ("demo_fold_0/predictions/test_000.npz/x", "a folder is in its place"),
        ("demo_fold_0/predictions", "cannot be filled"),
    ],
)
def test_places_in_a_run_that_cannot_be_written_are_refused_first(run, refuse, path, words):
    if path.endswith("/x"):
        (run.output_dir / path).mkdir(parents=True)
    else:
        (run.output_dir / path).write_text("in the way")
    refuse("--split", "test", "--epoch", "0", words=words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("000", "cannot be filled"),
        ("000/overlays", "cannot be filled"),
        ("000/boxes.csv/x", "a folder is in its place"),
        ("000/boxes_made_by.json/x", "a folder is in its place"),
        ("000/predictions.npz/x", "a folder is in its place"),
        ("000/experiment.json/x", "experiment.json"),
    ],
)
def test_places_in_a_folder_that_cannot_be_written_are_refused_first(
    data, run, refuse, path, words
):
    out = run.output_dir / "out"
    if path.endswith("/x"):
        (out / path).mkdir(parents=True)
    else:
        (out / path).parent.mkdir(parents=True)
        (out / path).write_text("in the way")
    images = ("--input", data / "stage_2_test_images", "--epoch", "0", "--overlays")
    refuse(*images, "--out", out, words=words)


def test_what_a_later_epoch_has_saved_is_checked_before_the_first_is_predicted(
    predict, run, refuse
):
    assert predict("--epoch", "1").code == 0
    path = run.predictions_path(1)
    saved = load_predictions(path)
    replace(saved, ids=np.char.add(saved.ids, "x")).save(path)
    refuse("--epoch", "0", "1", words=f"{path}: is of other images or labels; --overwrite")
    made_by = saved.provenance
    for other in (replace(made_by, epoch=7), replace(made_by, img_size=96)):
        replace(saved, provenance=other).save(path)
        refuse("--epoch", "0", "1", words=f"{path}: is of another network; --overwrite")


def test_predictions_are_of_the_images_and_labels_that_they_were_made_of(
    predict, run, refuse, data
):
    assert predict("--epoch", "1").code == 0
    path, labels = run.predictions_path(1), data / "stage_2_train_labels.csv"
    saved = load_predictions(path)
    assert "as they were predicted before" in predict("--epoch", "1").out
    patient = saved.ids[saved.truth().counts().argmax()]  # has an opacity
    rows = [row for row in labels.read_text().splitlines() if not row.startswith(patient)]
    labels.write_text("\n".join([*rows, f"{patient},1,2,30,40,1\n"]))
    refuse("--epoch", "1", words=f"{path}: is of other images or labels; --overwrite")
    make_sweep([[0.5]], epochs=(1,)).save(run.scores_path)
    (run.dir / "numbers.csv").write_text("of the old labels")
    assert predict("--epoch", "1", "--overwrite").code == 0
    assert not run.scores_path.exists()
    assert not (run.dir / "numbers.csv").exists()
    assert load_predictions(path).true_boxes_xyxy.tolist() != saved.true_boxes_xyxy.tolist()
    replace(saved, provenance=replace(saved.provenance, images=None)).save(path)
    assert predict("--epoch", "1").code == 0, "an older file does not say"


def test_a_test_image_that_was_replaced_is_predicted_again(predict, run, refuse, data):
    assert predict("--epoch", "1", "--split", "test").code == 0
    image = next((data / "stage_2_test_images").iterdir())
    write_dicom(image, GREY)
    path = run.test_predictions_path(1)
    refuse("--epoch", "1", "--split", "test", words=f"{path}: is of other images or labels")


def test_scores_of_another_network_go_with_its_predictions(predict, run):
    assert predict("--epoch", "1").code == 0
    path, sweep = run.predictions_path(1), make_sweep([[0.5]], epochs=(1,))
    sweep.save(run.scores_path)
    assert predict("--epoch", "1", "--overwrite").code == 0
    assert run.scores_path.exists(), "the same network: its scores still hold"
    assert predict("--epoch", "1", "--split", "test").code == 0
    assert predict("--epoch", "1", "--split", "test", "--overwrite").code == 0
    assert run.scores_path.exists(), "other images"
    saved = load_predictions(path)
    replace(saved, provenance=replace(saved.provenance, img_size=96)).save(path)
    assert predict("--epoch", "1", "--overwrite").code == 0
    assert not run.scores_path.exists()
    assert not run.scores_path.with_suffix(".csv").exists()
    sweep.save(run.scores_path)
    path.write_bytes(b"broken")
    assert predict("--epoch", "1", "--overwrite").code == 0
    assert not run.scores_path.exists()


def test_the_weights_of_every_epoch_are_looked_for_first(run, refuse):
    refuse("--epoch", "0", "5", words="005.safetensors: no such checkpoint")
    refuse("--epoch", "0", "5", "--split", "test", words="005.safetensors: no such checkpoint")


def test_results_by_another_size_rule_are_not_written_over_unless_told(data, predict, run):
    images = ("--input", data / "stage_2_test_images", "--out", run.output_dir / "out")
    flags = ("--epoch", "0", "--tta", "hflip", *images)
    assert predict(*flags).code == 0
    assert predict(*flags, "--threshold", "0.5").code == 0  # the same networks, other boxes count
    for other in (("--k", "1.5"), ("--combine", "mean"), ("--postprocess", "paper")):
        outcome = predict(*flags, *other)
        assert outcome.code == 2
        assert "holds what other networks found; --overwrite replaces it" in outcome.err
    assert predict(*flags, "--k", "1.5", "--overwrite").code == 0


def test_what_a_folder_holds_is_named_by_the_beginning_of_it(data, run, refuse):
    out = run.output_dir / "out" / "000"
    out.mkdir(parents=True)
    images = ("--input", data / "stage_2_test_images", "--epoch", "0", "--out", out.parent)
    for text in ("9" * 4000, '"' + "x" * 90_000 + '"', "[" * 500 + "]" * 500):
        (out / "experiment.json").write_text(f'{{"images": {text}}}')
        refuse(*images, words="holds what was found with images ")
