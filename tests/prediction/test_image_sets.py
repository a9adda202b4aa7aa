"""Which images are predicted: the test images of any data folder, and anybody's own files."""

import os

import cv2
import numpy as np
import pytest

from src.datasets.sample_options import SampleOptions
from src.prediction import image_sets
from src.prediction.image_sets import own_image_set
from src.system.errors import InputError
from tests.dicom_files import write_challenge_dicom

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 50)).astype(np.uint8)


def make_images(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".dcm":
            write_challenge_dicom(path, PIXELS)
        else:
            cv2.imwrite(str(path), PIXELS)


@pytest.mark.parametrize("folder", ["test", "stage_2_test_images"])
def test_test_images_of_any_kind_and_name_need_no_sample_submission(tmp_path, folder):
    make_images(tmp_path / folder, "b.DCM", "a 1.png", "deep/c.v2.jpg", ".hidden.dcm")
    images = image_sets.test_image_set(tmp_path)
    assert dict(zip(images.ids, images.files, strict=True)) == {
        "a 1": "a 1.png",
        "b": "b.DCM",
        "c.v2": "deep/c.v2.jpg",
    }
    assert images.sample_path is None
    assert images.submission_fault is None
    dataset = images.dataset(SampleOptions(img_size=32))
    assert [dataset[i].file_size for i in range(3)] == [(30, 50)] * 3


def test_a_sample_submission_may_name_test_images_by_their_path(tmp_path):
    make_images(tmp_path / "test", "s1/view.png", "s2/view.png")
    with pytest.raises(InputError, match=r"s1/view\.png and s2/view\.png"):
        image_sets.test_image_set(tmp_path)
    sample = tmp_path / "stage_2_sample_submission.csv"
    sample.write_text("patientId,PredictionString\ns2/view,\ns1/view,\n")
    images = image_sets.test_image_set(tmp_path)
    assert images.ids == ("s1/view", "s2/view")
    assert images.sample_path == sample
    assert images.submission_fault is None


@pytest.mark.parametrize("other", ["t00.DCM", "sub/t00.png"])
def test_two_test_images_of_one_patient_are_refused_by_name(tmp_path, other):
    make_images(tmp_path / "test", "t00.dcm", other)
    with pytest.raises(InputError) as caught:
        image_sets.test_image_set(tmp_path)
    assert "t00.dcm" in str(caught.value)
    assert other in str(caught.value)
    own = own_image_set(tmp_path / "test", skip_unreadable=False, n_workers=0)
    assert set(own.ids) == {"t00.dcm", other}


def spoil(folder):
    (folder / "broken.dcm").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.dcm")


@pytest.mark.parametrize("find", [
    lambda path, **options: own_image_set(path / "test", n_workers=0, **options),
    lambda path, **options: image_sets.test_image_set(path, n_workers=0, **options),
])  # fmt: skip
def test_what_cannot_be_used_is_named_and_skipped(tmp_path, find, capsys, recwarn):
    make_images(tmp_path / "test", "a.dcm")
    spoil(tmp_path / "test")
    assert len(find(tmp_path, skip_unreadable=False)) == 1
    (warning,) = recwarn
    assert "2 files or folders cannot be used" in str(warning.message)
    (tmp_path / "test" / "notes.txt").write_text("notes")
    assert len(find(tmp_path, skip_unreadable=True)) == 1
    skipped = capsys.readouterr().err
    for words in ("broken.dcm: a broken link", "pipe.dcm: not a regular", "notes.txt: neither a"):
        assert words in skipped
    assert len(recwarn) == 1


def test_linked_folders_are_predicted(tmp_path):
    make_images(tmp_path / "elsewhere", "b.png")
    make_images(tmp_path / "images", "a.png")
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    images = own_image_set(tmp_path / "images", skip_unreadable=False, n_workers=0)
    assert images.ids == ("a.png", "linked/b.png")
