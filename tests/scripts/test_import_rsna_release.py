"""RSNA's own release into the challenge's layout: built small, in that form, from headers alone."""

import csv
import json
import os
import warnings
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from scripts import import_rsna_release
from scripts.dicom_headers import Header, read_header
from scripts.rsna_release import Findings, Truth, read_annotations
from src.challenge.leaderboard import score_submission
from src.datasets.annotations import read_label_files, read_records
from src.datasets.data_folder import DataFolder
from src.structures import CLASS_NAMES
from src.submission import check_submission
from tests.conftest import Outcome
from tests.paths import ROOT

NOT_NORMAL, NORMAL, OPACITY = CLASS_NAMES
LABEL_IDS = {NOT_NORMAL: "L_n", NORMAL: "L_h", OPACITY: "L_o"}
BOXES: dict[str, list[Any]] = {
    "p1": [(264, 152, 213, 379), (562, 152, 256, 453.5)],
    "p4": [(0, 0, 1024, 1024)],
}
CLASSES = {"p1": OPACITY, "p2": NORMAL, "p3": NOT_NORMAL, "p4": OPACITY, "p5": NORMAL}
UNLABELLED = "p6"
FOLDERS = ("stage_2_train_images", "stage_2_test_images")


def uid_of(patient):
    return f"1.2.276.0.1.{patient[1:]}"


def box_data(box):
    return dict(zip(("x", "y", "width", "height"), box, strict=True))


def annotate(patient, label_id, data=None):
    uid = uid_of(patient)
    return {
        "id": f"A_{patient}", "StudyInstanceUID": f"{uid}.1", "SeriesInstanceUID": f"{uid}.2",
        "SOPInstanceUID": uid, "labelId": label_id, "width": 1024, "height": 1024, "data": data,
    }  # fmt: skip


def write_header(path, patient, *, rows=1024, columns=1024, uid=None):
    """Write a DICOM file with the tags that are read, and without pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = uid or uid_of(patient)
    dataset.PatientID = patient
    dataset.Rows, dataset.Columns = rows, columns
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


class Release:
    """A release that tests can spoil before they write its annotations."""

    def __init__(self, folder):
        self.folder = folder
        self.images_dir = folder / "all images"
        self.annotations = [
            annotate(patient, LABEL_IDS[name], box_data(box) if box else None)
            for patient, name in CLASSES.items()
            for box in BOXES.get(patient, [None])
        ]
        groups = {"Calculated": LABEL_IDS, "Readers": {"Lung Opacity": "R_o"}}
        self.export = {
            "name": "a project",
            "labelGroups": [
                {"name": group, "labels": [{"id": i, "name": n} for n, i in labels.items()]}
                for group, labels in groups.items()
            ],
            "datasets": [{"annotations": self.annotations}],
        }
        for patient in [*CLASSES, UNLABELLED]:
            write_header(self.image_path(patient), patient)

    def image_path(self, patient):
        uid = uid_of(patient)
        return self.images_dir / f"{uid}.1" / f"{uid}.2" / f"{uid}.dcm"

    def write_annotations(self):
        path = self.folder / "annotations.json"
        path.write_text(json.dumps(self.export))
        return path

    def arguments(self, *flags):
        return ["--annotations", self.write_annotations(), "--images", self.images_dir,
                "--out", self.folder / "data", "--num-workers", "0", *flags]  # fmt: skip

    def kaggle_flags(self, *, boxes=BOXES, classes=CLASSES, patients=("p2", "p1", "p3")):
        """Write Kaggle's tables of some patients, and return the flags that name them."""
        folder = self.folder / "kaggle"
        folder.mkdir(exist_ok=True)
        labels, names = ["patientId,x,y,width,height,Target"], ["patientId,class"]
        for patient in patients:
            for box in boxes.get(patient, [None]):
                cells = ",".join(f"{round(v)}.0" for v in box) + ",1" if box else ",,,,0"
                labels.append(f"{patient},{cells}")
                names.append(f"{patient},{classes[patient]}")
        (folder / "labels.csv").write_text("\n".join(labels) + "\n")
        (folder / "classes.csv").write_text("\n".join(names) + "\n")
        return ["--kaggle-labels", folder / "labels.csv",
                "--kaggle-classes", folder / "classes.csv"]  # fmt: skip


@pytest.fixture
def release(tmp_path):
    return Release(tmp_path)


@pytest.fixture
def run_import(release, call_main):
    """Return a function that imports the release; by default it must work."""

    def call(*flags, ok=True):
        outcome = call_main(import_rsna_release.main, *release.arguments(*flags))
        lines = [line.split("\r")[-1] for line in outcome.err.splitlines()]
        outcome = Outcome(
            outcome.code, outcome.out, "\n".join(x for x in lines if "headers:" not in x)
        )
        assert not ok or outcome.code == 0, outcome.err
        return outcome

    return call


@pytest.fixture
def refused(release, call_main, listing):
    """Return a function that imports, and holds what a refused import must not do against it."""

    def call(*flags):
        before = listing(release.folder)
        arguments = release.arguments(*flags)
        before |= listing(release.folder / "annotations.json")
        before |= {str(release.folder): listing(release.folder)[str(release.folder)]}
        outcome = call_main(import_rsna_release.main, *arguments)
        assert outcome.code == 2
        (line,) = [x for x in outcome.err.splitlines() if x.startswith("error: ")]
        assert "Traceback" not in outcome.err
        assert listing(release.folder).keys() == before.keys()
        return line

    return call


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def links_in(folder):
    return {path.name: path for path in folder.iterdir()}


# Without Kaggle's tables


def test_all_that_is_labelled_becomes_the_training_set(release, run_import):
    run_import()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read_records(DataFolder(release.folder / "data"))
    assert {r.patient_id: CLASS_NAMES[r.category] for r in records} == CLASSES
    found = {r.patient_id: [tuple(b) for b in r.boxes_xywh] for r in records if len(r.boxes_xywh)}
    assert found == BOXES
    names = sorted(path.name for path in (release.folder / "data").iterdir())
    assert names == ["stage_2_detailed_class_info.csv", "stage_2_train_images",
                     "stage_2_train_labels.csv"]  # fmt: skip


def test_the_tables_are_in_the_form_of_kaggles(release, run_import):
    run_import()
    labels = (release.folder / "data" / "stage_2_train_labels.csv").read_text().splitlines()
    assert labels[:4] == [
        "patientId,x,y,width,height,Target",
        "p1,264.0,152.0,213.0,379.0,1",
        "p1,562.0,152.0,256.0,453.5,1",
        "p2,,,,,0",
    ]
    classes = read_rows(release.folder / "data" / "stage_2_detailed_class_info.csv")
    assert [row[0] for row in classes] == ["patientId", "p1", "p1", "p2", "p3", "p4", "p5"]


def test_images_are_links_with_the_patients_names(release, run_import):
    run_import()
    links = links_in(release.folder / "data" / "stage_2_train_images")
    assert set(links) == {f"{patient}.dcm" for patient in CLASSES}
    for patient in CLASSES:
        link = links[f"{patient}.dcm"]
        assert link.is_symlink()
        assert link.readlink() == release.image_path(patient)


def test_links_hold_when_the_paths_were_relative(release, call_main, monkeypatch):
    arguments = release.arguments("--images", release.images_dir.name, "--out", "data")
    monkeypatch.chdir(release.folder)
    assert call_main(import_rsna_release.main, *arguments).code == 0
    links = links_in(release.folder / "data" / "stage_2_train_images").values()
    assert all(link.is_file() for link in links)


def test_images_without_annotation_are_counted_and_left_out(run_import):
    outcome = run_import()
    assert "warning: 1 images without annotation: left out" in outcome.err


def test_the_number_of_processes_changes_nothing(release, run_command):
    script = ROOT / "scripts" / "import_rsna_release.py"
    trees = []
    for workers in ("0", "2"):
        out_dir = release.folder / f"data {workers}"
        arguments = release.arguments("--num-workers", workers, "--out", out_dir)
        outcome = run_command(script, *arguments)
        assert outcome.out.splitlines()[0] == str(out_dir)
        assert "headers: 100%" in outcome.err
        files = sorted(out_dir.rglob("*"))
        trees.append({
            str(path.relative_to(out_dir)): path.readlink() if path.is_symlink() else
            path.is_file() and path.read_text() for path in files
        })  # fmt: skip
    assert trees[0] == trees[1]
    assert len(trees[0]) == 3 + len(CLASSES)


# With Kaggle's tables


def test_kaggles_patients_are_the_training_set_and_the_others_the_test_set(release, run_import):
    flags = release.kaggle_flags()
    outcome = run_import(*flags)
    out_dir = release.folder / "data"
    train, test = (set(links_in(out_dir / folder)) for folder in FOLDERS)
    assert (train, test) == ({"p1.dcm", "p2.dcm", "p3.dcm"}, {"p4.dcm", "p5.dcm"})
    for flag, name in ((1, "train_labels"), (3, "detailed_class_info")):
        assert (out_dir / f"stage_2_{name}.csv").read_bytes() == flags[flag].read_bytes()
    assert "labelled otherwise" not in outcome.err
    read_records(DataFolder(out_dir))


def test_the_truth_of_the_test_set_scores_a_submission(release, run_import, tmp_path):
    run_import(*release.kaggle_flags())
    out_dir = release.folder / "data"
    truth_path = out_dir / "stage_2_test_labels.csv"
    records = read_label_files(truth_path)
    assert [(r.patient_id, CLASS_NAMES[r.category]) for r in records] == [
        ("p4", OPACITY), ("p5", NORMAL)
    ]  # fmt: skip
    perfect = tmp_path / "perfect.csv"
    perfect.write_text("patientId,PredictionString\np5,\np4,0.5 0 0 1024 1024\n")
    assert score_submission(perfect, truth_path).score == 1
    sample_path = out_dir / "stage_2_sample_submission.csv"
    assert check_submission(sample_path, sample_path).faults == []
    assert score_submission(sample_path, truth_path).score == 0


def test_an_unlabelled_image_of_kaggles_training_set_is_linked(release, run_import):
    release.annotations[:] = [a for a in release.annotations if a["id"] != "A_p2"]
    run_import(*release.kaggle_flags())
    assert "p2.dcm" in links_in(release.folder / "data" / FOLDERS[0])


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": BOXES | {"p1": BOXES["p1"][:1]}},
        {"boxes": BOXES | {"p1": [(266, 152, 213, 379), BOXES["p1"][1]]}},
        {"classes": CLASSES | {"p2": NOT_NORMAL}},
    ],
    ids=["a box less", "a box elsewhere", "another class"],
)
def test_labels_that_differ_from_kaggles_are_counted(release, run_import, change):
    outcome = run_import(*release.kaggle_flags(**change))
    assert "warning: 1 training images are labelled otherwise in" in outcome.err
    patient = "p2" if "classes" in change else "p1"
    assert f"the first is {patient}; Kaggle's labels are taken" in outcome.err


def test_kaggles_patients_need_an_image(release, refused):
    release.image_path("p3").unlink()
    release.annotations[:] = [a for a in release.annotations if a["id"] != "A_p3"]
    flags = release.kaggle_flags()
    line = refused(*flags)
    assert f"{flags[1]}: 1 of 3 patients have no usable image in the release" in line
    assert line.endswith("the first is p3")


def test_kaggles_tables_leave_a_test_set(release, refused):
    assert "none is left to test" in refused(*release.kaggle_flags(patients=tuple(CLASSES)))


@pytest.mark.parametrize("flag", [0, 2])
def test_kaggles_tables_go_together(release, refused, flag):
    flags = release.kaggle_flags()
    assert "go together; one is missing" in refused(*flags[flag : flag + 2])


# Faults


def spoil_uid(release):
    release.annotations.append(annotate("p9", "L_h"))


def spoil_label(release):
    release.annotations[2]["labelId"] = "L_x"


def spoil_readers_label(release):
    release.export["labelGroups"][0]["labels"].append({"id": "L_q", "name": "Question"})
    release.annotations[2]["labelId"] = "L_q"


def spoil_box(release):
    release.annotations[0]["data"]["width"] = 800


def spoil_height(release):
    release.annotations[0]["data"]["height"] = 873


def spoil_area(release):
    release.annotations[0]["data"]["width"] = 0


def spoil_data_of_a_normal(release):
    release.annotations[2]["data"] = [1, 2, 3]


def spoil_box_of_a_normal(release):
    release.annotations[2]["data"] = box_data((1, 2, 3, 4))


def spoil_data(release):
    release.annotations[0]["data"] = None


def spoil_number(release):
    release.annotations[0]["data"]["x"] = "264"


def spoil_number_without_end(release):
    release.annotations[0]["data"]["x"] = 10**400


def spoil_agreement(release):
    release.annotations.append(annotate("p1", "L_h"))


def spoil_patient(release):
    write_header(release.images_dir / "again.dcm", "p1", uid="1.2.3")


def spoil_instance(release):
    write_header(release.images_dir / "again.dcm", "p8", uid=uid_of("p1"))


def spoil_size(release):
    write_header(release.image_path("p1"), "p1", rows=512)


def spoil_file(release):
    (release.images_dir / "notes.dcm").write_text("no DICOM")


def spoil_name(release):
    write_header(release.images_dir / "other.dcm", "../p7", uid="1.2.3")


def spoil_hidden_name(release):
    write_header(release.images_dir / "other.dcm", ".p7", uid="1.2.3")


def spoil_tags(release):
    write_header(release.images_dir / "other.dcm", "", uid="1.2.3")


FAULTS = [
    (spoil_uid, "1 annotated images without a usable file, the first is 1.2.276.0.1.9", ""),
    (spoil_label, "1 annotations of an unknown label, the first is annotation 2, of image "
                  "1.2.276.0.1.2: labelId 'L_x'", "p2"),
    (spoil_readers_label, "1 annotations of an unknown label, the first is annotation 2, of image "
                          "1.2.276.0.1.2: 'Question'", "p2"),
    (spoil_box, "1 boxes outside their image or without area, the first is annotation 0", "p1"),
    (spoil_height, "1 boxes outside their image or without area, the first is annotation 0", "p1"),
    (spoil_area, "1 boxes outside their image or without area, the first is annotation 0", "p1"),
    (spoil_data_of_a_normal, "1 annotations whose label and data disagree", "p2"),
    (spoil_box_of_a_normal, "1 annotations whose label and data disagree, the first is annotation "
                            "2, of image 1.2.276.0.1.2: 'Normal' with the data {'x': 1", "p2"),
    (spoil_data, "1 annotations whose label and data disagree, the first is annotation 0, of "
                 "image 1.2.276.0.1.1: 'Lung Opacity' with the data None", "p1"),
    (spoil_number, "1 annotations whose label and data disagree", "p1"),
    (spoil_number_without_end, "1 annotations whose label and data disagree", "p1"),
    (spoil_agreement, "1 images with several labels, the first is 1.2.276.0.1.1: Lung Opacity and "
                      "Normal", "p1"),
    (spoil_patient, "2 files that share a PatientID", "p1"),
    (spoil_instance, "2 files that share a SOPInstanceUID", "p1"),
    (spoil_size, "1 files not of 1024 x 1024 pixels", "p1"),
    (spoil_file, "1 files that are no readable DICOM image", ""),
    (spoil_name, "PatientID '../p7' cannot be the name of a file", ""),
    (spoil_hidden_name, "PatientID '.p7' cannot be the name of a file", ""),
    (spoil_tags, "has no SOPInstanceUID and no PatientID", ""),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words", "_"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_a_fault_stops_the_import(release, refused, spoil, words, _):
    spoil(release)
    line = refused()
    assert words in line
    assert line.endswith("--skip-faulty leaves them out")


@pytest.mark.parametrize(("spoil", "words", "lost"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
def test_a_fault_can_be_left_out_with_its_image(release, run_import, spoil, words, lost):
    spoil(release)
    outcome = run_import("--skip-faulty")
    (line,) = [x for x in outcome.err.splitlines() if x.startswith("warning: left out: ")]
    assert words in line
    records = read_records(DataFolder(release.folder / "data"))
    assert {record.patient_id for record in records} == set(CLASSES) - {lost}


def test_all_kinds_of_faults_are_told_at_once(release, refused):
    spoil_box(release)
    spoil_file(release)
    line = refused()
    assert "boxes outside" in line
    assert "no readable DICOM" in line


# What the release is known to have


def test_annotations_without_image_uid_are_counted_and_left_out(release, run_import):
    release.annotations.append(annotate("p1", "L_h") | {"SOPInstanceUID": None})
    unnamed = annotate("p2", "L_o", box_data((1, 2, 3, 4)))
    del unnamed["SOPInstanceUID"]
    release.annotations.append(unnamed)
    assert "warning: 2 annotations without SOPInstanceUID: left out" in run_import().err
    assert len(read_records(DataFolder(release.folder / "data"))) == len(CLASSES)


def test_the_labels_of_other_groups_are_counted_and_left_out(release, run_import):
    release.annotations.append(annotate("p2", "R_o", box_data((1, 2, 3, 4))))
    words = "warning: 1 annotations of other label groups than Calculated: left out"
    assert words in run_import().err
    classes = {r.patient_id: r.category for r in read_records(DataFolder(release.folder / "data"))}
    assert CLASS_NAMES[classes["p2"]] == NORMAL


def test_a_repeated_annotation_counts_once(release, run_import):
    release.annotations += [release.annotations[0], release.annotations[2]]
    assert "warning: 2 repeated annotations: left out" in run_import().err
    records = read_records(DataFolder(release.folder / "data"))
    assert [len(record.boxes_xywh) for record in records] == [2, 0, 0, 1, 0]


def test_read_annotations_joins_the_boxes_of_an_image(release):
    findings = Findings()
    truths = read_annotations(release.write_annotations(), findings)
    assert truths[uid_of("p1")] == Truth(OPACITY, tuple(map(tuple, BOXES["p1"])))
    assert truths[uid_of("p3")] == Truth(NOT_NORMAL, ())
    assert not findings.faults


def test_read_header_reads_no_pixels(tmp_path):
    path = write_header(tmp_path / "a.dcm", "p1")
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff no frames, and no end of them")
    assert read_header(path) == Header(path, "p1", uid_of("p1"), 1024, 1024)


# Mistakes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not JSON", "not a readable JSON file"),
        ("[]", "not an MD.ai export with labelGroups"),
        ('{"labelGroups": [], "datasets": []}', "not an MD.ai export with labelGroups"),
        ('{"labelGroups": [], "datasets": [{"annotations": 3}]}', "is not a list of objects"),
        ('{"labelGroups": [], "datasets": [{"annotations": [3]}]}', "is not a list of objects"),
        ('{"labelGroups": [], "datasets": [{"annotations": []}]}', "no label group 'Calculated'"),
    ],
)
def test_a_file_that_is_no_export_is_refused(release, call_main, content, words):
    arguments = release.arguments()
    (release.folder / "annotations.json").write_text(content)
    outcome = call_main(import_rsna_release.main, *arguments)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {release.folder / 'annotations.json'}: ")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


def test_an_export_without_usable_annotations_is_refused(release, refused):
    release.annotations.clear()
    assert "no image has an annotation that can be used" in refused()


def test_a_folder_that_is_there_is_left_as_it_is(release, refused):
    (release.folder / "data").mkdir()
    (release.folder / "data" / "mine").touch()
    assert f"{release.folder / 'data'}: is there already" in refused()


def test_an_empty_folder_is_taken(release, run_import):
    (release.folder / "data").mkdir()
    run_import()
    assert (release.folder / "data" / FOLDERS[0]).is_dir()


def test_the_data_do_not_go_among_the_images(release, refused):
    out_dir = release.images_dir / "data"
    assert "lies among the images" in refused("--out", out_dir)


@pytest.mark.parametrize(("name", "words"), [("none", "no such folder of images"),
                                             ("empty", "holds no .dcm files")])  # fmt: skip
def test_images_must_be_there(release, refused, name, words):
    (release.folder / "empty").mkdir()
    assert words in refused("--images", release.folder / name)


def test_an_import_that_fails_leaves_nothing_behind(release, call_main, monkeypatch, listing):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_rsna_release, "write_csv", fail)
    arguments = release.arguments()
    before = set(listing(release.folder))
    outcome = call_main(import_rsna_release.main, *arguments)
    assert outcome.code == 2
    assert outcome.err.endswith(
        f"error: {release.folder / 'data'}: cannot be written: No space left on device\n"
    )
    assert set(listing(release.folder)) == before


def test_a_pipe_among_the_images_is_no_readable_header(tmp_path):
    os.mkfifo(tmp_path / "a.dcm")
    assert read_header(tmp_path / "a.dcm") == (
        f"{tmp_path / 'a.dcm'}: cannot be read: not a regular file"
    )
