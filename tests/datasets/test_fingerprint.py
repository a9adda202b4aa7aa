import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from src.datasets.annotations import Record, read_records
from src.datasets.data_folder import DataFolder
from src.datasets.fingerprint import data_fingerprint, image_states, images_fingerprint
from src.datasets.tables import AnnotationsError
from tests.image_folders import image_folder


@pytest.fixture
def labelled(tmp_path):
    """Return a record of three images, and their folder."""
    records = []
    for i, name in enumerate("abc"):
        (tmp_path / f"{name}.dcm").write_bytes(b"x" * (10 + i))
        boxes = np.array([[1.0, 2.0, 30.0, 40.0]]) if i == 2 else np.zeros((0, 4))
        records.append(Record(name, i, boxes))
    return records, tmp_path


def fingerprint(records, folder):
    return data_fingerprint(records, image_folder(folder))


def test_data_fingerprint_is_the_same_for_a_copy(data_dir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy, copy_function=shutil.copyfile)  # without the dates
    prints = [
        data_fingerprint(read_records(folder), image_folder(folder.images_dir("train")))
        for folder in (DataFolder(data_dir), DataFolder(copy))
    ]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 64


def test_data_fingerprint_ignores_the_order_of_records(labelled):
    records, folder = labelled
    assert fingerprint(records[::-1], folder) == fingerprint(records, folder)


def test_data_fingerprint_ignores_other_files(labelled):
    records, folder = labelled
    before = fingerprint(records, folder)
    (folder / "d.dcm").touch()
    (folder / "notes").mkdir()
    assert fingerprint(records, folder) == before


@pytest.mark.parametrize(
    "change",
    [
        {"patient_id": "d"},
        {"category": 1},
        {"boxes_xywh": np.array([[1.0, 2.0, 30.0, 41.0]])},
        {"boxes_xywh": np.zeros((0, 4))},
    ],
    ids=["patient", "category", "box", "no box"],
)
def test_data_fingerprint_changes_with_a_label(labelled, change):
    records, folder = labelled
    shutil.copy(folder / "c.dcm", folder / "d.dcm")
    changed = [*records[:2], replace(records[2], **change)]
    assert fingerprint(changed, folder) != fingerprint(records, folder)


def test_data_fingerprint_changes_with_the_size_of_an_image(labelled):
    records, folder = labelled
    before = fingerprint(records, folder)
    (folder / "a.dcm").write_bytes(b"longer than it was")
    assert fingerprint(records, folder) != before


def test_images_fingerprint_ignores_labels_and_dates(labelled):
    _, folder = labelled
    before = images_fingerprint(image_states("abc", image_folder(folder)))
    os.utime(folder / "a.dcm", (1, 1))
    assert images_fingerprint(image_states("cba", image_folder(folder))) == before


def test_image_states_tell_size_and_date(labelled):
    _, folder = labelled
    os.utime(folder / "b.dcm", ns=(5, 7))
    assert image_states(["b"], image_folder(folder)) == {"b": (11, 7)}


def test_image_states_name_a_missing_image(labelled):
    _, folder = labelled
    with pytest.raises(AnnotationsError, match=r"z\.dcm: no such file"):
        image_states(["a", "z"], image_folder(folder))


def test_image_states_pass_over_a_broken_link_that_nobody_asks_for(labelled):
    _, folder = labelled
    (folder / "z.dcm").symlink_to(folder / "nowhere")
    assert list(image_states(["a"], image_folder(folder))) == ["a"]
