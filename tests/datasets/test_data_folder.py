import pytest

from src.datasets.data_folder import open_image_folder
from src.system.errors import InputError


def test_missing_images_are_refused_the_first_named_and_the_rest_counted(tmp_path):
    (tmp_path / "b.dcm").touch()
    with pytest.raises(InputError) as caught:
        open_image_folder(tmp_path, ["b", "c", "a", "d"])
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'c.dcm'}: no such file")
    assert "2 more images of 4" in message


def test_a_single_missing_image_is_named(tmp_path):
    (tmp_path / "a.dcm").touch()
    with pytest.raises(InputError) as caught:
        open_image_folder(tmp_path, ["a", "b"])
    assert str(tmp_path / "b.dcm") in str(caught.value)
    assert "more" not in str(caught.value)


def test_a_labelled_image_that_cannot_be_used_is_refused_with_its_cause(tmp_path):
    (tmp_path / "a.dcm").touch()
    (tmp_path / "b.dcm").symlink_to(tmp_path / "nowhere")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(InputError, match=r"b\.dcm: a broken link.*of 2 labelled ones missing"),
    ):
        open_image_folder(tmp_path, ["a", "b"])


def test_images_may_be_missing_until_they_are_asked_for(tmp_path):
    (tmp_path / "a.png").touch()
    images = open_image_folder(tmp_path, ["a", "b"], needs_all=False)
    assert images.image_path("a") == tmp_path / "a.png"
    with pytest.raises(InputError, match=r"b\.dcm: no such file"):
        images.read("b")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"images: no such file"):
        open_image_folder(tmp_path / "images", ["a"])


def test_more_files_than_labels_are_no_fault(tmp_path):
    for name in ("a.dcm", "b.dcm", "notes.txt", "b.png", "._a.dcm"):
        (tmp_path / name).touch()
    assert open_image_folder(tmp_path, ["a"]).names == {"a": "a.dcm"}


def test_what_is_left_out_is_said(tmp_path):
    (tmp_path / "a.dcm").touch()
    (tmp_path / "broken.dcm").symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match=r"1 files or folders cannot be used .*broken\.dcm"):
        open_image_folder(tmp_path, ["a"])
