"""Messages quote values of files, and cut them: each stays one line that a terminal can show."""

import numpy as np
import pytest

from src.challenge.leaderboard import score_submission
from src.challenge.submission_check import check_ids, check_submission
from src.challenge.submission_file import read_submission
from src.datasets.annotations import Record, read_label_files
from src.datasets.data_folder import open_image_folder
from src.datasets.folds import read_folds, split_records
from src.datasets.tables import read_sample_ids, read_table
from src.experiments.history import read_history
from src.experiments.runs import Run, check_owner, load_run
from src.structures import CLASS_NAMES
from src.system.errors import InputError

LONG = "x" * 20_000
DIGITS = "9" * 20_000
LABELS = "patientId,x,y,width,height,Target,class\n"
OPACITY = CLASS_NAMES[2]
NO_BOXES = np.zeros((0, 4))
MAX_LENGTH = 500  # characters beside the path

LABEL_ROWS = [
    f"a,,,,,{LONG},Normal",
    f"a,,,,,0,{LONG}",
    f"a,{LONG},1,1,1,1,{OPACITY}",
    f"a,1,1,-{DIGITS},1,1,{OPACITY}",
    f"a,{DIGITS},1,1,1,1,{OPACITY}",
    f"a,1,1,1,1,0{LONG},{OPACITY}",
    f"{LONG},,,,,0,Normal\n{LONG},,,,,0,{OPACITY}",
    f"{LONG}/,,,,,0,Normal",
    f'"{LONG},",,,,,0,Normal',
]


def refuse(path, function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value).replace(str(path.parent), "")
    assert len(message) < MAX_LENGTH


@pytest.mark.parametrize("rows", LABEL_ROWS)
def test_wrong_labels(tmp_path, rows):
    path = tmp_path / "labels.csv"
    path.write_text(f"{LABELS}{rows}\n")
    refuse(path, read_label_files, path)


@pytest.mark.parametrize(
    "content",
    [
        f'{{"model": "{LONG}", "tag": "", "fold": 0}}',
        f'{{"model": "a", "tag": "{LONG}", "fold": 0}}',
        f'{{"model": "a", "tag": "", "fold": "{LONG}"}}',
        '{"model": "a", "tag": "", "fold": Infinity}',
    ],
)
def test_descriptions_of_other_runs(tmp_path, content):
    run = Run("demo", 0, "", tmp_path)
    run.dir.mkdir()
    run.experiment_path.write_text(content)
    refuse(run.experiment_path, load_run, run.dir)
    refuse(run.experiment_path, check_owner, run)


def test_classes_of_other_patients(tmp_path):
    path, classes = tmp_path / "labels.csv", tmp_path / "classes.csv"
    path.write_text(f"{LABELS}a,,,,,0,Normal\n")
    classes.write_text(f"patientId,class\na,Normal\n{LONG},Normal\n")
    refuse(path, read_label_files, path, classes)
    path.write_text(f"{LABELS}a,,,,,0,Normal\n{LONG},,,,,0,Normal\n")
    classes.write_text("patientId,class\na,Normal\n")
    refuse(path, read_label_files, path, classes)


@pytest.mark.parametrize("rows", [f"a,{LONG}", f"a,{DIGITS}", f"{LONG},0\n{LONG},1"])
def test_wrong_folds(tmp_path, rows):
    path = tmp_path / "folds.csv"
    path.write_text(f"patientId,fold\n{rows}\n")
    refuse(path, read_folds, path)


def test_folds_of_other_patients(tmp_path):
    record = Record(LONG, 1, NO_BOXES)
    refuse(tmp_path / "a", split_records, [record], {}, 0)
    with pytest.raises(InputError, match=r"fold 3 has no images; there are \[10, 11, ") as caught:
        split_records([Record(f"{i}", 1, NO_BOXES) for i in range(9000)],
                      {f"{i}": i + 10 for i in range(9000)}, 3)  # fmt: skip
    assert len(str(caught.value)) < MAX_LENGTH


def test_images_that_are_missing(tmp_path):
    (tmp_path / "a.png").touch()
    refuse(tmp_path / "a", open_image_folder, tmp_path, [LONG])


def test_columns_that_are_missing(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(f"epoch,{LONG}\n1,2\n")
    refuse(path, read_history, path, ["loss"])
    path.write_text(f"epoch,loss\n1,{LONG}\n")
    refuse(path, read_history, path, ["loss"])
    path.write_text(f"patientId{LONG},class\na,b\n")
    with pytest.raises(InputError, match="has no column patientId; it has patientId") as caught:
        read_table(path, ["patientId"])
    assert len(str(caught.value)) < MAX_LENGTH + len(str(path))


def test_samples_that_name_others(tmp_path):
    path = tmp_path / "sample.csv"
    path.write_text(f"patientId,PredictionString\n{LONG},\n{LONG},\n")
    refuse(path, read_sample_ids, path)
    refuse(path, check_ids, ["a"], [LONG, "a"], path)
    refuse(path, check_ids, ["a", LONG], ["a"], path)


@pytest.mark.parametrize(
    "row",
    [
        f"a,{LONG} 1 2 3 4",
        f"a,{DIGITS} 1 2 3 4",
        f"{LONG};0.5 1 2 3 4",
        LONG,
        f"{LONG},\n{LONG},",
        f"{LONG}\a,",
        f'a,"{LONG}',
    ],
)
def test_wrong_submissions(tmp_path, row):
    path = tmp_path / "submission.csv"
    path.write_text(f"patientId,PredictionString\n{row}\n")
    submission = check_submission(path)
    assert submission.faults
    assert all(len(fault.describe(path)) < MAX_LENGTH + len(str(path))
               for fault in submission.faults)  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_submission(path)
    assert len(str(caught.value)) < MAX_LENGTH + len(str(path))


def test_submissions_of_other_patients(tmp_path):
    path, truth = tmp_path / "submission.csv", tmp_path / "truth.csv"
    path.write_text(f"patientId,PredictionString\n{LONG},\n")
    truth.write_text(f"{LABELS}y{LONG},,,,,0,Normal\n")
    refuse(path, score_submission, path, truth)
    sample = tmp_path / "sample.csv"
    sample.write_text(f"patientId,PredictionString\ny{LONG},\n")
    faults = check_submission(path, sample).faults
    assert len(faults) == 2
    assert all(len(fault.problem) < MAX_LENGTH + len(str(sample)) for fault in faults)
    path.write_text(f"{LONG}\na,\n")
    assert max(len(fault.problem) for fault in check_submission(path).faults) < MAX_LENGTH
