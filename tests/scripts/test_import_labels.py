"""The challenge's label files, made of the labels of other data sets."""

import json
from typing import Any

import cv2
import numpy as np
import pytest

from scripts import import_labels
from scripts.label_truths import ReaderRule, join_boxes
from src.datasets.annotations import read_records
from src.datasets.data_folder import DataFolder
from src.structures import NORMAL, NOT_NORMAL, OPACITY

# patientId -> width, height; category; boxes xyxy: the same labels in every form
TRUTH: dict[str, Any] = {
    "00012": ((640, 512), OPACITY, [(10.5, 20, 110.5, 220), (300, 30, 400, 130)]),
    "lung 2.b": ((1000, 800), OPACITY, [(0, 0, 1000, 800)]),
    "sick": ((600, 600), NOT_NORMAL, []),
    "well": ((512, 700), NORMAL, []),
}
HEART = (5, 5, 50, 50)  # a box of "sick" that is no finding
NAMED = ["patientId=image", "label=what", "image_width=w", "image_height=h"]


def coco() -> dict[str, Any]:
    """Return the truth as a COCO file."""
    images: list[Any] = []
    annotations: list[Any] = []
    for number, (patient, ((width, height), category, boxes)) in enumerate(TRUTH.items()):
        images.append(
            {"id": number, "file_name": f"{patient}.png", "width": width, "height": height}
        )
        others = [(HEART, 2)] if category == NOT_NORMAL else []
        for (x, y, x2, y2), kind in [(box, 1) for box in boxes] + others:
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": kind,
                 "bbox": [x, y, x2 - x, y2 - y]}
            )  # fmt: skip
    categories = [{"id": 1, "name": "opacity"}, {"id": 2, "name": "heart"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(folder, content=None):
    path = folder / "labels.json"
    path.write_text(json.dumps(coco() if content is None else content))
    return path


def table(write_box, *, normal="No finding", empty=""):
    """Return rows of patient, label, four cells of a box, width, height."""
    for patient, (size, category, boxes) in TRUTH.items():
        rows = [("opacity", box) for box in boxes]
        rows += [("heart", HEART)] if category == NOT_NORMAL else []
        for label, box in rows or [(normal, None)]:
            cells = [empty] * 4 if box is None else write_box(box, size)
            yield [patient, label, *cells, *size]


def corners(box, size):
    return list(box)


def lengths(box, size):
    x, y, x2, y2 = box
    return [x, y, x2 - x, y2 - y]


def shares(box, size):
    return [value / side for value, side in zip(box, (*size, *size), strict=True)]


def write_table(folder, rows, header="image,what,x,y,x2,y2,w,h", *, separator=","):
    lines = [header, *(separator.join(map(str, row)) for row in rows)]
    path = folder / "labels.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_vindr(folder):
    rows = [
        [patient, label, reader, *cells]
        for patient, label, *cells, _, _ in table(corners)
        for reader in ("R1", "R2", "R3")
    ]
    return write_table(folder, rows, "image_id,class_name,rad_id,x_min,y_min,x_max,y_max")


@pytest.fixture
def run(tmp_path, call_main):
    """Return a function that imports labels into `data`; by default it must work."""

    def call(path, *flags, ok=True):
        outcome = call_main(import_labels.main, path, "--out", tmp_path / "data", *flags)
        assert outcome.code == (0 if ok else 2), outcome
        if not ok:
            assert outcome.err.splitlines()[-1].startswith("error: ")
            assert "Traceback" not in outcome.err
            assert not (tmp_path / "data").exists()
        return outcome

    return call


@pytest.fixture
def records(tmp_path):
    """Return a function that reads what was imported: patientId -> category, boxes xywh."""

    def read():
        found = read_records(DataFolder(tmp_path / "data"))
        return {r.patient_id: (r.category, r.boxes_xywh.tolist()) for r in found}

    return read


EXPECTED = {
    patient: (category, [lengths(box, size) for box in boxes])
    for patient, (size, category, boxes) in TRUTH.items()
}


# The same labels in every form


def test_coco_gives_the_records(tmp_path, run, records):
    outcome = run(write_coco(tmp_path), "--findings", "opacity")
    assert records() == EXPECTED
    assert outcome.out.startswith("4 images (1 No Lung Opacity / Not Normal, 1 Normal, 2 Lung Opac")


@pytest.mark.parametrize("readers", ["all", "intersection", "agreement"])
def test_vindr_gives_the_records(tmp_path, run, records, readers):
    run(write_vindr(tmp_path), "--findings", "opacity", "--readers", readers)
    assert records() == EXPECTED


@pytest.mark.parametrize(
    ("write_box", "names", "flags"),
    [
        (corners, ["x=x", "y=y", "x2=x2", "y2=y2"], []),
        (lengths, ["x=x", "y=y", "width=x2", "height=y2"], []),
        (shares, ["x=x", "y=y", "x2=x2", "y2=y2"], ["--shares"]),
    ],
)
def test_named_columns_give_the_records(tmp_path, run, records, write_box, names, flags):
    path = write_table(tmp_path, table(write_box))
    run(path, "--columns", *NAMED, *names, "--findings", "opacity", *flags)
    assert records() == EXPECTED


def test_shares_take_the_sizes_of_the_images(tmp_path, run, records):
    images = tmp_path / "images"
    images.mkdir()
    for patient, ((width, height), _, _) in TRUTH.items():
        cv2.imwrite(str(images / f"{patient}.png"), np.zeros((height, width), np.uint8))
    (images / "notes.txt").write_text("no image")
    cv2.imwrite(str(images / "more.jpg"), np.zeros((30, 20), np.uint8))
    path = write_table(tmp_path, table(shares))
    box = ["patientId=image", "label=what", "x=x", "y=y", "x2=x2", "y2=y2"]
    flags = ["--columns", *box, "--findings", "opacity", "--shares", "--num-workers", "0"]
    outcome = run(path, *flags, ok=False)
    assert "line 2: the size of the image is not known" in outcome.out
    run(path, *flags, "--images", images, "--unlisted-normal")
    assert records() == EXPECTED | {"more": (NORMAL, [])}


@pytest.mark.filterwarnings("ignore:3 images have no file")
def test_the_size_of_an_image_must_be_that_of_its_labels(tmp_path, run):
    cv2.imwrite(str(tmp_path / "sick.png"), np.zeros((300, 300), np.uint8))
    outcome = run(write_coco(tmp_path), "--images", tmp_path, ok=False)
    assert "image sick: the labels are of 600 x 600 pixels, the image of 300 x 300" in outcome.out


def test_without_findings_every_box_counts(tmp_path, run, records):
    run(write_coco(tmp_path))
    assert records()["sick"] == (OPACITY, [[5, 5, 45, 45]])


def test_labels_without_a_box_are_not_normal(tmp_path, run, records):
    path = write_table(tmp_path, [["a", "effusion", *[""] * 6], ["b", "Normal", *[""] * 6]])
    run(path, "--columns", "patientId=image", "label=what", "x=x", "y=y", "x2=x2", "y2=y2")
    assert records() == {"a": (NOT_NORMAL, []), "b": (NORMAL, [])}


def test_groups_are_kept(tmp_path, run):
    path = write_table(tmp_path, [["a", "P1", 1, 2, 3, 4], ["b", "P1"]], "image,who,x,y,x2,y2")
    run(path, "--columns", "patientId=image", "groupId=who", "x=x", "y=y", "x2=x2", "y2=y2")
    lines = DataFolder(tmp_path / "data").labels_path.read_text().splitlines()
    assert lines == ["patientId,x,y,width,height,Target,groupId", "a,1.0,2.0,2.0,2.0,1,P1",
                     "b,,,,,0,P1"]  # fmt: skip


# Oddities


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", ";").replace("10.5", "10,5").replace("110.5", "110,5"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("00012", '"00012"').replace("well", '"well"'),
        lambda text: text.replace("00012", "00012.PNG").replace("well", "well.dcm"),
        lambda text: text.replace(",10.5,20,", ",1.05e1,20.0,"),
        lambda text: text.replace("No finding,,,,,", "No finding,NaN,nan,N/A,None,"),
        lambda text: text.replace("No finding", ""),
        lambda text: text.replace(",", ", "),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.removesuffix("\n"),
    ],
    ids=["byte order mark", "semicolons", "decimal commas", "tabs", "line ends", "quoted ids",
         "endings", "floats as text", "NaN boxes", "empty labels", "spaces", "empty lines",
         "no last line end"],
)  # fmt: skip
def test_an_oddity_changes_nothing(tmp_path, run, records, change):
    path = write_table(tmp_path, table(corners))
    path.write_bytes(change(path.read_text()).encode())
    box = ["x=x", "y=y", "x2=x2", "y2=y2"]
    run(path, "--columns", *NAMED, *box, "--findings", "opacity")
    assert records() == EXPECTED


def test_repeated_rows_and_images_count_once(tmp_path, run, records):
    content = coco()
    for name in ("images", "annotations"):
        content[name] += content[name]
    content["images"].append(content["images"][0] | {"id": "once more"})
    with pytest.warns(UserWarning, match="4 repeated rows dropped"):
        run(write_coco(tmp_path, content), "--findings", "opacity")
    assert records() == EXPECTED


def test_a_byte_order_mark_of_coco_changes_nothing(tmp_path, run, records):
    path = write_coco(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    run(path, "--findings", "opacity")
    assert records() == EXPECTED


# Wrong boxes


WRONG = {
    "line 2: 'left' is not a number": ["a", "", "left", 2, 3, 4, 90, 90],
    "line 3: some of x, y, x2, y2 are empty": ["b", "", 1, "", 3, 4, 90, 90],
    "line 4: a box without area: x 5 to 3": ["c", "", 5, 2, 3, 4, 90, 90],
    "line 5: the box leaves the image: x -1 to 3": ["d", "", -1, 2, 3, 4, 90, 90],
    "line 6: the box leaves the image: x 1 to 91, y 2 to 4, of 90 x 90":
        ["e", "", 1, 2, 91, 4, 90, 90],
    "line 7: '1_0' is not a number": ["f", "", "1_0", 2, 91, 4, 90, 90],
    "line 8: 'inf' is not a number": ["g", "", "inf", 2, 91, 4, 90, 90],
    "line 9: the size of the image is not": ["h", "", 1, 2, 3, 4, "wide", 90],
    "line 10: patientId '.i' cannot be": [".i", "", 1, 2, 3, 4, 90, 90],
    "line 11: 'Normal' has a box": ["j", "Normal", 1, 2, 3, 4, 90, 90],
    "line 12: some of image_width, image_height are empty": ["k", "", 1, 2, 3, 4, "", 90],
}  # fmt: skip
GOOD = ["good", "", 1, 2, 3, 4, 90, 90]
BOX = ["x=x", "y=y", "x2=x2", "y2=y2"]


def test_every_wrong_row_is_listed_with_its_line(tmp_path, run, records):
    path = write_table(tmp_path, [*WRONG.values(), GOOD])
    outcome = run(path, "--columns", *NAMED, *BOX, ok=False)
    for problem in WRONG:
        assert f"{path}: {problem}" in outcome.out
    assert f"error: {path}: 11 rows are wrong" in outcome.err
    run(path, "--columns", *NAMED, *BOX, "--skip-faulty")
    assert records() == {"good": (OPACITY, [[1, 2, 2, 2]])}


def test_clip_cuts_off_what_leaves_the_image(tmp_path, run, records):
    rows = [["a", "", -5, 2, 95, 400, 90, 80], ["b", "", 1, 2, 3, 4, 90, 90]]
    run(write_table(tmp_path, rows), "--columns", *NAMED, *BOX, "--clip")
    assert records()["a"] == (OPACITY, [[0, 2, 90, 78]])


def test_what_rounding_puts_outside_is_cut_off_without_clip(tmp_path, run, records):
    rows = [["a", "", -0.0005, 2, 90.001, 80.004, 90, 80]]
    run(write_table(tmp_path, rows), "--columns", *NAMED, *BOX)
    assert records()["a"] == (OPACITY, [[0, 2, 90, 78]])


def test_clip_leaves_nothing_of_a_box_outside(tmp_path, run):
    path = write_table(tmp_path, [["a", "", 100, 2, 110, 40, 90, 80]])
    outcome = run(path, "--columns", *NAMED, *BOX, "--clip", ok=False)
    assert "line 2: the box lies outside of the image" in outcome.out


def test_a_box_without_end_is_refused(tmp_path, run):
    path = write_table(tmp_path, [["a", "", "1e308", 2, "1e308", 40, "", ""]])
    names = ["patientId=image", "x=x", "y=y", "width=x2", "height=y2"]
    outcome = run(path, "--columns", *names, "--clip", ok=False)
    assert "line 2: a box without end" in outcome.out


def test_a_finding_needs_a_box(tmp_path, run):
    path = write_table(tmp_path, [["a", "opacity", *[""] * 6]])
    outcome = run(path, "--columns", *NAMED, *BOX, "--findings", "opacity", ok=False)
    assert "line 2: 'opacity' is a finding, and the row has no box" in outcome.out


def test_a_wrong_box_of_coco_is_named_by_its_place(tmp_path, run):
    content = coco()
    content["annotations"][1]["bbox"] = [1, 2, float("nan"), 4]
    outcome = run(write_coco(tmp_path, content), ok=False)
    assert "annotations[1]: bbox [1, 2, nan, 4] is not four numbers" in outcome.out


# Readers


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ReaderRule("all"), [(0, 0, 10, 10), (50, 50, 60, 60), (2, 0, 12, 10)]),
        (ReaderRule("agreement"), [(1, 0, 11, 10)]),
        (ReaderRule("agreement", min_readers=3), []),
        (ReaderRule("agreement", iou=0.9), []),
        (ReaderRule("agreement", min_readers=1), [(1, 0, 11, 10), (50, 50, 60, 60)]),
        (ReaderRule("intersection"), [(2, 0, 10, 10)]),
    ],
)
def test_boxes_of_readers_join(rule, expected):
    boxes = {"B": [(2, 0, 12, 10)], "A": [(0, 0, 10, 10), (50, 50, 60, 60)]}
    assert join_boxes(boxes, rule) == expected


def test_an_intersection_needs_every_reader():
    boxes = {"A": [(0, 0, 10, 10)], "B": [(0, 0, 10, 10)], "C": []}
    assert join_boxes(boxes, ReaderRule("intersection")) == []
    assert join_boxes(boxes, ReaderRule("agreement")) == [(0, 0, 10, 10)]


def test_an_image_of_boxes_without_agreement_is_not_normal(tmp_path, run, records):
    header = "image_id,class_name,rad_id,x_min,y_min,x_max,y_max"
    rows = [["a", "opacity", "R1", 1, 2, 30, 40], ["a", "No finding", "R2", *[""] * 4]]
    run(write_table(tmp_path, rows, header), "--readers", "agreement")
    assert records() == {"a": (NOT_NORMAL, [])}


# Refusals


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--columns", "patientId=nothing", *BOX], "has no column 'nothing'; it has image, what"),
        (["--columns", "patientId=image", "x=x"], "either x2 and y2 or width and height"),
        (["--columns", "patientId=image", "age=x"], "is not NAME=COLUMN"),
        (["--columns", "patientId=image", "x=x", "x=y"], "names a column twice"),
        (["--columns", *NAMED, *BOX, "--findings", "stone"], "no label is 'stone'; there are"),
        (["--columns", *NAMED, *BOX, "--readers", "agreement"], "does not say who drew"),
        (["--columns", *NAMED, *BOX, "--images", "none"], "none: no such file or folder"),
        ([], "has no column 'image_id'"),
        (["--min-readers", "2"], "--min-readers needs --readers agreement"),
        (["--iou", "0.4"], "--iou needs --readers"),
        (["--unlisted-normal"], "--unlisted-normal needs --images"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path, run, flags, words):
    outcome = run(write_table(tmp_path, table(corners)), *flags, ok=False)
    (line,) = outcome.err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "not a readable JSON file"),
        ("a.json", b"[" * 100_000, "not a readable JSON file"),
        ("a.json", b"[]", "has no list 'images'"),
        ("a.json", b'{"images": [1]}', "images[0]: 1 is not an object"),
        ("a.json", b'{"images": [{"id": true}]}', "True is not an id"),
        ("a.json", b'{"images": [{"id": 1, "file_name": 5}]}', "file_name 5 is not a name"),
        ("a.json", b'{"images": [{"id": 1, "width": 1.5}]}', "width 1.5 is not a number of pix"),
        ("a.json", b'{"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.jpg"}'
                   b']}', "another image is named 'a'"),
        ("a.json", b'{"images": [{"id": 1}, {"id": 1, "width": 4}]}', "the id 1 is another"),
        ("a.json", b'{"images": [{"id": 1}], "categories": [], "annotations": '
                   b'[{"image_id": 2, "category_id": 1}]}', "annotations[0]: image 2 or category"),
        ("a.csv", b"", "not a readable CSV file"),
        ("a.csv", b"a,b\n1,2,3,4\n", "line 2: more cells than the header"),
        ("a.csv", b"a,b\n", "has no rows"),
        ("a.csv", "é,b\n1,2\n".encode("latin-1"), "not UTF-8"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "not UTF-8"),
        ("none.csv", None, "No such file"),
        ("none.json", None, "No such file"),
    ],
)  # fmt: skip
def test_what_is_no_label_file_is_refused_in_one_line(tmp_path, run, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    outcome = run(tmp_path / name, ok=False)
    (line,) = outcome.err.splitlines()
    assert str(tmp_path / name) in line
    assert words in line


def test_labels_that_are_there_are_not_replaced(tmp_path, run, call_main):
    path = write_coco(tmp_path)
    run(path)
    outcome = call_main(import_labels.main, path, "--out", tmp_path / "data")
    assert outcome.code == 2
    assert "stage_2_train_labels.csv: is there already; it is not replaced" in outcome.err
