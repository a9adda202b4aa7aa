"""The demo data set: the archive's form, a picture for every seed, nothing half-made."""

import csv
import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from scripts import make_demo_dataset, phantoms
from scripts.anatomy import Box
from scripts.phantoms import CLASS_SHARES, OPACITY, draw_phantom

SCRIPT = Path(make_demo_dataset.__file__).resolve()
ARGUMENTS = ("--n-train", "5", "--n-test", "2", "--seed", "4")


def make(out_dir: Path, *arguments: str) -> object:
    """Run the command and return its exit code."""
    try:
        make_demo_dataset.main(["--out", str(out_dir), *arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def hash_files(out_dir: Path) -> dict[str, str]:
    files = [path for path in out_dir.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(out_dir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a demo of 5 + 2 images, made by one process from another directory."""
    out_dir = tmp_path_factory.mktemp("with space") / "demo data"
    command = [sys.executable, str(SCRIPT), "--out", out_dir.name, *ARGUMENTS, "--num-workers", "0"]
    subprocess.run(command, cwd=out_dir.parent, check=True, capture_output=True)
    return out_dir


def test_make_demo_dataset_does_not_depend_on_the_number_of_processes(
    demo_dir: Path, tmp_path: Path
) -> None:
    assert make(tmp_path / "other", *ARGUMENTS, "--num-workers", "2") == 0
    assert hash_files(tmp_path / "other") == hash_files(demo_dir)


def test_make_demo_dataset_keeps_an_image_when_the_set_grows(
    demo_dir: Path, tmp_path: Path
) -> None:
    make_demo_dataset.write_case(tmp_path, 4, "train", 3)
    (grown,) = tmp_path.iterdir()
    same = demo_dir / "stage_2_train_images" / grown.name
    assert same.read_bytes() == grown.read_bytes()
    fewer = tmp_path / "fewer"
    assert make(fewer, "--n-train", "2", "--n-test", "0", "--seed", "4", "--num-workers", "0") == 0
    assert set(hash_files(fewer / "stage_2_train_images").items()) < set(
        hash_files(demo_dir / "stage_2_train_images").items()
    )


def test_make_demo_dataset_changes_with_the_seed(demo_dir: Path, tmp_path: Path) -> None:
    other = make_demo_dataset.write_case(tmp_path, 5, "train", 0)
    assert not (demo_dir / "stage_2_train_images" / f"{other.patient_id}.dcm").exists()


def test_make_demo_dataset_writes_the_archives_tables(demo_dir: Path) -> None:
    labels = read_rows(demo_dir / "stage_2_train_labels.csv")
    classes = read_rows(demo_dir / "stage_2_detailed_class_info.csv")
    assert list(labels[0]) == ["patientId", "x", "y", "width", "height", "Target"]
    assert [row["patientId"] for row in labels] == [row["patientId"] for row in classes]
    for label, row in zip(labels, classes, strict=True):
        cells = [label[name] for name in ("x", "y", "width", "height")]
        assert (label["Target"] == "1") == (row["class"] == OPACITY) == all(cells)
        assert any(cells) == all(cells)
        assert all(cell.endswith(".0") for cell in cells if cell)
    assert {row["class"] for row in classes} == set(CLASS_SHARES)
    ids = {row["patientId"] for row in labels}
    assert ids == {path.stem for path in (demo_dir / "stage_2_train_images").iterdir()}
    guesses = read_rows(demo_dir / "stage_2_sample_submission.csv")
    truth = read_rows(demo_dir / "stage_2_test_labels.csv")
    ids = {path.stem for path in (demo_dir / "stage_2_test_images").iterdir()}
    assert {row["patientId"] for row in guesses} == {row["patientId"] for row in truth} == ids
    assert guesses[0]["PredictionString"] == "0.5 0 0 100 100"


def test_make_demo_dataset_writes_the_archives_dicom(demo_dir: Path) -> None:
    path = next((demo_dir / "stage_2_test_images").iterdir())
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert dataset.SOPClassUID.name == "Secondary Capture Image Storage"
    assert dataset.PatientID == path.stem
    assert (dataset.Modality, dataset.BodyPartExamined) == ("CR", "CHEST")
    assert (dataset.PhotometricInterpretation, dataset.BitsStored) == ("MONOCHROME2", 8)
    assert "RescaleSlope" not in dataset
    assert "WindowCenter" not in dataset
    assert dataset.pixel_array.shape == (1024, 1024)
    assert dataset.pixel_array.std() > 30


@pytest.mark.parametrize("seed", range(6))
def test_draw_phantom_puts_boxes_around_what_is_visible(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom = draw_phantom(np.random.default_rng(seed), OPACITY, view="PA", sex="M")
    draw_opacities = phantoms.draw_opacities

    def draw_nothing(*args: Any) -> tuple[np.ndarray, list[Box]]:
        opacity, boxes = draw_opacities(*args)  # for the same random numbers after it
        return 0 * opacity, boxes

    monkeypatch.setattr(phantoms, "draw_opacities", draw_nothing)
    clean = draw_phantom(np.random.default_rng(seed), OPACITY, view="PA", sex="M")
    change = phantom.pixels.astype(float) - clean.pixels
    boxed = np.zeros(change.shape, bool)
    assert 1 <= len(phantom.boxes_xywh) <= 4
    for x, y, width, height in (map(int, box) for box in phantom.boxes_xywh):
        assert 0 <= x < x + width <= 1024
        assert 0 <= y < y + height <= 1024
        boxed[y : y + height, x : x + width] = True
        assert change[y : y + height, x : x + width].mean() > 10
    assert change[boxed].sum() > 0.8 * change.sum()


@pytest.mark.parametrize("n_images", [24, 240])
def test_pick_class_keeps_the_shares_in_a_small_set(n_images: int) -> None:
    for seed in range(20):
        counts = Counter(
            make_demo_dataset.pick_class(np.random.default_rng(seed), i) for i in range(n_images)
        )
        for category, share in CLASS_SHARES.items():
            assert abs(counts[category] - share * n_images) < 3


def test_make_demo_dataset_leaves_a_complete_folder_alone(
    demo_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo_dir.rglob("*")}
    assert make(demo_dir, *ARGUMENTS) == 0
    assert "already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in demo_dir.rglob("*")} == before


def test_make_demo_dataset_refuses_other_arguments_and_lost_images(
    demo_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(demo_dir, *ARGUMENTS[:-1], "5") == 2
    small = ("--n-train", "1", "--n-test", "0", "--num-workers", "0")
    assert make(tmp_path / "demo", *small) == 0
    next((tmp_path / "demo" / "stage_2_train_images").iterdir()).unlink()
    capsys.readouterr()
    assert make(tmp_path / "demo", *small) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_make_demo_dataset_leaves_nothing_behind_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(make_demo_dataset, "_write_tables", fail)
    assert make(tmp_path / "demo", "--n-train", "1", "--n-test", "0", "--num-workers", "0") == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("demo", ["--n-train", "-3"]), ("file", []), ("file/demo", []), ("demo", ["--seed", "x"])],
)
def test_make_demo_dataset_reports_a_users_mistake_in_one_line(
    tmp_path: Path, name: str, arguments: list[str]
) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / name), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
