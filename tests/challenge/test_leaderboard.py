import math

import numpy as np
import pytest

from src import scores
from src.challenge.leaderboard import score_boxes, score_submission
from src.challenge.submission_file import SubmissionError, SubmittedBox
from src.datasets.annotations import Record, read_label_files
from src.datasets.tables import AnnotationsError
from src.metric import IOU_THRESHOLDS, bootstrap_interval
from src.structures import CLASS_NAMES, OPACITY, UNKNOWN_CATEGORY
from tests import oracles
from tests.datasets.test_annotations import LABELS_HEADER, write_tables
from tests.paths import shared
from tests.submission_files import write_rows

HEADER = "patientId,PredictionString"
NOT_NORMAL, NORMAL, OPACITY_NAME = CLASS_NAMES
# a: one box; b: two; c and d: none
TRUTH = [
    f"a,100,100,200,200,1,{OPACITY_NAME}",
    f"b,100,100,200,200,1,{OPACITY_NAME}",
    f"b,500,500,100,100,1,{OPACITY_NAME}",
    f"c,,,,,0,{NORMAL}",
    f"d,,,,,0,{NOT_NORMAL}",
]
PERFECT = {"a": "0.9 100 100 200 200", "b": "0.9 100 100 200 200 0.8 500 500 100 100",
           "c": "", "d": ""}  # fmt: skip


@pytest.fixture
def score(tmp_path):
    """Return a function that scores PredictionStrings against TRUTH, with classes or without."""

    def call(strings, *, truth=TRUTH, classes=True):
        truth_path, path = tmp_path / "truth.csv", tmp_path / "submission.csv"
        lines = [f"{LABELS_HEADER},class", *truth]
        if not classes:
            lines = [line.rpartition(",")[0] for line in lines]
        truth_path.write_text("".join(f"{line}\n" for line in lines))
        rows = [f"{patient},{text}" for patient, text in strings.items()]
        path.write_text("".join(f"{line}\n" for line in [HEADER, *rows]))
        return score_submission(path, truth_path)

    return call


def write_perfect(path, records):
    with path.open("w") as file:
        file.write(f"{HEADER}\n")
        for record in reversed(records):
            boxes = [f"0.5 {x:g} {y:g} {w:g} {h:g}" for x, y, w, h in record.boxes_xywh]
            file.write(f"{record.patient_id},{' '.join(boxes)}\n")


# Real labels


@pytest.mark.filterwarnings("ignore:.*516 repeated rows dropped")
def test_a_perfect_submission_to_stage_1_scores_1(tmp_path):
    truth_path = shared("annotations") / "stage_1_test_meta.csv"
    write_perfect(tmp_path / "perfect.csv", read_label_files(truth_path))
    result = score_submission(tmp_path / "perfect.csv", truth_path)
    assert result.score == 1
    assert (len(result.ids), result.n_true.sum(), result.n_counted) == (1000, 591, 353)
    assert result.n_false_alarms == 0


@pytest.mark.parametrize("with_classes", [True, False])
def test_a_perfect_submission_to_stage_2_scores_1(tmp_path, with_classes):
    folder = shared("annotations")
    truth_path = folder / "stage_2_train_labels.csv"
    classes_path = folder / "stage_2_detailed_class_info.csv" if with_classes else None
    records = read_label_files(truth_path, classes_path, needs_classes=False)
    write_perfect(tmp_path / "perfect.csv", records)
    result = score_submission(tmp_path / "perfect.csv", truth_path, classes_path)
    assert result.score == 1
    assert set(result.iou_scores.values()) == {1}
    assert (len(result.ids), result.n_true.sum(), result.n_counted) == (26_684, 9_555, 6_012)
    sizes = [int(images.sum()) for images in result.groups().values()]
    assert sizes == ([11_821, 8_851, 6_012] if with_classes else [6_012, 20_672])


# Worked by hand


def test_the_score_is_the_mean_over_images_that_count(score):
    # a: IoU 2/3 hits at .40 to .65, six of eight thresholds. b: one of two boxes, 1 / 2 at all.
    # c: a false alarm, 0. d does not count.
    strings = {"a": "0.9 100 100 300 200", "b": "0.5 100 100 200 200", "c": "0.1 1 1 9 9", "d": ""}
    result = score(strings)
    assert result.score == pytest.approx((6 / 8 + 1 / 2 + 0) / 3)
    np.testing.assert_allclose(result.image_scores, [6 / 8, 1 / 2, 0, np.nan])
    assert (result.n_counted, result.n_false_alarms) == (3, 1)


def test_each_iou_threshold_has_its_mean(score):
    result = score(PERFECT | {"a": "0.9 100 100 300 200"})
    assert list(result.iou_scores) == list(IOU_THRESHOLDS)
    np.testing.assert_allclose(list(result.iou_scores.values()), [1] * 6 + [0.5] * 2)


def test_each_class_has_its_mean_over_images_that_count(score):
    result = score(PERFECT | {"b": "", "c": "0.1 1 1 9 9"})
    assert result.class_scores[OPACITY_NAME] == 0.5
    assert result.class_scores[NORMAL] == 0
    assert math.isnan(result.class_scores[NOT_NORMAL])


def test_a_class_passes_over_images_that_do_not_count(score):
    truth = [*TRUTH, f"e,,,,,0,{NORMAL}"]
    assert score(PERFECT | {"c": "0.1 1 1 9 9", "e": ""}, truth=truth).class_scores[NORMAL] == 0


def test_more_boxes_than_true_ones_cost(score):
    result = score(PERFECT | {"a": "0.1 100 100 200 200 0.9 600 600 50 50"})
    assert result.image_scores[0] == 0.5


def test_boxes_match_in_the_order_of_confidence(score):
    # The first true box chooses first: the more confident of the two that reach it.
    truth = [f"a,0,0,100,100,1,{OPACITY_NAME}", f"a,0,20,100,100,1,{OPACITY_NAME}"]
    exact, between = "0 0 100 100", "0 10 100 100"  # the latter reaches both at .75, the former one
    above = score({"a": f"0.9 {exact} 0.8 {between}"}, truth=truth).score
    below = score({"a": f"0.8 {exact} 0.9 {between}"}, truth=truth).score
    assert above == 1
    assert below == pytest.approx((6 * 1 + 2 * (1 / 3)) / 8)  # IoU .667 with the second: to .65


def test_the_order_of_boxes_in_a_row_does_not_matter(score):
    one = score(PERFECT | {"b": "0.8 500 500 100 100 0.9 120 100 200 200"})
    other = score(PERFECT | {"b": "0.9 120 100 200 200 0.8 500 500 100 100"})
    np.testing.assert_array_equal(one.precisions, other.precisions)


def test_a_score_needs_an_image_that_counts(score):
    result = score({"c": "", "d": ""}, truth=TRUTH[3:])
    assert math.isnan(result.score)
    assert np.isnan(result.interval()).all()
    assert result.lines()[-1] == "no score: no image has true boxes, and none is predicted"


def test_a_boxs_confidence_does_not_have_to_pass_a_threshold(score):
    assert score(PERFECT | {"a": "0 100 100 200 200"}).score == 1


def test_without_classes_the_images_are_grouped_by_their_boxes(score):
    result = score(PERFECT | {"b": ""}, classes=False)
    assert result.class_scores["with true boxes"] == 0.5
    assert math.isnan(result.class_scores["without true boxes"])
    assert set(result.categories) == {UNKNOWN_CATEGORY}


def test_classes_can_stand_in_a_file_of_their_own(tmp_path, score):
    score(PERFECT, classes=False)
    classes_path = tmp_path / "classes.csv"
    rows = {"a": OPACITY_NAME, "b": OPACITY_NAME, "c": NORMAL, "d": NOT_NORMAL}
    classes_path.write_text("patientId,class\n" + "".join(f"{p},{c}\n" for p, c in rows.items()))
    result = score_submission(tmp_path / "submission.csv", tmp_path / "truth.csv", classes_path)
    assert result.categories.tolist() == [OPACITY, OPACITY, 1, 0]


# Against the oracle


@pytest.mark.parametrize("seed", range(3))
def test_score_boxes_agrees_with_the_oracle(seed):
    rng = np.random.default_rng(seed)
    records, submitted, images = [], {}, []
    for i in range(60):
        true = np.add(rng.integers(0, 300, (rng.integers(0, 4), 4)), [0, 0, 60, 60])
        near = [true[rng.integers(len(true))] for _ in range(rng.integers(4))] if len(true) else []
        found = [tuple(box + rng.normal(0, 12, 4)) for box in near]
        if rng.random() < 0.3:
            found.append((10.0, 20.0, 100.0, 100.0))
        scores = rng.choice([0.2, 0.4, 0.4, 0.9], len(found)).tolist()
        patient = f"p{i:02}"
        records.append(Record(patient, OPACITY if len(true) else 1, true.astype(float)))
        submitted[patient] = [
            SubmittedBox(s, *map(float, b)) for s, b in zip(scores, found, strict=True)
        ]
        images.append((true.tolist(), found, scores))
    result = score_boxes(submitted, records)
    assert 0.1 < result.score < 0.9
    assert result.score == pytest.approx(oracles.dataset_score(images, -math.inf), abs=1e-12)
    expected = [oracles.map_iou(*image) for image in images]
    np.testing.assert_allclose(
        result.image_scores, [np.nan if value is None else value for value in expected], atol=1e-12
    )
    for threshold, mean in result.iou_scores.items():
        single = [oracles.map_iou(*image, thresholds=(threshold,)) for image in images]
        assert mean == pytest.approx(np.mean([value for value in single if value is not None]))
    assert np.mean(list(result.iou_scores.values())) == pytest.approx(result.score)


# What is told


def test_the_interval_is_the_bootstraps_around_the_score(score):
    result = score(PERFECT | {"b": "", "c": "0.1 1 1 9 9"})
    assert result.interval() == bootstrap_interval(result.image_scores)
    low, high = result.interval()
    assert low < result.score < high


@pytest.mark.parametrize("column_of", ["labels", "classes"])
def test_the_interval_draws_the_images_of_a_patient_together(tmp_path, column_of):
    names, groups = [f"p{i:02}" for i in range(40)], [f"P{i // 8}" for i in range(40)]
    labels, classes = write_tables(
        tmp_path,
        [f"{name},100,100,50,50,1" for name in names],
        [f"{name},{CLASS_NAMES[OPACITY]}" for name in names],
    )
    path = labels if column_of == "labels" else classes
    header, *rows = path.read_text().splitlines()
    more = [f"{row},{group}" for row, group in zip(rows, groups, strict=True)]
    rows = [f"{name},0.9 {100 + 30 * (i // 16)} 100 50 50" for i, name in enumerate(names)]
    submission = write_rows(tmp_path, *rows)
    alone = score_submission(submission, labels, classes)
    path.write_text("\n".join([f"{header},groupId", *more]))
    together = score_submission(submission, labels, classes)
    assert (len(set(alone.patients)), len(set(together.patients))) == (40, 5)
    widths = [high - low for low, high in (alone.interval(), together.interval())]
    assert widths[1] > 1.5 * widths[0]


def test_lines_tell_score_false_alarms_classes_and_thresholds(score):
    lines = score(PERFECT | {"a": "0.9 100 100 300 200", "c": "0.1 1 1 9 9"}).lines()
    assert lines[0] == "4 images: 4 boxes submitted, 3 true"
    assert lines[1].startswith("score 0.58333 (95 % of bootstrap draws ")
    assert lines[2] == "3 images count: 2 with true boxes, and false alarms in 1 of the 2 without"
    assert [line.rsplit(maxsplit=4)[1:] for line in lines[4:7]] == [
        ["1", "0", "0", "-"], ["1", "1", "1", "0.00000"], ["2", "2", "2", "0.87500"]
    ]  # fmt: skip
    assert lines[7].split() == ["IoU", *(f"{threshold:.2f}" for threshold in IOU_THRESHOLDS)]
    assert lines[8].split() == ["score", *["0.66667"] * 6, *["0.33333"] * 2]


# Mistakes


def test_missing_and_extra_patients_are_counted_and_named(score):
    strings = {"a": "", "b": "", "z": "", "y": "", "x": ""}
    with pytest.raises(SubmissionError) as caught:
        score(strings)
    message = str(caught.value)
    assert "submission.csv: 2 patients are missing, the first is c" in message
    assert "3 patients are not in" in message
    assert message.endswith("truth.csv, the first is x")


def test_a_broken_submission_is_refused_with_its_line(score):
    with pytest.raises(SubmissionError, match=r"submission\.csv: line 3: 1 numbers"):
        score(PERFECT | {"b": "0.5"})


def test_broken_labels_are_refused_with_their_line(score):
    with pytest.raises(AnnotationsError, match=r"truth\.csv: line 2: width 0"):
        score(PERFECT, truth=[TRUTH[0].replace("200,200", "0,200"), *TRUTH[1:]])


@pytest.mark.parametrize("classes", [True, False])
def test_labels_that_contradict_themselves_are_refused(score, classes):
    with pytest.raises(AnnotationsError, match="line 7: Target is 0 but patient a has a box" if
                       not classes else "line 7: Target is 0 but the class is"):  # fmt: skip
        score(PERFECT, truth=[*TRUTH, f"a,,,,,0,{OPACITY_NAME}"], classes=classes)


def test_the_command_gives_a_perfect_submission_the_score_one(call_main, phantoms, tmp_path):
    truth = phantoms / "stage_2_train_labels.csv"
    rows = [line.split(",") for line in truth.read_text().splitlines()[1:]]
    strings: dict[str, list[str]] = {row[0]: [] for row in rows}
    for patient, *box, target in rows:
        strings[patient] += ["0.9", *box] if target == "1" else []
    assert any(strings.values())
    lines = [f"{patient},{' '.join(text)}" for patient, text in strings.items()]
    submission = tmp_path / "perfect.csv"
    submission.write_text("\n".join(["patientId,PredictionString", *lines, ""]))
    outcome = call_main(scores.main, submission, "--truth", truth)
    assert "1.0000" in outcome.out
