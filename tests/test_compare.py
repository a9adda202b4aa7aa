import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from src.challenge.leaderboard import score_submission
from src.compare import main
from src.prediction.predictions import take_images
from src.scoring.compared_runs import are_same_boxes, read_run
from src.scoring.comparison import LEVEL
from src.scoring.grid import sweep_pooled
from src.scoring.quoted_numbers import compute_numbers
from src.visualizations.overlays import FOUND_COLOUR, TRUE_COLOUR
from tests.datasets.test_annotations import LABELS_HEADER
from tests.made_predictions import (
    FILE_SIDE,
    make_predictions,
    make_sweep,
    random_predictions,
    save_epoch,
    with_weak_boxes,
)
from tests.submission_files import HEADER

QUICK = ("--draws", "100")
FILES = {"comparison.csv", "images.csv", "compare.json", "forest.png", "forest.pdf"}
BOX, FAR = [20, 20, 80, 80], [100, 100, 150, 150]


def worse(predictions, shift):
    """The same images and truth with boxes that lie beside."""
    return replace(predictions, boxes_xyxy=predictions.boxes_xyxy + np.float32(shift))


def at_size(predictions, img_size):
    """The same boxes as a network with another input size would save them."""
    scale = np.float32(img_size / predictions.img_size)
    boxes = {
        name: getattr(predictions, name) * scale
        for name in ("boxes_xyxy", "weak_boxes_xyxy", "true_boxes_xyxy")
    }
    return replace(
        predictions, **boxes, provenance=replace(predictions.provenance, img_size=img_size)
    )


@pytest.fixture
def good():
    return with_weak_boxes(random_predictions(3, n_images=40))


@pytest.fixture
def save(tmp_path):
    """Return a function that saves predictions as a run, and returns its folder."""

    def call(name, predictions):
        run_dir = tmp_path / "output" / f"{name}_fold_0"
        save_epoch(run_dir, predictions)
        return run_dir

    return call


@pytest.fixture
def compare(call_main, tmp_path):
    """Return a function that compares runs, and reads what was written."""

    def call(*words):
        out = tmp_path / "compared"
        outcome = call_main(main, *words, "--out", out, *QUICK)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out, read_table(out / "comparison.csv"), read_table(out / "images.csv")

    return call


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_labels(path, truth):
    """Write the labels of images, each the id and its boxes xywh."""
    rows = [f"{name},,,,,0" for name, boxes in truth.items() if not len(boxes)]
    rows += [
        f"{name},{','.join(map(repr, map(float, box)))},1"
        for name, boxes in truth.items()
        for box in boxes
    ]
    path.write_text("\n".join([LABELS_HEADER, *rows]) + "\n")
    return path


def write_submission(path, found):
    rows = [
        f"{name}," + " ".join(f"{score} {x} {y} {w} {h}" for (x, y, w, h), score in boxes)
        for name, boxes in found.items()
    ]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


# Runs


def test_two_runs_are_compared_by_every_number(good, save, compare, tmp_path):
    a, b = save("a", good), save("b", worse(good, 9))
    said, rows, images = compare(a, b)
    assert {path.name for path in (tmp_path / "compared").iterdir()} == FILES
    assert list(rows[0]) == [
        *("number", "run_a", "run_b", "value_a", "value_b", "difference", "low", "high", "p"),
        *("p_holm", "test"),
    ]
    score = rows[0]
    assert (score["number"], score["run_a"], score["run_b"]) == ("score", str(a), str(b))
    assert float(score["value_a"]) > float(score["value_b"])
    assert float(score["low"]) < float(score["difference"]) < float(score["high"])
    assert float(score["p"]) <= LEVEL
    quoted = compute_numbers(read_run(a).run.data, 0)
    assert [float(row["value_a"]) for row in rows[1:]] == pytest.approx(
        [each.value for each in quoted], abs=1e-5
    )
    line = next(line for line in said.splitlines() if line.startswith("score "))
    assert line.endswith("A is better")
    wins = [sum(row["better"] == str(run) for row in images) for run in (a, b)]
    text = f"A is better in {wins[0]}, B in {wins[1]}, equal in {40 - sum(wins)}"
    assert text in said and len(images) == 40 and wins[0] > wins[1]
    sizes = [abs(float(row["difference"])) for row in images]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0


def test_a_run_does_not_differ_from_itself(good, save, compare):
    run_dir = save("a", good)
    said, rows, images = compare(run_dir, run_dir)
    assert {row["p"] for row in rows} == {"1"}
    assert "is better" not in said.replace("A is better in 0", "")
    assert {row["better"] for row in images} == {""}


def test_the_best_epoch_and_setting_are_compared(good, save, compare):
    a = save("a", good)
    later = replace(worse(good, 30), provenance=replace(good.provenance, epoch=1))
    save("a", later)
    other = save("b", good)
    sweep = make_sweep([[0.1, 0.2, 0.3], [0.1, 0.1, 0.1]], thresholds=(0.1, 0.3, 2.0))
    said, rows, _ = compare(a, other)
    assert "a_fold_0, epoch 1, gate score > 0.3" in said
    assert "the best of those that were tried" not in said
    assert float(rows[0]["difference"]) < 0
    sweep.save(a / "scores.npz")
    said, rows, _ = compare(a, other)
    assert "a_fold_0, epoch 0, gate score > 2," in said
    assert "A: epoch and setting are the best of those that were tried on these images" in said
    assert float(rows[0]["value_b"]) != float(rows[0]["value_a"])


@pytest.mark.parametrize("img_size", [192, 608])
def test_images_in_another_order_and_size_are_the_same_images(good, save, compare, img_size):
    other = at_size(worse(good, 9), img_size)
    mixed = take_images(other, np.random.default_rng(0).permutation(40).tolist())
    _, expected, in_order = compare(save("a", good), save("b", worse(good, 9)))
    _, rows, images = compare(save("a", good), save("b", mixed))
    for row, known in zip(rows, expected, strict=True):
        assert float(row["value_b"]) == pytest.approx(float(known["value_b"]), abs=1e-3)
        assert float(row["p"]) == pytest.approx(float(known["p"]), abs=0.05)
    scores = [{row["patientId"]: row["score_b"] for row in table} for table in (in_order, images)]
    assert scores[0] == scores[1]


def test_padded_and_cut_inputs_are_compared_in_pixels_of_the_files(good, save, compare):
    inner = make_predictions(([BOX], [(BOX, 0.9)]), ([], []))
    crop = FILE_SIDE // 2  # its input shows the middle at twice the scale
    in_crop = [2 * value - 96 for value in BOX]
    outer = make_predictions(([in_crop], [(in_crop, 0.9)]), ([], []))
    outer = replace(outer, provenance=replace(outer.provenance, source_crop=crop))
    _, rows, _ = compare(save("a", inner), save("b", outer))
    assert (rows[0]["value_a"], rows[0]["difference"]) == ("1", "0")


def test_three_runs_are_three_pairs_with_corrected_p_values(good, save, compare, tmp_path):
    a, b, c = (save(name, worse(good, shift)) for name, shift in (("a", 0), ("b", 6), ("c", 20)))
    said, rows, images = compare(a, b, c)
    scores = [row for row in rows if row["number"] == "score"]
    names = [(row["run_a"], row["run_b"]) for row in scores]
    assert names == [(str(a), str(b)), (str(a), str(c)), (str(b), str(c))]
    assert all(float(row["p_holm"]) >= float(row["p"]) for row in rows)
    assert float(scores[1]["p_holm"]) > float(scores[1]["p"])
    assert len(images) == 3 * 40
    assert "corrected by Holm" in said
    assert "with 3 pairs and 100 draws no corrected p value can be below 0.059" in said


def test_compare_json_says_how_it_was_made(good, save, compare, tmp_path):
    a = save("a", good)
    compare(a, save("b", worse(good, 9)))
    made_by = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert made_by["command"][0] == "src/compare.py" and str(a) in made_by["command"]
    assert made_by["inputs"]["A"]["epoch"] == 0
    assert made_by["inputs"]["A"]["postprocess"]["threshold"] == 0.3
    (file,) = made_by["inputs"]["B"]["predictions"]
    assert file["file"].endswith("b_fold_0/predictions/000.npz") and len(file["sha256"]) == 64
    assert made_by["draws"] == 100
    assert made_by["tests"]["score"] == "permutation"
    assert made_by["tests"]["ap_50"] == "bootstrap"


def test_a_run_that_has_seen_rsna_images_says_so(good, save, compare, tmp_path):
    a, b = save("a", good), save("b", worse(good, 9))
    pretraining = {"began_with": "something", "has_seen_rsna_images": True}
    (a / "experiment.json").write_text(json.dumps({"pretraining": pretraining}))
    said, *_ = compare(a, b)
    assert "has seen RSNA images\nB: " in said
    assert "A: pretrained on images of RSNA" in said
    made_by = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert [made_by["inputs"][letter]["has_seen_rsna_images"] for letter in "AB"] == [True, False]


@pytest.fixture
def folds(good, tmp_path):
    """Return a function that saves two epochs of two folds of a model, and returns their name."""

    def call(name, shift, n_images=40):
        parts = [take_images(good, range(25)), take_images(good, range(25, n_images))]
        for fold, part in enumerate(parts):
            for epoch, distance in enumerate((shift, shift + 30)):
                made_by = replace(good.provenance, fold=fold, epoch=epoch)
                save_epoch(
                    tmp_path / "output" / f"{name}_fold_{fold}",
                    replace(worse(part, distance), provenance=made_by),
                )
        return tmp_path / "output" / name

    return call


def test_a_name_without_its_fold_stands_for_all_folds(good, folds, save, compare, tmp_path):
    a, b = folds("a", 0), folds("b", 9)
    (a / "test").mkdir(parents=True)  # predictions of other images may lie there
    said, rows, images = compare(a, b)
    assert f"A: {a}, 2 folds, epoch 0, gate score > " in said
    assert "A, B: epoch and setting are the best of those that were tried on these images" in said
    assert len(images) == 40 and rows[0]["run_a"] == str(a)
    best = sweep_pooled([tmp_path / "output" / f"a_fold_{k}" for k in (0, 1)]).best()
    assert best is not None
    assert best.epoch == 0
    assert float(rows[0]["value_a"]) == pytest.approx(best.score, abs=1e-5)
    made_by = json.loads((tmp_path / "compared" / "compare.json").read_text())
    files = [each["file"] for each in made_by["inputs"]["B"]["predictions"]]
    assert files == [f"{tmp_path}/output/b_fold_{k}/predictions/000.npz" for k in (0, 1)]
    assert made_by["inputs"]["B"]["postprocess"]["threshold_from"] == "best on these images"


def test_folds_are_compared_with_a_run_over_the_same_images(good, folds, save, compare):
    _, rows, _ = compare(folds("a", 0), save("whole", good))
    numbers = {row["number"]: row for row in rows}
    assert float(numbers["auroc (global head)"]["difference"]) == 0
    assert numbers["auroc (global head)"]["value_a"] == numbers["auroc (global head)"]["value_b"]


def test_a_folder_that_holds_predictions_is_a_run_whatever_lies_beside(save, compare):
    run_dir = save("b", random_predictions(3))
    (run_dir.parent / f"{run_dir.name}_fold_0").mkdir()
    said, _, images = compare(run_dir, run_dir)
    assert "folds" not in said and len(images) == 8


def test_by_default_the_folder_bears_the_names(good, save, call_main, tmp_path, monkeypatch):
    monkeypatch.setattr("config.OUTPUT_DIR", tmp_path / "results")
    assert call_main(main, save("a", good), save("b", good), *QUICK).code == 0
    folder = tmp_path / "results" / "compare" / "a_fold_0_vs_b_fold_0"
    assert {path.name for path in folder.iterdir()} == FILES


def test_runs_of_one_name_have_the_folders_that_tell_them_apart_in_the_name(
    good, save, call_main, tmp_path, monkeypatch
):
    monkeypatch.setattr("config.OUTPUT_DIR", tmp_path / "results")
    assert call_main(main, save("x/a", good), save("y/a", good), *QUICK).code == 0
    (folder,) = (tmp_path / "results" / "compare").iterdir()
    assert folder.name == "x_a_fold_0_vs_y_a_fold_0"


def test_runs_without_weaker_boxes_are_compared_without_average_precision(save, compare):
    known = random_predictions(3, n_images=40)
    said, rows, _ = compare(save("a", known), save("b", worse(known, 9)))
    assert "A was saved without weaker boxes" in said
    assert "ap_50" not in {row["number"] for row in rows}


# What is refused


@pytest.fixture
def refused(call_main, tmp_path):
    """Return a function that reads why runs are not compared."""

    def call(*words):
        outcome = call_main(main, *words, "--out", tmp_path / "compared", *QUICK)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert outcome.err.startswith("error: ")
        assert not (tmp_path / "compared").exists()
        return outcome.err

    return call


@pytest.mark.parametrize("other_is_first", [False, True])
def test_runs_over_other_images_are_refused(good, save, refused, other_is_first):
    runs = [save("a", good), save("b", take_images(good, range(38)))]
    message = refused(*runs[::-1]) if other_is_first else refused(*runs)
    assert f"{runs[1]}: lacks 2 images of {runs[0]}, such as patient-38" in message


def test_folds_with_other_images_are_refused(folds, refused):
    a, b = folds("a", 0), folds("b", 9, n_images=38)
    assert f"{b}: lacks 2 images of {a}, such as patient-38" in refused(a, b)


def test_a_fold_without_predictions_is_named(folds, refused, tmp_path):
    a = folds("a", 0)
    empty = tmp_path / "output" / "a_fold_2"
    empty.mkdir()
    assert f"{empty / 'predictions'}: holds no predictions" in refused(a, a)


def test_other_images_of_a_third_run_are_refused(good, save, refused):
    a = save("a", good)
    ids = np.array([*good.ids[:-1], "stranger"])
    b = save("b", replace(good, ids=ids))
    assert f"{a}: lacks 1 images of {b}, such as stranger" in refused(
        b, save("c", replace(good, ids=ids)), a
    )


@pytest.mark.parametrize("size", [192, 512])
def test_other_labels_are_refused(save, refused, size):
    ours = make_predictions(([], []), ([BOX], [(BOX, 0.9)]))
    moved = make_predictions(([], []), ([[21, 20, 80, 80]], [(BOX, 0.9)]))
    none = make_predictions(([], []), ([], [(BOX, 0.9)]))
    for other, text in ((moved, "1, the first at 112.0 106.7 314.7 320.0"), (none, "none")):
        b = save("b", at_size(other, size))
        message = refused(save("a", ours), b)
        assert f"{b}: the true boxes of image image-1 are not those of" in message
        assert f"{text}, not 1, the first at 106.7" in message


def test_predictions_without_truth_are_refused(good, save, refused):
    unknown = replace(good, true_categories=np.full(40, -1))
    assert "hold no true boxes" in refused(save("a", good), save("b", unknown))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}"], "1 RUN given; 2 to 26 can be compared"),
        (["{run}"] * 27, "27 RUN given"),
        (["{run}", "{run}", "--gallery", "3"], "--gallery and --data-dir need each other"),
        (["{run}", "{run}", "--data-dir", "{run}"], "--gallery and --data-dir need each other"),
        (["{run}", "{run}", "--truth-classes", "a"], "--truth-classes needs --truth"),
        (["{run}", "{run}", "--truth", "a"], "no RUN is one"),
        (["{run}", "{run}/a.csv"], "a submission needs --truth"),
        (["{run}", "{run}/none"], "no such folder of a run"),
        (["{run}", "{run}", "--draws", "9"], "9 is not between 100 and"),
        (["{run}", "{run}", "--gallery", "0", "--data-dir", "a"], "0 is less than 1"),
        (["{run}", "{run}", "--gallery", "1", "--data-dir", "{run}/no"], "no such data folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_flags_that_do_not_fit_are_refused(save, call_main, listing, words, message):
    run_dir = save("a", make_predictions(([BOX], [(BOX, 0.9)])))
    before = listing(run_dir.parent)
    outcome = call_main(main, *(word.format(run=run_dir) for word in words))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert listing(run_dir.parent) == before


def test_boxes_are_the_same_in_any_order_up_to_rounding():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10.4, 10], [50, 50, 9, 9]])
    assert are_same_boxes(boxes, boxes[[2, 0, 1]] + 0.04)
    assert not are_same_boxes(boxes, boxes[:2])
    assert not are_same_boxes(boxes, boxes + np.array([[0], [0], [0.6]]))
    assert not are_same_boxes(boxes[[0, 2]], boxes[[2, 2]])
    assert are_same_boxes(boxes[:0], boxes[:0])


# Submissions


@pytest.fixture
def labels(tmp_path):
    truth = {f"p{i:02}": [[100, 100, 200, 200]] if i % 2 else [] for i in range(30)}
    return write_labels(tmp_path / "labels.csv", truth)


def found(shift, *, false=()):
    boxes = {f"p{i:02}": [([100 + shift, 100, 200, 200], 0.9)] if i % 2 else [] for i in range(30)}
    return boxes | {name: [([500, 500, 50, 50], 0.4)] for name in false}


def test_submissions_are_compared_with_labels(tmp_path, labels, compare):
    a = write_submission(tmp_path / "a.csv", found(0))
    b = write_submission(tmp_path / "b.csv", found(60, false=("p00", "p02")))
    said, rows, images = compare(a, b, "--truth", labels)
    values = [float(rows[0]["value_a"]), float(rows[0]["value_b"])]
    expected = [score_submission(path, labels).score for path in (a, b)]
    assert values == pytest.approx(expected, abs=1e-5)
    numbers = {row["number"] for row in rows}
    assert {"ap_50", "auroc (best box)"} <= numbers and "auroc (global head)" not in numbers
    assert "A is better in 17, B in 0, equal in 13" in said
    by_image = {row["patientId"]: row for row in images}
    alarm = by_image["p00"]
    assert (alarm["score_a"], alarm["score_b"], alarm["better"]) == ("", "0", str(a))
    assert float(alarm["difference"]) == pytest.approx(values[0], abs=1e-5)
    made_by = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert len(made_by["truth"]["sha256"]) == len(made_by["inputs"]["A"]["sha256"]) == 64


def test_a_run_and_a_submission_are_compared(tmp_path, save, compare, refused):
    run_dir = save("a", make_predictions(([BOX], [(BOX, 0.9)]), ([], [])))
    scale = FILE_SIDE / 192
    box = [round(scale * value, 1) for value in (20, 20, 60, 60)]
    far = [value + 3 for value in box]
    path = write_submission(tmp_path / "b.csv", {"image-0": [(box, 0.8)], "image-1": []})
    labels = write_labels(tmp_path / "labels.csv", {"image-0": [box], "image-1": []})
    said, rows, _ = compare(run_dir, path, "--truth", labels)
    assert (rows[0]["value_a"], rows[0]["value_b"]) == ("1", "1")
    assert {row["number"] for row in rows} > {"auroc (best box)"}
    assert "no numbers of images by their score 'global head' for B" in said
    assert not {"ap_50", "froc"} & {row["number"] for row in rows}
    for file in (tmp_path / "compared").iterdir():
        file.unlink()
    (tmp_path / "compared").rmdir()
    write_labels(labels, {"image-0": [far], "image-1": []})
    assert f"{path}: the true boxes of image image-0" in refused(run_dir, path, "--truth", labels)


def test_a_submission_of_other_images_than_the_labels_is_refused(tmp_path, labels, refused):
    a = write_submission(tmp_path / "a.csv", found(0))
    b = write_submission(tmp_path / "b.csv", found(0) | {"stranger": []})
    assert f"{b}: 1 patients are not in {labels}, the first is stranger" in refused(
        a, b, "--truth", labels
    )


# The gallery


def test_the_images_that_differ_most_are_drawn_side_by_side(
    tmp_path, save, compare, read_picture, call_main
):
    near = [20, 24, 80, 84]  # a box at the true one's place would cover it
    first = make_predictions(([BOX], [(near, 0.9)]), ([FAR], [(FAR, 0.9)]), ([], []))
    other = make_predictions(([BOX], [(FAR, 0.9)]), ([FAR], [(FAR, 0.9)]), ([], []))
    images = tmp_path / "data" / "stage_2_train_images"
    images.mkdir(parents=True)
    for name in first.ids.tolist():
        cv2.imwrite(str(images / f"{name}.png"), np.full((FILE_SIDE, FILE_SIDE), 60, np.uint8))
    words = (save("a", first), save("b", other), "--gallery", "2", "--data-dir", tmp_path / "data")
    said, _, _ = compare(*words)
    folder = tmp_path / "compared" / "gallery" / "A_B"
    assert f"1 pictures in {folder}" in said
    assert {path.name for path in folder.iterdir()} == {"001_image-0.png", "overview.png"}
    picture = read_picture(folder / "001_image-0.png")
    left, right = picture[:, :FILE_SIDE], picture[:, FILE_SIDE:]
    assert picture.shape[1] > 2 * FILE_SIDE
    for half, has_box in ((left, False), (right, True)):
        assert (half == TRUE_COLOUR).all(axis=-1).any()
        colour = (half[530:, 530:840] == FOUND_COLOUR).all(axis=-1)
        assert colour.any() == has_box
    others = {folder / "notes.png", folder / "001.png", folder.parent / "001_image.png"}
    old = {folder / "002_image-1.png", folder.parent / "B_C" / "001_image-2.png"}
    for path in others | old:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    compare(*words)
    found = {path for path in folder.parent.rglob("*") if path.is_file()}
    assert found == others | {folder / "001_image-0.png", folder / "overview.png"}
    (images / "image-0.png").unlink()
    outcome = call_main(main, *words, "--out", tmp_path / "again", *QUICK)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "holds no image image-0" in outcome.err
