"""Which images are of one patient, from the tables of a data folder to samples."""

import numpy as np
import pytest

from src.datasets.annotations import Record, read_records
from src.datasets.data_folder import DataFolder
from src.datasets.detection_dataset import ValidationDataset
from src.datasets.patient_groups import number_patients, read_groups
from src.datasets.sample_options import SampleOptions
from src.datasets.tables import AnnotationsError
from tests.datasets.test_annotations import CLASSES_HEADER, GOOD_CLASSES, LABELS_HEADER, write_lines

LABELS = ["a,10,20,30,40,1", "b,,,,,0", "c,,,,,0"]
FOLDS = ["a,0", "b,1", "c,1"]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a data folder whose named tables have the column."""

    def call(*grouped, groups=("P1", " P1 ", ""), column="groupId"):
        folder = DataFolder(tmp_path)
        for path, header, rows in (
            (folder.labels_path, LABELS_HEADER, LABELS),
            (folder.classes_path, CLASSES_HEADER, [*GOOD_CLASSES[1:]]),
            (folder.folds_path, "patientId,fold", FOLDS),
        ):
            if path.name in grouped:
                header = f"{header},{column}"
                rows = [f"{row},{group}" for row, group in zip(rows, groups, strict=True)]
            write_lines(path, header, rows)
        return folder

    return call


@pytest.mark.parametrize(
    "name", ["folds.csv", "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"]
)
def test_groups_are_read_from_any_table_that_has_the_column(write, name):
    folder = write(name)
    assert read_groups(folder) == {"a": "P1", "b": "P1", "c": ""}
    assert [record.group_id for record in read_records(folder)] == ["P1", "P1", ""]


def test_without_the_column_every_image_is_alone(write):
    folder = write()
    assert read_groups(folder) == {}
    assert [record.group_id for record in read_records(folder)] == ["", "", ""]


def test_the_groups_of_folds_count_first(write):
    folder = write("folds.csv", "stage_2_train_labels.csv", groups=("1", "2", "2"))
    write_lines(folder.labels_path, f"{LABELS_HEADER},groupId", [f"{row},9" for row in LABELS])
    assert read_groups(folder) == {"a": "1", "b": "2", "c": "2"}


def test_an_image_in_two_groups_is_refused(write):
    folder = write()
    rows = ["a,1,1,2,2,1,P1", "a,5,5,2,2,1,P2", *(f"{row}," for row in LABELS[1:])]
    write_lines(folder.labels_path, f"{LABELS_HEADER},groupId", rows)
    with pytest.raises(AnnotationsError, match="line 3: patient a has a second groupId"):
        read_records(folder)


def test_a_sample_tells_the_group_of_its_image(tmp_path):
    class Black:
        def read(self, patient_id, *, grey="viewer"):
            return np.zeros((64, 64), np.uint8)

    records = [Record("a", 1, np.zeros((0, 4)), "P1"), Record("b", 1, np.zeros((0, 4)))]
    samples = ValidationDataset(records, Black(), SampleOptions(img_size=64))
    assert [samples[i].target.group_id for i in range(2)] == ["P1", ""]


@pytest.mark.parametrize(
    ("groups", "same"),
    [
        (["P", "Q", "P", "", ""], {(0, 2)}),
        (["", "", ""], set()),
        (["P"] * 3, {(0, 1), (0, 2), (1, 2)}),
        ([], set()),
    ],
)
def test_images_of_one_group_have_one_patient_and_others_their_own(groups, same):
    patients = number_patients(groups).tolist()
    n = len(groups)
    pairs = {(i, k) for k in range(n) for i in range(k) if patients[i] == patients[k]}
    assert (len(patients), pairs) == (n, same)
