"""Boxes are held against the sizes of their own images, whatever these are."""

import numpy as np
import pytest

from src.datasets.annotations import Record, read_label_files, read_records
from src.datasets.box_sizes import (
    fit_boxes,
    read_box_sizes,
    scaled_boxes,
    sizes_of_labelled,
)
from src.datasets.data_folder import DataFolder, open_image_folder
from src.datasets.loaders import load_labelled_images
from src.datasets.tables import AnnotationsError
from tests.dicom_files import write_dicom

SIZE = (2500, 2048)


@pytest.fixture
def folder(tmp_path):
    """Return 16 images of 2500 x 2048, every second one with a box at x 1500."""
    (tmp_path / "train").mkdir()
    labels, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
    for i in range(16):
        write_dicom(tmp_path / "train" / f"p{i:02}.dcm", np.zeros(SIZE, np.uint8))
        labels.append(f"p{i:02},1500,100,548,2400,1" if i % 2 else f"p{i:02},,,,,0")
        classes.append(f"p{i:02},{'Lung Opacity' if i % 2 else 'Normal'}")
    (tmp_path / "stage_2_train_labels.csv").write_text("\n".join(labels) + "\n")
    (tmp_path / "stage_2_detailed_class_info.csv").write_text("\n".join(classes) + "\n")
    return DataFolder(tmp_path)


def put_box(folder, old, new):
    text = folder.labels_path.read_text()
    assert old in text
    folder.labels_path.write_text(text.replace(old, new))


@pytest.mark.parametrize("cached", [False, True])
def test_a_box_that_fills_its_large_image_is_taken(folder, tmp_path, cached):
    cache_dir = tmp_path / "cache" if cached else None
    images = load_labelled_images(folder.root, 0, cache_dir=cache_dir)
    boxes = [r.boxes_xywh.tolist() for r in images.train if len(r.boxes_xywh)]
    assert boxes[0] == [[1500, 100, 548, 2400]]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("row", "text"), [("p03,1500,100,549,2400,1", "x 1500, width 549"),
                                           ("p03,1500,101,548,2400,1", "y 101")])  # fmt: skip
def test_a_box_that_leaves_its_image_is_named_with_its_line(folder, tmp_path, row, text, cached):
    put_box(folder, "p03,1500,100,548,2400,1", row)
    cache_dir = tmp_path / "cache" if cached else None
    with pytest.raises(AnnotationsError) as caught:
        for fold in range(4):
            load_labelled_images(folder.root, fold, cache_dir=cache_dir)
    message = str(caught.value)
    assert message.startswith(f"{folder.labels_path}: line 5: box outside the image: ")
    assert text in message
    assert message.endswith("of 2048 x 2500 pixels")


def test_what_rounding_puts_outside_is_cut_off(folder):
    put_box(folder, "p03,1500,100,548,2400,1", "p03,1500,99.5,548.0005,2400.5000000000005,1")
    parts = load_labelled_images(folder.root, 0)
    boxes = {r.patient_id: r.boxes_xywh.tolist() for r in [*parts.train, *parts.valid]}
    assert boxes["p03"] == [[1500, 99.5, 548, 2400.5]]
    assert boxes["p05"] == [[1500, 100, 548, 2400]]


def test_more_boxes_that_leave_their_images_are_counted(folder):
    put_box(folder, "1500,100", "1501,100")
    records = read_records(folder)
    images = open_image_folder(folder.images_dir("train"), [r.patient_id for r in records])
    with pytest.raises(AnnotationsError, match=r"line 3: .*; 7 more boxes leave theirs"):
        fit_boxes(folder.labels_path, records, read_box_sizes(records, images))


def test_labels_without_images_count_as_the_challenges(tmp_path):
    folder = DataFolder(tmp_path)
    records = [Record("a", 2, np.array([[0.0, 0, 10, 20]])), Record("b", 1, np.zeros((0, 4)))]
    assert sizes_of_labelled(folder, records) == {"a": (1024, 1024)}
    records.append(Record("d", 2, np.array([[1000.0, 5, 24.0005, 20]])))
    assert sizes_of_labelled(folder, records)["a"] == (1024, 1024)
    records.append(Record("c", 2, np.array([[2000.0, 5, 9.5, 20]])))
    assert sizes_of_labelled(folder, records)["a"] == (1024, 2010)


def test_boxes_are_stretched_with_their_image():
    record = Record("a", 2, np.array([[10.0, 20, 30, 40]]))
    assert scaled_boxes(record, {"a": (200, 100)}, (100, 100)).tolist() == [[10, 10, 30, 20]]


def test_labels_alone_refuse_no_box_for_its_right_end(folder):
    assert len(read_label_files(folder.labels_path, folder.classes_path)) == 16
